//! Grants to one container.

use serde_json::{Value, json};

use super::draft::{Draft, DraftError, Path};
use crate::decision::conflict::{app_armor_key, app_armor_value, bare, is_profile};
use crate::decision::path::same_path;
use crate::decision::plan::ContainerGrant;
use crate::decision::plan::accelerator::NVIDIA_VISIBLE_DEVICES;
use crate::decision::pod::{Amount, Container, ContainerIndex, Spec};
use crate::decision::policy::schema::{Profile, ResourceClaim};
use crate::decision::quantity::Quantity;
use crate::decision::request::Request;
use crate::decision::settings::KubernetesVersion;

/// The version that brought the AppArmor field; before it there is only the annotation (KEP-24).
const APP_ARMOR_FIELD: KubernetesVersion = KubernetesVersion { minor: 30 };

/// One container and where it stands.
pub(super) struct Target<'t, 'a> {
    draft: &'t mut Draft<'a>,
    request: &'t Request<'a>,
    spec: &'t Spec<'a>,
    container: &'t Container<'a>,
    path: Path<'static>,
    version: KubernetesVersion,
}

impl<'t, 'a> Target<'t, 'a> {
    pub(super) fn new(
        draft: &'t mut Draft<'a>,
        request: &'t Request<'a>,
        spec: &'t Spec<'a>,
        (at, container): (ContainerIndex, &'t Container<'a>),
        version: KubernetesVersion,
    ) -> Self {
        let path = Path::of(&["spec", at.list.field()]).index(at.index);
        Self { draft, request, spec, container, path, version }
    }

    pub(super) fn apply(&mut self, grant: ContainerGrant<'_>) -> Result<(), DraftError> {
        let security = &self.container.security_context;
        match grant {
            ContainerGrant::AllowPrivilegeEscalation(value) => {
                let there = security.allow_privilege_escalation == Some(value);
                self.security_field(there, "allowPrivilegeEscalation", value.into())
            }
            ContainerGrant::AppArmor(profile) => self.app_armor(profile),
            ContainerGrant::Capability(capability) => self.capability(capability),
            ContainerGrant::Claim(claim) => self.claim(claim),
            ContainerGrant::Environment { name, value } => self.environment(name, value, &[value]),
            ContainerGrant::Mount { volume, path } => self.mount(&volume.to_string(), path),
            ContainerGrant::Unmount(index) => {
                self.draft.remove(&self.path.key("volumeMounts").index(index))
            }
            ContainerGrant::Unprivileged => {
                self.draft.remove(&self.path.key("securityContext").key("privileged"))
            }
            ContainerGrant::NvidiaVoid => {
                self.environment(NVIDIA_VISIBLE_DEVICES, "void", &["void", "none"])
            }
            ContainerGrant::Privileged => {
                self.security_field(security.privileged == Some(true), "privileged", true.into())
            }
            ContainerGrant::Resource { name, count } => self.resource(name, count),
            ContainerGrant::Seccomp(profile) => {
                let pod = self.spec.security_context.as_ref();
                let pod = pod.and_then(|pod| pod.seccomp_profile.as_ref());
                let own = security.seccomp_profile.as_ref().or(pod);
                let there = own.is_some_and(|own| is_profile(own, profile));
                self.security_field(there, "seccompProfile", profile_field(profile))
            }
        }
    }

    /// Requests and limits of an extended resource must be equal, and defaulting has copied the one
    /// into the other before we see it, so that both are written together
    /// (`kubernetes pkg/apis/core/validation`, `validateResourceRequirements`).
    fn resource(&mut self, name: &str, count: u32) -> Result<(), DraftError> {
        let own = &self.container.resources;
        let limit = own.limits.get(name).map(Amount::quantity);
        let request = own.requests.get(name).map(Amount::quantity);
        let amounts = [Some(Quantity::whole(count)), limit.flatten(), request.flatten()];
        let amount = amounts.into_iter().flatten().max().unwrap_or_default().round_up();
        // Limits alone are enough: the API server copies them.
        if limit == Some(Some(amount)) && request.is_none_or(|request| request == Some(amount)) {
            return Ok(());
        }
        let resources = self.path.key("resources");
        for (field, there) in [("limits", limit), ("requests", request)] {
            if there != Some(Some(amount)) {
                self.draft
                    .set(&resources.key(field).key(name.to_owned()), amount.to_whole().into())?;
            }
        }
        Ok(())
    }

