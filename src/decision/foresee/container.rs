//! What would start and not work in one container.

use std::collections::BTreeSet;

use super::{ContainerAfter, PodAfter};
use crate::decision::conflict::{app_armor_key, bare};
use crate::decision::finding::{Code, Finding};
use crate::decision::path::token;
use crate::decision::plan::ContainerGrant;
use crate::decision::plan::accelerator::{NVIDIA_VISIBLE_DEVICES, SYS_ADMIN, names_gpus};
use crate::decision::pod::Amount;
use crate::decision::policy::schema::{OmittableField, Profile};
use crate::decision::quantity::{Quantity, is_extended};
use crate::decision::request::Request;

pub(super) fn findings(
    request: &Request<'_>,
    pod: &PodAfter<'_>,
    container: &ContainerAfter<'_>,
    findings: &mut Vec<Finding>,
) {
    users(container, findings);
    confinement(request, pod, container, findings);
    capabilities(container, findings);
    devices(pod, container, findings);
    amounts(container, findings);
    counts(container, findings);
    nvidia(container, findings);
    mounts(container, findings);
    if container
        .container
        .security_context
        .proc_mount
        .as_ref()
        .is_some_and(|kind| *kind == "Unmasked")
        && pod.host_users != Some(false)
    {
        let path = format!("{}/securityContext/procMount", container.path);
        findings.push(Finding::new(Code::DG016, path, [("container", container.name())]));
    }
}

/// Runtimes clear ambient capabilities, so that a user who is not root has one in the bounding set only
/// (F:A7). Only set-uid root gets at it, and that only without `no_new_privs`.
fn users(container: &ContainerAfter<'_>, findings: &mut Vec<Finding>) {
    if !container.has_capability(SYS_ADMIN) || container.is_privileged() {
        return;
    }
    let Some(user) = container.non_root().filter(|_| container.is_for_fuse()) else {
        return;
    };
    let instead = match container.other_modes(|mode| mode.capabilities.is_empty()) {
        _ if !container.is_granted(SYS_ADMIN) => "remove the capability".to_owned(),
        None => "ask for a mode without a capability".to_owned(),
        Some(modes) => format!("ask for a mode without a capability ({modes})"),
    };
    let path = format!("{}/securityContext", container.path);
    // A mode that turns escalation on is made for fusermount3.
    let meant = container.fuse_asks().any(|ask| ask.mode.allow_privilege_escalation == Some(true));
    if container.allows_escalation() == Some(false) {
        let places =
            [("container", container.name()), ("user", &user), ("instead", instead.as_str())];
        findings.push(Finding::new(Code::DG001, path, places));
    } else if !meant {
        let places = [("container", container.name()), ("user", user.as_str())];
        findings.push(Finding::new(Code::DG002, path, places));
    }
}

/// seccomp and AppArmor, which deny what the device is for (F:D5, F:D7).
fn confinement(
    request: &Request<'_>,
    pod: &PodAfter<'_>,
    container: &ContainerAfter<'_>,
    findings: &mut Vec<Finding>,
) {
    if container.is_privileged() || !container.is_for_fuse() || pod.is_sandboxed() {
        return;
    }
    let path = format!("{}/securityContext", container.path);
    let places = [("container", container.name())];
    if !container.has_capability(SYS_ADMIN) {
        if container.seccomp() == Some("RuntimeDefault") {
            // A capability is useless to a user who may not gain it, and such a pod would only hear DG001.
            let gains =
                container.non_root().is_none() || container.allows_escalation() != Some(false);
            let modes = container.other_modes(|mode| {
                let sys_admin = mode.capabilities.iter().any(|name| name == SYS_ADMIN);
                (gains && sys_admin) || matches!(mode.seccomp_profile, Some(Profile::Unconfined))
            });
            let modes = modes.unwrap_or_else(|| "none".to_owned());
            let places = [("container", container.name()), ("modes", modes.as_str())];
            findings.push(Finding::new(Code::DG003, path, places));
        }
        return;
    }
    let omitted = container.fuse_asks().any(|ask| {
        let variants = &ask.policy.spec().runtime_classes;
        let variant = pod.runtime_class.and_then(|class| variants.get(class));
        variant.is_some_and(|variant| variant.omit.contains(&OmittableField::AppArmorProfile))
    });
    let by_annotation = request.annotation(&app_armor_key(container.name()));
    let profile = container.app_armor();
    let denies = match (profile, by_annotation) {
        (Some("RuntimeDefault"), _) => true,
        (None, annotation) => annotation.is_none_or(|profile| profile == "runtime/default"),
        _ => false,
    };
    if denies && !omitted {
        findings.push(Finding::new(Code::DG004, path, places));
    }
}

