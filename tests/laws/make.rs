//! Any pod, any policies: the strategies of the laws.
//!
//! Pods and policies draw from the same few names, so that they meet: a pod that has the resource
//! already, drops the capability, sets the variable to something else.

use std::fmt;

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

/// One admission: the policies, the review and the namespace.
#[derive(Clone)]
pub(crate) struct Case {
    /// Policy documents; `None` are the shipped ones.
    pub(crate) policies: Option<Vec<Value>>,
    /// Whether the documents are written as JSON, else as YAML.
    pub(crate) as_json: bool,
    pub(crate) review: Value,
    pub(crate) namespace: Map<String, Value>,
    pub(crate) minor: u16,
}

/// As documents that can be pasted elsewhere.
impl fmt::Debug for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policies, as_json, review, namespace, minor } = self;
        for policy in policies.iter().flatten() {
            writeln!(formatter, "\npolicy: {policy}")?;
        }
        writeln!(formatter, "pod: {}", review["request"]["object"])?;
        let request = &review["request"];
        writeln!(formatter, "operation: {}, as JSON: {as_json}", request["operation"])?;
        write!(formatter, "namespace: {}, 1.{minor}", Value::from(namespace.clone()))
    }
}

const RESOURCES: &[&str] = &[
    "vendor.example/a",
    "vendor.example/b",
    "nvidia.com/gpu",
    "nvidia.com/mig-1g.10gb",
    "amd.com/gpu",
    "smarter-devices/fuse",
];
const CARRIER: &str = "sunk.coreweave.com/accelerator";
const MODES: &[&str] = &["plain", "other", "mig-1g.10gb", "hatch"];
const PATHS: &[&str] = &["/dev/shm", "/data", "/dev/fuse", "/cache/a"];
/// The first is what the shipped policies write as well.
const NODE_LABEL: &str = "nvidia.com/gpu.product";

type Part = BoxedStrategy<Option<Value>>;

pub(crate) fn case() -> impl Strategy<Value = Case> {
    prop_oneof![4 => policies().prop_map(Some), 1 => Just(None)].prop_flat_map(|policies| {
        let asks = asks(policies.as_deref());
        let minor = prop_oneof![9 => Just(36), 1 => Just(29), 1 => Just(31)];
        (Just(policies), any::<bool>(), pod(asks), namespace(), minor).prop_map(
            |(policies, as_json, pod, namespace, minor)| Case {
                policies,
                as_json,
                review: review(&pod),
                namespace,
                minor,
            },
        )
    })
}

pub(crate) fn review(pod: &Value) -> Value {
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "namespace": "team",
            "operation": "CREATE",
            "userInfo": { "username": "somebody" },
            "object": pod,
            "oldObject": null,
        },
    })
}

fn namespace() -> impl Strategy<Value = Map<String, Value>> {
    let grant = prop_oneof![30 => Just("enabled"), 1 => Just("Enabled"), 1 => Just("")];
    (grant, weighted(0.6, select(vec!["data", "web"]))).prop_map(|(grant, team)| {
        let mut labels = Map::new();
        labels.insert("devices.example/grant".to_owned(), grant.into());
        labels.extend(team.map(|team| ("team".to_owned(), team.into())));
        labels
    })
}

// Policies.

fn policies() -> impl Strategy<Value = Vec<Value>> {
    let devices = subsequence(vec!["alpha", "beta", "gpu"], 1..=3);
    (devices, vec(policy(), 3)).prop_map(|(devices, policies)| {
        devices
            .into_iter()
            .zip(policies)
            .map(|(device, mut policy)| {
                policy["metadata"]["name"] = format!("policy-{device}").into();
                policy["spec"]["device"] = device.into();
                policy
            })
            .collect()
    })
}

