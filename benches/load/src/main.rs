//! The load harness: starts servers as processes, drives them with one client in turns, and prints what each
//! costs as a ratio to a server that does nothing, with its spread over the rounds.
//!
//! Run it by `benches/load/run`, which builds everything. `--only load,growth` takes some of the parts.

mod client;
mod picture;
mod report;
mod server;
mod versions;

#[path = "../../support/reviews.rs"]
mod reviews;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use clap::Parser;
use serde_json::Value;

use client::{Client, From, Run};
use report::{Report, Row};
use reviews::{Annotated, FIFTY, LARGE, ONE, ORDINARY, SMALL, Size, review};
use server::{Kind, Programs, Server, Tls};

#[derive(Parser)]
struct Arguments {
    /// How often each server is driven with each load, in turns.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Reviews of one turn; a quarter of that over one connection.
    #[arg(long, default_value_t = 20_000)]
    reviews: usize,
    /// Reviews of the memory part.
    #[arg(long, default_value_t = 1_000_000)]
    memory_reviews: usize,
    /// Parts: start, load, growth, burst, memory.
    #[arg(long, value_delimiter = ',', default_value = "start,load,growth,burst,memory")]
    only: Vec<String>,
    /// Servers beside null and devgrant.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "devgrant-quiet,kube-rs,controller-runtime"
    )]
    peers: Vec<String>,
    /// Where the programs are.
    #[arg(long, default_value = "target")]
    builds: PathBuf,
    /// Another devgrant than that of the image, which is in `load` there.
    #[arg(long)]
    devgrant: Option<PathBuf>,
    /// Where result.json, table.txt, table.md and picture.svg go.
    #[arg(long, default_value = "target/load")]
    out: PathBuf,
    /// Measure nothing: make the tables and the picture again from result.json.
    #[arg(long)]
    again: bool,
}

/// What all parts need.
struct Bench {
    arguments: Arguments,
    client: Client,
    tls: Tls,
    report: Report,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let out = arguments.out.clone();
    if arguments.again {
        let report = serde_json::from_str(&fs::read_to_string(out.join("result.json"))?)?;
        return show(&report, &out);
    }
    versions::same()?;
    fs::create_dir_all(&out)?;
    let scratch = tempfile::tempdir()?;
    let (tls, pem) = Tls::make(scratch.path())?;
    let report = Report::new(arguments.rounds, arguments.reviews);
    let mut bench = Bench { arguments, client: Client::trusting(&pem)?, tls, report };
    for part in bench.arguments.only.clone() {
        match part.as_str() {
            "start" => bench.start(scratch.path()).await?,
            "load" => bench.load().await?,
            "growth" => bench.growth(scratch.path()).await?,
            "burst" => bench.burst().await?,
            "memory" => bench.memory().await?,
            other => bail!("no part is called `{other}`: start, load, growth, burst, memory"),
        }
        // A run that is cut off has what it got so far.
        fs::write(out.join("result.json"), serde_json::to_string_pretty(&bench.report)? + "\n")?;
        show(&bench.report, &out)?;
    }
    print!("{}", bench.report.table());
    Ok(())
}

/// Writes what people read.
fn show(report: &Report, out: &Path) -> anyhow::Result<()> {
    fs::write(out.join("table.txt"), report.table())?;
    fs::write(out.join("table.md"), report.markdown())?;
    fs::write(out.join("picture.svg"), picture::draw(report))?;
    Ok(())
}

/// The three pods that servers are compared by.
const KINDS: [(&str, Annotated); 3] = [
    ("unannotated", Annotated::Never),
    ("annotated elsewhere", Annotated::Elsewhere),
    ("fuse grant", Annotated::Asking),
];

impl Bench {
    async fn serve(&self, kind: Kind) -> anyhow::Result<Server> {
        let review = review(SMALL, Annotated::Asking);
        Server::start(kind, &self.programs(), &self.tls, &self.client, &review).await
    }

