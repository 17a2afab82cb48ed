//! Whole files in, configurations or faults out; the machine's programs are stated by each test.

use std::path::{Path, PathBuf};

use orien_protocol::offer::Parameter;
use proptest::prelude::*;

use super::*;

mod confined;

/// The owner's own file, word for word.
const OWNER: &str = r#"{"providerId":"provider_xyz","tools":[{"id":"run_build","command":"npm run build","workspaceRequired":true,"maxDuration":300,"resourceLimits":{"cpu":"2","memory":"4GB"}},{"id":"render_scene","name":"Render 3D Scene","command":"blender --background --python /scripts/render.py","maxDurationSeconds":600,"args":["scene_file","output_path"]}]}"#;

/// A machine that has everything but what is listed.
struct Without(&'static [&'static str]);

impl Programs for Without {
    fn find(&self, program: &str) -> Result<PathBuf, String> {
        if self.0.contains(&program) { Err(format!("no program `{program}`")) } else { Ok(PathBuf::from("/usr/bin").join(program)) }
    }
}

/// A machine on which nothing can be shared.
struct Nothing;

impl Paths for Nothing {
    fn look(&self, path: &Path) -> Result<(), PathFault> {
        Err(PathFault::Absent(path.to_owned()))
    }

    fn is_there(&self, _: &Path) -> bool {
        false
    }
}

fn loaded(text: &str) -> Result<ProviderConfig, Vec<ConfigFault>> {
    load(text, &Without(&[]), &Nothing)
}

/// The faults of a file with one tool that has these fields beside its id and command.
fn tool_faults(fields: &str) -> Vec<String> {
    let text =
        format!("{{\"providerId\": \"p\", \"tools\": [{{\"id\": \"t\", \"command\": \"cc {{a}}\", \"args\": [\"a\"]\n, {fields}}}]}}");
    loaded(&text).map_or_else(|faults| faults.iter().map(ConfigFault::to_string).collect(), |_| Vec::new())
}

fn provider_faults(fields: &str) -> Vec<String> {
    let text = format!("{{\"providerId\": \"p\", \"tools\": [{{\"id\": \"t\", \"command\": \"cc\"}}]\n, {fields}}}");
    loaded(&text).map_or_else(|faults| faults.iter().map(ConfigFault::to_string).collect(), |_| Vec::new())
}

fn one_tool(fields: &str) -> ConfiguredTool {
    let text = format!("{{\"providerId\": \"p\", \"tools\": [{{\"id\": \"t\", {fields}}}]}}");
    loaded(&text).unwrap().tools.remove(0)
}

#[track_caller]
fn assert_one(faults: &[String], parts: &[&str]) {
    assert_eq!(faults.len(), 1, "{faults:#?}");
    for part in parts {
        assert!(faults[0].contains(part), "{part:?} is not in {:?}", faults[0]);
    }
}

#[test]
fn the_owners_file_loads_and_an_absent_program_is_reported_but_not_offered() {
    let config = load(OWNER, &Without(&["blender"]), &Nothing).unwrap();
    assert_eq!((config.label.as_str(), config.name.as_str()), ("provider_xyz", "provider_xyz"));
    assert_eq!(config.tools.len(), 2);
    let (build, render) = (&config.tools[0], &config.tools[1]);
    assert_eq!(build.program, Ok(PathBuf::from("/usr/bin/npm")));
    assert_eq!(build.limits.duration, Millis::from_secs(300));
    assert_eq!((build.limits.cpu_millis, build.limits.memory_bytes), (2000, 4 << 30));
    assert!(build.tool.workspace_required && build.tool.parameters.is_empty());
    assert_eq!(render.program, Err("no program `blender`".to_owned()));
    assert_eq!(render.limits.duration, Millis::from_secs(600));
    assert_eq!((render.limits.cpu_millis, render.limits.memory_bytes), (2000, 4 << 30));
    let file = |name: &str| Parameter { name: name.to_owned(), description: String::new(), required: true, kind: ParameterKind::File };
    assert_eq!(render.tool.parameters, [file("scene_file"), file("output_path")]);
    assert!(render.tool.workspace_required, "a tool that takes files uses the workspace");
    assert_eq!(config.offered().map(|t| t.tool.id.as_str()).collect::<Vec<_>>(), ["run_build"]);
    assert!(config.offered_tool("render_scene").is_none());
}

