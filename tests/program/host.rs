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
