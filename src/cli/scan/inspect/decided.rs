//! What the line said of a pod, and what of it is about one container.

use super::super::report::Becomes;
use super::{Outcome, Today, place};
use crate::decision::finding::{Code, Finding, Severity};
use crate::decision::pod::ContainerIndex;

/// What the line said, as far as it is of interest here.
#[derive(Default)]
pub(super) struct Decided {
    /// The devices that annotations of the pod ask for, and for which containers.
    pub(super) asks: Vec<(String, Vec<ContainerIndex>)>,
    /// Why the pod would be refused.
    pub(super) refused: Option<String>,
    /// What is said of the old shape.
    pub(super) legacy: Vec<Finding>,
    pub(super) findings: Vec<Finding>,
    pub(super) in_shadow: bool,
    /// The first ask that is ignored.
    pub(super) ignored: Option<String>,
}

impl Decided {
    /// What becomes of a container.
    pub(super) fn outcome(&self, today: &Today<'_>) -> Outcome {
        if let Some(refused) = &self.refused {
            return Outcome::new(Becomes::Denied, refused.clone());
        }
        let place = place(today.at);
        let mut legacy = self.legacy.iter().chain(&self.findings).filter(|one| one.path == place);
        match legacy.find(|one| OLD_SHAPE.contains(&one.code)) {
            Some(one) if one.code == Code::DG021 => {
                Outcome { findings: self.findings_at(&place), ..Outcome::new(Becomes::Rewrite, "") }
            }
            Some(one) => {
                let why = one.word("why").filter(|why| !why.is_empty()).map(str::to_owned);
                Outcome::new(Becomes::Keeps, why.unwrap_or_else(|| one.sentence()))
            }
            None => {
                let devices = today.devices.join("`, `");
                let why = match &self.ignored {
                    Some(sentence) => sentence.clone(),
                    None if self.in_shadow => format!("the policy for `{devices}` is in shadow"),
                    None => format!("the policy for `{devices}` leaves the old shape alone"),
                };
                Outcome::new(Becomes::Keeps, why)
            }
        }
    }

    /// What else is to be said of a container, and of the pod.
    fn findings_at(&self, place: &str) -> Vec<Code> {
        let concerns = |finding: &&Finding| {
            let inside = finding.path.strip_prefix(place);
            let of_container = ["/spec/containers/", "/spec/initContainers/"]
                .iter()
                .any(|start| finding.path.starts_with(start));
            inside.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) || !of_container
        };
        let worth = |finding: &&Finding| {
            finding.severity() != Severity::Info && !OLD_SHAPE.contains(&finding.code)
        };
        let mut codes: Vec<Code> =
            self.findings.iter().filter(worth).filter(concerns).map(|one| one.code).collect();
        codes.sort_unstable();
        codes.dedup();
        codes
    }
}

/// What the line says of the old shape: it goes, it stays, it is refused.
const OLD_SHAPE: [Code; 3] = [Code::DG021, Code::DG022, Code::DG023];