#[test]
fn the_report_of_the_owners_file_shows_limits_prices_arguments_and_why_a_tool_is_not_offered() {
    let report = ConfigReport::of(&load(OWNER, &Without(&["blender"]), &Nothing));
    let shown = report.to_string();
    for part in [
        "provider_xyz: 1 of 2 tools would be offered",
        "run_build: 2 CPUs / 4 GB, 300 s; free",
        "render_scene: 2 CPUs / 4 GB, 600 s; free",
        "args      scene_file (file), output_path (file)",
        "available /usr/bin/npm",
        "NOT OFFERED: no program `blender`",
        "can run arbitrary code inside the sandbox",
        "`run_build` has no price",
    ] {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["ok"], true);
    assert_eq!(json["tools"][0]["limits"]["memory"], "4 GB");
    assert_eq!(json["tools"][0]["limits"]["maxDurationSeconds"], 300);
    assert_eq!(json["tools"][1]["available"], false);
    assert_eq!(json["tools"][1]["args"][0]["type"], "file");
    assert_eq!(json["warnings"][0]["line"], 1);
}

#[test]
fn every_field_has_the_value_of_the_file_and_absent_ones_their_defaults() {
    let config = loaded(
        r#"{"providerId": "p", "name": "P", "description": "d", "ensName": "p.eth", "region": "eu",
        "payoutAddress": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "pricePerMinute": 0.1, "callFee": "0.000001", "meteringIntervalSeconds": 10,
        "capacity": {"sessions": 2}, "workspace": {"maxBytes": "64MiB", "maxEntries": 1000},
        "tools": [{"id": "t", "command": "cc", "pricePerMinute": 12.000001, "capabilities": ["c", "build", "c"], "maxOutputBytes": "1MB",
                   "maxProcesses": 8, "env": {"CC": "cc"}, "resourceLimits": {"cpu": 0.5, "memory": 536870912}}, {"id": "u", "command": "cc"}]}"#,
    )
    .unwrap();
    assert_eq!(config.payout.unwrap().to_string(), "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed");
    assert_eq!(config.price, Price { per_minute: Usdc::from_micros(100_000), call_fee: Usdc::from_micros(1) });
    assert_eq!(config.minimum_charge, Usdc::from_micros(2_000_000), "ten seconds of the dearest tool");
    assert_eq!((config.sessions, config.runs_per_session), (2, 4));
    assert_eq!((config.workspace.max_bytes, config.workspace.max_entries), (64 << 20, 1000));
    let (t, u) = (&config.tools[0], &config.tools[1]);
    assert_eq!(t.tool.price, Price { per_minute: Usdc::from_micros(12_000_001), call_fee: Usdc::from_micros(1) });
    assert_eq!(u.tool.price, config.price);
    assert_eq!(t.tool.capabilities, ["build", "c"]);
    let limits = ToolLimits { cpu_millis: 500, memory_bytes: 512 << 20, output_bytes: 1 << 20, processes: 8, ..ToolLimits::default() };
    assert_eq!((t.limits, u.limits), (limits, ToolLimits::default()));
    assert_eq!(t.env.get("CC").map(String::as_str), Some("cc"));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn all_faults_are_reported_at_once_each_with_its_place_and_its_remedy() {
    let faults = loaded(
        "{\n  \"providerId\": \"Provider X\",\n  \"pricePerMinut\": 1,\n  \"tools\": [\n    {\"id\": \"a\", \"command\": \"make && make install\"},\n    \
         {\"id\": \"a\", \"command\": \"cc {ou}\", \"args\": [\"out\"],\n     \"resourceLimits\": {\"cpu\": \"-1\", \"memory\": \"4 bananas\"}},\n    {\"command\": 5}\n  ]\n}",
    )
    .unwrap_err();
    let places: Vec<(usize, usize, &str)> = faults.iter().map(|f| (f.place.line, f.place.column, f.place.path.as_str())).collect();
    assert_eq!(
        places,
        [
            (2, 17, "providerId"),
            (3, 20, "pricePerMinut"),
            (5, 28, "tools[0].command"),
            (6, 12, "tools[1].id"),
            (6, 28, "tools[1].command"),
            (7, 32, "tools[1].resourceLimits.cpu"),
            (7, 48, "tools[1].resourceLimits.memory"),
            (8, 5, "tools[2].id"),
            (8, 17, "tools[2].command"),
        ]
    );
    assert!(faults.iter().all(|f| !f.problem.is_empty() && !f.fix.is_empty()));
    assert_eq!(faults[1].fix, "did you mean `pricePerMinute`?");
    assert_eq!(faults[4].fix, "did you mean `{out}`?");
    let report = ConfigReport::of(&Err(faults));
    assert!(
        report
            .to_string()
            .starts_with("not loaded: 9 faults\nline 2, column 17, providerId: `Provider X` cannot be an id\n    use 1 to 64")
    );
    assert_eq!(serde_json::to_value(&report).unwrap()["faults"][6]["path"], "tools[1].resourceLimits.memory");
}