fn policy() -> impl Strategy<Value = Value> {
    let modes = (subsequence(MODES, 1..=MODES.len()), vec(mode(), MODES.len()));
    let words = (
        prop_oneof![6 => Just("Enforce"), 1 => Just("Shadow")],
        prop_oneof![3 => Just("Deny"), 1 => Just("Warn")],
    );
    let variant = weighted(0.3, subsequence(OMITTABLE, 1..=3));
    let brought = (weighted(0.2, Just(CARRIER)), weighted(0.95, legacy()));
    (modes, words, 1_u32..=4, 0_u32..=3, weighted(0.5, allow()), variant, brought).prop_map(
        |((names, modes), (enforcement, on_invalid), most, less, allow, variant, brought)| {
            let (carried, legacy) = brought;
            let mut modes: Map<String, Value> =
                names.iter().map(|name| (*name).to_owned()).zip(modes).collect();
            // One that is asked for often, so that the laws see many who may not have it.
            if let Some(Value::Object(mode)) = modes.get_mut("hatch") {
                make_hatch(mode, "/dev/fuse");
            }
            // Nobody could use a default mode that no rule names.
            if allow.is_none()
                && let Some(Value::Object(mode)) = modes.get_mut(names[0])
            {
                mode.remove("privileged");
                mode.remove("hostPath");
                if let Some(list) = mode.get_mut("capabilities").and_then(Value::as_array_mut) {
                    list.retain(|name| name != "SYS_PTRACE");
                }
                if mode.get("capabilities") == Some(&json!([])) {
                    mode.remove("capabilities");
                }
            }
            for mode in modes.values_mut().filter_map(Value::as_object_mut) {
                let helps = |field: &String| field != "nvidiaVisibleDevices";
                if !mode.keys().any(helps)
                    || mode.values().all(|value| value == "Keep" || *value == json!([]))
                {
                    mode.insert("nodeSelector".to_owned(), json!({ "zone": "a" }));
                }
            }
            let counted = modes.values().any(|mode| mode.to_string().contains("Requested"));
            let most = if counted { most } else { 1 };
            let omit: Vec<&str> = variant
                .unwrap_or_default()
                .into_iter()
                .filter(|field| modes.values().any(|mode| mode.get(*field).is_some()))
                .collect();
            let opens = |field: &str| ["hostUsers", "nvidiaVisibleDevices"].contains(&field);
            let omit: Vec<&str> = if omit.contains(&"capabilities") {
                omit
            } else {
                omit.into_iter().filter(|field| !opens(field)).collect()
            };
            let mut spec = json!({
                "device": "later",
                "enforcement": enforcement,
                "onInvalid": on_invalid,
                "count": { "default": most.saturating_sub(less).max(1), "max": most },
                "defaultMode": names[0],
                "modes": modes,
            });
            if let Some(mut rules) = allow {
                for rule in rules.as_array_mut().unwrap() {
                    if let Some(listed) = rule.get_mut("modes").and_then(Value::as_array_mut) {
                        listed.retain(|mode| names.contains(&mode.as_str().unwrap()));
                        if listed.is_empty() {
                            listed.push(names[0].into());
                        }
                    }
                }
                spec["allow"] = rules;
            }
            if !omit.is_empty() {
                spec["runtimeClasses"] = json!({ "gvisor": { "omit": omit } });
            }
            if let Some(carrier) = carried {
                spec["carriedBy"] = json!([carrier]);
            }
            if let Some(legacy) = legacy {
                spec["legacy"] = legacy;
            }
            json!({
                "apiVersion": "devgrant/v1alpha1",
                "kind": "DevicePolicy",
                "metadata": { "name": "later" },
                "spec": spec,
            })
        },
    )
}

/// The shape that a device replaces. Two policies may name the same one.
fn legacy() -> impl Strategy<Value = Value> {
    let paths = subsequence(vec!["/dev/fuse", "/dev/nvidia*", "/dev/kvm"], 2..=3);
    let action = prop_oneof![12 => Just("Rewrite"), 1 => Just("Warn"), 1 => Just("Deny"), 1 => Just("Ignore")];
    (paths, action, weighted(0.9, Just(true))).prop_map(|(paths, action, privileged)| {
        json!({ "hostPaths": paths, "action": action, "privileged": privileged.unwrap_or_default() })
    })
}

const OMITTABLE: &[&str] = &[
    "appArmorProfile",
    "capabilities",
    "hostUsers",
    "nvidiaVisibleDevices",
    "resourceClaims",
    "resources",
    "seccompProfile",
    "tolerations",
];

