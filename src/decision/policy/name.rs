//! The name rules of Kubernetes that a policy must keep, so that no pod learns of them from the API
//! server (`kubernetes/apimachinery pkg/util/validation/validation.go`).

/// Capabilities of Linux 6.x, as `kubernetes` spells them (`include/uapi/linux/capability.h`).
pub(super) const CAPABILITIES: &[&str] = &[
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// A DNS-1123 label: lower case, digits and `-`, at most 63 characters.
pub(super) fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    bounded(text, 63) && text.bytes().all(inner) && ends_alphanumeric(text)
}

/// A DNS-1123 subdomain: labels with dots between, at most 253 characters.
pub fn is_dns_subdomain(text: &str) -> bool {
    bounded(text, 253)
        && text.split('.').all(|label| {
            let inner =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            !label.is_empty() && label.bytes().all(inner) && ends_alphanumeric(label)
        })
}

/// A qualified name: an optional DNS subdomain and a slash, then at most 63 characters. Label and
/// annotation keys, scheduling gates and resource names are such names.
pub(super) fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((domain, name)) => is_dns_subdomain(domain) && is_name_part(name),
        None => is_name_part(text),
    }
}

/// A label value: empty, or at most 63 characters that begin and end alphanumeric.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_name_part(text)
}

/// The name of an environment variable that every runtime takes.
pub(super) fn is_environment_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !text.is_empty()
        && text.bytes().all(inner)
        && !text.starts_with(|char: char| char.is_ascii_digit())
}

/// Why a name is no extended resource name, if it is none
/// (`kubernetes pkg/apis/core/helper/helpers.go`, `IsExtendedResourceName`).
pub(super) fn extended_resource_fault(name: &str) -> Option<&'static str> {
    let Some((domain, part)) = name.split_once('/') else {
        return Some(
            "an extended resource has a domain and a slash, as in `vendor.example/device`",
        );
    };
    if name.contains("kubernetes.io/") {
        return Some(
            "a name with `kubernetes.io/` in it is native to Kubernetes, so no device plugin may serve it",
        );
    }
    if name.starts_with("requests.") {
        return Some("a name that starts with `requests.` is a quota name");
    }
    // The API server checks the name behind `requests.`, which takes 9 of the 253 characters.
    if !is_dns_subdomain(domain) || domain.len() > 244 {
        return Some("the part before the slash must be a DNS subdomain of at most 244 characters");
    }
    if !is_name_part(part) {
        return Some(
            "the part behind the slash must be at most 63 letters, digits, `-`, `_` or `.`",
        );
    }
    None
}

/// The name of a mode, as an annotation may spell it: a label with dots, and not readable as a count
/// or as one of the words of the grammar.
pub(super) fn is_mode_name(text: &str) -> bool {
    let inner = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.')
    };
    bounded(text, 63)
        && text.bytes().all(inner)
        && ends_alphanumeric(text)
        && !text.bytes().all(|byte| byte.is_ascii_digit())
        && !matches!(text, "true" | "false")
}

fn is_name_part(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    bounded(text, 63) && text.bytes().all(inner) && ends_alphanumeric(text)
}

fn bounded(text: &str, most: usize) -> bool {
    !text.is_empty() && text.len() <= most
}

fn ends_alphanumeric(text: &str) -> bool {
    text.starts_with(|char: char| char.is_ascii_alphanumeric())
        && text.ends_with(|char: char| char.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_resource_names() {
        for name in ["smarter-devices/fuse", "nvidia.com/gpu", "huawei.com/Ascend910", "a/b_c.d-e"]
        {
            assert_eq!(extended_resource_fault(name), None, "{name}");
        }
        let long_domain = format!("{}/x", ["a"; 123].join("."));
        let long_part = format!("a.b/{}", "x".repeat(64));
        for name in [
            "fuse",
            "kubernetes.io/fuse",
            "mykubernetes.io/fuse",
            "requests.foo/fuse",
            "a/b/c",
            "A.b/c",
            "a.b/",
            "/c",
            "",
            &long_domain,
            &long_part,
        ] {
            assert!(extended_resource_fault(name).is_some(), "{name}");
        }
    }

    #[test]
    fn mode_names_are_no_counts_and_no_words() {
        for name in ["mount", "h100", "mig-1g.10gb", "4x"] {
            assert!(is_mode_name(name), "{name}");
        }
        for name in ["", "true", "false", "2", "A", "a:b", "-a", "a-", "a b"] {
            assert!(!is_mode_name(name), "{name}");
        }
    }

    #[test]
    fn capabilities_are_sorted_and_bare() {
        assert!(CAPABILITIES.is_sorted());
        assert!(CAPABILITIES.iter().all(|name| !name.starts_with("CAP_")));
    }
}
