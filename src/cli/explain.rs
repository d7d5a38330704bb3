//! `explain`: the line step by step, by the names that its rooms have; or what a finding or a reason means.

mod findings;
mod names;
mod reasons;
mod words;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
pub use names::Name;

use clap::{ArgGroup, Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use super::Status;
use super::arguments::{DecidingArguments, compile};
use super::output::{self, ERROR, TITLE, WARNING};
use super::question::{Manifests, Question};
use crate::decision::ask::{Ask, service_account};
use crate::decision::finding::{Code, Finding, Severity};
use crate::decision::line::{pod_of, unasked};
use crate::decision::plan::compose;
use crate::decision::pod::{ContainerIndex, Pod, Spec};
use crate::decision::policy::select::Allowed;
use crate::decision::{Decision, Plan, PolicySet, Reason, Request, Review, Verdict, decide};

/// The flags of `explain`.
#[derive(Debug, Args)]
#[group(skip)]
#[command(group = ArgGroup::new("what").required(true).args(["names", "files"]))]
pub struct Explain {
    /// Code of a finding, such as DG001, reason, such as `UnknownMode`, or rule of lint, to explain; several
    /// may be given.
    /// `devgrant explain --help` lists all.
    #[arg(value_name = "NAME", value_parser = names::parser(), ignore_case = true)]
    pub names: Vec<Name>,
    /// Manifest, folder of manifests, or - for standard input; may be repeated.
    #[arg(short, long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How to write it.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    /// The policies, and what is assumed about the pods.
    #[command(flatten)]
    pub deciding: DecidingArguments,
}

/// How an explanation is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For scripts: a list with one object for each pod or name.
    Json,
    /// For people.
    #[default]
    Text,
}

pub(super) fn run(arguments: &Explain) -> anyhow::Result<Status> {
    if !arguments.names.is_empty() {
        names::run(&arguments.names, arguments.output)?;
        return Ok(Status::Fine);
    }
    let config = arguments.deciding.load()?;
    let policies = compile(&config)?;
    let manifests = Manifests::read(&arguments.files, &config.assumed, &config.settings)?;
    let mut explanations = Vec::new();
    for question in &manifests.questions {
        let document = manifests.documents.get(question.document);
        let place = document.map(super::input::Document::place).unwrap_or_default();
        let context = || format!("{place}: {}", question.title);
        let explanation = explain(question, place.clone(), &policies).with_context(context)?;
        if explanation.answer.allowed && explanation.patch.is_empty() {
            for ask in question.asks_that_would_do(&policies) {
                output::note(&format!("{} asks for nothing; add {ask}", question.title))?;
            }
        }
        explanations.push(explanation);
    }
    let mut stdout = output::stdout();
    match arguments.output {
        Format::Json => output::json(&mut stdout, &explanations)?,
        Format::Text => {
            for (index, explanation) in explanations.iter().enumerate() {
                if index > 0 {
                    writeln!(stdout)?;
                }
                explanation.write(&mut stdout)?;
            }
        }
    }
    let refused = explanations.iter().any(|explanation| !explanation.answer.allowed);
    Ok(if refused { Status::No } else { Status::Fine })
}

/// One decision, a field for each step of the line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    pod: String,
    place: String,
    request: Facts,
    annotation: Vec<AskedDevice>,
    ask: Vec<Selected>,
    plan: Vec<Granted>,
    /// What would be granted if the policies in shadow were enforced.
    shadow_plan: Vec<Granted>,
    conflict: Vec<Objected>,
    foresee: Vec<Foreseen>,
    patch: Vec<Value>,
    /// The paths of the patch begin at the pod, wherever that is inside the document.
    patch_relative_to: &'static str,
    answer: Answer,
}

/// Step `request`: the facts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Facts {
    creates_pod: bool,
    namespace: String,
    opted_in: bool,
    /// Whether pods of this namespace are left alone, whatever they ask and whatever labels it has.
    never_touched: bool,
    service_account: String,
    containers: Vec<String>,
}

/// Step `annotation`: what is asked for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AskedDevice {
    device: String,
    value: String,
    containers: Option<String>,
}

/// Step `ask`: which policy answers, by which rule, in which mode.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Selected {
    device: String,
    policy: String,
    file: String,
    rule: String,
    mode: String,
    description: String,
    count: u32,
    containers: Vec<String>,
}

/// Step `plan`: what a container or the pod gets.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Granted {
    to: String,
    grants: Vec<String>,
}

/// Step `conflict`, and everything else that stands against a grant.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Objected {
    reason: &'static str,
    sentence: String,
    refuses: bool,
}

/// Step `foresee`: what would start and not work.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Foreseen {
    code: Code,
    severity: Severity,
    path: String,
    sentence: String,
    remedy: String,
}

