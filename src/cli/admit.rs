//! `admit`: one AdmissionReview in, exactly the bytes that the server would answer out.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::arguments::{ReviewArguments, compile};
use super::question;
use super::{Status, input, output};
use crate::decision::{Review, admit};

/// The flags of `admit`.
#[derive(Debug, Args)]
pub struct Admit {
    /// AdmissionReview of admission.k8s.io/v1 as JSON, or - for standard input.
    #[arg(short, long, value_name = "REVIEW")]
    pub file: PathBuf,
    /// The policies, and what is assumed about the namespace.
    #[command(flatten)]
    pub review: ReviewArguments,
}

pub(super) fn run(arguments: &Admit) -> anyhow::Result<Status> {
    let config = arguments.review.load()?;
    let policies = compile(&config)?;
    let name = input::name(&arguments.file);
    let bytes = input::bytes(&arguments.file)?;
    let review = Review::decode(&bytes).with_context(|| name.clone())?;
    // The review is answered as it is: only the labels of its namespace are assumed, since the server
    // looks those up.
    let namespace = question::namespace(review.namespace().into_owned(), &config.assumed);
    let admission = admit(&review, &policies, Some(&namespace)).with_context(|| name)?;
    let mut stdout = output::stdout();
    stdout.write_all(&admission.to_bytes())?;
    stdout.flush()?;
    Ok(if admission.allowed { Status::Fine } else { Status::No })
}
