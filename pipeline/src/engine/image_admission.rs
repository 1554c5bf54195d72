//! Admits the events of a batch that bring an image over a durable edge: each needs room in the pixel budget before its
//! bytes are fetched.
//!
//! The first one waits for room, with no image of the batch in the worker's hands. The others come along if there is room for
//! them now; if not, they wait until this part of the batch is done. So a batch larger than the budget is worked on in parts,
//! and no worker waits for room while it holds any.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::event::Event;
use crate::fault::Rejection;
use crate::payload::wire_form;
use crate::pixel_budget::{Passage, PixelBudget, PixelRoom};

/// See the module. One per stage.
pub struct ImageAdmission {
    budget: PixelBudget,
    /// Lets one image in when the budget is full, because the images before the edge may wait for those behind it.
    passage: Passage,
}

/// An event with the room of its image, where it brings one.
pub type Admitted = (Event, Result<Option<PixelRoom>, Rejection>);

impl ImageAdmission {
    pub fn new(budget: PixelBudget) -> Self {
        Self { budget, passage: Arc::new(Semaphore::new(1)) }
    }

    /// Takes events off the front of `waiting`, at least one, as many as there is room for.
    pub async fn admit(&self, waiting: &mut Vec<Event>) -> Vec<Admitted> {
        let mut admitted: Vec<Admitted> = Vec::with_capacity(waiting.len());
        let mut images = 0;
        for event in &*waiting {
            let room = match wire_form::pixel_bytes(&event.payload) {
                None => Ok(None),
                Some(bytes) if images == 0 => {
                    images += 1;
                    self.budget.readmit(event.envelope.lane, bytes, &self.passage).await.map(Some)
                }
                Some(bytes) => match self.budget.try_reserve(event.envelope.lane, bytes) {
                    Some(room) => Ok(Some(room)),
                    None => break,
                },
            };
            admitted.push((event.clone(), room));
        }
        waiting.drain(..admitted.len());
        admitted
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::config::ByteSize;
    use crate::envelope::Lane;
    use crate::payload::{Content, Payload};
    use crate::testing::units::{Roots, ids};

    /// Room for 100 units of 1 KiB.
    fn admission() -> ImageAdmission {
        ImageAdmission::new(PixelBudget::new(ByteSize(100 << 10)))
    }

    /// Events that bring images over an edge, of as many KiB each; text where there are none.
    fn batch(roots: &Roots, images: &[(&str, usize)]) -> Vec<Event> {
        let event = |(id, kib): &(&str, usize)| {
            let event = roots.event(id, Lane::Interactive, "x");
            let encoded = Payload::Bytes(Content::inline(wire_form::IMAGE_TYPE, vec![0; kib << 10]));
            if *kib > 0 { Event { payload: encoded, ..event } } else { event }
        };
        images.iter().map(event).collect()
    }

    fn names(admitted: &[Admitted]) -> Vec<&str> {
        ids(admitted.iter().map(|(event, _)| event))
    }

    #[tokio::test]
    async fn events_without_images_are_all_admitted_without_room() {
        let (roots, admission) = (Roots::new(), admission());
        let mut waiting = batch(&roots, &[("a", 0), ("b", 0)]);
        let admitted = admission.admit(&mut waiting).await;
        assert!(waiting.is_empty() && admitted.iter().all(|(_, room)| matches!(room, Ok(None))));
    }

    #[tokio::test]
    async fn images_are_admitted_in_order_as_long_as_there_is_room() {
        let (roots, admission) = (Roots::new(), admission());
        let mut waiting = batch(&roots, &[("a", 40), ("b", 0), ("c", 40), ("d", 40), ("e", 1)]);
        let first = admission.admit(&mut waiting).await;
        assert_eq!((names(&first), ids(&waiting)), (vec!["a", "b", "c"], vec!["d", "e"]));
        drop(first);
        assert_eq!(names(&admission.admit(&mut waiting).await), ["d", "e"]);
    }

    #[tokio::test]
    async fn one_image_passes_a_full_budget_and_the_next_one_waits_for_it() {
        let (roots, admission) = (Roots::new(), admission());
        let _full = admission.budget.reserve(Lane::Interactive, 100 << 10).await.unwrap();
        let mut waiting = batch(&roots, &[("a", 40), ("b", 40)]);
        let first = admission.admit(&mut waiting).await;
        assert_eq!((names(&first), ids(&waiting)), (vec!["a"], vec!["b"]));
        assert!(admission.admit(&mut waiting).now_or_never().is_none());
        assert_eq!(ids(&waiting), ["b"]);
        drop(first);
        assert_eq!(names(&admission.admit(&mut waiting).await), ["b"]);
    }

    #[tokio::test]
    async fn an_image_larger_than_the_budget_is_refused_and_holds_nobody_up() {
        let (roots, admission) = (Roots::new(), admission());
        let mut waiting = batch(&roots, &[("a", 40), ("b", 200), ("c", 40)]);
        assert_eq!(names(&admission.admit(&mut waiting).await), ["a"]);
        let second = admission.admit(&mut waiting).await;
        assert_eq!(names(&second), ["b", "c"]);
        assert!(second[0].1.as_ref().is_err_and(|why| why.status == 413) && second[1].1.is_ok());
    }
}
