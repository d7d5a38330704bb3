#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot go on says where and stops"
)]
//! Devgrant before a real API server: the binary serves, is registered, and pods are created as a user
//! creates them.
//!
//! One control plane serves all trials of a run; they keep apart by namespaces of their own. A topic is
//! a file with `trials`; what it needs of the control plane is asked for inside a trial, so that listing
//! and filtering start nothing.
//!
//! `KUBEBUILDER_ASSETS=$(tests/cluster/control-plane/build) cargo test --features cluster-tests --test cluster`

mod api;
mod claims;
#[path = "../support/collector.rs"]
mod collector;
mod control_plane;
mod documents;
mod golden;
#[path = "../support/golden_case.rs"]
mod golden_case;
mod guard;
mod install;
mod installation;
mod kubectl;
mod limits;
mod manifests;
#[path = "../support/mount.rs"]
mod mount;
mod owners;
mod pod_security;
mod process;
mod reach;
mod registration;
mod reinvocation;
mod requests;
mod rights;
mod scan;
mod schemas;
mod server;
mod serving;
mod traces;
mod webhook;

use std::process::ExitCode;
use std::thread::available_parallelism;

use libtest_mimic::{Arguments, Trial};

use control_plane::{Plane, assets};
use process::last_lines;

/// How many trials a processor has in flight: they wait for the API server more than they work.
const TRIALS_PER_PROCESSOR: usize = 4;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let processors = available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert(processors * TRIALS_PER_PROCESSOR);
    let plane = Plane::default();
    let topics = [
        claims::trials,
        golden::trials,
        guard::trials,
        install::trials,
        kubectl::trials,
        limits::trials,
        owners::trials,
        pod_security::trials,
        reach::trials,
        registration::trials,
        reinvocation::trials,
        requests::trials,
        rights::trials,
        scan::trials,
        schemas::trials,
        serving::trials,
        traces::trials,
    ];
    let mut trials: Vec<Trial> = topics.iter().flat_map(|trials| trials(&plane)).collect();
    trials.push(documents::trial(&trials));
    if arguments.list {
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    plane.start(&assets());
    let conclusion = libtest_mimic::run(&arguments, trials);
    if conclusion.has_failed() {
        eprintln!("{}", last_lines(plane.folder()));
    }
    // By returning, so that what was started is stopped.
    conclusion.exit_code()
}

/// A trial that fails by panicking.
fn trial(
    name: impl Into<String>,
    plane: &Plane,
    run: impl FnOnce(&Plane) + Send + 'static,
) -> Trial {
    let plane = plane.clone();
    Trial::test(name, move || {
        run(&plane);
        Ok(())
    })
}

/// Holds that two long texts are the same, and shows where they are not.
#[track_caller]
fn same_text(is: &str, should: &str) {
    let difference = similar::TextDiff::from_lines(should, is);
    let shown = difference.unified_diff().context_radius(4).header("should", "is").to_string();
    assert!(is == should, "\n{shown}");
}