    fn programs(&self) -> Programs {
        let builds = self.arguments.builds.clone();
        let devgrant = self.arguments.devgrant.clone();
        Programs { devgrant: devgrant.unwrap_or_else(|| builds.join("load/devgrant")), builds }
    }

    fn kinds(&self) -> Vec<Kind> {
        let mut kinds = vec![Kind::Null, Kind::Devgrant(None)];
        let peers = [Kind::Quiet, Kind::KubeRs, Kind::ControllerRuntime];
        kinds.extend(
            peers
                .into_iter()
                .filter(|kind| self.arguments.peers.iter().any(|named| named == kind.name())),
        );
        kinds
    }

    async fn servers(&self) -> anyhow::Result<Vec<Server>> {
        let mut servers = Vec::new();
        for kind in self.kinds() {
            servers.push(self.serve(kind).await?);
        }
        Ok(servers)
    }

    /// From the start of a process to its first answer.
    async fn start(&mut self, scratch: &Path) -> anyhow::Result<()> {
        let mut named: Vec<_> =
            self.kinds().into_iter().map(|kind| (kind.name().to_owned(), kind)).collect();
        let thousand = policies(scratch, 1000)?;
        named.push(("devgrant, 1000 policies".to_owned(), Kind::Devgrant(Some(thousand))));
        let mut times = vec![Vec::new(); named.len()];
        for _ in 0..self.arguments.rounds {
            for ((_, kind), times) in named.iter().zip(&mut times) {
                times.push(self.serve(kind.clone()).await?.ready.as_secs_f64() * 1e3);
            }
        }
        for ((name, _), values) in named.iter().zip(&times) {
            self.report.rows.push(Row::new(
                "start to answer",
                "ms",
                "",
                1,
                name,
                values,
                &times[0],
            ));
        }
        Ok(())
    }

    /// All servers, all pods, at 1, 32 and 64 connections; then their memory.
    async fn load(&mut self) -> anyhow::Result<()> {
        let servers = self.servers().await?;
        let idle = residents(&servers)?;
        for (name, annotated) in KINDS {
            let bytes = Bytes::from(review(ORDINARY, annotated));
            for server in &servers {
                let answer = self.client.once(server.address, &bytes).await?;
                check(server, annotated, &answer).with_context(|| server.kind.name())?;
            }
            for connections in [1, 32, 64] {
                let part = if connections == 1 { 4 } else { 1 };
                let reviews = self.arguments.reviews / part;
                let all = self.turns(&servers, &bytes, connections, reviews).await?;
                self.push(name, connections, &servers, &all);
            }
        }
        let after = residents(&servers)?;
        for (what, values) in [("memory idle", &idle), ("memory after load", &after)] {
            for (server, value) in servers.iter().zip(values) {
                let (value, null) = ([*value], [values[0]]);
                self.report.rows.push(Row::new(
                    what,
                    "MiB",
                    "",
                    0,
                    server.kind.name(),
                    &value,
                    &null,
                ));
            }
        }
        Ok(())
    }

    /// Drives servers in turns, another one first in each round. Gives for each server its rounds.
    async fn turns(
        &self,
        servers: &[Server],
        review: &Bytes,
        connections: usize,
        reviews: usize,
    ) -> anyhow::Result<Vec<Vec<Measured>>> {
        let mut all: Vec<Vec<Measured>> = servers.iter().map(|_| Vec::new()).collect();
        for round in 0..self.arguments.rounds {
            for turn in 0..servers.len() {
                let at = (round + turn) % servers.len();
                all[at]
                    .push(self.turn(&servers[at], review, connections, reviews, From::Sent).await?);
            }
        }
        Ok(all)
    }

    async fn turn(
        &self,
        server: &Server,
        review: &Bytes,
        connections: usize,
        reviews: usize,
        from: From,
    ) -> anyhow::Result<Measured> {
        let mut before = Ok(std::time::Duration::ZERO);
        let run = self
            .client
            .drive(server.address, review, connections, reviews, from, || before = server.cpu())
            .await?;
        let cpu = server.cpu()?.saturating_sub(before?);
        ensure!(from == From::Start || run.lost == 0, "{} lost {}", server.kind.name(), run.lost);
        Ok(Measured { cpu: cpu.as_secs_f64() * 1e6 / reviews as f64, run })
    }

