//! The words for a request's status.

use pipeline::{Outcome, OutcomeKind};

/// The status of a request that no stage has reported on yet.
pub const QUEUED: &str = "queued";

/// The status that a result stands for.
pub fn status_of(kind: OutcomeKind) -> &'static str {
    match kind {
        OutcomeKind::Accepted => QUEUED,
        OutcomeKind::Progress | OutcomeKind::Data => "running",
        terminal => terminal.as_str(),
    }
}

/// The result that decides a request's status: the terminal one, else the last.
pub fn decisive(outcomes: &[Outcome]) -> Option<&Outcome> {
    outcomes.iter().find(|outcome| outcome.kind.is_terminal()).or(outcomes.last())
}

/// The status of a request; `None` if it has no results.
pub fn current(outcomes: &[Outcome]) -> Option<&'static str> {
    decisive(outcomes).map(|last| status_of(last.kind))
}

#[cfg(test)]
mod tests {
    use pipeline::{Content, FlowName};
    use serde_json::json;

    use super::*;

    fn outcomes(kinds: &[OutcomeKind]) -> Vec<Outcome> {
        let flow = FlowName::new("f").unwrap();
        let outcome = |(ordinal, kind): (u32, &OutcomeKind)| {
            Outcome::new(*kind, ordinal, flow.clone(), Content::json(&json!({})))
        };
        (0..).zip(kinds).map(outcome).collect()
    }

    #[test]
    fn a_request_without_results_has_no_status() {
        assert_eq!(current(&[]), None);
    }

    #[test]
    fn an_accepted_request_is_queued() {
        assert_eq!(current(&outcomes(&[OutcomeKind::Accepted])), Some("queued"));
    }

    #[test]
    fn a_terminal_result_decides_whatever_comes_after_it() {
        let kinds = [OutcomeKind::Accepted, OutcomeKind::Failed, OutcomeKind::Data];
        assert_eq!(current(&outcomes(&kinds)), Some("failed"));
    }
}
