//! The operator who uses the admin socket.
//!
//! Job: [`Operator`], the user at the other end of the socket, and [`TypedKey`].
//! Invariant: the kernel reports an operator's user id; the request does not contain it.
//! Must never: keep the string of a key, which may be the whole key.

use actix_web::dev::Payload;
use actix_web::{HttpMessage, HttpRequest};

use super::Extract;
use super::path::PathParameter;
use crate::auth::key::ApiKey;
use crate::domain::api_key::KeyId;
use crate::http::context::Peer;
use crate::http::error::ApiError;

/// A user of this machine who may open the admin socket.
#[derive(Clone, Copy, Debug)]
pub struct Operator {
    /// The user id.
    pub uid: u32,
}

impl Extract for Operator {
    async fn extract(req: &HttpRequest, _: &mut Payload) -> Result<Self, ApiError> {
        match req.extensions().get::<Peer>() {
            Some(Peer::Unix { uid }) => Ok(Self { uid: *uid }),
            // The admin routes on a network listener would be a bug in `routes.rs`.
            _ => Err(ApiError::NotFound),
        }
    }
}

/// An API key as an operator typed it: its id, or the whole key, which is what an operator has at
/// hand when a key has leaked. `None` if it is neither.
#[derive(Clone, Copy, Debug)]
pub struct TypedKey(pub Option<KeyId>);

impl PathParameter for TypedKey {
    const NAME: &'static str = "id";

    fn parse(string: &str) -> Result<Self, ApiError> {
        let whole = || ApiKey::parse(string.as_bytes()).ok().map(|key| key.id());
        Ok(Self(KeyId::parse(string).or_else(whole)))
    }
}