fn allow() -> impl Strategy<Value = Value> {
    let selector = select(vec![
        json!({}),
        json!({ "matchLabels": { "team": "data" } }),
        json!({ "matchExpressions": [{ "key": "team", "operator": "In", "values": ["data", "web"] }] }),
        json!({ "matchExpressions": [{ "key": "team", "operator": "NotIn", "values": ["web"] }] }),
        json!({ "matchExpressions": [{ "key": "team", "operator": "Exists" }] }),
        json!({ "matchExpressions": [{ "key": "team", "operator": "DoesNotExist" }] }),
    ]);
    let accounts = select(vec![json!(["builder"]), json!(["ci-*", "default"]), json!(["*"])]);
    let modes = subsequence(MODES, 1..=MODES.len()).prop_map(|modes| json!(modes));
    let rule = object(vec![
        ("namespaceSelector", weighted(0.4, selector).boxed()),
        ("serviceAccounts", weighted(0.3, accounts).boxed()),
        ("modes", weighted(0.7, modes).boxed()),
    ]);
    vec(rule, 1..=3).prop_map(Value::from)
}

fn mode() -> impl Strategy<Value = Value> {
    let count = select(vec![json!(1), json!(2), json!("Requested"), json!("Requested")]);
    let resources = (subsequence(RESOURCES, 0..=2), vec(count, 2)).prop_map(|(names, counts)| {
        let each = names.into_iter().zip(counts);
        each.map(|(name, count)| json!({ "name": name, "count": count })).collect::<Vec<_>>()
    });
    let capabilities = subsequence(
        vec![
            json!("SYS_ADMIN"),
            json!("NET_ADMIN"),
            json!("CAP_IPC_LOCK"),
            json!("mknod"),
            json!("SYS_PTRACE"),
        ],
        0..=2,
    );
    let profile = || select(vec![json!("Keep"), json!("Unconfined"), json!("Localhost/a")]);
    let rare = |value: Value| weighted(0.12, Just(value)).boxed();
    let security = object(vec![
        ("allowPrivilegeEscalation", weighted(0.2, any::<bool>().prop_map(Value::from)).boxed()),
        ("appArmorProfile", weighted(0.3, profile()).boxed()),
        ("seccompProfile", weighted(0.2, profile()).boxed()),
        ("hostUsers", rare(json!(false))),
        ("runtimeClassName", rare(json!("gvisor"))),
        ("nvidiaVisibleDevices", weighted(0.2, select(vec![json!("Keep"), json!("Void")])).boxed()),
        ("nodeSelector", rare(json!({ "zone": "a", NODE_LABEL: "NVIDIA-H200" }))),
        ("nodeAffinity", weighted(0.25, subsequence(vec![
            json!({ "key": NODE_LABEL, "operator": "In", "values": ["NVIDIA-H200", "x"] }),
            json!({ "key": "zone", "operator": "Exists" }),
        ], 1..=2).prop_map(Value::from)).boxed()),
        ("tolerations", weighted(0.4, subsequence(vec![
            json!({ "key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule" }),
            json!({ "key": "nvidia.com/gpu", "operator": "Equal", "value": "" }),
            json!({ "key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30 }),
        ], 1..=2).prop_map(Value::from)).boxed()),
        ("podAnnotations", rare(json!({ "io.kubernetes.cri-o.Devices": "/dev/fuse" }))),
        ("schedulingGates", rare(json!(["vendor.example/gate"]))),
        ("resourceClaims", weighted(0.15, select(vec![
            json!([{ "name": "claim", "resourceClaimTemplateName": "one" }]),
            json!([{ "name": "claim", "resourceClaimTemplateName": "one", "request": "r" },
                   { "name": "second", "resourceClaimTemplateName": "two" }]),
        ])).boxed()),
    ]);
    let env = subsequence(
        vec![
            json!({ "name": "SPEED", "value": "fast" }),
            json!({ "name": "PLACE", "value": "" }),
            json!({ "name": "NVIDIA_VISIBLE_DEVICES", "value": "none" }),
        ],
        0..=1,
    );
    let volumes = weighted(
        0.2,
        select(vec![json!({ "medium": "Memory" }), json!({}), json!({ "sizeLimit": "1Gi" })]),
    );
    let hatch = weighted(0.1, select(vec!["/dev/fuse", "/dev/kvm"]));
    (resources, capabilities, security, env, volumes, hatch).prop_map(
        |(resources, capabilities, mut mode, mut env, volume, hatch)| {
            let gpu = resources
                .iter()
                .any(|resource| resource["name"].as_str().unwrap().starts_with("nvidia"));
            let map = mode.as_object_mut().unwrap();
            if let Some(path) = hatch {
                make_hatch(map, path);
            }
            if gpu {
                env.retain(|variable| variable["name"] != "NVIDIA_VISIBLE_DEVICES");
            }
            let sets_it = env.iter().any(|variable| variable["name"] == "NVIDIA_VISIBLE_DEVICES");
            if (gpu || sets_it) && map.get("nvidiaVisibleDevices") == Some(&json!("Void")) {
                map.remove("nvidiaVisibleDevices");
            }
            if let Some(empty_dir) = volume {
                map.insert(
                    "volumes".to_owned(),
                    json!([{ "name": "scratch", "emptyDir": empty_dir }]),
                );
                map.insert(
                    "mounts".to_owned(),
                    json!([{ "name": "scratch", "mountPath": "/dev/shm" }]),
                );
            }
            for (field, list) in
                [("resources", resources), ("capabilities", capabilities), ("env", env)]
            {
                if !list.is_empty() {
                    map.insert(field.to_owned(), list.into());
                }
            }
            mode
        },
    )
}

fn make_hatch(mode: &mut Map<String, Value>, path: &str) {
    mode.remove("allowPrivilegeEscalation");
    mode.remove("hostUsers");
    mode.insert("privileged".to_owned(), true.into());
    mode.insert("hostPath".to_owned(), json!({ "path": path, "type": "CharDevice" }));
}

// Annotations.

/// Annotations under the prefix, for the devices of a policy set: mostly right, sometimes wrong.
fn asks(policies: Option<&[Value]>) -> BoxedStrategy<Map<String, Value>> {
    let devices: Vec<(String, Vec<String>)> = match policies {
        Some(policies) => policies
            .iter()
            .map(|policy| {
                let modes = policy["spec"]["modes"].as_object().unwrap().keys().cloned().collect();
                (policy["spec"]["device"].as_str().unwrap().to_owned(), modes)
            })
            .collect(),
        None => [
            ("fuse", vec!["mount", "userns", "rootless", "privileged", "crio"]),
            ("gpu", vec!["nvidia", "h100", "nvidia-shm", "nvidia-runtime", "hot-mount"]),
            ("tun", vec!["smarter", "mknod", "crio"]),
        ]
        .map(|(device, modes)| (device.to_owned(), modes.into_iter().map(str::to_owned).collect()))
        .to_vec(),
    };
    let mut parts: Vec<BoxedStrategy<Vec<(String, Value)>>> = Vec::new();
    for (device, modes) in devices {
        let key = format!("devices.example/{device}");
        let value = prop_oneof![
            6 => Just(json!("true")),
            8 => select(modes.clone()).prop_map(Value::from),
            1 => (select(modes.clone()), 0_u32..6).prop_map(|(mode, count)| format!("{mode}:{count}").into()),
            3 => select(modes).prop_map(|mode| format!("{mode}:1").into()),
            1 => (1_u32..5).prop_map(|count| count.to_string().into()),
            1 => Just(json!("false")),
            1 => select(vec![json!(""), json!("True"), json!("nosuch"), json!(":"), json!("plain:x"),
                json!("99999999999999999999"), json!("plain:+1"), json!("00001"), Value::Null]),
        ];
        let device_key = key.clone();
        let asked = weighted(0.8, value.prop_map(move |value| (device_key.clone(), value)));
        let key = format!("{key}.containers");
        let names = weighted(0.2, containers().prop_map(move |names| (key.clone(), names)));
        // Names for a device that is not asked for are refused.
        let both = (asked, names, weighted(0.05, Just(()))).prop_map(|(asked, names, stray)| {
            let names = names.filter(|_| asked.is_some() || stray.is_some());
            asked.into_iter().chain(names).collect::<Vec<_>>()
        });
        parts.push(both.boxed());
    }
    let key = "devices.example/containers".to_owned();
    parts.push(one(0.1, containers().prop_map(move |names| (key.clone(), names))));
    let stamp = select(vec![
        json!("yes"),
        json!(
            r#"{"policyDigest":"sha256:0","grants":[{"device":"alpha","mode":"plain","count":9,"containers":["c1"],"policy":"x"}]}"#
        ),
        json!(
            r#"{"policyDigest":"sha256:0","grants":[{"device":"alpha","mode":"hatch","count":9,"containers":["i0"],"policy":"x"},{"device":"gpu","mode":"hatch","count":9,"containers":["c0","c1"],"policy":"x"}]}"#
        ),
        Value::Null,
    ]);
    let key = "devices.example/granted".to_owned();
    parts.push(one(0.12, stamp.prop_map(move |stamp| (key.clone(), stamp))));
    let unknown = select(vec![
        "devices.example/nosuch",
        "devices.example/alpha.mode",
        "devices.example/",
        "devices.example/grant",
    ]);
    parts.push(one(0.03, unknown.prop_map(|key| (key.to_owned(), json!("true")))));
    parts.prop_map(|entries| entries.into_iter().flatten().collect()).boxed()
}

fn one(
    probability: f64,
    entry: impl Strategy<Value = (String, Value)> + 'static,
) -> BoxedStrategy<Vec<(String, Value)>> {
    weighted(probability, entry).prop_map(|entry| entry.into_iter().collect()).boxed()
}

fn containers() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => Just("c0"),
        4 => select(vec!["c1", "c0,c1", "c0, i0", "i0", "c2 ,c0,c0"]),
        4 => Just("*"),
        1 => select(vec!["", "nosuch", "C0", ",", "c0,*"]),
    ]
    .prop_map(Value::from)
}

