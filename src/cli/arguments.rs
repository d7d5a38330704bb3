//! The flags that verbs share.

use std::path::PathBuf;

use clap::Args;

use crate::config::{Config, Labels, Merged, Sources, Typed};
use crate::decision::{OnInvalid, PolicySet};
use crate::policies;

use super::problems::BadPolicies;

/// The flags of every verb that reads policies.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Policy options")]
pub struct PolicyArguments {
    /// Configuration file, YAML; every long flag has its key there, in camelCase.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of policies; may be repeated. Without it: the shipped policies.
    #[arg(long, value_name = "DIR")]
    pub policies: Vec<PathBuf>,
    /// Take a policy folder without policies as it is.
    #[arg(long)]
    pub allow_empty_policies: bool,
    /// Annotation prefix, a DNS subdomain.
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// Namespace of devgrant itself, whose pods are never touched.
    #[arg(long, value_name = "NAME")]
    pub own_namespace: Option<String>,
    /// Version of the API server, which says what fields a pod may have.
    #[arg(long, value_name = "1.NN")]
    pub kubernetes_version: Option<String>,
    /// What to do with a key under the prefix that no policy owns.
    #[arg(long, value_name = "Deny|Warn", value_parser = on_invalid)]
    pub on_invalid: Option<OnInvalid>,
}

/// The flags of every verb that answers reviews: which policies, and in what kind of namespace.
#[derive(Debug, Clone, Default, Args)]
pub struct ReviewArguments {
    /// The policies.
    #[command(flatten)]
    pub policy: PolicyArguments,
    /// Labels that every namespace is taken to have, and no others but that of its name; default: the
    /// one that opts it in, which must be among those that are given.
    #[arg(long, value_name = "K=V,…", help_heading = "Assumed without a cluster")]
    pub namespace_labels: Option<Labels>,
}

/// The flags of every verb that decides about pods in files.
#[derive(Debug, Clone, Default, Args)]
pub struct DecidingArguments {
    /// The policies, and the labels of namespaces.
    #[command(flatten)]
    pub review: ReviewArguments,
    /// Namespace of the pods, whatever the files say.
    #[arg(long, value_name = "NAME", help_heading = "Assumed without a cluster")]
    pub namespace: Option<String>,
    /// Service account of pods that name none.
    #[arg(long, value_name = "NAME", help_heading = "Assumed without a cluster")]
    pub service_account: Option<String>,
    /// Who creates the pods.
    #[arg(long, value_name = "NAME", help_heading = "Assumed without a cluster")]
    pub user: Option<String>,
}

impl PolicyArguments {
    /// What these flags say.
    pub fn typed(&self) -> Typed {
        Typed {
            policies: (!self.policies.is_empty()).then(|| self.policies.clone()),
            allow_empty_policies: self.allow_empty_policies.then_some(true),
            prefix: self.prefix.clone(),
            own_namespace: self.own_namespace.clone(),
            kubernetes_version: self.kubernetes_version.clone(),
            on_invalid: self.on_invalid,
            ..Typed::default()
        }
    }

    /// The configuration of these flags over the environment and the file.
    pub fn load(&self) -> anyhow::Result<Config> {
        load(self.config.clone(), self.typed())?.config().map_err(Into::into)
    }
}

impl ReviewArguments {
    /// What these flags say.
    pub fn typed(&self) -> Typed {
        Typed { namespace_labels: self.namespace_labels.clone(), ..self.policy.typed() }
    }

    /// The configuration of these flags over the environment and the file.
    pub fn load(&self) -> anyhow::Result<Config> {
        load(self.policy.config.clone(), self.typed())?.config().map_err(Into::into)
    }
}

impl DecidingArguments {
    /// What these flags say.
    pub fn typed(&self) -> Typed {
        Typed {
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
            user: self.user.clone(),
            ..self.review.typed()
        }
    }

    /// The configuration of these flags over the environment and the file.
    pub fn load(&self) -> anyhow::Result<Config> {
        load(self.review.policy.config.clone(), self.typed())?.config().map_err(Into::into)
    }
}

/// Lays flags over the environment and the file.
pub fn load(file: Option<PathBuf>, flags: Typed) -> anyhow::Result<Merged> {
    let environment = std::env::vars_os().collect();
    Ok(Merged::load(Sources { file, environment, flags })?)
}

/// Reads and compiles the policies of a configuration.
pub fn compile(config: &Config) -> anyhow::Result<PolicySet> {
    let sources = policies::read(&config.policies)?;
    let set = PolicySet::compile(&sources, config.settings.clone());
    Ok(set.map_err(|problems| BadPolicies::new(&problems, &sources))?)
}

fn on_invalid(text: &str) -> Result<OnInvalid, String> {
    match text.to_ascii_lowercase().as_str() {
        "deny" => Ok(OnInvalid::Deny),
        "warn" => Ok(OnInvalid::Warn),
        _ => Err("write `Deny` or `Warn`".to_owned()),
    }
}
