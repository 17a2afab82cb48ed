//! `GET /api/sessions/{id}/evidence`: everything that both sides and settlement signed in a session, as one file that `orien audit` recomputes without us.
//!
//! Always true: what is answered is what is on disk at that moment. The receipts are written while the answer is sent, some at a time, so that a long session needs no second copy
//! of itself in memory.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::stream;
use orien_door::Path;
use orien_protocol::evidence::{Documents, WriteBundleError};
use utoipa::ToSchema;

use super::{Shared, session_id};
use crate::rows::Refusal;

/// Receipts in one piece of the answer: about half a megabyte.
const PIECE: usize = 256;
/// How a bundle without receipts ends.
const OPEN_END: &str = "[]}";

/// The evidence of a session.
#[derive(ToSchema)]
#[schema(as = Evidence, rename_all = "camelCase")]
#[expect(dead_code, reason = "only its shape is used; what is answered is the protocol's SessionBundle")]
struct EvidenceJson {
    /// `orien-session/1`
    format: String,
    /// The network: `id`, `chainId`, `escrow`, `settlementSigner`.
    #[schema(value_type = Object)]
    network: (),
    /// The terms, readable and signed by both.
    #[schema(value_type = Object)]
    session: (),
    /// What settlement reserved last.
    #[schema(value_type = Option<Object>)]
    allowance: (),
    /// The jobs that receipts name, signed by the agent.
    #[schema(value_type = Vec<Object>)]
    jobs: (),
    /// The payee's close.
    #[schema(value_type = Option<Object>)]
    close: (),
    /// Receipts that did not follow and were never answered.
    #[schema(value_type = Vec<Object>)]
    disputed: (),
    /// What the session comes to, and how that is shared.
    #[schema(value_type = Object)]
    totals: (),
    /// Every receipt, signed by the provider, with its voucher, signed by the agent.
    #[schema(value_type = Vec<Object>)]
    receipts: (),
}

/// Everything that was signed in a session, for `orien audit`.
#[utoipa::path(get, path = "/api/sessions/{id}/evidence", operation_id = "getEvidence", tag = "evidence", responses(
    (status = 200, description = "One bundle; save it and run `orien audit FILE`, with no network and no trust in this gateway.", body = EvidenceJson),
    (status = 404, description = "`session_not_found`"),
    (status = 409, description = "`wrong_state`: the provider never signed the terms, so there is nothing to prove."),
))]
pub(super) async fn bundle(State(app): Shared, Path(id): Path<String>) -> Result<Response, Refusal> {
    let session = session_id(&id)?;
    app.view(session).await?;
    let records = app.sessions.context.store.records(session).await?;
    let network = app.sessions.context.network.id().clone();
    // Two signatures of each party, and the hash of every job: off the workers that serve everybody else.
    let prepared = tokio::task::spawn_blocking(move || {
        let documents = Documents::of(records, &network)?;
        documents.head().map(|head| (documents, head))
    });
    let (documents, head) = prepared.await.map_err(|error| Refusal::internal(&error))??;
    let mut head = serde_json::to_string(&head).map_err(|error| Refusal::internal(&error))?;
    head.truncate(head.len().saturating_sub(OPEN_END.len()));
    head.push('[');
    let pieces = Pieces { documents, head: Some(head), next: 0 };
    let body = Body::from_stream(stream::try_unfold(pieces, |pieces| async move {
        // What is on disk was encoded before; if it cannot be encoded again, the file breaks off and is not taken for a whole one.
        pieces.turn().inspect_err(|error| tracing::error!(%error, "evidence cannot be written down"))
    }));
    let name = format!("attachment; filename=\"{session}.evidence.json\"");
    let name = HeaderValue::try_from(name).map_err(|error| Refusal::internal(&error))?;
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json")), (CONTENT_DISPOSITION, name)], body).into_response())
}

struct Pieces {
    documents: Documents,
    /// What comes before the receipts, until it is sent.
    head: Option<String>,
    /// The first receipt that was not sent.
    next: usize,
}

impl Pieces {
    fn turn(mut self) -> std::io::Result<Option<(Bytes, Self)>> {
        if let Some(head) = self.head.take() {
            return Ok(Some((head.into(), self)));
        }
        let all = self.documents.receipts();
        if self.next > all {
            return Ok(None);
        }
        let end = self.next.saturating_add(PIECE).min(all);
        let lines = self.documents.lines(self.next, end).map_err(std::io::Error::other)?;
        let text = serde_json::to_string(&lines)?;
        let inner = text.trim_start_matches('[').trim_end_matches(']');
        let comma = if self.next > 0 && !lines.is_empty() { "," } else { "" };
        let close = if end == all { "]}" } else { "" };
        let piece = format!("{comma}{inner}{close}");
        self.next = if end == all { usize::MAX } else { end };
        Ok(Some((piece.into(), self)))
    }
}

impl From<WriteBundleError> for Refusal {
    fn from(error: WriteBundleError) -> Self {
        match error {
            WriteBundleError::NotAgreed => Self::new(StatusCode::CONFLICT, "wrong_state", "This is not possible now", error),
            WriteBundleError::Codec(_) | WriteBundleError::Overflow(_) => Self::internal(&error),
        }
    }
}
