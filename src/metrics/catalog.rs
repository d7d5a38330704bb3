//! What is declared of every metric: the page about them, dashboards and alerts are held to it.

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::BadMetric;

/// A metric as it is declared, whether it has been counted yet or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// The full name.
    pub name: String,
    /// What may be computed of it.
    pub kind: Kind,
    /// The labels, in the order of the declaration.
    pub labels: Vec<Label>,
    /// The sentence that `/metrics` has for it.
    pub help: String,
}

/// What may be computed of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows, and is asked for its rate.
    Counter,
    /// A value of now.
    Gauge,
    /// Counters of durations by bucket, whose sum and count have names of their own.
    Histogram,
}

/// A label of a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub values: Values,
}

/// What a label may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Values {
    /// One of these, which are fixed text of ours.
    Closed(Vec<&'static str>),
    /// Whatever policies or the build name; this says what.
    Open(&'static str),
}

impl Kind {
    /// The word of Prometheus' text format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Label {
    /// A label with these values and no others.
    pub(super) fn closed(
        name: &'static str,
        values: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        Self { name, values: Values::Closed(values.into_iter().collect()) }
    }

    /// A label that `what` gives its values.
    pub(super) fn open(name: &'static str, what: &'static str) -> Self {
        Self { name, values: Values::Open(what) }
    }
}

/// Makes metrics, and remembers what it made.
#[derive(Debug)]
pub(super) struct Catalog {
    pub(super) registry: Registry,
    pub(super) declared: Vec<Declared>,
}

impl Catalog {
    pub(super) fn new() -> Self {
        Self { registry: Registry::new(), declared: Vec::new() }
    }

    pub(super) fn counter(&mut self, name: &str, help: &str) -> Result<IntCounter, BadMetric> {
        let counter = IntCounter::with_opts(opts(name, help))?;
        self.add(counter, Kind::Counter, &[])
    }

    /// Where there is one label, and its values are known, all are there from the start: a counter that
    /// comes to be at 1 has not increased, as Prometheus sees it, and no alert would tell of it.
    pub(super) fn counters(
        &mut self,
        name: &str,
        help: &str,
        labels: &[Label],
    ) -> Result<IntCounterVec, BadMetric> {
        let counters = IntCounterVec::new(opts(name, help), &names(labels))?;
        if let [Label { values: Values::Closed(values), .. }] = labels {
            for value in values {
                counters.with_label_values(&[value]).reset();
            }
        }
        self.add(counters, Kind::Counter, labels)
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Result<IntGauge, BadMetric> {
        self.add(IntGauge::with_opts(opts(name, help))?, Kind::Gauge, &[])
    }

    /// Absent until a value is known.
    pub(super) fn gauges(
        &mut self,
        name: &str,
        help: &str,
        labels: &[Label],
    ) -> Result<IntGaugeVec, BadMetric> {
        let gauges = IntGaugeVec::new(opts(name, help), &names(labels))?;
        self.add(gauges, Kind::Gauge, labels)
    }

    pub(super) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, BadMetric> {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(opts)?, Kind::Histogram, &[])
    }

    fn add<C: Collector + Clone + 'static>(
        &mut self,
        metric: C,
        kind: Kind,
        labels: &[Label],
    ) -> Result<C, BadMetric> {
        self.registry.register(Box::new(metric.clone()))?;
        self.declared.extend(metric.desc().into_iter().map(|known| Declared {
            name: known.fq_name.clone(),
            kind,
            labels: labels.to_vec(),
            help: known.help.clone(),
        }));
        Ok(metric)
    }
}

fn names(labels: &[Label]) -> Vec<&'static str> {
    labels.iter().map(|label| label.name).collect()
}

const NAMESPACE: &str = "devgrant";

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(NAMESPACE)
}
