//! The audit passes what settlement made, and finds any single field that was changed.

use orien_settlement::audit::{audit, audit_file};
use orien_settlement::file::BatchFile;
use serde_json::Value;

use crate::batching::Setting;
use crate::kit::Kit;

/// The second of two batches: channels that start from zero and one that does not.
fn file() -> (Setting, BatchFile) {
    let it = Setting::new();
    it.claim(0, 1, "1.234567");
    it.batch(1).unwrap();
    it.claim(0, 2, "2.000001");
    it.claim(1, 1, "0.5");
    it.close(2, 7, "0.700003");
    let batch = it.batch(2).unwrap();
    let file = BatchFile::of(&batch, it.kit.house.facts()).unwrap();
    (it, file)
}

#[test]
fn a_genuine_batch_is_clean_and_comes_back_from_its_json() {
    let (it, file) = file();
    let bytes = serde_json::to_vec_pretty(&file).unwrap();
    let report = audit(&bytes, Some(it.kit.house.facts())).unwrap();
    assert!(report.clean(), "{:?}", report.findings);
    assert_eq!((report.entries, report.total_cost.as_str()), (3, "1.965437"));
    assert!(report.network_compared && !audit(&bytes, None).unwrap().network_compared);
}

#[test]
fn a_batch_of_another_network_is_not_taken_for_ours() {
    let (_, file) = file();
    let other = Kit::named("other-net", 200);
    assert!(!audit_file(&file, Some(other.house.facts())).clean());
}

/// Every way to change one value of the file a little.
fn tampered(value: &Value) -> Vec<Value> {
    match value {
        Value::Null => vec![Value::String("00".to_owned())],
        Value::Bool(flag) => vec![Value::Bool(!flag)],
        Value::Number(number) => vec![Value::from(number.as_u64().unwrap() + 1)],
        Value::String(text) => {
            let mut ways = vec![Value::String(format!("{text}0")), Value::Null];
            // Characters at several places, so that every part of long evidence is hit somewhere.
            for at in (0..text.len()).step_by(1 + text.len() / 23) {
                let mut bytes = text.clone().into_bytes();
                bytes[at] = if bytes[at] == b'3' { b'4' } else { b'3' };
                ways.push(Value::String(String::from_utf8(bytes).unwrap()));
            }
            ways
        }
        Value::Array(items) => {
            let mut ways: Vec<Value> = Vec::new();
            for (index, item) in items.iter().enumerate() {
                let with = |item: Option<Value>| {
                    Value::Array(
                        items.iter().enumerate().filter_map(|(i, old)| if i == index { item.clone() } else { Some(old.clone()) }).collect(),
                    )
                };
                ways.push(with(None));
                ways.extend(tampered(item).into_iter().map(|item| with(Some(item))));
                let mut twice = items.clone();
                twice.push(item.clone());
                ways.push(Value::Array(twice));
            }
            if items.len() > 1 {
                ways.push(Value::Array(items.iter().rev().cloned().collect()));
            }
            ways
        }
        Value::Object(members) => {
            let mut ways = Vec::new();
            for (name, member) in members {
                for changed in tampered(member) {
                    let mut members = members.clone();
                    members.insert(name.clone(), changed);
                    ways.push(Value::Object(members));
                }
            }
            ways
        }
    }
}

#[test]
fn any_single_field_that_was_changed_is_found() {
    let (it, file) = file();
    let original = serde_json::to_value(&file).unwrap();
    let ways = tampered(&original);
    assert!(ways.len() > 500);
    for way in ways {
        let Ok(changed) = serde_json::from_value::<BatchFile>(way.clone()) else { continue };
        let report = audit_file(&changed, Some(it.kit.house.facts()));
        assert!(!report.clean(), "{way}");
    }
}

#[test]
fn garbage_is_not_a_batch_and_never_a_panic() {
    for garbage in [&b""[..], b"{}", b"[1,2", b"\xff\xfe", b"{\"format\":\"orien-batch/1\"}"] {
        assert!(audit(garbage, None).is_err());
    }
}
