//! Values in, words or refusals out, on tools that were loaded from configurations.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::config::{HostPaths, Programs, load};

struct Everything;

impl Programs for Everything {
    fn find(&self, program: &str) -> Result<PathBuf, String> {
        Ok(PathBuf::from("/usr/bin").join(program))
    }
}

fn tool(command: &str, args: &str) -> ConfiguredTool {
    let text = format!("{{\"providerId\": \"p\", \"tools\": [{{\"id\": \"t\", \"command\": \"{command}\", \"args\": {args}}}]}}");
    load(&text, &Everything, &HostPaths::default()).unwrap().tools.remove(0)
}

fn text(name: &str, value: &str) -> Argument {
    Argument { name: name.to_owned(), value: ArgumentValue::Text(value.to_owned()) }
}

fn words(tool: &ConfiguredTool, arguments: &[Argument]) -> Result<Vec<String>, ArgumentFault> {
    bind(tool, arguments, Path::new("/run/w"))
}

fn refusal(tool: &ConfiguredTool, arguments: &[Argument]) -> Refusal {
    words(tool, arguments).unwrap_err().refusal
}

#[test]
fn files_become_paths_below_the_workspace_and_are_appended_in_the_order_of_the_tool() {
    let render = tool("blender --background --python /scripts/render.py", r#"["scene_file", "output_path"]"#);
    let bound = words(&render, &[text("output_path", "/workspace/out/a.png"), text("scene_file", "in/-scene.blend")]).unwrap();
    assert_eq!(bound, ["--background", "--python", "/scripts/render.py", "/run/w/in/-scene.blend", "/run/w/out/a.png"]);
}

#[test]
fn values_stay_within_their_word_whatever_they_hold() {
    let tool = tool("ffmpeg --title={title} -i {in_file} 'x {title} y'", r#"["in_file", "title"]"#);
    let bound = words(&tool, &[text("title", "--a b; rm -rf / '\\\" $(x) {in_file}"), text("in_file", "a b")]).unwrap_err();
    assert_eq!(bound.to_string(), "the argument `title` begins with `-` and could be taken for an option");
    let bound = words(&tool, &[text("title", "a b; rm -rf / '\" $(x) {in_file}"), text("in_file", "a b")]).unwrap();
    assert_eq!(bound, ["--title=a b; rm -rf / '\" $(x) {in_file}", "-i", "/run/w/a b", "x a b; rm -rf / '\" $(x) {in_file} y"]);
}

#[test]
fn a_value_may_begin_with_a_dash_only_after_an_equals_sign() {
    let guarded = tool("cc --x={a} of={a}", r#"["a"]"#);
    assert_eq!(words(&guarded, &[text("a", "-y")]).unwrap(), ["--x=-y", "of=-y"]);
    for command in ["cc", "cc {a}", "cc -x{a}", "cc {a}=b", "cc --x={a} {a}"] {
        assert_eq!(refusal(&tool(command, r#"["a"]"#), &[text("a", "-y")]), Refusal::Option, "{command}");
    }
    let hollow = tool("cc {a}-rf", r#"["a"]"#);
    assert_eq!(refusal(&hollow, &[text("a", "")]), Refusal::Option);
    assert_eq!(words(&hollow, &[text("a", "x")]).unwrap(), ["x-rf"]);
}

#[test]
fn missing_unknown_and_doubled_arguments_are_named() {
    let tool = tool("cc", r#"["a", "b"]"#);
    assert_eq!(words(&tool, &[text("a", "x")]).unwrap_err().to_string(), "the argument `b` is required");
    let unknown = words(&tool, &[text("a", "x"), text("c", "x")]).unwrap_err();
    assert_eq!(unknown.to_string(), "the argument `c` is unknown; this tool takes a, b");
    assert_eq!(words(&tool, &[text("a", "x"), text("a", "x")]).unwrap_err().to_string(), "the argument `a` is given twice");
    let long = words(&tool, &[text(&"\n".repeat(100_000), "x")]).unwrap_err();
    assert!(long.argument.len() <= 2 * NAME_LIMIT && !long.argument.contains('\n'));
}

#[test]
fn what_is_left_out_takes_its_default_or_its_whole_word_with_it() {
    let args = r#"[{"name": "mode", "type": "choice", "choices": ["fast", "good"], "default": "good"},
                   {"name": "out", "type": "file", "default": "out.bin"}, {"name": "note", "type": "text", "required": false}]"#;
    let tool = tool("cc --mode={mode} --note={note}", args);
    assert_eq!(words(&tool, &[]).unwrap(), ["--mode=good", "/run/w/out.bin"]);
    let given = [text("note", "hi"), text("mode", "fast"), text("out", "o")];
    assert_eq!(words(&tool, &given).unwrap(), ["--mode=fast", "--note=hi", "/run/w/o"]);
}

#[test]
fn each_type_accepts_its_own_values_only() {
    let one = |kind: &str| tool("cc", &format!("[{{\"name\": \"a\", {kind}}}]"));
    let give = |value: ArgumentValue| [Argument { name: "a".to_owned(), value }];
    let number = |text: &str| give(ArgumentValue::Number(text.to_owned()));
    let integer = one(r#""type": "integer", "min": 1, "max": 10"#);
    assert_eq!(words(&integer, &give(ArgumentValue::Integer(10))).unwrap(), ["10"]);
    assert_eq!(refusal(&integer, &give(ArgumentValue::Integer(11))), Refusal::Range { min: 1, max: 10 });
    assert!(matches!(refusal(&integer, &number("5")), Refusal::Type(_)));
    assert!(matches!(refusal(&integer, &[text("a", "5")]), Refusal::Type(_)));
    let boolean = one(r#""type": "boolean""#);
    assert_eq!(words(&boolean, &give(ArgumentValue::Boolean(true))).unwrap(), ["true"]);
    assert!(matches!(refusal(&boolean, &[text("a", "true")]), Refusal::Type(_)));
    let choice = one(r#""type": "choice", "choices": ["x", "y"]"#);
    assert_eq!(words(&choice, &[text("a", "y")]).unwrap(), ["y"]);
    assert_eq!(refusal(&choice, &[text("a", "z")]), Refusal::Choice("x, y".to_owned()));
    let line = one(r#""type": "text", "maxLength": 5"#);
    assert_eq!(words(&line, &[text("a", "a\tb c")]).unwrap(), ["a\tb c"]);
    assert_eq!(refusal(&line, &[text("a", "abcdef")]), Refusal::TooLong(5));
    assert_eq!(refusal(&line, &[text("a", "\u{e9}\u{e9}\u{e9}")]), Refusal::TooLong(5), "bytes are counted, not letters");
    for bad in ["a\0b", "a\nb", "a\rb", "\u{1b}[2J", "\u{85}", "\u{2028}", "\u{2029}", "\u{b}"] {
        assert_eq!(refusal(&line, &[text("a", bad)]), Refusal::Control, "{bad:?}");
    }
    assert!(matches!(refusal(&line, &give(ArgumentValue::Integer(1))), Refusal::Type(_)));
}

#[test]
fn decimal_numbers_are_compared_exactly() {
    let range = Refusal::Range { min: -2, max: 3 };
    let kind = ParameterKind::Number { min: -2, max: 3 };
    let number = |text: &str| check(&kind, &ArgumentValue::Number(text.to_owned()), Placement::AfterEquals);
    for text in ["0", "3", "3.000", "2.9999999999999999999999", "-2", "-2.0", "-1.5", "-0"] {
        assert_eq!(number(text), Ok(()), "{text}");
    }
    for text in ["3.0000000000000000000001", "-2.000000000001", "4", "-3", &"9".repeat(40)] {
        assert_eq!(number(text), Err(range.clone()), "{text}");
    }
    for text in ["", "-", ".5", "5.", "1e3", "+1", "0x1", "01", "1,5", " 1", "1.-5", "NaN", "--1"] {
        assert!(matches!(number(text), Err(Refusal::Type(_))), "{text}");
    }
    assert_eq!(number(&"1".repeat(41)), Err(Refusal::TooLong(40)));
    assert_eq!(check(&kind, &ArgumentValue::Integer(3), Placement::Appended), Ok(()));
    assert_eq!(check(&kind, &ArgumentValue::Integer(-1), Placement::Appended), Err(Refusal::Option));
}

#[test]
fn path_tricks_are_refused_by_name() {
    let tool = tool("cc", r#"["in_file"]"#);
    for (path, error) in [
        ("../x", PathError::Parent),
        ("a/../../x", PathError::Parent),
        ("/etc/passwd", PathError::Absolute),
        ("/workspace/../x", PathError::Parent),
        ("/workspaces/x", PathError::Absolute),
        ("", PathError::Empty),
        ("a\0b", PathError::Nul),
    ] {
        assert_eq!(refusal(&tool, &[text("in_file", path)]), Refusal::Path(error), "{path:?}");
    }
    assert_eq!(bind(&tool, &[text("in_file", "a")], Path::new("w")).unwrap_err().refusal, Refusal::Workspace);
}

#[test]
fn values_too_long_together_or_once_placed_are_refused() {
    let args: Vec<String> = (0..5).map(|n| format!(r#"{{"name": "a{n}", "type": "text", "maxLength": 32768}}"#)).collect();
    let given: Vec<Argument> = (0..5).map(|n| text(&format!("a{n}"), &"x".repeat(32_768))).collect();
    let fault = words(&tool("cc", &format!("[{}]", args.join(","))), &given).unwrap_err();
    assert_eq!(fault, ArgumentFault { argument: "a4".to_owned(), refusal: Refusal::TooLongTogether(ARGUMENTS_LIMIT_BYTES) });
    let one = r#"[{"name": "a", "type": "text", "maxLength": 32768}]"#;
    let value = [text("a", &"x".repeat(32_768))];
    assert_eq!(refusal(&tool("cc {a}{a}{a}{a}", one), &value), Refusal::TooLongTogether(WORD_LIMIT_BYTES));
    assert_eq!(refusal(&tool(&format!("cc {}", "{a} ".repeat(17)), one), &value), Refusal::TooLongTogether(WORDS_LIMIT_BYTES));
    assert!(words(&tool("cc {a} {a} {a} {a}", one), &value).is_ok());
}

fn any_value() -> impl Strategy<Value = ArgumentValue> {
    let texts = prop_oneof![
        "[-a/. \\n=]{0,8}",
        "\\PC{0,20}",
        "-{1,2}[a-z]{0,4}(=.{0,4})?",
        Just("fast".to_owned()),
        "-?[0-9]{1,3}(\\.[0-9]{0,3})?"
    ];
    prop_oneof![
        texts.clone().prop_map(ArgumentValue::Text),
        texts.prop_map(ArgumentValue::Number),
        any::<i64>().prop_map(ArgumentValue::Integer),
        (-5_i64..5).prop_map(ArgumentValue::Integer),
        any::<bool>().prop_map(ArgumentValue::Boolean),
    ]
}

/// Every type of argument, placed in every way; all optional so that each alone can be tried.
fn every_kind(command: &str) -> ConfiguredTool {
    let args = [
        r#"{"name": "t", "type": "text", "required": false}"#,
        r#"{"name": "i", "type": "integer", "required": false}"#,
        r#"{"name": "n", "type": "number", "required": false}"#,
        r#"{"name": "b", "type": "boolean", "required": false}"#,
        r#"{"name": "c", "type": "choice", "choices": ["fast"], "required": false}"#,
        r#"{"name": "f", "type": "file", "required": false}"#,
    ];
    tool(command, &format!("[{}]", args.join(",")))
}

proptest! {
    #[test]
    fn no_value_makes_a_word_begin_with_a_dash_that_the_template_did_not_write(
        given in prop::collection::vec((0_usize..7, any_value()), 0..7),
        command in prop::sample::select(vec![
            "cc", "cc {t} {i} {n} {b} {c} {f}", "cc --t={t} --i={i} n={n} -b{b} -{c} -f{f}", "cc {t}-{t} {t}{t} {t}={t} {i}{t} {t}{f} x{t}y -Wl,{t}",
        ]),
    ) {
        let tool = every_kind(command);
        let names = ["t", "i", "n", "b", "c", "f", "?"];
        let arguments: Vec<Argument> = given.into_iter().map(|(n, value)| Argument { name: names[n].to_owned(), value }).collect();
        if let Ok(bound) = words(&tool, &arguments) {
            let own: Vec<&str> = tool.template.words().iter().filter_map(|word| match word.parts().first() {
                Some(Part::Literal(text)) if text.starts_with('-') => Some(text.as_str()),
                _ => None,
            }).collect();
            let mut own = own.into_iter();
            for word in bound.iter().filter(|word| word.starts_with('-')) {
                prop_assert!(own.any(|literal| word.starts_with(literal)), "{word:?}");
            }
            prop_assert!(bound.iter().all(|word| !word.contains(['\0', '\n'])));
            prop_assert!(bound.len() <= tool.template.words().len() + tool.tool.parameters.len());
        }
    }

    #[test]
    fn every_accepted_file_lies_below_the_workspace(path in "[/.a-]{0,12}|/workspace[/.a]{0,8}") {
        let tool = tool("cc", r#"["in_file"]"#);
        if let Ok(bound) = words(&tool, &[text("in_file", &path)]) {
            prop_assert!(bound[0].starts_with("/run/w/") && !bound[0].split('/').any(|part| part == ".."), "{path:?} became {bound:?}");
        }
    }
}
