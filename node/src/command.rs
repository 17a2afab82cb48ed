//! A tool's command as its provider wrote it, split once into the words that its program will get.
//!
//! Always true: no shell ever sees a command. `{name}` stands for an argument, as a whole word or inside one (`--out={output_path}`), and `{{name}}` for the
//! text `{name}`; whatever an argument holds, it stays within its word. What only a shell would understand is refused, because it would silently mean something else.

use thiserror::Error;

/// A program and the words it is called with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandTemplate {
    program: String,
    words: Vec<Word>,
}

/// One word of a command: parts that are joined without anything between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word(Vec<Part>);

/// A part of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// As the provider wrote it.
    Literal(String),
    /// The value of the argument with this name.
    Argument(String),
}

/// How a command passes one argument; decides which values are safe in that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// A word of its own, after the words of the command.
    Appended,
    /// In at least one place where a value that begins with `-` could be taken for an option.
    Placed,
    /// Only directly after a literal `=`, as in `--out={output_path}`: a value is a value there.
    AfterEquals,
}

/// Why a command is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommandFault {
    /// There is no word in it.
    #[error("the command is empty")]
    Empty,
    /// It ends inside quotes or after a backslash.
    #[error("a quote is not closed, or the command ends in a backslash")]
    OpenQuote,
    /// Something that only a shell would understand.
    #[error("`{0}` means something to a shell, and no shell runs this command")]
    Shell(String),
    /// The program depends on an argument.
    #[error("the program itself holds `{{{0}}}`")]
    ProgramFromArgument(String),
    /// The first word sets a variable, as in a shell.
    #[error("`{0}` sets a variable for a shell")]
    Assignment(String),
    /// The program is neither a plain name nor an absolute path.
    #[error("`{0}` is a relative path")]
    RelativeProgram(String),
}

impl CommandFault {
    /// What to write instead.
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Empty => "write a program and its words, such as \"npm run build\"",
            Self::OpenQuote => "close the quote, or double the backslash",
            Self::Shell(_) => {
                "put it in single quotes if the program shall get it as it is; else write a small program that does it and name that here"
            }
            Self::ProgramFromArgument(_) => "name one program, and make another tool for another program",
            Self::Assignment(_) => "put the variable into \"env\" and begin the command with the program",
            Self::RelativeProgram(_) => "write the absolute path, or the name of a program in the usual folders",
        }
    }
}

/// Programs that run whatever a file in the workspace says, whatever their arguments.
const RUNS_FILES: [&str; 37] = [
    "sh", "bash", "dash", "zsh", "ksh", "fish", "busybox", "env", "xargs", "find", "make", "gmake", "cmake", "ninja", "meson", "npm",
    "npx", "yarn", "pnpm", "bun", "deno", "cargo", "go", "gradle", "mvn", "ant", "awk", "gawk", "sed", "tar", "git", "ssh", "docker",
    "podman", "sudo", "su", "nohup",
];
/// Programs whose usual work ends in starting what they found or made in the workspace.
const BUILDERS: [&str; 16] =
    ["make", "gmake", "cmake", "ninja", "meson", "npm", "npx", "yarn", "pnpm", "bun", "deno", "cargo", "go", "gradle", "mvn", "ant"];
/// Interpreters: they run what their first words say, which is harmless only if it is a fixed file.
const INTERPRETERS: [&str; 8] = ["python", "perl", "ruby", "node", "lua", "php", "Rscript", "java"];

impl CommandTemplate {
    /// Splits a command, or says everything that is wrong with it.
    pub fn parse(command: &str) -> Result<Self, Vec<CommandFault>> {
        let mut faults: Vec<CommandFault> = shell_syntax(command).into_iter().map(CommandFault::Shell).collect();
        let Some(mut words) = shlex::split(command).map(Vec::into_iter) else {
            faults.push(CommandFault::OpenQuote);
            return Err(faults);
        };
        let program = words.next().filter(|program| !program.is_empty());
        let words = words.map(|word| Word::parse(&word)).collect();
        let Some(program) = program else {
            if faults.is_empty() {
                faults.push(CommandFault::Empty);
            }
            return Err(faults);
        };
        if let Some(name) = Word::parse(&program).arguments().next() {
            faults.push(CommandFault::ProgramFromArgument(name.to_owned()));
        } else if program.contains('=') && !program.starts_with('/') {
            faults.push(CommandFault::Assignment(program.clone()));
        } else if program.contains('/') && !program.starts_with('/') || program.starts_with('.') {
            faults.push(CommandFault::RelativeProgram(program.clone()));
        }
        if faults.is_empty() { Ok(Self { program, words }) } else { Err(faults) }
    }

    /// The program: a name or an absolute path.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// The words after the program.
    pub fn words(&self) -> &[Word] {
        &self.words
    }

