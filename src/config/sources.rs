//! The places that settings are typed in, as layers that figment lays over each other.

use std::ffi::OsString;
use std::path::PathBuf;

use figment::providers::Serialized;
use figment::value::{Dict, Map};
use figment::{Figment, Metadata, Profile, Provider};
use serde_json::{Value, json};

use super::typed::{Form, KEYS, Typed};
use crate::decision::{KubernetesVersion, Settings, spelling};

/// What a variable of ours begins with.
const VARIABLE_PREFIX: &str = "DEVGRANT_";
/// The variable that names the file; no key, since a file cannot name itself.
const FILE_VARIABLE: &str = "DEVGRANT_CONFIG";
/// The largest configuration file. There are about thirty keys; this is generous for comments.
const FILE_LIMIT: u64 = 1024 * 1024;

/// Everything that settings are read from.
#[derive(Debug, Default)]
pub struct Sources {
    /// The file of `--config`. Without it, the one that `DEVGRANT_CONFIG` names, if any.
    pub file: Option<PathBuf>,
    /// The environment, all of it.
    pub environment: Vec<(OsString, OsString)>,
    /// What the flags say.
    pub flags: Typed,
}

/// A place that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The configuration file is read and is no configuration.
    #[error("{}: {problem}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong, with the line.
        problem: String,
    },
    /// A variable cannot be used.
    #[error("variable {name}: {problem}")]
    Variable {
        /// Its name.
        name: String,
        /// What is wrong with it, and what to write.
        problem: String,
    },
    /// The layers do not fit together.
    #[error("cannot merge the configuration: {0}")]
    Merge(Box<figment::Error>),
}

impl From<figment::Error> for SourcesError {
    fn from(error: figment::Error) -> Self {
        Self::Merge(Box::new(error))
    }
}

impl Sources {
    /// The layers without the defaults, which depend on them.
    pub(super) fn layers(self) -> Result<(Figment, Defaults), SourcesError> {
        let Self { file, environment, flags } = self;
        let text_of = |wanted: &str| {
            environment
                .iter()
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.clone())
                .filter(|value| !value.is_empty())
        };
        let file = file.or_else(|| text_of(FILE_VARIABLE).map(PathBuf::from));
        let own_namespace = text_of("POD_NAMESPACE")
            .and_then(|value| value.into_string().ok())
            .unwrap_or_else(|| Settings::OWN_NAMESPACE.to_owned());
        let mut layers = Figment::new();
        if let Some(file) = file {
            let typed = read_file(&file)?;
            layers = layers.merge(Layer { origin: Origin::File(file), typed });
        }
        let typed = read_environment(&environment)?;
        let layers = layers
            .merge(Layer { origin: Origin::Environment, typed })
            .merge(Layer { origin: Origin::Flags, typed: flags });
        Ok((layers, Defaults { own_namespace }))
    }
}

/// What the defaults depend on beside the other layers.
#[derive(Debug)]
pub(super) struct Defaults {
    own_namespace: String,
}

impl Defaults {
    pub(super) fn layer(self, standalone: bool) -> impl Provider {
        let text = |text: &str| Some(text.to_owned());
        // A laptop is not a pod: without a cluster nothing listens beyond loopback unasked.
        let host = if standalone { "127.0.0.1" } else { "0.0.0.0" };
        let typed = Typed {
            prefix: text(Settings::PREFIX),
            own_namespace: Some(self.own_namespace),
            on_invalid: Some(crate::decision::OnInvalid::default()),
            kubernetes_version: Some(KubernetesVersion::default().to_string()),
            listen: Some(format!("{host}:8443")),
            health: Some(format!("{host}:8080")),
            standalone: Some(standalone),
            // Without a cluster a person reads along.
            log_format: Some(if standalone {
                super::LogFormat::Text
            } else {
                super::LogFormat::Json
            }),
            log_level: text("info"),
            // Few enough for any cluster, and with thousands of reviews a day still some to look at.
            traces_sample: text(TRACES_SAMPLE),
            handshake_timeout: text("5s"),
            head_timeout: text("10s"),
            body_timeout: text("10s"),
            // Longer than the 90 s after which the API server's Go client closes an idle connection,
            // so that the client is always the first to close and never writes into a closed one.
            idle_timeout: text("120s"),
            body_limit: text("7Mi"),
            max_connections: Some(1024),
            max_connection_age: text("10m"),
            max_in_flight: Some(64),
            // Nothing but the person waits for a server without a cluster.
            shutdown_delay: text(if standalone { "0s" } else { "5s" }),
            ..Typed::default()
        };
        Layer { origin: Origin::Defaults, typed }
    }
}

