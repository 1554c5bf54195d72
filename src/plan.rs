//! From config text to a checked plan. Touches no network and no device: `caudal check` ends here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use connectors::documents::OfficeSpec;
use connectors::index::IndexSpec;
use connectors::models::ModelSpec;
use connectors::webhook::WebhookSpec;
use gateway::spec::GatewaySpec;
use nats::{FlowTopology, NatsSpec, Topology};
use pipeline::spec::{ByteSize, FlowSpec, Place, Places, Problems, Section, Sources, memory_budget};
use pipeline::{DeclaredNames, FlowName, ImageModel, KeyProblem, OperatorKind, Service};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::config_warnings::{self, DeclaredPlaces};
use crate::machine_check;
use crate::telemetry::TelemetrySpec;

/// `[process]`: settings of the whole process.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessSpec {
    /// Directory for everything the service stores. Only one process at a time may use it.
    pub data_dir: PathBuf,
    /// Threads for CPU-bound work such as decoding; 0 means one per core.
    pub compute_threads: usize,
    /// Memory budget for queues, deliveries, decoded images, bodies and the program itself.
    pub memory: ByteSize,
}

impl Default for ProcessSpec {
    fn default() -> Self {
        Self { data_dir: "data".into(), compute_threads: 0, memory: memory_budget::DEFAULT }
    }
}

/// A checked config: everything a process runs.
pub struct Plan {
    /// `[process]`.
    pub process: ProcessSpec,
    /// `[nats]`.
    pub nats: NatsSpec,
    /// `[model.NAME]`, by name.
    pub models: Vec<(String, ModelSpec)>,
    /// `[index]`.
    pub index: IndexSpec,
    /// `[office]`.
    pub office: OfficeSpec,
    /// `[webhook]`.
    pub webhook: WebhookSpec,
    /// `[flow.NAME]`, cut into parts at durable edges.
    pub flows: Vec<FlowSpec>,
    /// The flow parts that this process runs.
    pub works_on: BTreeSet<FlowName>,
    /// Whether this process serves the routes.
    pub serves: bool,
    /// Memory for decoded images.
    pub pixels: ByteSize,
    /// `[service]`, `[limits]` and the `[[route]]`s.
    pub gateway: GatewaySpec,
    /// `[telemetry]`.
    pub telemetry: TelemetrySpec,
    /// Deprecated keys and the like: the config works, but should be changed.
    pub warnings: Problems,
}

impl Plan {
    /// The streams that the broker must have.
    #[must_use]
    pub fn topology(&self) -> Topology {
        topology(&self.nats, &self.flows)
    }

    /// One line per flow, for `caudal check`.
    #[must_use]
    pub fn summary(&self) -> String {
        let flows = self.flows.iter().map(|flow| {
            let stages: Vec<&str> = flow.stages.iter().map(|stage| stage.name.as_str()).collect();
            format!("flow {}: {}", flow.name, stages.join(" → "))
        });
        let counted = format!("{} routes, {} models: no problems", self.gateway.routes.len(), self.models.len());
        flows.chain([counted]).collect::<Vec<_>>().join("\n")
    }
}

fn topology(spec: &NatsSpec, flows: &[FlowSpec]) -> Topology {
    let flows = flows.iter().map(|flow| FlowTopology {
        name: flow.name.clone(),
        backlog: flow.settings.backlog,
        answers: flow.answers,
        order_by: flow.order_by().map(str::to_owned),
    });
    Topology { flows: flows.collect(), limits: spec.limits() }
}

/// How much is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The text alone, wherever the service will run.
    Text,
    /// Also the files and secrets that it names, on this machine. Blocks.
    Machine,
}

/// The top-level keys, for the message about an unknown key.
const KNOWN: &str = "[service], [process], [auth], [nats], [limits], [index], [office], [webhook], [telemetry], [model.NAME], [flow.NAME], [[route]], include";

