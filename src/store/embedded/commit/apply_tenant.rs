//! The decisions about tenants and their keys.
//!
//! Job: register, change, add and revoke keys, delete. Deleting is done in pieces, since a tenant may have many counters: doom (name and keys
//! are refused from then on, and a note says that it began), sweep what it has, bury. A start goes on with what was begun.
//! Invariant: [`TenantUsage`] counts what is listed. Must never: leave a name that two tenants have, or a key of a tenant that is gone.

use std::sync::Arc;

use crate::domain::api_key::{KeyId, KeyLabel, Scopes};
use crate::domain::counter::CounterName;
use crate::domain::tenant::{TenantId, TenantLimit};
use crate::store::embedded::codec::key::{IndexEntry, RecordKey, SYSTEM_TENANT};
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::commit::command::{CommandResult, Reply, TenantOp};
use crate::store::embedded::commit::working_set::{WorkingSet, holdings, living};
use crate::store::{KeyRecord, NewTenant, Refusal, StoreError, TenantRecord, TenantUpdate, TenantUsage};

pub(crate) fn register(desk: &mut WorkingSet, new: NewTenant) -> Result<TenantId, StoreError> {
    let name_key = RecordKey::Name(new.name.folded());
    if desk.record(&name_key).is_some() {
        return Err(Refusal::NameTaken.into());
    }
    let count = match desk.record(&RecordKey::Tenants) {
        Some(Record::Tenants(count)) => *count,
        _ => 0,
    };
    let id = TenantId(count + 1);
    let tenant = TenantRecord {
        name: new.name,
        password: new.password,
        created_unix_s: new.created_unix_s,
        suspended: false,
        limit: TenantLimit::Default,
        doomed: false,
    };
    desk.write(RecordKey::Tenants, Some(Record::Tenants(id.0)));
    desk.write(name_key, Some(Record::Name(id)));
    desk.write(RecordKey::Tenant(id), Some(Record::Tenant(tenant.into())));
    let first = KeyRecord {
        tenant: id,
        secret: new.secret,
        label: KeyLabel::default(),
        scopes: Scopes::ALL,
        created_unix_s: new.created_unix_s,
        expires_unix_s: None,
        last_used_day: None,
    };
    put_key(desk, new.key, first);
    Ok(id)
}

fn put_key(desk: &mut WorkingSet, id: KeyId, key: KeyRecord) {
    let tenant = key.tenant;
    let mut holdings = holdings(desk, tenant);
    holdings.keys += 1;
    desk.write(RecordKey::Usage(tenant), Some(Record::Usage(holdings)));
    desk.write(RecordKey::ApiKey(id), Some(Record::ApiKey(key.into())));
    desk.pass(RecordKey::IndexEntry(tenant, IndexEntry::ApiKey(id)), Some(Record::IndexEntry));
}

pub(crate) fn change(desk: &mut WorkingSet, id: TenantId, of: TenantOp) -> CommandResult {
    match of {
        TenantOp::PurgeMembers(members) => return Ok(sweep(desk, id, members)),
        TenantOp::RemoveTenant => return Ok(bury(desk, id)),
        _ => {}
    }
    let mut tenant = living(desk, id)?.clone();
    match of {
        TenantOp::Update(TenantUpdate::Suspended(suspended)) => tenant.suspended = suspended,
        TenantOp::Update(TenantUpdate::Limit(limit)) => tenant.limit = limit,
        TenantOp::Password(password, revoked) => {
            if let Some(keys) = revoked
                && !revoke_all(desk, id, &keys)
            {
                return Ok(Reply::Conflict);
            }
            tenant.password = password;
        }
        TenantOp::AddKey(key_id, key, quota) => {
            if holdings(desk, id).keys >= quota {
                return Err(Refusal::Quota(quota).into());
            }
            put_key(desk, key_id, key);
            return Ok(Reply::Ack);
        }
        TenantOp::RevokeKey(key) => return revoke_key(desk, id, key),
        TenantOp::MarkDeleted => {
            tenant.doomed = true;
            desk.write(RecordKey::Name(tenant.name.folded()), None);
            desk.pass(RecordKey::IndexEntry(SYSTEM_TENANT, IndexEntry::Deleting(id)), Some(Record::IndexEntry));
        }
        TenantOp::PurgeMembers(_) | TenantOp::RemoveTenant => {}
    }
    let tenant = Arc::new(tenant);
    desk.write(RecordKey::Tenant(id), Some(Record::Tenant(Arc::clone(&tenant))));
    Ok(Reply::Tenant(tenant))
}

fn revoke_key(desk: &mut WorkingSet, tenant: TenantId, id: KeyId) -> CommandResult {
    match desk.record(&RecordKey::ApiKey(id)) {
        Some(Record::ApiKey(key)) if key.tenant == tenant => {}
        _ => return Err(Refusal::NoSuchKey.into()),
    }
    remove_key(desk, tenant, id);
    let mut holdings = holdings(desk, tenant);
    holdings.keys = holdings.keys.saturating_sub(1);
    desk.write(RecordKey::Usage(tenant), Some(Record::Usage(holdings)));
    Ok(Reply::Ack)
}

/// Revokes every key of a tenant, if these are all.
fn revoke_all(desk: &mut WorkingSet, tenant: TenantId, keys: &[KeyId]) -> bool {
    let now = holdings(desk, tenant);
    if u32::try_from(keys.len()) != Ok(now.keys) {
        return false;
    }
    keys.iter().for_each(|key| remove_key(desk, tenant, *key));
    desk.write(RecordKey::Usage(tenant), Some(Record::Usage(TenantUsage { keys: 0, ..now })));
    true
}

fn remove_key(desk: &mut WorkingSet, tenant: TenantId, key: KeyId) {
    desk.write(RecordKey::ApiKey(key), None);
    desk.pass(RecordKey::IndexEntry(tenant, IndexEntry::ApiKey(key)), None);
}

fn sweep(desk: &mut WorkingSet, tenant: TenantId, members: Vec<IndexEntry>) -> Reply {
    for member in members {
        match &member {
            IndexEntry::Counter(name) => desk.write(RecordKey::Counter(tenant, name.clone()), None),
            IndexEntry::ApiKey(id) => desk.write(RecordKey::ApiKey(*id), None),
            IndexEntry::Deleting(_) => {}
        }
        desk.pass(RecordKey::IndexEntry(tenant, member), None);
    }
    Reply::Ack
}

fn bury(desk: &mut WorkingSet, tenant: TenantId) -> Reply {
    for key in [
        RecordKey::Counter(tenant, CounterName::default_counter()),
        RecordKey::Usage(tenant),
        RecordKey::Tenant(tenant),
    ] {
        desk.write(key, None);
    }
    desk.pass(RecordKey::IndexEntry(SYSTEM_TENANT, IndexEntry::Deleting(tenant)), None);
    Reply::Ack
}

/// A key that is gone meanwhile has no day.
pub(crate) fn note_use(desk: &mut WorkingSet, id: KeyId, day: u32) -> CommandResult {
    let key = RecordKey::ApiKey(id);
    if let Some(Record::ApiKey(record)) = desk.record(&key)
        && record.last_used_day.is_none_or(|known| known < day)
    {
        let record = KeyRecord { last_used_day: Some(day), ..(**record).clone() };
        desk.write(key, Some(Record::ApiKey(record.into())));
    }
    Ok(Reply::Ack)
}
