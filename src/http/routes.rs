//! All routes, and the App of each listener.
//!
//! Job: [`public`], [`ops`], [`admin()`] and [`redirect()`] build the App of a listener for one
//! thread; [`document`] is the OpenAPI document of the public routes.
//! Invariant: the metrics' labels, `Allow` and the OpenAPI document follow from the routes that are
//! registered here; a handler's arguments say what its route requires of the caller.
//! Must never: inspect a request.

use std::rc::Rc;
use std::sync::OnceLock;

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::middleware::from_fn;
use actix_web::{App, Error, HttpRequest, HttpResponse, web};
use bytes::Bytes;
use tokio_util::task::TaskTracker;
use utoipa::openapi::OpenApi;
use utoipa_actix_web::AppExt;
use utoipa_actix_web::service_config::ServiceConfig;

use super::error::ApiError;
use super::handlers::probes::OpenApiJson;
use super::handlers::{admin, api_keys, backup, counters, docs, integer, probes, tenants};
use super::middleware::access_log::{Observer, observe};
use super::middleware::detach::observe_or_detach;
use super::openapi::operations::operations;
use super::openapi::{description, finish};
use super::redirect::{self, HttpsPort};
use super::route_table::RouteTable;
use super::state::{AppState, State};
use crate::store::embedded::EmbeddedStore;
use crate::telemetry::{Metrics, method_index};

#[rustfmt::skip]
fn public_routes(config: &mut ServiceConfig) {
    config
        .service(integer::increment_integer)  // PUT    /api/v1/integer/increment increment
        .service(integer::read_integer)       // GET    /api/v1/integer           read
        .service(integer::set_integer)        // PUT    /api/v1/integer           manage
        .service(counters::increment_counter) // POST   /api/v1/counters/{name}/increment increment
        .service(counters::read_counter)      // GET    /api/v1/counters/{name}   read
        .service(counters::set_counter)       // PUT    /api/v1/counters/{name}   manage
        .service(counters::delete_counter)    // DELETE /api/v1/counters/{name}   manage
        .service(counters::list_counters)     // GET    /api/v1/counters          read
        .service(counters::create_counter)    // POST   /api/v1/counters          manage
        .service(api_keys::list_keys)         // GET    /api/v1/keys              manage or password
        .service(api_keys::create_key)        // POST   /api/v1/keys              manage or password
        .service(api_keys::revoke_key)        // DELETE /api/v1/keys/{id}         manage or password
        .service(tenants::register_tenant)    // POST   /api/v1/tenants           no credential
        .service(tenants::read_tenant)        // GET    /api/v1/tenant            any credential
        .service(tenants::change_password)    // PUT    /api/v1/tenant/password   password
        .service(tenants::delete_tenant)      // DELETE /api/v1/tenant            password
        .service(tenants::register_user)      // POST   /users/create             no credential
        .service(probes::is_alive)            // GET    /livez
        .service(probes::is_ready)            // GET    /readyz
        .service(probes::read_openapi)        // GET    /openapi.json
        .service(docs::read_docs)             // GET    /docs
        .service(docs::docs_start)            // GET    /docs/start.js
        .service(docs::docs_style)            // GET    /docs/swagger-ui.css
        .service(docs::docs_bundle);          // GET    /docs/swagger-ui-bundle.js
}

fn ops_routes(config: &mut ServiceConfig) {
    config.service(probes::metrics).service(probes::is_alive).service(probes::is_ready);
}

#[rustfmt::skip]
fn admin_routes(config: &mut ServiceConfig) {
    config
        .service(admin::list_tenants)   // GET    /tenants                   ?limit=&after=
        .service(admin::show_tenant)    // GET    /tenants/{name}
        .service(admin::delete_tenant)  // DELETE /tenants/{name}
        .service(admin::suspend_tenant) // POST   /tenants/{name}/suspend
        .service(admin::resume_tenant)  // POST   /tenants/{name}/resume
        .service(admin::limit_tenant)   // PUT    /tenants/{name}/limit      {"limit": …}
        .service(admin::list_keys)      // GET    /tenants/{name}/keys       ?limit=&after=
        .service(admin::revoke_key)     // DELETE /tenants/{name}/keys/{id}
        .service(backup::make_backup)   // POST   /backup
        .service(admin::stats)          // GET    /stats
        .configure(ops_routes);         // GET    /metrics /livez /readyz
}

/// What an App needs besides its routes.
#[derive(Clone)]
pub struct AppContext {
    /// The state of its handlers.
    pub state: Rc<AppState>,
    /// The observer of its requests.
    pub observer: Rc<Observer>,
    /// The tracker of its tasks, which a shutdown waits for.
    pub tasks: TaskTracker,
}

/// The type of an App.
macro_rules! app {
    () => {
        App<impl ServiceFactory<
            ServiceRequest,
            Config = (),
            Response = ServiceResponse<BoxBody>,
            Error = Error,
            InitError = (),
        > + use<>>
    };
}

