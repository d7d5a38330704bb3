//! Which paths of the node a pod's volumes bring.

use std::collections::BTreeMap;

use crate::decision::path::parts;
use crate::decision::pod::{Spec, VolumeMount};

/// The longest path that Linux opens, `PATH_MAX`.
const LONGEST: usize = 4096;
/// The most folders of a path that are told apart. No device is so deep.
const DEEPEST: usize = 64;
/// What stands for the rest of a longer one. No path has such a part, so that none is the same.
const REST: &str = "/";

/// The paths of the node by the names of the volumes that bring them; of several volumes of one name, which
/// the API server refuses, the first one's.
///
/// They are split once for a pod: any number of mounts may be of one volume, and its path of any length.
pub(crate) struct NodePaths<'s>(BTreeMap<&'s str, Option<Vec<&'s str>>>);

impl<'s> NodePaths<'s> {
    /// Those of a pod.
    pub(crate) fn of(spec: &'s Spec<'_>) -> Self {
        let mut paths = BTreeMap::new();
        for volume in &spec.volumes {
            let path = || Some(bounded(parts(volume.host_path.as_ref()?.path.as_str())));
            paths.entry(volume.name.as_str()).or_insert_with(path);
        }
        Self(paths)
    }

    /// The path that a volume brings, by its parts; `None` if it is none of the node's.
    pub(crate) fn of_volume(&self, name: &str) -> Option<&[&'s str]> {
        self.0.get(name)?.as_deref()
    }

    /// The path that a mount shows, by its parts; `None` if it is none of the node's.
    pub(crate) fn of_mount(&self, mount: &'s VolumeMount<'_>) -> Option<Vec<&'s str>> {
        let mut path = self.of_volume(mount.name.as_str())?.to_vec();
        path.extend(mount.sub_path.iter().flat_map(|sub_path| parts(sub_path.as_str())));
        Some(path)
    }
}

/// A path without what is behind its [`LONGEST`] bytes and its [`DEEPEST`] folder.
fn bounded(mut path: Vec<&str>) -> Vec<&str> {
    let mut bytes = 0;
    let fits = path.iter().take(DEEPEST).take_while(|part| {
        bytes += 1 + part.len();
        bytes <= LONGEST
    });
    let fits = fits.count();
    if fits < path.len() {
        path.truncate(fits);
        path.push(REST);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_too_long_is_no_other() {
        assert_eq!(bounded(vec!["dev", "fuse"]), ["dev", "fuse"]);
        let long = "x".repeat(LONGEST);
        assert_eq!(bounded(vec!["dev", &long]), ["dev", REST]);
        assert_eq!(bounded(vec!["x"; DEEPEST]).len(), DEEPEST);
        assert_eq!(bounded(vec!["x"; DEEPEST + 1]).last(), Some(&REST));
    }
}
