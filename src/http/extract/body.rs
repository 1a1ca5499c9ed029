//! The body of a request, within limits.
//!
//! Job: [`read_body`].
//! Invariant: a body has at most [`MAX_BODY_BYTES`] and arrives within `BODY_TIMEOUT`.
//! Must never: send `100 Continue` for a body whose announced length exceeds the limit.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::dev::Payload;
use actix_web::http::header::CONTENT_LENGTH;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::failpoint::failpoint;
use crate::http::error::ApiError;

/// The size limit of a body in bytes.
pub const MAX_BODY_BYTES: usize = 4096;
/// How long a body may take to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the body.
///
/// # Errors
/// [`ApiError::BodyTooLarge`] or [`ApiError::BodyTimeout`] if it exceeds a limit,
/// [`ApiError::MalformedBody`] if it ends early or its chunks are malformed.
pub async fn read_body(req: &HttpRequest, payload: &mut Payload) -> Result<Bytes, ApiError> {
    // Most requests have no body; for those the bridge makes no payload.
    if matches!(payload, Payload::None) {
        return Ok(Bytes::new());
    }
    let announced = req
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let is_too_large = announced.is_some_and(|length| length > MAX_BODY_BYTES as u64);
    if is_too_large && !failpoint!("announced-length-not-checked") {
        return Err(ApiError::BodyTooLarge(MAX_BODY_BYTES));
    }
    tokio::time::timeout(BODY_TIMEOUT, collect(payload)).await.unwrap_or(Err(ApiError::BodyTimeout))
}

async fn collect(payload: &mut Payload) -> Result<Bytes, ApiError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let broken = "the body ended before its announced length, or its chunks are malformed";
        body.extend_from_slice(&chunk.map_err(|_| ApiError::MalformedBody(broken))?);
        if body.len() > MAX_BODY_BYTES && !failpoint!("body-length-not-checked") {
            return Err(ApiError::BodyTooLarge(MAX_BODY_BYTES));
        }
    }
    Ok(body.freeze())
}
