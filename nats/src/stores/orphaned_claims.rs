//! Removes orphaned bodies: those in the claim store to which no event and no dead letter refers.
//!
//! A process that stores a body and dies before it submits the event leaves an orphan. A request is submitted within
//! `claims_orphaned_after_s` of its body, or never. What follows from an event, over a durable edge or as a webhook, may be
//! submitted much later, if its queue refuses for long; until then that event is in a queue itself. So a body is orphaned
//! if the oldest event in all queues was stored more than that time after the body was first seen, or if all queues
//! are empty and that time has passed; unless one of the flow's dead letters refers to the body. All times are read from
//! the broker's clock. The queues are looked at before the dead letters, because an event becomes a dead letter before
//! it leaves the queue.
//!
//! Every process does this. To remove a body twice does no harm.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::response::Response;
use async_nats::jetstream::{self, Context, ErrorCode};
use futures_util::future::try_join_all;
use pipeline::{BoxError, FlowName, Token};
use serde::Deserialize;
use time::OffsetDateTime;

use crate::link::broker::Broker;
use crate::stores::claim_sweep;
use crate::stores::dead_letters;
use crate::wire::subjects;

/// Collections within the time after which a body is orphaned.
const COLLECTIONS: u32 = 4;
/// Bodies remembered, at most: as many as the broker lists at once. Further ones expire by age.
const MAX_BODIES: usize = 100_000;

#[derive(Deserialize)]
struct StreamInfo {
    state: Option<StreamState>,
    /// The broker's clock.
    #[serde(with = "time::serde::rfc3339")]
    ts: OffsetDateTime,
}

#[derive(Deserialize)]
struct StreamState {
    messages: u64,
    #[serde(with = "time::serde::rfc3339")]
    first_ts: OffsetDateTime,
    #[serde(default)]
    subjects: HashMap<String, u64>,
}

/// When each body of a flow was first seen.
type FirstSeen = HashMap<Token, OffsetDateTime>;

