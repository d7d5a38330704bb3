//! What a patch may add, judged without the code under test: from the text of the policies, the
//! annotations and the two pods.

use devgrant::decision::PolicySet;
use devgrant::decision::policy::schema::{
    AllowRule, Enforcement, LabelOperator, LabelSelector, Legacy, LegacyAction, Mode, Profile,
    ResourceCount, Spec,
};
use devgrant::decision::quantity::Quantity;
use serde_json::{Map, Value, json};

/// One ask that the policies let this subject make, and whom it is for.
pub(crate) struct Entitlement<'p> {
    pub(crate) device: String,
    pub(crate) spec: &'p Spec,
    pub(crate) mode: &'p Mode,
    /// The most of a counted resource.
    pub(crate) count: u32,
    /// `(list, index)` of each container.
    pub(crate) containers: Vec<(&'static str, usize)>,
}

/// Everything that a pod may have by its own annotations, as a person would read the policies.
pub(crate) fn entitlements<'p>(
    pod: &Value,
    labels: &Map<String, Value>,
    set: &'p PolicySet,
) -> Vec<Entitlement<'p>> {
    let none = Map::new();
    let annotations = pod["metadata"]["annotations"].as_object().unwrap_or(&none);
    let text = |key: &str| annotations.get(key).map(|value| value.as_str().unwrap_or_default());
    let account = match pod["spec"]["serviceAccountName"].as_str() {
        None | Some("") => "default",
        Some(account) => account,
    };
    let mut found = Vec::new();
    for policy in set.policies() {
        let spec = policy.spec();
        let key = format!("devices.example/{}", spec.device);
        let Some(value) = text(&key) else { continue };
        if value == "false" || spec.enforcement == Enforcement::Shadow {
            continue;
        }
        let (mode_name, count) = match value.split_once(':') {
            Some((mode, count)) => (mode, Some(count)),
            None if value == "true" => (spec.default_mode.as_str(), None),
            None if value.parse::<u64>().is_ok() => (spec.default_mode.as_str(), Some(value)),
            None => (value, None),
        };
        let Some(mode) = spec.modes.get(mode_name) else { continue };
        let named_by_rule = |rule: &AllowRule| match &rule.modes {
            Some(modes) => modes.iter().any(|name| name == mode_name),
            None => !is_hatch(mode),
        };
        let allowed = match &spec.allow {
            None => !is_hatch(mode),
            Some(rules) => {
                rules.iter().any(|rule| covers(rule, labels, account) && named_by_rule(rule))
            }
        };
        let count = count.map_or(Some(spec.count.default), |count| count.parse().ok());
        let Some(count) = count.filter(|count| *count <= spec.count.max && *count > 0) else {
            continue;
        };
        if !allowed {
            continue;
        }
        let names =
            text(&format!("{key}.containers")).or_else(|| text("devices.example/containers"));
        let containers = match names {
            Some(names) => named(pod, names),
            None => vec![primary(pod, &spec.device, &text)],
        };
        let device = spec.device.clone();
        found.push(Entitlement { device, spec, mode, count, containers });
    }
    found
}

/// Whether only a rule that names the mode opens it. Of the capabilities that are the node itself, the
/// generator makes one.
fn is_hatch(mode: &Mode) -> bool {
    let on_node = mode.host_users != Some(false);
    mode.privileged || (on_node && mode.capabilities.iter().any(|name| name == "SYS_PTRACE"))
}

fn covers(rule: &AllowRule, labels: &Map<String, Value>, account: &str) -> bool {
    rule.namespace_selector.as_ref().is_none_or(|selector| selects(selector, labels))
        && rule.service_accounts.as_ref().is_none_or(|accounts| {
            // The patterns of these tests have one star at most, at the end.
            accounts.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => account.starts_with(start),
                None => account == pattern,
            })
        })
}

