//! Reads a body into a payload, by the kind of body that the route takes.

use futures_util::stream::StreamExt;
use pipeline::{BodyOwner, FlowName, Payload};
use serde_json::{Map, Value};

use super::channel::BodyReceiver;
use super::head::BodyHead;
use super::media_type::{is_json, is_multipart};
use super::multipart::Form;
use super::received::{ReceivedBody, empty};
use super::store::BodyStore;
use super::{json, report};
use crate::problem::Problem;
use crate::spec::{BodyKind, BodySpec};
use crate::state::Shared;

/// Reads a whole body. If no event comes of it, the caller must drop the claims in the payload.
///
/// # Errors
/// The client's mistake, or a broker that cannot store it. Nothing is left in the store.
pub async fn read(
    shared: &Shared,
    flow: &FlowName,
    spec: &BodySpec,
    head: BodyHead,
    body: BodyReceiver,
) -> Result<ReceivedBody, Problem> {
    let mut store = BodyStore::new(&*shared.transport, BodyOwner::Request(flow));
    let received = read_into(&mut store, shared, spec, head, body).await;
    if received.is_err() {
        store.discard().await;
    }
    received
}

async fn read_into(
    store: &mut BodyStore<'_>,
    shared: &Shared,
    spec: &BodySpec,
    head: BodyHead,
    body: BodyReceiver,
) -> Result<ReceivedBody, Problem> {
    let is_form = is_multipart(&head.media_type);
    match &spec.kind {
        BodyKind::None => Ok(ReceivedBody::payload(Payload::json(Value::Object(Map::new())))),
        BodyKind::File(name) => {
            let form = Form::open(&head.media_type, body, spec)?;
            form.one_file(name, store).await
        }
        BodyKind::Parts(names) => {
            let form = Form::open(&head.media_type, body, spec)?;
            form.parts(names, store).await
        }
        BodyKind::Files => Form::open(&head.media_type, body, spec)?.files(store).await,
        BodyKind::Form { json, files } if is_form => {
            let form = Form::open(&head.media_type, body, spec)?;
            form.report(json, files, store).await
        }
        BodyKind::Form { files, .. } => report::of_json(files, spec, store, shared, head, body).await,
        BodyKind::Open { json: true } if is_json(&head.media_type) => json::read(shared, head, body).await,
        BodyKind::Json => json::read(shared, head, body).await,
        BodyKind::Raw | BodyKind::Open { .. } => {
            let content = store.put(&head.media_type, body.boxed()).await?;
            if content.length() == 0 {
                return Err(empty("the body"));
            }
            Ok(ReceivedBody::payload(Payload::Bytes(content)))
        }
    }
}
