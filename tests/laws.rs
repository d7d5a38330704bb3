#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says where and stops"
)]
//! What holds for any pod and any policies.
//!
//! `laws/make.rs` makes them, `laws/judge.rs` says what a patch may add without asking the code under
//! test. A case that failed once is kept in `laws.proptest-regressions` and tried first.

#[path = "laws/judge.rs"]
mod judge;
#[path = "laws/make.rs"]
mod make;
#[path = "laws/spelled.rs"]
mod spelled;
#[path = "laws/unasked.rs"]
mod unasked;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use devgrant::decision::finding::{Effect, entries};
use devgrant::decision::policy::schema::{ApiVersion, DevicePolicy, Kind, Metadata};
use devgrant::decision::warning::Warning;
use devgrant::decision::{
    Admission, KubernetesVersion, Namespace, PolicySet, PolicySource, Reason, Review, Settings,
    Undecided, admit, advise, glance, validate,
};
use json_patch::PatchOperation;
use make::{Case, case};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, FileFailurePersistence, RngSeed, TestRunner};
use serde_json::{Map, Value, json};

fn config(cases: u32) -> Config {
    Config {
        cases,
        // A failure is found small enough, and soon.
        max_shrink_iters: 1000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/laws.proptest-regressions",
        ))),
        // The same cases each time, so that a green run stays green; PROPTEST_RNG_SEED takes others.
        rng_seed: match Config::default().rng_seed {
            RngSeed::Random => RngSeed::Fixed(0x6465_7667_7261_6e74),
            chosen @ RngSeed::Fixed(_) => chosen,
        },
        ..Config::default()
    }
}

proptest! {
    // The one that matters most.
    #![proptest_config(config(250))]

    /// 5, and the rest of 2 and 8: what the patch adds is in the policies that let this subject ask,
    /// and everything else survives. Requests equal limits where we wrote either. Of the old shape a
    /// container loses what its own asks replace, or is told why not.
    #[test]
    fn a_pod_never_gets_more_than_policy_says(case in case()) {
        let set = case.set();
        let Ok(admission) = case.admit(&set) else { return Ok(()) };
        let after = case.after(&admission)?;
        let entitled = judge::entitlements(case.pod(), &case.namespace, &set);
        let judged = judge::excess(case.pod(), &after, &entitled, case.minor);
        prop_assert!(judged.is_ok(), "{}", judged.unwrap_err());
        if admission.reason == Reason::Granted {
            let judged = judge::nvidia(case.pod(), &after, &entitled);
            prop_assert!(judged.is_ok(), "{}", judged.unwrap_err());
            let said = said(&admission);
            // Of too many warnings the last ones are left out.
            if !said.contains("more lines") {
                // An ask that is wrong may be left out with a warning.
                let granted = |device: &str| admission.devices.iter().any(|one| one.device == device);
                let entitled: Vec<_> =
                    entitled.into_iter().filter(|one| granted(&one.device)).collect();
                let judged = judge::old_shape_is_gone_or_said(case.pod(), &after, &entitled, &said);
                prop_assert!(judged.is_ok(), "{}: {}", judged.unwrap_err(), said);
            }
        }
    }
}