fn selects(selector: &LabelSelector, labels: &Map<String, Value>) -> bool {
    let value = |key: &str| labels.get(key).and_then(Value::as_str);
    selector.match_labels.iter().all(|(key, wanted)| value(key) == Some(wanted))
        && selector.match_expressions.iter().all(|wanted| {
            let value = value(&wanted.key);
            let listed = wanted.values.iter().any(|one| Some(one.as_str()) == value);
            match wanted.operator {
                LabelOperator::DoesNotExist => value.is_none(),
                LabelOperator::Exists => value.is_some(),
                LabelOperator::In => listed,
                LabelOperator::NotIn => !listed,
            }
        })
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

fn named(pod: &Value, names: &str) -> Vec<(&'static str, usize)> {
    let names: Vec<&str> = names.split(',').map(str::trim).collect();
    let all = containers(pod).into_iter();
    all.filter(|((list, _), container)| {
        let name = container["name"].as_str().unwrap_or_default();
        names.contains(&name) || (names.contains(&"*") && *list == "containers")
    })
    .map(|(at, _)| at)
    .collect()
}

fn primary<'t>(
    pod: &Value,
    device: &str,
    text: &impl Fn(&str) -> Option<&'t str>,
) -> (&'static str, usize) {
    let by_name = |name: &str| {
        let all = containers(pod);
        all.into_iter().find(|(_, container)| container["name"] == name).map(|(at, _)| at)
    };
    let stamp: Option<Value> =
        text("devices.example/granted").and_then(|stamp| serde_json::from_str(stamp).ok());
    let stamped = stamp.and_then(|stamp| {
        let grants = stamp["grants"].as_array()?.clone();
        let grant = grants.into_iter().find(|grant| grant["device"] == device)?;
        match grant["containers"].as_array()?.as_slice() {
            [only] => Some(only.as_str()?.to_owned()),
            _ => None,
        }
    });
    let stamped = stamped.and_then(|name| by_name(&name));
    let default = text("kubectl.kubernetes.io/default-container").and_then(by_name);
    stamped.or(default).unwrap_or(("containers", 0))
}

/// What of the old shape the asks of a container let go.
fn rewritten<'e>(here: &[&'e Entitlement<'_>]) -> Vec<&'e Legacy> {
    let asks = here.iter().filter(|one| !one.mode.privileged);
    let legacy = asks.filter_map(|one| one.spec.legacy.as_ref());
    legacy.filter(|legacy| legacy.action == LegacyAction::Rewrite).collect()
}

/// A path without what means nothing in it.
fn plain_path(path: &str) -> String {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    parts.fold(String::new(), |path, part| path + "/" + part)
}

/// What of the node a mount shows; `None` if nothing, or if only the run decides.
fn of_node(pod: &Value, mount: &Value) -> Option<String> {
    let volume = volume(pod, &mount["name"])?;
    let path = volume["hostPath"]["path"].as_str()?;
    let below = mount["subPath"].as_str().unwrap_or_default();
    let is_fixed = mount["subPathExpr"].as_str().unwrap_or_default().is_empty();
    is_fixed.then(|| plain_path(&format!("{path}/{below}")))
}

fn volume<'v>(pod: &'v Value, name: &Value) -> Option<&'v Value> {
    pod["spec"]["volumes"].as_array()?.iter().find(|volume| volume["name"] == *name)
}

fn is_of(legacy: &Legacy, path: &str) -> bool {
    legacy.host_paths.iter().any(|device| match device.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => path == device || path.starts_with(&format!("{device}/")),
    })
}

fn mounts(container: &Value) -> Vec<Value> {
    container["volumeMounts"].as_array().cloned().unwrap_or_default()
}

fn is_privileged(container: &Value) -> bool {
    container["securityContext"]["privileged"] == json!(true)
}

