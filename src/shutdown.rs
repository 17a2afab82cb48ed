//! From a signal to an orderly stop: the first one asks, the second one forces.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::output;

/// Cancels `token` at the first SIGINT or SIGTERM and ends the process at the second.
pub(crate) async fn watch(token: CancellationToken) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
        tracing::error!("signals cannot be received; stop the process with SIGKILL");
        return;
    };
    let mut asked = false;
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if asked {
            std::process::exit(130);
        }
        asked = true;
        output::note("stopping; once more to force it");
        token.cancel();
    }
}
