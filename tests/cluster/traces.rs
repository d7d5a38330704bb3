//! Traces that begin at the API server and go on here.

use libtest_mimic::Trial;

use crate::collector::{Arrived, Collector};
use crate::control_plane::{ControlPlane, Plane};
use crate::requests::asking;
use crate::trial;
use crate::webhook::{Options, Webhook};

pub(crate) fn trials(plane: &Plane) -> Vec<Trial> {
    vec![trial("traces::a_review_is_part_of_the_api_servers_trace", plane, |plane| part(plane))]
}

/// Who creates the pod has no trace, and we begin none of our own: a span that comes has a parent that
/// the API server made.
fn part(plane: &ControlPlane) {
    let collector = Collector::start();
    let serving = ["--traces-endpoint", &collector.url, "--traces-sample", "0"];
    let serving = serving.map(str::to_owned).to_vec();
    let webhook = Webhook::start(plane, &Options { serving, ..Options::default() });
    let namespace = webhook.namespace(plane);
    plane.create(&format!("/api/v1/namespaces/{namespace}/pods"), &asking());
    let of_the_pod = |arrived: &Arrived| arrived.attributes[NAMESPACE] == namespace;
    // Other spans are of the pods by which the registration was seen to be in force.
    let mut spans = std::iter::repeat_with(|| collector.next()).filter(of_the_pod);
    let (mutate, validate) = (spans.next().unwrap(), spans.next().unwrap());
    assert_eq!(mutate.attributes["http.route"], "/mutate");
    assert_eq!(validate.attributes["http.route"], "/validate");
    // One request, and two calls in it.
    assert_eq!(mutate.span.trace_id, validate.span.trace_id);
    assert_ne!(mutate.span.parent_span_id, validate.span.parent_span_id);
    for Arrived { span, resource, .. } in [&mutate, &validate] {
        assert_eq!(resource["service.name"], "devgrant");
        assert_eq!(span.parent_span_id.len(), 8, "{span:?}");
        // Sampled, and its parent is elsewhere: OTLP `SpanFlags`.
        assert_eq!(span.flags, 0x301, "{span:?}");
    }
    let more: Vec<Arrived> = collector.rest().into_iter().filter(of_the_pod).collect();
    assert!(more.is_empty(), "one span a review: {more:?}");
}

const NAMESPACE: &str = "devgrant.review.namespace";
