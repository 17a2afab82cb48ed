//! A way back in through the same door, for a part of a role that answers one request by making others, such as a translation of the API.
//!
//! Always true: what is sent this way passes the same checks as a request from outside, under the name and with the credentials of the request that it is made
//! for, so nobody gains a right by it; once the door has closed, nothing passes.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, COOKIE, HOST, HeaderName, ORIGIN};
use axum::response::Response;
use tower::ServiceExt;

use crate::request::{RequestId, X_REQUEST_ID};

/// What says who a request is from and whom it is for.
const CARRIED: [HeaderName; 6] =
    [HOST, AUTHORIZATION, COOKIE, ORIGIN, HeaderName::from_static("sec-fetch-site"), HeaderName::from_static("sec-fetch-mode")];

/// The guarded routes of a door while it is open.
#[derive(Clone, Default)]
pub(crate) struct WayIn(Arc<Mutex<Option<Router>>>);

impl WayIn {
    pub(crate) fn open(&self, router: Router) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(router);
    }

    /// The routes hold whoever holds this; without an end to that, none of them would ever be let go.
    pub(crate) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// The way in for a request with these headers.
    pub(crate) fn of(&self, headers: &HeaderMap, id: &RequestId) -> Reentry {
        let mut carried = HeaderMap::new();
        for name in &CARRIED {
            for value in headers.get_all(name) {
                carried.append(name.clone(), value.clone());
            }
        }
        if let Some(id) = id.header_value() {
            carried.insert(X_REQUEST_ID, id);
        }
        Reentry { way: self.clone(), carried }
    }
}

impl fmt::Debug for WayIn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("WayIn(..)")
    }
}

/// Found in the extensions of every request that the door has let in.
#[derive(Clone)]
pub struct Reentry {
    way: WayIn,
    carried: HeaderMap,
}

impl Reentry {
    /// Sends a request through the door on behalf of the caller of the one that this was found in.
    ///
    /// # Errors
    /// The door has closed.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response, DoorClosed> {
        let router = self.way.0.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(DoorClosed)?;
        for (name, value) in &self.carried {
            request.headers_mut().append(name, value.clone());
        }
        match router.oneshot(request).await {
            Ok(response) => Ok(response),
            Err(never) => match never {},
        }
    }

    /// The host by which the caller addresses the door.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.carried.get(HOST)?.to_str().ok()
    }
}

impl fmt::Debug for Reentry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The credentials are nobody's business.
        formatter.write_str("Reentry(..)")
    }
}

/// The door is no longer open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the door has closed")]
pub struct DoorClosed;
