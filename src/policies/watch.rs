//! Policies that change under a running server: swapped whole, or not at all.
//!
//! The folders are read again on a timer and compared by what is in them. Nothing is gained by inotify:
//! the kubelet itself syncs a ConfigMap only about once a minute (`kubernetes pkg/kubelet/apis/config`,
//! `SyncFrequency`), a watch on the files is lost when it swaps `..data`, and a node that has run out of
//! inotify instances is a known outage, in which a server that must watch does not start.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::Location;
use crate::decision::policy::problem::{Problem, Severity};
use crate::decision::{PolicySet, PolicySource, Settings};
use crate::server::LivePolicies;

/// Keeps the policies in force those of their folders.
#[derive(Debug)]
pub struct Watch {
    location: Location,
    settings: Settings,
    policies: Arc<LivePolicies>,
    /// What was last put in force or refused, so that neither is done again at every look.
    seen: Option<Reading>,
}

/// What one look at the folders found: the files, or why they cannot be read.
type Reading = Result<Vec<PolicySource>, String>;

impl Watch {
    /// Watches the place that the policies in force were read from.
    pub fn new(location: Location, settings: Settings, policies: Arc<LivePolicies>) -> Self {
        Self { location, settings, policies, seen: None }
    }

    /// Looks every ten seconds, without end. Policies that are built in do not change.
    pub async fn run(mut self) {
        if self.location == Location::Shipped {
            std::future::pending::<()>().await;
        }
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look().await;
        }
    }

    /// Looks once: a set that is new is put in force, and a bad one is refused with the last good one kept.
    pub async fn look(&mut self) {
        let Some(reading) = self.settled().await else {
            tracing::warn!("the policy files are being written; read again later");
            return;
        };
        if self.seen.as_ref() == Some(&reading) {
            return;
        }
        match self.compiled(reading.clone()).await {
            Ok(new) => self.take(new),
            Err(problem) => self.policies.refuse(problem),
        }
        self.seen = Some(reading);
    }

    /// What two readings in a row agree on. A single one may have seen the first file before a swap of
    /// `..data` and the second one after it, or half of what somebody copies.
    async fn settled(&self) -> Option<Reading> {
        let mut last = self.read().await;
        if self.seen.as_ref() == Some(&last) {
            return Some(last);
        }
        for _ in 0..READINGS {
            tokio::time::sleep(PAUSE).await;
            let next = self.read().await;
            if next == last {
                return Some(next);
            }
            last = next;
        }
        None
    }

    async fn read(&self) -> Reading {
        let location = self.location.clone();
        let read = move || super::read(&location).map_err(|error| in_one_line(&error));
        // A panic there is a bug, which its own log line tells of.
        tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(error.to_string()))
    }

    async fn compiled(&self, reading: Reading) -> Result<PolicySet, String> {
        let sources = reading?;
        let settings = self.settings.clone();
        let compile = move || {
            PolicySet::compile(&sources, settings).map_err(|problems| first(&problems, &sources))
        };
        tokio::task::spawn_blocking(compile).await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Comments and layout change no decision, and so no policy set.
    fn take(&self, new: PolicySet) {
        let same = new.digest() == self.policies.current().digest();
        if !same || self.policies.refused().is_some() {
            self.policies.replace(new);
        }
    }
}

fn in_one_line(error: &super::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// The first error, with its place, and how many more there are.
fn first(problems: &[Problem], sources: &[PolicySource]) -> String {
    let mut errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
    let Some(problem) = errors.next() else {
        return "the policies cannot be used".to_owned();
    };
    let text = sources.iter().find(|source| source.file == problem.file);
    let before = text.and_then(|source| source.text.get(..problem.span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let more = match errors.count() {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let sentence = format!("{}:{line}: {}{more}", problem.file, problem.message);
    format!("{sentence}; `devgrant policy check FOLDER` shows all")
}

/// How often the folders are read. A few files cost some hundred microseconds.
const EVERY: Duration = Duration::from_secs(10);
/// How long files must stay as they are.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a look reads again, in the hope that files stay as they are.
const READINGS: usize = 5;
