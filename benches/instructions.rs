//! How many instructions each step of the line takes, counted by valgrind.
//!
//! Instructions, unlike seconds, are the same on a busy machine, so that a check on them can fail a change.
//! `cargo bench --bench instructions` prints them beside the checked-in baseline, and fails where a step
//! has grown; with `-- --accept` what is counted becomes the baseline. How the work grows with a pod is
//! counted in the same run and needs no baseline; `-- --scale` counts nothing else.

#[path = "support/baseline.rs"]
mod baseline;
#[path = "support/callgrind.rs"]
mod callgrind;
#[path = "support/namespaces.rs"]
mod namespaces;
#[path = "support/reviews.rs"]
mod reviews;
#[path = "support/scale.rs"]
mod scale;

use std::env;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail, ensure};
use devgrant::decision::line::{self, pod_of};
use devgrant::decision::{
    Namespace, PolicySet, PolicySource, Request, Review, Settings, Verdict, admit, glance, patch,
};
use devgrant::policies;

use baseline::Counts;
use callgrind::step;
use reviews::{Annotated, FIFTY, LARGE, ONE, ORDINARY, SMALL, Size};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do where even that cannot be written.
            let _ = writeln!(io::stderr(), "\ninstructions: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    if let Some(what) = callgrind::counting() {
        callgrind::begin()?;
        if what == ALL {
            steps()?;
        }
        return scale::steps(&namespace());
    }
    let mut accept = false;
    let mut what = ALL;
    for argument in env::args().skip(1) {
        match argument.as_str() {
            "--accept" => accept = true,
            "--scale" => what = SCALE,
            // Of cargo.
            "--bench" => {}
            other => bail!("`{other}` is no argument; there are `--accept` and `--scale`"),
        }
    }
    ensure!(!accept || what == ALL, "`--accept` is for the steps that `--scale` leaves out");
    let (processor, mut steps) = callgrind::count(what)?;
    let scaled = steps.extract_if(.., |name, _| name.starts_with(scale::MARK)).collect();
    scale::check(&scaled)?;
    if what == SCALE {
        return Ok(());
    }
    let counts = Counts::new(processor, steps)?;
    if accept { counts.accept() } else { counts.check() }
}

/// Counts every step.
const ALL: &str = "all";
/// Counts how the work grows, and nothing else.
const SCALE: &str = "scale";

fn namespace() -> Namespace {
    Namespace {
        name: "team-a".to_owned(),
        labels: [("devices.example/grant".to_owned(), "enabled".to_owned())].into(),
    }
}

/// Every step, over every size and number of policies.
fn steps() -> anyhow::Result<()> {
    let shipped = compile(&policies::shipped())?;
    let namespace = namespace();
    let sizes = [
        ("3 KB", SMALL),
        ("8.6 KB", ORDINARY),
        ("50 KB", LARGE),
        ("1 container", ONE),
        ("50 containers", FIFTY),
    ];
    for (size, of) in sizes {
        parts(size, of, &shipped, &namespace)?;
        whole(size, of, &shipped, &namespace)?;
    }
    for count in [1, 100, 1_000] {
        let policies = generate(count)?;
        whole(&format!("{count} policies"), ORDINARY, &policies, &namespace)?;
    }
    for count in [10, 10_000] {
        let namespaces = namespaces::namespaces(count)?;
        // Some hashes meet others, so that not one name is looked up but ten from all over.
        let names: Vec<String> =
            (0..10).map(|tenth| namespaces::name(count / 10 * tenth)).collect();
        let find = || names.iter().filter_map(|name| namespaces.find(name)).count();
        ensure!(find() == names.len(), "of {count} namespaces some are not found");
        step(&format!("ten lookups, {count} namespaces"), find)?;
    }
    Ok(())
}

/// `fuse`, and others up to so many.
fn generate(count: usize) -> anyhow::Result<PolicySet> {
    let fuse = policies::shipped().into_iter().filter(|source| source.file.contains("fuse"));
    let others = (1..count).map(|at| {
        let device = format!("device-{at}");
        PolicySource { file: format!("{device}.yaml"), text: reviews::policy(&device) }
    });
    let sources: Vec<_> = fuse.chain(others).collect();
    ensure!(sources.len() == count, "{} policies are not {count}", sources.len());
    compile(&sources)
}

fn compile(sources: &[PolicySource]) -> anyhow::Result<PolicySet> {
    PolicySet::compile(sources, Settings::default())
        .map_err(|problems| anyhow!("the policies have {} problems", problems.len()))
}

/// Each step of a pod that asks, and what a pod without annotations has of them.
fn parts(size: &str, of: Size, policies: &PolicySet, namespace: &Namespace) -> anyhow::Result<()> {
    let bytes = reviews::review(of, Annotated::Never);
    let review = Review::decode(&bytes)?;
    let request = Request::of(&review)?;
    step(&format!("decode, unannotated, {size}"), || Review::decode(black_box(&bytes)))?;
    step(&format!("facts, unannotated, {size}"), || Request::of(&review))?;
    step(&format!("pod, unannotated, {size}"), || pod_of(&request, policies))?;

    let bytes = reviews::review(of, Annotated::Asking);
    let review = Review::decode(&bytes)?;
    let request = Request::of(&review)?;
    let pod = pod_of(&request, policies)?.context("the pod does not ask")?;
    let decision = line::decide(&request, &pod, policies, Some(namespace))?;
    let object = request.object.context("there is no object")?;
    let spec = pod.spec().context("there is no spec")?;
    let Verdict::Admit(plan) = &decision.verdict else {
        bail!("the pod is refused");
    };
    ensure!(decision.operations.len() == 6, "{} operations", decision.operations.len());
    let admission = admit(&review, policies, Some(namespace))?;
    step(&format!("decode, {size}"), || Review::decode(black_box(&bytes)))?;
    step(&format!("facts, {size}"), || Request::of(&review))?;
    step(&format!("pod, {size}"), || pod_of(&request, policies))?;
    step(&format!("decide with patch, {size}"), || {
        line::decide(&request, &pod, policies, Some(namespace))
    })?;
    step(&format!("patch, {size}"), || {
        patch::render(object, &request, spec, plan, policies.digest(), policies.settings())
    })?;
    step(&format!("answer, {size}"), || admission.to_bytes())?;
    Ok(())
}

/// From bytes to bytes as the server goes, and everything dropped that was made for it.
fn whole(size: &str, of: Size, policies: &PolicySet, namespace: &Namespace) -> anyhow::Result<()> {
    let kinds = [
        ("unannotated", Annotated::Never),
        ("annotated elsewhere", Annotated::Elsewhere),
        ("fuse", Annotated::Asking),
    ];
    for (kind, annotated) in kinds {
        let bytes = reviews::review(of, annotated);
        let line = || -> anyhow::Result<Vec<u8>> {
            let bytes = black_box(&bytes);
            if let Some(admission) = glance(bytes, policies) {
                return Ok(admission.to_bytes());
            }
            let review = Review::decode(bytes)?;
            Ok(admit(&review, policies, Some(namespace))?.to_bytes())
        };
        ensure!(line().is_ok(), "{kind}, {size}: cannot be decided");
        step(&format!("all, {kind}, {size}"), line)?;
    }
    Ok(())
}
