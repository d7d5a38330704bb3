#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where and stops")]
//! What is said of each finding: the data against its own rules, and the pages made from it.
//!
//! `DEVGRANT_REFRESH_GOLDEN=1 cargo test --test findings` writes `docs/findings` again; the difference
//! is for review. A page of no code fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use devgrant::cli::words::{Speaker, Word, words};
use devgrant::decision::Reason;
use devgrant::decision::finding::{Code, Effect, Entry, Finding, Severity, entries};
use devgrant::decision::plan::meaning::{Meaning, meanings};
use devgrant::metrics::FAILURES;
use serde_json::Value;

/// The most characters of a sentence and of a remedy, before their places are filled.
const SENTENCE: usize = 100;
const REMEDY: usize = 110;
/// The widest line of a long text that is no code: a terminal's and a reader's measure.
const WIDTH: usize = 100;
/// The name of the list of all pages.
const INDEX: &str = "README.md";

/// The places that the checker fills, a row a code.
const PLACES: [(Code, &[&str]); 28] = [
    (Code::DG001, &["container", "user", "instead"]),
    (Code::DG002, &["container", "user"]),
    (Code::DG003, &["container", "modes"]),
    (Code::DG004, &["container"]),
    (Code::DG005, &["level", "check", "container", "modes"]),
    (Code::DG006, &["mode", "level", "check", "container"]),
    (Code::DG007, &["container", "capability"]),
    (Code::DG008, &["container"]),
    (Code::DG009, &["node"]),
    (Code::DG010, &["annotation"]),
    (Code::DG011, &["container"]),
    (Code::DG012, &["container", "resource", "request", "limit"]),
    (Code::DG013, &["container", "resource"]),
    (Code::DG014, &["container"]),
    (Code::DG015, &["container", "value"]),
    (Code::DG016, &["container"]),
    (Code::DG017, &["container", "path"]),
    (Code::DG018, &["container"]),
    (Code::DG019, &["container", "path"]),
    (Code::DG020, &["container", "volume"]),
    (Code::DG021, &["container", "path", "why"]),
    (Code::DG022, &["container", "path", "why"]),
    (Code::DG023, &["container", "path"]),
    (Code::DG024, &["container", "path", "ask"]),
    (Code::DG025, &["container", "program"]),
    (Code::DG026, &["annotation", "change", "instead"]),
    (Code::DG027, &["container", "resource", "before", "now", "instead"]),
    (Code::DG028, &["container", "resource", "own", "count", "gets"]),
];

#[test]
fn every_code_has_one_entry_in_order() {
    let schema = serde_json::to_value(schemars::schema_for!(Code)).unwrap();
    let mut codes = Vec::new();
    constants(&schema, &mut codes);
    let told: Vec<String> = entries().iter().map(|entry| entry.code.to_string()).collect();
    assert_eq!(told, codes, "findings.yaml has one entry for each code, in order");
    let table: Vec<String> = PLACES.iter().map(|(code, _)| code.to_string()).collect();
    assert_eq!(table, codes, "the table of places has one row for each code, in order");
    for code in &codes {
        assert_eq!(Code::parse(&code.to_lowercase()).unwrap().to_string(), *code);
    }
    assert_eq!(Code::parse("DG000"), None);
}