fn capabilities(container: &ContainerAfter<'_>, findings: &mut Vec<Finding>) {
    // Runtimes do not read the list of a container that has them all.
    if container.is_privileged() {
        return;
    }
    let granted: BTreeSet<&str> = container.granted_capabilities().collect();
    let added = &container.container.security_context.capabilities.add;
    for (index, own) in added.iter().enumerate() {
        let has_prefix =
            own.as_str().get(..4).is_some_and(|start| start.eq_ignore_ascii_case("CAP_"));
        // The one that is granted is respelled by the patch.
        if has_prefix && !granted.contains(bare(own.as_str()).as_str()) {
            let path = format!("{}/securityContext/capabilities/add/{index}", container.path);
            let places = [("container", container.name()), ("capability", own.as_str())];
            findings.push(Finding::new(Code::DG007, path, places));
        }
    }
}

fn devices(pod: &PodAfter<'_>, container: &ContainerAfter<'_>, findings: &mut Vec<Finding>) {
    let name = [("container", container.name())];
    let gets_device =
        container.grants.iter().any(|grant| matches!(grant, ContainerGrant::Resource { .. }));
    if pod.host_users == Some(false) && gets_device {
        findings.push(Finding::new(Code::DG008, "/spec/hostUsers", name));
    }
    if pod.is_gvisor() && container.has_gpu() {
        findings.push(Finding::new(Code::DG011, "/spec/runtimeClassName", name));
    }
    if container.is_privileged()
        && !container.grants.is_empty()
        && !container.grants.contains(&ContainerGrant::Privileged)
    {
        let path = format!("{}/securityContext/privileged", container.path);
        findings.push(Finding::new(Code::DG018, path, name));
    }
    if container.is_privileged() || pod.devices.is_empty() {
        return;
    }
    let gone = container.grants.iter().filter_map(ContainerGrant::unmount);
    let gone: BTreeSet<usize> = gone.collect();
    // The rule that a resource brings is for the device's number, wherever its file comes from. With users
    // of its own, such a container does not start (F:S1).
    let resources = container.resources(|_| pod.host_users != Some(false));
    let granted: BTreeSet<&str> =
        resources.filter_map(|name| Some(name.split_once('/')?.1)).collect();
    for (index, mount) in container.container.volume_mounts.iter().enumerate() {
        let Some(device) = pod.devices.get(mount.name.as_str()) else { continue };
        let is_granted = || device.names.iter().any(|name| granted.contains(name.as_str()));
        if !gone.contains(&index) && !is_granted() {
            let path = format!("{}/volumeMounts/{index}", container.path);
            let places = [("container", container.name()), ("path", device.path)];
            findings.push(Finding::new(Code::DG017, path, places));
        }
    }
}

/// Extended resources that the pod names itself, and that no grant makes whole and equal.
fn amounts(container: &ContainerAfter<'_>, findings: &mut Vec<Finding>) {
    let own = &container.container.resources;
    let granted: Vec<&str> = container
        .grants
        .iter()
        .filter_map(|grant| match grant {
            ContainerGrant::Resource { name, .. } => Some(*name),
            _ => None,
        })
        .collect();
    let names: BTreeSet<&str> = own
        .limits
        .keys()
        .chain(own.requests.keys())
        .map(crate::decision::pod::Text::as_str)
        .filter(|name| is_extended(name) && !granted.contains(name))
        .collect();
    for name in names {
        let path = |list: &str| format!("{}/resources/{list}/{}", container.path, token(name));
        let (limit, request) = (own.limits.get(name), own.requests.get(name));
        let differ = match (limit, request) {
            (Some(limit), Some(request)) => limit.quantity() != request.quantity(),
            // A limit alone becomes the request as well, and not the other way round.
            (limit, _) => limit.is_none(),
        };
        if differ {
            let plain = |own: Option<&Amount<'_>>| own.map_or("none", Amount::as_str).to_owned();
            let places = [
                ("container", container.name()),
                ("resource", name),
                ("request", &plain(request)),
                ("limit", &plain(limit)),
            ];
            findings.push(Finding::new(Code::DG012, path("requests"), places));
        } else if limit.and_then(Amount::quantity).is_some_and(|limit| !limit.is_positive()) {
            let places = [("container", container.name()), ("resource", name)];
            findings.push(Finding::new(Code::DG013, path("limits"), places));
        }
    }
}

