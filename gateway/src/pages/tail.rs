//! `GET /v1/tail/{flow}`: the events of a flow as they are submitted, as server-sent events or as a WebSocket.
//!
//! Live only: a slow reader misses events, and no event has an id to resume from. Callers who are no administrators see
//! the events of their own tenant. A page may open a WebSocket if it is ours or its origin is in `[service] origins`,
//! because browsers let any page open one, with the reader's credentials.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::tail_fan_out::{TailEvent, TailFanOut};
use super::tickets;
use crate::answer::sse::{self, HEARTBEAT, StreamLifetime, expired};
use crate::answer::stream_slot::{self, StreamSlot};
use crate::door::csrf;
use crate::door::metrics::OpenStreamGauge;
use crate::identity::caller::Caller;
use crate::intake::params::{Segment, token};
use crate::problem::Problem;
use crate::state::GatewayState;

/// Longest message of a WebSocket client; clients only answer pings.
const MAX_MESSAGE_BYTES: usize = 16 << 10;

/// Heartbeats that a client may leave unanswered.
const MAX_UNANSWERED: u32 = 3;

/// What the handlers need.
#[derive(Clone)]
struct TailState {
    state: GatewayState,
    fan_out: Arc<TailFanOut>,
}

/// The routes of tails.
pub fn routes<S: Clone + Send + Sync + 'static>(state: &GatewayState) -> Router<S> {
    let fan_out = TailFanOut::new(Arc::clone(&state.transport), state.tasks.clone());
    Router::new()
        .route("/v1/tail/{flow}", get(tail))
        .route("/v1/tail/{flow}/ticket", post(ticket))
        .with_state(TailState { state: state.clone(), fan_out })
}

/// See the module.
async fn tail(
    State(TailState { state, fan_out }): State<TailState>,
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
    let slot = stream_slot::acquire(&state, &caller)?;
    let events = fan_out.subscribe(&flow).await?;
    let expires = StreamLifetime::of(&caller).expires;
    let tail = TailReader { state, caller, events, expires, _slot: slot, _gauge: OpenStreamGauge::begin() };
    Ok(match upgrade {
        Ok(upgrade) => upgrade
            .max_message_size(MAX_MESSAGE_BYTES)
            .max_frame_size(MAX_MESSAGE_BYTES)
            .on_upgrade(|socket| tail.into_socket(socket)),
        Err(_) => tail.into_stream(),
    })
}

/// `POST /v1/tail/{flow}/ticket`.
async fn ticket(
    State(TailState { state, .. }): State<TailState>,
    Extension(caller): Extension<Caller>,
    Segment(flow): Segment,
) -> Result<Response, Problem> {
    let flow = token("flow", &flow)?;
    tickets::issue(&state, &caller, format!("/v1/tail/{flow}")).await
}

/// Refuses pages of origins other than ours and the listed ones.
fn check_origin(state: &GatewayState, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if csrf::is_allowed(state, host, origin) {
        return Ok(());
    }
    let detail = "a page of another origin may not open this stream: list the origin in [service] origins";
    Err(Problem::new(StatusCode::FORBIDDEN, "foreign_origin", detail))
}

struct TailReader {
    state: GatewayState,
    caller: Caller,
    events: Receiver<Arc<TailEvent>>,
    expires: Option<Instant>,
    _slot: StreamSlot,
    _gauge: OpenStreamGauge,
}

/// What a tail sends next.
enum TailItem {
    Event(Arc<TailEvent>),
    Heartbeat,
    End,
}

impl TailReader {
    async fn next(&mut self) -> TailItem {
        let heartbeat = tokio::time::sleep(self.heartbeat());
        tokio::pin!(heartbeat);
        loop {
            let event = tokio::select! {
                biased;
                () = self.state.closing.cancelled() => return TailItem::End,
                () = expired(self.expires) => return TailItem::End,
                event = self.events.recv() => event,
                () = &mut heartbeat => return TailItem::Heartbeat,
            };
            match event {
                Ok(event) if self.may_see(&event) => return TailItem::Event(event),
                Ok(_) => {}
                Err(RecvError::Lagged(lost)) => metrics::counter!("caudal_tail_events_lost_total").increment(lost),
                Err(RecvError::Closed) => return TailItem::End,
            }
        }
    }

    fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.state.limits.heartbeat_ms.max(1))
    }

    fn may_see(&self, event: &TailEvent) -> bool {
        let Some(principal) = &self.caller.principal else { return true };
        principal.admin || event.tenant.as_deref() == Some(&*principal.tenant)
    }

    fn into_stream(self) -> Response {
        let body = stream::unfold(self, |mut tail| async move {
            let bytes = match tail.next().await {
                TailItem::Event(event) => Bytes::from(format!("event: event\ndata: {}\n\n", event.text)),
                TailItem::Heartbeat => HEARTBEAT,
                TailItem::End => return None,
            };
            Some((Ok::<_, Infallible>(bytes), tail))
        });
        sse::response(Body::from_stream(body)).into_response()
    }

    async fn into_socket(mut self, mut socket: WebSocket) {
        let timeout = self.heartbeat() * MAX_UNANSWERED;
        let mut last_heard = Instant::now();
        loop {
            let item = tokio::select! {
                item = self.next() => item,
                received = socket.recv() => match received {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {
                        last_heard = Instant::now();
                        continue;
                    }
                },
            };
            let sent = match item {
                TailItem::Event(event) => socket.send(Message::Text((&*event.text).into())).await,
                TailItem::Heartbeat if last_heard.elapsed() > timeout => return,
                TailItem::Heartbeat => socket.send(Message::Ping(Bytes::new())).await,
                TailItem::End => {
                    let close = CloseFrame { code: close_code::AWAY, reason: "the stream has ended".into() };
                    // The client may have disconnected already.
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