    /// The arguments that have a place in the command, in order and as often as they are placed.
    pub fn arguments(&self) -> impl Iterator<Item = &str> {
        self.words.iter().flat_map(Word::arguments)
    }

    /// How the command passes an argument.
    pub fn placement(&self, argument: &str) -> Placement {
        let mut placement = Placement::Appended;
        for word in &self.words {
            for (index, part) in word.0.iter().enumerate() {
                match part {
                    Part::Argument(name) if name == argument => {
                        if !word.follows_equals(index) {
                            return Placement::Placed;
                        }
                        placement = Placement::AfterEquals;
                    }
                    Part::Argument(_) | Part::Literal(_) => {}
                }
            }
        }
        placement
    }

    /// The name of the program if it usually starts what it found or made in the workspace.
    pub fn builds(&self) -> Option<&str> {
        let name = self.program.rsplit('/').next().unwrap_or(&self.program);
        BUILDERS.contains(&name).then_some(name)
    }

    /// Why this command lets an agent run code of its own inside the sandbox, if it does.
    pub fn runs_arbitrary_code(&self) -> Option<String> {
        let name = self.program.rsplit('/').next().unwrap_or(&self.program);
        let base = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        let fixed_file = self.words.first().is_some_and(|word| matches!(word.0.as_slice(), [Part::Literal(path)] if path.starts_with('/')));
        let runs = RUNS_FILES.contains(&name) || INTERPRETERS.contains(&base) && !fixed_file;
        runs.then(|| {
            format!("`{name}` runs what files and arguments tell it to: whoever rents this tool can run arbitrary code inside the sandbox")
        })
    }
}

impl Word {
    /// What it is made of.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// The arguments in it.
    pub fn arguments(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Argument(name) => Some(name.as_str()),
            Part::Literal(_) => None,
        })
    }

    /// Whether the part at `index` comes directly after a literal `=`.
    pub fn follows_equals(&self, index: usize) -> bool {
        let before = index.checked_sub(1).and_then(|before| self.0.get(before));
        matches!(before, Some(Part::Literal(text)) if text.ends_with('='))
    }

    fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let (before, from) = rest.split_at(open);
            literal.push_str(before);
            if let Some((name, after)) = braced(from, "{{", "}}") {
                literal.push_str(&format!("{{{name}}}"));
                rest = after;
            } else if let Some((name, after)) = braced(from, "{", "}") {
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                parts.push(Part::Argument(name.to_owned()));
                rest = after;
            } else {
                literal.push('{');
                rest = from.get(1..).unwrap_or("");
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() || parts.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Self(parts)
    }
}

/// Whether a text can name an argument: a letter or `_`, then letters, digits, `_` and `-`.
pub fn is_argument_name(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn braced<'t>(text: &'t str, open: &str, close: &str) -> Option<(&'t str, &'t str)> {
    let (name, after) = text.strip_prefix(open)?.split_once(close)?;
    is_argument_name(name).then_some((name, after))
}

/// Everything outside quotes that a shell would act on, each once; inside double quotes only what it would expand.
fn shell_syntax(command: &str) -> Vec<String> {
    #[derive(PartialEq)]
    enum Quote {
        No,
        Single,
        Double,
    }
    let mut found: Vec<String> = Vec::new();
    let mut quote = Quote::No;
    let mut word_begins = true;
    let mut letters = command.chars().peekable();
    while let Some(letter) = letters.next() {
        let next = letters.peek().copied();
        let at_word = std::mem::replace(&mut word_begins, quote == Quote::No && letter.is_whitespace());
        let hit = match (&quote, letter) {
            (Quote::Single, '\'') | (Quote::Double, '"') => {
                quote = Quote::No;
                None
            }
            (Quote::Single, _) => None,
            (_, '\\') => {
                letters.next();
                None
            }
            (_, '$') => match next {
                Some('(') => Some("$(".to_owned()),
                Some(c) if c == '{' || c == '_' || c.is_ascii_alphabetic() => Some(format!("${c}")),
                _ => None,
            },
            (_, '`') => Some(letter.to_string()),
            (Quote::Double, _) => None,
            (Quote::No, '\'') => {
                quote = Quote::Single;
                None
            }
            (Quote::No, '"') => {
                quote = Quote::Double;
                None
            }
            (Quote::No, '&' | '|' | '>') if next == Some(letter) => {
                letters.next();
                Some(format!("{letter}{letter}"))
            }
            (Quote::No, '&' | '|' | '>' | '<' | ';' | '(' | ')' | '*' | '\n') => Some(letter.to_string()),
            (Quote::No, '#' | '~') if at_word => Some(letter.to_string()),
            (Quote::No, _) => None,
        };
        if let Some(hit) = hit.filter(|hit| !found.contains(hit)) {
            found.push(hit);
        }
    }
    found
}

