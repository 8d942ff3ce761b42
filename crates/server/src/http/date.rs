//! The `Date` header, rendered once a second per thread.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Length of an IMF-fixdate (RFC 9110 §5.6.7).
const LENGTH: usize = 29;

struct Cached {
    second: u64,
    text: [u8; LENGTH],
}

thread_local! {
    static CACHED: RefCell<Cached> = const { RefCell::new(Cached { second: u64::MAX, text: [b' '; LENGTH] }) };
}

/// Appends the current time as HTTP writes it.
pub(crate) fn append(out: &mut Vec<u8>) {
    let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    CACHED.with_borrow_mut(|cached| {
        if cached.second != second {
            *cached = Cached { second, text: render(second) };
        }
        out.extend_from_slice(&cached.text);
    });
}

fn render(second: u64) -> [u8; LENGTH] {
    let mut text = [b' '; LENGTH];
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
    // IMF-fixdate always has 29 characters; should it ever not, spaces are still a valid header value.
    for (to, from) in text.iter_mut().zip(date.bytes()) {
        *to = from;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_an_imf_fixdate() {
        assert_eq!(&render(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn the_current_date_parses_back() {
        let mut out = Vec::new();
        append(&mut out);
        let text = String::from_utf8(out).expect("ascii");
        let age = SystemTime::now().duration_since(httpdate::parse_http_date(&text).expect("a date")).expect("past");
        assert!(age < Duration::from_secs(3));
    }
}
