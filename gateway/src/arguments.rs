//! From the `args` of a request to the typed arguments of a job.
//!
//! Always true: what comes out has exactly the parameters of the tool, each with a value of its kind; numbers keep the digits they were written with. Every problem is named at
//! once, not only the first.
//!
//! It does not know workspaces or command lines: whether a file exists, or a text could be taken for an option, is the provider's to say.

use std::fmt;

use orien_protocol::job::{ARGUMENT_LIMIT_BYTES, Argument, ArgumentValue};
use orien_protocol::offer::{NAME_LIMIT, Parameter, ParameterKind, Tool};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Most members of an `args` object that are looked at: twice what a tool can take, so that misspelt ones are named beside right ones.
const MEMBERS_LIMIT: usize = 64;
/// Longest decimal number; more digits than any program reads.
const NUMBER_LIMIT_BYTES: usize = 40;

/// The members of a JSON object, in order, with their exact text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Args(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Args {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Args;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with the tool's arguments")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Args, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    if members.len() >= MEMBERS_LIMIT {
                        return Err(serde::de::Error::custom(format_args!("more than {MEMBERS_LIMIT} arguments")));
                    }
                    members.push(member);
                }
                Ok(Args(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl Args {
    /// The object as JSON text, one space after nothing: as it is stored and shown.
    pub(crate) fn to_json(&self) -> String {
        let members: Vec<String> =
            self.0.iter().map(|(name, value)| format!("{}:{}", serde_json::Value::from(name.as_str()), value.get())).collect();
        format!("{{{}}}", members.join(","))
    }

    /// The arguments of a job for this tool, or everything that is wrong with them.
    pub(crate) fn bind(&self, tool: &Tool) -> Result<Vec<Argument>, Vec<ArgumentProblem>> {
        let mut problems = Vec::new();
        for (index, (name, _)) in self.0.iter().enumerate() {
            if !tool.parameters.iter().any(|p| p.name == *name) {
                problems.push(ArgumentProblem::new(name, format!("is unknown; {} takes {}", tool.id, known(tool))));
            } else if self.0.iter().take(index).any(|(other, _)| other == name) {
                problems.push(ArgumentProblem::new(name, "is given twice".to_owned()));
            }
        }
        let mut arguments = Vec::new();
        for parameter in &tool.parameters {
            match self.0.iter().find(|(name, _)| *name == parameter.name).map(|(_, value)| value.get().trim()) {
                None | Some("null") if parameter.required => {
                    problems.push(ArgumentProblem::new(&parameter.name, format!("is required: {}", expected(&parameter.kind))));
                }
                None | Some("null") => {}
                Some(text) => match value(parameter, text) {
                    Ok(value) => arguments.push(Argument { name: parameter.name.clone(), value }),
                    Err(problem) => problems.push(ArgumentProblem::new(&parameter.name, problem)),
                },
            }
        }
        if problems.is_empty() { Ok(arguments) } else { Err(problems) }
    }
}

/// What is wrong with one argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArgumentProblem {
    /// Its name; shortened if it is no possible one.
    pub(crate) argument: String,
    /// What is wrong, as the end of a sentence that begins with the name.
    pub(crate) problem: String,
}

impl ArgumentProblem {
    fn new(argument: &str, problem: String) -> Self {
        Self { argument: argument.chars().take(NAME_LIMIT).flat_map(char::escape_debug).collect(), problem }
    }
}

impl fmt::Display for ArgumentProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.argument, self.problem)
    }
}

fn known(tool: &Tool) -> String {
    let names: Vec<&str> = tool.parameters.iter().map(|p| p.name.as_str()).collect();
    if names.is_empty() { "no arguments".to_owned() } else { names.join(", ") }
}

