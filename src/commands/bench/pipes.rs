//! What cannot be faster here for moving bytes: a plain TCP connection, `scp`, and a stream between two peers with nothing around it.
//!
//! Always true: all of them move the same number of bytes over loopback; time is counted until the receiver has the last one.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use orien_net::{Net, NetEvent, NetStream, Role, StreamKind};
use orien_protocol::peer::PeerId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::floors::config;
use super::ssh::Ssh;

/// One write.
const BLOCK_BYTES: usize = 256 * 1024;
/// First byte on a stream: the opener sends, or the other one does.
const UP: u8 = 1;
const DOWN: u8 = 2;

/// So many bytes over a plain connection.
pub(super) fn tcp(bytes: u64) -> anyhow::Result<Duration> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let taking = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let (mut block, mut left) = (vec![0; BLOCK_BYTES], bytes);
        while left > 0 {
            let count = stream.read(&mut block)?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            left = left.saturating_sub(count as u64);
        }
        stream.write_all(&[0])
    });
    let before = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    let (block, mut left) = (vec![7; BLOCK_BYTES], bytes);
    while left > 0 {
        let part = block.get(..usize::try_from(left.min(BLOCK_BYTES as u64))?).unwrap_or_default();
        stream.write_all(part)?;
        left -= part.len() as u64;
    }
    stream.read_exact(&mut [0])?;
    let took = before.elapsed();
    taking.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    Ok(took)
}

/// A file by `scp` with AES-GCM, there and back.
pub(super) fn scp(ssh: &Ssh, file: &Path, bytes: u64) -> anyhow::Result<(Duration, Duration)> {
    let there = file.with_extension("there");
    let back = file.with_extension("back");
    let remote = |path: &Path| format!("127.0.0.1:{}", path.display());
    let took = |from: &str, to: &str| -> anyhow::Result<Duration> {
        let before = Instant::now();
        let done = ssh.scp().args([from, to]).stdout(Stdio::null()).output().context("scp does not start")?;
        let took = before.elapsed();
        ensure!(done.status.success(), "scp: {}", String::from_utf8_lossy(&done.stderr).trim());
        Ok(took)
    };
    let up = took(&file.display().to_string(), &remote(&there))?;
    let down = took(&remote(&there), &back.display().to_string())?;
    for copy in [there, back] {
        ensure!(std::fs::metadata(&copy)?.len() == bytes, "scp did not copy everything");
        std::fs::remove_file(copy)?;
    }
    Ok((up, down))
}

/// Two peers of this process, connected by TCP, TLS and Yamux over loopback.
pub(super) struct Peers {
    near: Net,
    far: PeerId,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Peers {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let (far, mut events, far_task) = orien_net::start(config(3, Role::Server)?, stop.clone())?;
        let (near, mut unused, near_task) = orien_net::start(config(4, Role::Client)?, stop.clone())?;
        let addresses = far.listen_addresses().await?;
        let id = far.local_peer();
        let answers = tokio::spawn(async move {
            // Kept, so that it goes on.
            let _far = far;
            while let Some(event) = events.next().await {
                if let NetEvent::Stream { stream, .. } = event {
                    // The opener notices when it fails.
                    let _ = answer(stream).await;
                }
            }
        });
        let idle = tokio::spawn(async move { while unused.next().await.is_some() {} });
        let ends = [far_task, near_task].map(|task| {
            tokio::spawn(async move {
                // Stopped or broken: the next stream tells.
                let _ = task.await;
            })
        });
        near.connect(id, &addresses).await?;
        Ok(Self { near, far: id, stop, tasks: [answers, idle].into_iter().chain(ends).collect() })
    }

    /// So many bytes from the one who opens the stream to the other, and then the other way round.
    pub(super) async fn stream(&self, bytes: u64) -> anyhow::Result<(Duration, Duration)> {
        let mut took = [Duration::ZERO; 2];
        for (direction, took) in [UP, DOWN].into_iter().zip(&mut took) {
            let mut stream = self.near.open(self.far, StreamKind::File).await?;
            let before = Instant::now();
            stream.write_u8(direction).await?;
            stream.write_u64(bytes).await?;
            if direction == UP {
                send(&mut stream, bytes).await?;
                stream.read_u8().await?;
            } else {
                stream.flush().await?;
                take(&mut stream, bytes).await?;
            }
            *took = before.elapsed();
            stream.shutdown().await?;
        }
        Ok(took.into())
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            // A task that panicked has ended too.
            let _ = task.await;
        }
    }
}

async fn answer(mut stream: NetStream) -> std::io::Result<()> {
    let direction = stream.read_u8().await?;
    let bytes = stream.read_u64().await?;
    if direction == UP {
        take(&mut stream, bytes).await?;
        stream.write_u8(0).await?;
    } else {
        send(&mut stream, bytes).await?;
    }
    stream.shutdown().await?;
    // Until the opener has ended its direction too.
    stream.read_u8().await.map(drop).or(Ok(()))
}

async fn send(stream: &mut NetStream, bytes: u64) -> std::io::Result<()> {
    let (block, mut left) = (vec![7; BLOCK_BYTES], bytes);
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
        stream.write_all(block.get(..count).unwrap_or_default()).await?;
        left -= count as u64;
    }
    stream.flush().await
}

async fn take(stream: &mut NetStream, bytes: u64) -> std::io::Result<()> {
    let (mut block, mut left) = (vec![0; BLOCK_BYTES], bytes);
    while left > 0 {
        let count = stream.read(&mut block).await?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        left = left.saturating_sub(count as u64);
    }
    Ok(())
}
