//! `man`: the manual pages.

use std::io::Write;

use anyhow::bail;
use clap::{Args, CommandFactory};

use super::{Arguments, Status, output};
use crate::decision::spelling;

/// The flags of `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// The verb; without it, the page of devgrant as a whole.
    pub verb: Option<String>,
}

pub(super) fn run(arguments: &Man) -> anyhow::Result<Status> {
    let mut all = Arguments::command();
    all.build();
    let mut command = &all;
    if let Some(verb) = &arguments.verb {
        let Some(found) = all.find_subcommand(verb) else {
            let names = all.get_subcommands().map(clap::Command::get_name);
            bail!("there is no verb `{verb}`; the verbs are {}", spelling::list(names));
        };
        command = found;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    output::stdout().write_all(&page)?;
    Ok(Status::Fine)
}
