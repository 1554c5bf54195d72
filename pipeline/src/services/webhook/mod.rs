//! Webhooks: the address that a requester gave for the result, and the trait that calls it.
//!
//! The call is made by an event of its own, in the flow that `webhooks` of `[flow.NAME]` names. The engine submits it
//! before the result is published ([`WebhookFollowUp`]), so that no webhook is forgotten whatever crashes after that.

mod caller;
mod follow_up;
mod target;

pub use caller::{CallError, Method, WebhookCall, WebhookCaller};
pub use follow_up::WebhookFollowUp;
pub use target::{FAILED_PARAM, WEBHOOK_PARAM, Webhook};
