//! Bodies of requests to the gateway, as any program on the machine may send them.

use std::sync::LazyLock;

use orien_gateway::bodies::{Refused, Route, Wanted, read};
use orien_node::arguments::Refusal;
use orien_protocol::offer::Tool;

use super::provider_config::{bind, offered};

static TOOLS: LazyLock<Vec<Tool>> = LazyLock::new(offered);

/// Byte 0 says for which route the rest is.
pub(crate) fn http_body(input: &[u8]) {
    let Some((route, body)) = input.split_first() else { return };
    let route = match route % 3 {
        0 => Route::Open,
        1 => Route::TopUp,
        _ => Route::Run(&TOOLS),
    };
    let is_object = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let wanted = read(route, body.to_vec());
    assert!(wanted.is_err() || is_object, "a body that is taken is an object");
    match wanted {
        Err(Refused { status, content_type }) => {
            assert!((400..500).contains(&status), "a bad body is the caller's mistake, not {status}");
            assert_eq!(content_type, "application/problem+json");
        }
        Ok(Wanted::Session { expiry, .. }) => assert!((10_000..=8 * 3_600_000).contains(&expiry.0)),
        Ok(Wanted::Budget(_)) => {}
        Ok(Wanted::Run(order)) => {
            let tool = TOOLS.iter().find(|tool| tool.id == order.tool).expect("only a tool of the session");
            assert!(order.max_duration.0 >= 1 && order.max_duration <= tool.max_duration);
            // What passes here fails at the provider only for what only the provider can know.
            match bind(&order.tool, &order.arguments) {
                Ok(_) | Err(Refusal::Option | Refusal::Path(_) | Refusal::TooLongTogether(_)) => {}
                Err(refusal) => panic!("the provider says: {refusal} of {:?}", order.arguments),
            }
        }
    }
}
