//! What a provider writes and what an agent passes: the configuration file, and arguments on their way to a command line.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use orien_node::arguments::{self, Refusal};
use orien_node::command::Part;
use orien_node::config::{self, ConfigReport, ConfiguredTool, PathFault, Paths, Programs, ProviderConfig};
use orien_node::listing::{Listing, Today};
use orien_protocol::codec;
use orien_protocol::job::{ARGUMENTS_LIMIT_BYTES, Argument};
use orien_protocol::offer::{Confinement, Hardware, LIST_LIMIT, OFFER_LIMIT_BYTES, TEXT_LIMIT, Tool};
use orien_protocol::signing::Verified;

use super::world::{START, WORLD};

/// Tools with every kind of argument in every place.
const TOOLS: &str = r#"{"providerId": "p", "tools": [
{"id": "all", "command": "cc -O{level} --out={out} {scene} --count={count} --ratio={ratio} -x", "args": [
 {"name": "level", "type": "choice", "choices": ["0", "2"], "required": true}, {"name": "out", "type": "text"},
 {"name": "scene", "type": "file"}, {"name": "count", "type": "integer", "min": -9, "max": 9},
 {"name": "ratio", "type": "number", "min": -1, "max": 2, "default": 0.5}, {"name": "fast", "type": "boolean", "default": true},
 {"name": "note", "type": "text", "maxLength": 8}, {"name": "other", "type": "file", "required": false}]},
{"id": "joined", "command": "cc {a}-{b} --both={a}{b}", "args": [{"name": "a", "type": "text"}, {"name": "b", "type": "number", "min": 0, "max": 5}]},
{"id": "plain", "command": "cc", "args": ["file"]}, {"id": "none", "command": "cc -v"}]}"#;

/// A machine that has every program but those whose name begins with x.
#[derive(Clone, Copy, Debug)]
struct Machine;

impl Programs for Machine {
    fn find(&self, program: &str) -> Result<PathBuf, String> {
        if program.starts_with('x') { Err("no such program".to_owned()) } else { Ok(Path::new("/usr/bin").join(program)) }
    }
}

impl Paths for Machine {
    fn look(&self, path: &Path) -> Result<(), PathFault> {
        if path.starts_with("/srv") { Ok(()) } else { Err(PathFault::Absent(path.to_owned())) }
    }

    fn is_there(&self, path: &Path) -> bool {
        path.starts_with("/srv")
    }
}

static CONFIGURED: LazyLock<ProviderConfig> =
    LazyLock::new(|| config::load(TOOLS, &Machine, &Machine).unwrap_or_else(|faults| panic!("{faults:?}")));

/// The tools that sessions of these tests have.
pub(crate) fn offered() -> Vec<Tool> {
    CONFIGURED.offered().map(|configured| configured.tool.clone()).collect()
}

/// What the provider would make of a job's arguments.
pub(crate) fn bind(tool: &str, arguments: &[Argument]) -> Result<Vec<String>, Refusal> {
    let tool = CONFIGURED.offered_tool(tool).unwrap();
    let words = arguments::bind(tool, arguments, Path::new("/w")).map_err(|fault| fault.refusal)?;
    check_words(tool, &words);
    Ok(words)
}

pub(crate) fn provider_config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let loaded = config::load(text, &Machine, &Machine);
    assert_eq!(loaded, config::load(text, &Machine, &Machine), "the same file loads the same");
    match &loaded {
        Err(faults) => {
            assert!(!faults.is_empty(), "a refusal says why");
            let lines = text.lines().count().max(1) + 1;
            for fault in faults {
                assert!((1..=lines).contains(&fault.place.line) && fault.place.column >= 1 && !fault.fix.is_empty(), "{fault}");
                assert!(!fault.to_string().contains('\n'), "one fault is one line");
            }
            assert!(faults.windows(2).all(|pair| (pair[0].place.line, pair[0].place.column) <= (pair[1].place.line, pair[1].place.column)));
        }
        Ok(config) => {
            assert!(!ConfigReport::of(&loaded).to_string().is_empty());
            loads_to_an_offer(config);
            for tool in config.offered() {
                if let Ok(words) = arguments::bind(tool, &[], Path::new("/w")) {
                    check_words(tool, &words);
                }
            }
        }
    }
}

/// Whatever loads can be offered: the offer passes every check of the protocol and fits into an answer, with the longest addresses.
fn loads_to_an_offer(config: &ProviderConfig) {
    let listing = Listing {
        config: config.clone(),
        provider: WORLD.provider.peer.id(),
        binding: WORLD.agreed(0).provider.clone(),
        confinement: Confinement::S0,
        hardware: Hardware::default(),
        up_since: START,
    };
    let today = Today { addresses: vec!["a".repeat(TEXT_LIMIT); LIST_LIMIT], ..Today::default() };
    let offer = listing.offer(1, START, &today);
    assert_eq!(offer.check(), Ok(()));
    let encoded = codec::encode(Verified::sign(offer, &WORLD.network, &WORLD.provider.peer).signed()).unwrap();
    assert!(encoded.len() <= OFFER_LIMIT_BYTES, "an offer of {} bytes", encoded.len());
    assert!(config.sessions > 0 && config.runs_per_session > 0 && config.metering_interval.0 > 0);
}

/// Byte 0 says which tool; the rest is an encoded list of arguments.
pub(crate) fn job_arguments(input: &[u8]) {
    let Some((which, bytes)) = input.split_first() else { return };
    let Ok(list) = codec::decode::<Vec<Argument>>(bytes, ARGUMENTS_LIMIT_BYTES) else { return };
    let tools = &CONFIGURED.tools;
    let tool = &tools[usize::from(*which) % tools.len()];
    if let Err(fault) = arguments::bind(tool, &list, Path::new("/w")) {
        assert!(!fault.to_string().chars().any(|c| c.is_control() && c != '\t'), "{fault}");
    }
    let _ = bind(&tool.tool.id, &list);
}

/// No word is an option, or steers anything, unless the provider wrote it so.
fn check_words(tool: &ConfiguredTool, words: &[String]) {
    let own = |word: &str| {
        let firsts = tool.template.words().iter().filter_map(|own| own.parts().first());
        firsts.into_iter().any(|part| matches!(part, Part::Literal(text) if text.starts_with('-') && word.starts_with(text.as_str())))
    };
    let placed = tool.template.words().len();
    assert!(words.len() <= placed + tool.tool.parameters.len());
    for word in words {
        assert!(!word.starts_with('-') || own(word), "{word:?} was not written by the provider");
        assert!(!word.chars().any(|c| c.is_control() && c != '\t'), "{word:?}");
        if let Some(below) = word.strip_prefix("/w/") {
            assert!(below.split('/').all(|part| !part.is_empty() && part != "." && part != ".."), "{word:?} leaves the workspace");
        }
    }
}