    /// The rows of servers under one load, as ratios to the first of them.
    fn push(&mut self, name: &str, connections: usize, servers: &[Server], all: &[Vec<Measured>]) {
        for (what, unit, of) in MEASURES {
            let values = |rounds: &[Measured]| rounds.iter().map(of).collect::<Vec<_>>();
            let null = values(&all[0]);
            for (server, rounds) in servers.iter().zip(all) {
                let values = values(rounds);
                let row =
                    Row::new(what, unit, name, connections, server.kind.name(), &values, &null);
                self.report.rows.push(row);
            }
        }
    }

    /// Devgrant alone: more policies, larger pods. Ratios are to the first of each.
    async fn growth(&mut self, scratch: &Path) -> anyhow::Result<()> {
        let mut servers = Vec::new();
        let mut names = Vec::new();
        for count in [1, 10, 100, 1000] {
            let folder = policies(scratch, count)?;
            servers.push(self.serve(Kind::Devgrant(Some(folder))).await?);
            names.push(format!("{count} policies"));
        }
        let reviews = self.arguments.reviews / 2;
        for (kind, annotated) in [KINDS[0], KINDS[2]] {
            let bytes = Bytes::from(review(ORDINARY, annotated));
            let all = self.turns(&servers, &bytes, 32, reviews).await?;
            self.grown(&format!("policies, {kind}"), &names, &all);
        }
        drop(servers);
        let server = self.serve(Kind::Devgrant(None)).await?;
        let lists: [(&str, &[(&str, Size)]); 2] = [
            ("size", &[("3 KB", SMALL), ("8.6 KB", ORDINARY), ("50 KB", LARGE)]),
            ("containers", &[("1 container", ONE), ("50 containers", FIFTY)]),
        ];
        for (what, sizes) in lists {
            for (kind, annotated) in [KINDS[0], KINDS[2]] {
                let bodies: Vec<Bytes> =
                    sizes.iter().map(|(_, size)| review(*size, annotated).into()).collect();
                let mut all: Vec<Vec<Measured>> = sizes.iter().map(|_| Vec::new()).collect();
                for _ in 0..self.arguments.rounds {
                    for (body, rounds) in bodies.iter().zip(&mut all) {
                        let reviews = reviews * 8_600 / body.len().max(8_600);
                        rounds.push(self.turn(&server, body, 32, reviews, From::Sent).await?);
                    }
                }
                let names: Vec<_> = sizes
                    .iter()
                    .zip(&bodies)
                    .map(|((name, _), body)| format!("{name} ({} bytes)", body.len()))
                    .collect();
                self.grown(&format!("{what}, {kind}"), &names, &all);
            }
        }
        Ok(())
    }

    fn grown(&mut self, case: &str, names: &[String], all: &[Vec<Measured>]) {
        let cpu = |rounds: &[Measured]| rounds.iter().map(|round| round.cpu).collect::<Vec<_>>();
        let first = cpu(&all[0]);
        for (name, rounds) in names.iter().zip(all) {
            let row = Row::new("growth: CPU a review", "µs", case, 32, name, &cpu(rounds), &first);
            self.report.rows.push(row);
        }
    }

    /// 5,000 reviews that are all due at once, over 64 connections.
    async fn burst(&mut self) -> anyhow::Result<()> {
        let bytes = Bytes::from(review(ORDINARY, Annotated::Asking));
        let servers = self.servers().await?;
        let mut all: Vec<Vec<Measured>> = servers.iter().map(|_| Vec::new()).collect();
        for _ in 0..self.arguments.rounds {
            for (server, rounds) in servers.iter().zip(&mut all) {
                rounds.push(self.turn(server, &bytes, 64, 5_000, From::Start).await?);
            }
        }
        let p99 = |rounds: &[Measured]| {
            rounds
                .iter()
                .map(|round| round.run.quantile(0.99).as_secs_f64() * 1e3)
                .collect::<Vec<_>>()
        };
        let lost = |rounds: &[Measured]| {
            rounds.iter().map(|round| round.run.lost as f64).collect::<Vec<_>>()
        };
        let (null, case) = (p99(&all[0]), "5000 at once");
        for (server, rounds) in servers.iter().zip(&all) {
            let (name, values) = (server.kind.name(), p99(rounds));
            let row = Row::new("burst: p99 from its start", "ms", case, 64, name, &values, &null);
            self.report.rows.push(row);
        }
        for (server, rounds) in servers.iter().zip(&all) {
            let (name, values) = (server.kind.name(), lost(rounds));
            self.report.rows.push(Row::new("burst: lost", "", case, 64, name, &values, &[]));
        }
        Ok(())
    }

