//! The checks behind `/ready`: the broker, every stream, each service that a flow needs, and whether anybody works.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use gateway::{ReadinessCheck, ReadinessChecks};
use nats::JetStream;
use pipeline::VectorIndex;
use pipeline::documents::Converter;

use crate::assembly::Assembly;
use crate::extras::Extras;
use crate::plan::Plan;

/// The checks behind `/ready`.
pub fn of(plan: &Plan, assembly: &Assembly, extras: &Extras) -> ReadinessChecks {
    let transport = assembly.transport.clone();
    let broker: ReadinessCheck = Arc::new(move || {
        let transport = transport.clone();
        async move { transport.ready().await.map_err(|error| error.to_string()) }.boxed()
    });
    let mut checks: ReadinessChecks = vec![("broker".into(), broker)];
    checks.extend(assembly.jetstream.streams().into_iter().map(|(stream, _)| {
        let jetstream = Arc::clone(&assembly.jetstream);
        let name = format!("stream {stream}");
        let check: ReadinessCheck = Arc::new(move || {
            let writable = jetstream.is_writable(&stream);
            async move { if writable { Ok(()) } else { Err("it refuses every write".to_owned()) } }.boxed()
        });
        (name, check)
    }));
    if let Ok(converter) = assembly.services.get::<dyn Converter>() {
        let documents: ReadinessCheck = Arc::new(move || {
            let converter = Arc::clone(&converter);
            async move { converter.ready().await.map_err(|error| error.to_string()) }.boxed()
        });
        checks.push(("documents".into(), documents));
    }
    if let Ok(index) = assembly.services.get::<dyn VectorIndex>() {
        let index: ReadinessCheck = Arc::new(move || {
            let index = Arc::clone(&index);
            async move { index.ready().await.map_err(|error| error.to_string()) }.boxed()
        });
        checks.push(("index".into(), index));
    }
    if plan.works_on.is_empty() && !plan.flows.is_empty() {
        let (jetstream, flows) = (Arc::clone(&assembly.jetstream), plan.flows.len());
        let workers: ReadinessCheck = Arc::new(move || find_worker(Arc::clone(&jetstream), flows).boxed());
        checks.push(("workers".into(), workers));
    }
    if let Some(change) = extras.change_checks {
        change(&mut checks);
    }
    checks
}

/// Time between two looks for a worker. Its open pulls can end together, and are renewed within milliseconds.
const SECOND_LOOK: Duration = Duration::from_millis(200);

/// Whether any process works on any of the flows. A single flow without one is only slow, which `/ready` says once its
/// backlog does not move.
async fn find_worker(jetstream: Arc<JetStream>, flows: usize) -> Result<(), String> {
    for pause in [SECOND_LOOK, Duration::ZERO] {
        let without = jetstream.flows_without_worker().await.map_err(|error| error.to_string())?;
        if without.len() < flows {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
    }
    Err("no process works on any flow: start one with --role worker".into())
}
