//! `lint --fix`: the manifest as it would be without the old shape, written in place.
//!
//! What is to change is what the line does at admission; the grants themselves are left to it. The text
//! is edited in lines, and read and decided again before it is written: what does not come out exactly
//! as it should leaves the file as it is.

mod edit;
mod pod;
mod write;

use std::path::Path;

use anyhow::Context;

use super::source::Source;
use crate::cli::input;
use crate::cli::output;
use crate::cli::problems::plural;
use crate::cli::question::Question;
use crate::config::Assumed;
use crate::decision::PolicySet;
use crate::decision::workload;
use edit::{Edit, Unclear};
use pod::{Change, Outcome, admitted, outcome};

/// What is needed to fix files.
#[derive(Clone, Copy)]
pub(super) struct Fix<'a> {
    pub(super) policies: &'a PolicySet,
    pub(super) assumed: &'a Assumed,
    /// Whether the difference is shown and nothing written.
    pub(super) dry_run: bool,
}

/// A pod whose manifest changes.
struct Wanted {
    document: usize,
    /// Where its template is inside the document.
    template: String,
    title: String,
    line: usize,
    change: Change,
}

impl Fix<'_> {
    /// Fixes the file that a source was read from, and gives the source as it is then; `None` if it is
    /// as it was.
    pub(super) fn apply(
        self,
        path: &Path,
        named: bool,
        source: &Source,
    ) -> anyhow::Result<Option<Source>> {
        let (mut wanted, mut left) = (Vec::new(), Vec::new());
        self.look(source, &mut wanted, &mut left)?;
        if let Some(why) = unfixable(path, named, source) {
            left.extend(wanted.drain(..).map(|one| one.left(one.line, why)));
        }
        let mut edit = Edit::default();
        let shared = source.shared();
        wanted.retain(|one| {
            match Edit::of(source, &shared, one.document, &one.template, &one.change) {
                Ok(more) => {
                    edit.join(more);
                    true
                }
                Err(Unclear { line, why }) => {
                    left.push(one.left(line, why));
                    false
                }
            }
        });
        let mut fixed = None;
        if !wanted.is_empty() {
            let text = edit.apply(&source.text);
            fixed = Source::of(source.file.clone(), text, named).ok();
            fixed = fixed.filter(|after| self.is_as_wanted(source, after, &wanted));
            if fixed.is_none() {
                let why = "the edited text would not say what it should; change it by hand";
                left.extend(wanted.drain(..).map(|one| one.left(one.line, why)));
            }
        }
        left.sort();
        for (line, sentence) in left {
            let is_written = fixed.is_some() && !self.dry_run;
            let line = if is_written { edit.moved(line) } else { line };
            output::note(&format!("{}:{line}: {sentence}", source.file))?;
        }
        match fixed {
            None => Ok(None),
            Some(after) => {
                let pods = plural(wanted.len(), "pod");
                let what = match edit.comments(source) {
                    0 => pods,
                    1 => format!("{pods}; 1 line of comment went with what it was about"),
                    count => {
                        format!("{pods}; {count} lines of comment went with what they were about")
                    }
                };
                self.finish(path, source, after, &what)
            }
        }
    }

    fn finish(
        self,
        path: &Path,
        before: &Source,
        after: Source,
        what: &str,
    ) -> anyhow::Result<Option<Source>> {
        if self.dry_run {
            let mut stdout = output::stdout();
            output::diff(&mut stdout, &before.text, &after.text, &before.file)?;
            output::say(&format!("would fix {}: {what}", before.file))?;
            return Ok(None);
        }
        write::replace(path, &before.text, &after.text)
            .with_context(|| format!("cannot write {}", before.file))?;
        output::say(&format!("fixed {}: {what}", before.file))?;
        Ok(Some(after))
    }

    /// What is to become of every pod of a source.
    fn look(
        self,
        source: &Source,
        wanted: &mut Vec<Wanted>,
        left: &mut Vec<(usize, String)>,
    ) -> anyhow::Result<()> {
        for (document, question) in self.questions(source)? {
            let template = question.pod.template.to_string();
            match outcome(&question, self.policies, self.assumed)? {
                Outcome::Fine => {}
                Outcome::Left(why) => {
                    let line = source.spot(document, &why.at, false).line;
                    left.push((line, stays(&question.title, &why.why)));
                }
                Outcome::Change(change) => {
                    let line = source.spot(document, &template, false).line;
                    let title = question.title;
                    wanted.push(Wanted { document, template, title, line, change });
                }
            }
        }
        Ok(())
    }

    /// The pods of a source, each with its document. What is no manifest is said by whoever lints it.
    fn questions(self, source: &Source) -> anyhow::Result<Vec<(usize, Question)>> {
        let mut questions = Vec::new();
        for (number, document) in source.documents.iter().enumerate() {
            let (objects, _) = workload::readable(&document.value);
            let several = objects.iter().map(|object| object.pods.len()).sum::<usize>() > 1;
            for object in objects {
                for pod in object.pods {
                    let at = object.at.clone();
                    let question = Question::new(number, document, at, pod, several, self.assumed)?;
                    questions.push((number, question));
                }
            }
        }
        Ok(questions)
    }

    /// Whether the edited text is what is wanted and nothing else, and its pods come out of admission as
    /// they would have with the asks alone.
    fn is_as_wanted(self, before: &Source, after: &Source, wanted: &[Wanted]) -> bool {
        let mut values: Vec<_> = before.documents.iter().map(|found| found.value.clone()).collect();
        for one in wanted {
            let value = values.get_mut(one.document);
            if value.and_then(|value| one.change.apply(value, &one.template)).is_none() {
                return false;
            }
        }
        if !values.iter().eq(after.documents.iter().map(|found| &found.value)) {
            return false;
        }
        let (Ok(old), Ok(new)) = (self.questions(before), self.questions(after)) else {
            return false;
        };
        wanted.iter().all(|one| {
            let of = |questions: &[(usize, Question)]| {
                questions.iter().position(|(document, question)| {
                    *document == one.document && question.pod.template.as_str() == one.template
                })
            };
            let old = of(&old).and_then(|index| old.get(index));
            let new = of(&new).and_then(|index| new.get(index));
            let (Some((_, old)), Some((_, new))) = (old, new) else { return false };
            let Ok(asking) = old.with_annotations(&one.change.annotations, self.assumed) else {
                return false;
            };
            let admitted_as_asking = admitted(&asking, self.policies);
            admitted_as_asking.is_some()
                && admitted_as_asking == admitted(new, self.policies)
                && matches!(outcome(new, self.policies, self.assumed), Ok(Outcome::Fine))
        })
    }
}

impl Wanted {
    fn left(&self, line: usize, why: &str) -> (usize, String) {
        (line, stays(&self.title, why))
    }
}

/// Why nothing of a file is fixed, if that is so.
fn unfixable(path: &Path, named: bool, source: &Source) -> Option<&'static str> {
    if input::is_stdin(path) {
        return Some("standard input cannot be written in place; name the file");
    }
    // A folder of somebody else's may hold a link to any file of ours.
    if !named && path.is_symlink() {
        return Some("it is a link that was found in a folder; name the file that it leads to");
    }
    if source.text.trim_start().starts_with(['{', '[']) {
        return Some("the file is JSON or in flow style; only YAML in lines is edited");
    }
    let is_template = source.text.contains("{{");
    is_template.then_some("the file has `{{` and may be a template; change it by hand")
}

fn stays(title: &str, why: &str) -> String {
    format!("{title} stays as it is: {why}")
}
