//! Which containers of a pod have the old shape, and by which annotations those would ask that do not yet.

use std::collections::BTreeMap;

use super::{Stays, decided, path_of};
use crate::cli::question::Question;
use crate::decision::ask::{Ask, Asker, Chosen, service_account};
use crate::decision::path::parts;
use crate::decision::plan::compose;
use crate::decision::pod::{Container, ContainerIndex, Spec};
use crate::decision::policy::Policy;
use crate::decision::policy::schema::{Enforcement, Mode};
use crate::decision::policy::select::{Allowed, Subject};
use crate::decision::{PolicySet, Request, Review};

/// The containers of the old shape.
#[derive(Default)]
pub(super) struct Shapes {
    /// All of them.
    pub(super) concerned: Vec<ContainerIndex>,
    /// Those of devices that the pod does not ask for yet, with their names.
    pub(super) unasked: BTreeMap<String, Vec<(ContainerIndex, String)>>,
    /// The annotations by which those ask.
    pub(super) annotations: BTreeMap<String, String>,
}

/// Finds the old shape. Whether a container has it for a device is what a plan says of an ask for it:
/// here for a mode that grants nothing, to which nothing can stand in the way.
pub(super) fn old_shapes(question: &Question, policies: &PolicySet) -> Result<Shapes, Stays> {
    let Ok(review) = Review::decode(&question.review) else { return Ok(Shapes::default()) };
    let Ok(request) = Request::of(&review) else { return Ok(Shapes::default()) };
    let Ok(Some(pod)) = request.pod() else { return Ok(Shapes::default()) };
    let Some(spec) = pod.spec() else { return Ok(Shapes::default()) };
    // Most pods; this spares them all that follows.
    if spec.volumes.iter().all(|volume| volume.host_path.is_none()) {
        return Ok(Shapes::default());
    }
    let asked: BTreeMap<String, Vec<ContainerIndex>> =
        decided(question, policies, |decision, _| {
            // A policy may look at pods that ask for nothing; this is about the author's word.
            let asks = decision.asks.iter().filter(|ask| ask.chosen != Chosen::OldShape);
            asks.map(|ask| (ask.policy.device().to_owned(), ask.containers.clone())).collect()
        })
        .unwrap_or_default();
    let mut shapes = Shapes::default();
    for (at, container) in spec.all_containers() {
        let devices: Vec<&Policy> =
            policies.policies().iter().filter(|policy| has_old_shape(spec, at, policy)).collect();
        let is_asked = asked.values().flatten().any(|own| *own == at);
        if !devices.is_empty() && !is_asked && mounts_all_devices(spec, container) {
            if asked.is_empty() {
                return Err(Stays::at(
                    path_of(at),
                    format!(
                        "container `{}` mounts all of /dev, and nobody can tell which devices it \
                         uses; ask for them by annotation",
                        container.name
                    ),
                ));
            }
            continue;
        }
        for policy in devices {
            let device = policy.device();
            let key = format!("{}/{device}", policies.settings().prefix);
            match (request.annotation(&key), asked.get(device)) {
                // What all of `/dev` is, the pod has said by asking for another device.
                (None, _) if mounts_all_devices(spec, container) => {}
                (None, _) => {
                    may_ask(policy, container, &key).map_err(|why| Stays::at(path_of(at), why))?;
                    let unasked = shapes.unasked.entry(device.to_owned()).or_default();
                    unasked.push((at, container.name.to_string()));
                }
                (Some(_), Some(own)) if own.contains(&at) => {}
                // An ask that is wrong: the line says what of it.
                (Some(value), None) if value != "false" => {}
                (Some("false"), None) => {
                    let why = format!(
                        "`{key}: \"false\"` says that it wants none, and container `{}` has the old \
                         shape; take one of the two away",
                        container.name
                    );
                    return Err(Stays::at(path_of(at), why));
                }
                (Some(value), _) => {
                    let why = format!(
                        "`{key}: \"{value}\"` does not ask for container `{}`, which has the old \
                         shape; name it in `{key}.containers`, or take the shape away",
                        container.name
                    );
                    return Err(Stays::at(path_of(at), why));
                }
            }
            if !shapes.concerned.contains(&at) {
                shapes.concerned.push(at);
            }
        }
    }
    let service_account = service_account(spec);
    let subject = Subject { namespace: &question.namespace, service_account };
    let judge = Asker { spec, request: &request, policies, subject };
    for (device, containers) in &shapes.unasked {
        let key = format!("{}/{device}", policies.settings().prefix);
        let containers: Vec<ContainerIndex> = containers.iter().map(|(at, _)| *at).collect();
        if let Some(names) = judge.names_for(device, &containers) {
            shapes.annotations.insert(format!("{key}.containers"), names.join(","));
        }
        shapes.annotations.insert(key, "true".to_owned());
    }
    Ok(shapes)
}

fn has_old_shape(spec: &Spec<'_>, at: ContainerIndex, policy: &Policy) -> bool {
    let mode = Mode::default();
    let ask = Ask {
        policy,
        mode_name: "",
        mode: &mode,
        count: 1,
        containers: vec![at],
        chosen: Chosen::Named,
        allowed: Allowed::Everyone,
        alternatives: Vec::new(),
    };
    compose(spec, &[ask]).is_ok_and(|plan| !plan.legacy.is_empty())
}

/// Whether an ask may be written for a container that nobody asked for.
fn may_ask(policy: &Policy, container: &Container<'_>, key: &str) -> Result<(), String> {
    if policy.spec().enforcement == Enforcement::Shadow {
        return Err(format!("the policy `{}` only watches (`enforcement: Shadow`)", policy.name()));
    }
    if container.security_context.privileged != Some(true) {
        return Err(format!(
            "container `{}` is not privileged, and would get more than it has; if it should, write \
             `{key}: \"true\"`",
            container.name
        ));
    }
    Ok(())
}

fn mounts_all_devices(spec: &Spec<'_>, container: &Container<'_>) -> bool {
    container.volume_mounts.iter().any(|mount| {
        let volume = spec.volumes.iter().find(|volume| volume.name == mount.name.as_str());
        volume.and_then(|volume| volume.host_path.as_ref()).is_some_and(|host_path| {
            let mut path = parts(host_path.path.as_str());
            path.extend(mount.sub_path.iter().flat_map(|sub_path| parts(sub_path.as_str())));
            path == ["dev"]
        })
    })
}