/// Reads and checks the config.
///
/// # Errors
/// All problems found, not just the first.
pub fn load(sources: &Sources, kinds: &[OperatorKind], scope: Scope) -> Result<Plan, Problems> {
    let mut problems = Problems::default();
    let document = sources.parse(&mut problems);
    if !document.is_toml {
        return Err(problems);
    }
    let mut root = document.root;
    if scope == Scope::Machine {
        machine_check::secrets(&root, &mut problems);
    }
    // Resolved when the sources were collected.
    let _: Option<Vec<String>> = root.take("include", &mut problems);
    let plain = PlainSections::read(&mut root, &mut problems);
    let names = DeclaredNames {
        flows: root.names_under("flow"),
        sections: [(<dyn ImageModel>::SECTION, root.names_under("model"))].into(),
    };
    let model_sections = root.take_named("model", &mut problems);
    let flow_sections = root.take_named("flow", &mut problems);
    let places = DeclaredPlaces { models: places_of(&model_sections), flows: places_of(&flow_sections) };
    let models = read_models(model_sections, scope, &mut problems);
    let mut flows = read_flows(flow_sections, kinds, &names, &mut problems);
    let mut gateway = GatewaySpec::read(&mut root, &names, &mut problems);
    report(gateway.listen_problem().into_iter().collect(), &gateway.service_places, &mut problems);
    if scope == Scope::Machine {
        machine_check::broker_keys(&plain.nats, &plain.nats_places, &mut problems);
        machine_check::certificate(&gateway, &mut problems);
    }
    gateway.check(&mut problems);
    gateway::spec::check_bodies(&gateway.routes, &flows, &mut problems);
    root.expect_empty(KNOWN, &mut problems);
    check_memory(plain.process.memory, &plain.process_places, &mut problems);
    let shares = memory_budget::divide(plain.process.memory, &mut flows, &mut problems);
    gateway.limits.memory.get_or_insert(shares.bodies);
    if !problems.is_empty() {
        return Err(problems);
    }
    config_warnings::add(&places, &flows, &gateway.routes, &plain.nats, &mut problems);
    let flows: Vec<FlowSpec> = flows.into_iter().flat_map(FlowSpec::into_parts).collect();
    check_disk(&plain.nats, &plain.nats_places, &flows, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(plain.into_plan(models, flows, gateway, shares.pixels, problems))
}

/// The sections that can be read by themselves.
struct PlainSections {
    process: ProcessSpec,
    process_places: Places,
    nats: NatsSpec,
    nats_places: Places,
    index: IndexSpec,
    office: OfficeSpec,
    webhook: WebhookSpec,
    telemetry: TelemetrySpec,
}

impl PlainSections {
    fn read(root: &mut Section<'_>, problems: &mut Problems) -> Self {
        let (process, process_places) = section::<ProcessSpec>(root, "process", problems);
        let (nats, nats_places) = section::<NatsSpec>(root, "nats", problems);
        nats.check(&nats_places, problems);
        let (index, places) = section::<IndexSpec>(root, "index", problems);
        report(index.check(), &places, problems);
        let (office, places) = section::<OfficeSpec>(root, "office", problems);
        report(office.check(), &places, problems);
        let (webhook, places) = section::<WebhookSpec>(root, "webhook", problems);
        report(webhook.check(), &places, problems);
        let (telemetry, places) = section::<TelemetrySpec>(root, "telemetry", problems);
        telemetry.check(&places, problems);
        Self { process, process_places, nats, nats_places, index, office, webhook, telemetry }
    }

    fn into_plan(
        self,
        models: Vec<(String, ModelSpec)>,
        flows: Vec<FlowSpec>,
        gateway: GatewaySpec,
        pixels: ByteSize,
        warnings: Problems,
    ) -> Plan {
        let Self { process, nats, index, office, webhook, telemetry, .. } = self;
        let works_on = flows.iter().map(|flow| flow.name.clone()).collect();
        Plan {
            process,
            nats,
            models,
            index,
            office,
            webhook,
            flows,
            works_on,
            serves: true,
            pixels,
            gateway,
            telemetry,
            warnings,
        }
    }
}

/// Keys that got another name: section, old name, new name. The old ones work for one release, with a warning.
const RENAMED_KEYS: [(&str, &str, &str); 2] =
    [("nats", "claims_unused_s", "claims_orphaned_after_s"), ("office", "insist", "require_sandbox")];

/// Reads an optional section. A section that cannot be read is reported and replaced by its default, so that the rest can
/// still be checked.
fn section<T: DeserializeOwned + Default>(root: &mut Section<'_>, key: &str, problems: &mut Problems) -> (T, Places) {
    let Some(mut section) = root.take_section(key, problems) else { return (T::default(), Places::default()) };
    for (_, old, new) in RENAMED_KEYS.iter().filter(|(of, ..)| *of == key) {
        section.renamed(old, new, problems);
    }
    let places = section.places();
    (section.read(problems).unwrap_or_default(), places)
}

/// What a program with a model and an index needs before the first event.
const LEAST_MEMORY: ByteSize = ByteSize::mib(256);

fn check_memory(memory: ByteSize, places: &Places, problems: &mut Problems) {
    if memory < LEAST_MEMORY {
        let message = format!(
            "memory is {memory}, but the minimum is {LEAST_MEMORY}, of which the program itself takes about a quarter"
        );
        problems.add(places.of("memory"), message, format!("set at least {LEAST_MEMORY}"));
    }
}

/// The streams of the config must fit into the disk limit of the private server, if it has one.
fn check_disk(nats: &NatsSpec, places: &Places, flows: &[FlowSpec], problems: &mut Problems) {
    let reserved = topology(nats, flows).reserved();
    if let Some(limit) = nats.max_file.filter(|limit| nats.url.is_none() && *limit < reserved) {
        let message = format!("the streams of this config reserve {reserved}, but max_file is {limit}");
        let remedy = format!(
            "set at least {reserved}, lower backlog.bytes of flows or the …_max_bytes of [nats], or leave max_file out"
        );
        problems.add(places.of("max_file"), message, remedy);
    }
}

fn report(key_problems: Vec<KeyProblem>, places: &Places, problems: &mut Problems) {
    for problem in key_problems {
        problems.add(places.of(problem.key), problem.message, problem.remedy);
    }
}

type Named<'s> = Vec<(toml::Spanned<String>, Section<'s>)>;

