//! Detection of HTTP/1.1 requests with an ambiguous body length.
//!
//! Job: [`HeadScan`] detects a request with both `Transfer-Encoding` and `Content-Length`, which
//! hyper does not report.
//! Invariant: its size is constant, since every idle connection has one; the result does not depend
//! on how the bytes are split into reads.
//! Must never: keep the bytes that were read.

use std::io::BufRead;

const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";
const CONTENT_LENGTH: &[u8] = b"content-length:";

/// A scanner of the bytes of a connection.
///
/// It knows lines and nothing of HTTP's framing: a blank line ends a block of lines, and each head
/// is the end of a block. Lines of a body without a blank line belong to the block of the next
/// head. So there may be false positives, if a line of a body looks like one of these headers, but
/// there are no false negatives.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    /// The beginning of the current line: long enough to recognize both headers.
    line: [u8; TRANSFER_ENCODING.len()],
    /// The number of bytes in `line`.
    line_len: usize,
    /// Whether the current block has a `Transfer-Encoding`.
    has_coding: bool,
    /// Whether the current block has a `Content-Length`.
    has_length: bool,
    /// Whether a block had both.
    found: bool,
}

impl HeadScan {
    /// Scans the bytes of the next read; returns whether any head so far had both headers.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while !self.found && !rest.is_empty() {
            let from = rest;
            // std's search for a byte is vectorized; reading from a slice cannot fail.
            let Ok(count) = rest.skip_until(b'\n') else { break };
            let (line, has_ended) = match from[..count].split_last() {
                Some((b'\n', line)) => (line, true),
                _ => (&from[..count], false),
            };
            let free = &mut self.line[self.line_len..];
            let added = free.len().min(line.len());
            free[..added].copy_from_slice(&line[..added]);
            self.line_len += added;
            if has_ended {
                self.end_line();
            }
        }
        self.found
    }

    fn end_line(&mut self) {
        let line = &self.line[..self.line_len];
        if matches!(line, [] | b"\r") {
            self.found = self.has_coding && self.has_length;
            (self.has_coding, self.has_length) = (false, false);
        } else {
            self.has_coding |= begins_with(line, TRANSFER_ENCODING);
            self.has_length |= begins_with(line, CONTENT_LENGTH);
        }
        self.line_len = 0;
    }
}

fn begins_with(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same rule, applied to all bytes at once.
    fn has_ambiguous_length(bytes: &[u8]) -> bool {
        let text = String::from_utf8_lossy(bytes).to_lowercase().replace("\r\n", "\n");
        let mut blocks = text.split_inclusive("\n\n");
        blocks.any(|block| {
            let has = |name: &str| block.lines().any(|line| line.starts_with(name));
            block.ends_with("\n\n") && has("transfer-encoding:") && has("content-length:")
        })
    }

    fn scan(pieces: &[&[u8]]) -> bool {
        let mut scan = HeadScan::default();
        pieces.iter().fold(false, |_, piece| scan.scan(piece))
    }

    const LENGTHS: &[(&str, bool)] = &[
        ("PUT / HTTP/1.1\r\nContent-length: 4\r\nTRANSFER-ENCODING: chunked\r\n\r\n", true),
        ("PUT / HTTP/1.1\r\nTransfer-Encoding:chunked\r\nX: y\r\ncontent-length:4\r\n\r\n", true),
        ("PUT / HTTP/1.1\ncontent-length: 4\ntransfer-encoding: chunked\n\n", true),
        (
            "PUT / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}\
             PUT / HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n",
            true,
        ),
        // A valid request after it does not reset the result.
        (
            "PUT / HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n\
             GET / HTTP/1.1\r\nhost: x\r\n\r\n",
            true,
        ),
        // The head is incomplete.
        ("PUT / HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n", false),
        ("PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n\ncontent-length: 4", false),
        ("PUT / HTTP/1.1\r\ncontent-length: 40\r\n\r\n\ntransfer-encoding: x", false),
        (
            "PUT / HTTP/1.1\r\ntransfer-encoding: x\r\n\r\n\
             GET / HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            false,
        ),
        ("PUT / HTTP/1.1\r\nx-content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n", false),
        ("PUT / HTTP/1.1\r\ncontent-length: 4\r\nx: transfer-encoding: chunked\r\n\r\n", false),
        ("PUT / HTTP/1.1\r\ncontent-lengthy: 4\r\ntransfer-encodings: chunked\r\n\r\n", false),
    ];

    #[test]
    fn an_ambiguous_length_is_detected_in_the_head_only() {
        for (text, expected) in LENGTHS {
            assert_eq!(scan(&[text.as_bytes()]), *expected, "{text}");
            assert_eq!(has_ambiguous_length(text.as_bytes()), *expected, "{text}");
        }
    }

    #[test]
    fn an_ambiguous_length_is_detected_however_the_bytes_are_split() {
        for (text, expected) in LENGTHS {
            let bytes = text.as_bytes();
            for first in 0..=bytes.len() {
                for second in first..=bytes.len() {
                    let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                    assert_eq!(scan(&pieces), *expected, "cut at {first} and {second}: {text}");
                }
            }
            let single: Vec<_> = bytes.chunks(1).collect();
            assert_eq!(scan(&single), *expected, "byte by byte: {text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn an_ambiguous_length_is_detected_as_in_all_bytes_at_once(
            lines in proptest::collection::vec(
                proptest::sample::select(vec![
                    "content-length: 4", "Transfer-Encoding: chunked", "content-length", "X: y",
                    "", "", "{}",
                ]),
                0..12,
            ),
            ends in proptest::collection::vec(proptest::sample::select(vec!["\n", "\r\n"]), 12),
            width in 1_usize..40,
        ) {
            let lines = lines.iter().zip(ends);
            let text = lines.fold("GET /".to_owned(), |text, (line, end)| text + end + line);
            let pieces: Vec<_> = text.as_bytes().chunks(width).collect();
            proptest::prop_assert_eq!(scan(&pieces), has_ambiguous_length(text.as_bytes()));
        }
    }

    #[test]
    fn a_scan_is_small() {
        assert!(size_of::<HeadScan>() <= 64, "{}", size_of::<HeadScan>());
    }
}
