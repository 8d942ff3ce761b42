//! One HTTP/1 connection, from its first byte to its last.
//!
//! The hot path is one read, one parse, the service, one write: no task per request, no boxed future, no timer that is
//! set anew. Buffers are kept between requests, overwritten with zeros after each (they held credentials and secrets),
//! and given back when the connection is idle or streams.

use std::future::{Future, poll_fn};
use std::io::IoSlice;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Instant;

use super::budget::Held;
use super::connection::Connection;
use super::framing::{self, Chunks, Framing, Plan};
use super::head::{self, Head, Method, Version};
use super::limits::Limits;
use super::refusal::Refusal;
use super::response::{self, BodyStream, Response, ResponseBody};
use super::shutdown::Watch;
use super::timer::{Pace, Timer};
use super::{Front, Request, RequestBody, Service};

/// First size of the read buffer: a request with its credentials fits well.
const READ_BUFFER: usize = 4096;
/// What is held to notice the next byte of an idle connection.
const IDLE_BUFFER: usize = 256;
/// A body up to this size is copied behind its head and written with it.
const JOINED_BODY: usize = 16 * 1024;
/// Buffers above this size are not kept for the next request.
const KEPT_BUFFER: usize = 64 * 1024;

/// Serves HTTP/1.0 and 1.1 until the connection ends.
pub async fn serve<I, S>(io: I, connection: Arc<Connection>, front: Arc<Front<S>>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send,
    S: Service,
{
    let mut wire = Wire::new(io, &connection, &front);
    let stop = match converse(&mut wire, &connection, &front).await {
        Stop::Refused(why) => {
            wire.forget();
            let response = front.service.refused(&connection, why);
            let exchange = Exchange { version: Version::Http11, bodiless: false, keep: false };
            match wire.send(response, &exchange).await {
                Ok(()) => Stop::Unread,
                Err(stop) => stop,
            }
        }
        stop => stop,
    };
    // Boxed, so that an open connection does not carry the space for its end.
    Box::pin(wire.close(&stop)).await;
}

/// Answers requests until there is a reason to stop.
async fn converse<I, S>(wire: &mut Wire<'_, I>, connection: &Arc<Connection>, front: &Front<S>) -> Stop
where
    I: AsyncRead + AsyncWrite + Unpin + Send,
    S: Service,
{
    let mut is_first = true;
    loop {
        match exchange(wire, connection, front, is_first).await {
            Ok(()) => is_first = false,
            Err(stop) => return stop,
        }
    }
}

async fn exchange<I, S>(wire: &mut Wire<'_, I>, connection: &Arc<Connection>, front: &Front<S>, is_first: bool) -> Result<(), Stop>
where
    I: AsyncRead + AsyncWrite + Unpin + Send,
    S: Service,
{
    let head = wire.read_head(is_first).await?;
    let plan = framing::plan(&head)?;
    let body = match plan.framing {
        Framing::Length(0) => Received::whole(Bytes::new()),
        _ => {
            let limit = front.body_limit(&head, plan.framing.announced(), connection).await;
            wire.read_body(&plan, limit).await?
        }
    };
    let mut exchange = Exchange { version: head.version, bodiless: head.method == Method::Head, keep: plan.keep_alive && body.is_read };
    let request = Request { head, body: body.body, connection: connection.clone() };
    let response = front.service.call(request).await;
    wire.held.release();
    exchange.bodiless |= response::is_bodiless(response.status);
    let ends_by_closing = exchange.version == Version::Http10 && matches!(response.body, ResponseBody::Stream(_));
    exchange.keep &= !response.close && !wire.watch.started() && (!ends_by_closing || exchange.bodiless);
    wire.send(response, &exchange).await?;
    match (exchange.keep, body.is_read) {
        (true, _) => Ok(()),
        (false, true) if wire.input.is_empty() => Err(Stop::Finished),
        (false, _) => Err(Stop::Unread),
    }
}

/// Why a connection ends.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    /// All that was asked has been answered, or nothing was asked.
    Finished,
    /// An answer is on its way while the client may still be sending.
    Unread,
    /// Nothing more can be read or written.
    Broken,
    /// The client is to be told why.
    Refused(Refusal),
}

impl From<Refusal> for Stop {
    fn from(why: Refusal) -> Self {
        Self::Refused(why)
    }
}

/// What of a request matters for its answer.
struct Exchange {
    version: Version,
    bodiless: bool,
    keep: bool,
}

/// A body, and whether all of it was read off the connection.
struct Received {
    body: RequestBody,
    is_read: bool,
}

impl Received {
    fn whole(bytes: Bytes) -> Self {
        Self { body: RequestBody::Complete(bytes), is_read: true }
    }

    fn too_large(is_read: bool) -> Self {
        Self { body: RequestBody::TooLarge, is_read }
    }
}

/// How a wait for bytes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Bytes,
    Eof,
    TimedOut,
    ShuttingDown,
    Broken,
}

/// Whether a wait ends when the server shuts down.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnShutdown {
    Stop,
    GoOn,
}