/// Numbers that the pod says itself of a resource that it is granted, and that are others: the larger one
/// holds, and it may be neither what the author meant nor what the stamp says.
fn counts(container: &ContainerAfter<'_>, findings: &mut Vec<Finding>) {
    let own = &container.container.resources;
    let granted = container.grants.iter().filter_map(|grant| match grant {
        ContainerGrant::Resource { name, count } => Some((*name, *count)),
        _ => None,
    });
    for (name, count) in granted {
        let amounts = [("limits", own.limits.get(name)), ("requests", own.requests.get(name))];
        let amounts = amounts.into_iter().filter_map(|(list, own)| {
            let own = own?;
            Some((list, own, own.quantity()?))
        });
        // None is what somebody says who leaves the number to others.
        let amounts = amounts.filter(|(.., amount)| amount.is_positive());
        let amounts: Vec<_> = amounts.collect();
        let whole = Quantity::whole(count);
        let most = amounts.iter().map(|(.., amount)| *amount).max().unwrap_or(whole);
        let Some((list, own, _)) = amounts.into_iter().find(|(.., amount)| *amount != whole) else {
            continue;
        };
        let places = [
            ("container", container.name()),
            ("resource", name),
            ("own", own.as_str()),
            ("count", &count.to_string()),
            ("gets", &most.max(whole).to_whole()),
        ];
        let path = format!("{}/resources/{list}/{}", container.path, token(name));
        findings.push(Finding::new(Code::DG028, path, places));
    }
}

/// A pod's own choice of GPUs, where it requests none (F:E3).
fn nvidia(container: &ContainerAfter<'_>, findings: &mut Vec<Finding>) {
    let env = &container.container.env;
    let Some(index) = env.iter().rposition(|own| own.name == NVIDIA_VISIBLE_DEVICES) else {
        return;
    };
    let decided = container.grants.iter().any(|grant| match grant {
        ContainerGrant::NvidiaVoid => true,
        ContainerGrant::Environment { name, .. } => *name == NVIDIA_VISIBLE_DEVICES,
        _ => false,
    });
    let Some(own) = env.get(index) else { return };
    let claims = !container.container.resources.claims.is_empty()
        || container.grants.iter().any(|grant| matches!(grant, ContainerGrant::Claim(_)));
    if names_gpus(own) && !decided && !claims && !container.has_gpu() {
        let value = own.value.as_ref().map_or("(from elsewhere)", |value| value.as_str());
        let path = format!("{}/env/{index}", container.path);
        let places = [("container", container.name()), ("value", value)];
        findings.push(Finding::new(Code::DG015, path, places));
    }
}

fn mounts(container: &ContainerAfter<'_>, findings: &mut Vec<Finding>) {
    let is_privileged = container.is_privileged();
    for (index, mount) in container.container.volume_mounts.iter().enumerate() {
        let path = |field: &str| format!("{}/volumeMounts/{index}/{field}", container.path);
        // `C:` is where a path of Windows begins, and GPUs are for Windows pods too.
        let rest = match mount.mount_path.as_str().as_bytes() {
            [drive, b':', rest @ ..] if drive.is_ascii_alphabetic() => rest,
            all => all,
        };
        if rest.contains(&b':') {
            let places = [("container", container.name()), ("path", mount.mount_path.as_str())];
            findings.push(Finding::new(Code::DG019, path("mountPath"), places));
        }
        let both_ways =
            mount.mount_propagation.as_ref().is_some_and(|kind| *kind == "Bidirectional");
        if both_ways && !is_privileged {
            let places = [("container", container.name()), ("volume", mount.name.as_str())];
            findings.push(Finding::new(Code::DG020, path("mountPropagation"), places));
        }
    }
}
