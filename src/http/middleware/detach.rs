//! Requests that change credentials or tenants run as a task of their own.
//!
//! Job: [`observe_or_detach`]. When a client disconnects, the future of its request is dropped. But
//! the change may be committed by then, and it must be in the audit log. So such a request runs as
//! a task that outlives its connection, and a shutdown waits for it as for a connection.
//! Invariant: every route whose handler records an audit event is detached.
//! Must never: depend on anything but method and path.

use std::rc::Rc;

use actix_web::Error;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::Method;
use actix_web::middleware::Next;
use tokio_util::task::TaskTracker;

use crate::failpoint::failpoint;
use crate::http::error::ApiError;
use crate::http::jsonapi;
use crate::http::middleware::access_log::{Observer, observe};
use crate::http::middleware::request_id::new_request_id;

/// The prefixes of audited routes: every `POST`, `PUT` or `DELETE` below them. The last two are
/// routes of the admin socket.
const AUDITED: [&str; 5] =
    ["/users/create", "/api/v1/keys", "/api/v1/tenant", "/tenants", "/backup"];

/// Observes a request; an audited one runs as a task of `tasks`.
pub fn observe_or_detach(
    observer: Rc<Observer>,
    tasks: &TaskTracker,
    req: ServiceRequest,
    next: Next<BoxBody>,
) -> impl Future<Output = Result<ServiceResponse, Error>> + use<> {
    let path = req.match_info().unprocessed();
    let reads = matches!(*req.method(), Method::GET | Method::HEAD);
    let tasks = (!reads && AUDITED.iter().any(|audited| path.starts_with(audited))).then(|| {
        if failpoint!("drain-forgets-detached") { TaskTracker::new() } else { tasks.clone() }
    });
    let observed = observe(observer, req, next);
    async move {
        let Some(tasks) = tasks else { return observed.await };
        // A task without a result panicked outside of a handler, so the request's id is lost.
        tasks.spawn_local(observed).await.unwrap_or_else(|error| {
            let error = ApiError::Internal(error.to_string().into());
            Err(InternalError::from_response(
                "the task panicked",
                jsonapi::error(&error, &new_request_id(), None),
            )
            .into())
        })
    }
}
