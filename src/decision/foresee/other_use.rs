//! `other_use`: signs that a privileged container is privileged for more than the device that it mounts.
//!
//! A guess, for those who write manifests anew: the line at admission does not go by it.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::decision::path::parts;
use crate::decision::pod::{Container, Spec};
use crate::decision::spelling::excerpt;

/// What the container does beside, for a sentence that begins with it: «it runs `modprobe`». `None` where
/// nothing says so.
pub fn of_container(spec: &Spec<'_>, container: &Container<'_>) -> Option<String> {
    of_words(container).or_else(|| of_node(spec, container))
}

/// By the words of its image and of what it runs.
fn of_words(container: &Container<'_>) -> Option<String> {
    let texts = [container.image, container.command, container.args, container.lifecycle];
    let texts: Vec<String> = texts.into_iter().flatten().flat_map(strings).collect();
    let words: Vec<&str> = texts.iter().flat_map(|text| words(text)).collect();
    if let Some(program) = PROGRAMS.iter().find(|program| words.contains(*program)) {
        return Some(format!("it names `{program}`"));
    }
    let mounts = words.iter().position(|word| *word == "mount")?;
    let mut behind = words.iter().skip(mounts).skip_while(|word| !TYPE.contains(*word)).skip(1);
    let kind = behind.next().filter(|kind| !kind.starts_with("fuse"))?;
    Some(format!("it mounts by `mount -t {}`", excerpt(kind)))
}

/// By what it mounts of the node beside devices.
fn of_node(spec: &Spec<'_>, container: &Container<'_>) -> Option<String> {
    let mut mounts = container.volume_mounts.iter();
    mounts.find_map(|mount| {
        let volume = spec.volumes.iter().find(|volume| volume.name == mount.name.as_str())?;
        let path = volume.host_path.as_ref()?.path.as_str();
        let parts = parts(path);
        let is_socket = parts.last().is_some_and(|last| {
            SOCKETS.iter().any(|end| last.strip_suffix(end).is_some_and(|name| !name.is_empty()))
        });
        let is_of_kernel_or_runtime = TREES.iter().any(|tree| parts.starts_with(tree));
        (is_socket || is_of_kernel_or_runtime)
            .then(|| format!("it mounts `{}` of the node", excerpt(path)))
    })
}

/// All texts of a value, with their escapes read.
fn strings(raw: &RawValue) -> Vec<String> {
    fn collect(value: Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) => found.push(text),
            Value::Array(items) => items.into_iter().for_each(|item| collect(item, found)),
            Value::Object(fields) => {
                fields.into_iter().for_each(|(_, field)| collect(field, found));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    if let Ok(value) = serde_json::from_str(raw.get()) {
        collect(value, &mut found);
    }
    found
}

/// The words of a text, split where a name of a program or a path ends.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
    text.split(move |char| !is_part(char)).filter(|word| !word.is_empty())
}

/// Programs that need more of the node than a device: its kernel, network or other containers.
const PROGRAMS: &[&str] = &[
    "containerd",
    "cryptsetup",
    "dind",
    "dmsetup",
    "docker",
    "dockerd",
    "insmod",
    "ip6tables",
    "iptables",
    "iptables-legacy",
    "iptables-nft",
    "iptables-restore",
    "ipvsadm",
    "losetup",
    "modprobe",
    "mount.ceph",
    "mount.cifs",
    "mount.nfs",
    "mount.nfs4",
    "nft",
    "nsenter",
    "rmmod",
    "sysctl",
];

/// How `mount` is told the kind of file system.
const TYPE: &[&str] = &["-t", "--types"];

/// What sockets are called.
const SOCKETS: &[&str] = &[".sock", ".socket"];

/// Folders of the node that belong to its kernel, its container runtime or its kubelet.
const TREES: &[&[&str]] = &[
    &["lib", "modules"],
    &["proc"],
    &["run"],
    &["sys"],
    &["usr", "lib", "modules"],
    &["usr", "src"],
    &["var", "lib", "containerd"],
    &["var", "lib", "docker"],
    &["var", "lib", "kubelet"],
    &["var", "run"],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_more_is_told_by_whole_words_and_paths() {
        for (text, why) in [
            (r#"{"image": "registry.example/docker:27-dind"}"#, Some("it names `docker`")),
            (r#"{"command": ["sh", "-c", "set -e\nmodprobe nfs"]}"#, Some("it names `modprobe`")),
            (r#"{"args": ["sysctl", "-w", "a=1"]}"#, Some("it names `sysctl`")),
            (
                r#"{"command": ["mount", "-o", "ro", "-t", "nfs", "a:/b", "/c"]}"#,
                Some("it mounts by `mount -t nfs`"),
            ),
            (r#"{"command": ["sh", "-c", "mount -t fuse.sshfs a:/b /c"]}"#, None),
            (r#"{"command": ["rclone", "mount", "a:", "/b"]}"#, None),
            (r#"{"image": "registry.example/docker-free:1", "command": null, "args": [7]}"#, None),
            (
                r#"{"volumeMounts": [{"name": "modules", "mountPath": "/lib/modules"}]}"#,
                Some("it mounts `/lib/modules/` of the node"),
            ),
            (
                r#"{"volumeMounts": [{"name": "socket", "mountPath": "/x"}]}"#,
                Some("it mounts `/opt/agent.sock` of the node"),
            ),
            (
                r#"{"volumeMounts": [{"name": "docker", "mountPath": "/x"}]}"#,
                Some("it mounts `/var/run/docker.sock` of the node"),
            ),
            (r#"{"volumeMounts": [{"name": "data", "mountPath": "/x"}]}"#, None),
            ("{}", None),
        ] {
            let spec: Spec<'_> = serde_json::from_str(
                r#"{"volumes": [
                    {"name": "modules", "hostPath": {"path": "/lib/modules/"}},
                    {"name": "socket", "hostPath": {"path": "/opt/agent.sock"}},
                    {"name": "docker", "hostPath": {"path": "/var/run/docker.sock"}},
                    {"name": "data", "hostPath": {"path": "/srv/data"}}
                ]}"#,
            )
            .unwrap();
            let container: Container<'_> = serde_json::from_str(text).unwrap();
            assert_eq!(of_container(&spec, &container).as_deref(), why, "{text}");
        }
    }
}