// Pods.

fn pod(asks: BoxedStrategy<Map<String, Value>>) -> impl Strategy<Value = Value> {
    let others = vec(
        select(vec![
            ("kubectl.kubernetes.io/default-container", json!("c1")),
            ("container.apparmor.security.beta.kubernetes.io/c0", json!("runtime/default")),
            ("container.apparmor.security.beta.kubernetes.io/c0", json!("unconfined")),
            ("io.kubernetes.cri-o.Devices", json!("/dev/fuse")),
            ("devices.example.other/fuse", json!("true")),
            ("a/b~c", json!("\u{e4}\u{1f600}\"\\")),
        ]),
        0..=2,
    );
    (asks, others, spec(), unknown()).prop_map(|(mut annotations, others, spec, unknown)| {
        annotations.extend(others.into_iter().map(|(key, value)| (key.to_owned(), value)));
        let mut pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": "it", "annotations": annotations, "labels": { "app": "it" } },
            "spec": spec,
        });
        pod.as_object_mut().unwrap().extend(unknown.map(|value| ("future".to_owned(), value)));
        pod
    })
}

/// A pod's spec, often with the old shape in it.
fn spec() -> impl Strategy<Value = Value> {
    (plain_spec(), weighted(0.7, old_shape())).prop_map(|(mut spec, old)| {
        if let Some(old) = old {
            old.put(&mut spec);
        }
        spec
    })
}

