//! The arguments of a tool: the owner's plain names, or objects with a type.
//!
//! A plain name is a required argument: a file if it is `file` or `path` or ends in `_file` or `_path` (so `scene_file`, `output_path`), else a text. Always true
//! of what is read: choices and defaults are values that a run would accept, and no bound lets in a value that the command could take for an option.

use std::collections::BTreeMap;

use jsonc_parser::ast::Value;
use orien_protocol::job::{ARGUMENT_LIMIT_BYTES, ArgumentValue};
use orien_protocol::offer::{LIST_LIMIT, NAME_LIMIT, PARAMETERS_LIMIT, Parameter, ParameterKind, TEXT_LIMIT};

use super::findings::{Findings, closest, quote};
use super::source::{Field, Fields};
use crate::arguments;
use crate::command::{CommandTemplate, Part, Placement, is_argument_name};

/// Enough for a title, an expression or an address; a provider who wants more says so.
const TEXT_DEFAULT_BYTES: u32 = 1024;
const KEYS: [&str; 9] = ["name", "type", "required", "description", "min", "max", "maxLength", "choices", "default"];
const TYPES: [&str; 6] = ["text", "integer", "number", "boolean", "choice", "file"];

/// What a tool's `args` say.
#[derive(Default)]
pub(super) struct Parameters {
    pub(super) list: Vec<Parameter>,
    pub(super) defaults: BTreeMap<String, ArgumentValue>,
}

/// Reads `args`, and checks them against the command when there is one.
pub(super) fn read(tool: &Fields<'_, '_>, template: Option<&CommandTemplate>, findings: &mut Findings<'_>) -> Parameters {
    let mut parameters = Parameters::default();
    let args = tool.get("args");
    if let Some(args) = args {
        read_list(args, template, &mut parameters, findings);
    }
    if let (Some(template), Some(command)) = (template, tool.get("command")) {
        if let Some(names) = args.map_or(Some(Vec::new()), names) {
            check_known(command, template, &names, findings);
        }
        check_places(command, template, &parameters.list, findings);
        check_gaps(command, template, &parameters, findings);
    }
    parameters
}

/// The names of all arguments, faulty ones too; nothing if one has no name, since any placeholder may mean it.
fn names<'v>(args: &Field<'v, '_>) -> Option<Vec<&'v str>> {
    let entries = args.value.as_array()?.elements.iter();
    let named = entries.map(|entry| match entry {
        Value::StringLit(name) => Some(name.value.as_ref()),
        other => other.as_object()?.get_string("name").map(|name| name.value.as_ref()),
    });
    named.collect()
}

fn read_list(args: &Field<'_, '_>, template: Option<&CommandTemplate>, to: &mut Parameters, findings: &mut Findings<'_>) {
    for entry in args.list(findings, PARAMETERS_LIMIT).unwrap_or_default() {
        let read = match entry.value {
            Value::StringLit(_) => plain(&entry, findings).map(|parameter| (parameter, None)),
            _ => typed(&entry, template, findings),
        };
        let Some((parameter, default)) = read else { continue };
        if to.list.iter().any(|other| other.name == parameter.name) {
            entry.fault(findings, format!("a second argument is named `{}`", parameter.name), "give each argument its own name");
        } else {
            to.defaults.extend(default.map(|value| (parameter.name.clone(), value)));
            to.list.push(parameter);
        }
    }
}

fn name(field: &Field<'_, '_>, findings: &mut Findings<'_>) -> Option<String> {
    let text = field.text(findings, TEXT_LIMIT)?;
    if text.len() <= NAME_LIMIT && is_argument_name(text) {
        return Some(text.to_owned());
    }
    let fix = "use a letter, then letters, digits, _ and -, at most 64 in all, such as `scene_file`";
    field.fault(findings, format!("{} cannot name an argument", quote(text)), fix);
    None
}

fn plain(entry: &Field<'_, '_>, findings: &mut Findings<'_>) -> Option<Parameter> {
    let name = name(entry, findings)?;
    let is_file = ["file", "path"].contains(&name.as_str()) || name.ends_with("_file") || name.ends_with("_path");
    let kind = if is_file { ParameterKind::File } else { ParameterKind::Text { max_bytes: TEXT_DEFAULT_BYTES } };
    Some(Parameter { name, description: String::new(), required: true, kind })
}

