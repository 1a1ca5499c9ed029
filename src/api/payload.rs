//! A request's body, within its limits.
//!
//! Job: read it ([`Payload::read`]), or throw it away so that its sender comes to read the answer ([`Payload::discard`]). Invariant: neither takes
//! more than a bounded number of bytes and seconds.
//! Must never: ask a sender for a body that nobody will read.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::{Body, Incoming};
use hyper::header::EXPECT;

use super::error::ApiError;

/// The largest body, in bytes.
pub const MAX_BODY_BYTES: usize = 4096;
/// How much of a larger one is read before the answer.
const MAX_DISCARDED_BYTES: usize = 1 << 20;
/// How long that may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// A request's body, to be read once at most.
#[derive(Debug)]
pub struct Payload {
    body: Incoming,
    /// The sender waits to be asked for the body.
    expects_continue: bool,
}

impl Payload {
    /// The body that came with `headers`.
    #[must_use]
    pub fn new(headers: &HeaderMap, body: Incoming) -> Self {
        Self { body, expects_continue: headers.contains_key(EXPECT) }
    }

    /// Reads the body, if it is small and quick enough.
    ///
    /// # Errors
    /// [`ApiError::BodyTooLarge`], [`ApiError::BodyTimeout`], [`ApiError::MalformedBody`].
    pub async fn read(&mut self) -> Result<Bytes, ApiError> {
        if self.body.size_hint().lower() > MAX_BODY_BYTES as u64 {
            return Err(ApiError::BodyTooLarge(MAX_BODY_BYTES));
        }
        self.expects_continue = false;
        tokio::time::timeout(BODY_TIMEOUT, self.frames()).await.unwrap_or(Err(ApiError::BodyTimeout))
    }

    async fn frames(&mut self) -> Result<Bytes, ApiError> {
        let mut kept = BytesMut::new();
        while let Some(frame) = self.body.frame().await {
            let broken = "the body ended before its announced end, or its chunks are broken";
            let frame = frame.map_err(|_| ApiError::MalformedBody(broken))?;
            kept.extend_from_slice(frame.data_ref().map_or(&[][..], |bytes| bytes));
            if kept.len() > MAX_BODY_BYTES {
                return Err(ApiError::BodyTooLarge(MAX_BODY_BYTES));
            }
        }
        Ok(kept.freeze())
    }

    /// Reads and throws away a bounded rest, so that its sender comes to read the answer; a sender that waits to be asked is not asked.
    pub async fn discard(&mut self) {
        if self.expects_continue || self.body.is_end_stream() {
            return;
        }
        let rest = async {
            let mut seen = 0;
            while let Some(Ok(frame)) = self.body.frame().await {
                seen += frame.data_ref().map_or(0, Bytes::len);
                if seen > MAX_DISCARDED_BYTES {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(DISCARD_TIMEOUT, rest).await;
    }
}