    fn claim(&mut self, claim: &ResourceClaim) -> Result<(), DraftError> {
        let same = |own: &crate::decision::pod::ContainerClaim<'_>| {
            // A reference to the whole claim is one to each of its requests.
            let request = own.request.as_ref().map(super::super::pod::Text::as_str);
            own.name == claim.name.as_str()
                && (request.is_none() || request == claim.request.as_deref())
        };
        if self.container.resources.claims.iter().any(same) {
            return Ok(());
        }
        let mut reference = json!({ "name": claim.name });
        if let (Some(request), Some(map)) = (&claim.request, reference.as_object_mut()) {
            map.insert("request".to_owned(), request.as_str().into());
        }
        self.draft.append(&self.path.key("resources").key("claims"), reference)
    }

    /// containerd takes `CAP_SYS_ADMIN` for a capability of the name `CAP_CAP_SYS_ADMIN` and ignores it
    /// in silence (`containerd internal/cri/opts/spec_opts.go`), so that such an entry is respelled.
    fn capability(&mut self, capability: &str) -> Result<(), DraftError> {
        let added = &self.container.security_context.capabilities.add;
        let there =
            |own: &str| own.eq_ignore_ascii_case(capability) || own.eq_ignore_ascii_case("ALL");
        if added.iter().any(|own| there(own.as_str())) {
            return Ok(());
        }
        let list = self.path.key("securityContext").key("capabilities").key("add");
        match added.iter().position(|own| bare(own.as_str()) == capability) {
            Some(index) => self.draft.set(&list.index(index), capability.into()),
            None => self.draft.append(&list, capability.into()),
        }
    }

    /// The field, or before Kubernetes 1.30 the annotation. Where there is an annotation already it must
    /// say the same as the field (`kubernetes pkg/apis/core/validation`,
    /// `validateAppArmorAnnotationsAndFieldsMatchOnCreate`).
    fn app_armor(&mut self, profile: &Profile) -> Result<(), DraftError> {
        if *profile == Profile::Keep {
            return Ok(());
        }
        let key = app_armor_key(self.container.name.as_str());
        let wanted = app_armor_value(profile);
        let has_field = self.version >= APP_ARMOR_FIELD;
        let own_field = self.container.security_context.app_armor_profile.as_ref();
        let pod = self.spec.security_context.as_ref();
        let own_field = own_field.or_else(|| pod?.app_armor_profile.as_ref());
        let field_says_so = own_field.is_some_and(|own| is_profile(own, profile));
        let annotation = self.request.annotation(&key).map(|own| own == wanted);
        // The API server copies an annotation into the field, though only after webhooks.
        let copied = annotation == Some(true) && own_field.is_none();
        if has_field && !copied {
            self.security_field(field_says_so, "appArmorProfile", profile_field(profile))?;
        }
        let needs_annotation =
            if has_field { annotation == Some(false) } else { annotation != Some(true) };
        if needs_annotation {
            self.draft.set(&Path::of(&["metadata", "annotations"]).key(key), wanted.into())?;
        }
        Ok(())
    }

    /// The last entry of a name is the one that counts at run time.
    fn environment(&mut self, name: &str, value: &str, as_good: &[&str]) -> Result<(), DraftError> {
        let list = self.path.key("env");
        let variable = json!({ "name": name, "value": value });
        match self.container.env.iter().rposition(|own| own.name == name) {
            None => self.draft.append(&list, variable),
            Some(index) => {
                let own = self.container.env.get(index);
                if own.is_some_and(|own| as_good.iter().any(|good| own.is(good))) {
                    return Ok(());
                }
                self.draft.set(&list.index(index), variable)
            }
        }
    }

    fn mount(&mut self, volume: &str, path: &str) -> Result<(), DraftError> {
        if self.container.volume_mounts.iter().any(|own| same_path(own.mount_path.as_str(), path)) {
            return Ok(());
        }
        self.draft
            .append(&self.path.key("volumeMounts"), json!({ "name": volume, "mountPath": path }))
    }

    fn security_field(
        &mut self,
        there: bool,
        field: &'static str,
        value: Value,
    ) -> Result<(), DraftError> {
        if there {
            return Ok(());
        }
        self.draft.set(&self.path.key("securityContext").key(field), value)
    }
}

fn profile_field(profile: &Profile) -> Value {
    match profile {
        Profile::Localhost(profile) => json!({ "type": "Localhost", "localhostProfile": profile }),
        other => json!({ "type": String::from(other.clone()) }),
    }
}
