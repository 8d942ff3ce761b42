//! Entry points for fuzzers: each takes what a server, or a user, may send and must return, whatever it is.

use crate::client::{parse_json, refusal};
use crate::config::Address;
use crate::http::Connection;
use crate::secret::{Secret, SecretItem};
use crate::sse::Parser;
use crate::watch::{event, resume_point};
use claviger_wire::native as wire;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

/// Reads `bytes` as a stream of events, whole and in pieces.
///
/// # Panics
/// When the pieces make other events than the whole.
pub fn events(bytes: &[u8]) {
    let whole = Parser::default().push(bytes);
    let length = usize::from(bytes.first().copied().unwrap_or(1) % 7 + 1);
    let mut parser = Parser::default();
    let pieces: Result<Vec<_>, _> = bytes.chunks(length).map(|piece| parser.push(piece)).collect();
    if let (Ok(whole), Ok(pieces)) = (&whole, pieces) {
        assert_eq!(whole, &pieces.concat());
    }
    for frame in whole.into_iter().flatten() {
        let _ = (event(&frame), resume_point(&frame));
    }
}

/// Reads `bytes` as an answer in HTTP/1.1, to the end of its body.
///
/// # Panics
/// When reading waits for more after the end, or gives more than came.
pub fn answer(bytes: &[u8]) {
    let mut connection = Connection::over(tokio::io::join(bytes, tokio::io::sink()), "fuzz".to_owned());
    let read = async {
        let (head, mut body) = connection.head().await?;
        let whole = connection.whole(&mut body).await?;
        assert!(whole.len() <= bytes.len());
        let _ = (connection.reusable(&head, &body), refusal(&head, &whole));
        Ok::<_, crate::Error>(())
    };
    // What lies in memory is always ready.
    let read = pin!(read).poll(&mut Context::from_waker(Waker::noop()));
    assert!(read.is_ready(), "nothing more will come");
}

/// Reads `bytes` as the body of each kind of answer.
///
/// # Panics
/// When an error repeats `secret`.
pub fn json(bytes: &[u8], secret: &str) {
    let told = |error: Option<crate::Error>| {
        if let Some(error) = error {
            assert!(!error.to_string().contains(secret), "{error}");
        }
    };
    told(parse_json::<wire::KeyData>(bytes).err());
    if let Ok(data) = parse_json::<wire::KeyData>(bytes) {
        let _ = Secret::try_from(data);
    }
    if let Ok(item) = parse_json::<wire::BulkItem>(bytes) {
        let _ = SecretItem::try_from(item);
    }
    told(parse_json::<wire::KeyInfo>(bytes).err());
    told(parse_json::<wire::KeyPage>(bytes).err());
    told(parse_json::<wire::AclBody>(bytes).err());
    told(parse_json::<wire::AuditPage>(bytes).err());
    told(parse_json::<wire::Changed>(bytes).err());
    told(parse_json::<wire::Problem>(bytes).err());
    for status in [200, 500] {
        if let Err(error) = crate::knox::data_of(status, bytes) {
            assert!(!error.to_string().contains(secret), "{error}");
        }
    }
}

/// Reads `text` as a server's address.
///
/// # Panics
/// When an address is another one when it is shown and read again.
pub fn address(text: &str) {
    if let Ok(address) = text.parse::<Address>() {
        let again = format!("https://{address}").parse::<Address>().map(|address| address.to_string());
        assert_eq!(again.ok(), Some(address.to_string()));
    }
}

/// Reads bytes as what a browser brings back from a login.
///
/// # Panics
/// When an answer is taken that does not know the login's state.
pub fn landing(bytes: &[u8]) {
    crate::oidc::fuzz_landing(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            events(&bytes);
            answer(&bytes);
            json(&bytes, "SENTINEL");
            address(&String::from_utf8_lossy(&bytes));
            landing(&bytes);
        }

        #[test]
        fn landings_never_panic(query in "(state|code|iss|error|x)?=?[a-z%+&=0-9]{0,20}(&(state|code)=[a-z%0-9]{0,9}){0,3}") {
            landing(format!("GET /callback?{query} HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n").as_bytes());
        }

        #[test]
        fn streams_never_panic(lines in prop::collection::vec(prop::sample::select(vec![
            "event: changed", "event:ready", "event: deleted", "id: 1.2", "id:x", "data: {\"id\":\"a\",\"revision\":\"1.2\"}",
            "data: {\"revision\":\"1.9\"}", "data: {", "data", ": beat", "", "", "\r", "\u{e4}: \u{e4}",
        ]), 0..16)) {
            events(lines.join("\n").as_bytes());
        }

        #[test]
        fn answers_never_panic(
            status in prop::sample::select(vec!["200 OK", "100 Continue", "204 No", "401 x", "999", "-1"]),
            fields in prop::collection::vec(prop::sample::select(vec![
                "Content-Length: 3", "Content-Length: 0", "Content-Length: 99999999999", "Transfer-Encoding: chunked", "Retry-After: x",
                "Connection: close", "Claviger-Revision: 1.", "X: \u{e4}",
            ]), 0..4),
            body in "(3\r\nabc\r\n|abc|0\r\n|\r\n|ffffffff\r\n|;x=y|HTTP/1.1 200 OK\r\n|a: b\r\n){0,6}",
        ) {
            answer(format!("HTTP/1.1 {status}\r\n{}\r\n\r\n{body}", fields.join("\r\n")).as_bytes());
        }

        #[test]
        fn bodies_with_secrets_do_not_give_them_back(parts in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ":", ",", "\"id\"", "\"data\"", "\"versions\"", "\"etag\"", "\"revision\"", "\"1.2\"", "\"SENTINEL\"", "1", "null",
        ]), 0..24)) {
            json(parts.concat().as_bytes(), "SENTINEL");
        }

        #[test]
        fn addresses_never_panic(text in "(https?://)?(\\[[0-9a-f:.]{0,8}\\]?|[a-z0-9.-]{0,10}|\u{e4})(:[0-9]{0,6})?(/|//|/a)?") {
            address(&text);
        }
    }
}
