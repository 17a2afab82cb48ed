//! The body of a request as a stream of bytes, whose end is told apart from a stall and a break.

use axum::extract::Request;
use bytes::Bytes;
use futures::{Stream, TryStreamExt};

use crate::body::BodyError;

/// See the module.
pub(super) fn bytes(request: Request) -> impl Stream<Item = Result<Bytes, BodyError>> + Unpin + Send {
    request
        .into_body()
        .into_data_stream()
        .map_err(|error| if orien_door::is_stall(&error) { BodyError::Stalled } else { BodyError::Broken(error.to_string()) })
}