#[test]
fn sentences_and_remedies_are_short_and_plain() {
    let mut said: BTreeMap<&str, Code> = BTreeMap::new();
    let mut problems = Vec::new();
    for entry in entries() {
        let code = entry.code;
        for (what, text, most) in
            [("sentence", &entry.sentence, SENTENCE), ("remedy", &entry.remedy, REMEDY)]
        {
            let mut wrong = |why: &str| problems.push(format!("{code}: {what} {why}: {text}"));
            let length = text.chars().count();
            if length > most {
                wrong(&format!("has {length} characters, at most {most}"));
            }
            if text.trim() != text || text.is_empty() || text.chars().any(char::is_control) {
                wrong("is not one plain line");
            }
            if text.ends_with('.') || text.starts_with(char::is_uppercase) {
                wrong("has a capital letter in front or a full stop behind");
            }
            for place in places(text) {
                let row = PLACES.iter().find(|(of, _)| *of == code);
                if !row.is_some_and(|(_, known)| known.contains(&place)) {
                    wrong(&format!("has a place {{{place}}} that nobody fills"));
                }
            }
            if let Some(other) = said.insert(text.as_str(), code) {
                wrong(&format!("is that of {other} too"));
            }
        }
        if let Some(other) = said.insert(entry.title.as_str(), code) {
            problems.push(format!("{code}: the title is that of {other} too"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// What a pod's own words are for is said: no place of the table is left out of its entry.
#[test]
fn every_place_is_used() {
    for (entry, (code, known)) in entries().iter().zip(PLACES) {
        let text = format!("{} {}", entry.sentence, entry.remedy);
        let used: BTreeSet<&str> = places(&text).into_iter().collect();
        assert_eq!(used, known.iter().copied().collect(), "{code}");
    }
}

#[test]
fn a_finding_says_its_sentence_with_the_words_of_the_pod() {
    let words = [("container", "main"), ("user", "uid 1000"), ("instead", "go")];
    let finding = Finding::new(Code::DG001, "/spec/containers/0", words);
    let said = finding.to_string();
    assert!(said.starts_with("DG001: container `main` runs as uid 1000 "), "{said}");
    assert_eq!(places(&said), Vec::<&str>::new(), "{said}");
    assert_eq!((finding.severity(), finding.effect()), (Severity::Error, Effect::Warn));
}

/// The long texts name their source, fit a terminal, and their manifests are YAML.
#[test]
fn long_texts_are_sound() {
    let mut problems = Vec::new();
    for entry in entries() {
        let code = entry.code;
        if !entry.why.contains("Sources: ") || !entry.why.contains("F:") {
            problems.push(format!("{code}: why names no source"));
        }
        for text in [&entry.why, &entry.shows, &entry.fix] {
            if text.trim().is_empty() {
                problems.push(format!("{code}: an empty text"));
            }
            let (prose, blocks, open) = blocks(text);
            if open {
                problems.push(format!("{code}: a block of code is not closed"));
            }
            for line in prose.iter().filter(|line| line.chars().count() > WIDTH) {
                problems.push(format!("{code}: over {WIDTH} characters: {line}"));
            }
            for block in blocks.iter().filter(|(language, _)| language == "yaml") {
                if let Err(error) = serde_saphyr::from_str::<Value>(&block.1) {
                    problems.push(format!("{code}: no YAML: {error}\n{}", block.1));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Only what an API server refuses whatever its configuration may be refused by default; and what a
/// policy has to refuse in so many words, `legacy: { action: Deny }`.
#[test]
fn what_is_refused_by_default_is_an_error() {
    let denied: Vec<&Entry> =
        entries().iter().filter(|entry| entry.effect == Effect::Deny).collect();
    let codes: Vec<Code> = denied.iter().map(|entry| entry.code).collect();
    assert_eq!(codes, [Code::DG012, Code::DG020, Code::DG023]);
    for entry in denied {
        assert_eq!(entry.severity, Severity::Error, "{}", entry.code);
        let by_policy = entry.code == Code::DG023;
        assert!(by_policy || entry.shows.contains("422"), "{}", entry.code);
        assert!(entry.why.contains("It is a refusal"), "{}", entry.code);
    }
}

#[test]
fn the_pages_are_those_of_the_data() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/findings");
    let pages = pages();
    if std::env::var_os("DEVGRANT_REFRESH_GOLDEN").is_some() {
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in &pages {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    let there: BTreeSet<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, pages.keys().cloned().collect(), "a page for each code, and the index");
    let differing: Vec<PathBuf> = pages
        .iter()
        .map(|(name, text)| (folder.join(name), text))
        .filter(|(page, text)| fs::read_to_string(page).unwrap() != **text)
        .map(|(page, _)| page)
        .collect();
    assert!(
        differing.is_empty(),
        "not what findings.yaml says; DEVGRANT_REFRESH_GOLDEN=1 writes them again: {differing:?}"
    );
}

/// Every reason is told, and the page of them is made of the same file.
#[test]
fn every_reason_has_its_meaning_in_order() {
    let told: Vec<Reason> = meanings().iter().map(|meaning| meaning.reason).collect();
    assert_eq!(told, Reason::ALL, "reasons.yaml has one entry for each reason, in order");
    let mut page = "<!-- Made from src/decision/plan/reasons.yaml and src/cli/words.yaml; do not edit. -->\n\n\
        # Reasons\n\n\
        Why a pod is admitted or refused, in one word: in audit annotations, logs, metrics, `lint` and\n\
        `explain`. `devgrant explain UnknownMode` prints the same. Behind them are the names of [reviews\n\
        without a verdict](#reviews-without-a-verdict), and those that only [lint](#rules-of-lint) has.\n"
        .to_owned();
    for Meaning { reason, title, means, fix } in meanings() {
        assert_eq!(Reason::parse(&reason.as_str().to_uppercase()), Some(*reason));
        section(&mut page, "##", reason.as_str(), [title, means, fix]);
    }
    for (of, heading) in
        [(Speaker::Server, "Reviews without a verdict"), (Speaker::Lint, "Rules of lint")]
    {
        write!(page, "\n## {heading}\n").unwrap();
        for Word { name, title, means, fix, .. } in words().iter().filter(|word| word.of == of) {
            assert_eq!(Reason::parse(name), None, "{name} is told twice");
            section(&mut page, "###", name, [title, means, fix]);
        }
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reasons.md");
    if std::env::var_os("DEVGRANT_REFRESH_GOLDEN").is_some() {
        fs::write(&file, &page).unwrap();
    }
    assert!(
        fs::read_to_string(file).unwrap() == page,
        "docs/reasons.md is not what reasons.yaml and words.yaml say; DEVGRANT_REFRESH_GOLDEN=1 writes it again"
    );
}

/// One name of the page.
fn section(page: &mut String, level: &str, name: &str, [title, means, fix]: [&String; 3]) {
    assert!(!title.ends_with('.') && title.len() <= SENTENCE, "{title}");
    for text in [means, fix] {
        let (prose, _, open) = blocks(text);
        assert!(!open && !text.trim().is_empty(), "{name}");
        assert!(prose.iter().all(|line| line.chars().count() <= WIDTH), "{text}");
    }
    let (means, fix) = (means.trim(), fix.trim());
    write!(page, "\n{level} {name}\n\n{title}.\n\n{means}\n\n**What to do**: {fix}\n").unwrap();
}

/// What a review without a verdict is counted under, and `Busy`, which has a counter of its own.
#[test]
fn every_failure_of_the_server_has_its_meaning() {
    let told = words().iter().filter(|word| word.of == Speaker::Server);
    let told: BTreeSet<&str> = told.map(|word| word.name.as_str()).collect();
    let failures = FAILURES.into_iter().filter(|name| Reason::parse(name).is_none());
    assert_eq!(told, failures.chain(["Busy"]).collect());
}

fn pages() -> BTreeMap<String, String> {
    let mut pages: BTreeMap<String, String> =
        entries().iter().map(|entry| (format!("{}.md", entry.code), page(entry))).collect();
    pages.insert(INDEX.to_owned(), index());
    pages
}

fn page(entry: &Entry) -> String {
    let Entry { code, title, severity, effect, sentence, remedy, why, shows, fix } = entry;
    let effect = match effect {
        Effect::Deny => "the pod is refused",
        Effect::Warn => "a warning",
        Effect::Ignore => "nothing is said",
    };
    let severity = format!("{severity:?}").to_lowercase();
    let (why, shows, fix) = (why.trim(), shows.trim(), fix.trim());
    format!(
        "<!-- Made from src/decision/findings.yaml; do not edit. -->\n\n\
         # {code}: {title}\n\n\
         Severity: **{severity}**. By default: **{effect}**; a policy's `conflicts` can say otherwise.\n\n\
         > {code}: {sentence}; {remedy}\n\n\
         ## Why\n\n{why}\n\n\
         ## How it shows\n\n{shows}\n\n\
         ## What to do\n\n{fix}\n\n\
         ---\n\n\
         [All findings](README.md). `F:…` are the facts of [kubernetes-facts](../kubernetes-facts.md).\n"
    )
}

fn index() -> String {
    let mut index = "<!-- Made from src/decision/findings.yaml; do not edit. -->\n\n\
        # Findings\n\n\
        What would start and not work, and what the API server would refuse, each by a code that never\n\
        changes its meaning. `devgrant explain DG001` prints the same pages. `Error`: it will not work.\n\
        `Warning`: it works only if something else holds. `Info`: worth knowing. `Deny` refuses the pod,\n\
        `Warn` only says so; a policy's `conflicts` can say otherwise.\n\n\
        | code | what it is about | severity | by default |\n\
        | --- | --- | --- | --- |\n"
        .to_owned();
    for Entry { code, title, severity, effect, .. } in entries() {
        writeln!(index, "| [{code}]({code}.md) | {title} | {severity:?} | {effect:?} |").unwrap();
    }
    index
}

/// The constants of a schema of an enum, in order.
fn constants(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(constant)) = map.get("const") {
                found.push(constant.clone());
            }
            map.values().for_each(|value| constants(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| constants(value, found)),
        _ => {}
    }
}

/// The names in braces.
fn places(text: &str) -> Vec<&str> {
    let after = text.split('{').skip(1);
    after.map(|rest| rest.split_once('}').map_or(rest, |(name, _)| name)).collect()
}

/// The lines of prose, the blocks of code with their languages, and whether one is left open.
fn blocks(text: &str) -> (Vec<&str>, Vec<(String, String)>, bool) {
    let (mut prose, mut blocks, mut open) = (Vec::new(), Vec::<(String, String)>::new(), false);
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), blocks.last_mut()) {
            (Some(language), _) => {
                open = !open;
                if open {
                    blocks.push((language.to_owned(), String::new()));
                }
            }
            (None, Some((_, block))) if open => {
                block.push_str(line);
                block.push('\n');
            }
            (None, _) => prose.push(line),
        }
    }
    (prose, blocks, open)
}
