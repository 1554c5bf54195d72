//! Pauses between attempts at something that is out of reach: each twice as long as the last one, up to a bound, and each
//! up to a quarter shorter, so that those who wait do not try in step.

use std::time::Duration;

/// The first pause.
pub const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The pauses of one who waits.
pub struct Pauses {
    /// The next one, before it is shortened.
    next: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { next: FIRST_PAUSE }
    }
}

impl Pauses {
    /// The longest that the next pause can be.
    pub fn bound(&self) -> Duration {
        self.next
    }

    /// Waits for the next pause.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.next.mul_f64(1.0 - rand::random::<f64>() / 4.0)).await;
        self.next = (self.next * 2).min(LONGEST_PAUSE);
    }
}