proptest! {
    #![proptest_config(config(100))]

    /// 1: the same bytes in, the same bytes out, whatever the order of annotations and files.
    #[test]
    fn a_decision_is_a_function_of_its_inputs(case in case(), turn in 0_usize..7) {
        let set = case.set();
        let first = case.answer(&set);
        prop_assert_eq!(&first, &case.answer(&set));

        let mut turned = case.clone();
        let annotations = turned.pod_mut()["metadata"]["annotations"].as_object_mut().unwrap();
        let mut entries: Vec<_> = std::mem::take(annotations).into_iter().collect();
        if !entries.is_empty() {
            let at = turn % entries.len();
            entries.rotate_left(at);
            entries[at..].reverse();
        }
        annotations.extend(entries);
        if let Some(policies) = &mut turned.policies {
            let at = turn % policies.len();
            policies.rotate_left(at);
            policies[at..].reverse();
        }
        turned.as_json = !turned.as_json;
        let set = turned.set();
        prop_assert_eq!(&first, &turned.answer(&set));
    }

    /// 2 and 8: the patch applies by another library, and a pod comes out. Of the operations there are
    /// three kinds, at the places where something may change.
    #[test]
    fn a_patch_applies_where_it_may(case in case()) {
        let set = case.set();
        let Ok(admission) = case.admit(&set) else { return Ok(()) };
        let after = case.after(&admission)?;
        let mut last: BTreeMap<String, usize> = BTreeMap::new();
        for operation in &admission.operations {
            let (path, removes) = match operation {
                PatchOperation::Add(add) => (&add.path, false),
                PatchOperation::Replace(replace) => (&replace.path, false),
                PatchOperation::Remove(remove) => (&remove.path, true),
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            let path = path.to_string();
            let may_go = path == STAMP || OLD_SHAPE.iter().any(|place| is_at(&path, place));
            prop_assert!(!removes || may_go, "{} is removed", path);
            // Of one list the last item goes first, or the others would have moved.
            if let Some((list, index)) = path.rsplit_once('/').filter(|_| removes)
                && let Ok(index) = index.parse()
            {
                let before = last.insert(list.to_owned(), index);
                prop_assert!(before.is_none_or(|before| before > index), "{} after {:?}", path, before);
            }
            prop_assert!(PLACES.iter().any(|place| is_at(&path, place)), "{} is touched", path);
        }
        let typed = serde_json::from_value::<k8s_openapi::api::core::v1::Pod>;
        if typed(case.pod().clone()).is_ok() {
            prop_assert!(typed(after.clone()).is_ok(), "no pod: {:?}", typed(after));
        }
    }

    /// 3: the API server may ask again with the patched pod.
    #[test]
    fn deciding_the_patched_pod_again_changes_nothing(case in case()) {
        let set = case.set();
        let Ok(first) = case.admit(&set) else { return Ok(()) };
        let mut again = case.clone();
        *again.pod_mut() = case.after(&first)?;
        let second = again.admit(&set).unwrap();
        prop_assert_eq!(&second.operations, &[]);
        same_verdict(&first, &second)?;
        let guarded = again.by(validate, &set).unwrap();
        prop_assert_eq!(guarded.allowed, first.allowed, "{:?}", guarded.message);
        prop_assert_eq!(guarded.operations, &[]);
    }

    /// What is said of a workload is what its pod is told, and keeps nobody from anything.
    #[test]
    fn advice_is_what_the_pod_is_told(case in case()) {
        let set = case.set();
        let Ok(pod) = case.admit(&set) else { return Ok(()) };
        // Of the pod itself, which no controller makes so.
        if pod.reason == Reason::MirrorPod {
            return Ok(());
        }
        let mut workload = case.clone();
        workload.review["request"]["kind"] =
            json!({ "group": "apps", "version": "v1", "kind": "Deployment" });
        *workload.pod_mut() = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": "w" },
            "spec": { "template": case.pod() },
        });
        let advice = workload.by(advise_without_nodes, &set).unwrap();
        prop_assert!(advice.allowed && advice.operations.is_empty());
        if advice.reason == Reason::NotPodCreation {
            // What is no pod, or none is made of, is for the API server to say.
            return Ok(());
        }
        prop_assert_eq!(advice.reason, pod.reason);
        let refused = |warning: &Warning| warning.as_str().starts_with("would be refused: ");
        prop_assert_eq!(advice.warnings.iter().any(refused), !pod.allowed);
        if pod.allowed {
            // The API server passes on so many lines only, and says the rest is left out.
            let told = pod.warnings.iter().take_while(|line| !line.as_str().starts_with("and "));
            for line in told {
                prop_assert!(advice.warnings.contains(line), "{line} is not said");
            }
        }
    }

    /// 3, where another webhook puts a sidecar in front between the two calls. What was chosen stays
    /// chosen, by the stamp; only `*` means the newcomer too, which then gets the same and nothing else
    /// changes for the others.
    #[test]
    fn a_sidecar_put_in_front_takes_nothing_away(case in case()) {
        let set = case.set();
        let Ok(first) = case.admit(&set) else { return Ok(()) };
        let mut again = case.clone();
        *again.pod_mut() = case.after(&first)?;
        let Some(containers) = again.pod_mut()["spec"]["containers"].as_array_mut() else { return Ok(()) };
        if containers.is_empty() {
            return Ok(());
        }
        // A refused pod is not asked about again.
        if !first.allowed {
            return Ok(());
        }
        containers.insert(0, json!({ "name": "injected", "image": "proxy" }));
        let second = again.admit(&set).unwrap();
        let annotations = case.pod()["metadata"]["annotations"].as_object().unwrap();
        let every = annotations.iter().any(|(key, value)| {
            key.starts_with("devices.example/") && value.as_str().is_some_and(|value| value.contains('*'))
        });
        same_verdict(&first, &second)?;
        if every {
            for operation in &second.operations {
                let path = operation.path().to_string();
                let ours = path == STAMP || path.starts_with("/spec/containers/0/")
                    || path.starts_with("/metadata/annotations/container.apparmor");
                prop_assert!(ours, "{}", path);
            }
            let mut third = again.clone();
            *third.pod_mut() = again.after(&second)?;
            prop_assert_eq!(third.admit(&set).unwrap().operations, vec![]);
        } else {
            prop_assert_eq!(&second.operations, &[]);
        }
    }

    /// What is foreseen is said, within what the API server passes on, and changes nothing.
    #[test]
    fn findings_are_said_and_change_nothing(case in case()) {
        let Ok(usual) = case.admit(&case.set()) else { return Ok(()) };
        let said: usize = usual.warnings.iter().map(|line| line.as_str().chars().count()).sum();
        prop_assert!(said <= 4096, "{} characters", said);
        for line in usual.warnings.iter().map(Warning::as_str) {
            prop_assert!(line.chars().count() <= 120, "{}", line);
            prop_assert!(!line.contains(char::is_control), "{}", line);
        }
        let plain = |admission: &Admission| {
            let patch = serde_json::to_string(&admission.operations).unwrap();
            patch.replace(&admission.policy_digest, "digest")
        };
        let [ignored, warned] = [Effect::Ignore, Effect::Warn]
            .map(|effect| case.admit(&case.set_with_all_findings(effect)).unwrap());
        prop_assert_eq!(plain(&ignored), plain(&warned));
        prop_assert_eq!(ignored.reason, warned.reason);
        if usual.reason != Reason::Foreseen {
            prop_assert_eq!(plain(&ignored), plain(&usual));
            prop_assert_eq!(ignored.reason, usual.reason);
        }
    }

    /// 4: whoever does not ask is not touched.
    #[test]
    fn who_does_not_ask_is_left_alone(case in case()) {
        let set = case.set();
        let mut silent = case.clone();
        let annotations = silent.pod_mut()["metadata"]["annotations"].as_object_mut().unwrap();
        annotations.retain(|key, _| !key.starts_with("devices.example/"));
        left_alone(&silent, &set, Reason::NotAsked)?;

        let mut closed = case.clone();
        closed.namespace.remove("devices.example/grant");
        match closed.admit(&set) {
            Ok(admission) => {
                prop_assert!(admission.allowed && admission.operations.is_empty());
                prop_assert!(matches!(admission.reason, Reason::NotOptedIn | Reason::NotAsked));
            }
            Err(undecided) => prop_assert!(matches!(undecided, Undecided::NotPod(_))),
        }
        for operation in ["UPDATE", "DELETE", "CONNECT", "create", ""] {
            let mut other = case.clone();
            other.review["request"]["operation"] = operation.into();
            left_alone(&other, &set, Reason::NotPodCreation)?;
        }
        let mut status = case.clone();
        status.review["request"]["subResource"] = "status".into();
        left_alone(&status, &set, Reason::NotPodCreation)?;
    }
}

