//! The command line: the same line as the server's, over files.
//!
//! One file a verb. Results go to stdout, all else to stderr; the exit status is 0 when all is fine, 1
//! when the answer is "no" (a refusal), and 2 for bad usage, unreadable input or a bad policy. Errors
//! are printed in one place, here, with their chain.

pub mod admit;
pub mod arguments;
pub mod completions;
pub mod explain;
pub mod input;
pub mod lint;
pub mod man;
pub mod manifests;
pub mod output;
pub mod patch;
pub mod placement;
pub mod plugin;
pub mod policy;
pub mod problems;
pub mod question;
pub mod scan;
pub mod serve;
pub mod words;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{FromArgMatches as _, Parser, Subcommand};

use output::ERROR;
use plugin::Name;
use problems::BadPolicies;

/// Grants devices to Kubernetes pods by annotation, without privileged and without hostPath.
#[derive(Debug, Parser)]
#[command(name = "devgrant", version, propagate_version = true, max_term_width = 100)]
pub struct Arguments {
    /// When to write in colour; `auto` hears `NO_COLOR` and `CLICOLOR_FORCE`.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: output::Color,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Answer one AdmissionReview, with exactly the bytes that the server would send.
    Admit(admit::Admit),
    /// Print the completions of a shell.
    Completions(completions::Completions),
    /// Show the decision step by step, or what a finding such as DG001 means.
    Explain(explain::Explain),
    /// Find what is wrong in manifests, or will start and not work, each at its line.
    Lint(lint::Lint),
    /// Print the manual page, or that of one verb.
    Man(man::Man),
    /// Print the Kubernetes objects that fit the policies: registration, guard, RBAC, server.
    Manifests(Box<manifests::Manifests>),
    /// Show what comes out for pods and everything that holds a pod template.
    Patch(patch::Patch),
    /// Look into the policy set.
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Show who runs privileged or with a hostPath of a device today, and what each would become.
    Scan(Box<scan::Scan>),
    /// Run the webhook.
    Serve(Box<serve::Serve>),
}

/// What a verb found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// All is fine: exit status 0.
    Fine,
    /// The answer is "no": exit status 1.
    No,
}

/// Runs the command.
pub fn main() -> ExitCode {
    let mut words = env::args_os();
    let name = Name::of(words.next().as_deref());
    if name == Name::PluginCompletions {
        return exit(plugin::complete(words.collect()));
    }
    let arguments = match parse(name) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are results and no errors; clap knows which is which. If even that
            // cannot be written, nobody is there to be told.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    arguments.color.apply();
    exit(run(arguments.verb))
}

fn parse(name: Name) -> Result<Arguments, clap::Error> {
    let mut command = name.command();
    let mut matches = command.try_get_matches_from_mut(env::args_os())?;
    Arguments::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// Says what went wrong, if anything did.
fn exit(result: anyhow::Result<Status>) -> ExitCode {
    match result {
        Ok(Status::Fine) => ExitCode::SUCCESS,
        Ok(Status::No) => ExitCode::from(1),
        // The reader has seen enough, as in `devgrant … | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = report(&error);
            ExitCode::from(2)
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<Status> {
    match verb {
        Verb::Admit(arguments) => admit::run(&arguments),
        Verb::Completions(arguments) => completions::run(&arguments),
        Verb::Explain(arguments) => explain::run(&arguments),
        Verb::Lint(arguments) => lint::run(&arguments),
        Verb::Man(arguments) => man::run(&arguments),
        Verb::Manifests(arguments) => manifests::run(&arguments),
        Verb::Patch(arguments) => patch::run(&arguments),
        Verb::Policy(arguments) => policy::run(&arguments),
        Verb::Scan(arguments) => scan::run(&arguments),
        Verb::Serve(arguments) => serve::run(&arguments),
    }
}

fn report(error: &anyhow::Error) -> io::Result<()> {
    let mut stderr = output::stderr();
    if let Some(bad) = error.downcast_ref::<BadPolicies>() {
        stderr.write_all(bad.report().as_bytes())?;
    }
    writeln!(stderr, "devgrant: {ERROR}error:{ERROR:#} {}", chain(error))
}

/// The error and its causes in one line. Some errors have their cause in their own text too, for readers
/// that print no chain; it is said once.
fn chain(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if line.is_empty() {
            line = text;
        } else if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
    }
    line
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}
