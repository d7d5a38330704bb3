//! What was measured, as JSON and as one table. No number stands without its ratio.

use std::fmt::Write as _;
use std::process::Command;

use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub header: Vec<(String, String)>,
    pub rows: Vec<Row>,
}

/// One measure of one server under one load.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    pub measure: String,
    pub unit: String,
    pub case: String,
    pub connections: usize,
    pub server: String,
    /// Over the rounds.
    pub value: Spread,
    /// Over the rounds, each round to the same round of what it is compared with.
    pub ratio: Option<Spread>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let median = *sorted.get(sorted.len() / 2)?;
        Some(Self { min: *sorted.first()?, median, max: *sorted.last()? })
    }
}

impl Row {
    pub fn new(
        measure: &str,
        unit: &str,
        case: &str,
        connections: usize,
        server: &str,
        values: &[f64],
        compared: &[f64],
    ) -> Self {
        let ratios: Vec<_> = values.iter().zip(compared).map(|(value, to)| value / to).collect();
        Self {
            measure: measure.to_owned(),
            unit: unit.to_owned(),
            case: case.to_owned(),
            connections,
            server: server.to_owned(),
            value: Spread::of(values).unwrap_or(Spread { min: 0.0, median: 0.0, max: 0.0 }),
            ratio: Spread::of(&ratios),
        }
    }
}

impl Report {
    pub fn new(rounds: usize, reviews: usize) -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let header = [
            ("date", said("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
            ("commit", said("git", &["describe", "--always", "--dirty"])),
            ("rustc", said("rustc", &["--version"])),
            ("go", said("go", &["version"])),
            ("kernel", said("uname", &["-sr"])),
            ("processors", cores.to_string()),
            ("load before (1, 5, 15 minutes)", load),
            ("rounds", rounds.to_string()),
            ("reviews a turn", reviews.to_string()),
        ];
        let header = header.map(|(name, value)| (name.to_owned(), value)).into();
        Self { header, rows: Vec::new() }
    }

    /// One table of everything.
    pub fn table(&self) -> String {
        let mut out = String::new();
        for (name, value) in &self.header {
            let _ = writeln!(out, "{name}: {value}");
        }
        let _ = writeln!(
            out,
            "\n{:<26} {:<30} {:>5}  {:<28} {:>18}  {:>8} {:>8} {:>8}",
            "measure", "load", "conns", "server", "median", "ratio", "min", "max"
        );
        let mut last = None;
        for row in &self.rows {
            let group = (&row.measure, &row.case, row.connections);
            if last.is_some_and(|last| last != group) {
                out.push('\n');
            }
            last = Some(group);
            let connections =
                if row.connections == 0 { String::new() } else { row.connections.to_string() };
            let value = format!("{:.1} {}", row.value.median, row.unit);
            let _ = write!(
                out,
                "{:<26} {:<30} {connections:>5}  {:<28} {value:>18}",
                row.measure, row.case, row.server
            );
            if let Some(ratio) = row.ratio {
                let _ =
                    write!(out, "  {:>8.2} {:>8.2} {:>8.2}", ratio.median, ratio.min, ratio.max);
            }
            out.push('\n');
        }
        out
    }
}

/// What a command says in one line.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|_| "unknown".to_owned())
}
