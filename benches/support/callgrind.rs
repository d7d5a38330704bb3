//! Counting by callgrind: one run of this program under valgrind counts all steps.
//!
//! It counts inside of [`counted`] only, and writes a file each time that function returns. The program
//! prints a line for each: first the processor that it sees, then how often a step was taken, and its name.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

/// The variable that tells this program that it runs under valgrind.
const COUNTING: &str = "DEVGRANT_COUNTING";

/// How often a step is taken and not counted: what is made once is made by then, and the allocator has
/// blocks of the sizes that are wanted.
const BEFORE: u64 = 4;
/// How often it is taken and counted. Where the allocator has its blocks differs from once to once.
const TIMES: u64 = 16;

/// What is to be counted, if this is the run that is.
pub(crate) fn counting() -> Option<String> {
    env::var(COUNTING).ok()
}

/// Runs this program once more, under valgrind. Gives the processor that valgrind shows it, and the
/// instructions of each step.
///
/// `what` is for the run to know what it is to count.
pub(crate) fn count(what: &str) -> anyhow::Result<(String, BTreeMap<String, u64>)> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("counted");
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        // A pattern that begins with `*` finds nothing to dump after.
        .args(["--toggle-collect=*counted*", "--dump-after=instructions::callgrind::counted*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env::current_exe()?)
        // The environment lies on the stack, and would move what is counted.
        .env_clear()
        .env(COUNTING, what)
        .stderr(Stdio::inherit())
        .output()
        .context("valgrind cannot be run; install it (Debian: apt-get install valgrind)")?;
    ensure!(run.status.success(), "valgrind: {}", run.status);
    let said = String::from_utf8(run.stdout)?;
    let mut lines = said.lines();
    let processor = lines.next().context("nothing was counted")?.to_owned();
    let mut steps = BTreeMap::new();
    for (at, line) in (1..).zip(lines) {
        let (times, name) = line.split_once(' ').context("a step has no name")?;
        let counted = total(&out.with_extension(at.to_string()))? / times.parse::<u64>()?;
        ensure!(steps.insert(name.to_owned(), counted).is_none(), "{name} is there twice");
    }
    Ok((processor, steps))
}

/// Begins the run that is counted.
pub(crate) fn begin() -> io::Result<()> {
    writeln!(io::stdout(), "{}", processor())
}

/// Counts a step, and what it takes to drop what it gives.
pub(crate) fn step<T>(name: &str, step: impl Fn() -> T) -> io::Result<()> {
    for _ in 0..BEFORE {
        drop(black_box(step()));
    }
    counted(|| {
        for _ in 0..TIMES {
            drop(black_box(step()));
        }
    });
    writeln!(io::stdout(), "{TIMES} {name}")
}

/// Counts a step that is taken once: of what takes long, what is made once is no part worth a word.
pub(crate) fn once<T>(name: &str, step: impl Fn() -> T) -> io::Result<()> {
    counted(|| drop(black_box(step())));
    writeln!(io::stdout(), "1 {name}")
}

/// What valgrind counts: the only function in this program that is called so.
#[inline(never)]
fn counted(steps: impl FnOnce()) {
    steps();
    // Something is left to do, so that the call above is one that returns to here.
    black_box(());
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

/// What code chooses its way by at run time: memchr, hashing, and libc. Valgrind shows a
/// processor of its own making, the same one wherever there is AVX2.
#[cfg(target_arch = "x86_64")]
fn processor() -> String {
    let seen = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("bmi2", is_x86_feature_detected!("bmi2")),
        ("lzcnt", is_x86_feature_detected!("lzcnt")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    let seen = seen.into_iter().filter(|(_, seen)| *seen).map(|(name, _)| format!(" {name}"));
    format!("x86_64{}", seen.collect::<String>())
}

/// What code chooses its way by at run time.
#[cfg(not(target_arch = "x86_64"))]
fn processor() -> String {
    env::consts::ARCH.to_owned()
}
