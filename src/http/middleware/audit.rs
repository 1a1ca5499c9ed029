//! The audit's events: who changed who may do what, and who took a copy of everything.
//!
//! Job: [`log`] writes one event for each change that a handler recorded, made by a tenant or by an
//! operator. Invariant: an operator's change is told whether it was made or not.
//! Must never: write a secret, or what was typed where a secret might have been.

use crate::http::context::{
    AuditEvent, BackupMade, OperatorEvent, RequestContext, RequestOutcome, SecurityEvent,
};

/// Writes the event of a change. What is no change has none here.
pub(super) fn log(event: &SecurityEvent, context: &RequestContext, outcome: &RequestOutcome) {
    match event {
        SecurityEvent::Audit(event) => log_change(*event, context, outcome),
        SecurityEvent::Operator(event) => log_operator_event(event, context, outcome),
        SecurityEvent::Backup(result) => log_backup(result),
        SecurityEvent::AuthFailure(_) | SecurityEvent::RateLimited(_) => {}
    }
}

/// The audit's line: which credentials or tenants were changed, by whom and which key, never a
/// secret.
fn log_change(event: AuditEvent, context: &RequestContext, outcome: &RequestOutcome) {
    let (action, key, revoked) = match event {
        AuditEvent::KeyCreated(key) => ("key-created", Some(key), None),
        AuditEvent::KeyRevoked(key) => ("key-revoked", Some(key), None),
        AuditEvent::PasswordChanged { revoked } => ("password-changed", None, Some(revoked)),
        AuditEvent::TenantRegistered(key) => ("tenant-registered", Some(key), None),
        AuditEvent::TenantDeleted => ("tenant-deleted", None, None),
    };
    tracing::info!(
        event.action = action,
        event.outcome = "success",
        http.request.id = context.request_id,
        client.ip = tracing::field::display(context.client),
        organization.id = outcome.tenant.map(tracing::field::display),
        odometer.key_id = key.map(tracing::field::display),
        odometer.keys_revoked = revoked,
        "who may do what was changed"
    );
}

fn log_operator_event(event: &OperatorEvent, context: &RequestContext, outcome: &RequestOutcome) {
    tracing::info!(
        event.action = event.action,
        event.outcome = if event.problem.is_some() { "failure" } else { "success" },
        http.request.id = context.request_id,
        organization.id = outcome.tenant.map(tracing::field::display),
        user.id = event.uid,
        odometer.detail = event.detail,
        error.message = event.problem,
        "an operator asked for it through the admin socket"
    );
}

fn log_backup(result: &Result<BackupMade, String>) {
    match result {
        Ok(made) => tracing::info!(
            event.action = "backup-requested",
            odometer.commit_seq = made.commit_seq,
            odometer.records = made.records,
            file.size = made.bytes,
            "a backup was asked for and made"
        ),
        Err(problem) => tracing::warn!(
            event.action = "backup-requested",
            event.outcome = "failure",
            error.message = %problem,
            "a backup was asked for and failed"
        ),
    }
}
