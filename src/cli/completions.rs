//! `completions`: what shells complete.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Arguments, Status, output};

/// The flags of `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

pub(super) fn run(arguments: &Completions) -> anyhow::Result<Status> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "devgrant", &mut text);
    output::stdout().write_all(&text)?;
    Ok(Status::Fine)
}
