//! `policy test`: the cases beside policies, and what comes out for each.

pub mod case;
pub mod judge;
mod junit;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Value, json};

use self::case::{Case, Placed};
use self::judge::{Outcome, Unmet, judge};
use super::super::Status;
use super::super::arguments::PolicyArguments;
use super::super::input;
use super::super::output::{self, ADDED, ERROR, REMOVED, TITLE};
use super::super::problems::{BadPolicies, plural};
use super::super::question::{self, FALLBACK_NAMESPACE};
use crate::config::Assumed;
use crate::decision::{Namespace, PolicySet, PolicySource, Review, Settings};
use crate::policies;
use crate::policies::cases::{self, CaseSource};

/// The flags of `policy test`.
#[derive(Debug, Args)]
pub struct Test {
    /// Folders of policies with their cases, *.test.yaml; the policies are one set. Without any, as
    /// with --policies.
    #[arg(value_name = "DIR")]
    pub folders: Vec<PathBuf>,
    /// Run only the cases with this in their name or in that of their file.
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// How to write it.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    /// The policies.
    #[command(flatten)]
    pub policy: PolicyArguments,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For scripts: {passed, failed, cases}.
    Json,
    /// JUnit XML, for CI systems.
    Junit,
    /// For people.
    #[default]
    Table,
}

/// A case that was run; the keys are a contract.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Tested {
    file: String,
    line: u64,
    name: String,
    passed: bool,
    #[serde(flatten)]
    outcome: Outcome,
}

/// All cases that were run; the keys are a contract.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    passed: usize,
    failed: usize,
    cases: &'a [Tested],
}

pub(super) fn run(arguments: &Test) -> anyhow::Result<Status> {
    let mut flags = arguments.policy.clone();
    flags.policies.extend(arguments.folders.iter().cloned());
    let config = flags.load()?;
    let mut sets = Sets::new(policies::read(&config.policies)?, config.settings)?;
    let files = cases::read(&config.policies)?;
    note_policies_without_cases(&sets.sources, &files)?;
    let tested = test(&files, arguments.filter.as_deref(), &mut sets)?;
    let failed = tested.iter().filter(|tested| !tested.passed).count();
    let mut stdout = output::stdout();
    match arguments.output {
        Format::Json => {
            let passed = tested.len() - failed;
            output::json(&mut stdout, &Report { passed, failed, cases: &tested })?;
        }
        Format::Junit => stdout.write_all(junit::report(&tested).as_bytes())?,
        Format::Table => table(&mut stdout, &tested, failed)?,
    }
    Ok(if failed > 0 { Status::No } else { Status::Fine })
}

/// A policy without cases is most often one that was forgotten.
fn note_policies_without_cases(
    policies: &[PolicySource],
    files: &[CaseSource],
) -> std::io::Result<()> {
    let stem = |file: &str| file.rsplit_once(".y").map_or(file, |(stem, _)| stem).to_owned();
    let cases: BTreeSet<String> = files.iter().map(|source| stem(&source.file)).collect();
    for policy in policies {
        let wanted = format!("{}.test", stem(&policy.file));
        // No file at all is told as an error.
        if !cases.is_empty() && !cases.contains(&wanted) {
            output::note(&format!("{} has no cases: {wanted}.yaml is not there", policy.file))?;
        }
    }
    Ok(())
}

/// Runs every case that is wanted, in order; what is wrong with the files is told all at once.
fn test(
    files: &[CaseSource],
    filter: Option<&str>,
    sets: &mut Sets,
) -> anyhow::Result<Vec<Tested>> {
    if files.is_empty() {
        bail!("there are no cases; write some beside a policy, <policy>.test.yaml");
    }
    let mut problems = Vec::new();
    let mut parsed = Vec::new();
    let mut bad = BTreeSet::new();
    for source in files {
        match case::parse(source) {
            Ok(cases) => parsed.extend(cases.into_iter().map(|case| (source, case))),
            Err(found) => {
                problems.extend(found);
                bad.insert(&source.file);
            }
        }
    }
    if !problems.is_empty() {
        let mut stderr = output::stderr();
        for problem in &problems {
            writeln!(stderr, "{ERROR}error{ERROR:#}: {}", plain(problem))?;
        }
        bail!("{} in {}", plural(problems.len(), "error"), plural(bad.len(), "case file"));
    }
    let mut tested = Vec::new();
    for (source, placed) in parsed {
        let wanted = filter.is_none_or(|filter| {
            let file = Path::new(&source.file).file_name().unwrap_or_default();
            placed.case.name.contains(filter) || file.to_string_lossy().contains(filter)
        });
        if wanted {
            let context = || format!("{}:{}: `{}`", source.file, placed.line, placed.case.name);
            tested.push(one(source, &placed, sets).with_context(context)?);
        }
    }
    if let (true, Some(filter)) = (tested.is_empty(), filter) {
        bail!("no case has `{filter}` in its name or in that of its file");
    }
    Ok(tested)
}

