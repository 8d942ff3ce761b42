//! Server-sent events, parsed as they come (WHATWG HTML §9.2.6). Comments and unknown fields are passed over.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Frame {
    pub(crate) event: String,
    pub(crate) id: String,
    pub(crate) data: String,
}

/// Longer events are an error: no event of ours comes near.
const MAX_FRAME: usize = 1 << 20;

/// The stream is no stream of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Takes bytes, gives events.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    pending: Vec<u8>,
    frame: Frame,
}

impl Parser {
    /// Takes more of the stream and gives the events that are now whole.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, Malformed> {
        self.pending.extend_from_slice(bytes);
        let mut frames = Vec::new();
        let mut start = 0;
        while let Some(end) = self.pending[start..].iter().position(|b| *b == b'\n') {
            let line = &self.pending[start..start + end];
            let line = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).map_err(|_| Malformed)?;
            frames.extend(self.frame.line(line));
            start += end + 1;
        }
        self.pending.drain(..start);
        let too_long = self.pending.len() > MAX_FRAME || self.frame.data.len() > MAX_FRAME;
        if too_long { Err(Malformed) } else { Ok(frames) }
    }
}

impl Frame {
    /// Takes one line; an empty one completes the event.
    fn line(&mut self, line: &str) -> Option<Self> {
        if line.is_empty() {
            let frame = std::mem::take(self);
            return (!frame.event.is_empty() || !frame.data.is_empty()).then_some(frame);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "id" => value.clone_into(&mut self.id),
            "data" if self.data.is_empty() => value.clone_into(&mut self.data),
            "data" => self.data.extend(["\n", value]),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn frame(event: &str, id: &str, data: &str) -> Frame {
        Frame { event: event.to_owned(), id: id.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let stream = b": hello\n\nid: 1.2\nevent: changed\ndata: {\"a\":\ndata: 1}\n\nevent:heartbeat\r\n\r\nid: 9\n";
        let expected = [frame("changed", "1.2", "{\"a\":\n1}"), frame("heartbeat", "", "")];
        for cut in 1..stream.len() {
            let mut parser = Parser::default();
            let found: Vec<_> = stream.chunks(cut).flat_map(|chunk| parser.push(chunk).unwrap()).collect();
            assert_eq!(found, expected, "cut at {cut}");
        }
    }

    #[test]
    fn what_never_ends_is_refused() {
        let mut parser = Parser::default();
        assert!((0..40).any(|_| parser.push(&[b'x'; 64 * 1024]).is_err()));
        assert_eq!(Parser::default().push(b"event: \xff\n"), Err(Malformed));
    }
}
