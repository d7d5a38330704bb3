//! `devgrant explain DG001` as a person runs it.

use devgrant::cli::words::words;
use devgrant::decision::finding::entries;
use devgrant::decision::plan::meaning::meanings;
use serde_json::Value;

#[path = "support/ran.rs"]
mod ran;
use ran::{Ran, program};

fn explain(arguments: &[&str]) -> Ran {
    Ran::of(program().arg("explain").args(arguments))
}

/// Runs, and gives the results; nothing else may have been said.
#[track_caller]
fn fine(arguments: &[&str]) -> String {
    let ran = explain(arguments);
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{arguments:?}");
    ran.stdout
}

/// Runs, and expects bad usage and all of these words in the message.
#[track_caller]
fn fails(arguments: &[&str], words: &[&str]) {
    let ran = explain(arguments);
    assert_eq!((ran.status, ran.stdout.as_str()), (2, ""), "{arguments:?}: {}", ran.stderr);
    for word in words {
        assert!(ran.stderr.contains(word), "{arguments:?}: {word} is not in: {}", ran.stderr);
    }
}

#[test]
fn a_code_gives_its_whole_text() {
    for entry in entries() {
        let text = fine(&[&entry.code.as_str()]);
        let parts = [&entry.title, &entry.sentence, &entry.remedy];
        for part in parts.into_iter().chain([&entry.why, &entry.shows, &entry.fix]) {
            assert!(text.contains(part.trim()), "{}: {part} is not in: {text}", entry.code);
        }
    }
}

#[test]
fn a_reason_gives_its_whole_text() {
    for meaning in meanings() {
        let text = fine(&[meaning.reason.as_str()]);
        for part in [&meaning.title, &meaning.means, &meaning.fix] {
            let name = meaning.reason.as_str();
            assert!(text.contains(part.trim()), "{name}: {part} is not in: {text}");
        }
    }
    let both: Value = serde_json::from_str(&fine(&["unknownmode", "DG012", "-o", "json"])).unwrap();
    assert_eq!((&both[0]["reason"], &both[1]["code"]), (&"UnknownMode".into(), &"DG012".into()));
    let keys: Vec<&str> = both[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["reason", "title", "means", "fix"]);
}

#[test]
fn a_word_of_the_server_or_of_lint_gives_its_whole_text() {
    for word in words() {
        let text = fine(&[&word.name]);
        for part in [&word.title, &word.means, &word.fix] {
            assert!(text.contains(part.trim()), "{}: {part} is not in: {text}", word.name);
        }
    }
    let both: Value =
        serde_json::from_str(&fine(&["deadline", "UNKNOWNFIELD", "-o", "json"])).unwrap();
    assert_eq!(
        (&both[0]["reason"], &both[1]["rule"]),
        (&"Deadline".into(), &"UnknownField".into())
    );
    for (told, key) in [(&both[0], "reason"), (&both[1], "rule")] {
        let keys: Vec<&str> = told.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, [key, "title", "means", "fix"]);
    }
    // The same word for a pod and for a review.
    let text = fine(&["TooLarge"]);
    assert!(text.contains("bodyLimit") && text.contains("annotations"), "{text}");
}

#[test]
fn codes_are_read_in_any_case_and_told_in_the_order_asked() {
    let text = fine(&["dg012", "DG001"]);
    let heading = |code: &str| text.find(&format!("{code}: "));
    assert_eq!(heading("DG012"), Some(0), "{text}");
    assert!(heading("DG001") > heading("DG012"), "{text}");
}

#[test]
fn json_gives_the_entry() {
    let told: Value = serde_json::from_str(&fine(&["DG012", "DG020", "-o", "json"])).unwrap();
    let codes: Vec<&str> =
        told.as_array().unwrap().iter().filter_map(|entry| entry["code"].as_str()).collect();
    assert_eq!(codes, ["DG012", "DG020"]);
    let keys: Vec<&str> = told[0].as_object().unwrap().keys().map(String::as_str).collect();
    let fields =
        ["code", "title", "severity", "effect", "sentence", "remedy", "why", "shows", "fix"];
    assert_eq!(keys, fields);
    assert_eq!((&told[0]["severity"], &told[0]["effect"]), (&"Error".into(), &"Deny".into()));
}

#[test]
fn an_unknown_code_is_answered_with_the_nearest() {
    fails(&["DG0012"], &["'DG0012'", "did you mean `DG001`", "explain --help"]);
    fails(&["UnknownMod"], &["'UnknownMod'", "did you mean `UnknownMode`", "--help"]);
    fails(&["DG12"], &["did you mean `DG012`"]);
    fails(&["dedline"], &["did you mean `Deadline`"]);
    fails(&["nonsense"], &["'nonsense'", "nothing has this name; `devgrant explain --help` lists"]);
    for name in ["DG0012", "nonsense"] {
        let said = explain(&[name]).stderr;
        assert!(said.len() < 250, "no list of all names: {said}");
    }
}

#[test]
fn it_is_either_codes_or_manifests() {
    fails(&[], &["required", "NAME", "--file"]);
    fails(&["DG001", "-f", "pod.yaml"], &["cannot be used with"]);
}

/// The place to look for a code: no verb of its own is needed.
#[test]
fn help_lists_every_code() {
    let help = fine(&["--help"]);
    for entry in entries() {
        let line = format!("{}:", entry.code);
        let listed = help.lines().find(|text| text.contains(&line)).unwrap_or_default();
        let first = entry.title.split_whitespace().next().unwrap();
        assert!(listed.contains(first), "{} is not in: {help}", entry.code);
    }
}