proptest! {
    // Each of these compiles six policy sets.
    #![proptest_config(config(40))]

    /// 7: a compiled policy that is printed and read again is the same policy.
    #[test]
    fn a_printed_policy_is_the_same_policy(case in case()) {
        let set = case.set();
        let print = |as_json: bool| {
            let documents = set.policies().iter().map(|policy| DevicePolicy {
                api_version: ApiVersion::V1Alpha1,
                kind: Kind::DevicePolicy,
                metadata: Metadata { name: policy.name().to_owned() },
                spec: policy.spec().clone(),
            });
            let sources: Vec<PolicySource> =
                documents.enumerate().map(|(index, document)| source(index, &document, as_json)).collect();
            PolicySet::compile(&sources, case.settings()).unwrap()
        };
        for printed in [print(false), print(true)] {
            prop_assert_eq!(printed.digest(), set.digest());
            prop_assert_eq!(printed.notes(), &[]);
            prop_assert_eq!(case.answer(&printed), case.answer(&set));
        }
    }
}

proptest! {
    #![proptest_config(config(400))]

    /// 6: no bytes make a panic, and who can be answered is answered with the uid that came.
    #[test]
    fn no_bytes_make_a_review_panic(bytes in prop_oneof![
        1 => proptest::collection::vec(any::<u8>(), 0..300),
        1 => "[\\[\\]{}\":,a-z0-9 \\\\u.eE+-]{0,200}".prop_map(String::into_bytes),
        6 => mutated(captured_reviews()),
    ]) {
        answers_with_its_uid(&bytes)?;
    }

    #[test]
    fn no_text_makes_a_policy_panic(text in prop_oneof![
        1 => ".{0,200}",
        1 => "[\\[\\]{}\":,a-z0-9 \\-&*!|>%@`#?\n\t\r\u{feff}\u{0}]{0,200}",
        4 => mutated(policy_texts()).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    ]) {
        compiles_or_says_why(&text)?;
    }
}

