//! `admit`: one AdmissionReview in, exactly the bytes that the server would answer out.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::Value;

use super::arguments::{ReviewArguments, compile};
use super::question;
use super::{Status, input, output};
use crate::decision::review::KIND;
use crate::decision::workload::Owner;
use crate::decision::{Review, admit, spelling};

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
    let review = Review::decode(&bytes)
        .map_err(|error| anyhow!("{error}{}", hint(&bytes)))
        .with_context(|| name.clone())?;
    // The review is answered as it is: only the labels of its namespace are assumed, since the server
    // looks those up.
    let namespace = question::namespace(review.namespace().into_owned(), &config.assumed);
    let admission = admit(&review, &policies, Some(&namespace)).with_context(|| name)?;
    let mut stdout = output::stdout();
    stdout.write_all(&admission.to_bytes())?;
    stdout.flush()?;
    Ok(if admission.allowed { Status::Fine } else { Status::No })
}

/// What was given instead of a review, if it is something that another verb takes.
fn hint(bytes: &[u8]) -> String {
    let kind = |value: Value| Owner::of(&value).kind;
    let takes = "`devgrant patch -f` and `devgrant explain -f` take that";
    match serde_json::from_slice(bytes).map(kind) {
        Ok(kind) if kind.is_empty() || kind == KIND => String::new(),
        Ok(kind) => format!("; this is a {}: {takes}", spelling::excerpt(&kind)),
        Err(_) => {
            let text = std::str::from_utf8(bytes).unwrap_or_default();
            let documents = input::parse("", text, true).unwrap_or_default();
            match documents.into_iter().next().map(|document| kind(document.value)) {
                Some(kind) if !kind.is_empty() => {
                    format!("; this is YAML, of the kind {}: {takes}", spelling::excerpt(&kind))
                }
                _ => String::new(),
            }
        }
    }
}
