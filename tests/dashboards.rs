#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says where and stops"
)]
//! Metrics, and what is made of them: the running server shows what is declared, and the page of metrics,
//! the dashboard, the alerts and their runbooks speak of nothing else.
//!
//! `DEVGRANT_REFRESH_GOLDEN=1 cargo test --test dashboards` writes docs/metrics.md again.

#[path = "dashboards/promql.rs"]
mod promql;
#[path = "support/ran.rs"]
mod ran;
#[path = "support/serving.rs"]
mod serving;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use devgrant::metrics::{Declared, Kind, Metrics, Values};
use serde_json::Value;

use promql::Query;
use ran::{Ran, program};
use serving::Serving;

/// The metrics that are known only in a cluster.
const IN_A_CLUSTER: &[&str] = &[
    "devgrant_authority_not_after_seconds",
    "devgrant_ca_bundle_in_force",
    "devgrant_watch_contact_seconds",
    "devgrant_watch_synced",
];
/// The labels that Prometheus gives to what it scrapes.
const OF_THE_TARGET: &[&str] = &["job", "namespace", "pod"];
/// The documents beside the page of metrics that name some.
const DOCUMENTS: &[&str] =
    &["README.md", "docs/install.md", "docs/runbooks.md", "docs/traces.md", "ARCHITECTURE.md"];

#[test]
fn the_server_shows_what_is_declared() {
    let folder = tempfile::tempdir().unwrap();
    let serving = Serving::start(folder.path(), &[]);
    let review = fs::read(root().join("examples/review.json")).unwrap();
    for path in ["/mutate", "/validate", "/advise"] {
        assert_eq!(serving.post(path, "", &review).0, 200, "{path}");
    }
    assert_eq!(serving.post("/mutate", "", b"{}").0, 400);
    let (status, page) = serving.plain("/metrics");
    assert!(serving.stop().success());
    assert_eq!(status, 200);
    let page = String::from_utf8(page).unwrap();

    let declared = declared();
    let mut shown = BTreeSet::new();
    for line in page.lines().filter(|line| !line.starts_with("# HELP")) {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(declared[name].kind.as_str(), kind, "{name}");
            let help = format!("# HELP {name} {}\n", declared[name].help);
            assert!(page.contains(&help), "{help} is not in\n{page}");
            shown.insert(name.to_owned());
            continue;
        }
        let query = Query::read(line.rsplit_once(' ').unwrap().0).unwrap();
        let wrong = wrong(&query, &declared);
        assert!(wrong.is_empty(), "{line}: {wrong:?}");
        let series = &query.series[0];
        let mut labels: Vec<&str> =
            series.matchers.iter().map(|(label, _, _)| label.as_str()).collect();
        labels.retain(|label| *label != "le");
        labels.sort_unstable();
        let (metric, _) = find(&series.metric, &declared).unwrap();
        let mut wanted: Vec<&str> = metric.labels.iter().map(|label| label.name).collect();
        wanted.sort_unstable();
        assert_eq!(labels, wanted, "{line}");
    }
    let cluster = IN_A_CLUSTER.iter().map(|name| (*name).to_owned());
    let all: BTreeSet<String> = declared.keys().cloned().collect();
    assert_eq!(shown, all.difference(&cluster.collect()).cloned().collect());
    // The words of alerts and dashboards, of a review that was just answered.
    for series in [
        r#"devgrant_admissions_total{device="fuse",endpoint="mutate",mode="mount",reason="Granted",verdict="admit"}"#,
        r#"devgrant_admissions_total{device="",endpoint="mutate",mode="",reason="Unanswerable",verdict="unanswerable"}"#,
        r#"devgrant_policy_reload_total{result="kept"} 0"#,
    ] {
        assert!(page.contains(series), "{series} is not in\n{page}");
    }
}

#[test]
fn the_page_of_metrics_is_that_of_the_code() {
    let path = root().join("docs/metrics.md");
    let page = page(Metrics::new().unwrap().declared());
    if std::env::var_os("DEVGRANT_REFRESH_GOLDEN").is_some() {
        fs::write(&path, &page).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == page,
        "docs/metrics.md is another; write it anew with DEVGRANT_REFRESH_GOLDEN=1"
    );
}

