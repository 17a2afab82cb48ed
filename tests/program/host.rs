//! What the program says about the host it is on.

use std::process::{Command, Output};

use serde_json::Value;

fn orien(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_orien")).args(args).output().unwrap()
}

#[test]
fn the_doctor_tries_what_it_claims_and_fails_below_what_is_asked_for() {
    let done = orien(&["doctor", "--json"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let survey: Value = serde_json::from_slice(&done.stdout).unwrap();
    let level = survey["level"].as_str().unwrap();
    assert!(level >= "S2", "this host confines only at {level}: {survey:#}");
    let held = survey["tried"].as_array().unwrap().last().unwrap();
    assert!(held["failure"].is_null() && held["checks"].as_array().unwrap().iter().all(|check| check["held"] == true));

    let text = String::from_utf8(orien(&["doctor"]).stdout).unwrap();
    assert!(text.contains("read the host's password hashes: refused") && text.contains("this host can serve"), "{text}");

    let more = orien(&["doctor", "--min-level", "s3"]);
    if level == "S3" {
        assert!(more.status.success());
    } else {
        let text = String::from_utf8(more.stdout).unwrap();
        assert_eq!(more.status.code(), Some(78), "{text}");
        assert!(text.contains("this host cannot serve") && text.contains("Delegate=yes"), "{text}");
    }
}

#[test]
fn the_bench_measures_ours_beside_a_plain_start_in_the_same_run() {
    let done = orien(&["bench", "sandbox", "--runs", "10", "--parent-mib", "16", "--json"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let told: Value = serde_json::from_slice(&done.stdout).unwrap();
    let ratio = told["ratio"].as_f64().unwrap();
    let of = |kind: &str| told["smallParent"][kind]["medianUs"].as_f64().unwrap();
    assert!(ratio > 0.0 && (ratio - of("orien") / of("posixSpawn")).abs() < 0.01, "{told:#}");
    assert_eq!(told["largeParent"]["parentMib"], 16);
    for part in ["sessionOpen", "sessionClose", "killTree"] {
        assert!(told[part]["medianUs"].as_f64().unwrap() > 0.0, "{part}");
    }
    let refused = orien(&["bench", "sandbox", "--runs", "10", "--program", "/no/such/program"]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("/no/such/program"));
}

#[test]
fn the_bench_of_runs_prints_what_agents_wait_for_beside_every_floor_of_the_same_run() {
    let few = ["bench", "runs", "--runs", "12", "--concurrency", "1,4", "--openings", "2", "--floor-runs", "4"];
    let done = orien(&[&few[..], &["--json"]].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let told: Value = serde_json::from_slice(&done.stdout).unwrap();
    let positive = |value: &Value| value.as_f64().is_some_and(|figure| figure > 0.0);
    for floor in ["forkExec", "sandboxSpawn", "roundTrip", "ssh"] {
        let spread = &told["floors"][floor];
        let may_be_missing = floor == "ssh" && std::env::var_os("ORIEN_EVERY_TOOL").is_none();
        let missing = may_be_missing && told["floors"]["sshMissing"].is_string();
        assert!(missing || (spread["samples"] == 4 && positive(&spread["p50Ms"])), "{floor}: {told:#}");
    }
    assert!(positive(&told["floors"]["forkExecPerSecond"]), "{told:#}");
    for part in ["sessionOpen", "sessionEnd"] {
        assert!(told[part]["samples"] == 2 && positive(&told[part]["p95Ms"]), "{part}: {told:#}");
    }
    let levels = told["levels"].as_array().unwrap();
    assert_eq!(levels.iter().map(|level| level["concurrency"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 4]);
    for level in levels {
        assert!(level["runs"] == 12 && level["succeeded"] == 12 && level["successPercent"] == 100.0, "{level:#}");
        assert!(positive(&level["runsPerSecond"]) && positive(&level["run"]["p99Ms"]), "{level:#}");
        assert!(positive(&level["network"]["peakMib"]) && level["callers"]["cpuSeconds"].is_number(), "{level:#}");
    }
    let floor = ["sandboxSpawn", "roundTrip"].map(|floor| told["floors"][floor]["p50Ms"].as_f64().unwrap()).iter().sum::<f64>();
    let ratio = told["ratio"].as_f64().unwrap();
    assert!((ratio - levels[0]["run"]["p50Ms"].as_f64().unwrap() / floor).abs() < 0.01, "{told:#}");
}

#[test]
fn the_bench_of_runs_fails_and_says_why_when_a_run_does() {
    let few = ["bench", "runs", "--runs", "2", "--concurrency", "1", "--openings", "1", "--floor-runs", "2"];
    let done = orien(&[&few[..], &["--program", "/bin/false"]].concat());
    assert!(!done.status.success() && String::from_utf8_lossy(&done.stderr).contains("/bin/false"), "{done:?}");
}
