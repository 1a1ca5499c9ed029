//! Applies tenant and API-key commands to the working set.
//!
//! Job: register, update, add and revoke API keys, delete. Who asks for a change of credentials was
//! authenticated earlier; `prove` holds that credential against the newest records, so a password
//! or a key that was replaced meanwhile changes nothing. A tenant may have many counters, so it
//! is deleted in steps: mark it deleted (the name is free, its API keys are rejected, and an index
//! entry records that the deletion began), purge what it has, remove it. A start resumes deletions
//! that an earlier process began.
//! Invariant: [`TenantUsage`] counts a tenant's counters and the API keys of its present epoch. All
//! keys are revoked at once by the next epoch; their records are removed later.
//! Must never: leave one name to two tenants, or an API key to a removed tenant.

use std::sync::Arc;

use crate::domain::api_key::{KeyId, KeyLabel, Scopes};
use crate::domain::counter::CounterName;
use crate::domain::tenant::{TenantId, TenantLimit};
use crate::failpoint::failpoint;
use crate::store::embedded::codec::key::{IndexEntry, RecordKey, SYSTEM_TENANT};
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::commit::command::{CommandResult, Reply, TenantOp};
use crate::store::embedded::commit::working_set::{WorkingSet, live_tenant, usage};
use crate::store::{
    KeyRecord, NewTenant, Proof, Refusal, StoreError, TenantRecord, TenantUpdate, TenantUsage,
};

pub(crate) fn register(
    working_set: &mut WorkingSet,
    new: NewTenant,
) -> Result<TenantId, StoreError> {
    let name_key = RecordKey::Name(new.name.normalized());
    if working_set.get(&name_key).is_some() && !failpoint!("taken-name-registered") {
        return Err(Refusal::NameTaken.into());
    }
    let count = match working_set.get(&RecordKey::Tenants) {
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
        deleting: false,
        key_epoch: 0,
    };
    working_set.write(&RecordKey::Tenants, Some(Record::Tenants(id.0)));
    working_set.write(&name_key, Some(Record::Name(id)));
    working_set.write(&RecordKey::Tenant(id), Some(Record::Tenant(tenant.into())));
    let first = KeyRecord {
        tenant: id,
        secret: new.secret,
        label: KeyLabel::default(),
        scopes: Scopes::ALL,
        created_unix_s: new.created_unix_s,
        expires_unix_s: None,
        last_used_day: None,
        epoch: 0,
    };
    put_key(working_set, new.key, first);
    Ok(id)
}

fn put_key(working_set: &mut WorkingSet, id: KeyId, key: KeyRecord) {
    let tenant = key.tenant;
    let mut usage = usage(working_set, tenant);
    usage.keys += 1;
    working_set.write(&RecordKey::Usage(tenant), Some(Record::Usage(usage)));
    working_set.write(&RecordKey::ApiKey(id), Some(Record::ApiKey(key.into())));
    let entry = RecordKey::IndexEntry(tenant, IndexEntry::ApiKey(id));
    working_set.write_uncached(entry, Some(Record::IndexEntry));
}

pub(crate) fn change(working_set: &mut WorkingSet, id: TenantId, op: TenantOp) -> CommandResult {
    match op {
        TenantOp::PurgeMembers(entries) => return Ok(purge_members(working_set, id, entries)),
        TenantOp::RemoveTenant => return Ok(remove_tenant(working_set, id)),
        _ => {}
    }
    let mut tenant = live_tenant(working_set, id)?.clone();
    if let Some(proof) = op.proof() {
        prove(working_set, id, &tenant, proof)?;
    }
    match op {
        TenantOp::Update(TenantUpdate::Suspended(suspended)) => tenant.suspended = suspended,
        TenantOp::Update(TenantUpdate::Limit(limit)) => tenant.limit = limit,
        TenantOp::Password(_, password, revoke_keys) => {
            tenant.password = password;
            let revoked = if revoke_keys { revoke_all(working_set, id, &mut tenant) } else { 0 };
            working_set.write(&RecordKey::Tenant(id), Some(Record::Tenant(tenant.into())));
            return Ok(Reply::PasswordChanged(revoked));
        }
        TenantOp::AddKey(_, key_id, key, quota) => {
            if usage(working_set, id).keys >= quota && !failpoint!("key-quota-not-checked") {
                return Err(Refusal::Quota(quota).into());
            }
            put_key(working_set, key_id, KeyRecord { epoch: tenant.key_epoch, ..key });
            return Ok(Reply::Ack);
        }
        TenantOp::RevokeKey(_, key) => return revoke_key(working_set, id, &tenant, key),
        TenantOp::MarkDeleted(_) => {
            tenant.deleting = true;
            working_set.write(&RecordKey::Name(tenant.name.normalized()), None);
            let entry = RecordKey::IndexEntry(SYSTEM_TENANT, IndexEntry::Deleting(id));
            working_set.write_uncached(entry, Some(Record::IndexEntry));
        }
        TenantOp::PurgeMembers(_) | TenantOp::RemoveTenant => {}
    }
    let tenant = Arc::new(tenant);
    working_set.write(&RecordKey::Tenant(id), Some(Record::Tenant(Arc::clone(&tenant))));
    Ok(Reply::Tenant(tenant))
}