#[test]
fn the_documents_name_only_what_there_is() {
    let declared = declared();
    for document in DOCUMENTS {
        for name in words_of_ours(&read(document)) {
            assert!(find(&name, &declared).is_some(), "{document}: there is no metric {name}");
        }
    }
    // The table of the README leaves out what all of them begin with.
    let readme = read("README.md");
    let (_, table) = readme.split_once("| metric `devgrant_…` |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let mut listed = BTreeSet::new();
    for cell in table.lines().skip(2).map(|line| line.split('|').nth(1).unwrap()) {
        for metric in cell.split('`').skip(1).step_by(2) {
            let (name, labels) = metric.split_once('{').unwrap_or((metric, "}"));
            let name = format!("devgrant_{name}");
            let known = &declared[&name].labels;
            let labels: Vec<&str> =
                labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).collect();
            let known: Vec<&str> = known.iter().map(|label| label.name).collect();
            assert_eq!(labels, known, "README.md: {name}");
            listed.insert(name);
        }
    }
    assert_eq!(listed, declared.keys().cloned().collect(), "the table of README.md");
}

#[test]
fn the_dashboard_asks_for_all_of_it_and_nothing_else() {
    let declared = declared();
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/devgrant.json")).unwrap();
    let mut asked = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: the id is there twice");
        if panel["type"] == "row" {
            continue;
        }
        assert_ne!(panel["description"].as_str().unwrap_or_default(), "", "{title}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title} shows nothing");
        for target in targets {
            let text = target["expr"].as_str().unwrap();
            let query = Query::read(text).unwrap_or_else(|error| panic!("{title}: {error}"));
            let wrong = wrong(&query, &declared);
            assert!(wrong.is_empty(), "{title}: {text}: {wrong:?}");
            for series in &query.series {
                let job = series
                    .matchers
                    .iter()
                    .any(|(label, _, value)| label == "job" && value == "$job");
                assert!(job, "{title}: {text}: the variable `job` does not count");
                asked.insert(find(&series.metric, &declared).unwrap().0.name.clone());
            }
            let legend = target["legendFormat"].as_str().unwrap_or_default();
            for label in legend.split("{{").skip(1).map(|rest| rest.split_once("}}").unwrap().0) {
                assert!(query.groups.contains(label), "{title}: {text}: no label {label}");
            }
        }
    }
    assert_eq!(asked, declared.keys().cloned().collect(), "every metric has a panel");
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        for name in words_of_ours(&variable["query"].to_string()) {
            assert!(find(&name, &declared).is_some(), "there is no metric {name}");
        }
    }
}

#[test]
fn alerts_ask_for_what_there_is() {
    let declared = declared();
    for alert in alerts() {
        let text = alert["expr"].as_str().unwrap();
        let query = Query::read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(!query.series.is_empty(), "{text}");
        let wrong = wrong(&query, &declared);
        assert!(wrong.is_empty(), "{text}: {wrong:?}");
    }
}

/// In the same order, and each with all that somebody who was called needs.
#[test]
fn every_alert_has_its_runbook_and_every_runbook_its_alert() {
    let runbooks = read("docs/runbooks.md");
    let mut sections = runbooks.split("\n## ").skip(1);
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        let url = alert["annotations"]["runbook_url"].as_str().unwrap();
        assert_eq!(url, format!("docs/runbooks.md#{}", name.to_lowercase()));
        assert!(["critical", "warning"].contains(&alert["labels"]["severity"].as_str().unwrap()));
        let (title, text) =
            sections.next().unwrap_or_default().split_once('\n').unwrap_or_default();
        assert_eq!(title, name, "the section of {name}");
        for part in ["\n**Means**: ", "\n**Users see**: ", "\n**Look**:\n\n```sh\n", "\n**Do**: "] {
            assert_eq!(text.matches(part).count(), 1, "{name}: {part}");
        }
    }
    let title = sections.next().and_then(|section| section.lines().next());
    assert_eq!(title, Some("What shows it"), "a runbook without its alert");
    assert_eq!(sections.next(), None);
}

