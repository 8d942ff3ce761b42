//! Whole connections over in-memory pipes.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::{Front, Shutdown};
use super::*;

/// Answers with what it was asked; `/endless` streams one part and then nothing more, `/parts` streams three.
pub(crate) struct Echo {
    /// Hears of the end of each endless stream.
    ended: mpsc::UnboundedSender<()>,
}

impl Echo {
    pub(crate) const LIMIT: usize = 10_485_760;

    pub(crate) fn front(limits: Limits) -> Arc<Front<Self>> {
        Self::with_ends(limits).0
    }

    fn with_ends(limits: Limits) -> (Arc<Front<Self>>, mpsc::UnboundedReceiver<()>) {
        let (ended, ends) = mpsc::unbounded_channel();
        (Front::new(Arc::new(Self { ended }), limits, Shutdown::new()), ends)
    }
}

struct TellsEnd(mpsc::UnboundedSender<()>);

impl Drop for TellsEnd {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

impl Service for Echo {
    fn body_limit(&self, head: &Head) -> usize {
        if &head.path[..] == b"/small" { 10 } else { Self::LIMIT }
    }

    async fn may_send(&self, head: &Head, _: &Connection) -> bool {
        &head.path[..] != b"/unproven"
    }

    async fn call(&self, request: Request) -> Response {
        let RequestBody::Complete(body) = request.body else { return Response::text(413, "too large") };
        match &request.head.path[..] {
            b"/endless" => {
                let end = TellsEnd(self.ended.clone());
                let first = futures::stream::iter([Bytes::from_static(b"part")]);
                let rest = futures::stream::pending::<Bytes>().map(move |part| {
                    let _ = &end;
                    part
                });
                return Response::new(200).with_stream(first.chain(rest));
            }
            b"/parts" => {
                let parts = ["one", "", "three"].map(|part| Bytes::from_static(part.as_bytes()));
                return Response::new(200).with_stream(futures::stream::iter(parts));
            }
            b"/slow" => tokio::time::sleep(Duration::from_secs(1)).await,
            b"/large" => return Response::new(200).with_body(vec![b'x'; 1 << 20]),
            _ => {}
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let head = &request.head;
        let mut response = Response::new(200).with_body(format!(
            "{} {} {} host={} body={}",
            text(head.method_name()),
            text(&head.path),
            text(head.query.as_deref().unwrap_or_default()),
            text(head.headers.get("HOST").unwrap_or_default()),
            if body.len() > 1000 { body.len().to_string() } else { text(&body) },
        ));
        response.close = &head.path[..] == b"/close";
        response
    }

    fn refused(&self, _: &Connection, why: Refusal) -> Response {
        why.answer()
    }
}

pub(crate) fn connection() -> Arc<Connection> {
    Connection::new(([127, 0, 0, 1], 1).into(), "test".into(), None)
}

/// The client's end of a connection.
struct Client {
    pipe: DuplexStream,
    input: Vec<u8>,
}

impl Client {
    fn of(front: &Arc<Front<Echo>>) -> Self {
        Self::at(1, front)
    }

    /// From an address of its own.
    fn at(address: u8, front: &Arc<Front<Echo>>) -> Self {
        let (pipe, far) = tokio::io::duplex(1 << 16);
        let connection = Connection::new(([127, 0, 0, address], 1).into(), "test".into(), None);
        tokio::spawn(serve(far, connection, front.clone()));
        Self { pipe, input: Vec::new() }
    }

