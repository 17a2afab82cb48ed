//! Headers that several routes take, and the shape of what comes from the door.

use utoipa::{IntoParams, ToSchema};

/// The caller's own name for a request that must not be carried out twice.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only its shape is used; the header is read by the door's extractor")]
pub(in crate::http) struct KeyHeader {
    /// A name of your own for this request. The same one with the same body gives the first answer again (header `Idempotency-Replayed: true`) and changes nothing; with
    /// another body it is refused (422 `idempotency_mismatch`); while the first is under way, 409 `in_progress`. An answer of 500 or more frees it.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 255, pattern = "^[ -~]+$", example = "build-42")]
    idempotency_key: String,
}

/// Where a reader of events comes back.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only its shape is used; the header is read by the door's extractor")]
pub(in crate::http) struct FollowHeader {
    /// The id of the last event that you have; those after it are sent first.
    #[param(rename = "Last-Event-ID", value_type = Option<u64>)]
    last_event_id: Option<u64>,
}

/// What the health of every role says first.
#[derive(ToSchema)]
#[schema(as = RoleHealth)]
#[expect(dead_code, reason = "only its shape is used; it is the door's Health")]
pub(in crate::http) struct HealthJson {
    /// `ok` for as long as the role can answer.
    #[schema(example = "ok")]
    status: String,
    /// Seconds since the role was started.
    uptime: u64,
}

/// One server-sent event.
#[derive(ToSchema)]
#[schema(as = Event)]
#[expect(dead_code, reason = "only its shape is used; it is the door's Event")]
pub(in crate::http) struct EventJson {
    /// A number that grows; none for an event that is not counted.
    #[schema(pattern = "^[0-9]+$", nullable = false)]
    id: Option<String>,
    /// What kind.
    #[schema(example = "end")]
    event: String,
    /// JSON on one line.
    data: String,
}

/// One event on a line of its own.
#[derive(ToSchema)]
#[schema(as = EventLine)]
#[expect(dead_code, reason = "only its shape is used; it is the door's Event")]
pub(in crate::http) struct EventLineJson {
    /// As that of a server-sent event.
    #[schema(nullable = false)]
    id: Option<u64>,
    /// What kind; `keep_alive` is only there so that nobody gives up.
    #[schema(example = "end")]
    event: String,
    /// What exactly.
    #[schema(value_type = Object)]
    data: Option<()>,
}
