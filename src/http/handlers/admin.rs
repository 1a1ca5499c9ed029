//! Tenants, keys and metrics for operators, through the admin socket.
//!
//! Job: list, show, suspend, resume, limit and delete tenants; list and revoke keys; `/stats`.
//! Responses are plain JSON, the types of [`rows`](crate::admin::rows); errors are the same
//! documents as in every App.
//! Invariant: every change is one audit event, with the tenant, the operator and the outcome.
//! Must never: show a secret or its hash; hold all tenants in memory; serve a request that is not
//! an [`Operator`]'s.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, Responder, delete, get, post, put, web};
use serde::Deserialize;

use super::{invalid_parameter, non_empty_page};
use crate::admin::rows::{KeyPage, KeyRow, NewLimit, TenantPage, TenantRow};
use crate::domain::api_key::KeyId;
use crate::domain::tenant::{TenantId, TenantLimit, TenantName};
use crate::domain::time_format::{date, rfc3339};
use crate::http::context::{OperatorAction, OperatorEvent, RequestContext, SecurityEvent};
use crate::http::error::ApiError;
use crate::http::extract::InOrder;
use crate::http::extract::operator::{Operator, TypedKey};
use crate::http::extract::params::{NoParams, Params, QueryParams};
use crate::http::extract::path::PathParam;
use crate::http::extract::values::Whole;
use crate::http::state::State;
use crate::store::{Proof, Refusal, StoreError, TenantRecord, TenantUpdate};

