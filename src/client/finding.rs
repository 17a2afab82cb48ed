//! Which gateway a command talks to, and with which token.
//!
//! Always true: what is said on the command line wins over the environment, that over what runs here; where several gateways run here, none is guessed, because each spends somebody's money.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use orien_bootstrap::DoorFile;

use super::{Client, pointer};
use crate::cli::Ask;
use crate::roles;

/// The role of a gateway's door file.
const GATEWAY: &str = "gateway";
/// Longest token.
const TOKEN_BYTES: u64 = 4096;
/// How addresses begin, of doors that speak plain HTTP and of those that speak TLS.
const PLAIN: &str = "http://";
const TLS: &str = "https://";

/// A gateway that a door file speaks of.
struct Found {
    folder: PathBuf,
    door: DoorFile,
}

impl Found {
    fn base(&self) -> String {
        format!("{PLAIN}{}", self.door.address)
    }
}

/// The address of a gateway, and a token that opens its door.
pub(crate) struct Reach {
    pub(crate) base: String,
    pub(crate) token: String,
}

impl Reach {
    /// The gateway that the common words of a command, the environment or this machine name.
    pub(crate) fn find(ask: &Ask) -> anyhow::Result<Self> {
        let said = said_token(ask)?;
        if let Some(base) = ask.gateway.as_deref().map(base).transpose()? {
            let token = match said {
                Some(token) => token,
                // The address of one that runs here: its token is at hand.
                None => match in_reach(ask)?.into_iter().find(|found| found.base() == base) {
                    Some(found) => token_in(&found.door.token_file)?,
                    None => bail!("no token for {base}: say it with --token-file FILE or in ORIEN_TOKEN"),
                },
            };
            return Ok(Self { base, token });
        }
        let found = the_one(in_reach(ask)?, ask)?;
        let token = said.map_or_else(|| token_in(&found.door.token_file), Ok)?;
        Ok(Self { base: found.base(), token })
    }
}

impl Client {
    /// A client for the gateway that [`Reach::find`] finds.
    pub(crate) fn find(ask: &Ask) -> anyhow::Result<Self> {
        let Reach { base, token } = Reach::find(ask)?;
        if base.starts_with(TLS) { Self::over_tls(base, token, ask.ca_file.as_deref()) } else { Ok(Self::at(base, token)) }
    }
}

/// The one gateway that is there.
fn the_one(mut found: Vec<Found>, ask: &Ask) -> anyhow::Result<Found> {
    if found.len() > 1 {
        // A door file may have outlived its process.
        let answers = |found: &Found| Client::at(found.base(), String::new()).is_there();
        let alive: Vec<bool> = found.iter().map(answers).collect();
        if alive.contains(&true) {
            let mut alive = alive.into_iter();
            found.retain(|_| alive.next().unwrap_or(false));
        }
    }
    match (found.pop(), found.first()) {
        (Some(one), None) => Ok(one),
        (Some(one), Some(_)) => {
            found.push(one);
            let list: Vec<String> = found.iter().map(|found| format!("{} ({})", found.base(), found.folder.display())).collect();
            bail!("several gateways run here; say which with --gateway URL or --data-dir DIR: {}", list.join(", "))
        }
        (None, _) => match &ask.data_dir {
            Some(folder) => {
                bail!("no gateway runs in {}; start one with `orien dev --data-dir` or `orien gateway --data-dir`", folder.display())
            }
            None => bail!(
                "no gateway runs here; start one with `orien dev` or `orien gateway`, or say where it is with --gateway URL or --data-dir DIR"
            ),
        },
    }
}

/// Gateways whose door files are where they are looked for.
fn in_reach(ask: &Ask) -> anyhow::Result<Vec<Found>> {
    if let Some(root) = &ask.data_dir {
        return Ok(look(root).into_iter().collect());
    }
    let roots = roles::home().ok().into_iter().chain(pointer::networks());
    let mut found: Vec<Found> = roots.filter_map(|root| look(&root)).collect();
    found.sort_by_key(|found| found.door.address);
    found.dedup_by_key(|found| found.door.address);
    Ok(found)
}

/// The gateway in a folder with one data directory per role, or in its own.
fn look(root: &Path) -> Option<Found> {
    let folders = [root.join(GATEWAY), root.to_owned()].into_iter();
    folders.filter_map(|folder| DoorFile::read(&folder).ok().map(|door| Found { folder, door })).find(|found| found.door.role == GATEWAY)
}

/// A token that the caller says.
fn said_token(ask: &Ask) -> anyhow::Result<Option<String>> {
    match (&ask.token_file, std::env::var("ORIEN_TOKEN")) {
        (Some(file), _) => token_in(file).map(Some),
        (None, Ok(token)) if !token.trim().is_empty() => Ok(Some(token.trim().to_owned())),
        _ => Ok(None),
    }
}

/// The token of a file; tokens that `orien token` made look otherwise than the one of the door, so it is not looked into.
fn token_in(file: &Path) -> anyhow::Result<String> {
    use std::io::Read;
    let open = || std::fs::File::open(file).with_context(|| format!("cannot read the token in {}", file.display()));
    let mut text = String::new();
    open()?.take(TOKEN_BYTES).read_to_string(&mut text).with_context(|| format!("{} is not a token", file.display()))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("{} is not a token", file.display());
    }
    Ok(token.to_owned())
}

/// An address as people write it; one without a scheme is plain HTTP.
fn base(text: &str) -> anyhow::Result<String> {
    let (scheme, rest) = match text.strip_prefix(TLS) {
        Some(rest) => (TLS, rest),
        None => (PLAIN, text.strip_prefix(PLAIN).unwrap_or(text)),
    };
    let host = rest.trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '@', '?', '#', ' ']) {
        bail!("`{text}` is no address of a gateway; one looks like http://127.0.0.1:8402 or https://gateway.example:8402");
    }
    Ok(format!("{scheme}{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_with_or_without_its_scheme_and_nothing_else_is() {
        for text in ["http://127.0.0.1:8402", "127.0.0.1:8402", "http://127.0.0.1:8402/"] {
            assert_eq!(base(text).unwrap(), "http://127.0.0.1:8402");
        }
        for text in ["https://gateway.example", "https://gateway.example/"] {
            assert_eq!(base(text).unwrap(), "https://gateway.example");
        }
        for text in ["", "http://", "https://", "http://a/b", "https://a/b", "http://user@host", "ftp://a", "a b"] {
            assert!(base(text).is_err(), "{text}");
        }
    }
}
