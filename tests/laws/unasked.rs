//! Pods that ask for nothing, where policies look at those too (`legacy.when: Always`).

use devgrant::decision::policy::schema::{Enforcement, LegacyAction, LegacyWhen};

use super::*;

proptest! {
    #![proptest_config(config(250))]

    /// What nobody asked for is what the written annotations ask for: the same pod with them is decided the
    /// same, and they are written for containers that lose `privileged` and for no others.
    #[test]
    fn the_written_ask_is_the_whole_of_it(case in case(), silent in prop::bool::weighted(0.7)) {
        let set = case.set_looking_unasked();
        let mut case = case;
        if silent {
            ours(&mut case).retain(|key, _| !key.starts_with("devices.example/"));
        }
        let Ok(first) = case.admit(&set) else { return Ok(()) };
        let after = case.after(&first)?;
        let mut again = case.clone();
        *again.pod_mut() = after.clone();
        prop_assert_eq!(&again.admit(&set).unwrap().operations, &[]);

        let before = ours(&mut case).clone();
        let written: Vec<(String, Value)> = after["metadata"]["annotations"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, _)| key.starts_with("devices.example/") && *key != "devices.example/granted")
            .filter(|(key, _)| !before.contains_key(*key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let mut asking = case.clone();
        ours(&mut asking).extend(written.clone());
        let asked = asking.admit(&set).unwrap();
        prop_assert_eq!(asking.after(&asked)?, after.clone());
        prop_assert_eq!(asked.reason, first.reason);

        for (key, names) in written.iter().filter(|(key, _)| key.ends_with(".containers")) {
            for name in names.as_str().unwrap().split(',') {
                let is_privileged = |pod: &Value| {
                    let mut all = judge::containers(pod).into_iter();
                    all.any(|(_, one)| one["name"] == name && one["securityContext"]["privileged"] == true)
                };
                prop_assert!(is_privileged(case.pod()) && !is_privileged(&after), "{} {}", key, name);
            }
        }
    }

    /// Who asks for nothing is refused by `Deny` only, and by no policy in shadow.
    #[test]
    fn what_nobody_asked_for_refuses_nobody(case in case()) {
        let mut case = case;
        ours(&mut case).retain(|key, _| !key.starts_with("devices.example/"));
        let denies = case.documents().iter().any(|document| {
            let legacy = document.spec.legacy.as_ref();
            document.spec.enforcement == Enforcement::Enforce
                && legacy.is_some_and(|legacy| legacy.action == LegacyAction::Deny)
        });
        let Ok(admission) = case.admit(&case.set_looking_unasked()) else { return Ok(()) };
        prop_assert!(denies || admission.allowed, "{}", said(&admission));
        prop_assert!(admission.operations.is_empty() || admission.reason == Reason::Granted);
    }
}

/// The laws above would hold if nothing were ever rewritten.
#[test]
fn some_that_ask_for_nothing_are_rewritten() {
    let mut runner = TestRunner::new(config(1));
    let mut rewritten = 0;
    let mut kept = 0;
    for _ in 0..1000 {
        let mut case = case().new_tree(&mut runner).unwrap().current();
        ours(&mut case).retain(|key, _| !key.starts_with("devices.example/"));
        let Ok(admission) = case.admit(&case.set_looking_unasked()) else { continue };
        rewritten += usize::from(!admission.operations.is_empty());
        kept += usize::from(said(&admission).contains("DG022"));
    }
    assert!(rewritten >= 10 && kept >= 10, "{rewritten} rewritten, {kept} kept");
}

fn ours(case: &mut Case) -> &mut Map<String, Value> {
    case.pod_mut()["metadata"]["annotations"].as_object_mut().unwrap()
}

impl Case {
    /// The same policies, looking at pods unasked wherever that can mean something.
    fn set_looking_unasked(&self) -> PolicySet {
        let mut documents = self.documents();
        for DevicePolicy { spec, .. } in &mut documents {
            let default = spec.modes.get(&spec.default_mode);
            let brings = default.is_some_and(|mode| {
                !mode.privileged && mode.brings_device() && mode.changes_the_pod().is_none()
            });
            if let Some(legacy) = spec.legacy.as_mut().filter(|legacy| legacy.privileged && brings)
            {
                legacy.when = LegacyWhen::Always;
            }
        }
        self.compiled(&documents)
    }
}
