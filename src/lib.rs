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
//! what an operator set.
//!
//! Reading order: [`decision`] (its page names the rooms), then [`server`], then [`cli`].

pub mod cli;
pub mod config;
pub mod decision;
pub mod metrics;
pub mod policies;
pub mod server;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
