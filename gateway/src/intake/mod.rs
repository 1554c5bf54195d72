//! The body of a request, on its way from the socket into an event's payload.
//!
//! A body is streamed: what is longer than the inline limit goes on into the object store chunk by chunk. Only JSON
//! documents are held whole, under the memory budget. What was stored of a body that fails is removed again.

mod data_uri;
mod feed;
mod form;
mod json;
mod report;

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use pipeline::{BodyOf, BoxError, Claim, Content, FlowName, INLINE_LIMIT, Payload, Transport, claims};
use serde_json::{Map, Value};

pub use feed::{Allowance, Feed, channel};
pub use json::off_runtime;

use crate::problem::Problem;
use crate::spec::{BodyKind, BodySpec};
use crate::state::Shared;
use form::Form;

/// What the frame of a form may add to its files: boundaries, headers, small fields.
const FORM_OVERHEAD: u64 = 64 << 10;

/// What became of a body.
pub struct Taken {
    /// For the event.
    pub payload: Payload,
    /// For the record, where the route keeps one.
    pub record: Option<Map<String, Value>>,
    /// The fields of a form, where the route takes any.
    pub fields: Option<Map<String, Value>>,
}

impl Taken {
    fn payload(payload: Payload) -> Self {
        Self { payload, record: None, fields: None }
    }
}

/// What the headers say about a body that the route takes.
pub struct Head {
    /// `Content-Type` as it came, or `application/octet-stream`.
    pub media_type: String,
    /// `Content-Length`.
    pub length: Option<u64>,
    /// Most bytes that may come.
    pub max_bytes: u64,
}

/// Checks a request's headers against what the route takes, before a byte of the body is read.
///
/// # Errors
/// 413 if it announces too much, 415 if its type or encoding is not taken.
pub fn admit(spec: &BodySpec, headers: &HeaderMap) -> Result<Head, Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(encoding) = text(header::CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("identity"))
    {
        let detail = format!("Content-Encoding {encoding:?} is not taken: send the body as it is");
        return Err(Problem::unsupported("content_encoding", detail));
    }
    let given = text(header::CONTENT_TYPE).filter(|media_type| media_type.len() <= 255);
    let media_type = given.unwrap_or("application/octet-stream").to_owned();
    check_type(spec, &media_type, given.is_some())?;
    let is_form = form::is_multipart(&media_type);
    let max_bytes = spec.max_bytes.0 + if is_form { FORM_OVERHEAD } else { 0 };
    let length = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if let Some(length) = length.filter(|length| *length > max_bytes) {
        let detail = format!(
            "the body has {length} bytes: this route takes at most {} ({} bytes)",
            spec.max_bytes, spec.max_bytes.0
        );
        return Err(Problem::too_large(detail));
    }
    Ok(Head { media_type, length, max_bytes })
}

fn check_type(spec: &BodySpec, media_type: &str, given: bool) -> Result<(), Problem> {
    let (right, expected) = match &spec.kind {
        BodyKind::None | BodyKind::Open { .. } => return Ok(()),
        BodyKind::File(_) | BodyKind::Parts(_) | BodyKind::Files => {
            (form::is_multipart(media_type), "multipart/form-data".to_owned())
        }
        BodyKind::Form { .. } => (
            form::is_multipart(media_type) || json::is_json(media_type),
            "multipart/form-data or application/json".to_owned(),
        ),
        BodyKind::Json => (json::is_json(media_type), "application/json".to_owned()),
        BodyKind::Raw => (spec.takes_type(media_type), spec.types.join(" or ")),
    };
    if right {
        return Ok(());
    }
    let shown = if given { format!("{media_type:?}") } else { "missing".to_owned() };
    Err(Problem::unsupported("media_type", format!("Content-Type is {shown}: this route takes {expected}")))
}

/// Reads a whole body into a payload; the claims in it are the caller's to drop if nothing comes of it.
///
/// # Errors
/// The client's mistake, or a broker that cannot keep it. Nothing is left in the store.
pub async fn take(shared: &Shared, flow: &FlowName, spec: &BodySpec, head: Head, feed: Feed) -> Result<Taken, Problem> {
    let of = BodyOf::Event(flow);
    let mut keeper = Keeper { transport: &*shared.transport, of, inline_left: INLINE_LIMIT, kept: Vec::new() };
    let taken = take_into(&mut keeper, shared, spec, head, feed).await;
    if taken.is_err() {
        discard(&*shared.transport, keeper.kept).await;
    }
    taken
}

async fn take_into(
    keeper: &mut Keeper<'_>,
    shared: &Shared,
    spec: &BodySpec,
    head: Head,
    feed: Feed,
) -> Result<Taken, Problem> {
    let is_form = form::is_multipart(&head.media_type);
    match &spec.kind {
        BodyKind::None => Ok(Taken::payload(Payload::json(Value::Object(Map::new())))),
        BodyKind::File(name) => {
            let form = Form::open(&head.media_type, feed, spec)?;
            form.one_file(name, keeper).await.map(Taken::payload)
        }
        BodyKind::Parts(names) => {
            let form = Form::open(&head.media_type, feed, spec)?;
            form.parts(names, keeper).await.map(Taken::payload)
        }
        BodyKind::Files => Form::open(&head.media_type, feed, spec)?.files(keeper).await,
        BodyKind::Form { json, files } if is_form => {
            let form = Form::open(&head.media_type, feed, spec)?;
            form.report(json, files, keeper).await
        }
        BodyKind::Form { files, .. } => report::of_json(files, spec, keeper, shared, head, feed).await,
        BodyKind::Open { json: true } if json::is_json(&head.media_type) => json::take(shared, head, feed).await,
        BodyKind::Json => json::take(shared, head, feed).await,
        BodyKind::Raw | BodyKind::Open { .. } => {
            let content = keeper.keep(&head.media_type, feed.boxed()).await?;
            if content.length() == 0 {
                return Err(empty("the body"));
            }
            Ok(Taken::payload(Payload::Bytes(content)))
        }
    }
}

/// Drops claims that no event refers to.
pub async fn discard(transport: &dyn Transport, claims: Vec<Arc<Claim>>) {
    for claim in claims {
        if let Err(error) = transport.drop_claim(&claim).await {
            // It expires by age.
            tracing::warn!(claim = %claim.id, %error, "claim not dropped");
        }
    }
}

fn empty(what: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "empty_file", format!("{what} is empty: send a file with content"))
}

/// Keeps the parts of one body, so that together they fit into one event.
struct Keeper<'a> {
    transport: &'a dyn Transport,
    of: BodyOf<'a>,
    /// Bytes that may still travel inside the event.
    inline_left: usize,
    kept: Vec<Arc<Claim>>,
}

impl Keeper<'_> {
    async fn keep(
        &mut self,
        media_type: &str,
        body: BoxStream<'_, Result<Bytes, BoxError>>,
    ) -> Result<Content, Problem> {
        let mut content = claims::keep(self.transport, self.of, media_type, body).await?;
        if let pipeline::Body::Inline(bytes) = &content.body {
            match self.inline_left.checked_sub(bytes.len()) {
                Some(left) => self.inline_left = left,
                None => {
                    let whole = stream::iter([Ok(bytes.clone())]).boxed();
                    let claim = self.transport.put_claim(self.of, whole).await?;
                    content.body = pipeline::Body::Claim(Arc::new(claim));
                }
            }
        }
        self.kept.extend(content.claim().cloned());
        Ok(content)
    }
}
