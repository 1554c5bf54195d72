//! A timeout for waits that are usually over at once.

use std::pin::pin;
use std::time::Duration;

/// The wait took longer than its limit.
#[derive(Debug)]
pub struct TimedOut;

/// Like [`tokio::time::timeout`], but reads no clock and sets no timer if `wait` is ready when first polled.
pub async fn timeout_if_pending<T>(limit: Duration, wait: impl Future<Output = T>) -> Result<T, TimedOut> {
    let mut wait = pin!(wait);
    match futures_util::poll!(&mut wait) {
        std::task::Poll::Ready(value) => Ok(value),
        std::task::Poll::Pending => tokio::time::timeout(limit, wait).await.map_err(|_| TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_wait_that_is_ready_at_once_gives_its_value() {
        assert!(timeout_if_pending(LIMIT, std::future::ready(())).await.is_ok());
    }

    #[tokio::test]
    async fn a_wait_within_the_limit_gives_its_value() {
        assert!(timeout_if_pending(20 * LIMIT, tokio::time::sleep(LIMIT)).await.is_ok());
    }

    #[tokio::test]
    async fn a_wait_beyond_the_limit_times_out() {
        assert!(timeout_if_pending(LIMIT, std::future::pending::<()>()).await.is_err());
    }
}