    fn new() -> Self {
        Self::of(&Echo::front(Limits::default()))
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.pipe.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Writes and reads at once, as a client must that sends more than the pipe holds.
    async fn send_all(&mut self, bytes: &[u8]) {
        let (mut read, mut write) = tokio::io::split(&mut self.pipe);
        let mut early = Vec::new();
        let mut buffer = [0; 4096];
        let sending = write.write_all(bytes);
        let mut sending = pin!(sending);
        loop {
            tokio::select! {
                sent = &mut sending => { sent.unwrap(); break }
                count = read.read(&mut buffer) => match count.unwrap() {
                    0 => break,
                    count => early.extend_from_slice(&buffer[..count]),
                },
            }
        }
        self.input.extend_from_slice(&early);
    }

    async fn read_until(&mut self, end: &[u8]) -> String {
        loop {
            if let Some(at) = self.input.windows(end.len()).position(|window| window == end) {
                let taken: Vec<u8> = self.input.drain(..at + end.len()).collect();
                return String::from_utf8(taken).unwrap();
            }
            let count = self.pipe.read_buf(&mut self.input).await.unwrap();
            assert!(count > 0, "ended with {}", self.input.escape_ascii());
        }
    }

    /// One answer: status line and headers, and the body that `Content-Length` tells of.
    async fn answer(&mut self) -> (String, String) {
        let head = self.read_until(b"\r\n\r\n").await;
        let length = head.split_once("Content-Length: ").map_or("0", |(_, rest)| rest.split('\r').next().unwrap());
        let length: usize = length.parse().unwrap();
        while self.input.len() < length {
            assert!(self.pipe.read_buf(&mut self.input).await.unwrap() > 0, "body ended early");
        }
        let body = self.input.drain(..length).collect();
        (head, String::from_utf8(body).unwrap())
    }

    async fn expect(&mut self, status: &str, body: &str) {
        let (head, found) = self.answer().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert_eq!(found, body);
    }

    /// An error answer, and the connection's end.
    async fn expect_refusal(&mut self, status: &str) {
        let (head, _) = self.answer().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
        self.expect_end().await;
    }

    async fn expect_end(&mut self) {
        assert_eq!(self.input.escape_ascii().to_string(), "");
        assert_eq!(self.pipe.read_buf(&mut self.input).await.unwrap_or(0), 0, "{}", self.input.escape_ascii());
    }
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request() {
    let mut client = Client::new();
    for round in 0..3 {
        client.send(format!("GET /{round}?q HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        client.expect("200", &format!("GET /{round} q host=a body=")).await;
    }
    client.send("GET /close HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (head, _) = client.answer().await;
    assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
    client.expect_end().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let mut client = Client::new();
    let request = |path| format!("POST /{path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    client.send(format!("{}\r\n{}{}", request("a"), request("b"), request("c"))).await;
    for path in ["a", "b", "c"] {
        client.expect("200", &format!("POST /{path}  host=a body=abc")).await;
    }
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let mut client = Client::new();
    for byte in b"\r\n\nPOST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n" {
        client.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    client.expect("200", "POST /a  host=a body=abc").await;
}

#[tokio::test]
async fn http_1_0_closes_unless_asked_to_keep() {
    let mut client = Client::new();
    client.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let (head, _) = client.answer().await;
    assert!(head.starts_with("HTTP/1.0 200 OK") && head.contains("Connection: keep-alive"), "{head}");
    client.send("GET /parts HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let head = client.read_until(b"\r\n\r\n").await;
    assert!(head.contains("Connection: close") && !head.contains("chunked"), "{head}");
    client.read_until(b"onethree").await;
    client.expect_end().await;
}

#[tokio::test]
async fn head_gets_the_length_but_no_body() {
    let mut client = Client::new();
    client.send("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.read_until(b"\r\n\r\n").await;
    assert!(head.contains("Content-Length: 21"), "{head}");
    client.expect("200", "GET /a  host=a body=").await;
}

#[tokio::test]
async fn continue_is_said_before_a_body_is_awaited_and_not_when_it_is_too_large() {
    let mut client = Client::new();
    client.send("PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.read_until(b"\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("abc").await;
    client.expect("200", "PUT /a  host=a body=abc").await;
    client.send("PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n").await;
    client.expect_refusal("413").await;
}

#[tokio::test]
async fn large_answers_arrive_whole() {
    let mut client = Client::new();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.expect("200", &"x".repeat(1 << 20)).await;
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.expect("200", "GET /a  host=a body=").await;
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_passes() {
    let mut client = Client::new();
    client.send_all(format!("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", Echo::LIMIT).as_bytes()).await;
    client.send_all(&vec![b'x'; Echo::LIMIT]).await;
    client.expect("200", "POST /a  host=a body=10485760").await;
}

#[tokio::test]
async fn a_body_two_kibibytes_over_keeps_the_connection_and_one_mebibyte_over_closes_it() {
    let body = |surplus: usize| vec![b'x'; Echo::LIMIT + surplus];
    let length = |surplus: usize| format!("Content-Length: {}\r\n\r\n", Echo::LIMIT + surplus);
    let mut client = Client::new();
    client.send_all([b"POST /a HTTP/1.1\r\nHost: a\r\n", length(2048).as_bytes(), &body(2048)].concat().as_slice()).await;
    client.expect("413", "too large").await;
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.expect("200", "GET /a  host=a body=").await;
    let over = [b"POST /a HTTP/1.1\r\nHost: a\r\n", length(1 << 20).as_bytes(), &body(1 << 20)].concat();
    client.send_all(&over).await;
    client.expect_refusal("413").await;
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_treated_like_one_with_a_length() {
    let chunk = |size: usize| format!("{size:x}\r\n{}\r\n", "x".repeat(size));
    let head = "POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = Client::new();
    client.send_all(format!("{head}{}0\r\n\r\n", chunk(10)).as_bytes()).await;
    client.expect("200", "POST /small  host=a body=xxxxxxxxxx").await;
    client.send_all(format!("{head}{}{}0\r\nT: x\r\n\r\n", chunk(10), chunk(2048)).as_bytes()).await;
    client.expect("413", "too large").await;
    client.send_all(format!("{head}{}0\r\n\r\n", chunk(1 << 20)).as_bytes()).await;
    client.expect_refusal("413").await;
}

#[tokio::test]
async fn raw_quotes_in_the_target_reach_the_service() {
    let mut client = Client::new();
    client.send("GET /v0/keys/a/?status=\"Inactive\" HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.expect("200", "GET /v0/keys/a/ status=\"Inactive\" host=a body=").await;
}

#[tokio::test]
async fn a_poll_of_fourteen_thousand_keys_passes_and_one_of_twenty_thousand_gets_431() {
    let target = |keys: usize| "k=".to_owned() + &"x".repeat(keys * 75);
    let mut client = Client::new();
    let query = target(14_000);
    assert!(query.len() > 1_049_000);
    client.send_all(format!("GET /v0/keys/?{query} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
    client.expect("200", &format!("GET /v0/keys/ {query} host=a body=")).await;
    client.send_all(format!("GET /v0/keys/?{} HTTP/1.1\r\nHost: a\r\n\r\n", target(20_000)).as_bytes()).await;
    let (head, body) = client.answer().await;
    assert!(head.starts_with("HTTP/1.1 431 ") && head.contains("text/plain"), "{head}");
    assert!(body.starts_with("431"), "{body}");
    client.expect_end().await;
}

#[tokio::test]
async fn malformed_requests_are_refused_and_nothing_after_them_is_read() {
    let cases = [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", "400"),
        ("GET / HTTP/3.0\r\n\r\n", "505"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "501"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "400"),
    ];
    for (text, status) in cases {
        let mut client = Client::new();
        client.send(format!("{text}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        client.expect_refusal(status).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_times_out_with_408_and_a_silent_connection_just_ends() {
    let mut client = Client::new();
    let started = Instant::now();
    client.send("GET / HTTP/1.1\r\n").await;
    for _ in 0..9 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.send("A: b\r\n").await;
    }
    client.expect_refusal("408").await;
    assert_eq!(started.elapsed().as_secs(), 10);
    let mut silent = Client::new();
    silent.expect_end().await;
    assert_eq!(started.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_ends_after_its_idle_time_and_serves_before_it() {
    let mut client = Client::new();
    for pause in [0, 1, 119] {
        tokio::time::sleep(Duration::from_secs(if pause == 119 { 9 } else { pause })).await;
        client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.expect("200", "GET /a  host=a body=").await;
    }
    let started = Instant::now();
    tokio::time::sleep(Duration::from_secs(119)).await;
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.expect("200", "GET /a  host=a body=").await;
    client.expect_end().await;
    assert_eq!(started.elapsed().as_secs(), 239);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_pauses_or_takes_too_long_times_out() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n";
    let mut client = Client::new();
    let started = Instant::now();
    client.send(head).await;
    client.expect_refusal("408").await;
    assert_eq!(started.elapsed().as_secs(), 30);
    let mut client = Client::new();
    let started = Instant::now();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
    for _ in 0..11 {
        tokio::time::sleep(Duration::from_secs(27)).await;
        client.send(vec![b'x'; 64 * 1024]).await;
    }
    client.expect_refusal("408").await;
    assert_eq!(started.elapsed().as_secs(), 300);
}

#[tokio::test(start_paused = true)]
async fn a_large_body_that_stops_short_of_its_end_is_not_held_for_long() {
    let front = Echo::front(Limits::default());
    let mut client = Client::of(&front);
    let started = Instant::now();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
    client.send(vec![b'x'; 999_000]).await;
    while started.elapsed().as_secs() < 29 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        client.send("x").await;
    }
    client.expect_refusal("408").await;
    assert_eq!(started.elapsed().as_secs(), 30);
    assert_eq!(front.budget.used(), 0);
}

#[tokio::test]
async fn no_large_body_is_read_of_a_client_that_is_not_proven() {
    let front = Echo::front(Limits::default());
    for coding in ["Content-Length: 10485760\r\nExpect: 100-continue", "Transfer-Encoding: chunked"] {
        let mut client = Client::of(&front);
        client.send(format!("POST /unproven HTTP/1.1\r\nHost: a\r\n{coding}\r\n\r\n")).await;
        if coding.starts_with('T') {
            client.send_all(format!("50000\r\n{}", "x".repeat(0x50000)).as_bytes()).await;
        }
        let (head, _) = client.answer().await;
        assert!(head.starts_with("HTTP/1.1 413 ") && head.contains("Connection: close"), "{head}");
        assert_eq!(front.budget.used(), 0);
    }
    let mut client = Client::of(&front);
    client.send("POST /unproven HTTP/1.1\r\nHost: a\r\nContent-Length: 16384\r\n\r\n").await;
    client.send(vec![b'x'; 16384]).await;
    client.expect("200", "POST /unproven  host=a body=16384").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut_off() {
    let (front, mut ends) = Echo::with_ends(Limits::default());
    let (mut pipe, far) = tokio::io::duplex(64);
    let serving = tokio::spawn(serve(far, connection(), front));
    let started = Instant::now();
    pipe.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    serving.await.unwrap();
    assert_eq!(started.elapsed().as_secs(), 30);
    assert!(ends.try_recv().is_err());
}

#[tokio::test]
async fn a_body_cut_short_is_refused_not_delivered() {
    let mut client = Client::new();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").await;
    client.pipe.shutdown().await.unwrap();
    client.expect_refusal("400").await;
}

#[tokio::test]
async fn a_stream_goes_out_in_chunks_and_the_connection_is_kept() {
    let mut client = Client::new();
    client.send("GET /parts HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.read_until(b"\r\n\r\n").await;
    assert!(head.contains("Transfer-Encoding: chunked"), "{head}");
    assert_eq!(client.read_until(b"0\r\n\r\n").await, "3\r\none\r\n5\r\nthree\r\n0\r\n\r\n");
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.expect("200", "GET /a  host=a body=").await;
}

#[tokio::test]
async fn a_stream_is_dropped_when_the_client_goes() {
    let (front, mut ends) = Echo::with_ends(Limits::default());
    let mut client = Client::of(&front);
    client.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_until(b"4\r\npart\r\n").await;
    assert!(ends.try_recv().is_err());
    drop(client);
    timeout(Duration::from_secs(5), ends.recv()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_shutdown_ends_streams_and_idle_connections_and_lets_requests_end() {
    let (front, mut ends) = Echo::with_ends(Limits::default());
    let [mut idle, mut streaming, mut busy] = [Client::of(&front), Client::of(&front), Client::of(&front)];
    idle.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    idle.expect("200", "GET /a  host=a body=").await;
    streaming.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await;
    streaming.read_until(b"4\r\npart\r\n").await;
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    front.shutdown.start();
    idle.expect_end().await;
    streaming.read_until(b"0\r\n\r\n").await;
    streaming.expect_end().await;
    ends.recv().await.unwrap();
    let (head, body) = busy.answer().await;
    assert!(head.contains("Connection: close"), "{head}");
    assert_eq!(body, "GET /slow  host=a body=");
    busy.expect_end().await;
}

#[tokio::test]
async fn many_slow_large_heads_are_refused_beyond_the_budget() {
    let front = Echo::front(Limits { buffered_bytes: 1 << 20, ..Limits::default() });
    let mut clients = Vec::new();
    let part = format!("GET /?{}", "x".repeat(200_000));
    let mut refused = 0;
    for address in 0..12 {
        let mut client = Client::at(address, &front);
        client.send_all(part.as_bytes()).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        if timeout(Duration::from_millis(50), client.pipe.read_buf(&mut client.input)).await.is_ok() {
            assert!(client.input.starts_with(b"HTTP/1.1 503 "), "{}", client.input.escape_ascii());
            refused += 1;
        }
        clients.push(client);
    }
    assert!((6..12).contains(&refused), "{refused}");
    assert!(front.budget.used() <= 1 << 20);
    drop(clients);
    let mut client = Client::of(&front);
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.expect("200", "GET /a  host=a body=").await;
    assert_eq!(front.budget.used(), 0);
}

#[tokio::test]
async fn a_used_input_buffer_holds_zeros() {
    let front = Echo::front(Limits::default());
    let (mut pipe, far) = tokio::io::duplex(1 << 16);
    let mut wire = Wire::new(far, &connection(), &front);
    pipe.write_all(b"GET /SENTINEL HTTP/1.1\r\nHost: SENTINEL\r\n\r\n").await.unwrap();
    let head = wire.read_head(true).await.unwrap();
    assert_eq!(&head.path[..], b"/SENTINEL");
    let buffer = wire.input.as_ptr() as usize;
    drop(head);
    wire.wipe_input();
    assert!((wire.input.as_ptr() as usize) < buffer, "the buffer was not taken back");
    // What lies in the buffer now is what a read would overwrite; it is written as zeros and may be looked at.
    let spare = wire.input.capacity();
    wire.input.resize(spare.min(60), 1);
    assert!(!wire.input.windows(8).any(|window| window == b"SENTINEL"));
    let mut output = b"SENTINEL".to_vec();
    wipe(&mut output);
    assert!(output.is_empty());
}
