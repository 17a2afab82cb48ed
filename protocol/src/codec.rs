//! Turns values into bytes and back: the only place that knows bincode.
//!
//! Used for frames, requests and stored records. A limit holds before anything is allocated, every byte must be consumed, and a failure is an error, never a
//! panic. Signed bytes do not come from here.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Largest encoded value: the largest answer to a direct request.
pub const VALUE_LIMIT_BYTES: usize = 1024 * 1024;

const CONFIG: Configuration<LittleEndian, Fixint, Limit<VALUE_LIMIT_BYTES>> =
    bincode::config::standard().with_fixed_int_encoding().with_limit::<VALUE_LIMIT_BYTES>();

/// Bytes are not one value of the expected kind, or a value is too large.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CodecError {
    /// Beyond [`VALUE_LIMIT_BYTES`] or a smaller limit of the caller.
    #[error("{length} bytes are more than the {limit} allowed here")]
    TooLarge {
        /// How many there are.
        length: usize,
        /// How many may be.
        limit: usize,
    },
    /// They cannot be decoded.
    #[error("the bytes are not a {kind}: {reason}")]
    Malformed {
        /// What was expected.
        kind: &'static str,
        /// What the decoder says.
        reason: String,
    },
}

/// Encodes a value.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    bincode::serde::encode_to_vec(value, CONFIG).map_err(|error| malformed::<T>(&error))
}

/// Decodes exactly one value from all of `bytes`, of which there may be `limit`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, CodecError> {
    if bytes.len() > limit {
        return Err(CodecError::TooLarge { length: bytes.len(), limit });
    }
    let (value, used) = bincode::serde::decode_from_slice(bytes, CONFIG).map_err(|error| malformed::<T>(&error))?;
    if used == bytes.len() { Ok(value) } else { Err(malformed::<T>(&format_args!("{} bytes are left over", bytes.len() - used))) }
}

fn malformed<T>(reason: &dyn std::fmt::Display) -> CodecError {
    let kind = std::any::type_name::<T>();
    CodecError::Malformed { kind: kind.rsplit("::").next().unwrap_or(kind), reason: reason.to_string() }
}
