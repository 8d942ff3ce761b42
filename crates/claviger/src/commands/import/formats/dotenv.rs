//! Dotenv files: `NAME=value` lines. What programs read differently is refused; `claviger_wire::parts::dotenv` has the rules.

use super::{Entry, Read, Refused, bounded, text};
use claviger_wire::parts::dotenv;

pub(crate) fn read(bytes: &[u8]) -> Read {
    let parts = dotenv::parse(text(bytes)?).map_err(|e| Refused::new(e.to_string()))?;
    bounded(parts.iter().map(|part| Entry::text(&[&part.name], &part.text)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::fuzz::shown;
    use super::*;

    #[test]
    fn each_name_is_an_entry() {
        assert_eq!(shown(&read(b"A=1\nexport B='x y'\n").unwrap()), ["A=1", "B=x y"]);
        assert_eq!(read(b"A=1\nA=hunter2").unwrap_err().0, "line 2: its name stands twice");
        assert!(read(&[b'A', b'=', 0xff]).unwrap_err().0.contains("byte 2"));
    }
}