/// Step `answer`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    allowed: bool,
    reason: &'static str,
    warnings: Vec<String>,
}

fn explain(
    question: &Question,
    place: String,
    policies: &PolicySet,
) -> anyhow::Result<Explanation> {
    let review = Review::decode(&question.review)?;
    let request = Request::of(&review)?;
    let pod = pod_of(&request, policies)?;
    let decision = match &pod {
        Some(pod) => decide(&request, pod, policies, Some(&question.namespace))?,
        None => Decision::untouched(unasked(request.creates_pod)),
    };
    // A pod that asks for nothing is not read by the decision; here its facts are shown all the same.
    let unread = request.pod().ok().flatten();
    let read = pod.as_ref().or(unread.as_ref());
    let containers = Containers(read);
    let settings = policies.settings();
    let facts = Facts {
        creates_pod: request.creates_pod,
        namespace: request.namespace.to_string(),
        opted_in: settings.opted_in(&question.namespace),
        never_touched: settings.never_touches(request.namespace.as_str()),
        service_account: read
            .and_then(Pod::spec)
            .map(|spec| service_account(spec).to_owned())
            .unwrap_or_default(),
        containers: containers.all(),
    };
    let operations = decision.operations.iter().map(serde_json::to_value);
    let (plan, allowed) = match &decision.verdict {
        Verdict::Admit(plan) => (granted(plan, &containers), true),
        Verdict::Refuse(_) => (Vec::new(), false),
    };
    let shadow_plan = match read.and_then(Pod::spec) {
        Some(spec) if decision.reason == Reason::Shadow => compose(spec, &decision.asks).ok(),
        _ => None,
    };
    Ok(Explanation {
        pod: question.title.clone(),
        place,
        request: facts,
        annotation: asked(&request, policies),
        ask: decision.asks.iter().map(|ask| selected(ask, &containers)).collect(),
        plan,
        shadow_plan: shadow_plan.map(|plan| granted(&plan, &containers)).unwrap_or_default(),
        conflict: objected(&decision),
        foresee: decision.findings.iter().map(Foreseen::of).collect(),
        patch: operations.collect::<Result<_, _>>()?,
        patch_relative_to: "pod",
        answer: Answer {
            allowed,
            reason: decision.reason.as_str(),
            warnings: decision.warnings.iter().map(ToString::to_string).collect(),
        },
    })
}

/// Every annotation that asks about a device, also where it is never looked at, and where it says "no".
fn asked(request: &Request<'_>, policies: &PolicySet) -> Vec<AskedDevice> {
    let annotations: BTreeMap<&str, &str> =
        request.annotations(&policies.settings().prefix).collect();
    let shared = annotations.get("containers");
    let devices = annotations.iter().filter(|(key, _)| policies.find(key).is_some());
    let asked = devices.map(|(device, value)| AskedDevice {
        device: (*device).to_owned(),
        value: (*value).to_owned(),
        containers: annotations
            .get(format!("{device}.containers").as_str())
            .or(shared)
            .map(|names| (*names).to_owned()),
    });
    asked.collect()
}

/// The pod's containers by name.
struct Containers<'p>(Option<&'p Pod<'p>>);

impl Containers<'_> {
    fn all(&self) -> Vec<String> {
        let spec = self.0.and_then(Pod::spec);
        spec.into_iter()
            .flat_map(Spec::all_containers)
            .map(|(_, container)| container.name.to_string())
            .collect()
    }

    fn name(&self, at: ContainerIndex) -> String {
        let container = self.0.and_then(Pod::spec).and_then(|spec| spec.container(at));
        container.map(|container| container.name.to_string()).unwrap_or_default()
    }
}

fn selected(ask: &Ask<'_>, containers: &Containers<'_>) -> Selected {
    Selected {
        device: ask.policy.device().to_owned(),
        policy: ask.policy.name().to_owned(),
        file: ask.policy.file().to_owned(),
        rule: match ask.allowed {
            Allowed::Everyone => "every opted-in namespace".to_owned(),
            Allowed::Rule(index) => format!("spec.allow[{index}]"),
        },
        mode: ask.mode_name.to_owned(),
        description: ask.mode.description.clone(),
        count: ask.count,
        containers: ask.containers.iter().map(|at| containers.name(*at)).collect(),
    }
}

fn granted(plan: &Plan<'_>, containers: &Containers<'_>) -> Vec<Granted> {
    let mut granted: Vec<Granted> = plan
        .containers
        .iter()
        .map(|(at, grants)| Granted {
            to: format!("container {}", containers.name(*at)),
            grants: grants.iter().map(ToString::to_string).collect(),
        })
        .collect();
    if !plan.pod.is_empty() {
        let grants = plan.pod.iter().map(ToString::to_string).collect();
        granted.push(Granted { to: "the pod".to_owned(), grants });
    }
    granted
}