/// The App of the public listener.
pub fn public(context: &AppContext) -> app!() {
    let (observer, tasks) = (Rc::clone(&context.observer), context.tasks.clone());
    let (app, _) = App::new().into_utoipa_app().configure(public_routes).split_for_parts();
    app.app_data::<State>(web::ThinData(Rc::clone(&context.state)))
        .app_data(web::ThinData(OpenApiJson(json())))
        .app_data(table())
        .default_service(web::to(no_route))
        .wrap(from_fn(move |req, next| observe_or_detach(Rc::clone(&observer), &tasks, req, next)))
}

/// The App of the ops listener.
pub fn ops(context: &AppContext) -> app!() {
    let observer = Rc::clone(&context.observer);
    let (app, _) = App::new().into_utoipa_app().configure(ops_routes).split_for_parts();
    app.app_data::<State>(web::ThinData(Rc::clone(&context.state)))
        .app_data(table())
        .default_service(web::to(no_route))
        .wrap(from_fn(move |req, next| observe(Rc::clone(&observer), req, next)))
}

/// The App of the admin socket; `store` makes backups.
pub fn admin(context: &AppContext, store: EmbeddedStore) -> app!() {
    let (observer, tasks) = (Rc::clone(&context.observer), context.tasks.clone());
    let (app, _) = App::new().into_utoipa_app().configure(admin_routes).split_for_parts();
    app.app_data::<State>(web::ThinData(Rc::clone(&context.state)))
        .app_data(web::ThinData(store))
        .app_data(admin_table())
        .default_service(web::to(no_route))
        .wrap(from_fn(move |req, next| observe_or_detach(Rc::clone(&observer), &tasks, req, next)))
}

/// The App of the plain HTTP port.
pub fn redirect(observer: &Rc<Observer>, port: HttpsPort) -> app!() {
    let observer = Rc::clone(observer);
    App::new()
        .app_data(web::ThinData(port))
        .default_service(web::to(redirect::redirect))
        .wrap(from_fn(move |req, next| observe(Rc::clone(&observer), req, next)))
}

/// Responds to a request that matches no route: 404, or 405 if the path has other methods.
async fn no_route(req: HttpRequest) -> Result<HttpResponse, ApiError> {
    let table = req.app_data::<&'static RouteTable>();
    match table.map_or("", |table| table.allow(table.label(&req))) {
        "" => Err(ApiError::NotFound),
        allow => Err(ApiError::MethodNotAllowed(allow.to_owned())),
    }
}

/// The document of the public routes as utoipa collects it.
fn collected() -> OpenApi {
    let app = App::new().into_utoipa_app().openapi(description());
    app.configure(public_routes).split_for_parts().1
}

/// The route table of the public and the ops listener.
pub fn table() -> &'static RouteTable {
    static TABLE: OnceLock<RouteTable> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut routes = collected();
        routes.merge(App::new().into_utoipa_app().configure(ops_routes).split_for_parts().1);
        RouteTable::new(&mut routes)
    })
}

/// The route table of the admin socket, whose requests no metric counts.
pub fn admin_table() -> &'static RouteTable {
    static TABLE: OnceLock<RouteTable> = OnceLock::new();
    TABLE.get_or_init(|| {
        RouteTable::new(
            &mut App::new().into_utoipa_app().configure(admin_routes).split_for_parts().1,
        )
    })
}

/// The OpenAPI document.
pub fn document() -> OpenApi {
    finish(collected())
}

/// The OpenAPI document as JSON, as served and as committed to the repository; made once.
pub fn json() -> Bytes {
    static JSON: OnceLock<Bytes> = OnceLock::new();
    // Serialization fails only for keys that are no strings and for numbers that JSON lacks; the
    // document has neither.
    let make = || {
        serde_json::to_vec_pretty(&document())
            .map(|json| [json, b"\n".to_vec()].concat().into())
            .unwrap_or_default()
    };
    JSON.get_or_init(make).clone()
}

/// The metrics of a process that serves these routes. `rate()` sees the first failure only if the
/// series existed before it, so the series of the tenant API are registered at once.
pub fn metrics() -> Metrics {
    let table = table();
    let metrics =
        Metrics::new(env!("CARGO_PKG_VERSION"), env!("ODOMETER_GIT_REVISION"), table.patterns);
    for (path, mut item) in document().paths.paths {
        let label = table.patterns.iter().position(|pattern| *pattern == path).unwrap_or_default();
        for (method, operation) in operations(&mut item) {
            if operation.tags.iter().flatten().any(|tag| tag == "service") {
                continue;
            }
            let method = serde_json::to_value(&method).unwrap_or_default();
            let method = method.as_str().unwrap_or_default().to_ascii_uppercase();
            let success =
                operation.responses.responses.keys().filter_map(|status| status.parse().ok());
            let codes: Vec<u16> =
                success.filter(|status| *status < 300).chain([500, 503, 507]).collect();
            metrics.preregister_http(label, method_index(&method), &codes);
        }
    }
    metrics
}
