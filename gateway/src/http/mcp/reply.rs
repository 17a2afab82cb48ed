//! The answer of a tool: structured content that fits the tool's schema, and a short text that says the same.

use rmcp::model::{CallToolResponse, CallToolResult, ContentBlock, InputRequiredResult, Resource};
use serde::Serialize;

use super::failure::Failure;

/// What a tool call comes to.
#[derive(Debug)]
pub(super) enum Reply {
    /// It is done.
    Done(CallToolResult),
    /// The host has to ask its user first.
    Ask(Box<InputRequiredResult>),
    /// A run goes on, and the host follows it as a task.
    Task(rmcp::model::CreateTaskResult),
}

impl Reply {
    /// A success.
    pub(super) fn new(text: impl Into<String>, structured: &impl Serialize) -> Result<Self, Failure> {
        Self::with_links(text, structured, Vec::new())
    }

    /// A success with links to what is too large to be shown.
    pub(super) fn with_links(text: impl Into<String>, structured: &impl Serialize, links: Vec<Resource>) -> Result<Self, Failure> {
        let structured = serde_json::to_value(structured).map_err(|error| Failure::internal(&error))?;
        let mut content = vec![ContentBlock::text(text)];
        content.extend(links.into_iter().map(ContentBlock::resource_link));
        let mut result = CallToolResult::success(content);
        result.structured_content = Some(structured);
        Ok(Self::Done(result))
    }
}

impl From<Reply> for CallToolResponse {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Done(result) => result.into(),
            Reply::Ask(question) => (*question).into(),
            Reply::Task(task) => task.into(),
        }
    }
}
