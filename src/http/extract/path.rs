//! Path parameters: a counter's name or a key's id.
//!
//! Job: [`PathParam`].
//! Invariant: a parameter is percent-decoded once. One that is not a valid name cannot name
//! anything that exists, so it is 404, not 400.
//! Must never: read the query.

use actix_web::HttpRequest;
use actix_web::dev::Payload;
use percent_encoding::percent_decode_str;

use super::Extract;
use crate::domain::api_key::KeyId;
use crate::domain::counter::CounterName;
use crate::http::error::ApiError;
use crate::http::target::as_sent;

/// A path parameter as a `T`.
pub struct PathParam<T>(pub T);

/// The type of a path parameter.
pub trait PathParameter: Sized {
    /// The parameter's name in the route's pattern.
    const NAME: &'static str;

    /// Parses the decoded parameter.
    ///
    /// # Errors
    /// Nothing can have this name.
    fn parse(string: &str) -> Result<Self, ApiError>;
}

impl PathParameter for CounterName {
    const NAME: &'static str = "name";

    fn parse(string: &str) -> Result<Self, ApiError> {
        Self::parse(string).map_err(|_| ApiError::CounterNotFound)
    }
}

impl PathParameter for KeyId {
    const NAME: &'static str = "id";

    fn parse(string: &str) -> Result<Self, ApiError> {
        Self::parse(string).ok_or(ApiError::KeyNotFound)
    }
}

/// A tenant's name as an operator typed it; the handler validates it.
impl PathParameter for String {
    const NAME: &'static str = "name";

    fn parse(string: &str) -> Result<Self, ApiError> {
        Ok(string.to_owned())
    }
}

impl<T: PathParameter> Extract for PathParam<T> {
    async fn extract(req: &HttpRequest, _: &mut Payload) -> Result<Self, ApiError> {
        let sent = as_sent(req.match_info().get(T::NAME).unwrap_or_default());
        T::parse(&percent_decode_str(&sent).decode_utf8_lossy()).map(Self)
    }
}
