//! Sizes and times of the transport. Plain numbers: any value is valid (times up to a year), zero means "at once" or
//! "none".

use std::time::Duration;

/// What a client may use up. Times are wall time, sizes are bytes.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest request line and header fields together. Longer: 431 and close. The default passes Knox polls of
    /// 14,000 keys (1.05 MB) and refuses those of 20,000, as the reference does.
    pub head_bytes: usize,
    /// From the first byte of a head (for the first request: from the connection's start) to its end. Then 408.
    pub head_time: Duration,
    /// In each such time a body must end or bring [`Self::body_pace`] bytes. Else 408 and close.
    pub body_pause: Duration,
    /// See [`Self::body_pause`]; what holds memory must make progress.
    pub body_pace: usize,
    /// Longest time for a whole body. Then 408 and close.
    pub body_time: Duration,
    /// Longest body of a client that is not proven by its head and certificate.
    pub unproven_body: usize,
    /// How far a body may pass the route's limit and still be read away so that the connection is kept.
    pub body_surplus: usize,
    /// How long a connection without a request stays open; on HTTP/2 a few seconds at most (see `h2`).
    pub idle_time: Duration,
    /// After this long without a request a connection gives its buffers back.
    pub release_after: Duration,
    /// Longest time without any progress while an answer is written; also cuts off slow readers of streams.
    pub write_stall: Duration,
    /// How long a connection that is closed with unread input is still read, so that the client sees the answer.
    pub linger_time: Duration,
    /// How many bytes are read away while lingering.
    pub linger_bytes: usize,
    /// Bytes that heads and bodies above 16 KiB for each connection may hold together, over all connections; those of one
    /// address a quarter of it. Beyond it: 503 and close.
    pub buffered_bytes: usize,
    /// Requests at once on one HTTP/2 connection.
    pub h2_streams: u32,
    /// Longest header list on HTTP/2.
    pub h2_header_list: u32,
    /// Longest TLS handshake.
    pub handshake_time: Duration,
    /// Open connections in all. One more is closed at once.
    pub connections: usize,
    /// Open connections from one IPv4 address or one IPv6 /64.
    pub connections_per_address: usize,
    /// How long requests in flight may take to end after a shutdown has begun.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 1_114_112,
            head_time: Duration::from_secs(10),
            body_pause: Duration::from_secs(30),
            body_pace: 64 * 1024,
            body_time: Duration::from_secs(300),
            unproven_body: 16 * 1024,
            body_surplus: 256 * 1024,
            idle_time: Duration::from_secs(120),
            release_after: Duration::from_secs(2),
            write_stall: Duration::from_secs(30),
            linger_time: Duration::from_secs(5),
            linger_bytes: 32 << 20,
            buffered_bytes: 256 << 20,
            h2_streams: 128,
            h2_header_list: 64 * 1024,
            handshake_time: Duration::from_secs(10),
            connections: 65_536,
            connections_per_address: 16_384,
            drain_time: Duration::from_secs(10),
        }
    }
}
