//! Ordinary tools work inside as they are. Large ones are opt-in: with `ORIEN_EVERY_TOOL=1` a missing one is a failure, without it its
//! run is left out and says so.

use std::path::Path;
use std::time::Duration;

use orien_sandbox::{Profile, SessionSandbox, SessionSpec, WorkPath};

use crate::support::{Done, Ground, PATIENCE, run, sh};

/// Puts files into a session, runs a script there, and expects it to succeed.
async fn works(execute_workspace: bool, files: &[(&str, &str)], script: &str) -> Done {
    let ground = Ground::new().await;
    let profiles = vec![Profile { execute_workspace, ..Profile::default() }];
    let session = ground.session_of(SessionSpec { profiles, ..SessionSpec::default() }).await;
    for (path, content) in files {
        put(&session, path, content).await;
    }
    let mut spec = sh(script);
    spec.limits.wall = PATIENCE * 3;
    spec.limits.cpu = Duration::from_mins(5);
    let done = run(&session, spec).await;
    assert!(done.report.success(), "{:?}\n{}{}", done.report, done.text(), String::from_utf8_lossy(&done.stderr));
    session.close().await.unwrap();
    done
}

async fn put(session: &SessionSandbox, path: &str, content: &str) {
    let mut upload = session.files().create_write(&WorkPath::parse(path).unwrap(), false, 1 << 20).await.unwrap();
    upload.write(content.as_bytes().to_vec()).await.unwrap();
    upload.commit().await.unwrap();
}

/// False when a program is not on this machine, and that is permitted.
fn has(program: &str) -> bool {
    let there = Path::new(program).exists();
    let demanded = std::env::var_os("ORIEN_EVERY_TOOL").is_some_and(|value| value == "1");
    assert!(there || !demanded, "{program} is not installed, and ORIEN_EVERY_TOOL demands it");
    if !there {
        eprintln!("left out: {program} is not installed (ORIEN_EVERY_TOOL=1 would make this a failure)");
    }
    there
}

#[tokio::test]
async fn make_and_cc_build_a_program_and_run_it() {
    let makefile = "all: hello\n\t./hello\nhello: main.o greet.o\n\t$(CC) -o $@ $^\n";
    let main = "void greet(void); int main(void) { greet(); return 0; }";
    let greet = "#include <stdio.h>\nvoid greet(void) { puts(\"built inside\"); }";
    let done = works(true, &[("Makefile", makefile), ("main.c", main), ("greet.c", greet)], "make -j4").await;
    assert!(done.text().contains("built inside"));
}

#[tokio::test]
async fn python_makes_a_virtual_environment_and_uses_it() {
    let script = "/usr/bin/python3 -m venv --without-pip venv && venv/bin/python -c \"
import sys, ssl, sqlite3, multiprocessing, threading
assert sys.prefix == '/workspace/venv', sys.prefix
with multiprocessing.Pool(2) as pool: print(sum(pool.map(abs, [-1, -2, -3])))
\"";
    assert_eq!(works(false, &[], script).await.text(), "6\n");
}

#[tokio::test]
async fn tar_packs_and_unpacks() {
    let script = "mkdir -p a/b && echo x > a/b/c && ln -s b a/link && tar czf t.tgz a && rm -r a && tar xzf t.tgz && cat a/link/c";
    assert_eq!(works(false, &[], script).await.text(), "x\n");
}

#[tokio::test]
async fn git_keeps_a_history() {
    if !has("/usr/bin/git") {
        return;
    }
    let script = "/usr/bin/git init -q . && /usr/bin/git config user.email t@example.org && /usr/bin/git config user.name t && echo x > f \
        && /usr/bin/git add f && /usr/bin/git commit -qm first && /usr/bin/git log --format=%s && /usr/bin/git fsck";
    assert_eq!(works(false, &[], script).await.text(), "first\n");
}

#[tokio::test]
async fn node_and_npm_run_a_build() {
    if !has("/usr/bin/node") || !has("/usr/bin/npm") {
        return;
    }
    let package = r#"{"name": "site", "version": "1.0.0", "scripts": {"build": "node build.js"}}"#;
    let build = "const fs = require('fs'), zlib = require('zlib'), { Worker } = require('worker_threads');\n\
        fs.mkdirSync('dist'); fs.writeFileSync('dist/index.html.gz', zlib.gzipSync('<p>built</p>'));\n\
        new Worker(\"require('worker_threads').parentPort.postMessage(1)\", { eval: true }).on('message', () => console.log('worker'));";
    let done = works(false, &[("package.json", package), ("build.js", build)], "npm run build && zcat dist/index.html.gz").await;
    assert!(done.text().contains("worker") && done.text().contains("<p>built</p>"), "{}", done.text());
}

#[tokio::test]
async fn java_compiles_and_runs() {
    if !has("/usr/bin/java") || !has("/usr/bin/javac") {
        return;
    }
    let hello = "public class Hello { public static void main(String[] a) throws Exception {\n\
        java.util.stream.IntStream.range(0, 4).parallel().forEach(i -> {}); System.out.println(\"java \" + System.getProperty(\"user.name\")); } }";
    assert_eq!(works(false, &[("Hello.java", hello)], "javac Hello.java && java -cp . Hello").await.text(), "java tool\n");
}

#[tokio::test]
async fn ffmpeg_encodes_a_film() {
    if !has("/usr/bin/ffmpeg") {
        return;
    }
    let script = "ffmpeg -v error -f lavfi -i testsrc=duration=1:size=64x64:rate=10 film.gif && head -c 6 film.gif";
    assert_eq!(works(false, &[], script).await.text(), "GIF89a");
}

#[tokio::test]
async fn imagemagick_converts_a_picture() {
    if !has("/usr/bin/convert") {
        return;
    }
    let script = "/usr/bin/convert -size 32x32 gradient: -resize 16x16 picture.png && /usr/bin/identify -format '%wx%h' picture.png";
    assert_eq!(works(false, &[], script).await.text(), "16x16");
}

#[tokio::test]
async fn povray_renders_a_scene() {
    if !has("/usr/bin/povray") {
        return;
    }
    let scene = "#include \"colors.inc\"\ncamera { location <0, 1, -3> look_at 0 }\nlight_source { <2, 4, -3> White }\n\
        sphere { 0, 1 texture { pigment { Red } } }";
    let script = "povray +Iscene.pov +Oscene.png +W64 +H48 -D && head -c 4 scene.png | tail -c 3";
    assert_eq!(works(false, &[("scene.pov", scene)], script).await.text(), "PNG");
}
