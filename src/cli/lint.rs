//! `lint`: what is wrong in manifests, or will start and not work, each at its line.

mod fields;
mod fix;
mod form;
mod inspect;
mod source;
mod unread;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::Status;
use super::arguments::{DecidingArguments, compile};
use super::input::{self, InputError};
use super::output;
use super::problems::plural;
use super::question::Question;
use crate::config::Assumed;
use crate::decision::finding::{Code, Severity};
use crate::decision::workload::{self, Owner};
use crate::decision::{PolicySet, Reason};
use fix::Fix;
use source::{Source, Spot};

/// The flags of `lint`.
#[derive(Debug, Args)]
pub struct Lint {
    /// Manifest, folder of manifests, or - for standard input; several may be given.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// How to write what is found.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    /// The least severity that makes the exit status 1. All is written, whatever this says.
    #[arg(long, value_enum, default_value_t, value_name = "SEVERITY")]
    pub severity: Threshold,
    /// Write the pods of the old shape (`privileged` and a hostPath of a device) anew, in place: an
    /// annotation asks for the device, and the old shape goes. What is unsure stays, with a line that
    /// says why.
    #[arg(long)]
    pub fix: bool,
    /// With --fix: show the difference and write nothing.
    #[arg(long, requires = "fix", conflicts_with = "output")]
    pub dry_run: bool,
    /// The policies, and what is assumed about the pods.
    #[command(flatten)]
    pub deciding: DecidingArguments,
}

/// How the remarks are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Workflow commands that GitHub shows beside the lines of a pull request.
    Github,
    /// For scripts: a list with one object for each remark.
    Json,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// For people: each with its line of the file.
    #[default]
    Text,
}

/// The least severity that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Threshold {
    /// It will be refused, or will not work.
    Error,
    /// It works only if something else holds.
    #[default]
    Warning,
    /// Worth knowing.
    Info,
}

impl Threshold {
    fn severity(self) -> Severity {
        match self {
            Self::Error => Severity::Error,
            Self::Warning => Severity::Warning,
            Self::Info => Severity::Info,
        }
    }
}

/// Something to say of a pod, at a place in a file.
struct Remark {
    /// The index of the source.
    source: usize,
    /// The number of the document in it, from 1.
    document: usize,
    /// What names the pod.
    pod: String,
    said: Said,
    /// Where in the document, a JSON Pointer.
    pointer: String,
    spot: Spot,
}

/// What is to be said, and of what part of the pod.
struct Said {
    rule: Rule,
    severity: Severity,
    message: String,
    remedy: Option<String>,
    /// Whether Devgrant would refuse the pod for it.
    refuses: bool,
    /// Where in the pod, a JSON Pointer.
    path: String,
    /// Whether the name of the field is meant and not its value.
    key: bool,
}

/// What a remark is about: its name never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    /// What is foreseen.
    Finding(Code),
    /// What is wrong with an ask.
    Ask(Reason),
    /// An ask where nobody looks for it.
    MisplacedAsk,
    /// What is said at admission and has no code.
    Note,
    /// A field that the API server does not know.
    UnknownField,
    /// A file that nobody can read.
    UnreadableFile,
    /// A pod that the API server cannot read.
    UnreadablePod,
}

impl Rule {
    /// Those that only lint has, by name.
    #[cfg(test)]
    const OWN: [Self; 5] = [
        Self::MisplacedAsk,
        Self::Note,
        Self::UnknownField,
        Self::UnreadableFile,
        Self::UnreadablePod,
    ];

    fn id(self) -> String {
        match self {
            Self::Finding(code) => code.as_str(),
            Self::Ask(reason) => reason.as_str().to_owned(),
            Self::MisplacedAsk => "MisplacedAsk".to_owned(),
            Self::Note => "Note".to_owned(),
            Self::UnknownField => "UnknownField".to_owned(),
            Self::UnreadableFile => "UnreadableFile".to_owned(),
            Self::UnreadablePod => "UnreadablePod".to_owned(),
        }
    }
}

/// All that was read, and what is to be said of it.
#[derive(Default)]
struct Report {
    sources: Vec<Source>,
    remarks: Vec<Remark>,
    pods: usize,
    /// Whether anything could not be read.
    broken: bool,
    /// Whether any file was written anew.
    fixed: bool,
}

