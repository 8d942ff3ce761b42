//! Why the front itself answers a client, before there is a request to hand on.

use super::response::Response;

/// What the front refused. Each closes an HTTP/1 connection, since what follows cannot be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Not a request, or one that could be framed in two ways.
    MalformedHead,
    /// HTTP/1.1 without exactly one `Host`.
    HostHeader,
    /// Not HTTP/1.0 or 1.1.
    Version,
    /// `CONNECT`.
    Method,
    /// Head longer than [`super::Limits::head_bytes`].
    HeadTooLarge,
    /// More than 100 header fields.
    TooManyHeaders,
    /// The head took too long.
    HeadTimeout,
    /// Chunked coding broken, or trailers malformed.
    MalformedBody,
    /// The client ended the connection within a body.
    BodyCutShort,
    /// The body paused or took too long.
    BodyTimeout,
    /// Large requests already hold all the memory they may.
    Overloaded,
}

impl Refusal {
    /// Every refusal, for closed label sets.
    pub const ALL: [Self; 11] = [
        Self::MalformedHead,
        Self::HostHeader,
        Self::Version,
        Self::Method,
        Self::HeadTooLarge,
        Self::TooManyHeaders,
        Self::HeadTimeout,
        Self::MalformedBody,
        Self::BodyCutShort,
        Self::BodyTimeout,
        Self::Overloaded,
    ];

    /// The HTTP status that fits.
    pub fn status(self) -> u16 {
        match self {
            Self::MalformedHead | Self::HostHeader | Self::MalformedBody | Self::BodyCutShort => 400,
            Self::Version => 505,
            Self::Method => 501,
            Self::HeadTooLarge | Self::TooManyHeaders => 431,
            Self::HeadTimeout | Self::BodyTimeout => 408,
            Self::Overloaded => 503,
        }
    }

    /// A short name for labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::MalformedHead => "malformed_head",
            Self::HostHeader => "host_header",
            Self::Version => "version",
            Self::Method => "method",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyHeaders => "too_many_headers",
            Self::HeadTimeout => "head_timeout",
            Self::MalformedBody => "malformed_body",
            Self::BodyCutShort => "body_cut_short",
            Self::BodyTimeout => "body_timeout",
            Self::Overloaded => "overloaded",
        }
    }

    /// The plain-text answer, as Go's server words such things.
    pub fn answer(self) -> Response {
        Response::text(self.status(), self.text())
    }

    fn text(self) -> &'static str {
        match self {
            Self::MalformedHead => "400 Bad Request",
            Self::HostHeader => "400 Bad Request: exactly one Host header is required",
            Self::Version => "505 HTTP Version Not Supported",
            Self::Method => "501 Not Implemented: unsupported method",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::TooManyHeaders => "431 Request Header Fields Too Large: more than 100 header fields",
            Self::HeadTimeout => "408 Request Timeout: the request head took too long",
            Self::MalformedBody => "400 Bad Request: malformed body",
            Self::BodyCutShort => "400 Bad Request: the body ended early",
            Self::BodyTimeout => "408 Request Timeout: the body took too long",
            Self::Overloaded => "503 Service Unavailable: too many large requests at once",
        }
    }
}