/// The pod as it came, less the old shape that went; or what went that had to stay.
fn without_old_shape(
    before: &Value,
    after: &Value,
    entitled: &[Entitlement<'_>],
) -> Result<Value, String> {
    let mut pod = before.clone();
    let mut unmounted = Vec::new();
    for (at, own) in containers(before) {
        let new = &after["spec"][at.0][at.1];
        let here: Vec<&Entitlement<'_>> =
            entitled.iter().filter(|one| one.containers.contains(&at)).collect();
        let legacy = rewritten(&here);
        let kept = mounts(new);
        let gone: Vec<Value> =
            mounts(own).into_iter().filter(|mount| !kept.contains(mount)).collect();
        for mount in &gone {
            let path = of_node(before, mount).unwrap_or_default();
            let is_ours = path == "/dev" || legacy.iter().any(|legacy| is_of(legacy, &path));
            let in_place = plain_path(mount["mountPath"].as_str().unwrap_or_default()) == path;
            ensure(!legacy.is_empty() && is_ours && in_place, || {
                format!("the mount {mount} went")
            })?;
            unmounted.push(mount["name"].clone());
        }
        if !gone.is_empty() {
            let brought = here.iter().any(|one| {
                let mode = one.mode;
                !mode.resources.is_empty()
                    || !mode.resource_claims.is_empty()
                    || !mode.pod_annotations.is_empty()
            });
            ensure(brought, || format!("{at:?}: {gone:?} went, and nothing came"))?;
            pod["spec"][at.0][at.1]["volumeMounts"]
                .as_array_mut()
                .unwrap()
                .retain(|mount| kept.contains(mount));
        }
        if is_privileged(own) && !is_privileged(new) {
            let spec = &before["spec"];
            let hosts = ["hostPID", "hostIPC", "hostNetwork"];
            let shared = kept.iter().any(|mount| mount["mountPropagation"] == "Bidirectional");
            let other = kept.iter().find_map(|mount| {
                let path = of_node(before, mount)?;
                let whole = path.is_empty() || path == "/dev";
                (whole || ["/dev/", "/sys"].iter().any(|start| path.starts_with(start)))
                    .then_some(path)
            });
            ensure(!gone.is_empty(), || format!("{at:?}: only privileged went"))?;
            ensure(legacy.iter().all(|legacy| legacy.privileged), || {
                "no policy says so".to_owned()
            })?;
            ensure(here.iter().all(|one| !one.mode.privileged), || "the hatch".to_owned())?;
            ensure(hosts.iter().all(|field| spec[*field] != json!(true)), || "a host".to_owned())?;
            ensure(!shared, || format!("{at:?}: a shared mount stays, and privileged went"))?;
            ensure(other.is_none(), || format!("{at:?}: {other:?} stays, and privileged went"))?;
            let security = pod["spec"][at.0][at.1]["securityContext"].as_object_mut();
            security.unwrap().remove("privileged");
            ensure(new["securityContext"].get("privileged").is_none(), || "not gone".to_owned())?;
        }
    }
    for (at, new) in containers(after) {
        for mount in mounts(new) {
            let lost =
                volume(before, &mount["name"]).is_some() && volume(after, &mount["name"]).is_none();
            ensure(!lost, || format!("{at:?}: {mount} has no volume any more"))?;
        }
    }
    if let Some(volumes) = pod["spec"]["volumes"].as_array_mut() {
        for own in volumes.iter().filter(|own| volume(after, &own["name"]).is_none()) {
            ensure(unmounted.contains(&own["name"]), || format!("the volume {own} went"))?;
        }
        volumes.retain(|own| volume(after, &own["name"]).is_some());
    }
    // Nobody needs a volume that nobody mounts any more.
    let held: Vec<Value> = containers(after)
        .iter()
        .flat_map(|(_, new)| mounts(new))
        .map(|mount| mount["name"].clone())
        .collect();
    let left = unmounted.iter().find(|name| !held.contains(name) && volume(after, name).is_some());
    ensure(left.is_none(), || format!("the volume {left:?} stays for nobody"))?;
    Ok(pod)
}

/// Whoever is granted a device and has it by hostPath at its own path loses that, or is told why not.
pub(crate) fn old_shape_is_gone_or_said(
    before: &Value,
    after: &Value,
    entitled: &[Entitlement<'_>],
    warnings: &str,
) -> Result<(), String> {
    for (at, own) in containers(before) {
        let new = &after["spec"][at.0][at.1];
        let here: Vec<&Entitlement<'_>> =
            entitled.iter().filter(|one| one.containers.contains(&at)).collect();
        for legacy in rewritten(&here) {
            let has = |mount: &Value, in_place: bool| {
                let inside = plain_path(mount["mountPath"].as_str().unwrap_or_default());
                of_node(before, mount)
                    .is_some_and(|path| is_of(legacy, &path) && (!in_place || path == inside))
            };
            if !mounts(own).iter().any(|mount| has(mount, true)) {
                continue;
            }
            let gone = !mounts(new).iter().any(|mount| has(mount, false)) && !is_privileged(new);
            let name = own["name"].as_str().unwrap_or_default();
            let said = warnings.contains(&format!("DG022: container `{name}` keeps"));
            ensure(gone || said, || format!("{at:?} keeps the old shape, and nobody says so"))?;
            ensure(!(gone && said), || format!("{at:?} keeps nothing of the old shape"))?;
        }
    }
    Ok(())
}

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
