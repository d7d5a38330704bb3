//! What a person should know of the cluster's side, for the log and `/readyz?verbose`.

use arc_swap::ArcSwapOption;
use std::sync::Arc;

/// One note a topic, or none if all is well. A note does not make the server unready: none of what
/// is noted gets better by taking a server out of service that still answers.
#[derive(Debug, Default)]
pub struct Status {
    notes: [ArcSwapOption<String>; TOPICS.len()],
}

/// What a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// The authority in the Secret.
    Authority,
    /// The `caBundle` of the registration.
    Bundle,
    /// The Lease.
    Lease,
    /// The registration.
    Registration,
}

const TOPICS: [Topic; 4] = [Topic::Authority, Topic::Bundle, Topic::Lease, Topic::Registration];

impl Status {
    /// Notes what is wrong with a topic, or that nothing is. Only a change is logged.
    pub fn note(&self, topic: Topic, problem: Option<String>) {
        let Some(slot) = self.notes.get(topic as usize) else { return };
        let before = slot.swap(problem.clone().map(Arc::new));
        let topic = topic.as_str();
        match problem {
            Some(problem) if before.as_deref() != Some(&problem) => {
                tracing::warn!(topic, problem, "the cluster's side needs somebody");
            }
            None if before.is_some() => tracing::info!(topic, "the cluster's side is well again"),
            _ => {}
        }
    }

    /// Every topic with its note.
    pub fn notes(&self) -> impl Iterator<Item = (Topic, Option<Arc<String>>)> {
        TOPICS.into_iter().zip(self.notes.iter().map(ArcSwapOption::load_full))
    }
}

impl Topic {
    /// The name of the check.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::Bundle => "ca-bundle",
            Self::Lease => "lease",
            Self::Registration => "registration",
        }
    }
}
