//! Where the program of a tool is on this machine.
//!
//! Always true: a program that was found has an absolute path to an executable file. The search never looks at the node's own `PATH`, so a file loads
//! the same in a terminal and under a service manager.

use std::path::{Path, PathBuf};

/// Finds programs; the host's own, or a test's.
pub trait Programs {
    /// The absolute path of a program given by name or absolute path, or why there is none.
    fn find(&self, program: &str) -> Result<PathBuf, String>;
}

/// The programs of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostPrograms;

impl Programs for HostPrograms {
    fn find(&self, program: &str) -> Result<PathBuf, String> {
        if program.starts_with('/') {
            return executable(Path::new(program)).map(|()| PathBuf::from(program));
        }
        let mut not_executable = None;
        // Tools get the same `PATH`.
        for folder in orien_sandbox::PATH.split(':') {
            let path = Path::new(folder).join(program);
            match executable(&path) {
                Ok(()) => return Ok(path),
                Err(why) if path.is_file() => not_executable = not_executable.or(Some(why)),
                Err(_) => {}
            }
        }
        Err(not_executable.unwrap_or_else(|| format!("no program `{program}` in {}", orien_sandbox::PATH)))
    }
}

fn executable(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let shown = path.display();
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("no program {shown}"),
        _ => format!("{shown} cannot be looked at: {error}"),
    })?;
    if !metadata.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(format!("{shown} is not executable"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn a_name_is_found_in_the_fixed_path_and_only_as_an_executable_file() {
        let found = HostPrograms.find("sh").unwrap();
        assert!(found.is_absolute() && found.ends_with("sh"));
        assert_eq!(HostPrograms.find("/bin/sh").unwrap(), Path::new("/bin/sh"));
        assert!(HostPrograms.find("no-such-program").unwrap_err().contains("no program `no-such-program` in /usr/local/sbin:"));
        assert!(HostPrograms.find("/no/such").unwrap_err().contains("no program /no/such"));
        assert!(HostPrograms.find("/etc").unwrap_err().contains("not a file"));
        assert!(HostPrograms.find("/etc/passwd").unwrap_err().contains("not executable"));
    }
}
