//! A task of its own for a request that changes credentials or tenants.
//!
//! Job: [`detach`]. A client that hangs up ends the future that answers it. The change may be made
//! all the same, and then it has to be in the audit log: so such a request has a task, and a drain
//! waits for it as for a connection.
//! Invariant: every route whose handler records an audit event is detached.
//! Must never: look at anything but method and path.

use actix_web::Error;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::Method;
use actix_web::middleware::Next;
use tokio_util::task::TaskTracker;

use crate::http::error::ApiError;
use crate::http::jsonapi;
use crate::http::middleware::request_id::new_request_id;

/// Where the audited routes are: `POST`, `PUT` or `DELETE` on these, or below them.
const AUDITED: [&str; 3] = ["/users/create", "/api/v1/keys", "/api/v1/tenant"];

/// Runs the rest of an audited request as a task of `tasks`.
///
/// # Errors
/// Those of the request.
pub async fn detach(
    tasks: TaskTracker,
    req: ServiceRequest,
    next: Next<actix_web::body::BoxBody>,
) -> Result<ServiceResponse, Error> {
    // The router's view of the path, in which nothing is encoded that need not be.
    let path = req.match_info().unprocessed();
    let reads = matches!(*req.method(), Method::GET | Method::HEAD);
    if reads || !AUDITED.iter().any(|audited| path.starts_with(audited)) {
        return next.call(req).await;
    }
    match tasks.spawn_local(next.call(req)).await {
        Ok(response) => response,
        Err(_) => {
            let error = ApiError::Internal("a task ended".into());
            let response = jsonapi::error(&error, &new_request_id(), None);
            Err(InternalError::from_response("a task ended", response).into())
        }
    }
}
