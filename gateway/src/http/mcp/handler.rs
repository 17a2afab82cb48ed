//! What MCP asks of a server, answered by the tools: the one handler behind HTTP and standard input and output.
//!
//! Always true: it holds nothing of a caller between two requests, so either era of the protocol finds the same; whatever a model can mend is a result it sees,
//! not an error of the protocol.

use std::sync::Arc;

use axum::http::request::Parts;
use orien_door::Reentry;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, CancelTaskParams, CustomRequest, CustomResult, DetailedTask,
    ErrorCode, GetPromptRequestParams, GetPromptResponse, GetTaskParams, GetTaskResult, Implementation, InitializeRequestParams,
    InitializeResult, ListPromptsResult, ListResourceTemplatesResult, ListToolsResult, PaginatedRequestParams, ReadResourceRequestParams,
    ReadResourceResponse, ServerCapabilities, ServerConfig, TaskPayload, Tool, UpdateTaskParams,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::api::Api;
use super::approval::Approval;
use super::call::Call;
use super::failure::Failure;
use super::reply::Reply;
use super::{catalogue, flat, prompts, resources, runs, sessions, tools, watch};

/// How long a host may keep the list of tools: it changes with the program only, or with a session.
const LIST_TTL_MS: u64 = 30_000;
/// Where the endpoint of a session is.
pub(super) const SESSION_PATH: &str = "/mcp/s/";

/// Methods that are answered here.
const KNOWN_METHODS: [&str; 9] = [
    "initialize",
    "prompts/get",
    "prompts/list",
    "resources/read",
    "resources/templates/list",
    "tasks/cancel",
    "tasks/get",
    "tools/call",
    "tools/list",
];

const INSTRUCTIONS: &str = "ORIEN rents named tools on machines that you do not own, by the second, within a hard USDC budget. \
    The way: find_providers, open_session with a budget, put_file for what a tool reads, list_tools_in_session, run_tool, get_file for what it made, \
    end_session. Money is never spent beyond the budget of a session. A failed call has a code and says in `next` which tool may help.";
const SESSION_INSTRUCTIONS: &str = "The tools here run on a machine that is rented by the second, within a hard USDC budget. Tools work on files of the \
    session's workspace: put_file before, get_file after. session_status shows what is left of the budget; end_session ends it.";

/// What every call works with.
#[derive(Debug)]
pub(super) struct Shared {
    /// The API, if it is not behind the door by which callers come.
    pub(super) remote: Option<Api>,
    pub(super) approval: Approval,
    /// Calls under way, so that what they have begun can be stopped in order.
    pub(super) calls: TaskTracker,
    /// Cancelled when this side stops.
    pub(super) stop: CancellationToken,
}

impl Shared {
    /// Whether callers are gone because we are going.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }
}

/// Which tools are shown.
#[derive(Clone, Debug)]
pub(super) enum View {
    /// The gateway's.
    Whole,
    /// Those of the session that the path of the request names.
    OfPath,
    /// Those of this session.
    Session(String),
}

/// The server of one connection or request.
#[derive(Clone, Debug)]
pub(super) struct Handler {
    pub(super) shared: Arc<Shared>,
    pub(super) view: View,
}

impl Handler {
    /// The session whose endpoint this is.
    fn session(&self, context: &RequestContext<RoleServer>) -> Option<String> {
        match &self.view {
            View::Whole => None,
            View::Session(session) => Some(session.clone()),
            View::OfPath => {
                let path = context.extensions.get::<Parts>().map_or("", |parts| parts.uri.path());
                Some(path.strip_prefix(SESSION_PATH).unwrap_or_default().to_owned())
            }
        }
    }

