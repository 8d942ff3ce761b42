//! HTTP/2 through hyper: the same requests and responses, another framing.
//!
//! What hyper itself refuses (malformed frames, header lists over the limit, targets that `http::Uri` does not take)
//! it answers itself; [`Service::refused`] does not hear of it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout_at};

use super::budget::{Held, Pool};
use super::call::Call;
use super::connection::Connection;
use super::head::{Head, Method};
use super::limits::Limits;
use super::refusal::Refusal;
use super::response::{self, BodyStream, Response, ResponseBody};
use super::shutdown::Watch;
use super::timer::Pace;
use super::{Front, Request, RequestBody, Service};

/// How often hyper asks a silent client whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(30);
/// Flow-control windows: enough for a 10 MiB body at 100 ms without holding much for a client that does not deserve it.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// An HTTP/2 connection without an open request is closed after this long at the latest, twice at the most. hyper keeps its
/// buffers for as long as the connection, and with them the end of the last request and the beginning of the last answer;
/// nothing but closing makes it give them up. A client that comes back resumes its TLS session.
const IDLE: Duration = Duration::from_secs(3);
/// An answer is handed to hyper in parts of this size.
const PART: usize = 16 * 1024;
/// What may wait to be sent on one stream.
const SEND_BUFFER: usize = 64 * 1024;

