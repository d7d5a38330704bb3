//! The legacy rewrite: `privileged` and a hostPath give way to the grant.
//!
//! A container is rewritten as a whole or not at all. It keeps what it has where `privileged` visibly
//! serves something else, or where what it sees would not be at the same place: nothing is widened, and
//! nothing is taken that the grant does not bring.

use std::collections::BTreeSet;

use super::node_path::NodePaths;
use super::{ContainerGrant, PodGrant};
use crate::decision::ask::{Ask, Chosen};
use crate::decision::finding::{Code, Finding};
use crate::decision::path::{is_harmless, is_named_after, parts};
use crate::decision::pod::{Container, ContainerIndex, Spec, VolumeMount};
use crate::decision::policy::schema::{Legacy, LegacyAction, Requested, ResourceCount};
use crate::decision::policy::{Policy, PolicySet};
use crate::decision::spelling::excerpt;

/// The device that runc's default rules let every container open (F:D2): by hostPath it works there, and
/// not with every version of every runtime.
const TUN: &str = "/dev/net/tun";

/// What becomes of the old shape in one container.
pub(super) struct Rewrite<'p> {
    /// What goes.
    pub(super) grants: Vec<ContainerGrant<'p>>,
    /// What is said.
    pub(super) findings: Vec<Finding>,
}

/// A pod, and what is the same for all of its containers: read once, since there may be thousands.
pub(super) struct OldShapes<'s> {
    spec: &'s Spec<'s>,
    paths: NodePaths<'s>,
    /// The path by which the pod registers itself with the kubelet.
    plugin: Option<&'s str>,
}

impl<'s> OldShapes<'s> {
    /// Reads a pod.
    pub(super) fn of(spec: &'s Spec<'s>) -> Self {
        Self { spec, paths: NodePaths::of(spec), plugin: kubelet_plugin(spec) }
    }

    /// Looks for the old shape of the devices that a container is granted.
    pub(super) fn rewrite<'p>(
        &self,
        at: ContainerIndex,
        container: &Container<'_>,
        asks: &[&Ask<'_>],
    ) -> Option<Rewrite<'p>> {
        rewrite(self, at, container, asks)
    }
}

fn rewrite<'p>(
    pod: &OldShapes<'_>,
    at: ContainerIndex,
    container: &Container<'_>,
    asks: &[&Ask<'_>],
) -> Option<Rewrite<'p>> {
    // The hatch asks for the old shape.
    let asked: Vec<Claimant<'_>> = asks
        .iter()
        .filter(|ask| !ask.mode.privileged)
        .filter_map(|ask| Some(Claimant { ask, legacy: ask.policy.spec().legacy.as_ref()? }))
        .filter(|one| one.legacy.action != LegacyAction::Ignore)
        .collect();
    // All of `/dev` is no sign of a device that nobody looks for.
    if asked.is_empty() {
        return None;
    }
    let paths: Vec<Option<Vec<&str>>> =
        container.volume_mounts.iter().map(|mount| pod.paths.of_mount(mount)).collect();
    let uses: Vec<(usize, Use)> = container
        .volume_mounts
        .iter()
        .zip(&paths)
        .map(|(mount, path)| use_of(mount, path.as_deref(), &asked, asks))
        .enumerate()
        .collect();
    let of_device: Vec<(usize, &str)> = uses
        .iter()
        .filter_map(|(index, host)| match host {
            Use::Device(path) | Use::AllDevices(path) => Some((*index, path.as_str())),
            _ => None,
        })
        .collect();
    let first = uses.iter().find_map(|(_, host)| match host {
        Use::Device(path) | Use::AllDevices(path) | Use::Moved(path, _) => Some(path.as_str()),
        _ => None,
    })?;

    // The policies whose devices these are; all of `/dev` is everybody's.
    let concerned: Vec<&Claimant<'_>> = asked
        .iter()
        .filter(|one| {
            let mut uses = uses.iter().zip(&paths);
            uses.any(|((_, host), path)| {
                host.is_old_shape() && path.as_ref().is_some_and(|path| one.has(path))
            })
        })
        .collect();

    let place = at.to_string();
    let name = container.name.as_str();
    let is_privileged = container.security_context.privileged == Some(true);
    let said = |code, why: &str| Rewrite {
        grants: Vec::new(),
        findings: vec![Finding::new(
            code,
            place.clone(),
            [("container", name), ("path", first), ("why", why)],
        )],
    };
    if concerned.iter().any(|one| one.legacy.action == LegacyAction::Deny) {
        return Some(said(Code::DG023, ""));
    }
    if concerned.iter().any(|one| one.legacy.action == LegacyAction::Warn) {
        return Some(said(Code::DG022, "the policy only warns of it"));
    }
    let unprivileged = is_privileged && asked.iter().all(|one| one.legacy.privileged);
    if is_privileged && !unprivileged {
        return Some(said(Code::DG022, "the policy leaves `privileged` alone"));
    }
    // What the one ask takes away, the other would give.
    if let Some(hatch) = asks.iter().find(|ask| ask.mode.privileged) {
        let (mode, device) = (hatch.mode_name, hatch.policy.device());
        let why = format!("the mode `{mode}` of `{device}`, which it asks for too, is privileged");
        return Some(said(Code::DG022, &why));
    }
    if let Some(why) = brings_nothing(pod.spec, &concerned) {
        return Some(said(Code::DG022, &why));
    }
    if let Some(why) =
        in_a_guest(pod.spec, asks).or_else(|| serves_else(pod, container, &uses, is_privileged))
    {
        return Some(said(Code::DG022, &why));
    }

    let mut grants: Vec<ContainerGrant<'p>> =
        of_device.iter().rev().map(|(index, _)| ContainerGrant::Unmount(*index)).collect();
    if unprivileged {
        grants.push(ContainerGrant::Unprivileged);
    }
    let what = match (uses.iter().any(|(_, host)| matches!(host, Use::AllDevices(_))), unprivileged)
    {
        (true, _) => "other devices that it used from there are gone",
        (false, true) => "`privileged` goes too",
        (false, false) if first == TUN => "an unprivileged container can open it under runc only",
        (false, false) => "an unprivileged container could not open it",
    };
    let mut what = what.to_owned();
    // Of FUSE there is one; of GPUs a privileged container sees them all.
    if let Some(one) = concerned.iter().find(|one| one.counts()).filter(|_| is_privileged) {
        let (count, device) = (one.ask.count, one.ask.policy.device());
        let shown = format!("; of `{device}` it saw all that the node has, and now sees {count}");
        what.push_str(&shown);
    }
    if concerned.iter().any(|one| one.ask.chosen == Chosen::OldShape) {
        what.push_str("; the annotation that asks for it is added");
    }
    let mut rewrite = said(Code::DG021, &what);
    rewrite.grants = grants;
    Some(rewrite)
}

