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

impl Report {
    /// The same for `BENCHMARKS.md`: a line for each load, a column for each server.
    pub fn markdown(&self) -> String {
        let mut groups: Vec<Vec<&Row>> = Vec::new();
        for row in &self.rows {
            match groups.iter_mut().find(|group| group[0].is_with(row)) {
                Some(group) => group.push(row),
                None => groups.push(vec![row]),
            }
        }
        let (compared, others): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|group| group[0].server == "null");
        let mut servers: Vec<&str> = Vec::new();
        for row in compared.iter().flatten() {
            if !servers.contains(&row.server.as_str()) {
                servers.push(&row.server);
            }
        }
        let mut out =
            format!("| | {} |\n| --- |{}\n", servers.join(" | "), " ---: |".repeat(servers.len()));
        for group in &compared {
            let _ = write!(out, "| {} |", group[0].load());
            for server in &servers {
                let cell = group.iter().find(|row| row.server == *server);
                let _ = write!(out, " {} |", cell.map_or(String::new(), |row| row.cell()));
            }
            out.push('\n');
        }
        out += "\n| | | |\n| --- | --- | ---: |\n";
        for row in others.iter().flatten() {
            let _ = writeln!(out, "| {} | {} | {} |", row.load(), row.server, row.cell());
        }
        out
    }
}

impl Row {
    /// Whether both are of one load, and so are compared.
    fn is_with(&self, other: &Self) -> bool {
        let of = |row: &Self| (row.measure.clone(), row.case.clone(), row.connections);
        of(self) == of(other)
    }

    fn load(&self) -> String {
        let connections = match self.connections {
            0 => String::new(),
            1 => ", 1 connection".to_owned(),
            many => format!(", {many} connections"),
        };
        let case = if self.case.is_empty() { String::new() } else { format!(", {}", self.case) };
        format!("{}{case}{connections}", self.measure)
    }

    /// The ratio and its spread; of what is compared with, the value.
    fn cell(&self) -> String {
        let value = format!("{:.1} {}", self.value.median, self.unit).trim_end().to_owned();
        match self.ratio {
            Some(_) if self.server == "null" => value,
            Some(ratio) if (ratio.max - ratio.min).abs() < f64::EPSILON => {
                format!("{:.2} ({value})", ratio.median)
            }
            Some(ratio) => format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.min, ratio.max),
            None => value,
        }
    }
}

/// What a command says in one line.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|_| "unknown".to_owned())
}