/// 6, by name: what a generator does not find.
#[test]
fn no_known_trick_makes_a_review_panic() {
    let pod = |inner: &str| {
        let review = make::review(&json!({
            "metadata": { "annotations": { "devices.example/fuse": "true" } },
            "spec": { "containers": [{ "name": "c0" }], "here": 0 },
        }));
        review.to_string().replace("\"here\":0", inner)
    };
    let deep = |depth: usize, open: &str, close: &str| open.repeat(depth) + &close.repeat(depth);
    let mut bodies: Vec<String> = Vec::new();
    for depth in [200, 100_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let close =
                if open == "[" { close.repeat(depth) } else { format!("1{}", close.repeat(depth)) };
            let bomb = open.repeat(depth) + &close;
            bodies.push(bomb.clone());
            for field in ["affinity", "containers", "future", "volumes", "nodeSelector"] {
                bodies.push(pod(&format!("\"{field}\":{bomb}")));
            }
            bodies.push(
                make::review(&Value::Null)
                    .to_string()
                    .replace("\"object\":null", &format!("\"object\":{bomb}")),
            );
        }
        bodies.push(deep(depth, "[", ""));
    }
    let long = "x".repeat(7 << 20);
    bodies.push(pod(&format!("\"future\":\"{long}\"")));
    bodies.push(pod(&format!("\"serviceAccountName\":\"{long}\"")));
    bodies.push(pod("\"a\":0").replace("\"fuse\":\"true\"", &format!("\"fuse\":\"{long}\"")));
    bodies.push(pod("\"a\":0").replace("devices.example/fuse", &format!("devices.example/{long}")));
    bodies.push(pod("\"a\":0").replace("\"c0\"", &format!("\"{long}\"")));
    for twice in [
        "\"containers\":[{\"name\":\"c1\"}]",
        "\"volumes\":[],\"volumes\":[]",
        "\"affinity\":{},\"affinity\":{\"nodeAffinity\":{},\"nodeAffinity\":{}}",
        "\"future\":\"\\ud800\"",
        "\"future\":\"\\udc00\\ud800\"",
        "\"serviceAccountName\":\"\\ud800\"",
        "\"nodeName\":\"\\u0000\\uffff\"",
        "\"hostUsers\":1e999",
        "\"tolerations\":[null]",
        "\"initContainers\":[{},{\"name\":null}]",
        "\"volumes\":{}",
        "\"containers\":0",
    ] {
        bodies.push(pod(twice));
    }
    bodies.push(pod("\"a\":0").replace("\"uid\":", "\"uid\":\"first\",\"uid\":"));
    bodies.push(pod("\"a\":0").replace("705ab4f5", "\\ud83d\\ude00\\n"));
    bodies.push(pod("\"a\":0").replace("705ab4f5", "\\ud83d"));
    bodies.push(format!("\u{feff}{}", pod("\"a\":0")));
    for body in &bodies {
        answers_with_its_uid(body.as_bytes()).unwrap_or_else(|error| {
            let start: String = body.chars().take(400).collect();
            std::panic::resume_unwind(Box::new(format!("{start}: {error}")))
        });
    }
}

/// Refused in words, and by no more work than the answer would have been.
#[test]
fn what_is_too_much_for_one_answer_is_refused() {
    let answer = |containers: usize| {
        let names = (0..containers).map(|at| json!({ "name": format!("c{at}") }));
        let review = make::review(&json!({
            "metadata": {
                "annotations": { "devices.example/fuse": "true", "devices.example/containers": "*" },
            },
            "spec": { "containers": names.collect::<Vec<_>>() },
        }));
        let labels = json!({ "devices.example/grant": "enabled" });
        let namespace = namespace(labels.as_object().unwrap());
        let bytes = review.to_string().into_bytes();
        admit(&Review::decode(&bytes).unwrap(), shipped_set(), Some(&namespace)).unwrap()
    };
    assert_eq!(answer(1_000).reason, Reason::Granted);
    for containers in [2_501, 5_000] {
        let refused = answer(containers);
        assert_eq!(refused.reason, Reason::TooLarge);
        // Of the first container that is one too many no more is said, however many follow.
        let said = "in at least 10004 places, and one answer holds 10000; name fewer containers";
        let message = refused.message.unwrap();
        assert!(message.contains(said), "{message}");
        assert_eq!(refused.operations, &[]);
    }
}