pub(super) fn run(arguments: &Lint) -> anyhow::Result<Status> {
    let config = arguments.deciding.load()?;
    let policies = compile(&config)?;
    let mut report = Report::default();
    let fix = arguments.fix.then_some(Fix {
        policies: &policies,
        assumed: &config.assumed,
        dry_run: arguments.dry_run,
    });
    for path in &arguments.paths {
        report.read(path, fix)?;
    }
    if report.fixed {
        output::note(
            "what was fixed works only where the webhook runs and the namespace is opted in",
        )?;
    }
    report.inspect(&policies, &config.assumed)?;

    let mut stdout = output::stdout();
    match arguments.output {
        Format::Github => form::github(&mut stdout, &report)?,
        Format::Json => form::json(&mut stdout, &report)?,
        Format::Sarif => form::sarif(&mut stdout, &report)?,
        Format::Text => form::text(&mut stdout, &report)?,
    }
    writeln!(output::stderr(), "{}", report.summary())?;
    if report.broken {
        anyhow::bail!(
            "not every file could be read{}",
            if arguments.fix { " and written" } else { "" }
        );
    }
    let counts = |remark: &Remark| remark.said.severity <= arguments.severity.severity();
    Ok(if report.remarks.iter().any(counts) { Status::No } else { Status::Fine })
}

impl Report {
    /// Reads the files of a path. One that cannot be read does not hide what is in the others.
    fn read(&mut self, path: &Path, fix: Option<Fix<'_>>) -> anyhow::Result<()> {
        let is_folder = !input::is_stdin(path) && path.is_dir();
        let files = if is_folder { input::manifests_of(path)? } else { vec![path.to_path_buf()] };
        for file in files {
            match Source::read(&file, !is_folder) {
                Ok(source) => {
                    let fixed = fix.map(|fix| fix.apply(&file, !is_folder, &source)).transpose();
                    let fixed = fixed.map(Option::flatten).or_else(|error| {
                        self.broken = true;
                        broken(&error).map(|()| None)
                    })?;
                    self.fixed |= fixed.is_some();
                    self.sources.push(fixed.unwrap_or(source));
                }
                Err(error) if error.is_template() => {
                    output::note(&format!("{error}; passed by"))?;
                }
                Err(error) => {
                    self.broken = true;
                    self.unreadable(&file, &error);
                    broken(&error.into())?;
                }
            }
        }
        Ok(())
    }

    /// Remarks that a file cannot be read, for who sees nothing but remarks.
    fn unreadable(&mut self, file: &Path, error: &InputError) {
        let source = Source::unreadable(file);
        let (document, (line, column), message) = match error {
            InputError::Syntax { number, at, problem, .. } => {
                (*number, at.unwrap_or((1, 1)), problem.clone())
            }
            _ => (0, (1, 1), error.to_string()),
        };
        self.remarks.push(Remark {
            source: self.sources.len(),
            document,
            pod: source.file.clone(),
            spot: Spot { line, column, end_column: column + 1, bytes: 0..0 },
            said: Said {
                rule: Rule::UnreadableFile,
                severity: Severity::Error,
                message,
                remedy: None,
                refuses: false,
                path: String::new(),
                key: false,
            },
            pointer: String::new(),
        });
        self.sources.push(source);
    }

