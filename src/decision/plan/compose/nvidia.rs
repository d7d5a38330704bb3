//! What `NVIDIA_VISIBLE_DEVICES` must not become in a container with a GPU.

use super::Share;
use crate::decision::plan::accelerator::{NVIDIA_VISIBLE_DEVICES, SYS_ADMIN};
use crate::decision::plan::{Objection, Reason};
use crate::decision::pod::{ContainerIndex, Spec};
use crate::decision::policy::schema::EnvironmentVariable;
use crate::decision::spelling::excerpt;

/// The pod's own environment wins over what the device plugin sets. One mode that asks for both is
/// refused at load; two asks, or an ask beside the pod's own GPU, only meet here.
pub(super) fn hidden_gpu(
    here: &[&Share<'_, '_>],
    place: &str,
    gpu: &str,
    objections: &mut Vec<Objection>,
) {
    for share in here {
        let mut env = share.ask.mode.env.iter();
        if let Some(EnvironmentVariable { name, value }) =
            env.find(|variable| variable.name == NVIDIA_VISIBLE_DEVICES)
        {
            objections.push(Objection::new(
                Reason::Conflict,
                format!(
                    "{} sets `{name}={value}` in {place}, which would hide the `{gpu}` that it requests; leave one of the two out, or name different containers",
                    share.named()
                ),
            ));
        }
    }
}

/// A container with a GPU is left its `NVIDIA_VISIBLE_DEVICES`. With `SYS_ADMIN` the NVIDIA runtime
/// honours whatever stands there (F:E3), so that it must not be the pod's author who wrote it; and
/// there must be a GPU: where nobody schedules the pod, the kubelet starts it without the resource
/// (F:A15), and the image's own `all` would count.
pub(super) fn every_gpu(
    spec: &Spec<'_>,
    at: ContainerIndex,
    place: &str,
    gpu: Option<&str>,
    objections: &mut Vec<Objection>,
) {
    let env = spec.container(at).map_or(&[][..], |container| &container.env);
    let own = env.iter().enumerate().rfind(|(_, own)| own.name == NVIDIA_VISIBLE_DEVICES);
    if let Some((index, _)) = own.filter(|(_, own)| !own.is("void") && !own.is("none")) {
        let objection = Objection::new(
            Reason::Conflict,
            format!(
                "{place} sets `{NVIDIA_VISIBLE_DEVICES}` itself and would get `{SYS_ADMIN}`, with which the NVIDIA runtime hands out every GPU that the variable names; remove the variable"
            ),
        );
        objections.push(objection.at(format!("{at}/env/{index}")));
    }
    let preset = spec.node_name.as_ref().is_some_and(|node| !node.as_str().is_empty());
    if let Some(gpu) = gpu.filter(|_| preset) {
        objections.push(Objection::new(
            Reason::Conflict,
            format!("`spec.nodeName` is set, so that nobody checks that the node has `{}` for {place}, which would get `{SYS_ADMIN}` and with it, maybe, every GPU; remove `nodeName`", excerpt(gpu)),
        ).at("/spec/nodeName"));
    }
}