#[test]
fn no_known_trick_makes_a_policy_panic() {
    let fine = policy_texts().swap_remove(0);
    let fine = String::from_utf8(fine).unwrap();
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = level - 1;
        let nine = vec![format!("*a{before}"); 9].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{nine}]").unwrap();
    }
    for text in [
        bomb,
        "&a [*a]".to_owned(),
        "a: &a { b: *a }".to_owned(),
        "<<: &x { <<: *x }".to_owned(),
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        "? ".repeat(100_000),
        (0..2000).map(|depth| " ".repeat(depth) + "a:\n").collect(),
        format!("\u{feff}{fine}"),
        fine.replace('\n', "\r\n"),
        fine.replace('\n', "\r"),
        fine.replace("  ", "\t"),
        fine.replace(": ", ":\u{0} "),
        format!("{fine}\u{0}"),
        format!("{fine}---\n{fine}"),
        format!("{fine}...\n{fine}"),
        format!("%YAML 9.9\n---\n{fine}"),
        fine.replace("kind:", "!!binary kind:"),
        fine.replace("metadata:", "? [a, b]\n: c\nmetadata:"),
        fine.replace("name: ", "name: !!int "),
        "\u{85}\u{2028}\u{2029}: \u{fffe}".to_owned(),
        format!("a: \"{}\"", "x".repeat(7 << 20)),
        format!("{}: 1", "k".repeat(2 << 20)),
        "a: |9999999999\n b".to_owned(),
        "a: 0x\nb: .inf\nc: .nan\nd: 1e9999\ne: 0o777777777777777777777777".to_owned(),
    ] {
        compiles_or_says_why(&text).unwrap();
    }
}

/// What an API server sent, and no annotation of ours in it.
#[test]
fn a_captured_review_that_asks_for_nothing_is_answered_at_a_glance() {
    let plain = files("tests/fixtures/admission-reviews", "json");
    let seen: Vec<bool> =
        plain.iter().map(|bytes| same_at_a_glance(bytes, shipped_set()).unwrap()).collect();
    let at_a_glance = seen.iter().filter(|seen| **seen).count();
    // Left are those with our annotations, those with an escape, and those without an object.
    assert!(at_a_glance >= 12, "{at_a_glance} of {}", plain.len());
}

/// Whatever could be the prefix under escapes is read by the line.
#[test]
fn an_escaped_prefix_is_no_way_around() {
    let ask = r#""devices.example/fuse":"true""#;
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": make::review(&json!({ "metadata": { "annotations": {} }, "spec": {} }))["request"],
    });
    for spelled in [
        ask.to_owned(),
        ask.replace('/', r"\/"),
        ask.replace('.', r"\u002e"),
        ask.replace('d', r"\u0064"),
        ask.replace("dev", r"\u0064\u0065\u0076"),
    ] {
        let bytes = review
            .to_string()
            .replace(r#""annotations":{}"#, &format!(r#""annotations":{{{spelled}}}"#));
        assert!(bytes.contains(&spelled));
        assert!(glance(bytes.as_bytes(), shipped_set()).is_none(), "{spelled}");
    }
}

/// The laws above would hold for a generator that makes nothing interesting.
#[test]
fn the_generators_reach_every_outcome() {
    let mut runner = TestRunner::deterministic();
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    let mut touched: BTreeSet<&str> = BTreeSet::new();
    let mut foreseen: BTreeSet<String> = BTreeSet::new();
    let mut removed: BTreeMap<&str, usize> = BTreeMap::new();
    let mut codes: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..400 {
        let case = case().new_tree(&mut runner).unwrap().current();
        match case.admit(&case.set()) {
            Ok(admission) => {
                let lines = admission.warnings.iter().map(|line| line.as_str().to_owned());
                let lines = lines.chain(admission.message.clone());
                foreseen.extend(lines.flat_map(|text| {
                    let found = text.match_indices("DG0");
                    found.map(|(at, _)| text[at..].chars().take(5).collect()).collect::<Vec<_>>()
                }));
                *reasons.entry(admission.reason.as_str()).or_default() += 1;
                for operation in &admission.operations {
                    let path = operation.path().to_string();
                    touched.extend(PLACES.iter().filter(|place| is_at(&path, place)));
                    if matches!(operation, PatchOperation::Remove(_)) {
                        for place in OLD_SHAPE.iter().filter(|place| is_at(&path, place)) {
                            *removed.entry(place).or_default() += 1;
                        }
                    }
                }
                let text =
                    format!("{} {}", said(&admission), admission.message.unwrap_or_default());
                for code in ["DG021", "DG022", "DG023"].iter().filter(|code| text.contains(**code))
                {
                    *codes.entry(code).or_default() += 1;
                }
            }
            Err(_) => *reasons.entry("undecided").or_default() += 1,
        }
    }
    for (reason, least) in [
        (Reason::Granted, 60),
        (Reason::Conflict, 5),
        (Reason::Foreseen, 2),
        (Reason::Ignored, 5),
        (Reason::InvalidCount, 5),
        (Reason::NotAllowed, 5),
        (Reason::NotAsked, 5),
        (Reason::NotOptedIn, 5),
        (Reason::Shadow, 2),
        (Reason::UnknownContainer, 5),
        (Reason::UnknownKey, 5),
        (Reason::UnknownMode, 3),
        (Reason::WindowsPod, 1),
    ] {
        let found = reasons.get(reason.as_str()).copied().unwrap_or_default();
        assert!(found >= least, "{}: {found} of at least {least}: {reasons:?}", reason.as_str());
    }
    assert!(foreseen.len() >= 10, "few findings: {foreseen:?}");
    for place in OLD_SHAPE {
        let found = removed.get(place).copied().unwrap_or_default();
        assert!(found >= 4, "{place} is removed {found} times: {removed:?}");
    }
    for (code, least) in [("DG021", 8), ("DG022", 15), ("DG023", 2)] {
        let found = codes.get(code).copied().unwrap_or_default();
        assert!(found >= least, "{code}: {found} of at least {least}: {codes:?}");
    }
    let never: Vec<&&str> = PLACES.iter().filter(|place| !touched.contains(**place)).collect();
    assert!(never.is_empty(), "no case changes {never:?}");
}

