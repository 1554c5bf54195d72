//! The role of a process: all of a config, the gateway alone, or workers for some flows.
//!
//! Processes share only the broker, and any number of each role may run. Several workers may serve one flow, and the parts
//! that durable edges cut a flow into may run in different workers.

use anyhow::{bail, ensure};
use clap::{Args, ValueEnum};
use pipeline::VectorIndex;
use pipeline::spec::{FlowSpec, PART, did_you_mean};

use crate::plan::Plan;

/// `--role` and `--flows`.
#[derive(Args, Clone, Debug, Default)]
pub struct RoleArgs {
    /// What this process runs; processes of other roles join through the broker
    #[arg(long, value_enum, default_value_t)]
    role: Role,
    /// Flows to run, by default all; NAME--STAGE is the part of a flow, cut at durable edges, that begins with that stage
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    flows: Vec<String>,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Role {
    /// Serve routes and run flows
    #[default]
    All,
    /// Serve routes, run no flow
    Gateway,
    /// Run flows; serve only health, readiness and metrics
    Worker,
}

impl RoleArgs {
    /// The role as it is written.
    pub fn name(&self) -> &'static str {
        match self.role {
            Role::All => "all",
            Role::Gateway => "gateway",
            Role::Worker => "worker",
        }
    }

    /// Removes from the plan what this process does not run.
    ///
    /// # Errors
    /// If this config does not allow the role.
    pub fn apply(&self, plan: &mut Plan) -> anyhow::Result<()> {
        let shared = plan.nats.url.is_some();
        match self.role {
            Role::All => {}
            Role::Gateway => {
                ensure!(self.flows.is_empty(), "--role gateway runs no flow: remove --flows");
                if !shared && plan.nats.listen.is_none() {
                    bail!("no worker can reach the private broker of --role gateway: set [nats] listen, or [nats] url");
                }
            }
            Role::Worker => {
                ensure!(shared, "--role worker needs a broker shared with a gateway: set [nats] url");
                plan.gateway.routes.clear();
            }
        }
        for name in &self.flows {
            if !plan.flows.iter().any(|part| is_meant(name, part)) {
                let known: Vec<String> = plan.flows.iter().map(part_name).collect();
                let has = format!("use one of: {}", known.join(", "));
                let remedy = did_you_mean(name, known.iter().map(String::as_str), &has);
                bail!("--flows names {name:?}, which is not in the config; {remedy}");
            }
        }
        plan.serves = self.role != Role::Worker;
        plan.works_on = plan
            .flows
            .iter()
            .filter(|_| self.role != Role::Gateway)
            .filter(|part| self.flows.is_empty() || self.flows.iter().any(|name| is_meant(name, part)))
            .map(|part| part.name.clone())
            .collect();
        refuse_private_index(plan)
    }
}

/// Refuses to work on flows that other processes may share with an index that only this process has: what is stored here is
/// not found there. `kind = "embedded"`, if it is written, says that no other process works on them.
fn refuse_private_index(plan: &Plan) -> anyhow::Result<()> {
    if plan.nats.url.is_none() || plan.index.is_shared() || plan.index.kind.is_some() {
        return Ok(());
    }
    let uses_index = |part: &&FlowSpec| {
        let needs = part.stages.iter().flat_map(|stage| stage.operator.needs());
        plan.works_on.contains(&part.name) && needs.into_iter().any(|need| need.is::<dyn VectorIndex>())
    };
    let flows: Vec<String> = plan.flows.iter().filter(uses_index).map(part_name).collect();
    ensure!(
        flows.is_empty(),
        "{} would use an index of this process alone, because [index] names none that processes share: set [index] url to a \
         Qdrant server, or leave these flows to the process that has the index (--flows names others), or, if no other process \
         works on them, set [index] kind = \"embedded\"",
        flows.join(", ")
    );
    Ok(())
}

/// Whether a name given to `--flows` selects this part: by the part's name, or by its flow's.
fn is_meant(name: &str, part: &FlowSpec) -> bool {
    name == part.whole.as_str() || name == part_name(part)
}

/// The name of a part by its first stage. (In the broker the first part of a flow has the flow's own name.)
fn part_name(part: &FlowSpec) -> String {
    match part.stages.first() {
        Some(first) if part.next.is_some() || part.name != part.whole => format!("{}{PART}{}", part.whole, first.name),
        _ => part.whole.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use pipeline::spec::{Problems, Sources};

    use super::*;

    /// The parts that a flow is cut into.
    fn parts(toml: &str) -> Vec<FlowSpec> {
        let mut sources = Sources::default();
        sources.add("test.toml", toml);
        let mut problems = Problems::default();
        let mut document = sources.parse(&mut problems);
        let flows = document.root.take_named("flow", &mut problems);
        let kinds = crate::assembly::operator_kinds(&crate::extras::Extras::default());
        let read = |(name, section)| FlowSpec::read(&name, section, &kinds, &mut problems).unwrap();
        flows.into_iter().map(read).flat_map(FlowSpec::into_parts).collect()
    }

    #[test]
    fn a_flow_means_all_its_parts_and_a_part_itself() {
        let stages = ["decode", "embed\"\ndurable = true\nmodel = \"photo", "respond"];
        let toml: String = stages.map(|stage| format!("[[flow.describe.stage]]\nuse = \"{stage}\"\n")).concat();
        let parts = parts(&toml);
        let meant = |name| parts.iter().filter(|part| is_meant(name, part)).map(part_name).collect::<Vec<_>>();
        assert_eq!(meant("describe"), ["describe--decode", "describe--embed"]);
        assert_eq!(meant("describe--decode"), ["describe--decode"]);
        assert_eq!(meant("describe--embed"), ["describe--embed"]);
        assert!(meant("desc").is_empty() && meant("describe--respond").is_empty());
    }
}
