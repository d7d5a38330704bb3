//! What was counted, beside what is checked in.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

/// By how much a step may grow.
const TOLERATED: f64 = 1.05;
/// By how much it may grow beside all others, where other machines count.
const TOLERATED_ELSEWHERE: f64 = 1.10;
/// What a step may grow by in any case. Only the smallest steps are so small that it matters.
const NOISE: u64 = 250;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.baseline.json");

/// How the baseline is written anew.
const ACCEPT: &str = ".ci/instructions --accept";

/// The instructions of each step, and what they were counted with.
#[derive(Serialize, Deserialize)]
pub(crate) struct Counts {
    with: Machine,
    steps: BTreeMap<String, u64>,
}

/// What a count depends on, beside the program.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Machine {
    rustc: String,
    /// Copying and comparing bytes are its.
    libc: String,
    /// As valgrind shows it.
    processor: String,
    valgrind: String,
}

impl Counts {
    /// What was counted here.
    pub(crate) fn new(processor: String, steps: BTreeMap<String, u64>) -> anyhow::Result<Self> {
        let with = Machine {
            rustc: said("rustc", &["--version"])?,
            libc: said("getconf", &["GNU_LIBC_VERSION"])?,
            processor,
            valgrind: said("valgrind", &["--version"])?,
        };
        Ok(Self { with, steps })
    }

    /// Makes this the baseline.
    pub(crate) fn accept(&self) -> anyhow::Result<()> {
        fs::write(FILE, serde_json::to_string_pretty(self)? + "\n")?;
        writeln!(io::stdout(), "accepted: {} steps in {FILE}", self.steps.len())?;
        Ok(())
    }

    /// Prints the steps beside the baseline, and fails where one has grown, is new or is gone.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let text = fs::read_to_string(FILE)
            .with_context(|| format!("cannot read {FILE}; `{ACCEPT}` writes it"))?;
        let baseline: Self = serde_json::from_str(&text)
            .with_context(|| format!("{FILE} is no baseline; `{ACCEPT}` writes it anew"))?;
        ensure!(
            self.with.rustc == baseline.with.rustc,
            "the baseline was counted with `{}` and this is `{}`, whose code is another: accept it with \
             the compiler, before any other change: `{ACCEPT}`",
            baseline.with.rustc,
            self.with.rustc
        );
        let mut out = io::stdout().lock();
        let differs = self.with.differences(&baseline.with);
        // What another machine adds, it adds to most steps.
        let (machine, tolerated) = if differs.is_empty() {
            (1.0, TOLERATED)
        } else {
            (self.typical(&baseline), TOLERATED_ELSEWHERE)
        };
        if !differs.is_empty() {
            writeln!(
                out,
                "This machine counts otherwise than that of the baseline: {}.\nSteps are compared by \
                 how they have grown beside all others: the ratio of each is divided by the median of \
                 all, {machine:.3}, and may be up to {tolerated:.2}.",
                differs.join("; ")
            )?;
        }
        writeln!(out, "{:<44} {:>12} {:>12} {:>7}", "step", "instructions", "baseline", "ratio")?;
        let mut wrong = Vec::new();
        let mut cheaper = 0;
        for (step, &now) in &self.steps {
            let Some(&then) = baseline.steps.get(step) else {
                writeln!(out, "{step:<44} {now:>12} {:>12}", "none")?;
                wrong.push(format!("`{step}` is not in the baseline"));
                continue;
            };
            let grown = ratio(now, then) / machine;
            writeln!(out, "{step:<44} {now:>12} {then:>12} {grown:>7.3}")?;
            if grown > tolerated && now > then + NOISE {
                let percent = (grown - 1.0) * 100.0;
                wrong.push(format!(
                    "`{step}` takes {now} instructions, {percent:.1} % more than the {then} of the baseline"
                ));
            }
            cheaper += usize::from(grown < 2.0 - tolerated && then > now + NOISE);
        }
        let gone = baseline.steps.keys().filter(|step| !self.steps.contains_key(*step));
        wrong.extend(gone.map(|step| format!("`{step}` of the baseline is no step any more")));
        ensure!(
            wrong.is_empty(),
            "{}\nmake it cheaper, or say in the commit why it costs that, and accept it: `{ACCEPT}`",
            wrong.join("\n")
        );
        if cheaper > 0 {
            writeln!(out, "{cheaper} steps are cheaper; hold that in the same commit: `{ACCEPT}`")?;
        }
        Ok(())
    }

    /// By how much the median step has grown.
    fn typical(&self, baseline: &Self) -> f64 {
        let both = self.steps.iter().filter_map(|(step, &now)| {
            let then = *baseline.steps.get(step)?;
            Some(ratio(now, then))
        });
        let mut ratios: Vec<f64> = both.collect();
        ratios.sort_unstable_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied().unwrap_or(1.0)
    }
}

impl Machine {
    fn differences(&self, baseline: &Self) -> Vec<String> {
        let all = [
            ("libc", &self.libc, &baseline.libc),
            ("processor", &self.processor, &baseline.processor),
            ("valgrind", &self.valgrind, &baseline.valgrind),
        ];
        let differ = all.into_iter().filter(|(_, here, there)| here != there);
        differ.map(|(what, here, there)| format!("{what} `{here}`, not `{there}`")).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio with three digits is wanted")]
pub(crate) fn ratio(now: u64, then: u64) -> f64 {
    now as f64 / then.max(1) as f64
}

/// What a command says.
fn said(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output().context(program.to_owned())?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
