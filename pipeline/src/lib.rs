//! The engine of Caudal: events, operators, and the bounded stages they flow through.
//!
//! This crate knows no broker, no HTTP and no model. It defines the words ([`Event`], [`Operator`], [`Fault`],
//! [`Transport`]) and runs flows over them: spec ([`spec`]) → check → build → start ([`engine`]). The other crates
//! depend on this one and never on each other.
//!
//! Inside, a file imports only from the lines below its own:
//!
//! ```text
//! testing        in-memory transport, operators for tests
//! engine         flows that run: source readers, workers, settler, drain
//! spec           flows as declared: stages, queues, durable cuts, memory budget
//! operator_kind  kinds of operators, their specs and needs
//! services       the outside that operators may ask for
//! registry       how they ask
//! operator       the trait of a stage
//! edges          between stages: queue and lane policy, durable edge, output
//! event          the event and its acknowledgement tree
//! claims         claim check: long bodies by reference
//! storage_outage writes that wait until they are stored; incarnation: whether a process lives
//! transport      the broker as a trait
//! completion, outcome, ledger
//! payload
//! pixel_budget   memory of decoded images
//! overdraft      the counting semaphore under it
//! pauses         between attempts at what is out of reach
//! envelope, compute, trace
//! config         TOML with positions, problems, sizes, secrets
//! fault, names
//! parse_message  errors of parsers without what they quote
//! ```

pub mod claims;
mod completion;
mod compute;
mod config;
mod edges;
pub mod engine;
mod envelope;
mod event;
mod fault;
mod incarnation;
mod ledger;
mod names;
mod operator;
mod operator_kind;
mod outcome;
mod overdraft;
mod parse_message;
mod pauses;
mod payload;
mod pixel_budget;
mod registry;
mod services;
pub mod spec;
mod storage_outage;
pub mod testing;
mod trace;
mod transport;

pub use completion::{Completion, CompletionHook, FollowUp};
pub use compute::{Compute, lower_priority};
pub use envelope::{Envelope, Lane, Params, TENANT_PARAM};
pub use event::Event;
pub use fault::{BoxError, Fault, MAX_DETAIL, Rejection};
pub use incarnation::Incarnation;
pub use ledger::{ENTRY_BYTES, End, Entry, Ledger, LedgerLimits, LedgerUpdate};
pub use names::{EventId, FlowName, MAX_TOKEN_BYTES, RequestId, Token, TokenError};
pub use operator::{Batching, Emits, Operator, Output, StageTypes, take_kind};
pub use operator_kind::{DeclaredNames, KeyProblem, OperatorKind, OperatorSpec};
pub use outcome::{Outcome, OutcomeKind};
pub use parse_message::{parse_message, shortened};
pub use payload::{Body, Claim, Content, Digest, Image, Part, Payload, PayloadKind, Vector};
pub use pixel_budget::{PixelBudget, PixelRoom};
pub use registry::{Need, ProcessResources, Service, ServiceError, Services};
pub use services::{Hit, ImageModel, IndexError, ModelCard, Nearest, Point, Space, VectorIndex, point_id};
pub use services::{documents, templates, webhook};
pub use trace::{Span, SpanKind, SpanValue, Spans, StageTiming, TraceContext, wall_time};
pub use transport::{
    Acknowledge, Announcement, Backlog, BodyOwner, DeadLetter, Delivery, INLINE_LIMIT, Record, ResultAck, Settlement,
    Source, SourceBounds, StoredDeadLetter, Submission, SubmitAck, Transport, TransportError, Watch,
};
