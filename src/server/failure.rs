//! A review that gets no verdict: what the caller sees, what is counted, and who must act.
//!
//! All of them are plain HTTP errors and never a review with `allowed: false`: to the API server
//! that would be a refusal, which blocks the pod whatever `failurePolicy` says.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::decision::{Request, Review, Unanswerable, Undecided};

/// Why a review gets no verdict.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The caller went away, or broke HTTP, before its body was here.
    #[error("the body broke off")]
    BrokenBody,
    /// A panic of ours, which is counted where it is caught.
    #[error("devgrant has a bug here; its log says where")]
    Bug,
    /// Too much is asked of us at once; the API server tries again.
    #[error("{0}; try again")]
    Busy(Scarce),
    /// The caller's own timeout is over.
    #[error("the deadline of the request (`timeout={0:?}`) has passed")]
    Deadline(Duration),
    /// The body did not come in time.
    #[error("the body did not arrive within {0:?}")]
    SlowBody(Duration),
    /// The body is too long.
    #[error("the body is longer than {0} bytes, which no review of the API server is")]
    TooLarge(usize),
    /// The body is no review.
    #[error("{0}")]
    Unanswerable(#[from] Unanswerable),
    /// We could not decide.
    #[error("{error}")]
    Undecided {
        /// Which pod it was about.
        facts: Facts,
        /// Why not.
        error: Undecided,
    },
    /// The body is not said to be JSON.
    #[error("the content type is not application/json; send an AdmissionReview as JSON")]
    WrongType,
}

/// What there is not enough of.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(super) enum Scarce {
    /// The memory for bodies.
    #[error("too many large reviews are arriving")]
    Memory,
    /// Permits to decide.
    #[error("too many reviews are being decided")]
    Permits,
}

/// Which pod a failure is about, for the log.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) uid: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Facts {
    /// As much as the review says.
    pub(super) fn of(review: &Review<'_>) -> Self {
        let request = Request::of(review);
        Self {
            uid: review.uid.to_string(),
            namespace: review.namespace().into_owned(),
            name: request.map_or_else(|_| String::new(), |request| request.name().to_owned()),
        }
    }
}

impl Failure {
    /// The `verdict` label: whether the caller must act, or we.
    pub(super) fn verdict(&self) -> &'static str {
        match self {
            Self::Bug | Self::Busy(_) | Self::Deadline(_) | Self::Undecided { .. } => "undecided",
            _ => "unanswerable",
        }
    }

    /// The `reason` label.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::BrokenBody => "BrokenBody",
            Self::Bug => "Bug",
            Self::Busy(_) => "Busy",
            Self::Deadline(_) => "Deadline",
            Self::SlowBody(_) => "SlowBody",
            Self::TooLarge(_) => "TooLarge",
            Self::Unanswerable(_) => "Unanswerable",
            Self::Undecided { .. } => "Undecided",
            Self::WrongType => "WrongType",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::BrokenBody | Self::Unanswerable(_) => StatusCode::BAD_REQUEST,
            Self::Busy(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Deadline(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::SlowBody(_) => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Bug | Self::Undecided { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Self::WrongType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }
}

impl IntoResponse for &Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status(), format!("{self}\n")).into_response();
        // The API server waits that many seconds, and only tries again if it is told to
        // (`client-go rest/with_retry.go`).
        if matches!(self, Failure::Busy(_)) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{FAILURES, VERDICTS};

    #[test]
    fn every_failure_is_counted_under_a_declared_label() {
        let facts = || Facts { uid: String::new(), namespace: String::new(), name: String::new() };
        let nowhere = Undecided::UnknownNamespace(String::new());
        let unanswerable = Review::decode(b"").unwrap_err();
        // All but `Busy`, which is counted by itself.
        let all = [
            Failure::BrokenBody,
            Failure::Bug,
            Failure::Deadline(Duration::ZERO),
            Failure::SlowBody(Duration::ZERO),
            Failure::TooLarge(0),
            Failure::Unanswerable(unanswerable),
            Failure::Undecided { facts: facts(), error: nowhere },
            Failure::WrongType,
        ];
        let mut reasons = all.each_ref().map(Failure::reason);
        let mut declared = FAILURES;
        reasons.sort_unstable();
        declared.sort_unstable();
        assert_eq!(reasons, declared);
        assert!(all.iter().all(|failure| VERDICTS.contains(&failure.verdict())));
    }
}
