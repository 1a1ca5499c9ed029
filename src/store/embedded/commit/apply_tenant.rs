//! The decisions about tenants and their keys.
//!
//! Job: register, change, add and revoke keys, delete. Deleting is done in pieces, since a tenant may have many counters: doom (name and keys
//! are refused from then on, and a note says that it began), sweep what it has, bury. A start goes on with what was begun.
//! Invariant: [`Holdings`] counts what is listed. Must never: leave a name that two tenants have, or a key of a tenant that is gone.

use std::sync::Arc;

use crate::domain::api_key::{KeyId, KeyLabel, Scopes};
use crate::domain::counter::CounterName;
use crate::domain::tenant::{TenantId, TenantLimit};
use crate::store::embedded::codec::key::{Key, Member, STORE};
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::commit::command::{Answer, OfTenant, Outcome};
use crate::store::embedded::commit::working_set::{Desk, holdings, living};
use crate::store::{Holdings, KeyRecord, NewTenant, Refusal, StoreError, TenantChange, TenantRecord};

pub(crate) fn register(desk: &mut Desk, new: NewTenant) -> Result<TenantId, StoreError> {
    let name_key = Key::Name(new.name.folded());
    if desk.record(&name_key).is_some() {
        return Err(Refusal::NameTaken.into());
    }
    let count = match desk.record(&Key::Tenants) {
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
    desk.write(Key::Tenants, Some(Record::Tenants(id.0)));
    desk.write(name_key, Some(Record::Name(id)));
    desk.write(Key::Tenant(id), Some(Record::Tenant(tenant.into())));
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

fn put_key(desk: &mut Desk, id: KeyId, key: KeyRecord) {
    let tenant = key.tenant;
    let mut holdings = holdings(desk, tenant);
    holdings.keys += 1;
    desk.write(Key::Holdings(tenant), Some(Record::Holdings(holdings)));
    desk.write(Key::ApiKey(id), Some(Record::ApiKey(key.into())));
    desk.pass(Key::Member(tenant, Member::ApiKey(id)), Some(Record::Member));
}

pub(crate) fn change(desk: &mut Desk, id: TenantId, of: OfTenant) -> Outcome {
    match of {
        OfTenant::Sweep(members) => return Ok(sweep(desk, id, members)),
        OfTenant::Bury => return Ok(bury(desk, id)),
        _ => {}
    }
    let mut tenant = living(desk, id)?.clone();
    match of {
        OfTenant::Change(TenantChange::Suspended(suspended)) => tenant.suspended = suspended,
        OfTenant::Change(TenantChange::Limit(limit)) => tenant.limit = limit,
        OfTenant::Password(password, revoked) => {
            if let Some(keys) = revoked
                && !revoke_all(desk, id, &keys)
            {
                return Ok(Answer::Again);
            }
            tenant.password = password;
        }
        OfTenant::AddKey(key_id, key, quota) => {
            if holdings(desk, id).keys >= quota {
                return Err(Refusal::Quota(quota).into());
            }
            put_key(desk, key_id, key);
            return Ok(Answer::Done);
        }
        OfTenant::RevokeKey(key) => return revoke_key(desk, id, key),
        OfTenant::Doom => {
            tenant.doomed = true;
            desk.write(Key::Name(tenant.name.folded()), None);
            desk.pass(Key::Member(STORE, Member::Doomed(id)), Some(Record::Member));
        }
        OfTenant::Sweep(_) | OfTenant::Bury => {}
    }
    let tenant = Arc::new(tenant);
    desk.write(Key::Tenant(id), Some(Record::Tenant(Arc::clone(&tenant))));
    Ok(Answer::Tenant(tenant))
}

fn revoke_key(desk: &mut Desk, tenant: TenantId, id: KeyId) -> Outcome {
    match desk.record(&Key::ApiKey(id)) {
        Some(Record::ApiKey(key)) if key.tenant == tenant => {}
        _ => return Err(Refusal::NoSuchKey.into()),
    }
    remove_key(desk, tenant, id);
    let mut holdings = holdings(desk, tenant);
    holdings.keys = holdings.keys.saturating_sub(1);
    desk.write(Key::Holdings(tenant), Some(Record::Holdings(holdings)));
    Ok(Answer::Done)
}

/// Revokes every key of a tenant, if these are all.
fn revoke_all(desk: &mut Desk, tenant: TenantId, keys: &[KeyId]) -> bool {
    let now = holdings(desk, tenant);
    if u32::try_from(keys.len()) != Ok(now.keys) {
        return false;
    }
    keys.iter().for_each(|key| remove_key(desk, tenant, *key));
    desk.write(Key::Holdings(tenant), Some(Record::Holdings(Holdings { keys: 0, ..now })));
    true
}

fn remove_key(desk: &mut Desk, tenant: TenantId, key: KeyId) {
    desk.write(Key::ApiKey(key), None);
    desk.pass(Key::Member(tenant, Member::ApiKey(key)), None);
}

fn sweep(desk: &mut Desk, tenant: TenantId, members: Vec<Member>) -> Answer {
    for member in members {
        match &member {
            Member::Counter(name) => desk.write(Key::Counter(tenant, name.clone()), None),
            Member::ApiKey(id) => desk.write(Key::ApiKey(*id), None),
            Member::Doomed(_) => {}
        }
        desk.pass(Key::Member(tenant, member), None);
    }
    Answer::Done
}

fn bury(desk: &mut Desk, tenant: TenantId) -> Answer {
    for key in [Key::Counter(tenant, CounterName::default_counter()), Key::Holdings(tenant), Key::Tenant(tenant)] {
        desk.write(key, None);
    }
    desk.pass(Key::Member(STORE, Member::Doomed(tenant)), None);
    Answer::Done
}

/// A key that is gone meanwhile has no day.
pub(crate) fn note_use(desk: &mut Desk, id: KeyId, day: u32) -> Outcome {
    let key = Key::ApiKey(id);
    if let Some(Record::ApiKey(record)) = desk.record(&key)
        && record.last_used_day.is_none_or(|known| known < day)
    {
        let record = KeyRecord { last_used_day: Some(day), ..(**record).clone() };
        desk.write(key, Some(Record::ApiKey(record.into())));
    }
    Ok(Answer::Done)
}
