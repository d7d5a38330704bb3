//! `scan`: who runs privileged, or with a hostPath of a device, today, and what each would become.

mod cluster;
mod form;
mod inspect;
mod owner;
mod report;
mod source;
mod stream;
mod survey;
mod text;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, ValueEnum};

use super::arguments::{ReviewArguments, compile};
use super::{Status, output};
use survey::Survey;

/// The flags of `scan`.
#[derive(Debug, Args)]
pub struct Scan {
    /// Manifest, folder of manifests, or - for standard input, where `kubectl get pods -A -o json` may be
    /// of any length; several may be given. Without any: the pods of the cluster that KUBECONFIG, or the
    /// pod that this runs in, leads to.
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// How to write it.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    /// Only pods of this namespace.
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Only pods of the cluster with these labels.
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "paths")]
    pub selector: Option<String>,
    /// How many pods to ask the cluster for at a time.
    #[arg(long, value_name = "COUNT", default_value_t = 500, conflicts_with = "paths")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub page_size: u32,
    /// Say on standard error how far it is, also where that is no terminal.
    #[arg(long)]
    pub progress: bool,
    /// The policies, and the labels of namespaces.
    #[command(flatten)]
    pub review: ReviewArguments,
}

/// How the report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For spreadsheets.
    Csv,
    /// For scripts: one object; `docs/scan.md` says what is what.
    Json,
    /// For people.
    #[default]
    Table,
}

pub(super) fn run(arguments: &Scan) -> anyhow::Result<Status> {
    let config = arguments.review.load()?;
    let policies = compile(&config)?;
    let mut survey = Survey::new(&policies, &config.assumed, arguments.namespace.as_deref());
    survey.tells_progress = arguments.progress || std::io::stderr().is_terminal();
    // What was read before it went wrong is worth more than nothing.
    let broken = if arguments.paths.is_empty() {
        if arguments.review.namespace_labels.is_some() {
            bail!("--namespace-labels is for files: a cluster says itself what labels there are");
        }
        cluster::survey(arguments, &mut survey)?;
        false
    } else {
        source::survey(&arguments.paths, &mut survey)?
    };
    let report = survey.end();

    let mut stdout = output::stdout();
    match arguments.output {
        Format::Csv => form::csv(&mut stdout, &report)?,
        Format::Json => form::json(&mut stdout, &report)?,
        Format::Table => form::table(&mut stdout, &report, policies.settings())?,
    }
    writeln!(output::stderr(), "{}", form::summary(&report.summary))?;
    if broken || report.summary.unreadable > 0 {
        bail!("not everything could be read; the report is without that");
    }
    Ok(Status::Fine)
}
