//! `patch`: what comes out for pods and everything that holds a pod template.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use json_patch::PatchOperation;
use json_patch::jsonptr::PointerBuf;
use serde::Serialize;
use serde_json::{Value, json};

use super::Status;
use super::arguments::{DecidingArguments, compile};
use super::input::Document;
use super::output::{self, ERROR, WARNING};
use super::placement::place;
use super::question::{Manifests, Question, behind_flag};
use crate::decision::warning::Warning;
use crate::decision::workload::Owner;
use crate::decision::{PolicySet, Review, admit};

/// The flags of `patch`.
#[derive(Debug, Args)]
pub struct Patch {
    /// Files go behind `-f`, as kubectl has it.
    #[arg(hide = true, value_name = "FILE", value_parser = behind_flag)]
    pub misplaced: Option<String>,
    /// Manifest, folder of manifests, or - for standard input; may be repeated.
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// How to write what comes out.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    /// The policies, and what is assumed about the pods.
    #[command(flatten)]
    pub deciding: DecidingArguments,
}

/// How a patch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// What changes, as a unified diff of YAML.
    #[default]
    Diff,
    /// All documents as they come out, JSON; a List if there are several.
    Json,
    /// JSON Patch; for several documents a list of {file, document, kind, name, patch}.
    Patch,
    /// All documents as they come out, YAML.
    Yaml,
}

/// A document on the way to what comes out.
struct Draft<'a> {
    document: &'a Document,
    /// The document with the operations applied.
    after: Value,
    operations: Vec<PatchOperation>,
    holds_pods: bool,
    /// Where the refused objects are inside the document, in their order.
    refused: Vec<PointerBuf>,
}

/// A document of which something comes out.
struct Outcome<'a> {
    document: &'a Document,
    /// As it comes out: changed, and without the items of a list that are refused.
    out: Value,
    /// Changed, and with the refused items as they are: the patch and the difference are for the file.
    changed: Value,
    operations: Vec<PatchOperation>,
    holds_pods: bool,
}

pub(super) fn run(arguments: &Patch) -> anyhow::Result<Status> {
    let config = arguments.deciding.load()?;
    let policies = compile(&config)?;
    let manifests = Manifests::read(&arguments.files, &config.assumed, &config.settings)?;
    let mut drafts: Vec<Draft<'_>> = manifests.documents.iter().map(Draft::new).collect();
    for question in &manifests.questions {
        if let Some(draft) = drafts.get_mut(question.document) {
            draft.decide(question, &policies)?;
        }
    }
    let refused = drafts.iter().any(|draft| !draft.refused.is_empty());
    let outcomes: Vec<Outcome<'_>> = drafts.into_iter().filter_map(Draft::finish).collect();
    let several = manifests.documents.len() > 1;
    write(arguments.output, &outcomes, several)?;
    if arguments.output == Format::Diff && !refused {
        let changed = outcomes.iter().any(|outcome| !outcome.operations.is_empty());
        if !changed {
            output::note("nothing changes")?;
        }
    }
    Ok(if refused { Status::No } else { Status::Fine })
}

impl<'a> Draft<'a> {
    fn new(document: &'a Document) -> Self {
        Self {
            document,
            after: document.value.clone(),
            operations: Vec::new(),
            holds_pods: false,
            refused: Vec::new(),
        }
    }

    fn decide(&mut self, question: &Question, policies: &PolicySet) -> anyhow::Result<()> {
        self.holds_pods = true;
        let title = &question.title;
        let context = || format!("{}: {title}", self.document.place());
        let review = Review::decode(&question.review).with_context(context)?;
        let admission =
            admit(&review, policies, Some(&question.namespace)).with_context(context)?;
        let mut stderr = output::stderr();
        for warning in output::joined(admission.warnings.iter().map(Warning::as_str)) {
            writeln!(stderr, "{WARNING}Warning:{WARNING:#} {title}: {warning}")?;
        }
        if admission.allowed && admission.operations.is_empty() {
            for ask in question.asks_that_would_do(policies) {
                output::note(&format!("{title} asks for nothing; add {ask}"))?;
            }
        }
        if !admission.allowed {
            let message = admission.message.as_deref().unwrap_or("refused");
            writeln!(stderr, "{ERROR}Error:{ERROR:#} {title}: {message}")?;
            self.refuse(&question.object);
        }
        // An object comes out with all of its pods, or not at all.
        if self.refused.contains(&question.object) {
            return Ok(());
        }
        let placed = place(&mut self.after, &question.pod.places, &admission.operations)
            .with_context(|| {
                format!("{}: {title}: the patch does not fit the document", self.document.place())
            })?;
        for path in placed.homeless {
            writeln!(
                stderr,
                "{WARNING}Warning:{WARNING:#} {title}: {path} has no place in this kind; only the pod gets it, when it is made"
            )?;
        }
        self.operations.extend(placed.operations);
        Ok(())
    }

