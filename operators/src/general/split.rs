//! `use = "split"`: splits a multipart form; every part of one name becomes an event of its own, in order.
//!
//! Contents pass unchanged: a part in the object store stays there until a stage needs its bytes.

use std::sync::Arc;

use async_trait::async_trait;
use pipeline::{
    BoxError, Emits, Event, Fault, Operator, OperatorKind, OperatorSpec, Output, Part, Payload, PayloadKind, Rejection,
    Services, StageTypes, take_kind,
};
use serde::Deserialize;

/// `use = "split"`.
pub const KIND: OperatorKind =
    OperatorKind::of::<SplitSpec>("split", "turns every part of a form that has a given name into a bytes event");

/// Part names listed in a rejection; a client may send many more.
const NAMES_SHOWN: usize = 8;

/// The keys of a `split` stage.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitSpec {
    /// Field name of the parts to emit, for example `photo`.
    part: String,
    /// Whether a form without such a part is accepted, with no output; by default it is rejected with 400.
    #[serde(default)]
    optional: bool,
}

impl OperatorSpec for SplitSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Parts], gives: Emits::Kind(PayloadKind::Bytes) }
    }

    fn multiplies(&self) -> bool {
        true
    }

    fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(Split { spec: self.clone() }))
    }
}

struct Split {
    spec: SplitSpec,
}

#[async_trait]
impl Operator for Split {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for (event, parts) in take_kind(batch, out, parts_of) {
            let mut found = false;
            for part in parts.iter().filter(|part| *part.name == self.spec.part) {
                found = true;
                out.emit(&event, Payload::Bytes(part.content.clone())).await?;
            }
            if !found && !self.spec.optional {
                out.reject(&event, missing(&self.spec.part, &parts));
            }
        }
        Ok(())
    }
}

fn parts_of(payload: &Payload) -> Option<Arc<[Part]>> {
    match payload {
        Payload::Parts(parts) => Some(Arc::clone(parts)),
        _ => None,
    }
}

fn missing(wanted: &str, parts: &[Part]) -> Rejection {
    let names: Vec<&str> = parts.iter().take(NAMES_SHOWN).map(|part| &*part.name).collect();
    let detail = match names.as_slice() {
        [] => format!("the form has no parts; expected a part named {wanted:?}"),
        _ => format!("the form has no part named {wanted:?}; it has: {}", names.join(", ")),
    };
    Rejection::new(400, "missing_part", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::testing::run;
    use pipeline::{Body, Claim, Content, Digest, Params, Token};

    fn part(name: &str, content: Content) -> Part {
        Part { name: name.into(), file_name: None, content }
    }

    fn form(parts: Vec<Part>) -> Payload {
        Payload::Parts(parts.into())
    }

    fn operator(optional: bool) -> Box<dyn Operator> {
        SplitSpec { part: "photo".into(), optional }.build(&Services::default()).unwrap()
    }

    #[tokio::test]
    async fn every_part_of_the_name_is_emitted_in_order_and_claims_stay_claims() {
        let claim = Arc::new(Claim { id: Token::random(), length: 1 << 20, sha256: Digest([7; 32]) });
        let claimed = Content { media_type: "image/png".into(), body: Body::Claim(Arc::clone(&claim)) };
        let parts = vec![
            part("report", Content::inline("application/json", "{}")),
            part("photo", Content::inline("image/jpeg", "first")),
            part("photo", claimed),
        ];
        let ran = run(operator(false).as_mut(), Params::new(), vec![form(parts)]).await;
        assert!(ran.rejected.is_empty() && ran.fault.is_none());
        let [(0, Payload::Bytes(first)), (0, Payload::Bytes(second))] = ran.emitted.as_slice() else {
            panic!("{:?}", ran.emitted)
        };
        assert_eq!((&*first.media_type, first.length()), ("image/jpeg", 5));
        assert_eq!(second.claim(), Some(&claim));
    }

    #[tokio::test]
    async fn a_form_without_the_part_is_rejected_and_the_others_continue() {
        let with = form(vec![part("photo", Content::inline("image/jpeg", "x"))]);
        let without = form(vec![part("file", Content::inline("image/jpeg", "x"))]);
        let ran = run(operator(false).as_mut(), Params::new(), vec![without, with, form(vec![])]).await;
        assert_eq!(ran.emitted.len(), 1);
        let codes: Vec<_> = ran.rejected.iter().map(|(index, why)| (*index, why.status)).collect();
        assert_eq!(codes, [(0, 400), (2, 400)]);
        assert!(ran.rejected[0].1.detail.contains("\"photo\"") && ran.rejected[0].1.detail.contains("file"));
    }

    #[tokio::test]
    async fn an_optional_part_may_be_absent() {
        let ran = run(operator(true).as_mut(), Params::new(), vec![form(vec![])]).await;
        assert!(ran.emitted.is_empty() && ran.rejected.is_empty());
    }
}