/// Volumes with what they bring of the node, and where it is looked for.
const NODE_VOLUMES: &[(&str, &str, &str)] = &[
    ("fuse", "/dev/fuse", "/dev/fuse"),
    ("again", "//dev/fuse/", "/dev/fuse"),
    ("kvm", "/dev/kvm", "/dev/kvm"),
    ("gpu0", "/dev/nvidia0", "/dev/nvidia0"),
    ("sound", "/dev/snd", "/dev/snd"),
    ("dev", "/dev", "/dev"),
    ("root", "/", "/host"),
    ("sys", "/sys", "/sys"),
    ("srv", "/data", "/data"),
    ("plugins", "/var/lib/kubelet/device-plugins", "/var/lib/kubelet/device-plugins"),
    ("devgrant-alpha", "/dev/fuse", "/dev/fuse"),
];

/// What pods do today: hostPaths, mounted by several containers, mostly privileged.
#[derive(Debug, Clone)]
struct OldShape {
    /// The volumes, mounted or not, in any order.
    volumes: Vec<Value>,
    /// For the containers, init containers first: the mounts, and `privileged` if it says so.
    containers: Vec<(Vec<Value>, Option<Value>)>,
    /// Fields of the spec.
    others: Vec<(&'static str, Value)>,
}

fn old_shape() -> impl Strategy<Value = OldShape> {
    let volumes = (Just(NODE_VOLUMES.to_vec()).prop_shuffle(), 0_usize..=3);
    // Mostly the device at its own path; the rest is what makes it hard.
    let which =
        prop_oneof![30 => 0_usize..4, 2 => 0..NODE_VOLUMES.len(), 2 => Just(5), 2 => Just(10)];
    let part = prop_oneof![
        40 => Just(json!({})),
        1 => Just(json!({ "subPath": "fuse" })),
        1 => Just(json!({ "subPath": "" })),
        1 => Just(json!({ "subPathExpr": "$(POD)" })),
        1 => Just(json!({ "mountPropagation": "Bidirectional" })),
        2 => Just(json!({ "mountPropagation": "HostToContainer", "readOnly": true, "future": {} })),
        1 => Just(json!({ "mountPropagation": null, "subPath": null })),
    ];
    let place = prop_oneof![20 => Just(""), 3 => Just("/"), 1 => Just("elsewhere")];
    let mount = (which, part, place)
        .prop_map(|(which, mut mount, place)| {
            let (name, _, inside) = NODE_VOLUMES[which];
            mount["name"] = name.into();
            mount["mountPath"] = match (place, name, mount["subPath"].as_str()) {
                ("elsewhere", ..) => format!("/old/{name}"),
                (_, "dev", Some("fuse")) => format!("/dev/fuse{place}"),
                _ => format!("{inside}{place}"),
            }
            .into();
            mount
        })
        .boxed();
    let privileged = prop_oneof![
        8 => Just(Some(json!(true))), 2 => Just(Some(json!(false))), 1 => Just(Some(Value::Null)), 2 => Just(None)
    ];
    let containers = vec(
        (
            prop_oneof![1 => Just(0_usize), 4 => Just(1), 2 => 2_usize..=3]
                .prop_flat_map(move |many| vec(mount.clone(), many)),
            privileged,
        ),
        6,
    );
    let others = weighted(
        0.15,
        select(vec![
            ("hostPID", json!(true)),
            ("hostIPC", json!(true)),
            ("hostNetwork", json!(true)),
            ("hostPID", json!(false)),
            ("runtimeClassName", json!("kata-qemu")),
            ("ephemeralContainers", json!([{ "name": "debug" }])),
        ]),
    );
    (volumes, containers, others).prop_map(|((all, unused), containers, others)| {
        let is_used = |name: &str| {
            let mut mounts = containers.iter().flat_map(|(mounts, _)| mounts);
            mounts.any(|mount| mount["name"] == name)
        };
        let picked: Vec<&str> = all.iter().take(unused).map(|volume| volume.0).collect();
        let volumes = all
            .iter()
            .filter(|volume| picked.contains(&volume.0) || is_used(volume.0))
            .map(|(name, path, _)| json!({ "name": name, "hostPath": { "path": path }, "future": 1 }))
            .collect();
        OldShape { volumes, containers, others: others.into_iter().collect() }
    })
}

impl OldShape {
    fn put(self, spec: &mut Value) {
        let Self { mut volumes, containers, others } = self;
        let own = spec["volumes"].as_array().into_iter().flatten();
        let names: Vec<Value> = volumes.iter().map(|volume| volume["name"].clone()).collect();
        let own: Vec<Value> = own.filter(|own| !names.contains(&own["name"])).cloned().collect();
        // Those that go are between others.
        volumes.splice(volumes.len() / 2..volumes.len() / 2, own);
        let mut shapes = containers.into_iter();
        for list in ["initContainers", "containers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                let Some((mounts, privileged)) = shapes.next() else { break };
                // A path of which the API server takes one mount.
                let mut all: Vec<Value> = Vec::new();
                let own = container["volumeMounts"].as_array().cloned().unwrap_or_default();
                for mount in own.into_iter().chain(mounts) {
                    let path = |mount: &Value| {
                        mount["mountPath"].as_str().unwrap().trim_end_matches('/').to_owned()
                    };
                    if all.iter().all(|other| path(other) != path(&mount)) {
                        all.push(mount);
                    }
                }
                if !all.is_empty() {
                    all.rotate_left(1);
                    container["volumeMounts"] = all.into();
                }
                if let Some(privileged) = privileged {
                    if container["securityContext"].is_null() {
                        container["securityContext"] = json!({});
                    }
                    container["securityContext"]["privileged"] = privileged;
                }
            }
        }
        if !volumes.is_empty() {
            spec["volumes"] = volumes.into();
        }
        spec.as_object_mut()
            .unwrap()
            .extend(others.into_iter().map(|(field, value)| (field.to_owned(), value)));
    }
}