    fn inspect(&mut self, policies: &PolicySet, assumed: &Assumed) -> anyhow::Result<()> {
        for (index, source) in self.sources.iter().enumerate() {
            for (number, document) in source.documents.iter().enumerate() {
                let (objects, unread) = workload::readable(&document.value);
                for one in &unread {
                    match unread::said(&document.value, one) {
                        Some((pointer, said)) => {
                            let owner =
                                one.owner.clone().unwrap_or_else(|| Owner::of(&document.value));
                            let pod = owner.to_string();
                            self.remarks.push(Remark::new(
                                source,
                                (index, number),
                                pod,
                                pointer,
                                said,
                            ));
                        }
                        // Values of a chart, a kustomization, a patch of a Deployment: folders and
                        // pull requests are full of them.
                        None => output::note(&format!("{} {one}; passed by", document.place()))?,
                    }
                }
                for object in &objects {
                    self.remarks.extend(misplaced(index, source, number, object, policies));
                }
                let several = objects.iter().map(|object| object.pods.len()).sum::<usize>() > 1;
                let pods = objects.into_iter().flat_map(|object| {
                    object.pods.into_iter().map(move |pod| (object.at.clone(), pod))
                });
                for (at, pod) in pods {
                    let question = Question::new(number, document, at, pod, several, assumed)?;
                    self.pods += 1;
                    let remarks = inspect::pod(&question, policies)?.into_iter().map(|said| {
                        let pointer = inspect::placed(&said.path, &question);
                        let pod = question.title.clone();
                        Remark::new(source, (index, number), pod, pointer, said)
                    });
                    self.remarks.extend(remarks);
                }
            }
        }
        self.remarks.sort_by_key(|remark| {
            (remark.source, remark.spot.line, remark.spot.column, remark.said.severity)
        });
        // What several pods take from one place is said once.
        let mut seen = BTreeSet::new();
        self.remarks.retain(|remark| {
            let Remark { source, document, said, pointer, .. } = remark;
            seen.insert((*source, *document, pointer.clone(), said.rule, said.message.clone()))
        });
        Ok(())
    }

    fn summary(&self) -> String {
        let (unreadable, remarks): (Vec<&Remark>, Vec<&Remark>) =
            self.remarks.iter().partition(|remark| remark.said.rule == Rule::UnreadableFile);
        let count =
            |severity| remarks.iter().filter(|remark| remark.said.severity == severity).count();
        let counts = [(Severity::Error, "error"), (Severity::Warning, "warning")];
        let mut parts: Vec<String> =
            counts.map(|(severity, noun)| plural(count(severity), noun)).to_vec();
        parts.push(format!("{} info", count(Severity::Info)));
        let files = self.sources.len() - unreadable.len();
        let (pods, files) = (plural(self.pods, "pod"), plural(files, "file"));
        format!("{} in {pods} of {files}", parts.join(", "))
    }

    fn source(&self, remark: &Remark) -> Option<&Source> {
        self.sources.get(remark.source)
    }
}

/// The asks of an object that reach none of its pods.
fn misplaced(
    index: usize,
    source: &Source,
    number: usize,
    object: &workload::Object,
    policies: &PolicySet,
) -> Vec<Remark> {
    let settings = policies.settings();
    let mut asks = workload::misplaced::asks(object, settings);
    let is_device = |name: &str| policies.find(name).is_some();
    asks.extend(workload::misplaced::near(object, settings, is_device));
    let remarks = asks.into_iter().map(|ask| {
        let pointer = format!("{}{}", object.at, ask.at);
        let said = Said {
            rule: Rule::MisplacedAsk,
            severity: Severity::Warning,
            message: ask.sentence,
            remedy: None,
            refuses: false,
            path: String::new(),
            key: true,
        };
        Remark::new(source, (index, number), Owner::of(&object.value).to_string(), pointer, said)
    });
    remarks.collect()
}

impl Remark {
    /// A remark at a place of a document. The source and the document go by their indices.
    fn new(
        source: &Source,
        (index, document): (usize, usize),
        pod: String,
        pointer: String,
        said: Said,
    ) -> Self {
        Self {
            source: index,
            document: source.documents.get(document).map_or(0, |document| document.number),
            pod,
            spot: source.spot(document, &pointer, said.key),
            said,
            pointer,
        }
    }
}

fn broken(error: &anyhow::Error) -> io::Result<()> {
    let style = output::ERROR;
    writeln!(output::stderr(), "devgrant: {style}error:{style:#} {error:#}")
}

#[cfg(test)]
mod tests {
    use super::Rule;
    use crate::cli::words::{Speaker, words};

    #[test]
    fn explain_knows_every_rule() {
        for rule in Rule::OWN {
            // One more is one more of `OWN`.
            match rule {
                Rule::Finding(_) | Rule::Ask(_) => panic!("{} is told elsewhere", rule.id()),
                Rule::MisplacedAsk
                | Rule::Note
                | Rule::UnknownField
                | Rule::UnreadableFile
                | Rule::UnreadablePod => {}
            }
        }
        let told: Vec<&str> = words()
            .iter()
            .filter(|word| word.of == Speaker::Lint)
            .map(|word| word.name.as_str())
            .collect();
        assert_eq!(told, Rule::OWN.map(Rule::id));
    }
}