/// Collects orphans again and again, until the transport stops.
pub async fn run(broker: Arc<Broker>) {
    let orphaned_after = broker.limits.claims_orphaned_after;
    let pause = orphaned_after / COLLECTIONS;
    let mut flows = HashMap::new();
    loop {
        // Jitter, so that not all processes collect at once.
        let pause = pause.mul_f64(1.0 + rand::random::<f64>() / 4.0);
        tokio::select! {
            () = broker.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        if let Err(error) = collect(&broker, &mut flows, orphaned_after).await {
            tracing::debug!(error, "orphaned bodies could not be collected, trying again later");
        }
    }
}

async fn collect(
    broker: &Broker,
    flows: &mut HashMap<FlowName, FirstSeen>,
    orphaned_after: Duration,
) -> Result<(), BoxError> {
    let context = &broker.objects.context;
    let StreamInfo { state, ts: now } = info(context, subjects::BLOBS, subjects::BLOB_SUBJECTS).await?;
    let stored = state.map(|state| state.subjects).unwrap_or_default();
    update(flows, stored.keys().filter_map(|subject| subjects::parse_event_blob(subject)), now);
    // Flows that are not declared here may have events too.
    let queues: HashSet<&FlowName> = broker.flows.keys().chain(flows.keys()).collect();
    let oldest = try_join_all(queues.into_iter().map(|flow| oldest_event(context, flow))).await?;
    let oldest_event = oldest.into_iter().flatten().min().unwrap_or(now);
    for (flow, bodies) in flows.iter_mut() {
        // Reading the dead letters costs more, so only for bodies that are old enough.
        if orphans(bodies, oldest_event, orphaned_after, &HashSet::new()).is_empty() {
            continue;
        }
        let in_dead_letters = dead_letters::claimed_bodies(broker, flow).await?;
        for id in orphans(bodies, oldest_event, orphaned_after, &in_dead_letters) {
            claim_sweep::remove(context, &id).await?;
            bodies.remove(&id);
            tracing::info!(%flow, body = %id, "removed an orphaned body, no event refers to it");
            metrics::counter!("caudal_orphaned_claims_removed_total").increment(1);
        }
    }
    Ok(())
}

/// The bodies of a flow to which nothing refers. `oldest_event` is when the oldest event of all queues was stored: every
/// event before that has left its queue.
fn orphans(
    bodies: &FirstSeen,
    oldest_event: OffsetDateTime,
    orphaned_after: Duration,
    in_dead_letters: &HashSet<Token>,
) -> Vec<Token> {
    bodies
        .iter()
        .filter(|(id, first_seen)| **first_seen + orphaned_after < oldest_event && !in_dead_letters.contains(*id))
        .map(|(id, _)| id.clone())
        .collect()
}

/// Adds the bodies that are new, as seen `now`, and forgets those that are no longer stored.
fn update(
    flows: &mut HashMap<FlowName, FirstSeen>,
    stored: impl Iterator<Item = (FlowName, Token)>,
    now: OffsetDateTime,
) {
    let mut updated = HashMap::<FlowName, FirstSeen>::new();
    for (flow, id) in stored.take(MAX_BODIES) {
        let first_seen = flows.get(&flow).and_then(|bodies| bodies.get(&id)).copied().unwrap_or(now);
        updated.entry(flow).or_default().insert(id, first_seen);
    }
    *flows = updated;
}

/// When the oldest event in a flow's queue was stored; `None` if the queue is empty.
async fn oldest_event(context: &Context, flow: &FlowName) -> Result<Option<OffsetDateTime>, BoxError> {
    match info(context, &subjects::work_stream(flow), "").await {
        Ok(info) => {
            let state = info.state.ok_or("the queue has no state")?;
            Ok((state.messages > 0).then_some(state.first_ts))
        }
        // The flow is no longer declared, and its empty queue was removed.
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_not_found(error: &BoxError) -> bool {
    let error = error.downcast_ref::<jetstream::Error>();
    error.is_some_and(|error| error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

async fn info(context: &Context, stream: &str, subjects: &str) -> Result<StreamInfo, BoxError> {
    let request = serde_json::json!({ "subjects_filter": subjects });
    match context.request(format!("STREAM.INFO.{stream}"), &request).await? {
        Response::Ok(info) => Ok(info),
        Response::Err { error } => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORPHANED_AFTER: Duration = Duration::from_secs(10);

    fn token(text: &str) -> Token {
        Token::new(text).unwrap()
    }

    fn at(second: u64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    fn body_seen_at(second: u64) -> FirstSeen {
        HashMap::from([(token("b"), at(second))])
    }

    #[test]
    fn a_body_keeps_the_time_at_which_it_was_first_seen() {
        let (flow, id) = (token("f"), token("b"));
        let mut flows = HashMap::new();
        update(&mut flows, [(flow.clone(), id.clone())].into_iter(), at(1));
        update(&mut flows, [(flow.clone(), id.clone())].into_iter(), at(2));
        assert_eq!(flows[&flow][&id], at(1));
    }

    #[test]
    fn a_body_that_is_no_longer_stored_is_forgotten() {
        let mut flows = HashMap::from([(token("f"), body_seen_at(1))]);
        update(&mut flows, std::iter::empty(), at(3));
        assert!(flows.is_empty());
    }

    #[test]
    fn a_body_is_orphaned_once_every_event_is_newer_than_its_time() {
        assert_eq!(orphans(&body_seen_at(1), at(12), ORPHANED_AFTER, &HashSet::new()), [token("b")]);
    }

    #[test]
    fn a_body_whose_event_may_still_be_in_the_queue_is_not_orphaned() {
        assert!(orphans(&body_seen_at(1), at(11), ORPHANED_AFTER, &HashSet::new()).is_empty());
    }

    #[test]
    fn a_body_of_a_dead_letter_is_not_orphaned() {
        let in_dead_letters = HashSet::from([token("b")]);
        assert!(orphans(&body_seen_at(1), at(100), ORPHANED_AFTER, &in_dead_letters).is_empty());
    }
}
