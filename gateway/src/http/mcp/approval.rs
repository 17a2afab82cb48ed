//! Asking the user before much money is committed.
//!
//! Always true: above the threshold nothing is committed that a person has not agreed to; what was agreed to is the very call with the very amount, and the same
//! consent given twice commits once.
//!
//! It is a question to the user of an honest host. Against anybody else a token's own cap is the limit.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use orien_protocol::money::Usdc;
use rmcp::model::{
    ElicitRequest, ElicitRequestParams, ElicitResult, ElicitationAction, ElicitationSchema, InputRequest, InputRequiredResult,
    ProtocolVersion, RequestStateCodec, SealOptions,
};
use serde::{Deserialize, Serialize};

use super::call::Call;
use super::failure::Failure;

/// How long a question may stand; then it is asked anew.
const QUESTION_LIMIT: Duration = Duration::from_secs(600);
/// The name of the question among those that a host may be asked at once.
const QUESTION: &str = "approval";
/// The field of its form.
const FIELD: &str = "approve";

/// From what amount on a person is asked.
pub(super) struct Approval {
    above: Option<Usdc>,
    /// None if the system gave no random bytes for its key: then nobody can be asked, and nothing above the threshold passes.
    codec: Option<RequestStateCodec>,
}

/// What to do about an amount.
pub(super) enum Decision {
    /// Commit it, under this idempotency key.
    Go(String),
    /// Let the host ask.
    Ask(Box<InputRequiredResult>),
}

/// What a host gives back with the answer.
#[derive(Serialize, Deserialize)]
struct Asked {
    amount: u64,
    key: String,
}

impl Approval {
    /// Asks above this amount; never without one.
    pub(super) fn new(above: Option<Usdc>) -> Self {
        let mut key = [0; 32];
        let codec = getrandom::fill(&mut key).ok().and_then(|()| RequestStateCodec::try_new(key.to_vec()).ok());
        Self { above, codec }
    }
}

impl fmt::Debug for Approval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Approval").field("above", &self.above).finish_non_exhaustive()
    }
}

/// Whether an amount may be committed now. `fresh` is the key to do it under if nobody has to be asked.
pub(super) async fn decide(call: &Call, amount: Usdc, question: &str, fresh: String) -> Result<Decision, Failure> {
    let approval = &call.shared.approval;
    if approval.above.is_none_or(|above| amount <= above) {
        return Ok(Decision::Go(fresh));
    }
    let Some(codec) = &approval.codec else { return Err(refused(call, amount)) };
    // What is agreed to is this question, about this very call.
    let bound = format!("{question}\0{}", call.arguments);
    if let (Some(state), Some(answers)) = (&call.state, &call.answers) {
        let foreign = |_| {
            Failure::new("approval_expired", "the answer does not belong to this question, or came too late; call again to be asked anew")
        };
        let asked: Asked = codec.open_json_with(state, bound.as_bytes()).map_err(foreign)?;
        return agreed(answers.get(QUESTION).cloned(), amount, &asked);
    }
    let able = call.context.client_capabilities().and_then(|capabilities| capabilities.elicitation);
    let forms = able.is_some_and(|able| able.form.is_some() || able.url.is_none());
    if !forms {
        return Err(refused(call, amount));
    }
    let request = ElicitRequestParams::FormElicitationParams { meta: None, message: question.to_owned(), requested_schema: form()? };
    let modern = call.context.protocol_version().is_some_and(|version| version.as_str() >= ProtocolVersion::V_2026_07_28.as_str());
    if modern {
        let asked = Asked { amount: amount.micros(), key: fresh };
        let options = SealOptions::new().associated_data(bound.as_bytes()).ttl(QUESTION_LIMIT);
        let state = codec.seal_json_with(&asked, &options).map_err(|error| Failure::internal(&error))?;
        let questions = BTreeMap::from([(QUESTION.to_owned(), InputRequest::Elicitation(ElicitRequest::new(request)))]);
        return Ok(Decision::Ask(Box::new(InputRequiredResult::new(Some(questions), Some(state)))));
    }
    let asking = call.context.peer.create_elicitation_with_timeout(request, Some(QUESTION_LIMIT));
    let result = tokio::select! {
        () = call.context.ct.cancelled() => return Err(declined()),
        result = asking => result.map_err(|_| refused(call, amount))?,
    };
    agreed(serde_json::to_value(result).ok(), amount, &Asked { amount: amount.micros(), key: fresh })
}

fn agreed(answer: Option<serde_json::Value>, amount: Usdc, asked: &Asked) -> Result<Decision, Failure> {
    let answer: ElicitResult = answer.and_then(|answer| serde_json::from_value(answer).ok()).ok_or_else(declined)?;
    let yes = answer.action == ElicitationAction::Accept && answer.content.as_ref().is_some_and(|content| content[FIELD] == true);
    if yes && asked.amount == amount.micros() { Ok(Decision::Go(asked.key.clone())) } else { Err(declined()) }
}

fn form() -> Result<ElicitationSchema, Failure> {
    let schema = ElicitationSchema::builder().required_bool(FIELD).build();
    schema.map_err(|reason| Failure::new("internal", reason))
}

fn declined() -> Failure {
    Failure::new("approval_declined", "the user did not agree to this amount; ask for less, or ask the user what to do")
}

fn refused(call: &Call, amount: Usdc) -> Failure {
    let above = call.shared.approval.above.unwrap_or(Usdc::ZERO);
    let detail = format!(
        "a person has to agree to {amount} USDC (the limit without asking is {above} USDC), and this host cannot ask: open or raise the session at {}/ or with \
         `orien session`, or ask for less",
        call.api.base()
    );
    Failure::new("approval_required", detail).with("limit_usdc", above.to_string()).with("console", format!("{}/", call.api.base()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(amount: u64) -> Asked {
        Asked { amount, key: "k".to_owned() }
    }

    #[test]
    fn only_a_plain_yes_to_the_same_amount_lets_money_go() {
        let yes = json!({ "action": "accept", "content": { "approve": true } });
        let amount = Usdc::from_micros(7);
        assert!(matches!(agreed(Some(yes.clone()), amount, &asked(7)), Ok(Decision::Go(key)) if key == "k"));
        let others = [
            (yes, 8),
            (json!({ "action": "accept", "content": { "approve": false } }), 7),
            (json!({ "action": "accept", "content": { "approve": "true" } }), 7),
            (json!({ "action": "accept" }), 7),
            (json!({ "action": "decline", "content": { "approve": true } }), 7),
            (json!({ "action": "cancel" }), 7),
            (json!("yes"), 7),
        ];
        for (answer, micros) in others {
            assert!(agreed(Some(answer.clone()), amount, &asked(micros)).is_err(), "{answer} {micros}");
        }
        assert!(agreed(None, amount, &asked(7)).is_err());
    }

    #[test]
    fn what_was_asked_cannot_be_changed_nor_used_for_another_question() {
        let codec = Approval::new(None).codec.unwrap();
        let options = SealOptions::new().associated_data(b"Spend up to 7?").ttl(QUESTION_LIMIT);
        let state = codec.seal_json_with(&asked(7), &options).unwrap();
        assert!(codec.open_json_with::<Asked>(&state, b"Spend up to 7?").is_ok());
        assert!(codec.open_json_with::<Asked>(&state, b"Spend up to 70?").is_err());
        assert!(Approval::new(None).codec.unwrap().open_json_with::<Asked>(&state, b"Spend up to 7?").is_err());
    }
}
