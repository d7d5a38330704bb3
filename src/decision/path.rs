//! Paths of nodes and containers, by their parts: never by substring.

/// The parts of a path, as a runtime sees it: `//dev/./fuse/` is `/dev/fuse`.
pub fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect()
}

/// Whether two paths are one and the same, as a runtime sees it.
pub fn same_path(one: &str, other: &str) -> bool {
    parts(one) == parts(other)
}

/// Whether something below `/dev`, given by its parts there, is a device that every container may open
/// anyway, or no device at all.
///
/// The first kind is runc's (`opencontainers/runc libcontainer/specconv/spec_linux.go`) less tun, which
/// some versions leave out. The others are folders and sockets; of huge pages there may be several
/// mounts, `/dev/hugepages` and `/dev/hugepages1G`.
pub fn is_harmless(below_dev: &[&str]) -> bool {
    match below_dev {
        ["full" | "null" | "ptmx" | "random" | "tty" | "urandom" | "zero"]
        | ["log" | "mqueue" | "pts" | "shm", ..] => true,
        [folder, ..] => folder.starts_with("hugepages"),
        [] => false,
    }
}

/// Whether a resource is named after a device of the node, which is given by the parts of its path:
/// `smarter-devices/net_tun` or `squat.ai/tun` after `/dev/net/tun`.
pub fn is_named_after(resource: &str, path: &[&str]) -> bool {
    let (Some((_, name)), ["dev", below @ ..]) = (resource.split_once('/'), path) else {
        return false;
    };
    below.last() == Some(&name) || below.join("_") == name
}

/// A key as a token of a JSON Pointer (RFC 6901).
pub fn token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_the_same_by_their_parts() {
        assert!(same_path("//dev/./fuse/", "/dev/fuse"));
        assert!(!same_path("/dev/fuse", "/dev/fuse2"));
        assert!(!same_path("/dev", "/dev/fuse"));
    }

    #[test]
    fn harmless_is_what_every_container_has() {
        for path in ["null", "pts/0", "shm/x", "hugepages", "hugepages1G", "log"] {
            assert!(is_harmless(&parts(path)), "{path}");
        }
        for path in ["", "fuse", "net/tun", "snd", "null/x", "shmem"] {
            assert!(!is_harmless(&parts(path)), "{path}");
        }
    }
}
