//! Every metric of this program: its name, unit and description. The gateway describes its own.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Counters.
const COUNTERS: [(&str, &str); 20] = [
    ("caudal_broker_disconnects_total", "Lost connections to the broker, by the connection's purpose."),
    ("caudal_broker_dropped_messages_total", "Messages dropped because a connection's buffer was full, by purpose."),
    ("caudal_broker_restarts_total", "Restarts of the private broker, by reason."),
    ("caudal_dead_letters_total", "Dead letters written, by flow."),
    ("caudal_flow_events_total", "Settled events of a flow, by result."),
    ("caudal_flow_results_refused_total", "Terminal results refused because the request had one already."),
    ("caudal_index_points_written_total", "Points written to the embedded index, by collection."),
    ("caudal_index_rebuilds_total", "Rebuilds of a collection of the embedded index."),
    ("caudal_ledger_forgotten_early_total", "Ended events dropped from the ledger before their age, for lack of room."),
    ("caudal_model_failures_total", "Failed inferences, by model."),
    ("caudal_office_restarts_total", "Document workers replaced, by reason."),
    ("caudal_office_results_reused_total", "Conversions answered from the cache."),
    ("caudal_office_retries_total", "Conversions repeated because a worker died."),
    ("caudal_orphaned_claims_removed_total", "Stored bodies removed because no event refers to them."),
    ("caudal_redeliveries_in_flight_total", "Deliveries dropped because the event was still in flight here."),
    ("caudal_result_watchers_closed_total", "Watchers of results that fell behind and read the history again."),
    ("caudal_stage_events_total", "Events that left a stage, by result."),
    ("caudal_tail_events_lost_total", "Events that a tail dropped because its reader was too slow."),
    ("caudal_trace_exports_total", "Messages sent to the trace collector, by outcome."),
    ("caudal_trace_spans_total", "Spans of sampled traces."),
];

/// Gauges.
const GAUGES: [(&str, Unit, &str); 23] = [
    ("caudal_broker_reachable", Unit::Count, "1 if the broker answered when it was last asked, otherwise 0."),
    ("caudal_broker_storage_bytes", Unit::Bytes, "Disk space that streams use in the broker."),
    (
        "caudal_broker_storage_limit_bytes",
        Unit::Bytes,
        "Disk space that streams may use in the broker, if it is limited.",
    ),
    ("caudal_broker_stream_writable", Unit::Count, "1 if the stream stores what is sent to it, otherwise 0."),
    ("caudal_build_info", Unit::Count, "Always 1; the version is a label."),
    ("caudal_dead_letters", Unit::Count, "Dead letters stored, by flow."),
    ("caudal_decoded_image_bytes", Unit::Bytes, "Memory of decoded images."),
    (
        "caudal_flow_backlog_events",
        Unit::Count,
        "Events in the broker's queue of a flow, by lane; in-flight events included.",
    ),
    ("caudal_flow_in_flight_events", Unit::Count, "Events delivered and not settled."),
    (
        "caudal_flow_waits_for_storage_events",
        Unit::Count,
        "Events that wait because the broker refuses to store their result, end or next part.",
    ),
    ("caudal_index_log_bytes", Unit::Bytes, "Size of the log of a collection of the embedded index."),
    ("caudal_index_points", Unit::Count, "Approximate number of points in a collection of the embedded index."),
    ("caudal_ledger_events", Unit::Count, "Ended events that the ledger remembers."),
    ("caudal_office_workers", Unit::Count, "Document worker processes, the warm spare included."),
    ("caudal_office_workers_busy", Unit::Count, "Document workers that are converting."),
    ("caudal_stage_blocked_seconds_total", Unit::Seconds, "Worker time spent waiting for room downstream."),
    ("caudal_stage_busy_seconds_total", Unit::Seconds, "Worker time spent processing."),
    ("caudal_stage_in_flight_events", Unit::Count, "Events that a stage's workers are processing."),
    ("caudal_stage_queue_limit_events", Unit::Count, "Capacity of a stage's queue in events."),
    ("caudal_stage_queued_bytes", Unit::Bytes, "Memory of the events in a stage's queue."),
    ("caudal_stage_queued_events", Unit::Count, "Events in a stage's queue."),
    (
        "caudal_stage_waits_for_dependency",
        Unit::Count,
        "1 while a dependency of the stage is unreachable, otherwise 0.",
    ),
    ("caudal_stage_workers", Unit::Count, "Workers of a stage."),
];

/// Histograms.
const HISTOGRAMS: [(&str, Unit, &str); 9] = [
    ("caudal_event_duration_seconds", Unit::Seconds, "Time from delivery to settlement of an event."),
    ("caudal_index_commit_seconds", Unit::Seconds, "Duration of a group commit of the embedded index."),
    ("caudal_model_batch_images", Unit::Count, "Images per inference."),
    ("caudal_model_embed_seconds", Unit::Seconds, "Duration of an inference."),
    ("caudal_office_load_seconds", Unit::Seconds, "Time LibreOffice takes to load a document."),
    ("caudal_office_save_seconds", Unit::Seconds, "Time LibreOffice takes to save a document."),
    ("caudal_office_worker_resident_bytes", Unit::Bytes, "Resident memory of a document worker after a document."),
    ("caudal_stage_batch_duration_seconds", Unit::Seconds, "Duration of a batch of a stage."),
    ("caudal_stage_batch_events", Unit::Count, "Events per batch."),
];

/// Registers all descriptions.
pub fn register() {
    COUNTERS.iter().for_each(|(name, about)| describe_counter!(*name, *about));
    GAUGES.iter().for_each(|(name, unit, about)| describe_gauge!(*name, *unit, *about));
    HISTOGRAMS.iter().for_each(|(name, unit, about)| describe_histogram!(*name, *unit, *about));
}