/// The connection's input and output with their buffers.
struct Wire<'a, I> {
    io: I,
    limits: &'a Limits,
    /// What has been read and not been used.
    input: BytesMut,
    /// How many bytes were read since the buffer was last wiped.
    stained: usize,
    /// Capacity of the input buffer when nothing is in use.
    capacity: usize,
    /// What is to be written.
    output: Vec<u8>,
    timer: Timer,
    watch: Watch,
    held: Held,
    /// Bytes of the head that is being answered.
    head: usize,
}

impl<'a, I: AsyncRead + AsyncWrite + Unpin> Wire<'a, I> {
    fn new<S>(io: I, connection: &Connection, front: &'a Front<S>) -> Self {
        Self {
            io,
            limits: &front.limits,
            input: BytesMut::new(),
            stained: 0,
            capacity: 0,
            output: Vec::new(),
            timer: Timer::new(),
            watch: front.shutdown.watch(),
            held: Held::alone(front.budget.clone(), connection.peer.ip()),
            head: 0,
        }
    }

    // Heads

    async fn read_head(&mut self, is_first: bool) -> Result<Head, Stop> {
        self.head = 0;
        self.wipe_input();
        if self.input.is_empty() {
            self.await_request(is_first).await?;
        }
        let started = Instant::now();
        // Up to where no end of a head was found.
        let mut searched = 0;
        loop {
            searched -= self.skip_empty_lines().min(searched);
            if may_end(&self.input, searched)
                && let Some(head) = head::parse(&mut self.input, self.limits.head_bytes)?
            {
                self.head = head.size();
                return Ok(head);
            }
            searched = self.input.len();
            if searched > self.limits.head_bytes {
                return Err(Refusal::HeadTooLarge.into());
            }
            self.make_room(READ_BUFFER, 0)?;
            match self.fill(started + self.limits.head_time, OnShutdown::GoOn).await {
                Wait::Bytes => {}
                Wait::TimedOut => return Err(Refusal::HeadTimeout.into()),
                Wait::Eof | Wait::Broken | Wait::ShuttingDown => return Err(Stop::Broken),
            }
        }
    }

    /// Waits for the first byte of a request. After a while without one the buffers are given back.
    async fn await_request(&mut self, is_first: bool) -> Result<(), Stop> {
        let allowed = if is_first { self.limits.head_time } else { self.limits.idle_time };
        let started = Instant::now();
        let deadline = started + allowed;
        let mut look = deadline.min(started + self.limits.release_after);
        self.input.reserve(READ_BUFFER);
        self.capacity = self.capacity.max(self.input.capacity());
        loop {
            match self.fill(look, OnShutdown::Stop).await {
                Wait::Bytes => return Ok(()),
                Wait::TimedOut if look < deadline => {
                    self.release_buffers();
                    look = deadline;
                }
                Wait::TimedOut => return Err(Stop::Finished),
                Wait::Eof | Wait::ShuttingDown => return Err(Stop::Finished),
                Wait::Broken => return Err(Stop::Broken),
            }
        }
    }

    /// Empty lines before a request are allowed (RFC 9112 §2.2). They are taken out at once, so that a stream of
    /// them costs no memory and no second look.
    fn skip_empty_lines(&mut self) -> usize {
        let mut skipped = 0;
        loop {
            match self.input[skipped..] {
                [b'\n', ..] => skipped += 1,
                [b'\r', b'\n', ..] => skipped += 2,
                _ => break,
            }
        }
        if skipped > 0 {
            bytes::Buf::advance(&mut self.input, skipped);
        }
        skipped
    }