fn plain_spec() -> impl Strategy<Value = Value> {
    let amount = prop_oneof![1 => Just(0), 12 => 1_usize..=3, 2 => 4_usize..=12];
    let regular =
        (vec(container(false), 12), amount).prop_map(|(all, amount)| named(all, amount, "c"));
    let init =
        (vec(container(true), 2), 0_usize..=2).prop_map(|(all, amount)| named(all, amount, "i"));
    let rare = |values: Vec<Value>| weighted(0.08, select(values)).boxed();
    let toleration = select(vec![
        json!({ "operator": "Exists" }),
        json!({ "key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule" }),
        json!({ "key": "a", "effect": "NoExecute", "tolerationSeconds": 5, "future": 1 }),
        json!({ "key": "nvidia.com/gpu", "operator": null, "value": "present" }),
    ]);
    let volume = select(vec![
        json!({ "name": "data", "emptyDir": {} }),
        json!({ "name": "fuse", "hostPath": { "path": "/dev/fuse" } }),
        json!({ "name": "secret", "secret": { "secretName": "x" }, "future": { "a": 1 } }),
    ]);
    object(vec![
        ("containers", prop_oneof![30 => regular.prop_map(Some), 1 => Just(Some(Value::Null))].boxed()),
        ("initContainers", maybe(init)),
        ("volumes", maybe(vec(prop_oneof![12 => volume, 1 => Just(json!({ "name": "scratch", "emptyDir": {} }))], 0..=2).prop_map(Value::from))),
        ("tolerations", maybe(vec(toleration, 0..=2).prop_map(Value::from))),
        ("affinity", maybe(affinity())),
        ("nodeSelector", maybe(select(vec![json!({}), json!({ "disk": "ssd" }), json!({ "zone": "a" })]))),
        ("serviceAccountName", maybe(select(vec![json!("builder"), json!("ci-1"), json!(""), json!("x")]))),
        ("runtimeClassName", rare(vec![json!("gvisor"), json!("nvidia"), json!("")])),
        ("hostUsers", rare(vec![json!(true), json!(false), Value::Null])),
        ("hostNetwork", rare(vec![json!(true)])),
        ("nodeName", rare(vec![json!("node"), json!("")])),
        ("os", rare(vec![json!({ "name": "windows" }), json!({ "name": "linux" })])),
        ("schedulingGates", maybe(Just(json!([{ "name": "vendor.example/gate" }])))),
        ("resourceClaims", maybe(select(vec![json!([]), json!([{ "name": "claim", "resourceClaimTemplateName": "one" }])]))),
        ("securityContext", maybe(Just(json!({ "runAsUser": 1000, "seccompProfile": { "type": "RuntimeDefault" } })))),
        ("future", unknown().boxed()),
    ])
}

