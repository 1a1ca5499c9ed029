//! What must not stand in a line as it is.
//!
//! Job: JSON's escapes, for control characters, quotes and what some readers take for a newline. Invariant: what comes out has none of them.
//! Must never: allocate.

use std::fmt::{self, Write as _};

/// Escapes whatever is printed into it, on its way into the line.
pub(super) struct Escaped<'a> {
    pub(super) line: &'a mut String,
    /// Quotes and backslashes too.
    pub(super) quotes: bool,
}

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.line, text, self.quotes);
        Ok(())
    }
}

/// Appends `text` with JSON's escapes for control characters (C0, DEL, C1), the Unicode line separators and, if asked,
/// quotes and backslashes.
pub(super) fn escape(line: &mut String, text: &str, quotes: bool) {
    // Nearly every text is plain ASCII, and bytes are looked at faster than characters; all of them, since a loop without a way out is a few instructions for
    // sixteen bytes.
    let plain = |byte: u8| matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\');
    if text.bytes().fold(true, |all, byte| all & plain(byte)) {
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
