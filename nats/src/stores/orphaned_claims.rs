//! Takes away bodies that no event refers to.
//!
//! Whoever stores a body and dies before its event is submitted leaves it behind. An event comes within
//! `claims_unused_s` of its body, or never. So a body that was seen that long ago is unused once its flow's queue is empty or
//! holds only events that came later than that, unless one of the flow's dead letters refers to it. Times are the broker's
//! own, and the queue is looked at before the dead letters, for an event becomes a letter before it leaves the queue.
//!
//! Every process does this; what one takes away is gone for the others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Context;
use pipeline::{BoxError, FlowName, Token};
use serde::Deserialize;
use time::OffsetDateTime;

use crate::claims;
use crate::dead;
use crate::jetstream::Inner;
use crate::names;

/// Looks in the time after which a body is unused.
const LOOKS: u32 = 4;
/// Most bodies remembered, as many as the broker lists at once; the others go by age.
const MOST: usize = 100_000;

#[derive(Deserialize)]
struct Info {
    state: Option<State>,
    /// The broker's clock.
    #[serde(with = "time::serde::rfc3339")]
    ts: OffsetDateTime,
}

#[derive(Deserialize)]
struct State {
    messages: u64,
    #[serde(with = "time::serde::rfc3339")]
    first_ts: OffsetDateTime,
    #[serde(default)]
    subjects: HashMap<String, u64>,
}

/// Bodies of each flow, and when they were first seen.
type Seen = HashMap<FlowName, HashMap<Token, OffsetDateTime>>;

/// Looks again and again, until the transport stops.
pub async fn run(inner: Arc<Inner>) {
    let unused_after = inner.limits.claims_unused;
    let pause = unused_after / LOOKS;
    let mut seen = Seen::new();
    loop {
        // Not all processes at once.
        let pause = pause.mul_f64(1.0 + rand::random::<f64>() / 4.0);
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        if let Err(error) = look(&inner, &mut seen, unused_after).await {
            tracing::debug!(error, "unused bodies could not be looked for, will try again");
        }
    }
}

async fn look(inner: &Inner, seen: &mut Seen, unused_after: Duration) -> Result<(), BoxError> {
    let context = &inner.objects.context;
    let Info { state, ts: now } = info(context, names::BLOBS, names::BLOB_SUBJECTS).await?;
    let subjects = state.map(|state| state.subjects).unwrap_or_default();
    note(seen, subjects.keys().filter_map(|subject| names::event_body(subject)), now);
    for (flow, bodies) in seen.iter_mut() {
        // What came before this has left the queue.
        let before = oldest_event(context, flow).await?.unwrap_or(now);
        let unused = |first: &OffsetDateTime| *first + unused_after < before;
        if !bodies.values().any(unused) {
            continue;
        }
        let needed = dead::bodies(inner, flow).await?;
        let gone: Vec<Token> = bodies
            .iter()
            .filter(|(id, first)| unused(first) && !needed.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            claims::remove(context, &id).await?;
            bodies.remove(&id);
            tracing::info!(%flow, body = %id, "took away a body that no event came for");
            metrics::counter!("caudal_unused_bodies_removed_total").increment(1);
        }
    }
    Ok(())
}

/// Notes what is there, and forgets what is gone.
fn note(seen: &mut Seen, there: impl Iterator<Item = (FlowName, Token)>, now: OffsetDateTime) {
    let mut after = Seen::new();
    for (flow, id) in there.take(MOST) {
        let first = seen.get(&flow).and_then(|bodies| bodies.get(&id)).copied().unwrap_or(now);
        after.entry(flow).or_default().insert(id, first);
    }
    *seen = after;
}

/// When the oldest event of a flow's queue came.
async fn oldest_event(context: &Context, flow: &FlowName) -> Result<Option<OffsetDateTime>, BoxError> {
    let info = info(context, &names::work_stream(flow), "").await?;
    let state = info.state.ok_or("the queue's stream is missing")?;
    Ok((state.messages > 0).then_some(state.first_ts))
}

async fn info(context: &Context, stream: &str, subjects: &str) -> Result<Info, BoxError> {
    let question = serde_json::json!({ "subjects_filter": subjects });
    Ok(context.request(format!("STREAM.INFO.{stream}"), &question).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_as_old_as_its_first_sight() {
        let (flow, id) = (Token::new("f").unwrap(), Token::new("b").unwrap());
        let at = |second| OffsetDateTime::UNIX_EPOCH + Duration::from_secs(second);
        let mut seen = Seen::new();
        note(&mut seen, [(flow.clone(), id.clone())].into_iter(), at(1));
        note(&mut seen, [(flow.clone(), id.clone())].into_iter(), at(2));
        assert_eq!(seen[&flow][&id], at(1));
        note(&mut seen, std::iter::empty(), at(3));
        assert!(seen.is_empty());
    }
}
