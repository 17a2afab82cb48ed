//! The floor that everybody knows: a command on another machine by `ssh`, over one connection that is kept.
//!
//! Always true: the server is our own, on a free port of loopback, with keys made for it; it and everything of it are gone afterwards.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use super::figures::find;

/// A server of our own is there within this, or not at all.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Where servers are that ordinary users do not look for.
const SERVER: &str = "/usr/sbin/sshd";

/// Empty; a server that is started by root wants it, and only its packaged service makes it.
const EMPTY: &str = "/run/sshd";

/// A server, and the connection to it.
pub(super) struct Ssh {
    made_empty: bool,
    folder: TempDir,
    client: PathBuf,
    server: Child,
    port: u16,
}

impl Ssh {
    /// Starts a server and connects; the reason why it cannot be measured here otherwise.
    pub(super) fn start() -> anyhow::Result<Self> {
        let client = find("ssh").context("there is no `ssh` (Debian: apt-get install openssh-client)")?;
        let server = find("sshd").unwrap_or_else(|| SERVER.into());
        ensure!(server.is_file(), "there is no `sshd` (Debian: apt-get install openssh-server)");
        let folder = tempfile::Builder::new().prefix("orien-ssh-").tempdir()?;
        let path = folder.path();
        for name in ["host", "user"] {
            let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path.join(name)).output()?;
            ensure!(made.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&made.stderr).trim());
        }
        std::fs::copy(path.join("user.pub"), path.join("allowed"))?;
        // Free at this moment; another program may be faster, which shows as a server that does not start.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        // The shell that starts the command finds none of the user's own start-up files, which may take longer than everything else.
        let settings = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {0}/host\nAuthorizedKeysFile {0}/allowed\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPidFile none\nSetEnv HOME={0}\n\
             Subsystem sftp internal-sftp\n",
            path.display()
        );
        std::fs::write(path.join("sshd_config"), settings)?;
        let log = std::fs::File::create(path.join("log"))?;
        // Anybody else may not make it, and needs none.
        let made_empty = std::fs::create_dir(EMPTY).is_ok();
        let mut command = Command::new(server);
        command.args(["-D", "-e", "-f"]).arg(path.join("sshd_config")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut ssh = Self { made_empty, client, server: command.spawn()?, port, folder };
        ssh.wait_until_it_listens()?;
        let connected = ssh.command(&["-M", "-N", "-f", "-o", "ControlPersist=yes"]).output()?;
        ensure!(connected.status.success(), "ssh: {}", String::from_utf8_lossy(&connected.stderr).trim());
        Ok(ssh)
    }

    fn wait_until_it_listens(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < START_LIMIT {
            if let Some(status) = self.server.try_wait()? {
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                bail!("sshd ended with {status}: {}", log.trim());
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("sshd does not listen")
    }

    fn command(&self, more: &[&str]) -> Command {
        let path = self.folder.path();
        let mut command = Command::new(&self.client);
        let option = |name: &str, value: &Path| format!("{name}={}", value.display());
        command.args(["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]);
        command.args(["-o", &option("UserKnownHostsFile", &path.join("known")), "-o", &option("ControlPath", &path.join("kept"))]);
        command.arg("-i").arg(path.join("user")).args(["-p", &self.port.to_string()]).args(more).arg("127.0.0.1");
        command.stdin(Stdio::null());
        command
    }

    /// One command over the kept connection.
    pub(super) fn run(&self, program: &Path) -> anyhow::Result<Duration> {
        let mut command = self.command(&["-o", "ControlMaster=no"]);
        command.arg(program).stdout(Stdio::null()).stderr(Stdio::null());
        let before = Instant::now();
        let status = command.status()?;
        let took = before.elapsed();
        ensure!(status.success(), "ssh ended with {status}");
        Ok(took)
    }
}

impl Ssh {
    /// A copy over a connection of its own, with the cipher that processors are made for.
    pub(super) fn scp(&self) -> Command {
        let path = self.folder.path();
        let mut command = Command::new(self.client.with_file_name("scp"));
        command.args(["-F", "none", "-q", "-c", "aes128-gcm@openssh.com", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes"]);
        command.args(["-o", "LogLevel=ERROR", "-o", "Compression=no"]).arg("-o");
        command.arg(format!("UserKnownHostsFile={}", path.join("known").display()));
        command.arg("-i").arg(path.join("user")).args(["-P", &self.port.to_string()]).stdin(Stdio::null());
        command
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        // The client's own process of the kept connection ends when it is told so, or when the server is gone.
        let _ = self.command(&["-O", "exit"]).stderr(Stdio::null()).status();
        let _ = self.server.kill();
        let _ = self.server.wait();
        if self.made_empty {
            // Another server may have put something in; then it stays.
            let _ = std::fs::remove_dir(EMPTY);
        }
    }
}
