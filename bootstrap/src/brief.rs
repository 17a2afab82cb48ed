//! Work that blocks for a moment: a commit, or a look at what is stored.
//!
//! Always true: nobody else's task waits for it. Where the runtime has other threads to go on with, the work is done by the thread that asks, because handing it to another one and being
//! woken when it is done takes longer than the work.
//!
//! It does not know what the work is.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Whether a thread of this runtime may block, its other tasks being taken over.
#[must_use]
pub fn may_block_here() -> bool {
    Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
}

/// Does such work; an error means that it panicked or the runtime is going down.
pub async fn brief<T, F>(work: F) -> Result<T, tokio::task::JoinError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    if may_block_here() { Ok(tokio::task::block_in_place(work)) } else { tokio::task::spawn_blocking(work).await }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_runtime_of_one_thread_goes_on_meanwhile() {
        goes_on_meanwhile().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_runtime_whose_only_worker_does_the_work_goes_on_meanwhile() {
        tokio::spawn(goes_on_meanwhile()).await.unwrap();
    }

    async fn goes_on_meanwhile() {
        let (told, hears) = std::sync::mpsc::sync_channel(1);
        let other = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            told.send(()).unwrap();
        });
        brief(move || hears.recv_timeout(Duration::from_secs(20)).unwrap()).await.unwrap();
        other.await.unwrap();
    }
}