fn page(declared: &[Declared]) -> String {
    let mut page = String::from(
        "# Metrics\n\nOn the plain port at `/metrics`, in the text format of Prometheus. `tests/dashboards.rs` \
         makes this page of what\nthe code declares, and holds the dashboard, the alerts and the running server to \
         it.\n\n| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n",
    );
    for metric in declared {
        let labels: Vec<String> =
            metric.labels.iter().map(|label| format!("`{}`", label.name)).collect();
        let (name, kind) = (&metric.name, metric.kind.as_str());
        let absent = if IN_A_CLUSTER.contains(&name.as_str()) { "; only in a cluster" } else { "" };
        let (labels, help) = (labels.join(", "), &metric.help);
        writeln!(page, "| `{name}` | {kind} | {labels} | {help}{absent} |").unwrap();
    }
    page.push_str(
        "\nA counter of one label has all its values from the start, at 0. Labels are fixed text, or names in policies; \
         none is\never a pod's.\n\n| label | of | values |\n| --- | --- | --- |\n",
    );
    let mut seen = BTreeSet::new();
    for metric in declared {
        for label in &metric.labels {
            let values = match &label.values {
                Values::Closed(values) => {
                    values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ")
                }
                Values::Open(what) => (*what).to_owned(),
            };
            if !seen.insert((label.name, values.clone())) {
                continue;
            }
            let same = |other: &&Declared| other.labels.contains(label);
            let of: Vec<String> =
                declared.iter().filter(same).map(|metric| format!("`{}`", metric.name)).collect();
            writeln!(page, "| `{}` | {} | {values} |", label.name, of.join(", ")).unwrap();
        }
    }
    page
}

/// What a query asks for that is not there.
fn wrong(query: &Query, declared: &BTreeMap<String, Declared>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut known: BTreeSet<&str> = OF_THE_TARGET.iter().copied().collect();
    for series in &query.series {
        let Some((metric, bucket)) = find(&series.metric, declared) else {
            wrong.push(format!("no metric {}", series.metric));
            continue;
        };
        known.extend(metric.labels.iter().map(|label| label.name));
        known.extend(bucket.then_some("le"));
        for (name, operator, value) in &series.matchers {
            let label = metric.labels.iter().find(|label| label.name == name);
            let of_target = OF_THE_TARGET.contains(&name.as_str()) || (bucket && name == "le");
            match label.map(|label| &label.values) {
                None if !of_target => wrong.push(format!("{} has no label {name}", series.metric)),
                Some(Values::Closed(values))
                    if !operator.ends_with('~') && !values.contains(&value.as_str()) =>
                {
                    wrong.push(format!("{name} is never {value}"));
                }
                _ => {}
            }
        }
    }
    let groups = query.groups.iter().filter(|label| !known.contains(label.as_str()));
    wrong.extend(groups.map(|label| format!("no label {label}")));
    wrong
}

/// The metric of a series, and whether the series is of the buckets of a histogram.
fn find<'a>(
    series: &str,
    declared: &'a BTreeMap<String, Declared>,
) -> Option<(&'a Declared, bool)> {
    let part = |ending: &str| {
        let metric = declared.get(series.strip_suffix(ending)?)?;
        (metric.kind == Kind::Histogram).then_some((metric, ending == "_bucket"))
    };
    let whole = declared.get(series).filter(|metric| metric.kind != Kind::Histogram);
    let parts = ["_bucket", "_sum", "_count"];
    whole.map(|metric| (metric, false)).or_else(|| parts.into_iter().find_map(part))
}

fn declared() -> BTreeMap<String, Declared> {
    let metrics = Metrics::new().unwrap();
    metrics.declared().iter().map(|metric| (metric.name.clone(), metric.clone())).collect()
}

/// The rules that `devgrant manifests` prints.
fn alerts() -> Vec<Value> {
    let ran = Ran::of(program().args(["manifests", "--monitoring"]));
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    let objects: Vec<Value> = serde_saphyr::from_multiple(&ran.stdout).unwrap();
    let rule = objects.iter().find(|object| object["kind"] == "PrometheusRule").unwrap();
    rule["spec"]["groups"][0]["rules"].as_array().unwrap().clone()
}

/// Every name of a metric in a text, be it whole.
fn words_of_ours(text: &str) -> Vec<String> {
    let words = text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    let ours = words.filter(|word| word.len() > "devgrant_".len() && word.starts_with("devgrant_"));
    ours.map(str::to_owned).collect()
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
