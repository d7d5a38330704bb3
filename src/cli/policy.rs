//! `policy`: look into the policy set.

pub mod test;

use std::io::Write;
use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::Status;
use super::arguments::{PolicyArguments, compile};
use super::output::{self, TITLE};
use super::problems::{BadPolicies, draw, plural};
use crate::decision::policy::{Policy as CompiledPolicy, PolicySet, json_schema, schema};
use crate::decision::spelling;
use crate::policies::{self, Location};

/// The verbs of `policy`.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Say everything that is wrong with policies, all at once.
    Check(Check),
    /// List the policies.
    List(List),
    /// Print the JSON Schema of a policy file.
    Schema,
    /// Show one policy as compiled.
    Show(Show),
    /// Run the cases beside policies: what is expected of a pod, against what comes out.
    Test(test::Test),
}

/// The flags of `policy check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Folders of policies; they are checked as one set. Without any, as with --policies.
    #[arg(value_name = "DIR")]
    pub folders: Vec<PathBuf>,
    /// The policies.
    #[command(flatten)]
    pub policy: PolicyArguments,
}

/// The flags of `policy list`.
#[derive(Debug, Args)]
pub struct List {
    /// How to write it.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: ListFormat,
    /// The policies.
    #[command(flatten)]
    pub policy: PolicyArguments,
}

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ListFormat {
    /// For scripts.
    Json,
    /// For people.
    #[default]
    Table,
}

/// The flags of `policy show`.
#[derive(Debug, Args)]
pub struct Show {
    /// The device or the name of the policy.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// How to write it.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: ShowFormat,
    /// The policies.
    #[command(flatten)]
    pub policy: PolicyArguments,
}

/// How a policy is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ShowFormat {
    /// For scripts.
    Json,
    /// For people.
    #[default]
    Yaml,
}

pub(super) fn run(policy: &Policy) -> anyhow::Result<Status> {
    match policy {
        Policy::Check(arguments) => check(arguments),
        Policy::List(arguments) => list(arguments),
        Policy::Schema => print_schema(),
        Policy::Show(arguments) => show(arguments),
        Policy::Test(arguments) => test::run(arguments),
    }
}

fn check(arguments: &Check) -> anyhow::Result<Status> {
    let mut flags = arguments.policy.clone();
    flags.policies.extend(arguments.folders.iter().cloned());
    let config = flags.load()?;
    for folder in subfolders(&config.policies) {
        output::note(&format!(
            "{} was passed by: name it too, if it holds policies",
            folder.display()
        ))?;
    }
    let sources = policies::read(&config.policies)?;
    // Here the problems are the result, for a pager or a file; elsewhere they are an error.
    let mut stdout = output::stdout();
    let set = match PolicySet::compile(&sources, config.settings) {
        Ok(set) => set,
        Err(problems) => {
            let bad = BadPolicies::new(&problems, &sources);
            stdout.write_all(bad.report().as_bytes())?;
            anyhow::bail!("{bad}");
        }
    };
    stdout.write_all(draw(set.notes(), &sources).as_bytes())?;
    let count = plural(set.policies().len(), "policy");
    writeln!(stdout, "{count}, digest {}", set.digest())?;
    Ok(Status::Fine)
}

/// The folders in policy folders, which are not read. Hidden ones are of ConfigMap mounts and of tools.
/// What cannot be listed is said when it is read.
fn subfolders(location: &Location) -> Vec<PathBuf> {
    let Location::Folders { paths, .. } = location else { return Vec::new() };
    let mut found: Vec<PathBuf> = paths
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && !paths.contains(path))
        .collect();
    found.sort();
    found
}

/// A policy in the list; the keys are a contract.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    device: &'a str,
    policy: &'a str,
    description: &'a str,
    modes: Vec<&'a str>,
    /// Those that no pod gets until an `allow` rule names them.
    privileged_modes: Vec<&'a str>,
    default_mode: &'a str,
    count: schema::Count,
    enforcement: schema::Enforcement,
    file: &'a str,
}

fn list(arguments: &List) -> anyhow::Result<Status> {
    let set = compile(&arguments.policy.load()?)?;
    let listed: Vec<Listed<'_>> = set.policies().iter().map(Listed::of).collect();
    let mut stdout = output::stdout();
    match arguments.output {
        ListFormat::Json => output::json(&mut stdout, &listed)?,
        ListFormat::Table => table(&mut stdout, &listed)?,
    }
    Ok(Status::Fine)
}