/// The hostPath by which a container has a device; `None` if it has none. All of `/dev` is no sign of one
/// device.
pub(crate) fn old_shape(
    paths: &NodePaths<'_>,
    container: &Container<'_>,
    legacy: &Legacy,
) -> Option<String> {
    container.volume_mounts.iter().find_map(|mount| {
        let path = paths.of_mount(mount)?;
        let is_the_device = legacy.host_paths.iter().any(|device| is_device(&path, device));
        is_the_device.then(|| excerpt(&format!("/{}", path.join("/"))))
    })
}

/// Whether a pod registers itself with the kubelet: a device plugin, or a driver.
pub(crate) fn is_kubelet_plugin(spec: &Spec<'_>) -> bool {
    kubelet_plugin(spec).is_some()
}

fn kubelet_plugin<'s>(spec: &'s Spec<'_>) -> Option<&'s str> {
    let mut paths = spec.volumes.iter().filter_map(|volume| volume.host_path.as_ref());
    let folders = ["device-plugins", "plugins_registry"];
    let plugin = paths.find(|host_path| {
        parts(host_path.path.as_str()).iter().any(|part| folders.contains(part))
    })?;
    Some(plugin.path.as_str())
}

/// The volumes of the old shape that no mount is left for, the last one first.
pub(super) fn volumes<'p>(
    spec: &Spec<'_>,
    containers: &[(ContainerIndex, Vec<ContainerGrant<'_>>)],
) -> Vec<PodGrant<'p>> {
    let unmounted: BTreeSet<(ContainerIndex, usize)> = containers
        .iter()
        .flat_map(|(at, grants)| {
            grants.iter().filter_map(|grant| match grant {
                ContainerGrant::Unmount(index) => Some((*at, *index)),
                _ => None,
            })
        })
        .collect();
    let mut freed = BTreeSet::new();
    let mut held = BTreeSet::new();
    // A name that a grant mounts is taken for the volume that is there.
    let granted: Vec<String> = containers
        .iter()
        .flat_map(|(_, grants)| grants)
        .filter_map(|grant| match grant {
            ContainerGrant::Mount { volume, .. } => Some(volume.to_string()),
            _ => None,
        })
        .collect();
    held.extend(granted.iter().map(String::as_str));
    for (at, container) in spec.all_containers() {
        for (index, mount) in container.volume_mounts.iter().enumerate() {
            let names = if unmounted.contains(&(at, index)) { &mut freed } else { &mut held };
            names.insert(mount.name.as_str());
        }
    }
    if freed.is_empty() {
        return Vec::new();
    }
    let goes = |name: &str| freed.contains(name) && !held.contains(name);
    let volumes = spec.volumes.iter().enumerate().rev();
    volumes
        .filter(|(_, volume)| goes(volume.name.as_str()))
        .map(|(index, _)| PodGrant::RemoveVolume(index))
        .collect()
}