fn expected(kind: &ParameterKind) -> String {
    match kind {
        ParameterKind::Text { max_bytes } => format!("one line of text of at most {max_bytes} bytes"),
        ParameterKind::Integer { min, max } => format!("a whole number from {min} to {max}"),
        ParameterKind::Number { min, max } => format!("a number from {min} to {max}"),
        ParameterKind::Boolean => "true or false".to_owned(),
        ParameterKind::Choice(choices) => format!("one of {}", choices.join(", ")),
        ParameterKind::File => "the path of a file in the workspace".to_owned(),
    }
}

fn value(parameter: &Parameter, json: &str) -> Result<ArgumentValue, String> {
    let kind = &parameter.kind;
    let wrong = || format!("has to be {}", expected(kind));
    match kind {
        ParameterKind::Text { max_bytes } => {
            let limit = usize::try_from(*max_bytes).unwrap_or(usize::MAX).min(ARGUMENT_LIMIT_BYTES);
            line(json, limit).map(ArgumentValue::Text).ok_or_else(wrong)
        }
        ParameterKind::File => line(json, ARGUMENT_LIMIT_BYTES).filter(|path| !path.is_empty()).map(ArgumentValue::Text).ok_or_else(wrong),
        ParameterKind::Choice(choices) => {
            line(json, ARGUMENT_LIMIT_BYTES).filter(|text| choices.contains(text)).map(ArgumentValue::Text).ok_or_else(wrong)
        }
        ParameterKind::Boolean => serde_json::from_str(json).map(ArgumentValue::Boolean).map_err(|_| wrong()),
        ParameterKind::Integer { min, max } => {
            let number = serde_json::from_str::<i64>(json).ok().filter(|number| (min..=max).contains(&number));
            number.map(ArgumentValue::Integer).ok_or_else(wrong)
        }
        ParameterKind::Number { min, max } => {
            let text = json.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(json);
            if is_decimal_within(text, *min, *max) { Ok(ArgumentValue::Number(text.to_owned())) } else { Err(wrong()) }
        }
    }
}

/// A JSON string that is one plain line of at most so many bytes.
fn line(json: &str, limit: usize) -> Option<String> {
    serde_json::from_str::<String>(json).ok().filter(|text| text.len() <= limit && !text.chars().any(char::is_control))
}

/// Whether a text is a plain decimal number between two whole bounds, inclusive, compared by its digits.
fn is_decimal_within(text: &str, min: i64, max: i64) -> bool {
    if text.len() > NUMBER_LIMIT_BYTES {
        return false;
    }
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    // Zeros in front are no number of JSON, and providers refuse them.
    if !plain(whole) || !plain(fraction) || (whole.len() > 1 && whole.starts_with('0')) {
        return false;
    }
    let Ok(magnitude) = whole.parse::<i128>() else { return false };
    let whole = if negative { magnitude.saturating_neg() } else { magnitude };
    let (min, max) = (i128::from(min), i128::from(max));
    match (fraction.bytes().any(|b| b != b'0'), negative) {
        (false, _) => min <= whole && whole <= max,
        // Between two whole numbers: strictly inside of both bounds.
        (true, false) => min <= whole && whole < max,
        (true, true) => min < whole && whole <= max,
    }
}

#[cfg(test)]
mod tests {
    use orien_protocol::money::Price;
    use orien_protocol::time::Millis;

    use super::*;

    fn tool(parameters: &[(&str, bool, ParameterKind)]) -> Tool {
        let parameters = parameters.iter().map(|(name, required, kind)| Parameter {
            name: (*name).to_owned(),
            description: String::new(),
            required: *required,
            kind: kind.clone(),
        });
        Tool {
            id: "render".to_owned(),
            name: String::new(),
            description: String::new(),
            command: String::new(),
            parameters: parameters.collect(),
            max_duration: Millis(1),
            cpu_millis: 1000,
            memory_bytes: 1,
            price: Price::default(),
            workspace_required: true,
            capabilities: Vec::new(),
        }
    }

