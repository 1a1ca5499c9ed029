//! Escaping of characters that must not occur in a log line.
//!
//! Job: JSON's escapes for control characters, quotes, and the characters that some parsers treat
//! as a newline.
//! Invariant: the output contains none of them unescaped.
//! Must never: allocate, beyond the growth of the line.

use std::fmt::{self, Write as _};

/// A writer that escapes what is written to it and appends it to a line.
pub(super) struct Escaped<'a> {
    pub(super) line: &'a mut String,
    /// Whether quotes and backslashes are escaped too.
    pub(super) quotes: bool,
}

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.line, text, self.quotes);
        Ok(())
    }
}

/// Appends `text` with JSON's escapes for control characters (C0, DEL, C1), the Unicode line
/// separators and, if `quotes` is true, quotes and backslashes.
pub(super) fn escape(line: &mut String, text: &str, quotes: bool) {
    // Nearly every string is short and plain ASCII, which is checked eight bytes at a time.
    if is_plain(text.as_bytes()) {
        line.push_str(text);
        return;
    }
    let mut clean = 0;
    for (at, c) in text.char_indices() {
        let quote = quotes && matches!(c, '"' | '\\');
        if !quote && !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}') {
            continue;
        }
        line.push_str(&text[clean..at]);
        clean = at + c.len_utf8();
        escape_one(line, c);
    }
    line.push_str(&text[clean..]);
}

/// Whether a string has only visible ASCII and spaces, and neither quotes nor backslashes.
fn is_plain(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks::<8>();
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    // The last eight bytes overlap the words before them, so that no byte is checked alone.
    let last = if rest.is_empty() { None } else { text.last_chunk::<8>() };
    match last {
        None if words.is_empty() || !rest.is_empty() => text.iter().all(|byte| plain(*byte)),
        _ => words.iter().chain(last).all(|word| is_plain_word(u64::from_ne_bytes(*word))),
    }
}

/// The same for eight bytes at once. Each term sets the highest bit of every byte that is not
/// plain. Through the borrow of the subtraction it may also set the bit of a byte above such a one,
/// which does no harm: the word is not plain anyway. (Bit Twiddling Hacks, "Determine if a word has
/// a byte less than n" and "equal to n".)
fn is_plain_word(word: u64) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let has_zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let equals = |byte: u8| has_zero(word ^ (ONES * u64::from(byte)));
    let below_space = word.wrapping_sub(ONES * u64::from(b' ')) & !word & HIGH;
    (word & HIGH) | below_space | equals(b'"') | equals(b'\\') | equals(0x7f) == 0
}

fn escape_one(line: &mut String, c: char) {
    match c {
        '"' => line.push_str("\\\""),
        '\\' => line.push_str("\\\\"),
        '\n' => line.push_str("\\n"),
        '\r' => line.push_str("\\r"),
        '\t' => line.push_str("\\t"),
        _ => {
            let _ = write!(line, "\\u{:04x}", u32::from(c));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_plain_if_each_of_its_bytes_is() {
        let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
        for byte in 0..=u8::MAX {
            for length in 1..=25 {
                for at in 0..length {
                    let mut text = vec![b'a' + (length as u8); length];
                    text[at] = byte;
                    assert_eq!(is_plain(&text), plain(byte), "{byte:#x} at {at} of {length}");
                }
            }
        }
        assert!(is_plain(b""));
    }
}
