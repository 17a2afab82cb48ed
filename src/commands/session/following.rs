//! Following the output of a run to its end, with an eye on its provider: one that cannot be reached is waited for, with a word about it and not for ever.
//!
//! Always true: what has come is shown before anything is given up; nobody waits without being told what for.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::client::Client;
use crate::client::events::Event;
use crate::failure::{Failure, Told};
use crate::interrupt::Interrupt;
use crate::output;
use crate::show::harmless;

/// Events that wait to be shown.
const EVENTS: usize = 256;
/// How long the output may be silent before somebody looks why, and how often that is done.
const LOOK: Duration = Duration::from_secs(2);
/// How long a provider may be out of reach before that is said: most are back at once.
const WORD_AFTER: Duration = Duration::from_secs(5);
/// How long it is waited for: a provider that has not heard of its agent for so long has ended the session itself.
const OPEN_LIMIT: Duration = Duration::from_secs(300);
/// The same in a session that is ending or over: only the last word on the run is missing.
const ENDING_LIMIT: Duration = Duration::from_secs(60);
/// The same for a person who has pressed Ctrl-C.
const INTERRUPTED_LIMIT: Duration = Duration::from_secs(3);

/// What the thread that reads says.
enum Read {
    Event(Event),
    /// It has read everything, or cannot.
    End(Result<()>),
}

/// Shows every event of a run's log until its end, or until its provider is given up.
pub(super) fn follow(client: &Client, run: &str, interrupt: &Interrupt, mut show: impl FnMut(&Event)) -> Result<()> {
    let (events, read) = sync_channel(EVENTS);
    // It ends with the log, or with the command.
    let (own, path) = (client.clone(), format!("/logs/{run}"));
    std::thread::Builder::new().name("log".to_owned()).spawn(move || read_all(&own, &path, &events))?;
    let mut patience = Patience::new();
    loop {
        match read.recv_timeout(LOOK) {
            Ok(Read::Event(event)) => show(&event),
            Ok(Read::End(ended)) => return ended,
            Err(RecvTimeoutError::Disconnected) => bail!("the log of {run} cannot be read any more"),
            Err(RecvTimeoutError::Timeout) => {
                let Some(standing) = Standing::of(client, run) else {
                    // The gateway is away: that is for the thread that reads.
                    patience = Patience::new();
                    continue;
                };
                match patience.look(&standing, interrupt.is_hit(), Instant::now()) {
                    Step::Wait => {}
                    Step::Say(what) => output::note(what),
                    Step::GiveUp(_) if standing.is_over => {
                        output::note("(some output is missing here)");
                        return Ok(());
                    }
                    Step::GiveUp(waited) => return Err(given_up(run, &standing, interrupt.is_hit(), waited)),
                }
            }
        }
    }
}

fn read_all(client: &Client, path: &str, events: &SyncSender<Read>) {
    let ended = client.follow_to(path, "end", |event| events.send(Read::Event(event.clone())).is_ok());
    // Nobody listens any more when the provider was given up.
    let _ = events.send(Read::End(ended));
}

/// Where a run and its session stand.
struct Standing {
    session: String,
    is_over: bool,
    /// Whether the provider can be reached.
    is_reached: bool,
    /// Whether the session takes runs.
    is_open: bool,
}

impl Standing {
    fn of(client: &Client, run: &str) -> Option<Self> {
        let state: Value = client.get(&format!("/executions/{run}")).ok()?;
        let id = state["sessionId"].as_str()?;
        let session: Value = client.get(&format!("/api/sessions/{id}")).ok()?;
        Some(Self {
            session: harmless(id).to_string(),
            is_over: state["status"] == "completed" || state["status"] == "failed",
            is_reached: session["connected"] == true,
            is_open: session["phase"] == "open",
        })
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Wait,
    Say(&'static str),
    /// After so long.
    GiveUp(Duration),
}

/// For how long nothing has changed about a provider that cannot be reached.
struct Patience {
    /// Whether the session is open, and somebody wants to stop; and since when that is so.
    away: Option<((bool, bool), Instant)>,
    is_said: bool,
}

impl Patience {
    const fn new() -> Self {
        Self { away: None, is_said: false }
    }

    fn look(&mut self, standing: &Standing, is_hit: bool, now: Instant) -> Step {
        if standing.is_reached {
            self.away = None;
            return if std::mem::take(&mut self.is_said) { Step::Say("the provider is back") } else { Step::Wait };
        }
        let how = (standing.is_open, is_hit);
        let since = self.away.filter(|(before, _)| *before == how).map_or(now, |(_, since)| since);
        self.away = Some((how, since));
        let waited = now.saturating_duration_since(since);
        let limit = match how {
            (_, true) => INTERRUPTED_LIMIT,
            (true, false) => OPEN_LIMIT,
            (false, false) => ENDING_LIMIT,
        };
        if waited >= limit {
            return Step::GiveUp(waited);
        }
        if waited < WORD_AFTER || std::mem::replace(&mut self.is_said, true) {
            return Step::Wait;
        }
        Step::Say("the provider cannot be reached; waiting for it (Ctrl-C cancels the run)")
    }
}

/// Why nobody waits any longer, and what can be done.
fn given_up(run: &str, standing: &Standing, is_hit: bool, waited: Duration) -> anyhow::Error {
    let id = &standing.session;
    if is_hit {
        output::note(format!(
            "the provider cannot be reached: it hears that {run} is cancelled when it is back; `orien session show {id}` says how it stands"
        ));
        return Told::error(Failure::Interrupted, "interrupted");
    }
    let text = format!(
        "the provider of {run} could not be reached for {} s, and it is not known how the run ended; `orien session logs -f {run}` shows the rest if it comes back, `orien session show {id}` what it cost",
        waited.as_secs()
    );
    Told::coded(Failure::Stopped, "provider_unreachable", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(is_reached: bool, is_open: bool) -> Standing {
        Standing { session: "s".to_owned(), is_over: false, is_reached, is_open }
    }

    #[test]
    fn a_provider_out_of_reach_is_told_once_waited_for_and_given_up_sooner_when_only_the_last_word_is_missing() {
        let (mut patience, begun) = (Patience::new(), Instant::now());
        let mut look =
            |is_reached, is_open, is_hit, at| patience.look(&standing(is_reached, is_open), is_hit, begun + Duration::from_secs(at));
        let word = |step: &Step| matches!(step, Step::Say(what) if what.starts_with("the provider cannot be reached"));
        assert_eq!((look(true, true, false, 0), look(false, true, false, 2)), (Step::Wait, Step::Wait));
        assert!(word(&look(false, true, false, 7)));
        assert_eq!(look(false, true, false, 9), Step::Wait, "once");
        assert_eq!((look(true, true, false, 11), look(true, true, false, 13)), (Step::Say("the provider is back"), Step::Wait));
        assert_eq!(look(false, true, false, 20), Step::Wait);
        assert!(word(&look(false, true, false, 40)));
        assert_eq!((look(false, true, false, 319), look(false, true, false, 320)), (Step::Wait, Step::GiveUp(OPEN_LIMIT)));
        assert_eq!((look(false, false, false, 330), look(false, false, false, 389)), (Step::Wait, Step::Wait));
        assert_eq!(look(false, false, false, 390), Step::GiveUp(ENDING_LIMIT));
        assert_eq!((look(false, true, true, 400), look(false, true, true, 403)), (Step::Wait, Step::GiveUp(INTERRUPTED_LIMIT)));
    }
}