fn one(source: &CaseSource, placed: &Placed, sets: &mut Sets) -> anyhow::Result<Tested> {
    let case = &placed.case;
    let policies = sets.of(case.kubernetes_version.as_deref())?;
    let review = review(source, case)?;
    let name = match Review::decode(&review) {
        Ok(review) => review.namespace().into_owned(),
        Err(error) if case.review.is_some() => return Err(error.into()),
        Err(_) => String::new(),
    };
    let settings = policies.settings();
    let opted_in = || BTreeMap::from([(settings.opt_in_label(), Settings::OPTED_IN.to_owned())]);
    let labels = case.namespace.as_ref().and_then(|namespace| namespace.labels.clone());
    let namespace = Namespace { name, labels: labels.unwrap_or_else(opted_in) };
    let outcome = judge(&case.expect, &review, &namespace, policies);
    Ok(Tested {
        file: source.file.clone(),
        line: placed.line,
        name: case.name.clone(),
        passed: outcome.unmet.is_empty(),
        outcome,
    })
}

/// The review of a case: the one that it names, or the one that the API server would send.
fn review(source: &CaseSource, case: &Case) -> anyhow::Result<Vec<u8>> {
    if let Some(file) = &case.review {
        let Some(folder) = &source.folder else {
            bail!("a case that is built in has no file beside it; write the pod");
        };
        return Ok(input::bytes(&folder.join(file))?);
    }
    let mut pod = case.pod.clone().unwrap_or_default();
    pod.entry("apiVersion").or_insert_with(|| json!("v1"));
    pod.entry("kind").or_insert_with(|| json!("Pod"));
    let pod = Value::Object(pod);
    let named = case.namespace.as_ref().and_then(|namespace| namespace.name.as_deref());
    let own = pod.pointer("/metadata/namespace").and_then(Value::as_str);
    let assumed = Assumed {
        namespace: None,
        namespace_labels: BTreeMap::new(),
        service_account: case.service_account.clone(),
        user: case.user.clone(),
    };
    let namespace = named.or(own).unwrap_or(FALLBACK_NAMESPACE);
    Ok(serde_json::to_vec(&question::review(&pod, namespace, &assumed))?)
}

/// The policies, compiled for each version of Kubernetes that cases name.
struct Sets {
    sources: Vec<PolicySource>,
    settings: Settings,
    compiled: BTreeMap<Option<String>, PolicySet>,
}

impl Sets {
    fn new(sources: Vec<PolicySource>, settings: Settings) -> anyhow::Result<Self> {
        let mut sets = Self { sources, settings, compiled: BTreeMap::new() };
        sets.of(None)?;
        Ok(sets)
    }

    fn of(&mut self, version: Option<&str>) -> anyhow::Result<&PolicySet> {
        use std::collections::btree_map::Entry;
        match self.compiled.entry(version.map(str::to_owned)) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let mut settings = self.settings.clone();
                if let Some(version) = version {
                    settings.kubernetes_version = version.parse()?;
                }
                let set = PolicySet::compile(&self.sources, settings)
                    .map_err(|problems| BadPolicies::new(&problems, &self.sources))?;
                Ok(entry.insert(set))
            }
        }
    }
}

fn table(out: &mut impl Write, tested: &[Tested], failed: usize) -> anyhow::Result<()> {
    let rows: Vec<[String; 2]> =
        tested.iter().map(|tested| [plain(&tested.name), tested.outcome.in_words()]).collect();
    let mut widths = ["CASE".len(), "VERDICT".len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let [name_width, verdict_width] = widths;
    writeln!(out, "{TITLE}  {:name_width$}  VERDICT{TITLE:#}", "CASE")?;
    let mut file = "";
    for (tested, [name, verdict]) in tested.iter().zip(&rows) {
        if tested.file != file {
            file = &tested.file;
            writeln!(out, "{TITLE}{file}{TITLE:#}")?;
        }
        write!(out, "  {name:name_width$}  {verdict:verdict_width$}  ")?;
        if tested.passed {
            writeln!(out, "{ADDED}ok{ADDED:#}")?;
        } else {
            writeln!(out, "{ERROR}FAILED{ERROR:#} (line {})", tested.line)?;
        }
        for unmet in &tested.outcome.unmet {
            writeln!(out, "    {TITLE}{}{TITLE:#}", plain(&unmet.title()))?;
            writeln!(out, "      {ADDED}expected{ADDED:#} {}", plain(&unmet.expected()))?;
            writeln!(out, "      {REMOVED}actual{REMOVED:#}   {}", plain(&unmet.actual()))?;
        }
    }
    let files: BTreeSet<&str> = tested.iter().map(|tested| tested.file.as_str()).collect();
    let all = format!("{} in {}", plural(tested.len(), "case"), plural(files.len(), "file"));
    if failed > 0 {
        writeln!(out, "{all}: {} ok, {ERROR}{failed} FAILED{ERROR:#}", tested.len() - failed)?;
    } else {
        writeln!(out, "{all}: {ADDED}all ok{ADDED:#}")?;
    }
    Ok(())
}

/// A case file may hold escapes that a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

impl Outcome {
    fn in_words(&self) -> String {
        match (self.verdict, self.reason) {
            (Some(verdict), Some(reason)) => format!("{verdict:?} ({reason})"),
            _ => "none".to_owned(),
        }
    }
}
