//! Audit events: changes of credentials and tenants, and backups.
//!
//! Job: [`log`] writes one log event for each change that a handler recorded, made by a tenant or
//! by an operator.
//! Invariant: an operator's request is logged whether it succeeded or not; each action has one
//! message.
//! Must never: log a secret, or raw input that may contain one.

use crate::http::context::{
    AuditEvent, BackupMade, OperatorAction, OperatorEvent, RequestContext, RequestOutcome,
    SecurityEvent,
};

/// Logs the event if it is a change or a backup.
pub(super) fn log(event: &SecurityEvent, context: &RequestContext, outcome: &RequestOutcome) {
    match event {
        SecurityEvent::Audit(event) => log_change(*event, context, outcome),
        SecurityEvent::Operator(event) => log_operator_event(event, context, outcome),
        SecurityEvent::Backup(result) => log_backup(result),
        SecurityEvent::AuthFailure(_) | SecurityEvent::RateLimited(_) => {}
    }
}

/// Logs a change that a tenant made: of what, by whom, and with which key.
fn log_change(event: AuditEvent, context: &RequestContext, outcome: &RequestOutcome) {
    let (action, message, key, revoked) = match event {
        AuditEvent::KeyCreated(key) => ("key-created", "audit: API key created", Some(key), None),
        AuditEvent::KeyRevoked(key) => ("key-revoked", "audit: API key revoked", Some(key), None),
        AuditEvent::PasswordChanged { revoked } => {
            ("password-changed", "audit: password changed", None, Some(revoked))
        }
        AuditEvent::TenantRegistered(key) => {
            ("tenant-registered", "audit: tenant registered", Some(key), None)
        }
        AuditEvent::TenantDeleted => ("tenant-deleted", "audit: tenant deleted", None, None),
    };
    tracing::info!(
        event.action = action,
        event.outcome = "success",
        http.request.id = context.request_id,
        client.ip = tracing::field::display(context.client),
        organization.id = outcome.tenant.map(tracing::field::display),
        odometer.key_id = key.map(tracing::field::display),
        odometer.keys_revoked = revoked,
        "{message}"
    );
}

fn log_operator_event(event: &OperatorEvent, context: &RequestContext, outcome: &RequestOutcome) {
    let (action, done, failed) = match event.action {
        OperatorAction::SuspendTenant => {
            ("tenant-suspended", "tenant suspended", "tenant not suspended")
        }
        OperatorAction::ResumeTenant => ("tenant-resumed", "tenant resumed", "tenant not resumed"),
        OperatorAction::LimitTenant => {
            ("tenant-limited", "rate limit changed", "rate limit not changed")
        }
        OperatorAction::DeleteTenant => ("tenant-deleted", "tenant deleted", "tenant not deleted"),
        OperatorAction::RevokeKey => ("key-revoked", "API key revoked", "API key not revoked"),
    };
    let is_failure = event.problem.is_some();
    tracing::info!(
        event.action = action,
        event.outcome = if is_failure { "failure" } else { "success" },
        http.request.id = context.request_id,
        organization.id = outcome.tenant.map(tracing::field::display),
        user.id = event.uid,
        odometer.detail = event.detail,
        error.message = event.problem,
        "admin request: {}",
        if is_failure { failed } else { done }
    );
}

fn log_backup(result: &Result<BackupMade, String>) {
    match result {
        Ok(backup) => tracing::info!(
            event.action = "backup-requested",
            odometer.commit_seq = backup.commit_seq,
            odometer.records = backup.records,
            file.size = backup.bytes,
            "admin request: backup made"
        ),
        Err(problem) => tracing::warn!(
            event.action = "backup-requested",
            event.outcome = "failure",
            error.message = %problem,
            "admin request: backup failed"
        ),
    }
}