    // Bodies

    async fn read_body(&mut self, plan: &Plan, limit: usize) -> Result<Received, Stop> {
        let pace = Pace::new(self.limits);
        match plan.framing {
            Framing::Length(length) => self.read_length(length, plan, limit, pace).await,
            Framing::Chunked => self.read_chunks(plan, limit, pace).await,
        }
    }

    async fn read_length(&mut self, length: u64, plan: &Plan, limit: usize, mut pace: Pace) -> Result<Received, Stop> {
        let surplus = length.saturating_sub(limit as u64);
        if surplus > self.limits.body_surplus as u64 {
            return Ok(Received::too_large(false));
        }
        self.send_continue(plan).await?;
        if surplus > 0 {
            self.discard(length, pace).await?;
            return Ok(Received::too_large(true));
        }
        // Within `limit`, which is a `usize`.
        let length = length as usize;
        while self.input.len() < length {
            let missing = length - self.input.len();
            self.make_room(missing.min(self.input.len().max(READ_BUFFER)), 0)?;
            self.fill_body(&mut pace).await?;
        }
        Ok(Received::whole(self.input.split_to(length).freeze()))
    }

    async fn discard(&mut self, length: u64, mut pace: Pace) -> Result<(), Stop> {
        let mut missing = length;
        loop {
            let here = usize::try_from(missing).unwrap_or(usize::MAX).min(self.input.len());
            bytes::Buf::advance(&mut self.input, here);
            missing -= here as u64;
            if missing == 0 {
                return Ok(());
            }
            self.wipe_input();
            self.make_room(JOINED_BODY, 0)?;
            self.fill_body(&mut pace).await?;
        }
    }

    async fn read_chunks(&mut self, plan: &Plan, limit: usize, mut pace: Pace) -> Result<Received, Stop> {
        self.send_continue(plan).await?;
        let mut chunks = Chunks::new();
        let mut body = BytesMut::new();
        let mut length: usize = 0;
        loop {
            let ended = chunks.decode(&mut self.input, |data| {
                length = length.saturating_add(data.len());
                if length <= limit {
                    body.extend_from_slice(data);
                } else {
                    body = BytesMut::new();
                }
            })?;
            let is_over = length > limit;
            match (ended, is_over) {
                (true, false) => return Ok(Received::whole(body.freeze())),
                (true, true) => return Ok(Received::too_large(true)),
                (false, true) if length - limit > self.limits.body_surplus => return Ok(Received::too_large(false)),
                (false, _) => {}
            }
            self.wipe_input();
            self.make_room(READ_BUFFER, body.capacity())?;
            self.fill_body(&mut pace).await?;
        }
    }

    /// Says `100 Continue` when the client waits for it. It is left out once a part of the body is here.
    async fn send_continue(&mut self, plan: &Plan) -> Result<(), Stop> {
        if !plan.expects_continue || !self.input.is_empty() {
            return Ok(());
        }
        self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        self.write(&[]).await
    }

    async fn fill_body(&mut self, pace: &mut Pace) -> Result<(), Stop> {
        let before = self.input.len();
        match self.fill(pace.deadline(), OnShutdown::GoOn).await {
            Wait::Bytes => {
                pace.came(self.input.len() - before, self.limits);
                Ok(())
            }
            Wait::Eof => Err(Refusal::BodyCutShort.into()),
            Wait::TimedOut => Err(Refusal::BodyTimeout.into()),
            Wait::Broken | Wait::ShuttingDown => Err(Stop::Broken),
        }
    }

    // Answers

    async fn send(&mut self, response: Response, exchange: &Exchange) -> Result<(), Stop> {
        response::append_head(&mut self.output, &response, exchange.version, exchange.keep);
        match response.body {
            _ if exchange.bodiless => self.write(&[]).await,
            ResponseBody::Empty => self.write(&[]).await,
            ResponseBody::Full(body) if body.len() <= JOINED_BODY => {
                self.output.extend_from_slice(&body);
                self.write(&[]).await
            }
            ResponseBody::Full(body) => self.write(&body).await,
            ResponseBody::Stream(stream) => self.send_stream(stream, exchange).await,
        }
    }

