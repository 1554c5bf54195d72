//! A declared flow with the subjects of its lanes, which are formatted once.

use async_nats::Subject;
use pipeline::{FlowName, Lane};

use crate::topology::FlowTopology;
use crate::wire::subjects;

/// One declared flow.
pub struct DeclaredFlow {
    pub name: FlowName,
    pub topology: FlowTopology,
    stream: String,
    subjects: [Subject; 2],
}

impl DeclaredFlow {
    pub fn new(topology: FlowTopology) -> Self {
        let name = topology.name.clone();
        let stream = subjects::work_stream(&name);
        Self { stream, subjects: Lane::ALL.map(|lane| subjects::work_subject(&name, lane)), name, topology }
    }

    /// Name of the stream that holds its queue.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Subject of the events of a lane, without the key of an ordered flow.
    pub fn subject(&self, lane: Lane) -> &Subject {
        match lane {
            Lane::Interactive => &self.subjects[0],
            Lane::Bulk => &self.subjects[1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::spec::{BacklogSpec, ByteSize};

    #[test]
    fn each_lane_has_its_subject() {
        let name = FlowName::new("f").unwrap();
        let backlog = BacklogSpec { events: 1, bytes: ByteSize::mib(1) };
        let flow = DeclaredFlow::new(FlowTopology { name, backlog, answers: false, order_by: None });
        assert_eq!(flow.subject(Lane::Interactive).as_str(), "ev.f.interactive");
        assert_eq!(flow.subject(Lane::Bulk).as_str(), "ev.f.bulk");
    }
}
