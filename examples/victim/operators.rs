//! Test operators: `digest` answers SHA-256 and length, `mark` records effects, `trap` dies at a poison event, `slow`
//! waits.

use std::time::Duration;

use async_trait::async_trait;
use pipeline::{
    Body, BoxError, Emits, Event, Fault, Operator, OperatorKind, OperatorSpec, Output, Payload, PayloadKind, Services,
    StageTypes, take_kind,
};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::faults::{self, Bug};

/// All test operators.
pub const KINDS: [OperatorKind; 4] = [
    OperatorKind::of::<DigestSpec>("digest", "bytes become their SHA-256 and length"),
    OperatorKind::of::<MarkSpec>("mark", "appends a line to a file for every event"),
    OperatorKind::of::<TrapSpec>("trap", "kills the process at bytes that begin with POISON"),
    OperatorKind::of::<SlowSpec>("slow", "waits for a fixed time per event"),
];

/// The ends of an operator that forwards payloads unchanged.
const PASS_THROUGH: StageTypes = StageTypes { takes: &[PayloadKind::Bytes, PayloadKind::Json], gives: Emits::Same };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DigestSpec {}

impl OperatorSpec for DigestSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Bytes], gives: Emits::Kind(PayloadKind::Json) }
    }

    fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(Digest))
    }
}

struct Digest;

#[async_trait]
impl Operator for Digest {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for (event, bytes) in take_kind(batch, out, bytes_of) {
            let length = bytes.len() + usize::from(faults::has(Bug::Corrupt));
            let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            out.emit(&event, Payload::json(json!({ "sha256": sha256, "length": length }))).await?;
        }
        Ok(())
    }
}

fn bytes_of(payload: &Payload) -> Option<bytes::Bytes> {
    match payload {
        Payload::Bytes(content) => match &content.body {
            Body::Inline(bytes) => Some(bytes.clone()),
            Body::Claim(_) => None,
        },
        _ => None,
    }
}

/// A side effect for each event that passes through.
#[async_trait]
trait Tap: Send {
    async fn tap(&self, event: &Event) -> Result<(), Fault>;
}

/// An operator that applies a [`Tap`] and forwards the event.
struct PassThrough<T>(T);

#[async_trait]
impl<T: Tap + Sync> Operator for PassThrough<T> {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for event in batch {
            self.0.tap(&event).await?;
            out.forward(event).await?;
        }
        Ok(())
    }
}

/// `file`: the name of the mark file.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkSpec {
    file: String,
}

impl OperatorSpec for MarkSpec {
    fn types(&self) -> StageTypes {
        PASS_THROUGH
    }

    fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(PassThrough(self.clone())))
    }
}

#[async_trait]
impl Tap for MarkSpec {
    async fn tap(&self, event: &Event) -> Result<(), Fault> {
        let envelope = &event.envelope;
        let id = envelope.request.as_ref().unwrap_or(&envelope.id);
        faults::mark(&self.file, id.as_str()).map_err(Fault::retry)?;
        faults::pass(&self.file, envelope.flow.as_str());
        Ok(())
    }
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrapSpec {}

impl OperatorSpec for TrapSpec {
    fn types(&self) -> StageTypes {
        PASS_THROUGH
    }

    fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(PassThrough(self.clone())))
    }
}

#[async_trait]
impl Tap for TrapSpec {
    async fn tap(&self, event: &Event) -> Result<(), Fault> {
        if bytes_of(&event.payload).is_some_and(|bytes| bytes.starts_with(b"POISON")) {
            faults::mark("died", event.id.as_str()).map_err(Fault::retry)?;
            faults::die();
        }
        Ok(())
    }
}

/// `ms`: time per event; events of a batch wait one after another.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct SlowSpec {
    ms: u64,
}

impl OperatorSpec for SlowSpec {
    fn types(&self) -> StageTypes {
        PASS_THROUGH
    }

    fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(PassThrough(self.clone())))
    }
}

#[async_trait]
impl Tap for SlowSpec {
    async fn tap(&self, _: &Event) -> Result<(), Fault> {
        tokio::time::sleep(Duration::from_millis(self.ms)).await;
        Ok(())
    }
}
