//! A task of its own for a request that changes credentials or tenants.
//!
//! Job: [`observe_or_detach`]. A client that hangs up ends the future that answers it. The change may be made
//! all the same, and then it has to be in the audit log: so such a request has a task, and a drain
//! waits for it as for a connection.
//! Invariant: every route whose handler records an audit event is detached.
//! Must never: look at anything but method and path.

use std::rc::Rc;

use actix_web::Error;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::Method;
use actix_web::middleware::Next;
use tokio_util::task::TaskTracker;

use crate::http::error::ApiError;
use crate::http::jsonapi;
use crate::http::middleware::access_log::{Observer, observe};
use crate::http::middleware::request_id::new_request_id;

/// Where the audited routes are: `POST`, `PUT` or `DELETE` on these, or below them. The last two are
/// the admin socket's.
const AUDITED: [&str; 5] =
    ["/users/create", "/api/v1/keys", "/api/v1/tenant", "/tenants", "/backup"];

/// Observes a request; an audited one as a task of `tasks`.
pub fn observe_or_detach(
    observer: Rc<Observer>,
    tasks: &TaskTracker,
    req: ServiceRequest,
    next: Next<BoxBody>,
) -> impl Future<Output = Result<ServiceResponse, Error>> + use<> {
    let path = req.match_info().unprocessed();
    let reads = matches!(*req.method(), Method::GET | Method::HEAD);
    let tasks =
        (!reads && AUDITED.iter().any(|audited| path.starts_with(audited))).then(|| tasks.clone());
    let observed = observe(observer, req, next);
    async move {
        let Some(tasks) = tasks else { return observed.await };
        // A task that ends without a response panicked outside of a handler: nobody knows its id.
        tasks.spawn_local(observed).await.unwrap_or_else(|error| {
            let error = ApiError::Internal(error.to_string().into());
            Err(InternalError::from_response(
                "a task ended",
                jsonapi::error(&error, &new_request_id(), None),
            )
            .into())
        })
    }
}