/// Where a value was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere.
    Defaults,
    /// In the environment.
    Environment,
    /// In the file.
    File(PathBuf),
    /// On the command line.
    Flags,
}

/// The share of reviews that are traced where nobody says another.
pub(super) const TRACES_SAMPLE: &str = "0.01";
const FLAGS: &str = "flags";
const ENVIRONMENT: &str = "environment";
const DEFAULTS: &str = "defaults";

impl Origin {
    pub(super) fn of(layers: &Figment, key: &str) -> Self {
        let Some(metadata) = layers.find_metadata(key) else {
            return Self::Defaults;
        };
        match metadata.name.as_ref() {
            FLAGS => Self::Flags,
            ENVIRONMENT => Self::Environment,
            _ => metadata
                .source
                .as_ref()
                .and_then(figment::Source::file_path)
                .map_or(Self::Defaults, |file| Self::File(file.to_owned())),
        }
    }

    /// How a person finds the value of this key.
    pub(super) fn place(&self, key: &str) -> String {
        match self {
            Self::Defaults => format!("key `{key}`"),
            Self::Environment => format!("variable {}", variable(key)),
            Self::File(file) => format!("{}: key `{key}`", file.display()),
            Self::Flags => format!("flag --{}", spaced(key, '-')),
        }
    }
}

struct Layer {
    origin: Origin,
    typed: Typed,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        match &self.origin {
            Origin::Defaults => Metadata::named(DEFAULTS),
            Origin::Environment => Metadata::named(ENVIRONMENT),
            Origin::File(file) => Metadata::from("file", file.as_path()),
            Origin::Flags => Metadata::named(FLAGS),
        }
    }

    fn data(&self) -> figment::error::Result<Map<Profile, Dict>> {
        Serialized::defaults(&self.typed).data()
    }
}

fn read_file(file: &std::path::Path) -> Result<Typed, SourcesError> {
    let unreadable = |source| SourcesError::Unreadable { file: file.to_owned(), source };
    let problem = |problem| SourcesError::File { file: file.to_owned(), problem };
    if std::fs::metadata(file).map_err(unreadable)?.len() > FILE_LIMIT {
        return Err(problem(format!("is larger than {FILE_LIMIT} bytes")));
    }
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    // A file of comments only says nothing, and is read as null.
    let typed: Option<Typed> =
        serde_saphyr::from_str(&text).map_err(|error| problem(in_yaml(&error, &text)))?;
    Ok(typed.unwrap_or_default())
}

fn in_yaml(error: &serde_saphyr::Error, text: &str) -> String {
    let error = error.without_snippet();
    let line = error.location().map(|location| location.line());
    let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
    match error {
        serde_saphyr::Error::SerdeUnknownField { field, .. } => {
            let keys = KEYS.iter().map(|(key, _)| *key);
            let instead = match spelling::nearest(field, keys.clone()) {
                Some(key) => format!("did you mean `{key}`?"),
                None => format!("the keys are {}", keys.collect::<Vec<_>>().join(", ")),
            };
            format!("{place}no such key `{field}`; {instead}")
        }
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("{place}the key `{key}` is there twice; take one out")
        }
        serde_saphyr::Error::MultipleDocuments { .. } => {
            format!("{place}there is a second document; a configuration is one")
        }
        error => {
            let (key, form) = line.and_then(|line| key_at(text, line)).unzip();
            let key = key.map(|key| format!("key `{key}`: ")).unwrap_or_default();
            format!("{place}{key}{}", mistyped(error, form))
        }
    }
}

/// What is wrong with the value of a key that is read so.
fn mistyped(error: &serde_saphyr::Error, form: Option<Form>) -> String {
    let message = error.to_string();
    let expected = match form {
        Some(Form::Count) if message.starts_with("invalid u32") => "a whole number",
        Some(Form::Switch) if message.starts_with("invalid boolean") => "`true` or `false`",
        Some(Form::List) if message.starts_with("expected sequence") => "a list, such as `[a, b]`",
        Some(Form::Text) if message.starts_with("expected string") => "a text",
        // The message of some errors ends in the position; it is said once, in front.
        _ => {
            return message
                .split_once(" at line ")
                .map_or(message.as_str(), |parts| parts.0)
                .to_owned();
        }
    };
    format!("{expected} belongs here")
}