fn places_of(sections: &Named<'_>) -> BTreeMap<String, Place> {
    sections.iter().map(|(name, _)| (name.get_ref().clone(), name.span())).collect()
}

fn read_models(sections: Named<'_>, scope: Scope, problems: &mut Problems) -> Vec<(String, ModelSpec)> {
    let mut models = Vec::new();
    for (name, section) in sections {
        let places = section.places();
        let Some(spec) = section.read::<ModelSpec>(problems) else { continue };
        let mut found = spec.check();
        if found.is_empty() && scope == Scope::Machine {
            found.extend(machine_check::model(&spec));
        }
        report(found, &places, problems);
        models.push((name.into_inner(), spec));
    }
    models
}

fn read_flows(
    sections: Named<'_>,
    kinds: &[OperatorKind],
    names: &DeclaredNames,
    problems: &mut Problems,
) -> Vec<FlowSpec> {
    let mut flows = Vec::new();
    for (name, section) in sections {
        let place = section.place();
        if let Some(flow) = FlowSpec::read(&name, section, kinds, problems) {
            flow.check(&place, names, problems);
            flows.push(flow);
        }
    }
    flows
}

/// The files that `text` includes, as written.
#[must_use]
pub fn includes(text: &str) -> Vec<String> {
    #[derive(Deserialize, Default)]
    struct Includes {
        #[serde(default)]
        include: Vec<String>,
    }
    // A parse error is reported when the text is loaded.
    toml::from_str::<Includes>(text).unwrap_or_default().include
}

/// The path of an included file, which is relative to the including file.
#[must_use]
pub fn beside(file: &Path, included: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(included)
}