/// Proves that the credential of a change is still one: nothing that was committed, or decided
/// earlier in this batch, has replaced the password, revoked the key or suspended the tenant.
fn prove(
    working_set: &WorkingSet,
    id: TenantId,
    tenant: &TenantRecord,
    proof: Proof,
) -> Result<(), Refusal> {
    let holds = match proof {
        Proof::Password(hash) => !tenant.suspended && tenant.password == hash,
        Proof::Key(key) => !tenant.suspended && has_key(working_set, id, tenant, key),
        Proof::Operator => true,
    };
    let is_accepted = holds || failpoint!("credential-not-proved");
    if is_accepted { Ok(()) } else { Err(Refusal::CredentialReplaced) }
}

/// Whether the tenant has this API key, and it is not revoked.
fn has_key(working_set: &WorkingSet, id: TenantId, tenant: &TenantRecord, key: KeyId) -> bool {
    matches!(
        working_set.get(&RecordKey::ApiKey(key)),
        Some(Record::ApiKey(key)) if key.tenant == id && key.epoch == tenant.key_epoch
    )
}

fn revoke_key(
    working_set: &mut WorkingSet,
    tenant: TenantId,
    record: &TenantRecord,
    id: KeyId,
) -> CommandResult {
    if !has_key(working_set, tenant, record, id) {
        return Err(Refusal::NoSuchKey.into());
    }
    remove_key(working_set, tenant, id);
    let mut usage = usage(working_set, tenant);
    usage.keys = usage.keys.saturating_sub(1);
    working_set.write(&RecordKey::Usage(tenant), Some(Record::Usage(usage)));
    Ok(Reply::Ack)
}

/// Revokes all API keys of a tenant by the next epoch. Returns how many they were. No list of them
/// is needed, which could be old when this is decided.
fn revoke_all(working_set: &mut WorkingSet, id: TenantId, tenant: &mut TenantRecord) -> u32 {
    tenant.key_epoch = tenant.key_epoch.saturating_add(1);
    let now = usage(working_set, id);
    working_set.write(&RecordKey::Usage(id), Some(Record::Usage(TenantUsage { keys: 0, ..now })));
    now.keys
}

fn remove_key(working_set: &mut WorkingSet, tenant: TenantId, key: KeyId) {
    if !failpoint!("revoked-key-valid") {
        working_set.write(&RecordKey::ApiKey(key), None);
    }
    working_set.write_uncached(RecordKey::IndexEntry(tenant, IndexEntry::ApiKey(key)), None);
}

/// Removes the objects of these index entries, and the entries. Usage is not updated: that of a
/// deleted tenant is removed with it, and API keys of an earlier epoch are not counted.
fn purge_members(
    working_set: &mut WorkingSet,
    tenant: TenantId,
    entries: Vec<IndexEntry>,
) -> Reply {
    for entry in entries {
        match &entry {
            IndexEntry::Counter(name) => {
                working_set.write(&RecordKey::Counter(tenant, name.clone()), None);
            }
            IndexEntry::ApiKey(id) => working_set.write(&RecordKey::ApiKey(*id), None),
            IndexEntry::Deleting(_) => {}
        }
        working_set.write_uncached(RecordKey::IndexEntry(tenant, entry), None);
    }
    Reply::Ack
}

fn remove_tenant(working_set: &mut WorkingSet, tenant: TenantId) -> Reply {
    for key in [
        RecordKey::Counter(tenant, CounterName::default_counter()),
        RecordKey::Usage(tenant),
        RecordKey::Tenant(tenant),
    ] {
        working_set.write(&key, None);
    }
    let entry = RecordKey::IndexEntry(SYSTEM_TENANT, IndexEntry::Deleting(tenant));
    working_set.write_uncached(entry, None);
    Reply::Ack
}

/// Records the day, in days since 1970, on which an API key was used; does nothing if the key was
/// revoked in the meantime or a later day is known.
pub(crate) fn touch_key(working_set: &mut WorkingSet, id: KeyId, day: u32) -> CommandResult {
    let key = RecordKey::ApiKey(id);
    if let Some(Record::ApiKey(record)) = working_set.get(&key)
        && record.last_used_day.is_none_or(|known| known < day)
    {
        let record = KeyRecord { last_used_day: Some(day), ..(**record).clone() };
        working_set.write(&key, Some(Record::ApiKey(record.into())));
    }
    Ok(Reply::Ack)
}