const STAMP: &str = "/metadata/annotations/devices.example~1granted";

/// What may be removed beside the stamp.
const OLD_SHAPE: &[&str] =
    &["/spec/*/*/securityContext/privileged", "/spec/*/*/volumeMounts/*", "/spec/volumes/*"];

/// Where a patch may change something. `*` is one step, `**` any number, none included.
const PLACES: &[&str] = &[
    "/metadata/annotations/*",
    "/spec/*/*/resources/**",
    "/spec/*/*/securityContext",
    "/spec/*/*/securityContext/privileged",
    "/spec/*/*/securityContext/allowPrivilegeEscalation",
    "/spec/*/*/securityContext/appArmorProfile",
    "/spec/*/*/securityContext/seccompProfile",
    "/spec/*/*/securityContext/capabilities",
    "/spec/*/*/securityContext/capabilities/add",
    "/spec/*/*/securityContext/capabilities/add/*",
    "/spec/*/*/env/**",
    "/spec/*/*/volumeMounts/**",
    "/spec/volumes/**",
    "/spec/tolerations/**",
    "/spec/schedulingGates/**",
    "/spec/resourceClaims/**",
    "/spec/hostUsers",
    "/spec/runtimeClassName",
    "/spec/nodeSelector/**",
    "/spec/affinity/**",
];

fn is_at(path: &str, place: &str) -> bool {
    let steps: Vec<&str> = path.split('/').collect();
    let wanted: Vec<&str> = place.split('/').collect();
    let (wanted, open) = match wanted.split_last() {
        Some((&"**", rest)) => (rest.to_vec(), true),
        _ => (wanted, false),
    };
    let fits = |(step, wanted): (&&str, &&str)| {
        // No negative index, and `*` in the middle is a list of containers or an index.
        *wanted == "*" && !step.starts_with("-1") || step == wanted
    };
    (steps.len() == wanted.len() || (open && steps.len() > wanted.len()))
        && steps.iter().zip(&wanted).all(fits)
}

impl Case {
    fn settings(&self) -> Settings {
        Settings {
            kubernetes_version: KubernetesVersion { minor: self.minor },
            ..Settings::default()
        }
    }

    fn set(&self) -> PolicySet {
        let sources = match &self.policies {
            Some(policies) => {
                let read = |policy: &Value| serde_json::from_value::<DevicePolicy>(policy.clone());
                let documents = policies.iter().map(|policy| read(policy).unwrap()).enumerate();
                documents.map(|(index, document)| source(index, &document, self.as_json)).collect()
            }
            None => shipped(),
        };
        PolicySet::compile(&sources, self.settings()).unwrap()
    }

    /// The same policies, of which each says this of every finding.
    fn set_with_all_findings(&self, effect: Effect) -> PolicySet {
        let mut documents = self.documents();
        let codes = || entries().iter().map(|entry| entry.code.to_string());
        for document in &mut documents {
            document.spec.conflicts = codes().map(|code| (code, effect)).collect();
        }
        self.compiled(&documents)
    }

    fn documents(&self) -> Vec<DevicePolicy> {
        match &self.policies {
            Some(policies) => policies
                .iter()
                .map(|policy| serde_json::from_value(policy.clone()).unwrap())
                .collect(),
            None => shipped()
                .iter()
                .map(|source| serde_saphyr::from_str(&source.text).unwrap())
                .collect(),
        }
    }