fn named(containers: Vec<Value>, amount: usize, prefix: &str) -> Value {
    let numbered = containers.into_iter().take(amount).enumerate();
    let named = numbered.map(|(index, mut container)| {
        container["name"] = format!("{prefix}{index}").into();
        container
    });
    named.collect()
}

fn container(init: bool) -> BoxedStrategy<Value> {
    let quantity = || {
        prop_oneof![
            8 => select(vec![json!("1"), json!("2"), json!("1000m"), json!("1500m"), json!("0"), json!("4"), json!("1e0"), json!("16"), json!("1k"), json!("+1"), json!(".5")]),
            1 => select(vec![json!(1), json!(0), json!(3)]),
        ]
    };
    let amounts = || {
        let names: Vec<&str> =
            RESOURCES.iter().copied().chain([CARRIER, "cpu", "memory"]).collect();
        (subsequence(names, 0..=3), vec(quantity(), 3)).prop_map(|(names, amounts)| {
            names.into_iter().map(str::to_owned).zip(amounts).collect::<Map<_, _>>().into()
        })
    };
    let resources = object(vec![
        ("limits", maybe(amounts())),
        ("requests", maybe(amounts())),
        (
            "claims",
            maybe(select(vec![
                json!([]),
                json!([{ "name": "claim" }]),
                json!([{ "name": "claim", "request": "r" }]),
            ])),
        ),
        ("future", unknown().boxed()),
    ]);
    let capability = || {
        select(vec![
            json!("SYS_ADMIN"),
            json!("CAP_SYS_ADMIN"),
            json!("sys_admin"),
            json!("cap_net_admin"),
            json!("CHOWN"),
            json!("Cap_Ipc_Lock"),
            json!("ALL"),
        ])
    };
    let drop = prop_oneof![10 => Just(json!(["ALL"])), 1 => Just(json!(["CAP_SYS_ADMIN"])), 1 => Just(json!(["all", "KILL"]))];
    let capabilities = object(vec![
        ("add", maybe(vec(capability(), 0..=2).prop_map(Value::from))),
        ("drop", maybe(drop)),
    ]);
    let profile = || {
        select(vec![
            json!({ "type": "RuntimeDefault" }),
            json!({ "type": "Unconfined" }),
            json!({ "type": "Localhost", "localhostProfile": "a" }),
        ])
    };
    let security = object(vec![
        ("privileged", weighted(0.1, any::<bool>().prop_map(Value::from)).boxed()),
        ("allowPrivilegeEscalation", weighted(0.2, any::<bool>().prop_map(Value::from)).boxed()),
        ("capabilities", maybe(capabilities)),
        ("appArmorProfile", weighted(0.15, profile()).boxed()),
        ("seccompProfile", weighted(0.15, profile()).boxed()),
        ("runAsUser", weighted(0.3, Just(json!(1000))).boxed()),
        ("future", unknown().boxed()),
    ]);
    let variable = prop_oneof![
        6 => select(vec![
            json!({ "name": "OWN", "value": "1" }),
            json!({ "name": "NVIDIA_VISIBLE_DEVICES", "value": "all" }),
            json!({ "name": "NVIDIA_VISIBLE_DEVICES", "value": "none" }),
            json!({ "name": "NVIDIA_VISIBLE_DEVICES", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }),
            json!({ "name": "PLACE", "value": null }),
        ]),
        1 => Just(json!({ "name": "SPEED", "value": "slow" })),
    ];
    let mount = (select(vec!["data", "fuse"]), select(PATHS), any::<bool>()).prop_map(|(name, path, slash)| {
        json!({ "name": name, "mountPath": format!("{path}{}", if slash { "/" } else { "" }), "future": true })
    });
    object(vec![
        ("image", Just(Some(json!("image"))).boxed()),
        ("resources", maybe(resources)),
        ("securityContext", maybe(security)),
        ("env", maybe(vec(variable, 0..=2).prop_map(Value::from))),
        ("volumeMounts", maybe(vec(mount, 0..=1).prop_map(Value::from))),
        (
            "volumeDevices",
            weighted(0.02, Just(json!([{ "name": "x", "devicePath": "/dev/x" }]))).boxed(),
        ),
        (
            "restartPolicy",
            if init { weighted(0.5, Just(json!("Always"))).boxed() } else { Just(None).boxed() }
                .boxed(),
        ),
        ("future", unknown().boxed()),
    ])
    .boxed()
}

