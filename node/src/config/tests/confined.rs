//! What a file says about confinement, workspaces, shared paths and the network; the machine's paths are stated by each test.

use std::cell::RefCell;
use std::collections::BTreeMap;

use orien_sandbox::Level;

use super::*;

/// A machine with these paths, each with what is there; programs are where they say, or below `/usr/bin`.
#[derive(Default)]
struct Stated {
    paths: BTreeMap<&'static str, Option<PathFault>>,
    links: BTreeMap<&'static str, &'static str>,
    looked: RefCell<Vec<String>>,
}

impl Paths for Stated {
    fn look(&self, path: &Path) -> Result<(), PathFault> {
        let text = path.to_str().unwrap();
        self.looked.borrow_mut().push(text.to_owned());
        match self.paths.get(text) {
            Some(None) => Ok(()),
            Some(Some(fault)) => Err(fault.clone()),
            None => Err(PathFault::Absent(path.to_owned())),
        }
    }

    fn is_there(&self, path: &Path) -> bool {
        self.paths.contains_key(path.to_str().unwrap())
    }
}

impl Programs for Stated {
    fn find(&self, program: &str) -> Result<PathBuf, String> {
        if program == "absent" { Err("no program `absent`".to_owned()) } else { Ok(Path::new("/usr/bin").join(program)) }
    }

    fn real(&self, program: &Path) -> PathBuf {
        self.links.get(program.to_str().unwrap()).map_or_else(|| program.to_owned(), PathBuf::from)
    }
}