    /// Devgrant's memory: idle, after a tenth of the reviews, after all. Ratios are to the tenth.
    async fn memory(&mut self) -> anyhow::Result<()> {
        let bytes = Bytes::from(review(ORDINARY, Annotated::Asking));
        let all = self.arguments.memory_reviews;
        for kind in [Kind::Null, Kind::Devgrant(None)] {
            let server = self.serve(kind).await?;
            let name = server.kind.name();
            let idle = mebibytes(&server)?;
            self.turn(&server, &bytes, 32, all / 10, From::Sent).await?;
            let tenth = mebibytes(&server)?;
            // In parts: the client keeps a latency of each.
            for _ in 0..9 {
                self.turn(&server, &bytes, 32, all / 10, From::Sent).await?;
            }
            let whole = mebibytes(&server)?;
            for (when, value) in [
                ("idle".to_owned(), idle),
                (format!("after {}", all / 10), tenth),
                (format!("after {all}"), whole),
            ] {
                let case = format!("memory of {name}");
                self.report.rows.push(Row::new(
                    "memory, flat?",
                    "MiB",
                    &case,
                    32,
                    &when,
                    &[value],
                    &[tenth],
                ));
            }
        }
        Ok(())
    }
}

/// One turn of one server.
struct Measured {
    /// Microseconds a review.
    cpu: f64,
    run: Run,
}

type Measure = (&'static str, &'static str, fn(&Measured) -> f64);

const MEASURES: [Measure; 4] = [
    ("CPU a review", "µs", |measured| measured.cpu),
    ("p50", "µs", |measured| measured.run.quantile(0.5).as_secs_f64() * 1e6),
    ("p99", "µs", |measured| measured.run.quantile(0.99).as_secs_f64() * 1e6),
    ("p99.9", "µs", |measured| measured.run.quantile(0.999).as_secs_f64() * 1e6),
];

/// A server that did not do the job is not compared.
fn check(server: &Server, annotated: Annotated, answer: &[u8]) -> anyhow::Result<()> {
    if server.kind == Kind::Null {
        return Ok(());
    }
    let answer: Value = serde_json::from_slice(answer)?;
    let response = &answer["response"];
    ensure!(response["allowed"] == true, "refuses: {answer}");
    let asks = annotated == Annotated::Asking;
    // kube-rs writes it as a list of numbers, which an API server reads too.
    ensure!(response["patch"].is_null() != asks, "patches what it should not, or not: {answer}");
    Ok(())
}

fn mebibytes(server: &Server) -> anyhow::Result<f64> {
    Ok(server.resident()? as f64 / 1024.0)
}

fn residents(servers: &[Server]) -> anyhow::Result<Vec<f64>> {
    servers.iter().map(mebibytes).collect()
}

/// A folder with `fuse` and others up to so many.
fn policies(scratch: &Path, count: usize) -> anyhow::Result<PathBuf> {
    let folder = scratch.join(format!("policies-{count}"));
    if !folder.exists() {
        fs::create_dir(&folder)?;
        fs::write(folder.join("fuse.yaml"), include_str!("../../../policies/fuse.yaml"))?;
        for at in 1..count {
            let device = format!("device-{at}");
            fs::write(folder.join(format!("{device}.yaml")), reviews::policy(&device))?;
        }
    }
    Ok(folder)
}
