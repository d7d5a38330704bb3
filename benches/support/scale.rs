//! Pods of which there is more and more of one thing, and how the work grows with it.
//!
//! Whoever may create a pod chooses how many containers, mounts or names it has. Were the work to grow with
//! the square of that, one pod could keep everybody's grants waiting.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{self, Write as _};

use anyhow::{anyhow, ensure};
use devgrant::decision::{
    KubernetesVersion, Namespace, PolicySet, PolicySource, Review, Settings, admit, advise, glance,
    validate,
};
use devgrant::policies;

use super::callgrind::once;

/// Before the name of each step.
pub(crate) const MARK: &str = "scale: ";
/// The most instructions for twice as much of a thing, beside those for the once. Twice would be two, and
/// what is sorted takes a little more; the square would be four.
const MOST: f64 = 2.25;

/// The containers of a pod.
const MANY: usize = 500;
/// The things in one container.
const MORE: usize = 2_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Mutate,
    Validate,
    Advise,
}

#[derive(Clone, Copy)]
enum Policies {
    Shipped,
    /// Those, looking at pods that ask for nothing.
    Always,
    /// Those, refusing such pods.
    Deny,
    /// With the privileged mode of `fuse` for everybody, on a cluster that knows AppArmor's annotation only.
    Hatch,
}

/// A review by how many things are in it.
struct Shape {
    name: &'static str,
    count: usize,
    doors: &'static [Door],
    policies: Policies,
    review: fn(usize) -> String,
}

const fn shape(name: &'static str, count: usize, review: fn(usize) -> String) -> Shape {
    Shape { name, count, doors: &[Door::Mutate], policies: Policies::Shipped, review }
}

const ALL: &str = r#""devices.example/fuse":"true","devices.example/containers":"*""#;
const FUSE: &str = r#""devices.example/fuse":"true""#;
const OLD: &str = r#""securityContext":{"privileged":true},"volumeMounts":[{"name":"v","mountPath":"/dev/fuse"}]"#;
const VOLUME: &str = r#""volumes":[{"name":"v","hostPath":{"path":"/dev/fuse"}}]"#;

