//! The parameter of a path: a counter's name or a key's id.
//!
//! Job: [`PathParam`]. Invariant: it is decoded once; a text that can be no name is the name of nothing,
//! so it is 404 and no 400. Must never: look at the query.

use actix_web::HttpRequest;
use actix_web::dev::Payload;
use percent_encoding::percent_decode_str;

use super::Extract;
use crate::domain::api_key::KeyId;
use crate::domain::counter::CounterName;
use crate::http::error::ApiError;
use crate::http::target::as_sent;

/// The path's parameter as a `T`.
pub struct PathParam<T>(pub T);

/// What a path can name.
pub trait PathParameter: Sized {
    /// The parameter's name in the pattern.
    const NAME: &'static str;

    /// Reads it.
    ///
    /// # Errors
    /// There is no such thing.
    fn parse(text: &str) -> Result<Self, ApiError>;
}

impl PathParameter for CounterName {
    const NAME: &'static str = "name";

    fn parse(text: &str) -> Result<Self, ApiError> {
        Self::parse(text).map_err(|_| ApiError::CounterNotFound)
    }
}

impl PathParameter for KeyId {
    const NAME: &'static str = "id";

    fn parse(text: &str) -> Result<Self, ApiError> {
        Self::parse(text).ok_or(ApiError::KeyNotFound)
    }
}

/// A name as an operator typed it; whether it can be one at all is the handler's question.
impl PathParameter for String {
    const NAME: &'static str = "name";

    fn parse(text: &str) -> Result<Self, ApiError> {
        Ok(text.to_owned())
    }
}

impl<T: PathParameter> Extract for PathParam<T> {
    async fn extract(req: &HttpRequest, _: &mut Payload) -> Result<Self, ApiError> {
        let sent = as_sent(req.match_info().get(T::NAME).unwrap_or_default());
        T::parse(&percent_decode_str(&sent).decode_utf8_lossy()).map(Self)
    }
}
