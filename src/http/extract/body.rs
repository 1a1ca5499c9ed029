//! A request's body, within its limits.
//!
//! Job: [`read_body`]. Invariant: it takes no more than [`MAX_BODY_BYTES`] and `BODY_TIMEOUT`.
//! Must never: ask the client for a body (`100 Continue`) that is refused by its length.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::dev::Payload;
use actix_web::http::header::CONTENT_LENGTH;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::http::error::ApiError;

/// The largest body, in bytes.
pub const MAX_BODY_BYTES: usize = 4096;
/// The longest a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the body, if it is small and quick enough.
///
/// # Errors
/// [`ApiError::BodyTooLarge`], [`ApiError::BodyTimeout`], [`ApiError::MalformedBody`].
pub async fn read_body(req: &HttpRequest, payload: &mut Payload) -> Result<Bytes, ApiError> {
    // The bridge makes no payload for a request without a body, which most of them are.
    if matches!(payload, Payload::None) {
        return Ok(Bytes::new());
    }
    let announced = req
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MAX_BODY_BYTES as u64) {
        return Err(ApiError::BodyTooLarge(MAX_BODY_BYTES));
    }
    tokio::time::timeout(BODY_TIMEOUT, collect(payload)).await.unwrap_or(Err(ApiError::BodyTimeout))
}

async fn collect(payload: &mut Payload) -> Result<Bytes, ApiError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let broken = "the body ended before its announced end, or its chunks are broken";
        body.extend_from_slice(&chunk.map_err(|_| ApiError::MalformedBody(broken))?);
        if body.len() > MAX_BODY_BYTES {
            return Err(ApiError::BodyTooLarge(MAX_BODY_BYTES));
        }
    }
    Ok(body.freeze())
}
