//! The trait that calls webhooks, and the call it makes.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::fault::{BoxError, Rejection};
use crate::names::RequestId;
use crate::registry::Service;

/// The methods that carry a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the words of HTTP")]
pub enum Method {
    #[default]
    Post,
    Put,
    Patch,
}

/// One call to make.
#[derive(Clone)]
pub struct WebhookCall {
    /// Method of the request.
    pub method: Method,
    /// Address of the receiver.
    pub url: String,
    /// Further headers, by name.
    pub headers: BTreeMap<String, String>,
    /// The request it is about: the same in every repeat, so that a receiver can tell a repeat.
    pub request: RequestId,
    /// File name of the body, where it is a file.
    pub file_name: Option<String>,
    /// Media type of the body.
    pub media_type: String,
    /// The body.
    pub body: Bytes,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The config does not allow it, or the receiver refused it for good: a repeat would end the same.
    #[error(transparent)]
    Refused(Rejection),
    /// The receiver did not answer, or asked to be called again later.
    #[error("the receiver did not take the call")]
    Failed(#[source] BoxError),
}

/// Calls addresses that requesters give, as far as the allow list of `[webhook]` permits. No error shows more of an address
/// than its host, because the rest may hold secrets.
#[async_trait]
pub trait WebhookCaller: Send + Sync {
    /// Checks `url` against the allow list, as far as that needs no network.
    ///
    /// # Errors
    /// 400 `webhook_url` if it is malformed, 403 `webhook_not_allowed` if the config does not allow it.
    fn check_url(&self, url: &str) -> Result<(), Rejection>;

    /// Checks whether these headers may be sent.
    ///
    /// # Errors
    /// 400 `webhook_header` with the header's name and the reason.
    fn check_headers(&self, headers: &BTreeMap<String, String>) -> Result<(), Rejection>;

    /// Makes one call; when it returns, the receiver has accepted it. Calling again sends again.
    ///
    /// # Errors
    /// As [`CallError`] says; [`check_url`](Self::check_url) and [`check_headers`](Self::check_headers) are part of it.
    async fn call(&self, call: WebhookCall) -> Result<(), CallError>;
}

impl Service for dyn WebhookCaller {
    const WHAT: &'static str = "caller of webhooks";
    const SECTION: &'static str = "webhook";
    const HAS_DEFAULTS: bool = true;
}