fn machine(paths: &[&'static str]) -> Stated {
    Stated { paths: paths.iter().map(|path| (*path, None)).collect(), ..Stated::default() }
}

/// A file with these fields of the provider, one tool `cc`, and these fields of the tool.
fn load_on(machine: &Stated, provider: &str, tool: &str) -> Result<ProviderConfig, Vec<ConfigFault>> {
    let command = if tool.contains("\"command\"") { "" } else { "\"command\": \"cc\"," };
    let text = format!("{{{provider} \"providerId\": \"p\", \"callFee\": 1, \"tools\": [\n{{{command} {tool} \"id\": \"t\"}}]}}");
    load(&text, machine, machine)
}

fn faults_on(machine: &Stated, provider: &str, tool: &str) -> Vec<String> {
    load_on(machine, provider, tool).unwrap_err().iter().map(ConfigFault::to_string).collect()
}

fn warnings_on(machine: &Stated, provider: &str, tool: &str) -> Vec<String> {
    load_on(machine, provider, tool).unwrap().warnings.iter().map(ConfigWarning::to_string).collect()
}

fn shared(path: &str, execute: bool) -> SharedPath {
    SharedPath { path: PathBuf::from(path), execute }
}

#[test]
fn without_a_word_tools_are_confined_in_namespaces_see_nothing_reach_nothing_and_work_in_memory() {
    let config = load_on(&machine(&[]), "", "").unwrap();
    assert_eq!(config.sandbox, SandboxChoice { min_level: Level::S2, first_user: 1_900_000_000, network_bytes: 10 << 30 });
    assert_eq!(config.workspace, WorkspaceChoice { storage: orien_sandbox::Storage::Memory, max_bytes: 256 << 20, max_entries: 65_536 });
    let tool = &config.tools[0];
    assert_eq!((&tool.shared[..], &tool.network, tool.exec_workspace), (&[][..], &None, false));
    assert!(config.warnings.is_empty());
}

#[test]
fn the_sandbox_is_as_the_file_says_and_root_is_never_in_its_range() {
    let read = |text: &str| load_on(&machine(&[]), &format!("\"sandbox\": {text},"), "").map(|config| config.sandbox);
    let stated = SandboxChoice { min_level: Level::S3, first_user: 70_000, network_bytes: 1 << 20 };
    assert_eq!(read(r#"{"minLevel": "S3", "user": 70000, "maxNetworkBytes": "1MB"}"#), Ok(stated));
    assert_eq!(read(r#"{"minLevel": "S0"}"#).unwrap().min_level, Level::S0);
    assert_eq!(read(r#"{"minLevel": "S1"}"#).unwrap().min_level, Level::S1);
    let faults = |text: &str| faults_on(&machine(&[]), &format!("\"sandbox\": {text},"), "");
    for user in ["0", "1000", "65535", "2147418113", "4294967295"] {
        assert_one(&faults(&format!("{{\"user\": {user}}}")), &["sandbox.user", "out of range", "from 65536 to 2147418112"]);
    }
    assert_eq!(read(r#"{"user": 2147418112}"#).unwrap().first_user.checked_add(orien_sandbox::USERS), Some(1 << 31));
    for level in ["\"S4\"", "\"s2\"", "\"none\""] {
        assert_one(&faults(&format!("{{\"minLevel\": {level}}}")), &["sandbox.minLevel", "not a level", "\"S3\""]);
    }
    assert_one(&faults(r#"{"minLevel": 2}"#), &["expected a text"]);
    assert_one(&faults(r#"{"maxNetworkBytes": "1KB"}"#), &["from 1 MB to"]);
    assert_one(&faults(r#"{"level": "S2"}"#), &["unknown field"]);
    assert_one(
        &warnings_on(&machine(&[]), r#""sandbox": {"minLevel": "S0"},"#, ""),
        &["line 1", "see and reach all that the node's user can"],
    );
    assert_one(&warnings_on(&machine(&[]), r#""sandbox": {"minLevel": "S1"},"#, ""), &["only filters"]);
    assert!(warnings_on(&machine(&[]), r#""sandbox": {"minLevel": "S2"},"#, "").is_empty());
}

#[test]
fn a_workspace_is_in_memory_up_to_a_gigabyte_and_on_disk_above_unless_the_file_says_where() {
    let read = |text: &str| {
        let config = load_on(&machine(&[]), &format!("\"workspace\": {text},"), "").unwrap();
        (config.workspace.storage, config.workspace.max_bytes, config.workspace.max_entries, config.warnings.len())
    };
    use orien_sandbox::Storage::{Disk, Memory};
    assert_eq!(read("{}"), (Memory, 256 << 20, 65_536, 0));
    assert_eq!(read(r#"{"maxBytes": "1GB"}"#), (Memory, 1 << 30, 65_536, 0));
    assert_eq!(read(r#"{"maxBytes": 1073741825}"#), (Disk, (1 << 30) + 1, 200_000, 1));
    assert_eq!(read(r#"{"maxBytes": "2GB", "storage": "memory"}"#), (Memory, 2 << 30, 65_536, 0));
    assert_eq!(read(r#"{"maxBytes": "2GB", "storage": "disk", "maxEntries": 16}"#), (Disk, 2 << 30, 16, 0));
    assert_eq!(read(r#"{"maxBytes": "1MB", "storage": "disk"}"#), (Disk, 1 << 20, 200_000, 0));
    assert_eq!(read(r#"{"storage": "disk"}"#), (Disk, 1 << 30, 200_000, 0));
    let faults = |text: &str| faults_on(&machine(&[]), &format!("\"workspace\": {text},"), "");
    assert_one(&faults(r#"{"storage": "disc"}"#), &["workspace.storage", "did you mean `disk`?"]);
    assert_one(&faults(r#"{"storage": "cloud"}"#), &["write \"memory\" or \"disk\""]);
    assert_one(&faults(r#"{"maxEntries": 15}"#), &["from 16 to 10000000"]);
    assert_one(&faults(r#"{"maxBytes": "17TB"}"#), &["from 1 MB to 16 TB"]);
}

#[test]
fn a_tool_sees_the_paths_that_it_names_by_their_name_or_by_themselves() {
    let machine = machine(&["/srv/scripts", "/srv/data", "/srv/data/deep", "/scripts"]);
    let provider = r#""shared": [{"name": "scripts", "path": "/srv/scripts", "execute": true}, "/srv/data", {"path": "/srv/data/deep"}],"#;
    let config = load_on(&machine, provider, r#""shared": ["/srv/data/deep", "scripts", "/scripts", "/srv/data"],"#).unwrap();
    let paths = [shared("/scripts", false), shared("/srv/data", false), shared("/srv/data/deep", false), shared("/srv/scripts", true)];
    assert_eq!(config.tools[0].shared, paths, "in order, so that deeper ones come later");
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let by_path = load_on(&machine, provider, r#""shared": ["/srv/scripts"],"#).unwrap();
    assert_eq!(by_path.tools[0].shared, [shared("/srv/scripts", true)], "the provider's entry holds for its path too");
    let places: Vec<&str> = by_path.warnings.iter().map(|warning| warning.place.path.as_str()).collect();
    assert_eq!(places, ["shared[1]", "shared[2]"], "{:?}", by_path.warnings);
    assert!(by_path.warnings[0].warning.contains("no tool lists this"));
}

#[test]
fn shared_paths_that_are_misnamed_doubled_or_misspelt_are_faults() {
    let machine = machine(&["/srv/a", "/srv/b"]);
    let provider = r#""shared": [{"name": "scripts", "path": "/srv/a"}],"#;
    assert_one(&faults_on(&machine, provider, r#""shared": ["script"],"#), &["tools[0].shared[0]", "did you mean `scripts`?"]);
    assert_one(&faults_on(&machine, provider, r#""shared": ["other"],"#), &["nothing shared is named `other`", "{\"name\": \"other\""]);
    assert_one(&faults_on(&machine, provider, r#""shared": ["scripts", "/srv/a"],"#), &["`/srv/a` is shared twice"]);
    assert_one(&faults_on(&machine, provider, r#""shared": "scripts","#), &["expected a list"]);
    let top = |text: &str| faults_on(&machine, &format!("\"shared\": [{text}],"), "");
    assert_one(&top(r#""/srv/a", {"path": "/srv/a"}"#), &["shared[1]", "same path"]);
    assert_one(&top(r#"{"name": "x", "path": "/srv/a"}, {"name": "x", "path": "/srv/b"}"#), &["shared[1]", "same name"]);
    assert_one(&top(r#"{"name": "x"}"#), &["shared[0].path", "missing"]);
    assert_one(&top(r#"{"name": "A B", "path": "/srv/a"}"#), &["shared[0].name", "cannot be an id"]);
    assert_one(&top(r#"{"path": "/srv/a", "excute": true}"#), &["shared[0].excute", "did you mean `execute`?"]);
    assert_one(&top(r#"{"path": "/srv/a", "execute": "yes"}"#), &["expected true or false"]);
    assert_one(&top("5"), &["expected an object"]);
    let many = vec!["\"/srv/a\""; 33].join(",");
    assert_one(&top(&many), &["33 entries", "at most 32"]);
}

#[test]
fn places_that_hold_keys_accounts_or_the_kernels_files_are_never_shared() {
    let machine = machine(&[]);
    for (path, why) in [
        ("srv", "not absolute"),
        ("./srv", "not absolute"),
        ("/", "far more"),
        ("/home", "far more"),
        ("/root", "far more"),
        ("/etc", "far more"),
        ("/usr", "far more"),
        ("/var", "far more"),
        ("/home/alice", "home of a person"),
        ("/proc", "services, devices"),
        ("/proc/1/root/srv", "services, devices"),
        ("/sys/fs/cgroup", "services, devices"),
        ("/dev/shm", "services, devices"),
        ("/run/docker.sock", "services, devices"),
        ("/var/run/user", "services, devices"),
        ("/tmp/x", "services, devices"),
        ("/workspace", "services, devices"),
        ("/srv/../etc", "`..`"),
        ("/srv/./a", "a slash too many"),
        ("/srv//a", "a slash too many"),
        ("/srv/", "a slash too many"),
        ("//", "a slash too many"),
    ] {
        let fault = faults_on(&machine, &format!("\"shared\": [{{\"path\": {path:?}}}],"), "");
        assert_one(&fault, &["line 1", "shared[0].path", why, &format!("`{path}` cannot be shared")]);
        if path.starts_with('/') {
            assert_one(&faults_on(&machine, "", &format!("\"shared\": [{path:?}],")), &["tools[0].shared[0]", why]);
        }
    }
    assert!(machine.looked.borrow().is_empty(), "nothing of it was even looked at");
    for path in ["/home/alice/data", "/var/lib/data", "/etc/ssl", "/runs", "/srv"] {
        let faults = faults_on(&machine, &format!("\"shared\": [{path:?}],"), "");
        assert_one(&faults, &["is not on this machine"]);
    }
}

#[test]
fn what_was_found_on_the_machine_is_said_with_its_remedy_at_each_place_and_looked_for_once() {
    let link = PathFault::Link { at: PathBuf::from("/srv"), real: Some(PathBuf::from("/data/a")) };
    let socket = PathFault::Special { at: PathBuf::from("/srv/b/x\ny"), kind: "socket" };
    let paths = BTreeMap::from([("/srv/a", Some(link)), ("/srv/b", Some(socket)), ("/srv/c", Some(PathFault::TooMany))]);
    let machine = Stated { paths, ..Stated::default() };
    let faults = faults_on(&machine, r#""shared": ["/srv/a", "/srv/b", "/srv/c"],"#, r#""shared": ["/srv/a", "/srv/d"],"#);
    assert_eq!(
        faults,
        [
            "line 1, column 13, shared[0]: `/srv/a` cannot be shared: `/srv` is a link: whoever can change it decides what tools see; write the real path, `/data/a`",
            "line 1, column 23, shared[1]: `/srv/b` cannot be shared: `/srv/b/x\\ny` is a socket; share a folder that holds only files and folders",
            "line 1, column 33, shared[2]: `/srv/c` cannot be shared: more than 100000 entries lie below it, too many to look for sockets and devices; share only the part of it that the tool needs",
            "line 2, column 30, tools[0].shared[0]: `/srv/a` cannot be shared: `/srv` is a link: whoever can change it decides what tools see; write the real path, `/data/a`",
            "line 2, column 40, tools[0].shared[1]: `/srv/d` cannot be shared: `/srv/d` is not on this machine; make it, or correct the path",
        ]
    );
    assert_eq!(*machine.looked.borrow(), ["/srv/a", "/srv/b", "/srv/c", "/srv/d"]);
}

#[test]
fn a_program_that_the_tool_could_not_see_is_a_fault_that_says_what_to_add() {
    let machine = Stated {
        links: BTreeMap::from([("/usr/bin/npm", "/opt/node/bin/npm"), ("/opt/links/cc", "/usr/bin/cc"), ("/bin/sh", "/usr/bin/dash")]),
        ..machine(&["/opt/blender", "/opt/node", "/opt/links", "/opt/blender/lib"])
    };
    let blender = r#""command": "/opt/blender/blender","#;
    let fix = "add \"shared\": [{\"name\": \"blender\", \"path\": \"/opt/blender\", \"execute\": true}] at the top level and \"shared\": [\"blender\"] to this tool";
    assert_one(
        &faults_on(&machine, "", blender),
        &["tools[0].command", "`/opt/blender/blender` is not below /usr, /bin, /sbin or /lib", fix],
    );
    // Following the advice helps.
    let provider = r#""shared": [{"name": "blender", "path": "/opt/blender", "execute": true}],"#;
    let config = load_on(&machine, provider, &format!("{blender} \"shared\": [\"blender\"],")).unwrap();
    assert_eq!(config.tools[0].shared, [shared("/opt/blender", true)]);
    assert_one(&faults_on(&machine, provider, blender), &["add \"shared\": [\"blender\"] to this tool"]);
    let reading = r#""shared": [{"name": "b", "path": "/opt/blender"}],"#;
    let unlisted = faults_on(&machine, reading, blender);
    assert_one(
        &unlisted,
        &["sees nothing else", "make its entry at the top level {\"name\": \"b\", \"path\": \"/opt/blender\", \"execute\": true}"],
    );
    let faults = faults_on(&machine, reading, &format!("{blender} \"shared\": [\"b\"],"));
    assert_one(
        &faults,
        &["below `/opt/blender`, which is shared for reading only", "{\"name\": \"b\", \"path\": \"/opt/blender\", \"execute\": true}"],
    );
    let faults = faults_on(&machine, "", &format!("{blender} \"shared\": [\"/opt/blender\"],"));
    assert_one(&faults, &["shared for reading only", fix]);
    let beside = r#""shared": [{"name": "b", "path": "/opt/blender/lib", "execute": true}],"#;
    assert_one(&faults_on(&machine, beside, &format!("{blender} \"shared\": [\"b\"],")), &["sees nothing else", fix]);
    // A link in a usual folder that leads out of it.
    let npm = faults_on(&machine, "", r#""command": "npm", "execWorkspace": false,"#);
    assert_one(
        &npm,
        &["`/usr/bin/npm` leads to `/opt/node/bin/npm`, and that is not below", "{\"name\": \"node\", \"path\": \"/opt/node\""],
    );
    // And one that leads into it is itself not seen.
    assert_one(&faults_on(&machine, "", r#""command": "/opt/links/cc","#), &["`/opt/links/cc` is not below"]);
    assert!(load_on(&machine, "", r#""command": "/bin/sh","#).is_ok());
    assert!(load_on(&machine, "", r#""command": "absent","#).is_ok(), "what is not offered needs nothing");
    assert_one(&faults_on(&machine, "", r#""command": "/home/alice/bin/x","#), &["\"path\": \"/home/alice/bin\""]);
    assert_one(&faults_on(&machine, "", r#""command": "/x","#), &["{\"name\": \"x\", \"path\": \"/x\", \"execute\": true}"]);
}

#[test]
fn a_path_in_the_command_that_the_tool_will_not_see_is_warned_of() {
    let machine = machine(&["/scripts", "/scripts/render.py", "/srv/x", "/usr/share/y", "/etc/z"]);
    let command = r#""command": "blender --python /scripts/render.py --out=/srv/x -x /usr/share/y /etc/z {f} 's/absent/a/' /no/such", "args": ["f"],"#;
    let warnings = warnings_on(&machine, "", command);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("will not see `/scripts/render.py`") && warnings[1].contains("will not see `/srv/x`"), "{warnings:?}");
    assert!(warnings_on(&machine, "", &format!("{command} \"shared\": [\"/scripts\", \"/srv/x\"],")).is_empty());
}

#[test]
fn a_build_tool_is_asked_whether_it_starts_what_it_builds() {
    let warnings = |fields: &str| {
        let all = warnings_on(&machine(&[]), "", fields);
        all.into_iter().filter(|warning| warning.contains("execWorkspace")).count()
    };
    assert_eq!(warnings(r#""command": "npm run build","#), 1);
    assert_eq!(warnings(r#""command": "/usr/bin/make","#), 1);
    assert_eq!(warnings(r#""command": "make", "execWorkspace": false,"#), 0);
    assert_eq!(warnings(r#""command": "cc -c x.c","#), 0);
    assert!(load_on(&machine(&[]), "", r#""command": "make", "execWorkspace": true,"#).unwrap().tools[0].exec_workspace);
    assert_one(&faults_on(&machine(&[]), "", r#""execWorkspace": 1,"#), &["tools[0].execWorkspace", "true or false"]);
}

#[test]
fn a_network_is_none_or_named_host_by_host() {
    let read = |text: &str| load_on(&machine(&[]), "", &format!("\"network\": {text},")).map(|config| config.tools[0].network.clone());
    assert_eq!(read("\"none\""), Ok(None));
    let grant = read(r#"{"allow": ["PyPI.org:443", "*.example.org:8443,443"]}"#).unwrap().unwrap();
    assert_eq!(grant.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(), ["pypi.org:443", "*.example.org:443,8443"]);
    let faults = |text: &str| faults_on(&machine(&[]), "", &format!("\"network\": {text},"));
    for text in ["true", "\"all\"", "\"host\"", "[\"pypi.org:443\"]", "null"] {
        assert_one(&faults(text), &["tools[0].network", "there is no unlimited network"]);
    }
    for (text, part) in [
        ("*:443", "whole top-level domain"),
        ("pypi.org", "no port"),
        ("https://pypi.org:443", "may hold only letters"),
        ("2130706433:80", "looks like an address"),
        ("localhost:80", "127.0.0.1"),
        ("0.0.0.0:80", "not the address of one machine"),
        ("", "empty"),
    ] {
        assert_one(&faults(&format!("{{\"allow\": [{text:?}]}}")), &["tools[0].network.allow[0]", part]);
    }
    assert_one(&faults(r#"{"allow": []}"#), &["allows no host", "\"network\": \"none\""]);
    assert_one(&faults("{}"), &["tools[0].network.allow", "missing"]);
    assert_one(&faults(r#"{"allow": ["a.b:1", "A.b:1"]}"#), &["allow[1]", "listed twice"]);
    assert_one(&faults(r#"{"allow": ["a.b:1"], "deny": []}"#), &["unknown field"]);
    let many: Vec<String> = (0..65).map(|n| format!("\"h{n}.example:443\"")).collect();
    assert_one(&faults(&format!("{{\"allow\": [{}]}}", many.join(","))), &["65 entries", "at most 64"]);
    let warnings = warnings_on(&machine(&[]), "", r#""network": {"allow": ["10.0.0.5:5432", "8.8.8.8:53"]},"#);
    assert_one(&warnings, &["allow[0]", "10.0.0.5:5432 is not on the public internet"]);
}

#[test]
fn the_report_says_how_tools_are_confined_and_what_each_sees_and_reaches() {
    let machine = machine(&["/srv/scripts", "/opt/x"]);
    let loaded = load_on(
        &machine,
        r#""workspace": {"maxBytes": "2GB"}, "shared": [{"name": "x", "path": "/opt/x", "execute": true}],"#,
        r#""shared": ["/srv/scripts", "x"], "network": {"allow": ["pypi.org:443", "10.0.0.1:80"]}, "execWorkspace": true,"#,
    );
    let report = ConfigReport::of(&loaded);
    let shown = report.to_string();
    for part in [
        "\n    sandbox   at least S2, users from 1900000000, network up to 10 GB per session\n",
        "\n    workspace 2 GB on disk and 200000 entries per session\n",
        "\n    sees      /opt/x (read and execute), /srv/scripts (read only)\n",
        "\n    reaches   pypi.org:443, 10.0.0.1:80\n",
        "\n    starts    programs in the workspace\n",
        "above 1 GB workspaces are on disk",
    ] {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["sandbox"], serde_json::json!({"minLevel": "S2", "user": 1_900_000_000, "maxNetworkBytes": 10_737_418_240_u64}));
    assert_eq!(json["workspace"], serde_json::json!({"storage": "disk", "maxBytes": 2_147_483_648_u64, "maxEntries": 200_000}));
    let tool = &json["tools"][0];
    assert_eq!(tool["shared"][0], serde_json::json!({"path": "/opt/x", "execute": true}));
    assert_eq!(tool["network"], serde_json::json!({"allow": ["pypi.org:443", "10.0.0.1:80"]}));
    assert_eq!(tool["execWorkspace"], true);
    let plain = ConfigReport::of(&load_on(&machine, "", ""));
    assert!(plain.to_string().contains("workspace 256 MB in memory and 65536 entries per session\n"), "{plain}");
    assert!(!["sees", "reaches", "starts"].iter().any(|word| plain.to_string().contains(word)), "{plain}");
    assert_eq!(serde_json::to_value(&plain).unwrap()["tools"][0]["network"], "none");
}