    fn compiled(&self, documents: &[DevicePolicy]) -> PolicySet {
        let documents = documents.iter().enumerate();
        let sources = documents.map(|(index, document)| source(index, document, self.as_json));
        PolicySet::compile(&sources.collect::<Vec<_>>(), self.settings()).unwrap()
    }

    fn pod(&self) -> &Value {
        &self.review["request"]["object"]
    }

    fn pod_mut(&mut self) -> &mut Value {
        &mut self.review["request"]["object"]
    }

    fn admit(&self, set: &PolicySet) -> Result<Admission, Undecided> {
        self.by(admit, set)
    }

    fn by(&self, line: Line, set: &PolicySet) -> Result<Admission, Undecided> {
        let bytes = serde_json::to_vec(&self.review).unwrap();
        line(&Review::decode(&bytes).unwrap(), set, Some(&namespace(&self.namespace)))
    }

    /// The bytes that go back, or the words of why there are none.
    fn answer(&self, set: &PolicySet) -> Result<Vec<u8>, String> {
        match self.admit(set) {
            Ok(admission) => Ok(admission.to_bytes()),
            Err(undecided) => Err(undecided.to_string()),
        }
    }

    fn after(&self, admission: &Admission) -> Result<Value, TestCaseError> {
        let mut pod = self.pod().clone();
        json_patch::patch(&mut pod, &admission.operations)
            .map_err(|error| TestCaseError::fail(format!("the patch does not apply: {error}")))?;
        Ok(pod)
    }
}

/// The line, as each path has it.
type Line = fn(&Review<'_>, &PolicySet, Option<&Namespace>) -> Result<Admission, Undecided>;

fn namespace(labels: &Map<String, Value>) -> Namespace {
    let labels =
        labels.iter().map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()));
    Namespace { name: "team".to_owned(), labels: labels.collect() }
}

fn source(index: usize, document: &DevicePolicy, as_json: bool) -> PolicySource {
    let text = if as_json {
        serde_json::to_string_pretty(document).unwrap()
    } else {
        serde_saphyr::to_string(document).unwrap()
    };
    PolicySource { file: format!("{index}.yaml"), text }
}

fn shipped() -> Vec<PolicySource> {
    let texts = policy_texts().into_iter().enumerate();
    let source = |(index, text)| PolicySource {
        file: format!("{index}.yaml"),
        text: String::from_utf8(text).unwrap(),
    };
    texts.map(source).collect()
}

/// All warnings, in one text.
fn said(admission: &Admission) -> String {
    let lines: Vec<String> = admission.warnings.iter().map(ToString::to_string).collect();
    lines.join(" ")
}

/// Verdict, reason and audit annotations, which the API server drops if they change.
fn same_verdict(first: &Admission, second: &Admission) -> Result<(), TestCaseError> {
    let said = |admission: &Admission| {
        let answer: Value = serde_json::from_slice(&admission.to_bytes()).unwrap();
        (answer["response"]["allowed"].clone(), answer["response"]["auditAnnotations"].clone())
    };
    prop_assert_eq!(first.reason, second.reason);
    prop_assert_eq!(said(first), said(second));
    Ok(())
}

fn left_alone(case: &Case, set: &PolicySet, reason: Reason) -> Result<(), TestCaseError> {
    let admission = case.admit(set).unwrap();
    prop_assert!(admission.allowed && admission.operations.is_empty());
    prop_assert!(admission.warnings.is_empty());
    prop_assert_eq!(admission.reason, reason);
    same_at_a_glance(&as_sent(&case.review), set)?;
    Ok(())
}

/// The shipped policies, compiled once.
fn shipped_set() -> &'static PolicySet {
    static SET: OnceLock<PolicySet> = OnceLock::new();
    SET.get_or_init(|| PolicySet::compile(&shipped(), Settings::default()).unwrap())
}

/// A review with its fields in the order of an API server, who is asked about before the object.
fn as_sent(review: &Value) -> Vec<u8> {
    let mut review = review.clone();
    let request = review["request"].as_object_mut().unwrap();
    let objects = ["object", "oldObject"].map(|key| (key.to_owned(), request.shift_remove(key)));
    request.extend(objects.into_iter().filter_map(|(key, value)| Some((key, value?))));
    serde_json::to_vec(&review).unwrap()
}