    fn bind(tool: &Tool, json: &str) -> Result<Vec<Argument>, Vec<String>> {
        let args: Args = serde_json::from_str(json).unwrap();
        args.bind(tool).map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn values_of_every_kind_arrive_with_their_exact_digits() {
        let tool = tool(&[
            ("text", true, ParameterKind::Text { max_bytes: 8 }),
            ("count", true, ParameterKind::Integer { min: -5, max: 5 }),
            ("ratio", true, ParameterKind::Number { min: 0, max: 2 }),
            ("fast", true, ParameterKind::Boolean),
            ("mode", true, ParameterKind::Choice(vec!["a".to_owned(), "b".to_owned()])),
            ("scene", true, ParameterKind::File),
            ("extra", false, ParameterKind::Boolean),
        ]);
        let json = r#"{"text":"h\u00e4","count":-5,"ratio":1.10,"fast":true,"mode":"b","scene":"/workspace/a.blend","extra":null}"#;
        let values: Vec<ArgumentValue> = bind(&tool, json).unwrap().into_iter().map(|a| a.value).collect();
        let text = |t: &str| ArgumentValue::Text(t.to_owned());
        let number = ArgumentValue::Number("1.10".to_owned());
        let expected =
            vec![text("h\u{e4}"), ArgumentValue::Integer(-5), number, ArgumentValue::Boolean(true), text("b"), text("/workspace/a.blend")];
        assert_eq!(values, expected);
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let tool = tool(&[("count", true, ParameterKind::Integer { min: 0, max: 5 }), ("scene", true, ParameterKind::File)]);
        let problems = bind(&tool, r#"{"count":6,"sceme":"x","count":1}"#).unwrap_err();
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(problems[0].starts_with("`sceme` is unknown; render takes count, scene"));
        assert!(problems[1].starts_with("`count` is given twice"));
        assert!(problems[2].contains("from 0 to 5"));
        assert!(problems[3].starts_with("`scene` is required"));
    }

    #[test]
    fn values_of_another_kind_are_refused() {
        let cases = [
            (ParameterKind::Integer { min: 0, max: 9 }, vec!["1.0", "\"1\"", "true", "1e0", "10", "[1]"]),
            (
                ParameterKind::Number { min: 0, max: 1 },
                vec!["1e0", "1.01", "-0.1", "\"x\"", "\".5\"", "\"1.\"", "\"00\"", "\"01.0\"", "NaN"],
            ),
            (ParameterKind::Boolean, vec!["1", "\"true\""]),
            (ParameterKind::Text { max_bytes: 3 }, vec!["\"four\"", "\"a\\nb\"", "\"\\u0000\"", "3"]),
            (ParameterKind::File, vec!["\"\"", "7"]),
            (ParameterKind::Choice(vec!["a".to_owned()]), vec!["\"b\"", "\"A\""]),
        ];
        for (kind, texts) in cases {
            for text in texts {
                let Ok(args) = serde_json::from_str::<Args>(&format!("{{\"x\":{text}}}")) else { continue };
                assert!(args.bind(&tool(&[("x", true, kind.clone())])).is_err(), "{kind:?} takes {text}");
            }
        }
    }

    #[test]
    fn decimals_are_compared_by_their_digits() {
        for (text, fits) in [("2", true), ("2.0", true), ("2.0000001", false), ("-1", true), ("-1.5", false), ("-0.5", true), ("0", true)] {
            assert_eq!(is_decimal_within(text, -1, 2), fits, "{text}");
        }
        assert!(!is_decimal_within(&"9".repeat(40), 0, i64::MAX));
    }

    #[test]
    fn args_are_kept_as_they_were_written() {
        let args: Args = serde_json::from_str(r#"{ "a" : 1.10, "b\"" : "x" }"#).unwrap();
        assert_eq!(args.to_json(), r#"{"a":1.10,"b\"":"x"}"#);
        assert!(serde_json::from_str::<Args>("[]").is_err());
    }
}