impl<'a> Listed<'a> {
    fn of(policy: &'a CompiledPolicy) -> Self {
        let spec = policy.spec();
        Self {
            device: &spec.device,
            policy: policy.name(),
            description: &spec.description,
            modes: spec.modes.keys().map(String::as_str).collect(),
            privileged_modes: spec
                .modes
                .iter()
                .filter(|(_, mode)| mode.privileged)
                .map(|(name, _)| name.as_str())
                .collect(),
            default_mode: &spec.default_mode,
            count: spec.count,
            enforcement: spec.enforcement,
            file: policy.file(),
        }
    }

    /// All cells but the modes.
    fn row(&self) -> [String; 5] {
        let count = match self.count {
            schema::Count { default: 1, max: 1 } => "1".to_owned(),
            schema::Count { default, max } => format!("{default} (max {max})"),
        };
        [
            self.device.to_owned(),
            self.policy.to_owned(),
            count,
            format!("{:?}", self.enforcement),
            self.file.to_owned(),
        ]
    }

    /// The modes in lines, the default one and the privileged ones marked, the default one first.
    fn mode_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let marked = |mode: &str| {
            let mark = if self.privileged_modes.contains(&mode) { "!" } else { "" };
            format!("{mode}{mark}")
        };
        let mut line = format!("{}*", marked(self.default_mode));
        for mode in self.modes.iter().filter(|mode| **mode != self.default_mode) {
            let mode = marked(mode);
            if line.len() + 1 + mode.len() > MODES_WIDTH {
                lines.push(std::mem::replace(&mut line, mode));
            } else {
                line = format!("{line} {mode}");
            }
        }
        lines.push(line);
        lines
    }
}

/// How wide the column of modes gets: a GPU policy has dozens.
const MODES_WIDTH: usize = 60;

fn table(out: &mut impl Write, policies: &[Listed<'_>]) -> anyhow::Result<()> {
    let head = ["DEVICE", "POLICY", "COUNT", "ENFORCEMENT", "FILE"].map(str::to_owned);
    let rows: Vec<[String; 5]> = policies.iter().map(Listed::row).collect();
    let mut widths = [0; 5];
    for row in rows.iter().chain([&head]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ")
    };
    writeln!(out, "{TITLE}{}  MODES (* default, ! only by name in `allow`){TITLE:#}", line(&head))?;
    let nothing = line(&Default::default());
    for (row, policy) in rows.iter().zip(policies) {
        for (index, modes) in policy.mode_lines().iter().enumerate() {
            let cells = if index == 0 { line(row) } else { nothing.clone() };
            writeln!(out, "{cells}  {modes}")?;
        }
    }
    Ok(())
}

fn show(arguments: &Show) -> anyhow::Result<Status> {
    let set = compile(&arguments.policy.load()?)?;
    let name = arguments.name.as_str();
    let policies = set.policies();
    let found = policies
        .iter()
        .find(|policy| policy.spec().device == name)
        .or_else(|| policies.iter().find(|policy| policy.name() == name));
    let Some(policy) = found else {
        let names: Vec<&str> =
            policies.iter().map(|policy| policy.spec().device.as_str()).collect();
        let all = names.iter().copied().chain(policies.iter().map(CompiledPolicy::name));
        let near = spelling::nearest(name, all).map(|near| format!("; did you mean `{near}`"));
        bail!(
            "no policy for the device `{name}`{}; there is {}",
            near.unwrap_or_default(),
            spelling::list(names)
        );
    };
    let document = schema::DevicePolicy {
        api_version: schema::ApiVersion::V1Alpha1,
        kind: schema::Kind::DevicePolicy,
        metadata: schema::Metadata { name: policy.name().to_owned() },
        spec: policy.spec().clone(),
    };
    let mut stdout = output::stdout();
    match arguments.output {
        ShowFormat::Json => output::json(&mut stdout, &document)?,
        ShowFormat::Yaml => stdout.write_all(output::yaml(&document)?.as_bytes())?,
    }
    Ok(Status::Fine)
}

fn print_schema() -> anyhow::Result<Status> {
    output::json(&mut output::stdout(), &json_schema())?;
    Ok(Status::Fine)
}
