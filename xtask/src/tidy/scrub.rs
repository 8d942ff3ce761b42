//! Rust source with comments and the contents of strings blanked out, line by line as it was.
//!
//! It is a lexer of the few tokens that matter here, not a parser: enough that a rule about code
//! does not find its own mention in a sentence.

/// Blanks comments, strings and characters; line ends stay.
pub(super) fn code_only(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = skipped(rest, at.checked_sub(1).map(|before| bytes[before]));
        if length == 0 {
            code.push(char::from(rest[0]));
            at += 1;
            continue;
        }
        let lines = rest[..length].iter().filter(|byte| **byte == b'\n').count();
        code.push(' ');
        code.extend(std::iter::repeat_n('\n', lines));
        at += length;
    }
    code
}

/// Length of the comment, string or character that `rest` begins with; 0 for anything else.
fn skipped(rest: &[u8], before: Option<u8>) -> usize {
    match rest {
        [b'/', b'/', ..] => find(rest, b"\n").unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => quoted(rest),
        [b'r', b'"' | b'#', ..] if !is_word(before) || before == Some(b'b') => raw_string(rest),
        // The escaped byte may itself be a quote.
        [b'\'', b'\\', _, tail @ ..] => 3 + find(tail, b"'").map_or(0, |end| end + 1),
        [b'\'', _, b'\'', ..] => 3,
        _ => 0,
    }
}

fn is_word(byte: Option<u8>) -> bool {
    byte.is_some_and(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|it| it == wanted)
}

/// Block comments nest.
fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at + 1 < rest.len() {
        match &rest[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `r"…"` or `r#"…"#`; 0 for a raw identifier such as `r#type`.
fn raw_string(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    let begin = 1 + hashes;
    if rest.get(begin) != Some(&b'"') {
        return 0;
    }
    let mut end = vec![b'"'];
    end.resize(1 + hashes, b'#');
    match find(&rest[begin + 1..], &end) {
        Some(length) => begin + 1 + length + end.len(),
        None => rest.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expected: &str) {
        assert_eq!(code_only(source), expected, "of {source:?}");
    }

    #[test]
    fn comments_are_blanked_and_lines_stay() {
        check("a(); // b\nc();", "a();  \nc();");
        check("a /* b /* c */ \n d */ e", "a  \n e");
        check("//! dbg\nx", " \nx");
        check("/* open", " ");
    }

    #[test]
    fn strings_are_blanked_whatever_they_hold() {
        check(r#"f("a // \" b", c)"#, "f( , c)");
        check(r##"f(r#"a " b"#, c)"##, "f( , c)");
        check(r#"f(br"\", c)"#, "f(b , c)");
        check("f(\"a\nb\")", "f( \n)");
    }

    #[test]
    fn characters_are_not_mistaken_for_strings_or_lifetimes() {
        check(r#"['"', 'x', '\'', '\n']"#, "[ ,  ,  ,  ]");
        check("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)");
        check("r#type = 1", "r#type = 1");
    }
}
