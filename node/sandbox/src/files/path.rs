//! Names of files in a workspace, as strangers give them.
//!
//! Always true: a [`WorkPath`] is relative, has no empty, `.` or `..` part, no control character, and bounded length and depth.
//! It says nothing about what is at that path; links are refused when it is opened.

use std::fmt;

use thiserror::Error;

const PATH_BYTES_MAX: usize = 1024;
const PARTS_MAX: usize = 32;
/// The limit of every file system in use.
const PART_BYTES_MAX: usize = 255;
/// How tools see the workspace, and so how agents may name files in it.
const WORKSPACE: &str = "/workspace";

/// A checked path inside a workspace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkPath(String);

/// Why a name is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PathError {
    /// Nothing, or the workspace itself.
    #[error("the path names no file")]
    Empty,
    /// Begins with `/` but not with `/workspace/`.
    #[error("the path is absolute and not below /workspace")]
    Absolute,
    /// Has a part `..`.
    #[error("the path has a part \"..\"")]
    Parent,
    /// Has a part `.` or an empty part.
    #[error("the path has an empty part or a part \".\"")]
    Part,
    /// Holds NUL.
    #[error("the path holds a NUL")]
    Nul,
    /// Holds another control character.
    #[error("the path holds a control character")]
    Control,
    /// Longer than 1024 bytes.
    #[error("the path is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
    /// More than 32 parts.
    #[error("the path has more than {PARTS_MAX} parts")]
    TooDeep,
    /// A part longer than 255 bytes.
    #[error("a part of the path is longer than {PART_BYTES_MAX} bytes")]
    PartTooLong,
    /// Not UTF-8.
    #[error("the path is not UTF-8")]
    NotUtf8,
}

impl WorkPath {
    /// Checks a name: relative, or below `/workspace/`.
    pub fn parse(name: &str) -> Result<Self, PathError> {
        if name.len() > PATH_BYTES_MAX + WORKSPACE.len() {
            return Err(PathError::TooLong);
        }
        let relative = match name.strip_prefix(WORKSPACE) {
            Some("") => "",
            Some(rest) => rest.strip_prefix('/').ok_or(PathError::Absolute)?,
            None => name,
        };
        if relative.is_empty() {
            return Err(PathError::Empty);
        }
        if relative.starts_with('/') {
            return Err(PathError::Absolute);
        }
        if relative.contains('\0') {
            return Err(PathError::Nul);
        }
        if relative.chars().any(char::is_control) {
            return Err(PathError::Control);
        }
        if relative.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if relative.split('/').count() > PARTS_MAX {
            return Err(PathError::TooDeep);
        }
        for part in relative.split('/') {
            match part {
                ".." => return Err(PathError::Parent),
                "" | "." => return Err(PathError::Part),
                long if long.len() > PART_BYTES_MAX => return Err(PathError::PartTooLong),
                _ => {}
            }
        }
        Ok(Self(relative.to_owned()))
    }

    /// The same for a name that arrives as bytes.
    pub fn parse_bytes(name: &[u8]) -> Result<Self, PathError> {
        Self::parse(std::str::from_utf8(name).map_err(|_| PathError::NotUtf8)?)
    }

    /// Relative to the workspace.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// In the order of a walk: a directory, what is below it, then what follows it.
    pub(super) fn walk_order(&self, other: &Self) -> std::cmp::Ordering {
        self.0.split('/').cmp(other.0.split('/'))
    }

    /// Whether this is that path or below it.
    pub(super) fn is_at_or_below(&self, other: &Self) -> bool {
        self.0.strip_prefix(&other.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The directories above it, outermost first, and its own name.
    pub(super) fn split(&self) -> (impl Iterator<Item = &str>, &str) {
        let (above, name) = self.0.rsplit_once('/').unwrap_or(("", &self.0));
        (above.split('/').filter(|part| !part.is_empty()), name)
    }
}

impl fmt::Display for WorkPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_are_accepted_and_workspace_is_stripped() {
        for (given, kept) in [("a", "a"), ("src/main.c", "src/main.c"), ("/workspace/a/b", "a/b"), ("..a/...", "..a/...")] {
            assert_eq!(WorkPath::parse(given).map(|path| path.to_string()), Ok(kept.to_owned()));
        }
    }

    #[test]
    fn each_trick_has_its_own_error() {
        let long = "x".repeat(256);
        let longer = "x/".repeat(600);
        let deep = vec!["x"; 33].join("/");
        let tricks = [
            ("", PathError::Empty),
            ("/workspace", PathError::Empty),
            ("/workspace/", PathError::Empty),
            ("/etc/passwd", PathError::Absolute),
            ("/workspaces/x", PathError::Absolute),
            ("/workspace//etc/passwd", PathError::Absolute),
            ("..", PathError::Parent),
            ("a/../../x", PathError::Parent),
            ("/workspace/../x", PathError::Parent),
            (".", PathError::Part),
            ("a//b", PathError::Part),
            ("a/", PathError::Part),
            ("a\0b", PathError::Nul),
            ("a\nb", PathError::Control),
            (long.as_str(), PathError::PartTooLong),
            (longer.as_str(), PathError::TooLong),
            (deep.as_str(), PathError::TooDeep),
        ];
        for (name, error) in tricks {
            assert_eq!(WorkPath::parse(name), Err(error), "{name:?}");
        }
        assert_eq!(WorkPath::parse_bytes(b"a\xff"), Err(PathError::NotUtf8));
    }
}
