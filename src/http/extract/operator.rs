//! Who asks through the admin socket, and what they may name there.
//!
//! Job: [`Operator`], the user at the other end, and [`TypedKey`]. Invariant: an operator's number
//! is the kernel's word; it is nothing that a request says. Must never: keep the text of a key; it
//! may be the whole of it.

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
    /// The user's number.
    pub uid: u32,
}

impl Extract for Operator {
    async fn extract(req: &HttpRequest, _: &mut Payload) -> Result<Self, ApiError> {
        match req.extensions().get::<Peer>() {
            Some(Peer::Unix { uid }) => Ok(Self { uid: *uid }),
            // A mistake in `routes.rs`: operators' routes on a network.
            _ => Err(ApiError::NotFound),
        }
    }
}

/// A key as an operator typed it: its id, or the whole of it, since that is what is at hand when
/// one was found where it should not be. `None` if it is neither.
#[derive(Clone, Copy, Debug)]
pub struct TypedKey(pub Option<KeyId>);

impl PathParameter for TypedKey {
    const NAME: &'static str = "id";

    fn parse(text: &str) -> Result<Self, ApiError> {
        let whole = || ApiKey::parse(text.as_bytes()).ok().map(|key| key.id());
        Ok(Self(KeyId::parse(text).or_else(whole)))
    }
}
