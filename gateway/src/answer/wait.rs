//! Waits for a request's result; answers 202 if it does not come in time.

use std::pin::pin;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pipeline::{FlowName, Lane, RequestId};
use serde_json::json;
use tokio::time::Instant;

use super::follower::Follower;
use super::result::terminal;
use super::server_timing::StageTimes;
use super::status::{QUEUED, status_of};
use crate::problem::Problem;
use crate::state::GatewayState;

/// The answer to a request that was stored.
pub struct PendingAnswer<'a> {
    pub state: &'a GatewayState,
    pub id: &'a RequestId,
    pub flow: &'a FlowName,
    pub lane: Lane,
}

/// How a wait for a request's result ended.
pub enum Waited {
    /// With its answer.
    Answered(Response),
    /// In time for nothing but a 202.
    NotYet {
        /// The request's status.
        status: &'static str,
        /// Whether the request has a result, by which `/v1/requests/{id}` knows it.
        is_known: bool,
    },
}

impl PendingAnswer<'_> {
    /// Waits for the terminal result, for at most `timeout`. `status` is that of a success.
    pub async fn wait(&self, mut follower: Follower, timeout: Duration, status: StatusCode) -> Result<Waited, Problem> {
        let until = Instant::now() + timeout;
        // Begun once: results that come meanwhile must not put it off.
        let mut closing = pin!(half_grace_over(self.state));
        let mut seen = None;
        loop {
            let not_yet = Waited::NotYet { status: seen.unwrap_or(QUEUED), is_known: seen.is_some() };
            let outcome = tokio::select! {
                biased;
                outcome = follower.next() => outcome,
                () = tokio::time::sleep_until(until) => return Ok(not_yet),
                () = &mut closing => return Ok(not_yet),
            };
            match outcome {
                Ok(Some(outcome)) if outcome.kind.is_terminal() => {
                    let mut response = terminal(self.state, &outcome, status).await?;
                    response.extensions_mut().insert(StageTimes(outcome.stage_times));
                    return Ok(Waited::Answered(response));
                }
                Ok(Some(outcome)) => seen = Some(status_of(outcome.kind)),
                Ok(None) => return Err(Problem::internal()),
                Err(error) => {
                    // The request is stored; only its result cannot be watched from here.
                    tracing::warn!(request = %self.id, %error, "result cannot be watched");
                    return Ok(not_yet);
                }
            }
        }
    }

    /// 202: the request's status and where its result will be. `preferred` says that the client asked for it.
    pub async fn accepted(&self, status: &'static str, preferred: bool) -> Response {
        let outlook = self.state.drain_rates.outlook(self.flow, self.lane).await;
        let expected = outlook.and_then(|outlook| outlook.wait);
        let expected = expected.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let body = json!({
            "id": self.id,
            "status": status,
            "position": outlook.map(|outlook| outlook.position),
            "expected_wait_ms": expected,
        });
        let mut response = (StatusCode::ACCEPTED, Json(body)).into_response();
        let headers = response.headers_mut();
        let location = format!("/v1/requests/{}", self.id);
        headers.insert(header::LOCATION, HeaderValue::from_str(&location).expect("a token is header text"));
        if preferred {
            let applied = HeaderName::from_static("preference-applied");
            headers.insert(applied, HeaderValue::from_static("respond-async"));
        }
        response
    }
}

/// Resolves when a shutdown has used half of its grace: the other half is for sending the answers.
async fn half_grace_over(state: &GatewayState) {
    state.closing.cancelled().await;
    tokio::time::sleep(state.service.grace() / 2).await;
}