/// What a container has of the node's devices by hostPath.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDevice<'p> {
    /// The path on the node; `/dev` and `/` are all devices.
    pub path: String,
    /// The device of which a policy names this path in `legacy`; `None` if none does.
    pub device: Option<&'p str>,
}

/// The devices of the node that a container mounts, in the order of its mounts. What every container may
/// open anyway is not among them.
pub fn devices_of<'p>(
    spec: &Spec<'_>,
    container: &Container<'_>,
    policies: &'p PolicySet,
) -> Vec<HostDevice<'p>> {
    let of_pod = NodePaths::of(spec);
    let paths = container.volume_mounts.iter().filter_map(|mount| of_pod.of_mount(mount));
    let devices = paths.filter_map(|path| {
        let device = policies.policies().iter().find(|policy| {
            let mut devices = policy.spec().legacy.iter().flat_map(|legacy| &legacy.host_paths);
            devices.any(|device| is_device(&path, device))
        });
        let is_there = match path.as_slice() {
            [] => true,
            ["dev", below @ ..] => !is_harmless(below),
            _ => device.is_some(),
        };
        is_there.then(|| HostDevice {
            path: format!("/{}", path.join("/")),
            device: device.map(Policy::device),
        })
    });
    devices.collect()
}

/// An ask for a device whose old shape is known.
struct Claimant<'s> {
    ask: &'s Ask<'s>,
    legacy: &'s Legacy,
}

impl Claimant<'_> {
    /// Whether a path is that of the device, or of all of `/dev`.
    fn has(&self, path: &[&str]) -> bool {
        let mut devices = self.legacy.host_paths.iter();
        path == ["dev"] || devices.any(|device| is_device(path, device))
    }

    /// Whether the device is one of several that a node may have.
    fn counts(&self) -> bool {
        let requested = ResourceCount::Requested(Requested::Requested);
        self.ask.mode.resources.iter().any(|resource| resource.count == requested)
    }
}

/// Why the device would not be there without the hostPath; `None` if the grant brings it. Where a
/// RuntimeClass or another resource makes the mode's own resource unnecessary, they bring it.
fn brings_nothing(spec: &Spec<'_>, concerned: &[&Claimant<'_>]) -> Option<String> {
    if let Some(one) = concerned.iter().find(|one| !one.ask.mode.brings_device()) {
        let (mode, device) = (one.ask.mode_name, one.ask.policy.device());
        return Some(format!("the mode `{mode}` of `{device}` brings no device"));
    }
    // The kubelet starts such a pod on a node without the device, too (F:A15).
    let node = spec.node_name.as_ref().map(super::super::pod::Text::as_str).unwrap_or_default();
    (!node.is_empty())
        .then(|| "`spec.nodeName` is set, so that nobody checks for the device there".to_owned())
}

/// What a mount brings from the node.
enum Use {
    /// Nothing, or data.
    Other,
    /// A device that is asked for, at its own path.
    Device(String),
    /// All of `/dev`, at `/dev`.
    AllDevices(String),
    /// A device that is asked for, or all of `/dev`, at another path; and at which, in words.
    Moved(String, String),
    /// Something for which the container may need to be as it is; in words.
    Else(String),
}

impl Use {
    /// Whether the mount is what the grant replaces.
    fn is_old_shape(&self) -> bool {
        matches!(self, Self::Device(_) | Self::AllDevices(_) | Self::Moved(..))
    }
}

