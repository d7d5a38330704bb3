//! Objects in, one after the other; a report out.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Write as _};

use serde_json::Value;

use super::inspect::{Origin, inspect};
use super::owner::Owner;
use super::report::Report;
use super::text::plain;
use crate::cli::output::{self, ERROR};
use crate::cli::question::{FALLBACK_NAMESPACE, namespace};
use crate::config::Assumed;
use crate::decision::review::KIND;
use crate::decision::workload::{self, FoundPod};
use crate::decision::{Namespace, PolicySet, Settings};

/// How many pods there are between two words about progress.
const STRIDE: usize = 5_000;
/// The most unreadable objects that are named. A list of something else has thousands.
const MOST_TOLD: usize = 20;

/// The labels of namespaces.
pub(super) type Labels = BTreeMap<String, BTreeMap<String, String>>;

/// What is seen so far.
pub(super) struct Survey<'a> {
    policies: &'a PolicySet,
    assumed: &'a Assumed,
    only: Option<&'a str>,
    /// The labels that a cluster tells; `None` where they are assumed.
    pub(super) labels: Option<Labels>,
    /// Whether to say on standard error how far it is.
    pub(super) tells_progress: bool,
    report: Report,
}

impl<'a> Survey<'a> {
    pub(super) fn new(
        policies: &'a PolicySet,
        assumed: &'a Assumed,
        only: Option<&'a str>,
    ) -> Self {
        let report = Report::default();
        Self { policies, assumed, only, labels: None, tells_progress: false, report }
    }

    /// Takes an object. One that is no Kubernetes object is named on standard error with its place, and
    /// passed by where nobody named the file that it is in.
    pub(super) fn take(
        &mut self,
        place: &dyn Display,
        object: &Value,
        named: bool,
    ) -> io::Result<()> {
        let objects = match workload::objects(object) {
            Ok(objects) => objects,
            Err(problem) if problem.is_foreign() && !named => return Ok(()),
            Err(problem) => return self.unreadable(place, &problem.to_string()),
        };
        for object in objects {
            for found in object.pods {
                self.pod(place, &object.value, &found)?;
            }
        }
        Ok(())
    }

    /// Takes an object, or a whole input, that cannot be read.
    pub(super) fn unreadable(&mut self, place: &dyn Display, problem: &str) -> io::Result<()> {
        self.report.summary.unreadable += 1;
        match self.report.summary.unreadable {
            count if count <= MOST_TOLD => {
                let text = plain(&format!("{place} {problem}"));
                writeln!(output::stderr(), "devgrant: {ERROR}error:{ERROR:#} {text}")
            }
            count if count == MOST_TOLD + 1 => output::note("more could not be read"),
            _ => Ok(()),
        }
    }

    /// Forgets all that was seen: it comes again.
    pub(super) fn again(&mut self) {
        self.report = Report::default();
    }

    /// What was seen.
    pub(super) fn end(mut self) -> Report {
        if let Some(labels) = self.labels {
            let label = self.policies.settings().opt_in_label();
            let opted_in = |labels: &BTreeMap<String, String>| {
                labels.get(&label).is_some_and(|value| value == Settings::OPTED_IN)
            };
            for row in self.report.rows.keys() {
                if let Some(labels) = labels.get(&row.namespace) {
                    self.report.opted_in.insert(row.namespace.clone(), opted_in(labels));
                }
            }
        }
        self.report
    }

    fn pod(&mut self, place: &dyn Display, object: &Value, found: &FoundPod) -> io::Result<()> {
        let assumed = self.assumed.namespace.clone();
        let name = found.owner.namespace.clone().or(assumed);
        let name = name.unwrap_or_else(|| FALLBACK_NAMESPACE.to_owned());
        if self.only.is_some_and(|only| only != name) {
            return Ok(());
        }
        // The pod of a review is in it.
        let is_review = found.owner.kind == KIND;
        let object = if is_review { &found.pod } else { object };
        let origin = Origin {
            namespace: self.namespace(name),
            owner: Owner::of(object),
            assumed: self.assumed,
        };
        match inspect(&found.pod, &origin, self.policies) {
            Ok(seen) => {
                let is_template = !is_review && found.owner.kind != "Pod";
                self.report.add(seen, is_template);
            }
            Err(problem) => {
                let Origin { namespace, owner, .. } = origin;
                let place = format!("{place} ({owner} in {}):", namespace.name);
                return self.unreadable(&place, &problem);
            }
        }
        self.progress()
    }

    fn namespace(&self, name: String) -> Namespace {
        let Some(labels) = &self.labels else { return namespace(name, self.assumed) };
        let known = labels.get(&name).cloned().unwrap_or_default();
        namespace(name, &Assumed { namespace_labels: known, ..self.assumed.clone() })
    }

    fn progress(&self) -> io::Result<()> {
        let summary = &self.report.summary;
        let count = summary.pods + summary.templates;
        if self.tells_progress && count.is_multiple_of(STRIDE) {
            output::note(&format!("{count} pods so far, {} privileged", summary.privileged))?;
        }
        Ok(())
    }
}
