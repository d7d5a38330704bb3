//! evidence: signs that a privileged container without any device of the node mounts by FUSE.
//!
//! A guess, for those who lint: nothing is ever rewritten on the strength of it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::decision::finding::{Code, Finding};
use crate::decision::plan::NodePaths;
use crate::decision::pod::{Container, Spec};

/// What is to be said of the containers of a pod that asks for nothing.
pub fn of_fuse(spec: &Spec<'_>) -> Vec<Finding> {
    let on_host = [spec.host_pid, spec.host_ipc, spec.host_network].contains(&Some(true));
    let paths = NodePaths::of(spec);
    let suspects = spec.all_containers().filter(|(_, container)| {
        container.security_context.privileged == Some(true)
            && !on_host
            && !shares_mounts(container)
            && !has_device(&paths, container)
    });
    suspects
        .filter_map(|(at, container)| {
            let program = program(container)?;
            let path = at.to_string();
            let words = [("container", container.name.as_str()), ("program", program)];
            Some(Finding::new(Code::DG025, path, words))
        })
        .collect()
}

/// Whether the container mounts for others, which only privileged ones may.
pub fn shares_mounts(container: &Container<'_>) -> bool {
    container
        .volume_mounts
        .iter()
        .any(|mount| mount.mount_propagation.as_ref().is_some_and(|kind| *kind == "Bidirectional"))
}

/// Whether the container mounts something of the node's `/dev`, or of all the node, which may be what it
/// is privileged for.
fn has_device(paths: &NodePaths<'_>, container: &Container<'_>) -> bool {
    let mut paths = container.volume_mounts.iter().filter_map(|mount| paths.of_mount(mount));
    paths.any(|path| matches!(path.as_slice(), [] | ["dev", ..]))
}

/// The program that mounts by FUSE, by the first of the container's own words that is one.
fn program(container: &Container<'_>) -> Option<&'static str> {
    let texts = [container.image, container.command, container.args, container.lifecycle];
    let mut words = BTreeSet::new();
    for text in texts.into_iter().flatten() {
        // What is nested too deep to be read is no command.
        add_words(&serde_json::from_str(text.get()).unwrap_or_default(), &mut words);
    }
    let named = |program: &&&str| words.contains(**program);
    let mounts = words.contains("mount");
    let of_two = MOUNTING.iter().filter(|_| mounts);
    PROGRAMS.iter().find(named).or_else(|| of_two.into_iter().find(named)).copied()
}

/// Adds the words of every text of a value, split where a name of a program or a path ends.
fn add_words(value: &Value, words: &mut BTreeSet<String>) {
    let is_part = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
    match value {
        Value::String(text) => {
            let parts = text.split(|char| !is_part(char)).filter(|word| !word.is_empty());
            words.extend(parts.map(str::to_owned));
        }
        Value::Array(items) => items.iter().for_each(|item| add_words(item, words)),
        Value::Object(fields) => fields.values().for_each(|field| add_words(field, words)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Programs that do nothing but mount by FUSE.
const PROGRAMS: &[&str] = &[
    "blobfuse",
    "blobfuse2",
    "cvmfs2",
    "fuse-overlayfs",
    "fusermount",
    "fusermount3",
    "gcsfuse",
    "geesefs",
    "goofys",
    "mount-s3",
    "s3fs",
    "squashfuse",
    "sshfs",
];

/// Programs that mount when they are told to.
const MOUNTING: &[&str] = &["juicefs", "rclone"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_by_whole_words() {
        for (text, program) in [
            (r#"{"command": ["sh", "-c", "gcsfuse bucket /data"]}"#, Some("gcsfuse")),
            (r#"{"image": "registry.example/s3fs:1.94"}"#, Some("s3fs")),
            (
                r#"{"args": ["mount", "remote:", "/data"], "image": "rclone/rclone"}"#,
                Some("rclone"),
            ),
            (r#"{"image": "rclone/rclone", "args": ["copy", "a:", "b:"]}"#, None),
            (
                r#"{"lifecycle": {"preStop": {"exec": {"command": ["/bin/fusermount3", "-u", "/x"]}}}}"#,
                Some("fusermount3"),
            ),
            (r#"{"command": ["sh", "-c", "set -e\ngcsfuse b /data\n"]}"#, Some("gcsfuse")),
            (r#"{"args": ["if true; then\n\tsshfs\u0020h: /x; fi"]}"#, Some("sshfs")),
            (r#"{"args": ["echo \\ngcsfuse"]}"#, None),
            (r#"{"image": "my-gcsfuse-free-image"}"#, None),
            (r#"{"command": null, "args": [null, 7]}"#, None),
            ("{}", None),
        ] {
            let container: Container<'_> = serde_json::from_str(text).unwrap();
            assert_eq!(super::program(&container), program, "{text}");
        }
    }
}
