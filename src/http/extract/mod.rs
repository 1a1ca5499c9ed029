//! Extractors: from a routed request to the typed arguments of a handler.
//!
//! ```text
//! caller.rs       authenticate, rate limit, authorize     path.rs           path parameters
//! idempotency.rs  Idempotency-Key, request fingerprint    preconditions.rs  If-Match, ETag
//! operator.rs     the user of the admin socket            body.rs           the bytes of the body
//! params.rs       query and body as a serde type
//!   members.rs    their syntax: form, JSON, JSON:API      values.rs         types of values
//! ```
//! Job: [`Extract`], and [`InOrder`], which a handler takes.
//! Invariant: extractors run one after another, in the order of the handler's argument. actix-web
//! polls the elements of a plain tuple concurrently, so which of two errors is returned would
//! depend on timing.
//! Must never: call the store for anything but authentication.

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

/// A part of a request as a typed value.
#[expect(async_fn_in_trait, reason = "extractors run on the worker's thread and need not be Send")]
pub trait Extract: Sized {
    /// Extracts the value.
    ///
    /// # Errors
    /// The error response to an invalid request.
    async fn extract(req: &HttpRequest, payload: &mut Payload) -> Result<Self, ApiError>;
}

/// Several parts of a request, extracted in order.
pub struct InOrder<T>(pub T);

macro_rules! extract_in_order {
    ($($part:ident)+) => {
        impl<$($part: Extract + 'static),+> FromRequest for InOrder<($($part,)+)> {
            type Error = ApiError;
            type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

            fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
                let (req, mut payload) = (req.clone(), payload.take());
                // Set before the first await, so that the log has the route even if the client
                // disconnects.
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
