//! Devgrant: a mutating admission webhook that grants pods devices without `privileged` and without
//! `hostPath`.
//!
//! The heart is **the line**, a chain of synchronous, pure functions in [`decision`]:
//!
//! ```text
//! bytes ─► Review ─► Request ─► Verdict ─► Patch ─► AdmissionReview ─► bytes
//!      decode    facts     decide     render    answer
//! ```
//!
//! Everything else is the shell around it: [`server`] and [`tls`] carry bytes to it over HTTPS,
//! [`cli`] runs the same line over files, [`policies`] reads policy files from disk, [`config`] says
//! what an operator set, [`registration`] makes the objects that bring it into a cluster, [`traces`] sends
//! spans of reviews.
//!
//! ```
//! use devgrant::decision::{Namespace, PolicySet, PolicySource, Review, Settings, admit};
//!
//! let file = PolicySource {
//!     file: "fuse.yaml".to_owned(),
//!     text: include_str!("../policies/fuse.yaml").to_owned(),
//! };
//! let policies = PolicySet::compile(&[file], Settings::default()).expect("it is shipped");
//! let review = Review::decode(include_bytes!("../examples/review.json")).expect("it is a review");
//! let namespace = Namespace {
//!     name: review.namespace().into_owned(),
//!     labels: [("devices.example/grant".to_owned(), "enabled".to_owned())].into(),
//! };
//! let admission = admit(&review, &policies, Some(&namespace)).expect("it can be decided");
//! assert!(admission.allowed);
//! assert!(admission.operations.iter().any(|operation| {
//!     operation.path() == "/spec/containers/0/resources/limits"
//! }));
//! ```
//!
//! Reading order: [`decision`] (its page names the rooms), then [`server`], then [`cli`].

pub mod cli;
pub mod cluster;
pub mod config;
pub mod decision;
pub mod metrics;
pub mod policies;
pub mod registration;
pub mod server;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod traces;
