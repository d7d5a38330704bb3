//! The queue of spans, and the task that sends them.
//!
//! The SDK's own batch processor has a thread, and tells nobody of what it drops.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::Context;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::collector::{Client, Rejected, Trouble};
use crate::metrics::Metrics;

/// Where a span goes when its review is answered. It never waits: a span that has no place is dropped,
/// and counted.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    metrics: Arc<Metrics>,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.metrics.spans_dropped(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The task that sends spans.
#[derive(Debug)]
pub struct Export {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

/// A queue, and the task that empties it.
pub(super) fn start(client: Client, resource: &Resource, metrics: Arc<Metrics>) -> (Queue, Export) {
    let (sender, spans) = mpsc::channel(QUEUE);
    let (stop, stopping) = watch::channel(false);
    let queue = Queue { spans: sender, metrics: Arc::clone(&metrics) };
    let sending =
        Sending { spans, stopping, client, resource: resource.into(), metrics, works: None };
    (queue, Export { task: tokio::spawn(sending.run()), stop })
}

impl Export {
    /// Sends what is in the queue, and waits 2 s at most for it.
    pub async fn finish(mut self) {
        self.stop.send_replace(true);
        if timeout(PARTING, &mut self.task).await.is_err() {
            self.task.abort();
            tracing::warn!("the last spans could not be sent within {PARTING:?}, and are lost");
        }
    }
}

struct Sending {
    spans: mpsc::Receiver<SpanData>,
    stopping: watch::Receiver<bool>,
    client: Client,
    resource: ResourceAttributesWithSchema,
    metrics: Arc<Metrics>,
    /// Whether the collector took what it got last; `None` before it got anything.
    works: Option<bool>,
}

impl Sending {
    async fn run(mut self) {
        while let Some(batch) = self.next().await {
            self.deliver(batch).await;
        }
    }

    /// The next spans: as many as go into one request, or those of [`DELAY`]. None when all are sent that
    /// were there at the end.
    async fn next(&mut self) -> Option<Vec<SpanData>> {
        let mut batch = Vec::new();
        let Self { spans, stopping, .. } = self;
        let gathering = async {
            // Nobody is left to send any, once it gives none.
            let some = spans.recv_many(&mut batch, BATCH).await > 0;
            let more = async {
                while let room @ 1.. = BATCH.saturating_sub(batch.len())
                    && spans.recv_many(&mut batch, room).await > 0
                {}
            };
            // Late or full, it is a batch.
            let _ = timeout(DELAY, more).await;
            some
        };
        let serving = tokio::select! {
            some = gathering => some,
            () = asked(stopping) => false,
        };
        if !serving {
            while batch.len() < BATCH
                && let Ok(span) = spans.try_recv()
            {
                batch.push(span);
            }
        }
        (!batch.is_empty()).then_some(batch)
    }

    /// Sends a batch, for as long as the collector only needs time. The queue fills up meanwhile, and what
    /// has no place in it is dropped: the oldest spans are those that say what happened first.
    async fn deliver(&mut self, batch: Vec<SpanData>) {
        let spans = u64::try_from(batch.len()).unwrap_or_default();
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let body = Bytes::from(ExportTraceServiceRequest { resource_spans }.encode_to_vec());
        let mut pause = FIRST_PAUSE;
        loop {
            // Looked at before the try, so that who is asked to stop while it waits tries once more.
            let last = *self.stopping.borrow();
            let (dropped, trouble) = match self.client.post(body.clone()).await {
                Ok(Rejected { spans: 0, .. }) => (0, None),
                Ok(Rejected { spans: rejected, message }) => {
                    let trouble = format!("it rejected {rejected} of {spans} spans: {message}");
                    (rejected.min(spans), Some(trouble))
                }
                Err(Trouble::Lasting(trouble)) => (spans, Some(trouble)),
                Err(Trouble::Passing(trouble)) if last => (spans, Some(trouble)),
                Err(Trouble::Passing(trouble)) => {
                    self.tell(Some(&trouble));
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = asked(&mut self.stopping) => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            };
            self.metrics.spans_dropped(dropped);
            return self.tell(trouble.as_deref());
        }
    }

    /// Says it when the collector begins to take spans, or no longer does.
    fn tell(&mut self, trouble: Option<&str>) {
        let collector = self.client.collector.to_string();
        match trouble {
            Some(error) if self.works != Some(false) => tracing::warn!(
                collector,
                error,
                "the collector does not take spans; look at it and at tracesEndpoint; reviews go on"
            ),
            None if self.works != Some(true) => {
                tracing::info!(collector, "the collector takes spans");
            }
            _ => {}
        }
        self.works = Some(trouble.is_none());
    }
}

/// Waits until the task shall end; who could say so and is gone has said it. Cancellation-safe.
async fn asked(stopping: &mut watch::Receiver<bool>) {
    // The error says that nobody is left to ask.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// How many spans wait; as many as the SDK's own processor keeps (OpenTelemetry specification, "Batching
/// processor"). One is about 1 KiB, and no more than a few: every text in it is bounded.
const QUEUE: usize = 2048;
/// How many spans go into one request.
const BATCH: usize = 512;
/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long the end waits for the collector. With the delay and the drain before it, it stays below the
/// time after which the kubelet kills.
const PARTING: Duration = Duration::from_secs(2);
