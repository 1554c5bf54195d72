//! Waits with a limit, made for waits that are usually over at once.

use std::pin::pin;
use std::time::Duration;

/// The wait took longer than its limit.
#[derive(Debug)]
pub struct TooLong;

/// Like [`tokio::time::timeout`], but reads no clock and sets no timer where `wait` is ready when first polled.
pub async fn bounded<T>(limit: Duration, wait: impl Future<Output = T>) -> Result<T, TooLong> {
    let mut wait = pin!(wait);
    match futures_util::poll!(&mut wait) {
        std::task::Poll::Ready(value) => Ok(value),
        std::task::Poll::Pending => tokio::time::timeout(limit, wait).await.map_err(|_| TooLong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_takes_too_long_is_given_up() {
        let limit = Duration::from_millis(20);
        assert!(bounded(limit, std::future::ready(())).await.is_ok());
        assert!(bounded(20 * limit, tokio::time::sleep(limit)).await.is_ok());
        assert!(bounded(limit, std::future::pending::<()>()).await.is_err());
    }
}