const MAX_PAGE: usize = 1000;
/// The number of rows per page.
type PageLimit = Whole<1, { MAX_PAGE as u64 }>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantListParams {
    limit: Option<PageLimit>,
    after: Option<Whole<0, { u64::MAX }>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyListParams {
    limit: Option<PageLimit>,
    after: Option<String>,
}

/// The arguments of a change of one tenant that has no parameters.
type TenantAction = InOrder<(Operator, PathParam<String>, Params<NoParams>)>;
/// The arguments of a change of one key.
type KeyAction = InOrder<(Operator, PathParam<String>, PathParam<TypedKey>, Params<NoParams>)>;

/// A page covers a range of tenant ids. Deleted tenants are left out, so it may have fewer rows.
#[utoipa::path(tag = "internal")]
#[get("/tenants")]
pub(crate) async fn list_tenants(
    state: State,
    args: InOrder<(Operator, QueryParams<TenantListParams>)>,
) -> Result<impl Responder, ApiError> {
    let InOrder((_, QueryParams(params))) = args;
    let TenantId(last) = state.store.last_tenant_id().await?;
    let after = params.after.map_or(0, |after| after.0).min(last);
    let end = after.saturating_add(params.limit.map_or(MAX_PAGE as u64, |limit| limit.0)).min(last);
    let mut tenants = Vec::new();
    for id in (after + 1..=end).map(TenantId) {
        if let Some(record) = state.store.find_tenant(id).await? {
            tenants.push(row(&state, id, &record).await?);
        }
        // The ops listener runs on the same thread.
        tokio::task::yield_now().await;
    }
    Ok(web::Json(TenantPage { tenants, next: (end < last).then_some(end) }))
}

#[utoipa::path(tag = "internal")]
#[get("/tenants/{name}")]
pub(crate) async fn show_tenant(
    state: State,
    args: InOrder<(Operator, PathParam<String>, QueryParams<NoParams>)>,
) -> Result<impl Responder, ApiError> {
    let InOrder((_, PathParam(name), _)) = args;
    let (id, record) = find(&state, &name).await?;
    Ok(web::Json(row(&state, id, &record).await?))
}

#[utoipa::path(tag = "internal")]
#[post("/tenants/{name}/suspend")]
pub(crate) async fn suspend_tenant(
    state: State,
    req: HttpRequest,
    args: TenantAction,
) -> Result<impl Responder, ApiError> {
    set_suspended(&state, &req, args, true).await
}

#[utoipa::path(tag = "internal")]
#[post("/tenants/{name}/resume")]
pub(crate) async fn resume_tenant(
    state: State,
    req: HttpRequest,
    args: TenantAction,
) -> Result<impl Responder, ApiError> {
    set_suspended(&state, &req, args, false).await
}

async fn set_suspended(
    state: &State,
    req: &HttpRequest,
    InOrder((operator, PathParam(name), _)): TenantAction,
    suspended: bool,
) -> Result<web::Json<TenantRow>, ApiError> {
    let action =
        if suspended { OperatorAction::SuspendTenant } else { OperatorAction::ResumeTenant };
    let (id, _) = find(state, &name).await?;
    let changed = state.store.change_tenant(id, TenantUpdate::Suspended(suspended)).await;
    let record = audited(
        req,
        id,
        operator,
        action,
        None,
        changed.map_err(|error| change_error(error, &name)),
    )?;
    Ok(web::Json(row(state, id, &record).await?))
}

#[utoipa::path(tag = "internal")]
#[put("/tenants/{name}/limit")]
pub(crate) async fn limit_tenant(
    state: State,
    req: HttpRequest,
    args: InOrder<(Operator, PathParam<String>, Params<NewLimit>)>,
) -> Result<impl Responder, ApiError> {
    let InOrder((operator, PathParam(name), Params(NewLimit { limit }))) = args;
    let (id, _) = find(&state, &name).await?;
    let limit = limit.parse::<TenantLimit>();
    let changed = match limit {
        Ok(limit) => state
            .store
            .change_tenant(id, TenantUpdate::Limit(limit))
            .await
            .map_err(|error| change_error(error, &name)),
        Err(error) => {
            Err(invalid_parameter("limit", format!("must be off, default or a rate; {error}")))
        }
    };
    let detail = limit.ok().map(|limit| limit.to_string());
    let record = audited(&req, id, operator, OperatorAction::LimitTenant, detail, changed)?;
    Ok(web::Json(row(&state, id, &record).await?))
}

#[utoipa::path(tag = "internal")]
#[delete("/tenants/{name}")]
pub(crate) async fn delete_tenant(
    state: State,
    req: HttpRequest,
    args: TenantAction,
) -> Result<impl Responder, ApiError> {
    let InOrder((operator, PathParam(name), _)) = args;
    let (id, _) = find(&state, &name).await?;
    let deleted = state.store.delete_tenant(id, Proof::Operator).await;
    let deleted = deleted.map_err(|error| change_error(error, &name));
    audited(&req, id, operator, OperatorAction::DeleteTenant, None, deleted)?;
    Ok(HttpResponse::NoContent())
}

#[utoipa::path(tag = "internal")]
#[get("/tenants/{name}/keys")]
pub(crate) async fn list_keys(
    state: State,
    args: InOrder<(Operator, PathParam<String>, QueryParams<KeyListParams>)>,
) -> Result<impl Responder, ApiError> {
    let InOrder((_, PathParam(name), QueryParams(params))) = args;
    let not_an_id = || invalid_parameter("after", "must be a key's id, 16 hexadecimal digits");
    let after = params.after.map(|after| KeyId::parse(&after).ok_or_else(not_an_id)).transpose()?;
    let limit = params.limit.map_or(MAX_PAGE as u64, |limit| limit.0);
    let limit = usize::try_from(limit).unwrap_or(MAX_PAGE);
    let (id, _) = find(&state, &name).await?;
    let page = non_empty_page(|| state.store.list_api_keys(id, after, limit)).await?;
    let next = page.items.last().filter(|_| page.more).map(|(key, _)| key.to_string());
    let rows = page.items.iter().map(|(key, record)| KeyRow {
        id: key.to_string(),
        label: record.label.as_str().to_owned(),
        scopes: record.scopes.to_string(),
        created_at: rfc3339(record.created_unix_s),
        expires_at: record.expires_unix_s.map(rfc3339),
        last_used_on: record.last_used_day.map(date),
    });
    Ok(web::Json(KeyPage { keys: rows.collect(), next }))
}

#[utoipa::path(tag = "internal")]
#[delete("/tenants/{name}/keys/{id}")]
pub(crate) async fn revoke_key(
    state: State,
    req: HttpRequest,
    args: KeyAction,
) -> Result<impl Responder, ApiError> {
    let InOrder((operator, PathParam(name), PathParam(TypedKey(key)), _)) = args;
    let (id, _) = find(&state, &name).await?;
    let revoked = match key {
        Some(key) => {
            let revoked = state.store.revoke_key(id, key, Proof::Operator).await;
            revoked.map_err(|error| change_error(error, &name))
        }
        None => Err(invalid_parameter(
            "id",
            "must be a key's id, 16 hexadecimal digits, or a whole key",
        )),
    };
    audited(
        &req,
        id,
        operator,
        OperatorAction::RevokeKey,
        key.map(|key| key.to_string()),
        revoked,
    )?;
    Ok(HttpResponse::NoContent())
}

/// The metrics as JSON.
#[utoipa::path(tag = "internal")]
#[get("/stats")]
pub(crate) async fn stats(state: State) -> impl Responder {
    web::Json(state.shared.metrics.snapshot())
}

async fn find(state: &State, name: &str) -> Result<(TenantId, Arc<TenantRecord>), ApiError> {
    let none = || ApiError::TenantNotFound(name.to_owned());
    let parsed = TenantName::parse(name).map_err(|_| none())?;
    let id = state.store.tenant_by_name(&parsed).await?.ok_or_else(none)?;
    let record = state.store.find_tenant(id).await?.ok_or_else(none)?;
    Ok((id, record))
}

/// The error of a change whose tenant was found just before.
fn change_error(error: StoreError, name: &str) -> ApiError {
    match error {
        StoreError::Refused(Refusal::NoSuchTenant) => ApiError::TenantNotFound(name.to_owned()),
        other => other.into(),
    }
}

async fn row(state: &State, id: TenantId, record: &TenantRecord) -> Result<TenantRow, ApiError> {
    let usage = state.store.usage(id).await?;
    Ok(TenantRow {
        id: id.0,
        name: record.name.as_str().to_owned(),
        created_at: rfc3339(record.created_unix_s),
        suspended: record.suspended,
        limit: record.limit.to_string(),
        counters: usage.counters,
        keys: usage.keys,
    })
}

/// Records the outcome of a change as an audit event, and returns it.
fn audited<T>(
    req: &HttpRequest,
    tenant: TenantId,
    operator: Operator,
    action: OperatorAction,
    detail: Option<String>,
    result: Result<T, ApiError>,
) -> Result<T, ApiError> {
    let context = RequestContext::of(req);
    context.set_tenant(tenant);
    let problem = result
        .as_ref()
        .err()
        .map(|error| error.cause().map_or_else(|| error.detail(None).into_owned(), str::to_owned));
    context.record(SecurityEvent::Operator(OperatorEvent {
        action,
        uid: operator.uid,
        detail,
        problem,
    }));
    result
}
