//! policy: what may be granted, and to whom.
//!
//! A [`PolicySet`] that exists is valid: everything that can be refused without a pod is refused by
//! [`PolicySet::compile`], all problems of all files at once, each with its place.
//!
//! - [`schema`]: the shape of a file, from which `policies/schema.json` is generated
//! - `tree`, `shape`: a file with places, and whether it has that shape
//! - `compile`, `check`: what the shape cannot say
//! - [`select`]: who may ask for what
//! - [`problem`]: what is wrong, and where

mod check;
mod compile;
mod name;
pub mod problem;
pub mod schema;
pub mod select;
mod shape;
mod tree;

pub use compile::{Policy, PolicySet, PolicySource, json_schema};
pub use name::is_dns_subdomain;
