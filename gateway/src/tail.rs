//! `GET /v1/tail/{flow}`: the events of a flow as they are submitted, as server-sent events, or as a WebSocket for whoever
//! asks for one.
//!
//! Live only: what a slow reader misses is lost, and nothing has an id to resume from. Whoever is no administrator sees the
//! events of their own tenant. A page may open a WebSocket if it is ours or its origin is in `[service] origins`: browsers
//! let any page try, and send what they know of its reader along.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use crate::answer::sse::{self, Ends, HEARTBEAT, Slot, over};
use crate::identity::caller::Caller;
use crate::meter::StreamMeter;
use crate::origin;
use crate::params::{Segment, token};
use crate::problem::Problem;
use crate::state::GatewayState;
use crate::tails::{self, Shown};
use crate::tickets;

/// Longest message taken from a client, who has nothing to say.
const MAX_MESSAGE_BYTES: usize = 16 << 10;

/// Heartbeats that a client may leave unanswered.
const PATIENCE: u32 = 3;

/// See the module.
pub async fn tail(
    State(state): State<GatewayState>,
    Extension(caller): Extension<Caller>,
    Segment(flow): Segment,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let flow = token("flow", &flow)?;
    if !state.flows.contains_key(&flow) {
        return Err(Problem::new(StatusCode::NOT_FOUND, "no_flow", format!("no flow is named {flow}")));
    }
    if upgrade.is_ok() {
        check_origin(&state, &headers)?;
    }
    let slot = sse::slot(&state, &caller)?;
    let events = tails::listen(&state, &flow).await?;
    let until = Ends::of(&caller).until;
    let tail = Tail { state, caller, events, until, _slot: slot, _meter: StreamMeter::begin() };
    Ok(match upgrade {
        Ok(upgrade) => upgrade
            .max_message_size(MAX_MESSAGE_BYTES)
            .max_frame_size(MAX_MESSAGE_BYTES)
            .on_upgrade(|socket| tail.into_socket(socket)),
        Err(_) => tail.into_stream(),
    })
}

/// `POST /v1/tail/{flow}/ticket`.
pub async fn ticket(
    State(state): State<GatewayState>,
    Extension(caller): Extension<Caller>,
    Segment(flow): Segment,
) -> Result<Response, Problem> {
    let flow = token("flow", &flow)?;
    tickets::issue(&state, &caller, format!("/v1/tail/{flow}")).await
}

/// Refuses pages of other origins than ours and those that are listed.
fn check_origin(state: &GatewayState, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if origin::is_known(state, host, origin) {
        return Ok(());
    }
    let detail = "a page of another origin may not open this: list it in [service] origins";
    Err(Problem::new(StatusCode::FORBIDDEN, "foreign_origin", detail))
}

struct Tail {
    state: GatewayState,
    caller: Caller,
    events: Receiver<Arc<Shown>>,
    until: Option<Instant>,
    _slot: Slot,
    _meter: StreamMeter,
}

/// What a tail has to say next.
enum Word {
    Event(Arc<Shown>),
    Heartbeat,
    End,
}

impl Tail {
    async fn next(&mut self) -> Word {
        let heartbeat = tokio::time::sleep(self.heartbeat());
        tokio::pin!(heartbeat);
        loop {
            let event = tokio::select! {
                biased;
                () = self.state.closing.cancelled() => return Word::End,
                () = over(self.until) => return Word::End,
                event = self.events.recv() => event,
                () = &mut heartbeat => return Word::Heartbeat,
            };
            match event {
                Ok(event) if self.may_see(&event) => return Word::Event(event),
                Ok(_) => {}
                Err(RecvError::Lagged(lost)) => metrics::counter!("caudal_tail_events_lost_total").increment(lost),
                Err(RecvError::Closed) => return Word::End,
            }
        }
    }

    fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.state.limits.heartbeat_ms.max(1))
    }

    fn may_see(&self, event: &Shown) -> bool {
        let Some(principal) = &self.caller.principal else { return true };
        principal.admin || event.tenant.as_deref() == Some(&*principal.tenant)
    }

    fn into_stream(self) -> Response {
        let body = stream::unfold(self, |mut tail| async move {
            let bytes = match tail.next().await {
                Word::Event(event) => Bytes::from(format!("event: event\ndata: {}\n\n", event.text)),
                Word::Heartbeat => HEARTBEAT,
                Word::End => return None,
            };
            Some((Ok::<_, Infallible>(bytes), tail))
        });
        sse::response(Body::from_stream(body)).into_response()
    }

    async fn into_socket(mut self, mut socket: WebSocket) {
        let patience = self.heartbeat() * PATIENCE;
        let mut heard = Instant::now();
        loop {
            let word = tokio::select! {
                word = self.next() => word,
                said = socket.recv() => match said {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {
                        heard = Instant::now();
                        continue;
                    }
                },
            };
            let sent = match word {
                Word::Event(event) => socket.send(Message::Text((&*event.text).into())).await,
                Word::Heartbeat if heard.elapsed() > patience => return,
                Word::Heartbeat => socket.send(Message::Ping(Bytes::new())).await,
                Word::End => {
                    let close = CloseFrame { code: close_code::AWAY, reason: "the stream has ended".into() };
                    // Whether it arrives is the client's business.
                    let _ = socket.send(Message::Close(Some(close))).await;
                    return;
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }
}
