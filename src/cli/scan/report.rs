//! What was seen, in rows: those of the same owner that are alike are one.

use std::collections::BTreeMap;

use serde::Serialize;

use super::owner::Owner;
use crate::decision::finding::Code;

/// What a container of today would become, if its namespace opted in and its pod asked for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Becomes {
    /// The hostPath goes, and `privileged` with it.
    Rewrite,
    /// The same, and the annotation is there already.
    AsksAlready,
    /// It would be granted the device, and keep what it has; or it is not advised to ask.
    Keeps,
    /// The pod would be refused.
    Denied,
    /// It has devices of the node that no policy names.
    NoPolicy,
    /// It is privileged, and nothing says for which device.
    NoDevice,
    /// Devgrant leaves its pod alone, whatever it asks.
    NeverTouched,
}

impl Becomes {
    /// As people read it.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Rewrite => "rewrite",
            Self::AsksAlready => "asks already",
            Self::Keeps => "keeps",
            Self::Denied => "denied",
            Self::NoPolicy => "no policy",
            Self::NoDevice => "no device",
            Self::NeverTouched => "never touched",
        }
    }
}

/// Containers of an owner's pods that are alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) namespace: String,
    pub(super) owner: Owner,
    /// The containers, init containers first.
    pub(super) containers: Vec<String>,
    pub(super) privileged: bool,
    /// The devices of the node that are mounted, in the order of the mounts.
    pub(super) host_paths: Vec<String>,
    /// The devices of policies that these are.
    pub(super) devices: Vec<String>,
    pub(super) becomes: Becomes,
    /// Why it becomes nothing better; of a rewrite what to look at before, mostly nothing.
    pub(super) why: String,
    /// What the pod, or its template, would have to say.
    pub(super) annotations: BTreeMap<String, String>,
    /// What to look at before: findings about the container as it will be.
    pub(super) findings: Vec<Code>,
}

/// How many pods and templates have a row.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Counts {
    pub(super) pods: usize,
    pub(super) templates: usize,
}

/// What is to be said of one pod.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) rows: Vec<Row>,
    pub(super) privileged: bool,
    /// Whether a device of the node, or all of them, is mounted.
    pub(super) with_device: bool,
}

/// Numbers of pods and templates. One with several containers can count for several outcomes.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    pub(super) pods: usize,
    pub(super) templates: usize,
    pub(super) privileged: usize,
    pub(super) with_device: usize,
    pub(super) rewrite: usize,
    pub(super) asks_already: usize,
    pub(super) keeps: usize,
    pub(super) denied: usize,
    pub(super) no_policy: usize,
    pub(super) no_device: usize,
    pub(super) never_touched: usize,
    pub(super) unreadable: usize,
}

/// All that was seen.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) rows: BTreeMap<Row, Counts>,
    pub(super) summary: Summary,
    /// Whether namespaces with rows have opted in; empty where there is no cluster to say it.
    pub(super) opted_in: BTreeMap<String, bool>,
}

impl Report {
    /// Adds a pod, or the template of one.
    pub(super) fn add(&mut self, seen: Seen, is_template: bool) {
        let summary = &mut self.summary;
        *(if is_template { &mut summary.templates } else { &mut summary.pods }) += 1;
        summary.privileged += usize::from(seen.privileged);
        summary.with_device += usize::from(seen.with_device);
        for (becomes, count) in [
            (Becomes::Rewrite, &mut summary.rewrite),
            (Becomes::AsksAlready, &mut summary.asks_already),
            (Becomes::Keeps, &mut summary.keeps),
            (Becomes::Denied, &mut summary.denied),
            (Becomes::NoPolicy, &mut summary.no_policy),
            (Becomes::NoDevice, &mut summary.no_device),
            (Becomes::NeverTouched, &mut summary.never_touched),
        ] {
            *count += usize::from(seen.rows.iter().any(|row| row.becomes == becomes));
        }
        for row in seen.rows {
            let counts = self.rows.entry(row).or_default();
            *(if is_template { &mut counts.templates } else { &mut counts.pods }) += 1;
        }
    }

    /// The namespaces that would have to opt in for a rewrite, where a cluster says that they have not.
    pub(super) fn to_opt_in(&self) -> Vec<&str> {
        let waits = |name: &str| {
            self.rows.keys().any(|row| {
                row.namespace == name
                    && matches!(row.becomes, Becomes::Rewrite | Becomes::AsksAlready)
            })
        };
        let names = self.opted_in.iter().filter(|(name, opted_in)| !**opted_in && waits(name));
        names.map(|(name, _)| name.as_str()).collect()
    }
}
