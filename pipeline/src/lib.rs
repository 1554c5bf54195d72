//! The engine of Caudal: events, operators, and the bounded stages they flow through.
//!
//! This crate knows no broker, no HTTP and no model. It defines the words ([`Event`], [`Operator`], [`Fault`],
//! [`Transport`]) and runs flows over them: spec ([`spec`]) → check → build → start ([`engine`]). The other crates
//! depend on this one and never on each other.

pub mod claims;
mod completion;
mod compute;
pub mod engine;
mod event;
mod fault;
mod ledger;
mod names;
mod operator;
mod operator_kind;
mod outcome;
mod overdraft;
mod payload;
mod pixel_budget;
mod registry;
mod services;
pub mod spec;
pub mod testing;
mod trace;
mod transport;

pub use completion::{Completion, CompletionHook, FollowUp};
pub use compute::{Compute, lower_priority};
pub use event::{Envelope, Event, Lane, Params, TENANT_PARAM};
pub use fault::{BoxError, Fault, Rejection};
pub use ledger::{ENTRY_BYTES, End, Entry, Ledger, LedgerLimits, News};
pub use names::{EventId, FlowName, MAX_TOKEN_BYTES, RequestId, Token, TokenError};
pub use operator::{Batching, Ends, Gives, Operator, Output, take_kind};
pub use operator_kind::{Complaint, Names, OperatorKind, OperatorSpec};
pub use outcome::{Outcome, OutcomeKind};
pub use payload::{Body, Claim, Content, Digest, Image, Part, Payload, PayloadKind, Vector};
pub use pixel_budget::{PixelBudget, PixelBudget as Pixels, PixelRoom};
pub use registry::{Need, ProcessResources, Service, ServiceError, Services};
pub use services::{Hit, ImageModel, IndexError, ModelCard, Nearest, Point, Space, VectorIndex, point_id};
pub use services::{documents, templates, webhook};
pub use trace::{Span, SpanKind, SpanValue, Spans, TraceContext, Worked, wall_time};
pub use transport::{
    Acknowledge, Backlog, BodyOf, DeadLetter, Delivery, INLINE_LIMIT, KeptLetter, Published, Record, Settlement,
    Source, SourceBounds, Submission, Submitted, Transport, TransportError, Watch,
};
