//! What of the old shape went, and whether it had to: the device by hostPath, and `privileged` for it.

use devgrant::decision::policy::schema::{Legacy, LegacyAction};
use serde_json::{Value, json};

use super::{Entitlement, containers, ensure};

/// The pod as it came, less the old shape that went; or what went that had to stay.
pub(super) fn without_old_shape(
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