fn use_of(
    mount: &VolumeMount<'_>,
    path: Option<&[&str]>,
    asked: &[Claimant<'_>],
    asks: &[&Ask<'_>],
) -> Use {
    let Some(path) = path else {
        return Use::Other;
    };
    let shown = excerpt(&format!("/{}", path.join("/")));
    let is_asked =
        asked.iter().flat_map(|one| &one.legacy.host_paths).any(|device| is_device(path, device));
    if mount.sub_path_expr.as_ref().is_some_and(|expr| !expr.as_str().is_empty())
        && (path == ["dev"] || is_asked)
    {
        let why = "a `subPathExpr` says only at run time what is mounted".to_owned();
        return Use::Moved(shown, why);
    }
    let inside = parts(mount.mount_path.as_str());
    let elsewhere = || {
        let inside = excerpt(&format!("/{}", inside.join("/")));
        format!("it is mounted at `{inside}`, where the program may look for it")
    };
    match path {
        [] => Use::Else("the node's `/` is mounted".to_owned()),
        ["dev"] if inside == ["dev"] => Use::AllDevices(shown),
        _ if is_asked && inside == path => Use::Device(shown),
        ["dev"] => Use::Moved(shown, elsewhere()),
        _ if is_asked => Use::Moved(shown, elsewhere()),
        ["dev", below @ ..] if is_harmless(below) => Use::Other,
        ["dev", ..] => {
            let brought = asks.iter().find(|ask| {
                let mut resources = ask.mode.resources.iter();
                resources.any(|resource| is_named_after(&resource.name, path))
            });
            Use::Else(match brought {
                Some(ask) => format!(
                    "the policy for `{}` does not name `{shown}` in `legacy.hostPaths`",
                    ask.policy.device()
                ),
                None => format!("`{shown}` is a device of the node that is not asked for"),
            })
        }
        ["sys" | "proc", ..] => Use::Else(format!("the node's `{shown}` is mounted")),
        _ => Use::Other,
    }
}

/// In Kata's guest the hostPath is the guest's own device, and the class may be the pod's or a mode's.
fn in_a_guest(spec: &Spec<'_>, asks: &[&Ask<'_>]) -> Option<String> {
    let own = spec.runtime_class_name.as_ref().map(super::super::pod::Text::as_str);
    let granted = asks.iter().filter_map(|ask| ask.mode.runtime_class_name.as_deref());
    let class = own.into_iter().chain(granted).find(|class| class.starts_with("kata"))?;
    Some(format!("the RuntimeClass `{}` runs it in a guest of its own", excerpt(class)))
}

/// What `privileged`, or the mount, visibly serves beside the devices; `None` if nothing.
fn serves_else(
    pod: &OldShapes<'_>,
    container: &Container<'_>,
    uses: &[(usize, Use)],
    is_privileged: bool,
) -> Option<String> {
    // A device plugin has exactly the old shape, and would ask for what only it can offer.
    let spec = pod.spec;
    if let Some(path) = pod.plugin.map(excerpt) {
        return Some(format!("`{path}` is mounted: this is a plugin of the kubelet"));
    }
    let other = uses.iter().find_map(|(_, host)| match host {
        Use::Else(why) | Use::Moved(_, why) => Some(why.clone()),
        _ => None,
    });
    if other.is_some() || !is_privileged {
        return other;
    }
    let hosts = [
        ("hostPID", spec.host_pid),
        ("hostIPC", spec.host_ipc),
        ("hostNetwork", spec.host_network),
    ];
    if let Some((field, _)) = hosts.iter().find(|(_, value)| *value == Some(true)) {
        return Some(format!("the pod has `{field}: true`"));
    }
    let mut mounts = container.volume_mounts.iter();
    let shared = mounts.find(|mount| {
        mount.mount_propagation.as_ref().is_some_and(|kind| *kind == "Bidirectional")
    });
    shared.map(|mount| {
        let name = excerpt(mount.name.as_str());
        format!("`{name}` is mounted `Bidirectional`, which needs `privileged`")
    })
}

/// Whether a path of the node is a device of a policy, or inside of one that is a folder. By parts, never
/// by substring: `/dev/fuse-data` is not `/dev/fuse`.
fn is_device(path: &[&str], device: &str) -> bool {
    let device = parts(device);
    let Some((last, folder)) = device.split_last() else { return false };
    let Some((below, at)) = path.split_at_checked(folder.len()) else { return false };
    let Some(name) = at.first() else { return false };
    below == folder && last.strip_suffix('*').map_or(name == last, |start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_match_by_the_parts_of_their_path() {
        for (path, device) in [
            ("/dev/fuse", "/dev/fuse"),
            ("//dev//fuse/", "/dev/fuse"),
            ("/dev/./fuse", "/dev/fuse"),
            ("/dev/nvidia0", "/dev/nvidia*"),
            ("/dev/nvidia-caps/nvidia-cap1", "/dev/nvidia*"),
            ("/dev/infiniband/uverbs0", "/dev/infiniband"),
        ] {
            assert!(is_device(&parts(path), device), "{path} {device}");
        }
        for (path, device) in [
            ("/dev/fuse-data", "/dev/fuse"),
            ("/srv/dev/fuse", "/dev/fuse"),
            ("/dev", "/dev/fuse"),
            ("/", "/dev/fuse"),
            ("/var/lib/plugins/fuse-fs", "/dev/fuse"),
            ("/dev/nvme0", "/dev/nvidia*"),
        ] {
            assert!(!is_device(&parts(path), device), "{path} {device}");
        }
    }
}
