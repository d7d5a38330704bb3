//! What a patch may add, judged without the code under test: from the text of the policies, the
//! annotations and the two pods.

#[path = "judge/entitled.rs"]
mod entitled;
#[path = "judge/old_shape.rs"]
mod old_shape;

use devgrant::decision::policy::schema::{Mode, Profile, ResourceCount};
use devgrant::decision::quantity::Quantity;
use serde_json::{Map, Value, json};

pub(crate) use entitled::{Entitlement, entitlements};
pub(crate) use old_shape::old_shape_is_gone_or_said;
use old_shape::without_old_shape;

/// Says what a patch adds beyond the entitlements, or changes that was no business of it.
pub(crate) fn excess(
    before: &Value,
    after: &Value,
    entitled: &[Entitlement<'_>],
    minor: u16,
) -> Result<(), String> {
    let before = &without_old_shape(before, after, entitled)?;
    let mut rest = (before.clone(), after.clone());
    for (at, own) in containers(before) {
        let here: Vec<&Entitlement<'_>> =
            entitled.iter().filter(|one| one.containers.contains(&at)).collect();
        let new = &after["spec"][at.0][at.1];
        container(own, new, &here).map_err(|what| format!("{}/{}: {what}", at.0, at.1))?;
    }
    for list in LISTS {
        let many = |pod: &Value| pod["spec"][list].as_array().map_or(0, Vec::len);
        ensure(many(before) == many(after), || format!("{list}: not as many as before"))?;
        take(&mut rest, &["spec", list]);
    }
    of_pod(&mut rest, before, entitled, minor)?;
    let (before, after) = rest;
    ensure(same(&before, &after), || format!("something else changed:\n{before}\n{after}"))
}

fn of_pod(
    rest: &mut (Value, Value),
    before: &Value,
    entitled: &[Entitlement<'_>],
    minor: u16,
) -> Result<(), String> {
    let modes: Vec<&Mode> = entitled.iter().map(|one| one.mode).collect();
    let any = |test: &dyn Fn(&Mode) -> bool| modes.iter().any(|mode| test(mode));

    let volumes = appended("volumes", &take(rest, &["spec", "volumes"]))?;
    for volume in volumes {
        let of_policy = any(&|mode| {
            mode.volumes
                .iter()
                .any(|own| volume == json!({ "name": own.name, "emptyDir": own.empty_dir }))
        });
        let of_hatch = entitled.iter().any(|one| {
            let name = format!("devgrant-{}", one.device);
            let path = one.mode.host_path.as_ref().filter(|_| one.mode.privileged);
            path.is_some_and(|path| volume == json!({ "name": name, "hostPath": path }))
        });
        ensure(of_policy || of_hatch, || format!("the volume {volume}"))?;
    }
    for (field, key) in [("tolerations", "tolerations"), ("schedulingGates", "schedulingGates")] {
        for item in appended(field, &take(rest, &["spec", key]))? {
            let of_policy = any(&|mode| match field {
                "tolerations" => mode.tolerations.iter().any(|own| item == json!(own)),
                _ => mode.scheduling_gates.iter().any(|own| item == json!({ "name": own })),
            });
            ensure(of_policy, || format!("{field}: {item}"))?;
        }
    }
    for claim in appended("resourceClaims", &take(rest, &["spec", "resourceClaims"]))? {
        let of_policy = any(&|mode| {
            mode.resource_claims.iter().any(|own| {
                let template = &own.resource_claim_template_name;
                claim == json!({ "name": own.name, "resourceClaimTemplateName": template })
            })
        });
        ensure(of_policy, || format!("the claim {claim}"))?;
    }
    let (own, new) = take(rest, &["spec", "hostUsers"]);
    let own_users = new == json!(false) && any(&|mode| mode.host_users == Some(false));
    ensure(own == new || (own.is_null() && own_users), || format!("hostUsers {own} {new}"))?;
    let (own, new) = take(rest, &["spec", "runtimeClassName"]);
    let class = any(&|mode| mode.runtime_class_name.as_deref() == new.as_str());
    let unset = own.is_null() || own == "";
    ensure(own == new || (unset && class), || format!("runtimeClassName {own} {new}"))?;

    let pair = take(rest, &["spec", "nodeSelector"]);
    for (key, value) in added(&pair)? {
        let of_policy = any(&|mode| mode.node_selector.get(&key).is_some_and(|own| value == **own));
        ensure(of_policy, || format!("nodeSelector {key}: {value}"))?;
    }
    let mut pair = take(rest, &["metadata", "annotations"]);
    take(&mut pair, &["devices.example/granted"]);
    if entitled.iter().any(|one| one.mode.app_armor_profile.is_some()) {
        // Before 1.30 there is no field, and where there is an annotation it follows the field.
        for (at, container) in containers(before) {
            let key = format!(
                "container.apparmor.security.beta.kubernetes.io/{}",
                container["name"].as_str().unwrap_or_default()
            );
            let (own, new) = take(&mut pair, &[&key]);
            let wanted = entitled.iter().filter(|one| one.containers.contains(&at)).any(|one| {
                match &one.mode.app_armor_profile {
                    Some(Profile::Localhost(profile)) => new == format!("localhost/{profile}"),
                    Some(Profile::Unconfined) => new == "unconfined",
                    Some(Profile::RuntimeDefault) => new == "runtime/default",
                    Some(Profile::Keep) | None => false,
                }
            });
            let there = minor < 30 || !own.is_null();
            ensure(own == new || (wanted && there), || format!("{key}: {own} {new}"))?;
        }
    }
    for (key, value) in added(&pair)? {
        let of_policy =
            any(&|mode| mode.pod_annotations.get(&key).is_some_and(|own| value == **own));
        ensure(of_policy, || format!("the annotation {key}: {value}"))?;
    }

    let terms = [
        "spec",
        "affinity",
        "nodeAffinity",
        "requiredDuringSchedulingIgnoredDuringExecution",
        "nodeSelectorTerms",
    ];
    let (own, mut new) = take(rest, &terms);
    let is_ours =
        |item: &Value| any(&|mode| mode.node_affinity.iter().any(|own| *item == json!(own)));
    let mut own = own.as_array().cloned().unwrap_or_default();
    if own.is_empty() && new.as_array().is_some_and(|terms| terms.len() == 1) {
        own.push(json!({}));
    } else {
        for (own, new) in own.iter().zip(new.as_array().into_iter().flatten()) {
            let nothing = |key: &str| own[key].as_array().is_none_or(Vec::is_empty);
            let matches_nothing = nothing("matchExpressions") && nothing("matchFields");
            ensure(!matches_nothing || own == new, || format!("the empty term became {new}"))?;
        }
    }
    let mut left = (json!(own), new.take());
    for index in 0..own.len() {
        let term = index.to_string();
        for item in appended("terms", &take(&mut left, &[&term, "matchExpressions"]))? {
            ensure(is_ours(&item), || format!("the requirement {item}"))?;
        }
    }
    ensure(same(&left.0, &left.1), || format!("the node affinity: {} {}", left.0, left.1))
}

fn amount(value: &Value) -> Option<Quantity> {
    Quantity::parse(&value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

fn container(own: &Value, new: &Value, here: &[&Entitlement<'_>]) -> Result<(), String> {
    let mut rest = (own.clone(), new.clone());
    let any = |test: &dyn Fn(&Mode) -> bool| here.iter().any(|one| test(one.mode));

    let limits = take(&mut rest, &["resources", "limits"]);
    let requests = take(&mut rest, &["resources", "requests"]);
    for pair in [&limits, &requests] {
        for (name, value) in added_or_changed(pair)? {
            let most = here.iter().flat_map(|one| {
                one.mode.resources.iter().filter(|resource| resource.name == name).map(|resource| {
                    match resource.count {
                        ResourceCount::Fixed(count) => count,
                        ResourceCount::Requested(_) => one.count,
                    }
                })
            });
            let most = most.max().ok_or_else(|| format!("the resource {name}"))?;
            // What the pod has already is never lowered, so that it may be more than the policy's.
            let there = [&limits.0[&name], &requests.0[&name]].map(amount);
            let whole = there.into_iter().flatten().map(Quantity::to_whole);
            let mut there: Vec<Quantity> =
                whole.filter_map(|whole| Quantity::parse(&whole)).collect();
            there.push(Quantity::whole(most));
            let fits = amount(&value) <= there.into_iter().max();
            ensure(fits && amount(&value).is_some(), || format!("{name}: {value} of {most}"))?;
            let (limit, request) = (amount(&limits.1[&name]), amount(&requests.1[&name]));
            ensure(limit == request, || format!("{name}: {:?} {:?}", limits.1, requests.1))?;
        }
    }
    for claim in appended("claims", &take(&mut rest, &["resources", "claims"]))? {
        let of_policy = any(&|mode| {
            mode.resource_claims.iter().any(|own| {
                let request = own.request.as_ref().map(|request| json!(request));
                claim["name"] == own.name && claim.get("request") == request.as_ref()
            })
        });
        ensure(of_policy, || format!("the claim {claim}"))?;
    }
    let security = |field| ["securityContext", field];
    let (own, new) = take(&mut rest, &["securityContext", "capabilities", "add"]);
    let items = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let (own, new) = (items(&own), items(&new));
    ensure(own.len() <= new.len(), || "a capability is gone".to_owned())?;
    for (index, capability) in new.iter().enumerate().filter(|(at, new)| own.get(*at) != Some(new))
    {
        let of_policy = any(&|mode| mode.capabilities.iter().any(|own| *capability == **own));
        ensure(of_policy, || format!("the capability {capability}"))?;
        let respelled = own.get(index).is_none_or(|own| {
            let own = own.as_str().unwrap().to_uppercase();
            *capability == own.trim_start_matches("CAP_")
        });
        ensure(respelled, || format!("{capability} stands where another was"))?;
    }
    let (own, new) = take(&mut rest, &security("privileged"));
    let hatch = new == json!(true) && any(&|mode| mode.privileged);
    ensure(own == new || hatch, || format!("privileged {new}"))?;
    let (own, new) = take(&mut rest, &security("allowPrivilegeEscalation"));
    let wanted = any(&|mode| mode.allow_privilege_escalation == new.as_bool());
    ensure(own == new || wanted, || format!("allowPrivilegeEscalation {new}"))?;
    for (field, of) in [
        (
            "appArmorProfile",
            (|mode| mode.app_armor_profile.as_ref()) as fn(&Mode) -> Option<&Profile>,
        ),
        ("seccompProfile", |mode| mode.seccomp_profile.as_ref()),
    ] {
        let (own, new) = take(&mut rest, &security(field));
        let wanted = any(&|mode| match of(mode) {
            Some(Profile::Localhost(profile)) => {
                new == json!({ "type": "Localhost", "localhostProfile": profile })
            }
            Some(Profile::RuntimeDefault) => new == json!({ "type": "RuntimeDefault" }),
            Some(Profile::Unconfined) => new == json!({ "type": "Unconfined" }),
            Some(Profile::Keep) | None => false,
        });
        ensure(own == new || wanted, || format!("{field} {new}"))?;
    }

    let (own, new) = take(&mut rest, &["env"]);
    let (own, new) = (items(&own), items(&new));
    ensure(own.len() <= new.len(), || "a variable is gone".to_owned())?;
    for (index, variable) in new.iter().enumerate().filter(|(at, new)| own.get(*at) != Some(new)) {
        let of_policy = any(&|mode| mode.env.iter().any(|own| *variable == json!(own)));
        let void = json!({ "name": "NVIDIA_VISIBLE_DEVICES", "value": "void" });
        ensure(of_policy || *variable == void, || format!("the variable {variable}"))?;
        let same_name = own.get(index).is_none_or(|own| own["name"] == variable["name"]);
        ensure(same_name, || format!("{variable} stands where another was"))?;
    }
    for mount in appended("volumeMounts", &take(&mut rest, &["volumeMounts"]))? {
        let of_policy = any(&|mode| mode.mounts.iter().any(|own| mount == json!(own)));
        let of_hatch = here.iter().any(|one| {
            let name = format!("devgrant-{}", one.device);
            let path = one.mode.host_path.as_ref().filter(|_| one.mode.privileged);
            path.is_some_and(|path| mount == json!({ "name": name, "mountPath": path.path }))
        });
        ensure(of_policy || of_hatch, || format!("the mount {mount}"))?;
    }
    let (own, new) = rest;
    ensure(same(&own, &new), || format!("something else changed:\n{own}\n{new}"))
}

/// What the NVIDIA runtime would make of the containers (DESIGN 5.6).
pub(crate) fn nvidia(
    before: &Value,
    after: &Value,
    entitled: &[Entitlement<'_>],
) -> Result<(), String> {
    let class = after["spec"]["runtimeClassName"].as_str().unwrap_or_default();
    for (at, own) in containers(before) {
        let new = &after["spec"][at.0][at.1];
        let here: Vec<&Entitlement<'_>> =
            entitled.iter().filter(|one| one.containers.contains(&at)).collect();
        let variable = |container: &Value| {
            let mut env = container["env"].as_array().into_iter().flatten();
            env.rfind(|one| one["name"] == "NVIDIA_VISIBLE_DEVICES").cloned()
        };
        let gpu = ["limits", "requests"].iter().any(|field| {
            let amounts = new["resources"][field].as_object().into_iter().flatten();
            amounts.into_iter().any(|(name, amount)| {
                (name.starts_with("nvidia.com/") || name == "sunk.coreweave.com/accelerator")
                    && self::amount(amount).is_some_and(Quantity::is_positive)
            })
        });
        if gpu {
            let same = variable(own) == variable(new);
            ensure(same, || format!("{at:?} has a GPU and gets {:?}", variable(new)))?;
            continue;
        }
        let omits = |one: &Entitlement<'_>, field: &str| {
            let variant = one.spec.runtime_classes.get(class);
            variant.is_some_and(|variant| json!(variant.omit).to_string().contains(field))
        };
        let sys_admin = here.iter().any(|one| {
            one.mode.capabilities.iter().any(|capability| capability == "SYS_ADMIN")
                && !omits(one, "\"capabilities\"")
                && !omits(one, "nvidiaVisibleDevices")
        });
        let keeps = here.iter().any(|one| {
            json!(one.mode.nvidia_visible_devices) == "Keep" && !omits(one, "nvidiaVisibleDevices")
        });
        if sys_admin && !keeps {
            let value = variable(new).map(|variable| variable["value"].clone());
            let safe = value.as_ref().is_some_and(|value| value == "void" || value == "none");
            ensure(safe, || format!("{at:?} gets SYS_ADMIN and keeps {:?}", variable(new)))?;
        }
    }
    Ok(())
}

const LISTS: [&str; 2] = ["initContainers", "containers"];

/// All containers with their places.
pub(crate) fn containers(pod: &Value) -> Vec<((&'static str, usize), &Value)> {
    let of = |list: &'static str| {
        let items = pod["spec"][list].as_array().into_iter().flatten();
        items.enumerate().map(move |(index, container)| ((list, index), container))
    };
    LISTS.into_iter().flat_map(of).collect()
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// Takes the values at a path out of both.
fn take(pair: &mut (Value, Value), path: &[&str]) -> (Value, Value) {
    let one = |mut value: &mut Value| {
        let (last, parents) = path.split_last().unwrap();
        for step in parents {
            let inner = match value {
                Value::Array(items) => items.get_mut(step.parse::<usize>().unwrap()),
                other => other.get_mut(*step),
            };
            match inner {
                Some(inner) => value = inner,
                None => return Value::Null,
            }
        }
        value.get_mut(*last).map(Value::take).unwrap_or_default()
    };
    (one(&mut pair.0), one(&mut pair.1))
}

/// The items behind those that were there, which are unchanged.
fn appended(what: &str, (own, new): &(Value, Value)) -> Result<Vec<Value>, String> {
    let items = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let (own, new) = (items(own), items(new));
    ensure(new.starts_with(&own), || format!("{what}: changed what was there"))?;
    Ok(new.get(own.len()..).unwrap_or_default().to_vec())
}

/// The entries of a map that were not there; those that were are unchanged.
fn added(pair: &(Value, Value)) -> Result<Vec<(String, Value)>, String> {
    let changed = added_or_changed(pair)?;
    let fresh = changed.iter().all(|(key, _)| pair.0.get(key).is_none_or(Value::is_null));
    ensure(fresh, || format!("changed what was there: {changed:?}"))?;
    Ok(changed)
}

fn added_or_changed((own, new): &(Value, Value)) -> Result<Vec<(String, Value)>, String> {
    for (key, value) in own.as_object().into_iter().flatten() {
        ensure(value.is_null() || new.get(key).is_some(), || format!("`{key}` is gone"))?;
    }
    let entries = new.as_object().into_iter().flatten();
    // `null` is what an absent entry is, and what was judged before leaves one.
    let changed =
        entries.filter(|(key, value)| !value.is_null() && own.get(key.as_str()) != Some(value));
    Ok(changed.map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// Whether two values are the same to Kubernetes: absent, `null` and empty parents are.
fn same(one: &Value, other: &Value) -> bool {
    fn plain(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let entries = map.iter().map(|(key, value)| (key.clone(), plain(value)));
                let map: Map<String, Value> =
                    entries.filter(|(_, value)| !value.is_null()).collect();
                if map.is_empty() { Value::Null } else { map.into() }
            }
            Value::Array(items) if items.is_empty() => Value::Null,
            Value::Array(items) => items.iter().map(plain).collect(),
            other => other.clone(),
        }
    }
    plain(one) == plain(other)
}