fn typed(
    entry: &Field<'_, '_>,
    template: Option<&CommandTemplate>,
    findings: &mut Findings<'_>,
) -> Option<(Parameter, Option<ArgumentValue>)> {
    let fields = entry.object(findings, &KEYS)?;
    let name = fields.required(findings, "name", "\"scene_file\"").and_then(|field| name(field, findings));
    let description = fields.get("description").and_then(|d| d.text(findings, TEXT_LIMIT)).unwrap_or_default().to_owned();
    let required = fields.get("required").map(|r| r.flag(findings));
    let placement = name.as_deref().zip(template).map_or(Placement::AfterEquals, |(name, template)| template.placement(name));
    let kind = fields.required(findings, "type", "\"text\"").and_then(|field| kind(field, &fields, placement, findings))?;
    let default = fields.get("default").and_then(|field| default(field, &kind, placement, findings));
    if let (Some(field), Some(Some(true))) = (fields.get("default"), required) {
        field.fault(findings, "an argument with a default cannot be required", "remove `default` or \"required\": true");
    }
    let required = required.flatten().unwrap_or(fields.get("default").is_none());
    Some((Parameter { name: name?, description, required, kind }, default))
}

fn kind(field: &Field<'_, '_>, fields: &Fields<'_, '_>, placement: Placement, findings: &mut Findings<'_>) -> Option<ParameterKind> {
    let text = field.text(findings, TEXT_LIMIT)?;
    if !TYPES.contains(&text) {
        let fix = match closest(text, TYPES) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write one of {}", TYPES.join(", ")),
        };
        field.fault(findings, format!("{} is not a type of argument", quote(text)), fix);
        return None;
    }
    for (key, types) in
        [("min", &["integer", "number"][..]), ("max", &["integer", "number"]), ("maxLength", &["text"]), ("choices", &["choice"])]
    {
        if let Some(stray) = fields.get(key).filter(|_| !types.contains(&text)) {
            stray.fault(
                findings,
                format!("`{key}` says nothing about an argument of type {text}"),
                format!("remove it, or make the type {}", types.join(" or ")),
            );
        }
    }
    match text {
        "text" => {
            let limit = u32::try_from(ARGUMENT_LIMIT_BYTES).unwrap_or(u32::MAX);
            let max_bytes = fields.get("maxLength").map_or(Some(TEXT_DEFAULT_BYTES), |field| field.whole(findings, 1, limit))?;
            Some(ParameterKind::Text { max_bytes })
        }
        "integer" => bounds(fields, placement, findings).map(|(min, max)| ParameterKind::Integer { min, max }),
        "number" => bounds(fields, placement, findings).map(|(min, max)| ParameterKind::Number { min, max }),
        "boolean" => Some(ParameterKind::Boolean),
        "choice" => choices(fields, placement, findings).map(ParameterKind::Choice),
        _ => Some(ParameterKind::File),
    }
}

/// The bounds of a number. Without `min` it is 0, or unbounded where a minus sign cannot be taken for an option.
fn bounds(fields: &Fields<'_, '_>, placement: Placement, findings: &mut Findings<'_>) -> Option<(i64, i64)> {
    let least = if placement == Placement::AfterEquals { i64::MIN } else { 0 };
    let min = fields.get("min").map_or(Some(least), |field| field.whole(findings, i64::MIN, i64::MAX));
    let max = fields.get("max").map_or(Some(i64::MAX), |field| field.whole(findings, i64::MIN, i64::MAX));
    let (min, max) = min.zip(max)?;
    let culprit = fields.get("min").or(fields.get("max")).unwrap_or(&fields.of);
    if min > max {
        culprit.fault(findings, format!("the smallest value, {min}, is above the largest, {max}"), "correct `min` or `max`");
        return None;
    }
    if min < least {
        let fix = "place it in the command as `--option={name}`, or let `min` be at least 0";
        culprit.fault(findings, "a negative number begins with `-` and could be taken for an option", fix);
        return None;
    }
    Some((min, max))
}

