//! The line: from the bytes of an AdmissionReview to the bytes of its answer.
//!
//! Everything here is a synchronous, pure function: no clock, no client, no lock, no log, no
//! environment (`tests/architecture.rs` holds that). In reading order:
//!
//! - [`glance`](mod@glance): most reviews plainly ask for nothing, and that is all
//! - [`review`]: bytes to a [`Review`], a review with a uid to answer
//! - [`request`]: the facts of one admission
//! - [`annotation`]: what the pod asks for, by annotation
//! - [`policy`]: what may be granted, and to whom
//! - [`pod`]: reading the pod, every container of every kind
//! - [`conflict`] and [`foresee`]: what the pod would be refused for, and what would start and not work,
//!   each by a code of [`finding`]
//! - [`plan`]: the [`Verdict`]: grants in rendering order, or a refusal
//! - [`patch`]: the plan as JSON Patch operations, each applied as it is recorded
//! - [`answer`]: the AdmissionReview that goes back
//! - [`guard`]: the line once more at the end, where nothing may be left to change
//! - [`advice`]: the line for the pods of a [`workload`], in words only
//!
//! Three outcomes, and each says who must act. A **verdict** (HTTP 200 with the uid) is for the
//! pod's author. [`Undecided`] (HTTP 500) is for us, and meanwhile for the operator's
//! `failurePolicy`. [`Unanswerable`] (HTTP 400) is for the caller.

pub mod advice;
pub mod annotation;
pub mod answer;
pub mod ask;
pub mod conflict;
pub mod document;
pub mod finding;
pub mod foresee;
pub mod glance;
pub mod guard;
pub mod line;
pub mod namespace;
pub mod patch;
pub mod path;
pub mod plan;
pub mod pod;
pub mod policy;
pub mod quantity;
pub mod request;
pub mod review;
mod running;
pub mod settings;
pub mod spelling;
pub mod unasked;
pub mod warning;
mod weigh;
pub mod workload;

pub use advice::advise;
pub use answer::Admission;
pub use glance::glance;
pub use guard::validate;
pub use line::{Decision, Undecided, admit, decide};
pub use namespace::Namespace;
pub use plan::{Plan, Reason, Refusal, Verdict};
pub use policy::{PolicySet, PolicySource};
pub use request::Request;
pub use review::{Review, Unanswerable};
pub use settings::{KubernetesVersion, OnInvalid, Settings};
