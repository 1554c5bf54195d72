//! Follow-ups of a request: an event for another flow, submitted when the request has ended and before its result is
//! published.

use crate::envelope::{Envelope, Params};
use crate::fault::Rejection;
use crate::payload::{Content, Payload};

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub enum Completion<'r> {
    /// With this result.
    Done(&'r Content),
    /// With this problem.
    Failed(&'r Rejection),
}

/// What the follow-up carries. The engine fills in the rest: an id that follows from the request's, so that a repeat is
/// stored once, and the request's tenant and trace.
#[derive(Clone, Debug)]
pub struct FollowUp {
    /// Parameters of the event.
    pub params: Params,
    /// Payload of the event; a claim of the result may stand in it, the engine copies the body.
    pub payload: Payload,
}

/// Says which requests have a follow-up. The assembly hands one to the engine
/// ([`ProcessResources::completion_hook`](crate::ProcessResources::completion_hook)).
///
/// The engine asks for every request of a flow whose `webhooks` names a flow, submits the event there, and only then
/// publishes the result: a crash in between submits it again, and the copy is dropped.
pub trait CompletionHook: Send + Sync {
    /// A part of the event's id: a hook that changes it makes a second event of a request that a crash repeats.
    fn name(&self) -> &'static str;

    /// The follow-up of the request with this envelope; `None` if it wants none. No I/O.
    fn follow_up(&self, request: &Envelope, completion: Completion<'_>) -> Option<FollowUp>;
}
