//! Operators for tests: `digest` answers what it was given, `mark` counts effects, `trap` dies of poison, `slow` takes time.

use std::time::Duration;

use async_trait::async_trait;
use pipeline::{
    Body, BoxError, Ends, Event, Fault, Gives, Operator, OperatorKind, OperatorSpec, Output, Payload, PayloadKind,
    Services, take_kind,
};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::arm::{self, Bug};

/// All of them.
pub const KINDS: [OperatorKind; 4] = [
    OperatorKind::of::<DigestSpec>("digest", "bytes become their SHA-256 and length"),
    OperatorKind::of::<MarkSpec>("mark", "adds a line to a file for every event"),
    OperatorKind::of::<TrapSpec>("trap", "kills the process at bytes that begin with POISON"),
    OperatorKind::of::<SlowSpec>("slow", "takes a while"),
];

/// What passes through unchanged.
const PASSING: Ends = Ends { takes: &[PayloadKind::Bytes, PayloadKind::Json], gives: Gives::Same };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DigestSpec {}

impl OperatorSpec for DigestSpec {
    fn ends(&self) -> Ends {
        Ends { takes: &[PayloadKind::Bytes], gives: Gives::Kind(PayloadKind::Json) }
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
            let length = bytes.len() + usize::from(arm::has(Bug::Corrupt));
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

/// What an operator does with an event that it passes on.
#[async_trait]
trait Look: Send {
    async fn look(&self, event: &Event) -> Result<(), Fault>;
}

struct Passing<L>(L);

#[async_trait]
impl<L: Look + Sync> Operator for Passing<L> {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for event in batch {
            self.0.look(&event).await?;
            out.forward(event).await?;
        }
        Ok(())
    }
}

/// `file`: named within the folder.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkSpec {
    file: String,
}

impl OperatorSpec for MarkSpec {
    fn ends(&self) -> Ends {
        PASSING
    }

    fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(Passing(self.clone())))
    }
}

#[async_trait]
impl Look for MarkSpec {
    async fn look(&self, event: &Event) -> Result<(), Fault> {
        let envelope = &event.envelope;
        let id = envelope.request.as_ref().unwrap_or(&envelope.id);
        arm::mark(&self.file, id.as_str()).map_err(Fault::retry)?;
        arm::pass(&self.file, envelope.flow.as_str());
        Ok(())
    }
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrapSpec {}

impl OperatorSpec for TrapSpec {
    fn ends(&self) -> Ends {
        PASSING
    }

    fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(Passing(self.clone())))
    }
}

#[async_trait]
impl Look for TrapSpec {
    async fn look(&self, event: &Event) -> Result<(), Fault> {
        if bytes_of(&event.payload).is_some_and(|bytes| bytes.starts_with(b"POISON")) {
            arm::mark("died", event.id.as_str()).map_err(Fault::retry)?;
            arm::die();
        }
        Ok(())
    }
}

/// `ms`: how long, for one event after another.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct SlowSpec {
    ms: u64,
}

impl OperatorSpec for SlowSpec {
    fn ends(&self) -> Ends {
        PASSING
    }

    fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(Passing(self.clone())))
    }
}

#[async_trait]
impl Look for SlowSpec {
    async fn look(&self, _: &Event) -> Result<(), Fault> {
        tokio::time::sleep(Duration::from_millis(self.ms)).await;
        Ok(())
    }
}
