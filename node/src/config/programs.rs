//! Where the program of a tool is on this machine.
//!
//! Always true: a program that was found has an absolute path to an executable file. The search never looks at the node's own `PATH`, so a file loads
//! the same in a terminal and under a service manager.

use std::path::{Path, PathBuf};

/// Finds programs; the host's own, or a test's.
pub trait Programs {
    /// The absolute path of a program given by name or absolute path, or why there is none.
    fn find(&self, program: &str) -> Result<PathBuf, String>;

    /// The file that the path of a program leads to once all links are followed.
    fn real(&self, program: &Path) -> PathBuf {
        program.to_owned()
    }
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

    fn real(&self, program: &Path) -> PathBuf {
        program.canonicalize().unwrap_or_else(|_| program.to_owned())
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
    fn a_link_to_a_program_is_followed_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        std::fs::write(folder.join("program"), "").unwrap();
        std::os::unix::fs::symlink("program", folder.join("one")).unwrap();
        std::os::unix::fs::symlink("one", folder.join("two")).unwrap();
        assert_eq!(HostPrograms.real(&folder.join("two")), folder.join("program"));
        assert_eq!(HostPrograms.real(Path::new("/no/such")), Path::new("/no/such"));
    }

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
