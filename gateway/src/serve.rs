//! Serves a gateway: starts its background tasks, accepts connections, and drains on shutdown.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::capacity::drain_rate::SAMPLE_PERIOD;
use crate::door::rate_limit::RateLimits;
use crate::router;
use crate::state::GatewayState;
use crate::wire::accept::Acceptor;
use crate::wire::tls::Tls;

/// Where clients connect.
pub struct Listener {
    /// The bound listener.
    pub listener: TcpListener,
    /// The certificate, if clients must use TLS.
    pub tls: Option<Tls>,
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self { listener, tls: None }
    }
}

/// Serves until `shutdown`, then lets open requests finish for the service's grace. Requests that are on their way when
/// the shutdown begins are answered too. Event streams end at once and their clients resume elsewhere; requests that still
/// wait for a result at half of the grace are answered 202.
pub async fn serve(door: impl Into<Listener>, state: GatewayState, shutdown: CancellationToken) {
    let Listener { listener, tls } = door.into();
    let tls = tls.map(Arc::new);
    state.identity.start(&shutdown);
    let limits = Arc::new(RateLimits::new(&state.limits));
    let app = router::with_limits(state.clone(), Arc::clone(&limits));
    let sampler = tokio::spawn(sample(state.clone(), limits));
    let renewal = tls.clone().map(|tls| tokio::spawn(async move { tls.renew().await }));
    let acceptor = Acceptor::new(app, state.clone(), tls);
    acceptor.run(&listener, &shutdown).await;
    state.closing.cancel();
    acceptor.drain(listener, state.service.grace()).await;
    sampler.abort();
    renewal.inspect(|renewal| renewal.abort());
}

/// Samples between two sweeps of the rate limits.
const SWEEP_TICKS: u64 = 60;

/// Samples every flow's backlog once a second, and sweeps the rate limits from time to time.
async fn sample(state: GatewayState, limits: Arc<RateLimits>) {
    let mut ticks = tokio::time::interval(SAMPLE_PERIOD);
    for count in 1_u64.. {
        ticks.tick().await;
        if count.is_multiple_of(SWEEP_TICKS) {
            limits.sweep();
        }
        state.drain_rates.sample().await;
    }
}