    /// Takes back what another pod of the object was granted.
    fn refuse(&mut self, object: &PointerBuf) {
        if self.refused.contains(object) {
            return;
        }
        let before = self.document.value.pointer(object.as_str());
        if let (Some(before), Some(after)) = (before, self.after.pointer_mut(object.as_str())) {
            *after = before.clone();
        }
        self.operations.retain(|operation| !operation.path().starts_with(object));
        self.refused.push(object.clone());
    }

    /// What comes out; `None` if that is nothing.
    fn finish(self) -> Option<Outcome<'a>> {
        let mut out = self.after.clone();
        // From behind, so that the places in front stay what they are.
        for object in self.refused.iter().rev() {
            let (list, index) = object.split_back()?;
            let items = out.pointer_mut(list.as_str()).and_then(Value::as_array_mut)?;
            items.remove(index.decoded().parse().ok()?);
            if items.is_empty() && list.count() == 1 {
                return None;
            }
        }
        Some(Outcome {
            document: self.document,
            out,
            changed: self.after,
            operations: self.operations,
            holds_pods: self.holds_pods,
        })
    }
}

impl Outcome<'_> {
    /// How the document is called in headers.
    fn header(&self) -> String {
        let Document { file, number, .. } = self.document;
        format!("{file} (document {number}, {})", Owner::of(&self.document.value))
    }
}

/// Writes what comes out. `several` is about the input: a script must not get another form because
/// something was refused.
fn write(format: Format, outcomes: &[Outcome<'_>], several: bool) -> anyhow::Result<()> {
    match format {
        Format::Diff => write_diff(outcomes),
        Format::Json => write_json(outcomes, several),
        Format::Patch => write_patch(outcomes, several),
        Format::Yaml => write_yaml(outcomes),
    }
}

fn write_diff(outcomes: &[Outcome<'_>]) -> anyhow::Result<()> {
    let mut stdout = output::stdout();
    for outcome in outcomes.iter().filter(|outcome| !outcome.operations.is_empty()) {
        let before = output::yaml(&outcome.document.value)?;
        let after = output::yaml(&outcome.changed)?;
        let header = outcome.header();
        output::diff(&mut stdout, &before, &after, &header)?;
    }
    Ok(())
}

fn write_yaml(outcomes: &[Outcome<'_>]) -> anyhow::Result<()> {
    let mut stdout = output::stdout();
    for (index, outcome) in outcomes.iter().enumerate() {
        let separator = if index > 0 { "---\n" } else { "" };
        write!(stdout, "{separator}{}", output::yaml(&outcome.out)?)?;
    }
    Ok(())
}

fn write_json(outcomes: &[Outcome<'_>], several: bool) -> anyhow::Result<()> {
    let mut stdout = output::stdout();
    if several {
        let items: Vec<&Value> = outcomes.iter().flat_map(|outcome| items(&outcome.out)).collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        return output::json(&mut stdout, &list);
    }
    outcomes.iter().try_for_each(|only| output::json(&mut stdout, &only.out))
}

/// The objects of a document: kubectl takes no List in a List.
fn items(document: &Value) -> Vec<&Value> {
    match document.get("items") {
        Some(Value::Array(items)) if document.get("kind") == Some(&json!("List")) => {
            items.iter().collect()
        }
        _ => vec![document],
    }
}

/// The patch of one document among several.
#[derive(Serialize)]
struct DocumentPatch<'a> {
    file: &'a str,
    document: usize,
    kind: String,
    name: String,
    patch: &'a [PatchOperation],
}

fn write_patch(outcomes: &[Outcome<'_>], several: bool) -> anyhow::Result<()> {
    let mut stdout = output::stdout();
    if !several {
        return outcomes.iter().try_for_each(|only| output::json(&mut stdout, &only.operations));
    }
    let with_pods = outcomes.iter().filter(|outcome| outcome.holds_pods);
    let patches = with_pods.map(|outcome| {
        let owner = Owner::of(&outcome.document.value);
        DocumentPatch {
            file: &outcome.document.file,
            document: outcome.document.number,
            kind: owner.kind,
            name: owner.name,
            patch: &outcome.operations,
        }
    });
    output::json(&mut stdout, &patches.collect::<Vec<_>>())
}