    /// Sends the parts of a stream as they come. After an HTTP/1.0 stream only closing tells its end.
    async fn send_stream(&mut self, mut stream: BodyStream, exchange: &Exchange) -> Result<(), Stop> {
        let is_chunked = exchange.version != Version::Http10;
        self.write(&[]).await?;
        self.release_buffers();
        loop {
            let goes_on = self.gather(&mut stream, is_chunked).await?;
            if !goes_on && is_chunked {
                self.output.extend_from_slice(b"0\r\n\r\n");
            }
            self.write(&[]).await?;
            self.output = Vec::new();
            if !goes_on {
                let stays = is_chunked && !self.watch.started();
                return if stays { Ok(()) } else { Err(Stop::Finished) };
            }
        }
    }

    /// Waits for parts of a stream and puts those that are ready into the output. False at the end of the stream or
    /// of the server; an error when the client is gone.
    async fn gather(&mut self, stream: &mut BodyStream, is_chunked: bool) -> Result<bool, Stop> {
        poll_fn(|cx| {
            while self.output.len() < JOINED_BODY {
                match stream.as_mut().poll_next(cx) {
                    Poll::Ready(Some(part)) if is_chunked => response::append_chunk(&mut self.output, &part),
                    Poll::Ready(Some(part)) => self.output.extend_from_slice(&part),
                    Poll::Ready(None) => return Poll::Ready(Ok(false)),
                    Poll::Pending => break,
                }
            }
            if !self.output.is_empty() {
                return Poll::Ready(Ok(true));
            }
            if self.watch.poll_started(cx).is_ready() {
                return Poll::Ready(Ok(false));
            }
            self.poll_gone(cx).map(|()| Err(Stop::Broken))
        })
        .await
    }

    /// Ready when the client has closed the connection. What it sends meanwhile is kept, up to a buffer's size.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.input.len() < READ_BUFFER {
            if self.input.capacity() == self.input.len() {
                self.input.reserve(IDLE_BUFFER);
            }
            match self.poll_read(cx) {
                Poll::Ready(Wait::Bytes) => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }

    /// Writes the output buffer and then `body`, and flushes. The buffer is empty and wiped afterwards.
    async fn write(&mut self, body: &[u8]) -> Result<(), Stop> {
        let Self { io, output, timer, limits, .. } = self;
        let total = output.len() + body.len();
        let mut sent = 0;
        let mut deadline = None;
        let written = poll_fn(|cx| {
            loop {
                let step = if sent < total {
                    poll_write(io, cx, output, body, sent)
                } else {
                    match Pin::new(&mut *io).poll_flush(cx) {
                        Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                        Poll::Ready(Err(_)) => Poll::Ready(0),
                        Poll::Pending => Poll::Pending,
                    }
                };
                match step {
                    Poll::Ready(0) => return Poll::Ready(Err(Stop::Broken)),
                    Poll::Ready(count) => {
                        sent += count;
                        deadline = None;
                    }
                    Poll::Pending => {
                        let deadline = *deadline.get_or_insert_with(|| Instant::now() + limits.write_stall);
                        return timer.poll_until(cx, deadline).map(|()| Err(Stop::Broken));
                    }
                }
            }
        })
        .await;
        wipe(output);
        if output.capacity() > KEPT_BUFFER {
            *output = Vec::new();
        }
        written
    }

    /// Ends the connection. When the client may still be sending, its bytes are read away for a while: closing with
    /// unread input makes the kernel reset the connection, and the client may then never see the answer.
    async fn close(&mut self, stop: &Stop) {
        if *stop == Stop::Broken {
            return;
        }
        let Self { io, timer, .. } = self;
        let deadline = Instant::now() + self.limits.linger_time;
        let shut = poll_fn(|cx| match Pin::new(&mut *io).poll_shutdown(cx) {
            Poll::Ready(result) => Poll::Ready(result.is_ok()),
            Poll::Pending => timer.poll_until(cx, deadline).map(|()| false),
        })
        .await;
        if !shut || *stop != Stop::Unread {
            return;
        }
        let mut left = self.limits.linger_bytes;
        while left > 0 {
            self.input.clear();
            self.input.reserve(READ_BUFFER);
            if self.fill(deadline, OnShutdown::GoOn).await != Wait::Bytes {
                return;
            }
            left = left.saturating_sub(self.input.len());
        }
    }

