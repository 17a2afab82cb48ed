//! The one prompt: the whole way from a task to its result, for a user who begins with it.

use rmcp::ErrorData;
use rmcp::model::{GetPromptResult, JsonObject, Prompt, PromptArgument, PromptMessage, Role};

/// Its name.
const NAME: &str = "do_on_a_rented_machine";
const DESCRIPTION: &str = "Do a task with tools on a machine that is rented for it, within a budget";
/// Budget, in USDC, unless the user says another.
const BUDGET: &str = "0.5";
/// Longest argument that is taken into the text.
const ARGUMENT_CHARS: usize = 8000;

/// What a host lists.
pub(super) fn all() -> Vec<Prompt> {
    let arguments = vec![
        PromptArgument::new("task").with_description("What is to be done").with_required(true),
        PromptArgument::new("budget_usdc").with_description("Most that it may cost in USDC; 0.5 unless said").with_required(false),
    ];
    vec![Prompt::new(NAME, Some(DESCRIPTION), Some(arguments)).with_title("Do it on a rented machine")]
}

/// The prompt, filled in.
pub(super) fn get(name: &str, arguments: Option<&JsonObject>) -> Result<GetPromptResult, ErrorData> {
    if name != NAME {
        return Err(ErrorData::invalid_params(format!("the only prompt is {NAME}"), None));
    }
    let known: Vec<String> =
        all().into_iter().flat_map(|prompt| prompt.arguments.unwrap_or_default()).map(|argument| argument.name).collect();
    if let Some(other) = arguments.into_iter().flat_map(|given| given.keys()).find(|name| !known.contains(name)) {
        let shown: String = other.chars().take(80).flat_map(char::escape_debug).collect();
        return Err(ErrorData::invalid_params(format!("the arguments are {}, and not {shown}", known.join(" and ")), None));
    }
    let given = |name: &str| -> Option<String> {
        let text = arguments?.get(name)?.as_str()?.trim();
        (!text.is_empty()).then(|| text.chars().take(ARGUMENT_CHARS).collect())
    };
    let task = given("task").ok_or_else(|| ErrorData::invalid_params("the argument task is required", None))?;
    let budget = given("budget_usdc").unwrap_or_else(|| BUDGET.to_owned());
    let text = format!(
        "Do this on a machine rented through ORIEN, for at most {budget} USDC:\n\n{task}\n\n\
         Find a provider whose tools fit (find_providers, get_provider), open one session with that budget (open_session), bring the files that the tools need \
         (put_file), run them (run_tool, get_run), fetch what they made (get_file), and end the session (end_session) when the task is done or cannot be done. \
         Say at the end what it cost and what was made."
    );
    Ok(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)]).with_description(DESCRIPTION))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_prompt_names_only_tools_that_there_are_and_takes_the_task() {
        let arguments = json!({ "task": "count the stars" });
        let result = get(NAME, arguments.as_object()).unwrap();
        let text = serde_json::to_string(&result).unwrap();
        assert!(text.contains("count the stars") && text.contains("0.5 USDC"), "{text}");
        let named = text.split(|c: char| !c.is_ascii_lowercase() && c != '_').filter(|word| word.contains('_'));
        assert!(named.filter(|word| super::super::catalogue::named(word).is_some()).count() >= 7, "{text}");
        // A budget that is misspelt is not the usual one.
        assert!(get(NAME, json!({ "task": "count", "budget": "3" }).as_object()).is_err());
        assert!(get(NAME, None).is_err() && get("other", arguments.as_object()).is_err());
    }
}