/// Whoever is answered at a glance is answered as by the line, and logged under the same name. A body that
/// is broken behind what the glance reads is nobody's pod, and nothing is granted to it.
fn same_at_a_glance(bytes: &[u8], set: &PolicySet) -> Result<bool, TestCaseError> {
    let Some(glance) = glance(bytes, set) else { return Ok(false) };
    prop_assert!(glance.allowed && glance.operations.is_empty() && glance.warnings.is_empty());
    let Ok(review) = Review::decode(bytes) else { return Ok(true) };
    if let Ok(line) = admit(&review, set, None) {
        prop_assert_eq!(format!("{:?}", &glance), format!("{:?}", &line));
    }
    Ok(true)
}

fn answers_with_its_uid(bytes: &[u8]) -> Result<(), TestCaseError> {
    same_at_a_glance(bytes, shipped_set())?;
    let Ok(review) = Review::decode(bytes) else { return Ok(()) };
    let labels = json!({ "devices.example/grant": "enabled" });
    let namespace = namespace(labels.as_object().unwrap());
    for line in [validate as Line, advise_without_nodes] {
        if let Ok(admission) = line(&review, shipped_set(), Some(&namespace)) {
            prop_assert_eq!(&admission.operations, &[]);
            prop_assert_eq!(admission.uid.as_str(), review.uid.as_ref());
        }
    }
    let Ok(admission) = admit(&review, shipped_set(), Some(&namespace)) else { return Ok(()) };
    let answer: Value = serde_json::from_slice(&admission.to_bytes()).unwrap();
    let sent: Value = serde_json::from_slice(bytes).unwrap_or_default();
    prop_assert_eq!(&answer["response"]["uid"], &json!(review.uid));
    if let Some(uid) = sent.pointer("/request/uid") {
        prop_assert_eq!(&answer["response"]["uid"], uid);
    }
    if let Some(object) = sent.pointer("/request/object") {
        let mut pod = object.clone();
        let applied = json_patch::patch(&mut pod, &admission.operations);
        prop_assert!(applied.is_ok(), "{:?}", applied);
    }
    Ok(())
}

/// A text that is no policy says so, at a place that is in it.
fn compiles_or_says_why(text: &str) -> Result<(), TestCaseError> {
    let sources = [PolicySource { file: "it.yaml".to_owned(), text: text.to_owned() }];
    match PolicySet::compile(&sources, Settings::default()) {
        Ok(set) => prop_assert_eq!(set.policies().len(), 1),
        Err(problems) => {
            prop_assert!(!problems.is_empty());
            for problem in problems {
                let place = text.get(problem.span.clone());
                prop_assert!(place.is_some(), "{}: {:?}", problem.message, problem.span);
            }
        }
    }
    Ok(())
}

fn captured_reviews() -> Vec<Vec<u8>> {
    let mut reviews = files("tests/fixtures/admission-reviews", "json");
    let asking: Vec<Vec<u8>> = reviews
        .iter()
        .filter_map(|bytes| {
            let mut review: Value = serde_json::from_slice(bytes).unwrap();
            let pod = review.pointer_mut("/request/object/metadata")?.as_object_mut()?;
            pod.insert(
                "annotations".to_owned(),
                json!({ "devices.example/fuse": "true", "devices.example/gpu": "h100:2" }),
            );
            Some(review.to_string().into_bytes())
        })
        .collect();
    reviews.extend(asking);
    reviews
}

fn policy_texts() -> Vec<Vec<u8>> {
    files("policies", "yaml")
}

fn files(folder: &str, ending: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == ending));
    paths.retain(|path| !path.to_string_lossy().ends_with(".test.yaml"));
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Bytes that were right once: flipped, cut off, and with a piece of themselves elsewhere.
fn mutated(texts: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let change = (0_u8..6, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>());
    (prop::sample::select(texts), proptest::collection::vec(change, 0..6)).prop_map(
        |(mut bytes, changes)| {
            for (kind, at, to, byte) in changes {
                if bytes.is_empty() {
                    break;
                }
                let (at, to) = (at.index(bytes.len()), to.index(bytes.len()));
                let (start, end) = (at.min(to), at.max(to));
                match kind {
                    0 => bytes[at] ^= 1 << (byte % 8),
                    1 => bytes[at] = byte,
                    2 if byte < 32 => bytes.truncate(at),
                    3 => {
                        let piece = bytes[start..end.min(start + 64)].to_vec();
                        bytes.splice(to..to, piece);
                    }
                    4 => {
                        bytes.drain(start..end.min(start + 32));
                    }
                    _ => {
                        let sign = b"{}[]\",:\\\n\t \0&*-|>\xef"[usize::from(byte) % 18];
                        bytes.insert(at, sign);
                    }
                }
            }
            bytes
        },
    )
}

fn advise_without_nodes(
    review: &Review<'_>,
    policies: &PolicySet,
    namespace: Option<&Namespace>,
) -> Result<Admission, Undecided> {
    advise(review, policies, namespace, None)
}