fn affinity() -> impl Strategy<Value = Value> {
    let term = select(vec![
        json!({}),
        json!({ "matchExpressions": [] }),
        json!({ "matchExpressions": null, "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["n"] }] }),
        json!({ "matchExpressions": [{ "key": "zone", "operator": "Exists" }] }),
        json!({ "matchExpressions": [{ "key": "disk", "operator": "In", "values": ["ssd"], "future": 1 }], "future": 2 }),
        json!({ "matchExpressions": [{ "key": NODE_LABEL, "operator": "In", "values": ["x", "NVIDIA-H200"] }] }),
    ]);
    let required = object(vec![
        ("nodeSelectorTerms", maybe(vec(term, 0..=3).prop_map(Value::from))),
        ("future", unknown().boxed()),
    ]);
    let node = object(vec![
        ("requiredDuringSchedulingIgnoredDuringExecution", maybe(required)),
        ("preferredDuringSchedulingIgnoredDuringExecution", maybe(Just(json!([])))),
    ]);
    object(vec![
        ("nodeAffinity", maybe(node)),
        ("podAffinity", maybe(Just(json!({})))),
        ("future", unknown().boxed()),
    ])
}

/// A field that nobody knows.
fn unknown() -> impl Strategy<Value = Option<Value>> {
    weighted(
        0.15,
        select(vec![
            json!(null),
            json!(1e300),
            json!({ "deep": [{ "x": null }] }),
            json!("\u{0}\u{2028}"),
            json!(-0.0),
        ]),
    )
}

/// Absent, `null`, or there.
fn maybe(value: impl Strategy<Value = Value> + 'static) -> Part {
    prop_oneof![3 => Just(None), 1 => Just(Some(Value::Null)), 5 => value.prop_map(Some)].boxed()
}

fn object(fields: Vec<(&'static str, Part)>) -> BoxedStrategy<Value> {
    let (keys, values): (Vec<&'static str>, Vec<Part>) = fields.into_iter().unzip();
    values
        .prop_map(move |values| {
            let entries = keys.iter().zip(values);
            entries
                .filter_map(|(key, value)| Some(((*key).to_owned(), value?)))
                .collect::<Map<_, _>>()
                .into()
        })
        .boxed()
}
