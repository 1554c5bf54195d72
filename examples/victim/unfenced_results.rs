//! The planted bug `no-fence`: publishes terminal results with its own NATS client, without the check for an existing
//! one.

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use pipeline::{Body, BoxError, Outcome, RequestId, ResultAck, TransportError};
use tokio::sync::OnceCell;

use crate::faults;

/// A connection to the private broker, made on first use.
#[derive(Default)]
pub struct UnfencedResults(OnceCell<Context>);

impl UnfencedResults {
    pub async fn publish(&self, request: &RequestId, outcome: &Outcome) -> Result<ResultAck, TransportError> {
        let context = self.0.get_or_try_init(connect).await.map_err(TransportError::Unavailable)?;
        let mut headers = HeaderMap::new();
        headers.insert("Caudal-Kind", outcome.kind.as_str());
        headers.insert("Caudal-Ordinal", outcome.ordinal.to_string());
        headers.insert("Caudal-Flow", outcome.flow.as_str());
        headers.insert("ce-time", "2026-01-01T00:00:00Z");
        headers.insert("content-type", &*outcome.content.media_type);
        let Body::Inline(bytes) = outcome.content.body.clone() else {
            return Err(TransportError::unavailable("only short results are published without a fence"));
        };
        let stored = context.publish_with_headers(format!("res.{request}.end"), headers, bytes).await;
        stored.map_err(TransportError::unavailable)?.await.map_err(TransportError::unavailable)?;
        Ok(ResultAck::Stored)
    }
}

async fn connect() -> Result<Context, BoxError> {
    let folder = faults::folder().ok_or("CAUDAL_VICTIM_FOLDER is not set")?.join("data/nats");
    let config = std::fs::read_to_string(folder.join("server.conf"))?;
    let listen =
        config.lines().find_map(|line| line.strip_prefix("listen: ")).ok_or("server.conf has no listen line")?;
    let seed = std::fs::read_to_string(folder.join("caudal.nk"))?;
    let options = async_nats::ConnectOptions::with_nkey(seed.trim().to_owned());
    Ok(async_nats::jetstream::new(options.connect(listen.trim_matches('"')).await?))
}