    fn call(&self, context: RequestContext<RoleServer>) -> Result<Call, ErrorData> {
        let inside = || {
            let parts = context.extensions.get::<Parts>()?;
            parts.extensions.get::<Reentry>().cloned().map(Api::Inside)
        };
        let api = self.shared.remote.clone().or_else(inside);
        let api = api.ok_or_else(|| ErrorData::internal_error("the request did not come through a door", None))?;
        Ok(Call { api, shared: Arc::clone(&self.shared), context, arguments: String::new(), answers: None, state: None })
    }
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_resources().enable_prompts().enable_tasks().build();
        let instructions = if matches!(self.view, View::Whole) { INSTRUCTIONS } else { SESSION_INSTRUCTIONS };
        let this = Implementation::new("orien", env!("CARGO_PKG_VERSION")).with_title("ORIEN");
        ServerConfig::new(capabilities).with_server_info(this).with_instructions(instructions)
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        catalogue::named(name).cloned()
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        context.peer.set_peer_info(request.clone());
        if let Some(session) = self.session(&context) {
            let call = self.call(context)?;
            // A host shows that it is connected; to a session that is not there it is not.
            match sessions::tools_of(&call, &session).await {
                Err(failure) if failure.code() == "session_not_found" => return Err(resources::told(&failure)),
                _ => {}
            }
        }
        self.negotiate_initialize(&request)
    }

    async fn on_custom_request(&self, request: CustomRequest, _: RequestContext<RoleServer>) -> Result<CustomResult, ErrorData> {
        // A request with a method that there is, whose parameters are not those of the method, is read as one of the caller's own.
        if KNOWN_METHODS.contains(&request.method.as_str()) {
            return Err(ErrorData::invalid_params(format!("the params are not those of {}", request.method), None));
        }
        Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, request.method, None))
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools = match self.session(&context) {
            None => catalogue::all().to_vec(),
            Some(session) => {
                let call = self.call(context)?;
                let rented = sessions::tools_of(&call, &session).await.map_err(|failure| resources::told(&failure))?;
                flat::tools(&rented)
            }
        };
        Ok(ListToolsResult::with_all_items(tools).with_ttl_ms(LIST_TTL_MS).with_cache_scope(CacheScope::Private))
    }

    async fn call_tool(&self, request: CallToolRequestParams, context: RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
        let session = self.session(&context);
        let arguments = request.arguments.unwrap_or_default();
        let call = Call {
            arguments: Value::Object(arguments.clone()).to_string(),
            answers: request.input_responses,
            state: request.request_state,
            ..self.call(context)?
        };
        self.shared.calls.track_future(dispatch(&call, &request.name, arguments, session)).await
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        // A session's own endpoint begins where the prompt would lead.
        let prompts = if self.session(&context).is_none() { prompts::all() } else { Vec::new() };
        Ok(ListPromptsResult::with_all_items(prompts).with_ttl_ms(LIST_TTL_MS).with_cache_scope(CacheScope::Private))
    }

    async fn get_prompt(&self, request: GetPromptRequestParams, _: RequestContext<RoleServer>) -> Result<GetPromptResponse, ErrorData> {
        prompts::get(&request.name, request.arguments.as_ref()).map(Into::into)
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let listed = ListResourceTemplatesResult::with_all_items(resources::templates());
        Ok(listed.with_ttl_ms(LIST_TTL_MS).with_cache_scope(CacheScope::Private))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let call = self.call(context)?;
        // What a tool writes next is another content at the same address.
        let read = resources::read_resource(&call, &request.uri).await?.with_ttl_ms(0).with_cache_scope(CacheScope::Private);
        Ok(read.into())
    }

    async fn get_task(&self, request: GetTaskParams, context: RequestContext<RoleServer>) -> Result<GetTaskResult, ErrorData> {
        let is_flat = self.session(&context).is_some();
        let call = self.call(context)?;
        let task = task(&call, &request.task_id, is_flat).await.map_err(|failure| resources::told(&failure))?;
        Ok(GetTaskResult::new(task))
    }

    async fn update_task(&self, request: UpdateTaskParams, context: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        // A run never asks for anything; but it has to be there.
        let call = self.call(context)?;
        watch::fetch(&call, &request.task_id).await.map(|_| ()).map_err(|failure| resources::told(&failure))
    }

    async fn cancel_task(&self, request: CancelTaskParams, context: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        let call = self.call(context)?;
        let stopping = watch::stop(&call, &request.task_id);
        self.shared.calls.track_future(stopping).await.map(|_| ()).map_err(|failure| resources::told(&failure))
    }
}

/// Carries out a call; what goes wrong in it is a result.
async fn dispatch(
    call: &Call,
    name: &str,
    mut arguments: Map<String, Value>,
    session: Option<String>,
) -> Result<CallToolResponse, ErrorData> {
    let is_flat = session.is_some();
    let known = catalogue::named(name).is_some() && (session.is_none() || catalogue::BESIDE_RENTED.contains(&name));
    let reply = match session {
        None if !known => return Err(unknown(name)),
        None => tools::call(call, name, arguments).await,
        Some(session) if known => {
            if catalogue::named(name).is_some_and(|tool| tool.input_schema["properties"].get("session_id").is_some()) {
                arguments.insert("session_id".to_owned(), session.into());
            }
            tools::call(call, name, arguments).await
        }
        Some(session) => match rented(call, name, arguments, &session).await {
            Ok(None) => return Err(unknown(name)),
            Ok(Some(reply)) => Ok(reply),
            Err(failure) => Err(failure),
        },
    };
    Ok(match reply {
        Ok(reply) => reply.into(),
        Err(failure) => result(failure, is_flat).into(),
    })
}

/// A failure, with what to call next among the tools that the caller sees.
fn result(failure: Failure, is_flat: bool) -> CallToolResult {
    failure.result_among(|name| !is_flat || catalogue::BESIDE_RENTED.contains(&name))
}

/// Runs a rented tool by the name that its session's endpoint gives it; none if there is none of that name.
async fn rented(call: &Call, name: &str, mut args: Map<String, Value>, session: &str) -> Result<Option<Reply>, Failure> {
    let rented = sessions::tools_of(call, session).await?;
    let Some(tool) = flat::meant(&rented, name) else { return Ok(None) };
    let flat::Beside { stdin, max_cost_usdc, timeout_seconds } = flat::beside(tool, &mut args)?;
    let input = super::inputs::RunTool {
        session_id: session.to_owned(),
        tool_id: tool.id.clone(),
        args,
        stdin,
        max_cost_usdc,
        timeout_seconds,
        wait_s: None,
        detach: false,
        request_id: None,
    };
    runs::run(call, input).await.map(Some)
}

fn unknown(name: &str) -> ErrorData {
    let shown: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    ErrorData::invalid_params(format!("Unknown tool: {shown}"), None)
}

/// A run as a task, with its result once it is over.
async fn task(call: &Call, id: &str, is_flat: bool) -> Result<DetailedTask, Failure> {
    let run = watch::fetch(call, id).await?;
    let payload = match run.end_reason.as_deref() {
        _ if !run.is_over() => TaskPayload::Working,
        Some("cancelled") => TaskPayload::Cancelled,
        _ => {
            let result = match runs::result(call, &run).await {
                Ok(Reply::Done(result)) => result,
                Ok(_) => return Err(Failure::new("internal", "a run that is over has no result")),
                Err(failure) => result(failure, is_flat),
            };
            let result = serde_json::to_value(result).map_err(|error| Failure::internal(&error))?;
            TaskPayload::Completed { result: result.as_object().cloned().unwrap_or_default() }
        }
    };
    Ok(DetailedTask::new(runs::task(&run), payload))
}