fn objected(decision: &Decision<'_>) -> Vec<Objected> {
    let refusing = match &decision.verdict {
        Verdict::Admit(_) => Vec::new(),
        Verdict::Refuse(refusal) => refusal.objections().collect(),
    };
    let refusing = refusing.into_iter().map(|objection| (objection, true));
    let ignored = decision.ignored.iter().map(|objection| (objection, false));
    let all = refusing.chain(ignored);
    all.map(|(objection, refuses)| Objected {
        reason: objection.reason.as_str(),
        sentence: objection.sentence.clone(),
        refuses,
    })
    .collect()
}

impl Foreseen {
    fn of(finding: &Finding) -> Self {
        Self {
            code: finding.code,
            severity: finding.severity(),
            path: finding.path.clone(),
            sentence: finding.sentence(),
            remedy: finding.remedy(),
        }
    }
}

impl Explanation {
    fn write(&self, out: &mut impl Write) -> anyhow::Result<()> {
        writeln!(out, "{TITLE}{}{TITLE:#} ({})", self.pod, self.place)?;
        let request = &self.request;
        let opted_in = match request {
            Facts { never_touched: true, .. } => "never touched",
            Facts { opted_in: true, .. } => "opted in",
            _ => "not opted in",
        };
        let facts = format!("namespace {} ({opted_in})", request.namespace);
        let mut steps = vec![("request", vec![facts])];
        if !request.containers.is_empty() {
            let facts = format!(
                "service account {}; containers: {}",
                request.service_account,
                request.containers.join(", ")
            );
            steps.extend([("", vec![facts])]);
        }
        let asked = self.annotation.iter().map(|asked| match &asked.containers {
            Some(names) => format!("{} = {:?} for {names}", asked.device, asked.value),
            None => format!("{} = {:?}", asked.device, asked.value),
        });
        steps.push(("annotation", asked.collect()));
        let asks = self.ask.iter().map(|ask| {
            format!(
                "{}: policy {} ({}) by {}: mode {}, count {}, for {}",
                ask.device,
                ask.policy,
                ask.file,
                ask.rule,
                ask.mode,
                ask.count,
                ask.containers.join(", ")
            )
        });
        steps.push(("ask", asks.collect()));
        let lines = |plan: &[Granted], shadow: &str| -> Vec<String> {
            let grants = plan.iter().flat_map(|granted| {
                granted.grants.iter().map(move |grant| format!("{shadow}{}: {grant}", granted.to))
            });
            grants.collect()
        };
        let mut plan = lines(&self.plan, "");
        plan.extend(lines(&self.shadow_plan, "in shadow, not granted: "));
        steps.push(("plan", plan));
        let conflicts = self.conflict.iter().map(|conflict| {
            let weight = if conflict.refuses { "refused" } else { "ignored" };
            format!("{weight} ({}): {}", conflict.reason, conflict.sentence)
        });
        steps.push(("conflict", conflicts.collect()));
        let foreseen = self.foresee.iter().map(|finding| {
            format!(
                "{} at {}: {}; {}",
                finding.code, finding.path, finding.sentence, finding.remedy
            )
        });
        steps.push(("foresee", foreseen.collect()));
        let mut patch: Vec<String> = self.patch.iter().map(operation).collect();
        if !patch.is_empty() {
            patch.insert(0, "(paths begin at the pod)".to_owned());
        }
        steps.push(("patch", patch));
        for (step, lines) in steps {
            let none = ["-".to_owned()];
            let lines = if lines.is_empty() { &none } else { lines.as_slice() };
            for (index, line) in lines.iter().enumerate() {
                let step = if index == 0 { step } else { "" };
                writeln!(out, "  {TITLE}{step:<11}{TITLE:#}{line}")?;
            }
        }
        let warnings = output::joined(self.answer.warnings.iter().map(String::as_str));
        for (index, warning) in warnings.iter().enumerate() {
            let step = if index == 0 { "warnings" } else { "" };
            writeln!(out, "  {WARNING}{step:<11}{WARNING:#}{warning}")?;
        }
        let Answer { allowed, reason, .. } = &self.answer;
        let (style, verdict) = if *allowed { (TITLE, "admitted") } else { (ERROR, "refused") };
        writeln!(out, "  {TITLE}{:<11}{TITLE:#}{style}{verdict}{style:#} ({reason})", "answer")?;
        Ok(())
    }
}

/// One operation on one line.
fn operation(operation: &Value) -> String {
    let text = |key: &str| operation.get(key).and_then(Value::as_str).unwrap_or_default();
    let value = operation.get("value").map(|value| format!(" {value}")).unwrap_or_default();
    format!("{} {}{value}", text("op"), text("path"))
}