#[test]
fn a_text_that_is_not_strict_json_gives_one_fault_at_its_place() {
    for (text, line, column, part) in [
        ("", 1, 1, "empty"),
        ("{\n  // why\n}", 2, 3, "remove the comment"),
        ("{\"tools\": [1,\n]}", 1, 13, "remove the last comma"),
        ("{\"a\": 1\n \"b\": 2}", 1, 8, "comma"),
        ("{'a': 1}", 1, 2, "double quotes"),
        ("{a: 1}", 1, 2, "double quotes"),
        ("{\"a\": 0x10}", 1, 7, "not JSON"),
        ("{\"a\": 01}", 1, 8, "not JSON"),
        ("{\"a\": 1.}", 1, 9, "not JSON"),
        ("{\"a\": nul}", 1, 7, "not JSON"),
        ("{} {}", 1, 4, "remove what follows"),
        ("{\"a\": \"x\ny\"}", 1, 8, "not JSON"),
        ("[", 1, 1, "missing ]"),
    ] {
        let faults = loaded(text).unwrap_err();
        assert_eq!(faults.len(), 1, "{text:?}: {faults:?}");
        assert!(faults[0].to_string().contains(part), "{text:?}: {}", faults[0]);
        assert_eq!((faults[0].place.line, faults[0].place.column), (line, column), "{text:?}: {}", faults[0]);
    }
    assert_one(&[loaded("[]").unwrap_err()[0].to_string()], &["line 1, column 1: expected an object"]);
    assert!(loaded(&"[".repeat(100_000)).unwrap_err()[0].problem.contains("depth"));
    assert!(loaded(&" ".repeat(2_000_000)).unwrap_err()[0].problem.contains("larger than 1 MiB"));
    assert!(loaded(&format!("\u{feff}{OWNER}")).is_ok());
}

