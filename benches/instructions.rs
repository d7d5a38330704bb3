//! How many instructions each step of the line takes, counted by valgrind.
//!
//! Instructions, unlike seconds, are the same on a busy machine, so that a check on them can fail a change.
//! `cargo bench --bench instructions` prints them beside the checked-in baseline; with `-- --check` growth
//! over [`TOLERATED`] and [`NOISE`] fails, with `-- --refresh` the baseline is written anew.
//!
//! One run under valgrind counts everything: it counts in [`counted`] only, and writes what it has
//! counted each time that function returns.

#[path = "support/reviews.rs"]
mod reviews;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, anyhow, bail, ensure};
use devgrant::decision::line::{self, pod_of};
use devgrant::decision::{
    Namespace, PolicySet, PolicySource, Request, Review, Settings, Verdict, admit, glance, patch,
};
use devgrant::policies;
use reviews::{Annotated, FIFTY, LARGE, ONE, ORDINARY, SMALL, Size};
use serde::{Deserialize, Serialize};

/// By how much a step may grow, as a ratio to the baseline.
const TOLERATED: f64 = 1.05;

/// What a step may grow by in any case: where the allocator has its blocks from changes a small step by
/// some thousand instructions.
const NOISE: u64 = 5_000;

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.baseline.json");

/// The variable that tells this program that it runs under valgrind.
const COUNTING: &str = "DEVGRANT_COUNTING";

/// How the baseline is written anew.
const REFRESH: &str = "cargo bench --bench instructions -- --refresh";

fn main() -> anyhow::Result<()> {
    if env::var_os(COUNTING).is_some() {
        return steps();
    }
    let asked: Vec<String> = env::args().collect();
    let asked = |flag: &str| asked.iter().any(|argument| argument == flag);
    let now = Counts::of(&count()?)?;
    if asked("--refresh") {
        fs::write(BASELINE, serde_json::to_string_pretty(&now)? + "\n")?;
    }
    let text = fs::read_to_string(BASELINE)
        .with_context(|| format!("there is no baseline; write one with `{REFRESH}`"))?;
    let baseline: Counts = serde_json::from_str(&text)?;
    let grown = now.print_beside(&baseline)?;
    if asked("--check") {
        ensure!(
            now.rustc == baseline.rustc,
            "the baseline was counted with `{}` and this is `{}`, which counts otherwise: with the compiler, \
             and before any other change, write it anew with `{REFRESH}`",
            baseline.rustc,
            now.rustc
        );
        ensure!(
            grown.is_empty(),
            "more than {:.0} % over the baseline, or not in it: {}; make it cheaper, or say in the change why \
             it costs that much and write the baseline anew with `{REFRESH}`",
            (TOLERATED - 1.0) * 100.0,
            grown.join(", ")
        );
    }
    Ok(())
}

/// The instructions of each step, and what they were counted with.
#[derive(Serialize, Deserialize)]
struct Counts {
    /// Another compiler makes other instructions.
    rustc: String,
    steps: BTreeMap<String, u64>,
}

impl Counts {
    fn of(steps: &BTreeMap<String, u64>) -> anyhow::Result<Self> {
        let version = Command::new("rustc").arg("--version").output().context("rustc")?;
        let rustc = String::from_utf8(version.stdout)?.trim().to_owned();
        Ok(Self { rustc, steps: steps.clone() })
    }

    /// Prints a table, and gives the steps that have grown too much or are on one side only.
    fn print_beside(&self, baseline: &Self) -> io::Result<Vec<String>> {
        let mut out = io::stdout().lock();
        let mut grown = Vec::new();
        writeln!(out, "{}", self.rustc)?;
        writeln!(out, "{:<44} {:>12} {:>12} {:>7}", "step", "instructions", "baseline", "ratio")?;
        for (step, now) in &self.steps {
            let Some(then) = baseline.steps.get(step) else {
                writeln!(out, "{step:<44} {now:>12} {:>12} {:>7}", "none", "")?;
                grown.push(step.clone());
                continue;
            };
            let ratio = ratio(*now, *then);
            let is_more = ratio > TOLERATED && *now > then + NOISE;
            let mark = if is_more { " more" } else { "" };
            writeln!(out, "{step:<44} {now:>12} {then:>12} {ratio:>7.3}{mark}")?;
            if is_more {
                grown.push(step.clone());
            }
        }
        let gone = baseline.steps.keys().filter(|step| !self.steps.contains_key(*step));
        grown.extend(gone.map(|step| format!("{step} (gone)")));
        Ok(grown)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio with three digits is wanted")]
fn ratio(now: u64, then: u64) -> f64 {
    now as f64 / then as f64
}

/// Runs this program under valgrind.
fn count() -> anyhow::Result<BTreeMap<String, u64>> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("counted");
    let run = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--quiet",
            "--toggle-collect=*counted*",
            "--dump-after=instructions::counted*",
        ])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env::current_exe()?)
        // The environment lies on the stack, and would move what is counted.
        .env_clear()
        .env(COUNTING, "1")
        .stderr(Stdio::inherit())
        .output()
        .context("valgrind cannot be run; install it (Debian: apt-get install valgrind)")?;
    ensure!(run.status.success(), "valgrind: {}", run.status);
    let names = String::from_utf8(run.stdout)?;
    let mut steps = BTreeMap::new();
    for (at, name) in (1..).zip(names.lines()) {
        let counted = total(&out.with_extension(at.to_string()))?;
        ensure!(steps.insert(name.to_owned(), counted).is_none(), "{name} is there twice");
    }
    ensure!(!steps.is_empty(), "nothing was counted");
    Ok(steps)
}

/// The sum in what callgrind writes.
fn total(file: &Path) -> anyhow::Result<u64> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("{} of callgrind is not there", file.display()))?;
    let sum = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let Some(Ok(sum)) = sum.map(|sum| sum.trim().parse()) else {
        bail!("{} of callgrind has no sum", file.display());
    };
    ensure!(sum > 0, "{} of callgrind counts nothing", file.display());
    Ok(sum)
}

/// What valgrind counts: the only place in this program.
#[inline(never)]
fn counted<T>(step: impl FnOnce() -> T) -> T {
    let result = step();
    // Something is left to do, so that the call above is one that returns to here.
    black_box(&result);
    result
}

/// Takes a step twice, the second time counted: by then what is made once is made. To drop what the
/// step gives is not counted, except in `all`.
fn step<T>(name: &str, step: impl Fn() -> T) -> io::Result<()> {
    drop(step());
    drop(counted(&step));
    writeln!(io::stdout(), "{name}")
}

/// Every step, over every size and number of policies.
fn steps() -> anyhow::Result<()> {
    let shipped = compile(&policies::shipped())?;
    let namespace = Namespace {
        name: "team-a".to_owned(),
        labels: [("devices.example/grant".to_owned(), "enabled".to_owned())].into(),
    };
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
    for (count, generated) in [(1, false), (10, true), (100, true), (1000, true)] {
        let policies = generate(count, generated)?;
        whole(&format!("{count} policies"), ORDINARY, &policies, &namespace)?;
    }
    Ok(())
}

/// `fuse`, and others up to so many.
fn generate(count: usize, generated: bool) -> anyhow::Result<PolicySet> {
    let fuse = policies::shipped().into_iter().filter(|source| source.file.contains("fuse"));
    let others = (1..count).filter(|_| generated).map(|at| {
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