/// The key that the line belongs to: a configuration is flat, so that it is the last one that a line
/// begins with.
fn key_at(text: &str, line: u64) -> Option<(&'static str, Form)> {
    let lines = text.lines().take(usize::try_from(line).unwrap_or(usize::MAX));
    let keys = lines.filter_map(|line| {
        let key = line.split_once(':')?.0.trim_matches(['"', '\'']);
        KEYS.iter().find(|(name, _)| *name == key).copied()
    });
    keys.last()
}

fn read_environment(environment: &[(OsString, OsString)]) -> Result<Typed, SourcesError> {
    let mut typed = serde_json::Map::new();
    for (name, value) in environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with(VARIABLE_PREFIX)) else {
            continue;
        };
        if name == FILE_VARIABLE || is_service_link(name) {
            continue;
        }
        let problem = |problem: String| SourcesError::Variable { name: name.to_owned(), problem };
        let Some((key, form)) = KEYS.iter().find(|(key, _)| variable(key) == name) else {
            return Err(problem(no_such_variable(name)));
        };
        let text = value.to_str().ok_or_else(|| problem("is not UTF-8".to_owned()))?;
        let value = form.read(text).map_err(problem)?;
        // One key at a time, so that an error of the type names its variable.
        serde_json::from_value::<Typed>(json!({ *key: value.clone() }))
            .map_err(|error| problem(error.to_string()))?;
        typed.insert((*key).to_owned(), value);
    }
    serde_json::from_value(Value::Object(typed)).map_err(|error| SourcesError::Variable {
        name: VARIABLE_PREFIX.to_owned(),
        problem: error.to_string(),
    })
}

impl Form {
    fn read(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Text => Ok(json!(text)),
            Self::List => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Ok(parts.map(|part| json!(part)).collect())
            }
            Self::Switch => text
                .parse::<bool>()
                .map(|switch| json!(switch))
                .map_err(|_| format!("`{text}` is neither `true` nor `false`")),
            Self::Count => text
                .parse::<u32>()
                .map(|count| json!(count))
                .map_err(|_| format!("`{text}` is no whole number")),
        }
    }
}

fn no_such_variable(name: &str) -> String {
    let variables: Vec<String> = KEYS.iter().map(|(key, _)| variable(key)).collect();
    // What all of them begin with would make every one of them look near.
    let own = |name: &str| name.strip_prefix(VARIABLE_PREFIX).unwrap_or_default().to_owned();
    let own_parts: Vec<String> = variables.iter().map(|variable| own(variable)).collect();
    match spelling::nearest(&own(name), own_parts.iter().map(String::as_str)) {
        Some(part) => format!("no such key; did you mean {VARIABLE_PREFIX}{part}?"),
        None => format!("no such key; the variables are {FILE_VARIABLE}, {}", variables.join(", ")),
    }
}

/// Whether the kubelet set this variable for a Service of our namespace whose name begins with
/// `devgrant` (`kubernetes pkg/kubelet/envvars/envvars.go`). It does so in every pod that does not
/// switch service links off, so these must not be taken for misspelled settings.
fn is_service_link(name: &str) -> bool {
    let parts: Vec<&str> = name.split('_').collect();
    let has = |pair: [&str; 2]| parts.windows(2).any(|window| window == pair);
    let numbered_port = parts.windows(3).any(|window| {
        matches!(window, ["PORT", number, "TCP" | "UDP" | "SCTP"] if number.parse::<u16>().is_ok())
    });
    name.ends_with("_PORT") || numbered_port || has(["SERVICE", "HOST"]) || has(["SERVICE", "PORT"])
}

/// `ownNamespace` as `DEVGRANT_OWN_NAMESPACE`.
fn variable(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", spaced(key, '_').to_uppercase())
}

/// `ownNamespace` as `own-namespace`.
fn spaced(key: &str, between: char) -> String {
    let mut spaced = String::with_capacity(key.len() + 4);
    for char in key.chars() {
        if char.is_ascii_uppercase() {
            spaced.push(between);
        }
        spaced.push(char.to_ascii_lowercase());
    }
    spaced
}