fn choices(fields: &Fields<'_, '_>, placement: Placement, findings: &mut Findings<'_>) -> Option<Vec<String>> {
    let field = fields.required(findings, "choices", "[\"fast\", \"good\"]")?;
    let list = field.list(findings, LIST_LIMIT)?;
    if list.is_empty() {
        field.fault(findings, "there is no choice", "list at least one");
        return None;
    }
    let mut choices: Vec<String> = Vec::new();
    let count = list.len();
    for entry in list {
        let Some(choice) = entry.words(findings, NAME_LIMIT) else { continue };
        if choices.iter().any(|other| other == choice) {
            entry.fault(findings, format!("{} is listed twice", quote(choice)), "keep one of them");
        } else if choice.starts_with('-') && placement != Placement::AfterEquals {
            let fix = "write what stays the same into the command, such as `-O{level}` with the choices \"0\" and \"2\"";
            entry.fault(findings, format!("{} begins with `-` and could be taken for an option", quote(choice)), fix);
        } else {
            choices.push(choice.to_owned());
        }
    }
    (choices.len() == count).then_some(choices)
}

fn default(field: &Field<'_, '_>, kind: &ParameterKind, placement: Placement, findings: &mut Findings<'_>) -> Option<ArgumentValue> {
    let value = match kind {
        ParameterKind::Boolean => ArgumentValue::Boolean(field.flag(findings)?),
        ParameterKind::Integer { min, max } => ArgumentValue::Integer(field.whole(findings, *min, *max)?),
        ParameterKind::Number { .. } => ArgumentValue::Number(field.digits(findings, "a decimal number")?.to_owned()),
        ParameterKind::Text { .. } | ParameterKind::Choice(_) | ParameterKind::File => {
            ArgumentValue::Text(field.text(findings, ARGUMENT_LIMIT_BYTES)?.to_owned())
        }
    };
    match arguments::check(kind, &value, placement) {
        Ok(()) => Some(value),
        Err(refusal) => {
            field.fault(findings, format!("no run would accept this default: it {refusal}"), "write a value that an agent could give");
            None
        }
    }
}

/// Every placeholder names an argument.
fn check_known(command: &Field<'_, '_>, template: &CommandTemplate, names: &[&str], findings: &mut Findings<'_>) {
    let mut unknown: Vec<&str> = template.arguments().filter(|name| !names.contains(name)).collect();
    unknown.sort_unstable();
    unknown.dedup();
    for name in unknown {
        let fix = match closest(name, names.iter().copied()) {
            Some(near) => format!("did you mean `{{{near}}}`?"),
            None => format!("add `{name}` to `args`, or write `{{{{{name}}}}}` for these very letters"),
        };
        command.fault(findings, format!("`{{{name}}}` stands for no argument"), fix);
    }
}

/// Every text stands where it cannot become an option.
fn check_places(command: &Field<'_, '_>, template: &CommandTemplate, list: &[Parameter], findings: &mut Findings<'_>) {
    for word in template.words() {
        let [Part::Literal(before), Part::Argument(name), ..] = word.parts() else { continue };
        let is_text = list.iter().any(|p| p.name == *name && matches!(p.kind, ParameterKind::Text { .. }));
        if !is_text || !before.starts_with('-') || before.ends_with('=') {
            continue;
        }
        if before.bytes().all(|b| b == b'-') {
            let fix = "name the option in the command, or make the argument a choice";
            command.fault(findings, format!("`{before}{{{name}}}` lets an agent give any option"), fix);
        } else {
            command.warn(
                findings,
                format!("`{before}{{{name}}}` puts a text directly after an option: some programs read its letters as more options"),
            );
        }
    }
}

/// Arguments that may be left out without a default, where that changes what the others mean.
fn check_gaps(command: &Field<'_, '_>, template: &CommandTemplate, parameters: &Parameters, findings: &mut Findings<'_>) {
    let may_lack = |name: &str| parameters.list.iter().any(|p| p.name == name && !p.required) && !parameters.defaults.contains_key(name);
    for pair in template.words().windows(2) {
        let [before, word] = pair else { continue };
        let ([Part::Literal(option)], [Part::Argument(name)]) = (before.parts(), word.parts()) else { continue };
        if option.starts_with('-') && may_lack(name) {
            command.warn(findings, format!("without `{name}`, `{option}` is left alone; write `{option}={{{name}}}` or give it a default"));
        }
    }
    let appended = parameters.list.iter().filter(|p| template.placement(&p.name) == Placement::Appended);
    let gap = appended
        .clone()
        .position(|p| may_lack(&p.name))
        .and_then(|at| appended.clone().nth(at).zip(appended.clone().nth(at.saturating_add(1))));
    if let Some((first, next)) = gap {
        command.warn(findings, format!("without `{}`, `{}` takes its place in the command; give it a default", first.name, next.name));
    }
}
