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
use crate::pixel_budget::{Passage, PixelRoom, Pixels};

/// See the module. One per stage.
pub struct ImageAdmission {
    budget: Pixels,
    /// Lets one image in when the budget is full, for the images before the edge may wait for those behind it.
    passage: Passage,
}

/// An event with the room of its image, where it brings one.
pub type Admitted = (Event, Result<Option<PixelRoom>, Rejection>);

impl ImageAdmission {
    pub fn new(budget: Pixels) -> Self {
        Self { budget, passage: Arc::new(Semaphore::new(1)) }
    }

    /// Takes events off the front of `waiting`, at least one, as many as there is room for.
    pub async fn admit(&self, waiting: &mut Vec<Event>) -> Vec<Admitted> {
        let mut admitted: Vec<Admitted> = Vec::with_capacity(waiting.len());
        let mut images = 0;
        for event in &*waiting {
            let room = match wire_form::image_bytes(&event.payload) {
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
