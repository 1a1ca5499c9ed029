//! Extractors: from a routed request to the typed arguments of a handler.
//!
//! ```text
//! caller.rs       who calls: authenticate, rate limit, authorise      path.rs        the path's parameter
//! idempotency.rs  Idempotency-Key, the request's fingerprint          preconditions.rs  If-Match, ETag
//! operator.rs     who asks through the admin socket
//! params.rs       query and body as a serde type     members.rs  their syntax     values.rs  their values     body.rs
//! ```
//! Job: [`Extract`], and [`InOrder`], which a handler takes. Invariant: extractors run one after
//! another, in the order in which the handler names them; actix polls the elements of a plain
//! tuple side by side, and then it would be chance which of two refusals is answered.
//! Must never: ask the store for anything but the caller.

pub mod body;
pub mod caller;
pub mod idempotency;
mod members;
pub mod operator;
pub mod params;
pub mod path;
pub mod preconditions;
pub mod values;

use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};

use super::context::RequestContext;
use super::error::ApiError;
use super::route_table::RouteTable;

/// A typed part of a request.
#[expect(async_fn_in_trait, reason = "extractors run on the worker's thread and need not be Send")]
pub trait Extract: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with the request.
    async fn extract(req: &HttpRequest, payload: &mut Payload) -> Result<Self, ApiError>;
}

/// Several parts of a request, extracted in their order.
pub struct InOrder<T>(pub T);

macro_rules! extract_in_order {
    ($($part:ident)+) => {
        impl<$($part: Extract + 'static),+> FromRequest for InOrder<($($part,)+)> {
            type Error = ApiError;
            type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

            fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
                let (req, mut payload) = (req.clone(), payload.take());
                // Known from here on, so that a request whose client hangs up is logged with it.
                if let Some(routes) = req.app_data::<&'static RouteTable>() {
                    RequestContext::of(&req).route.set(routes.label(&req));
                }
                Box::pin(async move { Ok(Self(($($part::extract(&req, &mut payload).await?,)+))) })
            }
        }
    };
}

extract_in_order!(A);
extract_in_order!(A B);
extract_in_order!(A B C);
extract_in_order!(A B C D);
extract_in_order!(A B C D E);
