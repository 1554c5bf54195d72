//! Test operators named for what they provoke, and their kinds for the config of a test.

use async_trait::async_trait;
use serde::Deserialize;

use crate::event::Event;
use crate::fault::{BoxError, Fault};
use crate::operator::{Batching, Emits, Operator, Output, StageTypes};
use crate::operator_kind::{OperatorKind, OperatorSpec};
use crate::payload::{Payload, PayloadKind};
use crate::registry::Services;

const ANY: &[PayloadKind] =
    &[PayloadKind::Bytes, PayloadKind::Parts, PayloadKind::Json, PayloadKind::Image, PayloadKind::Vector];

/// The kinds `noop`, `failing` and `panicking`.
#[must_use]
pub fn kinds() -> Vec<OperatorKind> {
    vec![
        OperatorKind::of::<NoopSpec>("noop", "forwards every event"),
        OperatorKind::of::<FailingSpec>("failing", "fails every batch that holds its marker"),
        OperatorKind::of::<PanickingSpec>("panicking", "panics on its marker"),
    ]
}

/// Whether a payload's bytes are `marker`.
fn is_marked(event: &Event, marker: &str) -> bool {
    match &event.payload {
        Payload::Bytes(content) => matches!(&content.body, crate::Body::Inline(bytes) if bytes == marker.as_bytes()),
        _ => false,
    }
}

macro_rules! pass_through {
    ($spec:ident, $operator:ident { $($field:ident),* }) => {
        impl OperatorSpec for $spec {
            fn types(&self) -> StageTypes {
                StageTypes { takes: ANY, gives: Emits::Same }
            }
            fn batching(&self) -> Batching {
                Batching::greedy(256)
            }
            fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
                Ok(Box::new($operator { $($field: self.$field.clone()),* }))
            }
        }
    };
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoopSpec {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FailingSpec {
    marker: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PanickingSpec {
    marker: String,
}

pass_through!(NoopSpec, Noop {});
pass_through!(FailingSpec, Failing { marker });
pass_through!(PanickingSpec, Panicking { marker });

/// Forwards every event.
pub struct Noop {}

/// Fails every batch that holds an event whose bytes are `marker`.
pub struct Failing {
    /// The bytes to fail on.
    pub marker: String,
}

/// Panics on an event whose bytes are `marker`.
pub struct Panicking {
    /// The bytes to panic on.
    pub marker: String,
}

#[async_trait]
impl Operator for Noop {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for event in batch {
            out.forward(event).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Operator for Failing {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        if batch.iter().any(|event| is_marked(event, &self.marker)) {
            return Err(Fault::retry("it holds the marker"));
        }
        Noop {}.process(batch, out).await
    }
}

#[async_trait]
impl Operator for Panicking {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        assert!(!batch.iter().any(|event| is_marked(event, &self.marker)), "it holds the marker");
        Noop {}.process(batch, out).await
    }
}