const SHAPES: &[Shape] = &[
    Shape {
        doors: &[Door::Mutate, Door::Validate],
        ..shape("containers with a volume each", MANY, |n| own_volumes(n, ALL))
    },
    Shape {
        policies: Policies::Always,
        ..shape("containers with a volume each, unasked", MANY, |n| own_volumes(n, ""))
    },
    Shape {
        policies: Policies::Always,
        ..shape("containers of the old shape, unasked", MANY, |n| old_shape(n, "", |_| ""))
    },
    Shape {
        policies: Policies::Always,
        ..shape("containers that stay, unasked", MANY, |n| {
            old_shape(
                n,
                "",
                every_second(r#","env":[{"name":"NVIDIA_VISIBLE_DEVICES","value":"all"}]"#),
            )
        })
    },
    Shape {
        policies: Policies::Always,
        ..shape("containers in conflict, unasked", MANY, |n| {
            let privileged =
                r#""securityContext":{"privileged":true,"capabilities":{"drop":["SYS_ADMIN"]}}"#;
            containers(n, "", VOLUME, |_| format!("{privileged},{}", mounts(1, "/dev/fuse", "v")))
        })
    },
    Shape {
        policies: Policies::Deny,
        ..shape("containers of the old shape, denied", MANY, |n| old_shape(n, ALL, |_| ""))
    },
    Shape {
        policies: Policies::Hatch,
        ..shape("containers with the device at its path, in the hatch", 2 * MANY, |n| {
            let annotations =
                r#""devices.example/fuse":"privileged","devices.example/containers":"*""#;
            let volumes = list("volumes", n, |at| {
                format!(r#"{{"name":"v{at}","hostPath":{{"path":"/dev/fuse"}}}}"#)
            });
            containers(n, annotations, &volumes, |at| mounts(1, "/dev/fuse", &format!("v{at}")))
        })
    },
    shape("containers in conflict", 2 * MANY, |n| {
        containers(n, ALL, "", |_| {
            r#""securityContext":{"capabilities":{"drop":["SYS_ADMIN"]}}"#.to_owned()
        })
    }),
    shape("containers with findings of several codes", MANY, |n| {
        let annotations = r#""devices.example/fuse":"true","devices.example/tun":"true","devices.example/containers":"*""#;
        containers(n, annotations, "", |at| {
            match at % 2 {
            0 => r#""securityContext":{"allowPrivilegeEscalation":false,"runAsUser":1000,"capabilities":{"add":["CAP_CHOWN"]}}"#.to_owned(),
            _ => r#""securityContext":{"runAsUser":1000,"procMount":"Unmasked"},"resources":{"limits":{"a.test/b":"0"}}"#.to_owned(),
        }
        })
    }),
    shape("containers that are named", MANY, |n| {
        let names: Vec<String> = (0..n).rev().map(|at| format!("c{at}")).collect();
        let annotations =
            format!(r#"{FUSE},"devices.example/fuse.containers":"{}""#, names.join(","));
        containers(n, &annotations, "", |_| "\"env\":[]".to_owned())
    }),
    shape("names of containers that are not there", MANY, |n| {
        let names: Vec<String> = (0..n).map(|at| format!("d{at}")).collect();
        let annotations =
            format!(r#"{FUSE},"devices.example/fuse.containers":"{}""#, names.join(","));
        containers(n, &annotations, "", |_| "\"env\":[]".to_owned())
    }),
    shape("containers under a profile of a long kind", MANY, |n| {
        let kind = "x".repeat(100 * n);
        let spec = format!(
            r#""securityContext":{{"seccompProfile":{{"type":"{kind}"}},"appArmorProfile":{{"type":"{kind}"}}}}"#
        );
        let rootless = r#""devices.example/fuse":"rootless","devices.example/containers":"*""#;
        containers(n, rootless, &spec, |_| "\"env\":[]".to_owned())
    }),
    Shape {
        policies: Policies::Hatch,
        ..shape("containers with an annotation each", MANY, |n| {
            let mut annotations = ALL.to_owned();
            for at in 0..n {
                // Writing to a String does not fail.
                let _ = write!(
                    annotations,
                    r#","container.apparmor.security.beta.kubernetes.io/c{at}":"runtime/default""#
                );
            }
            containers(n, &annotations, "", |_| "\"env\":[]".to_owned())
        })
    },
    shape("mounts of devices that go", MORE, |n| {
        let volumes = list("volumes", n, |at| {
            format!(r#"{{"name":"v{at}","hostPath":{{"path":"/dev/fuse"}}}}"#)
        });
        let mounts =
            list("volumeMounts", n, |at| format!(r#"{{"name":"v{at}","mountPath":"/dev/fuse"}}"#));
        let adds = list("add", n, |at| format!(r#""CAP_X{at}""#));
        let security = format!(r#""securityContext":{{"capabilities":{{{adds}}}}}"#);
        containers(1, FUSE, &volumes, |_| format!("{mounts},{security}"))
    }),
    Shape {
        policies: Policies::Always,
        ..shape("mounts of devices that go, unasked", MORE, |n| {
            let mounts =
                list("volumeMounts", n, |_| r#"{"name":"v","mountPath":"/dev/fuse"}"#.to_owned());
            let adds = list("add", n, |_| r#""SYS_ADMIN""#.to_owned());
            let security =
                format!(r#""securityContext":{{"privileged":true,"capabilities":{{{adds}}}}}"#);
            containers(1, "", VOLUME, |_| format!("{mounts},{security}"))
        })
    },
    shape("mounts of devices for others", MORE, |n| {
        let mount = r#"{"name":"v","mountPath":"/dev/fuse","mountPropagation":"Bidirectional"}"#;
        containers(1, FUSE, VOLUME, |_| list("volumeMounts", n, |_| mount.to_owned()))
    }),
    shape("mounts of other devices beside limits", MORE, |n| {
        let limits: Vec<String> = (0..n).map(|at| format!(r#""a.test/{at}":1"#)).collect();
        let resources = format!(r#""resources":{{"limits":{{{}}}}}"#, limits.join(","));
        let volumes = r#""volumes":[{"name":"v","hostPath":{"path":"/dev/kvm"}}]"#;
        containers(1, FUSE, volumes, |_| format!("{},{resources}", mounts(n, "/dev/kvm", "v")))
    }),
    shape("mounts of one volume with a long path", MORE, |n| {
        let volumes = format!(
            r#""volumes":[{{"name":"v","hostPath":{{"path":"/dev/{}"}}}}]"#,
            "fuse/./".repeat(n * 4)
        );
        containers(1, FUSE, &volumes, |_| mounts(n, "/dev/fuse", "v"))
    }),
    shape("drops, variables, limits and claims", MORE, |n| {
        let drops = list("drop", n, |at| format!(r#""X{at}""#));
        let env = list("env", n, |at| format!(r#"{{"name":"X{at}","value":"1"}}"#));
        let amounts: Vec<String> = (0..n).map(|at| format!(r#""a.test/{at}":"1""#)).collect();
        let amounts = amounts.join(",");
        let claims = list("claims", n, |at| format!(r#"{{"name":"x{at}"}}"#));
        let resources =
            format!(r#""resources":{{"limits":{{{amounts}}},"requests":{{{amounts}}},{claims}}}"#);
        let security = format!(r#""securityContext":{{"capabilities":{{{drops}}}}}"#);
        containers(1, FUSE, "", |_| format!("{env},{resources},{security}"))
    }),
    shape("tolerations, terms, claims and debuggers", MORE, |n| {
        let tolerations =
            list("tolerations", n, |at| format!(r#"{{"key":"k{at}","operator":"Exists"}}"#));
        let claims = list("resourceClaims", n, |at| format!(r#"{{"name":"x{at}"}}"#));
        let debuggers = list("ephemeralContainers", n, |at| format!(r#"{{"name":"e{at}"}}"#));
        let terms = list("nodeSelectorTerms", n, |_| {
            r#"{"matchExpressions":[{"key":"k","operator":"Exists"}]}"#.to_owned()
        });
        let affinity = format!(
            r#""affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{{terms}}}}}}}"#
        );
        let annotations = r#""devices.example/gpu":"h100""#;
        containers(1, annotations, &[tolerations, claims, debuggers, affinity].join(","), |_| {
            "\"env\":[]".to_owned()
        })
    }),
    shape("annotations, ours and others", MORE, |n| {
        let mut annotations = FUSE.to_owned();
        for at in 0..n {
            let _ = write!(annotations, r#","devices.example/x{at}":"","a.test/{at}":"""#);
        }
        containers(1, &annotations, "", |_| "\"env\":[]".to_owned())
    }),
    Shape {
        doors: &[Door::Advise],
        ..shape("a resize of other names", MORE, |n| {
            resize(&limits(1, n, "a", ""), &limits(1, n, "b", ""))
        })
    },
    Shape {
        doors: &[Door::Advise],
        ..shape("a resize of containers of one name", MORE, |n| {
            resize(&limits(n, 1, "a", ""), &limits(1, n, "b", ""))
        })
    },
    Shape {
        doors: &[Door::Advise],
        ..shape("a resize beside annotations", MORE, |n| {
            let mut annotations = String::new();
            for at in 0..n {
                let _ = write!(annotations, r#","a.test/{at}":"""#);
            }
            resize(&limits(1, n, "a", &annotations), &limits(1, n, "b", &annotations))
        })
    },
    Shape {
        doors: &[Door::Advise],
        ..shape("debuggers of a pod", MORE, |n| {
            let spec = list("ephemeralContainers", n, |at| format!(r#"{{"name":"e{at}"}}"#));
            let pod = |spec: &str| {
                format!(r#"{{"metadata":{{"annotations":{{{FUSE}}}}},"spec":{{{spec}}}}}"#)
            };
            review("Pod", "UPDATE", "ephemeralcontainers", &pod(&spec), &pod(""))
        })
    },
    Shape {
        doors: &[Door::Advise],
        ..shape("containers of a Deployment", MANY, |n| {
            let all = list("containers", n, |at| format!(r#"{{"name":"c{at}"}}"#));
            let template =
                format!(r#"{{"metadata":{{"annotations":{{{ALL}}}}},"spec":{{{all}}}}}"#);
            let spec = format!(r#"{{"template":{template}}}"#);
            workload("apps/v1", "Deployment", "d", &spec)
        })
    },
    Shape {
        doors: &[Door::Advise],
        ..shape("items below a long key", MORE, |n| {
            let items = vec!["0"; n].join(",");
            let spec = format!(r#"{{"{}":[{items}]}}"#, "k".repeat(n * 20));
            workload("a.test/v1", "Custom", "c", &spec)
        })
    },
    Shape {
        doors: &[Door::Advise],
        ..shape("templates of a long owner", MORE, |n| {
            let templates = vec![r#"{"spec":{"containers":[{}]}}"#; n].join(",");
            workload("a.test/v1", "Custom", &"x".repeat(n * 10), &format!("[{templates}]"))
        })
    },
];

/// Takes every step of every shape.
pub(crate) fn steps(namespace: &Namespace) -> anyhow::Result<()> {
    for shape in SHAPES {
        let policies = shape.policies.compile()?;
        for door in shape.doors {
            for count in [shape.count, 2 * shape.count] {
                let review = (shape.review)(count);
                let bytes = review.as_bytes();
                let name = format!("{MARK}{count} {} at {}", shape.name, door.path());
                ensure!(door.answer(bytes, &policies, namespace).is_ok(), "{name}: no answer");
                once(&name, || door.answer(black_box(bytes), &policies, namespace))?;
            }
        }
    }
    Ok(())
}

/// Prints how the work grows, and fails where it grows too much.
pub(crate) fn check(steps: &BTreeMap<String, u64>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let mut wrong = Vec::new();
    writeln!(out, "{:<72} {:>12} {:>12} {:>7}", "of twice as much", "once", "twice", "ratio")?;
    for shape in SHAPES {
        for door in shape.doors {
            let counted = |count: usize| {
                let name = format!("{MARK}{count} {} at {}", shape.name, door.path());
                steps.get(&name).copied().ok_or_else(|| anyhow!("`{name}` was not counted"))
            };
            let (one, two) = (counted(shape.count)?, counted(2 * shape.count)?);
            let grown = super::baseline::ratio(two, one);
            let name = format!("{} {} at {}", shape.count, shape.name, door.path());
            writeln!(out, "{name:<72} {one:>12} {two:>12} {grown:>7.3}")?;
            if grown > MOST {
                wrong.push(format!("twice the {name} take {grown:.2} times the instructions"));
            }
        }
    }
    ensure!(
        wrong.is_empty(),
        "{}\na pod's author chooses how many there are: look for a search inside of a loop, and make it a map",
        wrong.join("\n")
    );
    Ok(())
}

impl Door {
    fn path(self) -> &'static str {
        match self {
            Self::Mutate => "/mutate",
            Self::Validate => "/validate",
            Self::Advise => "/advise",
        }
    }

    /// From bytes to bytes, as the server goes.
    fn answer(
        self,
        bytes: &[u8],
        policies: &PolicySet,
        namespace: &Namespace,
    ) -> anyhow::Result<Vec<u8>> {
        if self != Self::Advise
            && let Some(admission) = glance(bytes, policies)
        {
            return Ok(admission.to_bytes());
        }
        let review = Review::decode(bytes)?;
        let admission = match self {
            Self::Mutate => admit(&review, policies, Some(namespace)),
            Self::Validate => validate(&review, policies, Some(namespace)),
            Self::Advise => advise(&review, policies, Some(namespace), None),
        };
        Ok(admission?.to_bytes())
    }
}

impl Policies {
    fn compile(self) -> anyhow::Result<PolicySet> {
        let mut settings = Settings::default();
        let change = |text: String| match self {
            Self::Shipped => text,
            Self::Always => {
                text.replace("    action: Rewrite", "    action: Rewrite\n    when: Always")
            }
            Self::Deny => text.replace("    action: Rewrite", "    action: Deny\n    when: Always"),
            Self::Hatch => text.replace("  device: fuse\n", HATCH),
        };
        if matches!(self, Self::Hatch) {
            settings.kubernetes_version = KubernetesVersion { minor: 29 };
        }
        let sources = policies::shipped().into_iter();
        let sources: Vec<PolicySource> =
            sources.map(|source| PolicySource { text: change(source.text), ..source }).collect();
        PolicySet::compile(&sources, settings)
            .map_err(|problems| anyhow!("the policies have problems: {problems:?}"))
    }
}

/// A rule that names the privileged mode.
const HATCH: &str = "  device: fuse\n  allow:\n    - modes: [mount, rootless, privileged]\n";

/// A list of so many items, as a field.
fn list(field: &str, count: usize, item: impl Fn(usize) -> String) -> String {
    let items: Vec<String> = (0..count).map(item).collect();
    format!(r#""{field}":[{}]"#, items.join(","))
}

/// So many mounts of one volume.
fn mounts(count: usize, at: &str, volume: &str) -> String {
    list("volumeMounts", count, |_| format!(r#"{{"name":"{volume}","mountPath":"{at}"}}"#))
}

/// The creation of a pod with so many containers and these fields.
fn containers(
    count: usize,
    annotations: &str,
    spec: &str,
    fields: impl Fn(usize) -> String,
) -> String {
    let all = list("containers", count, |at| format!(r#"{{"name":"c{at}",{}}}"#, fields(at)));
    let spec = [spec, &all].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
    let pod = format!(
        r#"{{"metadata":{{"annotations":{{{annotations}}}}},"spec":{{{}}}}}"#,
        spec.join(",")
    );
    review("Pod", "CREATE", "", &pod, "null")
}

/// Privileged containers with the device, each by a volume of its own.
fn own_volumes(count: usize, annotations: &str) -> String {
    let volumes = list("volumes", count, |at| {
        format!(r#"{{"name":"v{at}","hostPath":{{"path":"/dev/fuse"}}}}"#)
    });
    containers(count, annotations, &volumes, |at| {
        let mounts = mounts(1, "/dev/fuse", &format!("v{at}"));
        format!(r#""securityContext":{{"privileged":true}},{mounts}"#)
    })
}

/// Privileged containers with the device by one volume, and something more.
fn old_shape(count: usize, annotations: &str, more: impl Fn(usize) -> &'static str) -> String {
    containers(count, annotations, VOLUME, |at| format!("{OLD}{}", more(at)))
}

fn every_second(text: &'static str) -> impl Fn(usize) -> &'static str {
    move |at| if at % 2 == 0 { "" } else { text }
}

/// A pod whose containers, all of one name, have so many limits.
fn limits(containers: usize, count: usize, domain: &str, annotations: &str) -> String {
    let limits: Vec<String> = (0..count).map(|at| format!(r#""{domain}/{at}":1"#)).collect();
    let container = format!(r#"{{"name":"c","resources":{{"limits":{{{}}}}}}}"#, limits.join(","));
    let all = list("containers", containers, |_| container.clone());
    format!(r#"{{"metadata":{{"annotations":{{{FUSE}{annotations}}}}},"spec":{{{all}}}}}"#)
}

fn resize(now: &str, before: &str) -> String {
    review("Pod", "UPDATE", "resize", now, before)
}

fn workload(api_version: &str, kind: &str, name: &str, spec: &str) -> String {
    let object = format!(
        r#"{{"apiVersion":"{api_version}","kind":"{kind}","metadata":{{"name":"{name}"}},"spec":{spec}}}"#
    );
    review(kind, "CREATE", "", &object, "null")
}

fn review(kind: &str, operation: &str, part: &str, object: &str, old: &str) -> String {
    format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","kind":{{"group":"","version":"v1","kind":"{kind}"}},"subResource":"{part}","name":"p","namespace":"team-a","operation":"{operation}","object":{object},"oldObject":{old}}}}}"#
    )
}
