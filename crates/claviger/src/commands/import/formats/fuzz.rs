//! Every format on random input, and what tests of the formats share.
#![allow(clippy::unwrap_used)]

use super::{Entry, Reader, bundle, dotenv, kubernetes, onepassword, tree, vault};
use proptest::prelude::*;
use std::io::Write;

/// Entries as `path=value`, or `path!` where there is no value.
pub(crate) fn shown(entries: &[Entry]) -> Vec<String> {
    let one = |e: &Entry| match &e.value {
        Ok(value) => format!("{}={}", e.path.join("/"), String::from_utf8_lossy(value.expose())),
        Err(_) => format!("{}!", e.path.join("/")),
    };
    entries.iter().map(one).collect()
}

/// A zip archive with one file.
pub(crate) fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut writer = zip::ZipWriter::new(&mut bytes);
    writer.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
    writer.write_all(content).unwrap();
    writer.finish().unwrap();
    bytes.into_inner()
}

const ALL: [Reader; 6] = [dotenv::read, tree::read, vault::read, kubernetes::read, onepassword::read, bundle::read];

/// A mark that stands in values only.
const MARK: &str = "zqzq";

fn try_all(bytes: &[u8]) {
    for read in ALL {
        if let Err(refused) = read(bytes) {
            assert!(!refused.0.contains(MARK), "{}", refused.0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        try_all(&bytes);
        try_all(&archive("export.data", &bytes));
    }

    #[test]
    fn text_like_the_formats_is_read_or_refused(
        text in r#"(\{|\}|\[|\]|:|,|"|'|\n|  |- |---\n|&a |\*a|kind: Secret\n|metadata: \{name: a\}\n|data:|stringData:|"data"|"items"|"accounts"|"vaults"|Title,Password\n|zqzq|=|\||!!binary ){0,40}"#
    ) {
        try_all(text.as_bytes());
        try_all(&archive("export.data", text.as_bytes()));
    }

    #[test]
    fn a_damaged_archive_is_read_or_refused(at in 0_usize..200, bit in 0_u8..8) {
        let mut bytes = archive("export.data", br#"{"accounts": [{"vaults": [{"items": []}]}]}"#);
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        try_all(&bytes);
    }
}