#[cfg(test)]
mod tests {

    use super::*;

    fn literal(text: &str) -> Part {
        Part::Literal(text.to_owned())
    }

    fn argument(name: &str) -> Part {
        Part::Argument(name.to_owned())
    }

    #[test]
    fn a_command_is_split_as_a_shell_would_and_placeholders_stand_alone_or_inside_words() {
        let template = CommandTemplate::parse("ffmpeg -i {in_file} 'two words' --out={dir}/{name}.mp4 \"\"").unwrap();
        assert_eq!(template.program(), "ffmpeg");
        let words: Vec<&[Part]> = template.words().iter().map(Word::parts).collect();
        let last = [literal("--out="), argument("dir"), literal("/"), argument("name"), literal(".mp4")];
        assert_eq!(words, [&[literal("-i")][..], &[argument("in_file")], &[literal("two words")], &last, &[literal("")]]);
        assert_eq!(template.arguments().collect::<Vec<_>>(), ["in_file", "dir", "name"]);
        assert_eq!(template.placement("in_file"), Placement::Placed);
        assert_eq!(template.placement("dir"), Placement::AfterEquals);
        assert_eq!(template.placement("name"), Placement::Placed);
        assert_eq!(template.placement("other"), Placement::Appended);
    }

    #[test]
    fn braces_that_are_no_placeholder_stay_and_doubled_ones_are_the_text_itself() {
        let template = CommandTemplate::parse(r#"jq '{"a": 1}' '{{name}}' {} '{a b}' {"#).unwrap();
        let texts: Vec<&[Part]> = template.words().iter().map(Word::parts).collect();
        assert_eq!(texts, [&[literal("{\"a\": 1}")], &[literal("{name}")], &[literal("{}")], &[literal("{a b}")], &[literal("{")]]);
    }

    #[test]
    fn what_only_a_shell_understands_is_refused_unless_it_is_quoted() {
        for (command, found) in [
            ("a | b", "|"),
            ("a > b", ">"),
            ("a >> b", ">>"),
            ("a < b", "<"),
            ("a && b", "&&"),
            ("a || b", "||"),
            ("a & b", "&"),
            ("a; b", ";"),
            ("a $(b)", "$("),
            ("a `b`", "`"),
            ("a $HOME", "$H"),
            ("a \"${HOME}\"", "${"),
            ("a \"$(b)\"", "$("),
            ("a *.c", "*"),
            ("a ~/b", "~"),
            ("a # rest", "#"),
            ("(a)", "("),
        ] {
            let faults = CommandTemplate::parse(command).unwrap_err();
            assert!(faults.contains(&CommandFault::Shell(found.to_owned())), "{command}: {faults:?}");
        }
        for command in ["grep 'a|b>c;$(d)`*' f", "grep \"a|b;c*\" f", r"grep a\|b f", "a b#c d~e", "a $ 5$ $1"] {
            assert!(CommandTemplate::parse(command).is_ok(), "{command}");
        }
    }

    #[test]
    fn every_fault_of_a_command_is_reported() {
        let faults = CommandTemplate::parse("A=1 make && ls > out").unwrap_err();
        let shell = |text: &str| CommandFault::Shell(text.to_owned());
        assert_eq!(faults, [shell("&&"), shell(">"), CommandFault::Assignment("A=1".to_owned())]);
        assert_eq!(CommandTemplate::parse("  ").unwrap_err(), [CommandFault::Empty]);
        assert_eq!(CommandTemplate::parse("'' a").unwrap_err(), [CommandFault::Empty]);
        assert_eq!(CommandTemplate::parse("a 'b").unwrap_err(), [CommandFault::OpenQuote]);
        assert_eq!(CommandTemplate::parse("{tool} a").unwrap_err(), [CommandFault::ProgramFromArgument("tool".to_owned())]);
        assert_eq!(CommandTemplate::parse("./run.sh").unwrap_err(), [CommandFault::RelativeProgram("./run.sh".to_owned())]);
        assert_eq!(CommandTemplate::parse("..").unwrap_err(), [CommandFault::RelativeProgram("..".to_owned())]);
    }

    #[test]
    fn interpreters_are_named_unless_they_run_one_fixed_file() {
        let warns = |command: &str| CommandTemplate::parse(command).unwrap().runs_arbitrary_code().is_some();
        for command in
            ["sh run.sh", "/bin/bash -c 'x'", "python3.11 -c x", "python3 {script}", "npm run build", "make", "env a", "perl -e x", "node"]
        {
            assert!(warns(command), "{command}");
        }
        for command in ["python3 /opt/render.py {scene_file}", "blender --background", "cc -O2"] {
            assert!(!warns(command), "{command}");
        }
    }
}
