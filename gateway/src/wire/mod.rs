//! Sockets: accepts connections, performs TLS, checks the framing of HTTP/1 and HTTP/2, and hands requests to the
//! router.

pub mod accept;
pub mod connection;
mod http1_framing;
mod http2_frame_limits;
mod http2_requests;
mod inbound_check;
mod protocol;
mod socket;
pub mod tls;
mod unread_body;