    // Reading and buffers

    /// Reads once into the spare capacity of the input buffer.
    async fn fill(&mut self, deadline: Instant, on_shutdown: OnShutdown) -> Wait {
        poll_fn(|cx| {
            if let Poll::Ready(wait) = self.poll_read(cx) {
                return Poll::Ready(wait);
            }
            if on_shutdown == OnShutdown::Stop && self.watch.poll_started(cx).is_ready() {
                return Poll::Ready(Wait::ShuttingDown);
            }
            self.timer.poll_until(cx, deadline).map(|()| Wait::TimedOut)
        })
        .await
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Wait> {
        // The future keeps nothing between polls, so making it anew each time is free.
        match pin!(self.io.read_buf(&mut self.input)).poll(cx) {
            Poll::Ready(Ok(0)) => Poll::Ready(Wait::Eof),
            Poll::Ready(Ok(count)) => {
                self.stained += count;
                Poll::Ready(Wait::Bytes)
            }
            Poll::Ready(Err(_)) => Poll::Ready(Wait::Broken),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Makes room for reading; `beside` is what the request holds outside of the input buffer, besides its head.
    fn make_room(&mut self, wanted: usize, beside: usize) -> Result<(), Refusal> {
        if self.input.capacity() == self.input.len() {
            self.input.reserve(wanted.max(IDLE_BUFFER));
            self.capacity = self.capacity.max(self.input.capacity());
        }
        let is_covered = self.held.cover(self.head + self.input.capacity() + beside);
        if is_covered { Ok(()) } else { Err(Refusal::Overloaded) }
    }

    /// Takes the input buffer back from the last request and overwrites what it held. A buffer that someone still
    /// holds a part of is left to them.
    fn wipe_input(&mut self) {
        if !self.input.is_empty() || self.stained == 0 {
            return;
        }
        if self.capacity > KEPT_BUFFER || !self.input.try_reclaim(self.capacity) {
            self.input = BytesMut::new();
            self.capacity = 0;
        }
        let spare = self.input.spare_capacity_mut();
        let end = self.stained.min(spare.len());
        for byte in &mut spare[..end] {
            byte.write(0);
        }
        std::hint::black_box(&self.input);
        self.stained = 0;
    }

    /// Gives up what was read of a request that is refused: its client may take a while to go.
    fn forget(&mut self) {
        self.input.clear();
        self.wipe_input();
        self.held.release();
    }

    fn release_buffers(&mut self) {
        self.wipe_input();
        if self.input.is_empty() {
            self.input = BytesMut::with_capacity(IDLE_BUFFER);
            self.capacity = IDLE_BUFFER;
        }
        self.output = Vec::new();
    }
}

/// One write of what is left of `first` and `second` after `sent` bytes; 0 is an error.
fn poll_write<I: AsyncWrite + Unpin>(io: &mut I, cx: &mut Context<'_>, first: &[u8], second: &[u8], sent: usize) -> Poll<usize> {
    let io = Pin::new(io);
    let head = first.get(sent..).unwrap_or_default();
    let tail = &second[sent.saturating_sub(first.len())..];
    let result = match (head, tail) {
        ([], tail) => io.poll_write(cx, tail),
        (head, []) => io.poll_write(cx, head),
        (head, tail) => io.poll_write_vectored(cx, &[IoSlice::new(head), IoSlice::new(tail)]),
    };
    result.map(|written| written.unwrap_or(0))
}

/// Overwrites and empties a buffer that stays allocated. The barrier keeps the compiler from dropping the writes.
fn wipe(buffer: &mut Vec<u8>) {
    buffer.fill(0);
    std::hint::black_box(&*buffer);
    buffer.clear();
}

/// Whether a head may end in `input`, of which the first `searched` bytes were searched before. Only then is it parsed
/// again, so that a head which trickles in costs no more than one that comes at once.
fn may_end(input: &[u8], searched: usize) -> bool {
    if searched == 0 {
        return !input.is_empty();
    }
    let from = searched.saturating_sub(3);
    memchr::memchr_iter(b'\n', &input[from..]).any(|at| {
        let rest = &input[from + at + 1..];
        rest.starts_with(b"\n") || rest.starts_with(b"\r\n")
    })
}

#[cfg(test)]
pub(crate) mod tests;
