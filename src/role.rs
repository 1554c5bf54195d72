//! What of a config one process does: everything, the front alone, or the work of some flows.
//!
//! Processes share nothing but the broker. Any number of each may run; a flow may be worked on by several, and the parts of
//! a flow that durable edges cut may be worked on in different ones.

use anyhow::{bail, ensure};
use clap::{Args, ValueEnum};
use pipeline::spec::PART;

use crate::plan::Plan;

/// `--role` and `--flows`.
#[derive(Args, Clone, Debug, Default)]
pub struct RoleArgs {
    /// What this process does; processes of other roles join it through the broker
    #[arg(long, value_enum, default_value_t)]
    role: Role,
    /// Flows to work on, by default all; `NAME--STAGE` names one part of a flow with durable edges
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    flows: Vec<String>,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Role {
    /// Serve routes and work on flows
    #[default]
    All,
    /// Serve routes, work on nothing
    Gateway,
    /// Work on flows, serve health, readiness and metrics alone
    Worker,
}

impl RoleArgs {
    /// Takes out of the plan what this process does not do.
    ///
    /// # Errors
    /// If the role cannot be filled with this config.
    pub fn apply(&self, plan: &mut Plan) -> anyhow::Result<()> {
        let shared = plan.nats.url.is_some();
        match self.role {
            Role::All => {}
            Role::Gateway => {
                ensure!(self.flows.is_empty(), "--role gateway works on no flow: leave --flows out");
                if !shared && plan.nats.listen.is_none() {
                    bail!("no worker could reach the private broker of --role gateway: set [nats] listen, or url");
                }
            }
            Role::Worker => {
                ensure!(shared, "--role worker has nobody to work for: set [nats] url to the broker of a gateway");
                plan.gateway.routes.clear();
            }
        }
        for name in &self.flows {
            if !plan.flows.iter().any(|flow| chosen(name, flow.name.as_str())) {
                let known: Vec<&str> = plan.flows.iter().map(|flow| flow.name.as_str()).collect();
                bail!("--flows names {name:?}, but the config has: {}", known.join(", "));
            }
        }
        plan.serves = self.role != Role::Worker;
        plan.works_on = plan
            .flows
            .iter()
            .map(|flow| flow.name.clone())
            .filter(|_| self.role != Role::Gateway)
            .filter(|flow| self.flows.is_empty() || self.flows.iter().any(|name| chosen(name, flow.as_str())))
            .collect();
        Ok(())
    }
}

/// Whether a name of `--flows` means this part: the part itself, or the flow it belongs to.
fn chosen(name: &str, part: &str) -> bool {
    part == name || part.split_once(PART).is_some_and(|(flow, _)| flow == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_means_all_its_parts_and_a_part_itself() {
        assert!(chosen("describe", "describe"));
        assert!(chosen("describe", "describe--embed"));
        assert!(chosen("describe--embed", "describe--embed"));
        assert!(!chosen("describe--embed", "describe"));
        assert!(!chosen("desc", "describe"));
    }
}