#[test]
fn limits_that_are_not_positive_whole_and_possible_are_faults() {
    assert_one(&tool_faults(r#""maxDuration": 0"#), &["line 2", "tools[0].maxDuration", "out of range", "from 1 to 86400"]);
    assert_one(&tool_faults(r#""maxDuration": -5"#), &["`-5` is out of range"]);
    assert_one(&tool_faults(r#""maxDuration": 1.5"#), &["expected a whole number"]);
    assert_one(&tool_faults(r#""maxDuration": 99999999999999999999999"#), &["out of range"]);
    assert_one(&tool_faults(r#""maxDuration": null"#), &["found null"]);
    assert_one(&tool_faults(r#""maxDuration": 300, "maxDurationSeconds": 600"#), &["says 300 s", "says 600 s", "keep one"]);
    assert!(tool_faults(r#""maxDuration": 300, "maxDurationSeconds": 300"#).is_empty());
    for cpu in ["\"0\"", "0.001", "\"-2\"", "\"two\"", "1025", "0.0005", "\"1e1\"", "\"\"", "\"2.\""] {
        assert_one(&tool_faults(&format!("\"resourceLimits\": {{\"cpu\": {cpu}}}")), &["is not a number of processors", "\"0.5\""]);
    }
    for memory in ["\"4XB\"", "\"GB\"", "\"-4GB\"", "\"4,5GB\"", "\"0.3B\"", "\"1e9\"", "\"\""] {
        assert_one(&tool_faults(&format!("\"resourceLimits\": {{\"memory\": {memory}}}")), &["is not a size", "\"512MB\""]);
    }
    assert_one(&tool_faults(r#""resourceLimits": {"memory": 4}"#), &["out of range", "16 MB to 64 TB", "without a unit means bytes"]);
    assert_one(&tool_faults(r#""resourceLimits": {"memory": "99999999999999TB"}"#), &["not a size"]);
    assert_one(&tool_faults(r#""resourceLimits": {"ram": "4GB"}"#), &["tools[0].resourceLimits.ram", "unknown field", "cpu, memory"]);
    assert_one(&tool_faults(r#""maxProcesses": 0"#), &["from 1 to 32768"]);
    for (text, size) in [("512MB", 512 << 20), ("1GiB", 1 << 30), ("1.5g", 3 << 29), ("64 Mi", 64 << 20), ("17000000", 17_000_000)] {
        let fields = format!("\"command\": \"cc\", \"resourceLimits\": {{\"memory\": \"{text}\"}}");
        assert_eq!(one_tool(&fields).limits.memory_bytes, size, "{text}");
    }
}

#[test]
fn prices_are_exact_and_wrong_ones_are_faults() {
    assert_one(&provider_faults(r#""pricePerMinute": 0.0000001"#), &["finer than USDC", "6 decimals"]);
    assert_one(&provider_faults(r#""pricePerMinute": -1"#), &["without sign"]);
    assert_one(&provider_faults(r#""pricePerMinute": 1e-3"#), &["exponent"]);
    assert_one(&provider_faults(r#""callFee": 1000000.000001"#), &["too much"]);
    assert_one(&provider_faults(r#""callFee": "99999999999999999999""#), &["too much"]);
    assert_one(&provider_faults(r#""minimumCharge": "a lot""#), &["`a lot` is not an amount"]);
    assert_one(&provider_faults(r#""minimumCharge": true"#), &["expected an amount", "found true"]);
    let price = |text: &str| one_tool(&format!("\"command\": \"cc\", \"pricePerMinute\": {text}")).tool.price.per_minute;
    // As a float this is 0.1 + 0.2 - 0.3 away from a whole number of micro-USDC.
    assert_eq!(price("8.100003"), Usdc::from_micros(8_100_003));
    assert_eq!(price("\"8.100003\""), Usdc::from_micros(8_100_003));
}

#[test]
fn names_addresses_and_other_fields_of_the_provider_are_checked() {
    assert_one(&provider_faults(r#""payoutAddress": "0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed""#), &["checksum"]);
    assert_one(&provider_faults(r#""payoutAddress": "0x0000000000000000000000000000000000000000""#), &["zero address"]);
    assert_one(&provider_faults(r#""ensName": "renderer""#), &["renderer.eth"]);
    assert_one(&provider_faults(r#""meteringIntervalSeconds": 0"#), &["from 1 to 300"]);
    assert_one(&provider_faults(r#""capacity": {"sessions": 0}"#), &["capacity.sessions", "from 1 to 1024"]);
    assert_one(&provider_faults(r#""capacity": 4"#), &["expected an object"]);
    assert_one(&provider_faults(r#""workspace": {"maxBytes": "1KB"}"#), &["from 1 MB to 16 TB"]);
    assert_one(&provider_faults(r#""name": """#), &["empty"]);
    assert_one(&provider_faults(r#""region": "a\nb""#), &["line break"]);
    assert_one(&provider_faults(r#""providerId": "q""#), &["line 2", "given twice", "line 1"]);
    assert_one(&provider_faults(r#""max_duration": 5"#), &["unknown field"]);
    assert_one(&tool_faults(r#""max_duration": 5"#), &["did you mean `maxDuration`?"]);
    assert_one(&[loaded("{\"providerId\": \"p\", \"tools\": []}").unwrap_err()[0].to_string()], &["there is no tool"]);
    let misspelt: Vec<String> = loaded("{\"providerID\": \"p\", \"tool\": []}").unwrap_err().iter().map(|f| f.fix.clone()).collect();
    assert_eq!(misspelt, ["did you mean `providerId`?", "did you mean `tools`?"]);
    let missing: Vec<String> = loaded("{}").unwrap_err().iter().map(|f| f.place.path.clone()).collect();
    assert_eq!(missing, ["providerId", "tools"]);
}

#[test]
fn environment_names_that_load_code_are_faults() {
    for name in ["LD_PRELOAD", "BASH_ENV", "PYTHONPATH", "HOME", "A B", ""] {
        assert_eq!(tool_faults(&format!("\"env\": {{\"{name}\": \"x\"}}")).len(), 1, "{name}");
    }
    assert_one(&tool_faults(r#""env": {"A": 5}"#), &["tools[0].env.A", "expected a text"]);
    assert_one(&tool_faults(r#""env": {"PATH": "/bin:."}"#), &["has to be absolute"]);
    for value in ["a\\u0000b", "a\\nb", "a\\rb", "\\u001b[2J", "\\u2028", "\\u0085"] {
        assert_one(&tool_faults(&format!("\"env\": {{\"A\": \"{value}\"}}")), &["tools[0].env.A", "line break or another control"]);
    }
    assert_one(&tool_faults(&format!("\"env\": {{\"A\": \"{}\"}}", "x".repeat(32 * 1024 + 1))), &["32769 bytes", "at most 32768"]);
    assert!(tool_faults(&format!("\"env\": {{\"A\": \"-{}\"}}", "x".repeat(32 * 1024 - 1))).is_empty(), "a variable is no option");
    let many: Vec<String> = (0..65).map(|n| format!("\"V{n}\": \"\"")).collect();
    assert_one(&tool_faults(&format!("\"env\": {{{}}}", many.join(","))), &["65 environment variables", "at most 64"]);
    assert_one(&tool_faults(r#""env": {"A": "x", "A": "y"}"#), &["given twice"]);
}

#[test]
fn typed_arguments_keep_their_bounds_and_impossible_ones_are_faults() {
    let tool = one_tool(
        r#""command": "cc --level={level} {mode}", "args": [
        {"name": "mode", "type": "choice", "choices": ["fast", "good"], "default": "good"}, {"name": "level", "type": "integer", "max": 9},
        {"name": "scale", "type": "number", "min": 1, "max": 2, "required": false}, {"name": "title", "type": "text", "maxLength": 10, "description": "d"}]"#,
    );
    let kinds: Vec<(&ParameterKind, bool)> = tool.tool.parameters.iter().map(|p| (&p.kind, p.required)).collect();
    let mode = ParameterKind::Choice(vec!["fast".to_owned(), "good".to_owned()]);
    let level = ParameterKind::Integer { min: i64::MIN, max: 9 };
    assert_eq!(
        kinds,
        [
            (&mode, false),
            (&level, true),
            (&ParameterKind::Number { min: 1, max: 2 }, false),
            (&ParameterKind::Text { max_bytes: 10 }, true)
        ]
    );
    let faults = |argument: &str| {
        let text = format!("{{\"providerId\": \"p\", \"tools\": [{{\"id\": \"t\", \"command\": \"cc\", \"args\": [{argument}]}}]}}");
        loaded(&text).map_or_else(|faults| faults.iter().map(ConfigFault::to_string).collect(), |_| Vec::new())
    };
    for (argument, parts) in [
        (r#"{"name": "a", "type": "string"}"#, ["args[0].type", "write one of text"]),
        (r#"{"name": "a", "type": "bolean"}"#, ["`bolean` is not a type", "did you mean `boolean`?"]),
        (r#"{"name": "a"}"#, ["args[0].type", "missing"]),
        (r#"{"type": "file"}"#, ["args[0].name", "missing"]),
        (r#"{"name": "9", "type": "file"}"#, ["args[0].name", "cannot name"]),
        (r#"{"name": "a", "type": "integer", "min": -1}"#, ["args[0].min", "--option={name}"]),
        (r#"{"name": "a", "type": "integer", "min": 5, "max": 4}"#, ["args[0].min", "above the largest"]),
        (r#"{"name": "a", "type": "number", "max": 1.5}"#, ["args[0].max", "whole number"]),
        (r#"{"name": "a", "type": "file", "maxLength": 5}"#, ["args[0].maxLength", "make the type text"]),
        (r#"{"name": "a", "type": "choice", "choices": []}"#, ["args[0].choices", "no choice"]),
        (r#"{"name": "a", "type": "choice", "choices": ["-O2"]}"#, ["args[0].choices[0]", "-O{level}"]),
        (r#"{"name": "a", "type": "choice", "choices": ["x", "x"]}"#, ["args[0].choices[1]", "twice"]),
        (r#"{"name": "a", "type": "choice", "choices": ["x"], "default": "y"}"#, ["args[0].default", "one of x"]),
        (r#"{"name": "a", "type": "file", "default": "../x"}"#, ["args[0].default", "has a part"]),
        (r#"{"name": "a", "type": "text", "default": "-x"}"#, ["args[0].default", "taken for an option"]),
        (r#"{"name": "a", "type": "text", "default": "x", "required": true}"#, ["args[0].default", "cannot be required"]),
        (r#""a", "a""#, ["args[1]", "second argument"]),
        ("5", ["args[0]", "expected an object"]),
    ] {
        assert_one(&faults(argument), &parts);
    }
}

#[test]
fn commands_are_checked_against_their_arguments() {
    let faults = |command: &str, args: &str| {
        let text = format!("{{\"providerId\": \"p\", \"tools\": [{{\"id\": \"t\", \"command\": \"{command}\", \"args\": [{args}]}}]}}");
        loaded(&text).map_or_else(|faults| faults.iter().map(ConfigFault::to_string).collect(), |_| Vec::new())
    };
    assert_one(&faults("cc {x}", ""), &["`{x}` stands for no argument", "add `x` to `args`", "`{{x}}`"]);
    assert_eq!(faults("cc {y}", r#"{"name": "x", "type": "integer", "min": -1}"#).len(), 2, "a faulty argument hides no other fault");
    assert_one(&faults("cc --{x}", "\"x\""), &["lets an agent give any option"]);
    assert_one(&faults("cc > x", ""), &["tools[0].command", "no shell runs this command", "single quotes"]);
    assert_one(&faults("bin/cc", ""), &["relative path"]);
    assert!(faults("cc -{x}", r#"{"name": "x", "type": "choice", "choices": ["a"]}"#).is_empty());
    assert_one(&tool_faults(r#""workspaceRequired": false, "id": "t""#), &["given twice"]);
    let text = r#"{"providerId": "p", "callFee": 0, "tools": [{"id": "t", "command": "cc -x {a} -I{b}", "workspaceRequired": false,
        "args": [{"name": "a", "type": "text", "required": false}, "b", {"name": "c", "type": "text", "required": false}, "d"]}]}"#;
    let warnings: Vec<String> = loaded(text).unwrap().warnings.iter().map(ConfigWarning::to_string).collect();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert_one(&faults("cc", "\"in_file\"], \"workspaceRequired\": false, \"capabilities\": ["), &["files are in the workspace"]);
}

#[test]
fn a_file_full_of_faults_gives_a_bounded_list_that_says_so() {
    let keys: Vec<String> = (0..5000).map(|n| format!("\"k{n}\": 1")).collect();
    let faults = loaded(&format!("{{{}}}", keys.join(","))).unwrap_err();
    assert_eq!(faults.len(), 201);
    assert!(faults[200].problem.contains("4802 more faults"), "{}", faults[200]);
}

#[test]
fn tools_that_would_not_fit_into_one_offer_are_a_fault() {
    let tool = |n: usize| {
        let args: Vec<String> =
            (0..20).map(|a| format!(r#"{{"name": "a{a}", "type": "text", "description": "{}"}}"#, "x".repeat(500))).collect();
        format!(r#"{{"id": "t{n}", "command": "cc", "args": [{}]}}"#, args.join(","))
    };
    let tools: Vec<String> = (0..8).map(tool).collect();
    let faults = loaded(&format!(r#"{{"providerId": "p", "tools": [{}]}}"#, tools.join(","))).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert!(faults[0].problem.contains("65536 are allowed"), "{}", faults[0]);
}

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic_and_every_refusal_has_a_place(at in 0..OWNER.len(), cut in 0_usize..40, noise in "\\PC{0,12}") {
        let end = (at + cut).min(OWNER.len());
        let text = format!("{}{noise}{}", &OWNER[..at], &OWNER[end..]);
        if let Err(faults) = loaded(&text) {
            prop_assert!(!faults.is_empty());
            prop_assert!(faults.iter().all(|f| f.place.line >= 1 && f.place.column >= 1 && !f.fix.is_empty()));
        }
    }
}