/// Serves HTTP/2 until the connection ends.
pub async fn serve<I, S>(io: I, connection: Arc<Connection>, front: Arc<Front<S>>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service,
{
    let activity = Arc::new(Activity::default());
    let service = {
        let (front, activity) = (front.clone(), activity.clone());
        hyper::service::service_fn(move |request| answer(request, connection.clone(), front.clone(), Active::new(&activity)))
    };
    let serving = builder(&front.limits).serve_connection(TokioIo::new(io), service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        // How a connection broke is of no use to anybody.
        _ = serving.as_mut() => return,
        () = front.shutdown.wait() => {}
        () = idle(&activity, front.limits.idle_time.min(IDLE)) => {}
        // A client that does not take its answers has them kept in memory for as long as it likes.
        () = stalled(&activity, front.limits.write_stall) => return,
    }
    serving.as_mut().graceful_shutdown();
    let _ = serving.await;
}

fn builder(limits: &Limits) -> hyper::server::conn::http2::Builder<TokioExecutor> {
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(limits.h2_header_list)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(limits.write_stall);
    builder
}

/// Returns once no request was open or came for at least one `period`, and at most two.
async fn idle(activity: &Activity, period: Duration) {
    loop {
        sleep(period).await;
        if activity.is_idle() {
            return;
        }
    }
}

/// Returns once an answer has waited for its client for at least one `period`, and at most one and a half.
async fn stalled(activity: &Activity, period: Duration) {
    loop {
        sleep(period / 2).await;
        if activity.waiting.lock().values().any(|since| since.elapsed() >= period) {
            return;
        }
    }
}

/// Whether requests are open on a connection, and whether any came lately.
#[derive(Default)]
struct Activity {
    open: AtomicUsize,
    came: AtomicBool,
    pool: Pool,
    /// Answers of which more is there than the client has taken, and since when it has taken nothing.
    waiting: Mutex<HashMap<u64, Instant>>,
    answers: AtomicU64,
}

impl Activity {
    /// Whether nothing is open and nothing came since the last time this was asked.
    fn is_idle(&self) -> bool {
        !self.came.swap(false, Ordering::Relaxed) && self.open.load(Ordering::Relaxed) == 0
    }
}

/// One open request.
struct Active(Arc<Activity>);

impl Active {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.open.fetch_add(1, Ordering::Relaxed);
        activity.came.store(true, Ordering::Relaxed);
        Self(activity.clone())
    }

    /// Whether the connection has more requests in the making than twice its streams. A reset stream makes room for
    /// another while its call goes on, so streams alone do not limit the calls.
    fn is_one_too_many(&self, limits: &Limits) -> bool {
        self.0.open.load(Ordering::Relaxed) > 2 * limits.h2_streams as usize
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer<S: Service>(
    request: http::Request<Incoming>,
    connection: Arc<Connection>,
    front: Arc<Front<S>>,
    active: Active,
) -> Result<http::Response<OutBody>, Infallible> {
    let (parts, body) = request.into_parts();
    let head = Head::from_http2(&parts);
    let is_head = head.method == Method::Head;
    drop(parts);
    let mut held = Held::among(front.budget.clone(), connection.peer.ip(), &active.0.pool);
    let is_refused = active.is_one_too_many(&front.limits) || !held.cover(head.size());
    let collected = match is_refused {
        false => {
            let announced = if body.is_end_stream() { Some(0) } else { body.size_hint().upper() };
            let limit = front.body_limit(&head, announced, &connection).await;
            Box::pin(collect(body, limit, head.size(), &front.limits, &mut held)).await
        }
        true => Err(Refusal::Overloaded),
    };
    let watch = front.shutdown.watch();
    let (response, active) = match collected {
        Ok(body) => {
            let request = Request { head, body, connection };
            let call = async move {
                let response = front.service.call(request).await;
                drop(held);
                (response, active)
            };
            Call::new(call).await
        }
        Err(why) => (front.service.refused(&connection, why), active),
    };
    Ok(convert(response, is_head, watch, active))
}

/// Reads a body to its end, or to where it is too long; `beside` is what the request holds already.
async fn collect(mut body: Incoming, limit: usize, beside: usize, limits: &Limits, held: &mut Held) -> Result<RequestBody, Refusal> {
    if body.is_end_stream() {
        return Ok(RequestBody::Complete(Bytes::new()));
    }
    let mut pace = Pace::new(limits);
    let mut length: usize = 0;
    let mut kept = BytesMut::new();
    loop {
        let frame = match timeout_at(pace.deadline(), body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => return Err(Refusal::BodyCutShort),
            Ok(None) => break,
            Err(_) => return Err(Refusal::BodyTimeout),
        };
        let Ok(data) = frame.into_data() else { continue };
        pace.came(data.len(), limits);
        length = length.saturating_add(data.len());
        if length > limit.saturating_add(limits.body_surplus) {
            return Ok(RequestBody::TooLarge);
        }
        if length > limit {
            kept = BytesMut::new();
            continue;
        }
        kept.extend_from_slice(&data);
        if !held.cover(beside + kept.capacity()) {
            return Err(Refusal::Overloaded);
        }
    }
    Ok(if length > limit { RequestBody::TooLarge } else { RequestBody::Complete(kept.freeze()) })
}

fn convert(response: Response, is_head: bool, watch: Watch, active: Active) -> http::Response<OutBody> {
    let is_bodiless = is_head || response::is_bodiless(response.status);
    let (length, content) = match response.body {
        ResponseBody::Empty => (Some(0), Content::Full(None)),
        ResponseBody::Full(bytes) => (Some(bytes.len()), Content::Full(Some(bytes))),
        ResponseBody::Stream(stream) => (None, Content::Stream(stream, watch)),
    };
    let content = if is_bodiless { Content::Full(None) } else { content };
    let mut out = http::Response::new(OutBody::new(content, active));
    *out.status_mut() = http::StatusCode::from_u16(response.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &response.headers {
        let value = HeaderValue::from_bytes(&response::safe_value(value.as_bytes()));
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), value) {
            out.headers_mut().append(name, value);
        }
    }
    if let (Some(length), false) = (length, response::is_bodiless(response.status)) {
        out.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    out
}

struct OutBody {
    content: Content,
    active: Active,
    number: u64,
}

impl OutBody {
    fn new(content: Content, active: Active) -> Self {
        let number = active.0.answers.fetch_add(1, Ordering::Relaxed);
        let body = Self { content, active, number };
        if matches!(body.content, Content::Full(Some(_))) {
            body.waits();
        }
        body
    }

    /// From now on it is the client's turn.
    fn waits(&self) {
        self.active.0.waiting.lock().insert(self.number, Instant::now());
    }

    fn is_taken(&self) {
        self.active.0.waiting.lock().remove(&self.number);
    }
}

impl Drop for OutBody {
    fn drop(&mut self) {
        self.is_taken();
    }
}

enum Content {
    Full(Option<Bytes>),
    Stream(BodyStream, Watch),
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        // hyper asks only when the client has room for more.
        let part = match &mut this.content {
            Content::Full(bytes) => {
                // In parts, since hyper keeps what it is given whole, whatever room there is.
                let part = bytes.as_mut().map(|bytes| bytes.split_to(bytes.len().min(PART)));
                bytes.take_if(|rest| rest.is_empty());
                Poll::Ready(part)
            }
            Content::Stream(stream, watch) => match stream.as_mut().poll_next(cx) {
                Poll::Pending => watch.poll_started(cx).map(|()| None),
                part => part,
            },
        };
        match &part {
            Poll::Ready(Some(_)) if !this.is_end_stream() => this.waits(),
            _ => this.is_taken(),
        }
        part.map(|part| part.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Content::Stream(..) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Shutdown;
    use super::super::h1::tests::{Echo, connection};
    use super::*;
    use http_body_util::Full;

    type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

    async fn client(front: &Arc<Front<Echo>>) -> Sender {
        let (near, far) = tokio::io::duplex(1 << 16);
        tokio::spawn(serve(far, connection(), front.clone()));
        let (sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near)).await.unwrap();
        tokio::spawn(driver);
        sender
    }

    async fn ask(sender: &mut Sender, method: &str, target: &str, body: Vec<u8>) -> (u16, String) {
        let request = http::Request::builder().method(method).uri(format!("https://knox{target}"));
        let answer = sender.send_request(request.body(Full::from(body)).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn requests_come_through_with_path_query_body_and_host() {
        let front = Echo::front(Limits::default());
        let mut sender = client(&front).await;
        let answer = ask(&mut sender, "POST", "/a%2Fb?c=%22d", b"body".to_vec()).await;
        assert_eq!(answer, (200, "POST /a%2Fb c=%22d host=knox body=body".to_owned()));
        let answer = ask(&mut sender, "HEAD", "/a", Vec::new()).await;
        assert_eq!(answer, (200, String::new()));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_reaches_the_service_as_too_large() {
        let front = Echo::front(Limits::default());
        let mut sender = client(&front).await;
        for surplus in [1, 2048, 1 << 20] {
            let (status, _) = ask(&mut sender, "POST", "/a", vec![b'x'; Echo::LIMIT + surplus]).await;
            assert_eq!(status, 413, "{surplus}");
        }
        let (status, _) = ask(&mut sender, "POST", "/a", vec![b'x'; Echo::LIMIT]).await;
        assert_eq!(status, 200);
    }

    #[tokio::test]
    async fn header_lists_of_open_requests_count_and_those_beyond_the_budget_are_refused() {
        let front = Echo::front(Limits { buffered_bytes: 4 << 20, ..Limits::default() });
        let (near, far) = tokio::io::duplex(1 << 16);
        tokio::spawn(serve(far, connection(), front.clone()));
        let (mut sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near)).await.unwrap();
        tokio::spawn(driver);
        let mut open = Vec::new();
        for _ in 0..60 {
            let endless = http_body_util::StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, Infallible>>());
            let request = http::Request::post("https://knox/a").header("a", "x".repeat(50_000)).body(endless).unwrap();
            let answer = sender.send_request(request);
            open.push(tokio::spawn(async move { answer.await.map(|answer| answer.status().as_u16()) }));
        }
        // A quarter of the budget is this address's: 21 of them.
        let mut refused = 0;
        while refused < 39 {
            sleep(Duration::from_millis(5)).await;
            for answer in open.extract_if(.., |answer| answer.is_finished()) {
                assert_eq!(answer.await.unwrap().unwrap(), 503);
                refused += 1;
            }
            assert!(front.budget.used() <= 1 << 20, "{}", front.budget.used());
        }
        assert_eq!(refused, 39);
        open.iter().for_each(tokio::task::JoinHandle::abort);
        sleep(Duration::from_millis(200)).await;
        assert_eq!(front.budget.used(), 0);
    }

    #[tokio::test]
    async fn a_client_that_does_not_take_its_answer_is_cut_off_and_a_slow_one_is_not() {
        let front = Echo::front(Limits { write_stall: Duration::from_millis(400), ..Limits::default() });
        let (near, far) = tokio::io::duplex(1 << 16);
        tokio::spawn(serve(far, connection(), front.clone()));
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let narrow = builder.initial_stream_window_size(64 * 1024).initial_connection_window_size(1 << 20);
        let (mut sender, driver) = narrow.handshake(TokioIo::new(near)).await.unwrap();
        tokio::spawn(driver);
        let get = || http::Request::get("https://knox/large").body(Full::<Bytes>::default()).unwrap();
        let mut slow = sender.send_request(get()).await.unwrap().into_body();
        let mut taken = 0;
        while let Some(frame) = slow.frame().await {
            taken += frame.unwrap().into_data().unwrap_or_default().len();
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(taken, 1 << 20);
        let _untaken = sender.send_request(get()).await.unwrap();
        let is_cut_off = async {
            while !sender.is_closed() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), is_cut_off).await.unwrap();
    }

    #[tokio::test]
    async fn no_large_body_is_read_of_a_client_that_is_not_proven() {
        let front = Echo::front(Limits::default());
        let mut sender = client(&front).await;
        let (status, _) = ask(&mut sender, "POST", "/unproven", vec![b'x'; 16 * 1024 + 1]).await;
        assert_eq!(status, 413);
        let (status, _) = ask(&mut sender, "POST", "/unproven", vec![b'x'; 16 * 1024]).await;
        assert_eq!(status, 200);
    }

    #[tokio::test]
    async fn a_shutdown_ends_streams_and_then_the_connection() {
        let front = Echo::front(Limits::default());
        let mut sender = client(&front).await;
        let shutdown: Shutdown = front.shutdown.clone();
        let request = http::Request::builder().uri("https://knox/endless").body(Full::default()).unwrap();
        let mut body = sender.send_request(request).await.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "part");
        shutdown.start();
        // The end may come as an empty frame; it must not come as an error.
        assert_eq!(body.collect().await.unwrap().to_bytes(), "");
        let again = http::Request::builder().uri("https://knox/a").body(Full::default()).unwrap();
        assert!(sender.ready().await.is_err() || sender.send_request(again).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_and_one_with_an_open_stream_does_not() {
        let front = Echo::front(Limits { idle_time: Duration::from_secs(10), ..Limits::default() });
        let (mut idle, mut streaming) = (client(&front).await, client(&front).await);
        ask(&mut idle, "GET", "/a", Vec::new()).await;
        let request = http::Request::builder().uri("https://knox/endless").body(Full::default()).unwrap();
        let mut body = streaming.send_request(request).await.unwrap().into_body();
        body.frame().await.unwrap().unwrap();
        sleep(Duration::from_secs(25)).await;
        assert!(idle.is_closed());
        assert!(!streaming.is_closed());
        ask(&mut streaming, "GET", "/a", Vec::new()).await;
    }
}
