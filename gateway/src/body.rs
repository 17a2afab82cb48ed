//! How what a caller sends can end too early.

use std::io;

use thiserror::Error;

/// Why there is no more of a body, although it has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum BodyError {
    /// Nothing of it came in for too long.
    #[error("the body stalled")]
    Stalled,
    /// It cannot be read any further.
    #[error("the body broke off: {0}")]
    Broken(String),
}

impl BodyError {
    /// The error below a reader's error, if that was the body's and not of what the body holds.
    pub(crate) fn below(error: &io::Error) -> Option<Self> {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = error.get_ref().map(|inner| inner as _);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found.clone());
            }
            cause = match error.downcast_ref::<io::Error>() {
                Some(error) => error.get_ref().map(|inner| inner as _),
                None => error.source(),
            };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bodys_own_error_is_found_however_deep_readers_have_wrapped_it() {
        let own = io::Error::other(BodyError::Stalled);
        assert_eq!(BodyError::below(&own), Some(BodyError::Stalled));
        assert_eq!(BodyError::below(&io::Error::new(io::ErrorKind::InvalidData, own)), Some(BodyError::Stalled));
        assert_eq!(BodyError::below(&io::Error::other("no archive")), None);
        assert_eq!(BodyError::below(&io::ErrorKind::UnexpectedEof.into()), None);
    }
}
