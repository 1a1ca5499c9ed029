//! The decisions: what a request changes, by the records on the desk.
//!
//! Job: one function for each thing that can be asked, counters here and tenants in tenants.rs. Each names the records that it needs
//! ([`read_set`]), and then decides in memory at once.
//! Invariant: a refusal has written nothing. The value of a counter comes from [`Counter::advance`] and [`Counter::set`] alone.
//! Must never: read a clock, a disk or a record that is not the newest.

use crate::domain::counter::{Counter, CounterName};
use crate::domain::tenant::TenantId;
use crate::store::embedded::codec::idempotency_page::StoredResult;
use crate::store::embedded::codec::key::{IndexEntry, RecordKey};
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::commit::apply_tenant;
use crate::store::embedded::commit::command::{Command, CommandResult, CounterCommand, CounterOp, Reply, TenantOp};
use crate::store::embedded::commit::idempotency::Lookup;
use crate::store::embedded::commit::working_set::{ReadSet, WorkingSet, live_tenant, usage};
use crate::store::{Applied, CounterState, Issued, NewCounter, Precondition, Refusal, SetCounter, StoreError, Version};

/// What is known of the request's idempotency key, if it has one.
pub(crate) fn lookup_idempotency(working_set: &WorkingSet, command: &Command) -> Lookup {
    match command {
        Command::Counter(CounterCommand { tenant, idempotency: Some(once), .. }) => {
            working_set.idempotency.find(*tenant, once)
        }
        _ => Lookup::Miss,
    }
}

/// The records that have to be in memory before `command` can be decided.
pub(crate) fn read_set(command: &Command, lookup_idempotency: &Lookup) -> ReadSet {
    if let Lookup::Stored(page, _) = lookup_idempotency {
        return [Some(page.clone()), None, None];
    }
    match command {
        Command::Counter(command) => {
            let counter = Some(RecordKey::Counter(command.tenant, command.name.clone()));
            match command.op {
                CounterOp::Advance(_) | CounterOp::Set(_) => [counter, None, None],
                CounterOp::Create(_) | CounterOp::Delete(_) => {
                    [counter, Some(RecordKey::Usage(command.tenant)), Some(RecordKey::Tenant(command.tenant))]
                }
            }
        }
        Command::Register(tenant) => [Some(RecordKey::Tenants), Some(RecordKey::Name(tenant.name.normalized())), None],
        Command::Tenant(tenant, command) => {
            let key = match &**command {
                TenantOp::RevokeKey(key) => Some(RecordKey::ApiKey(*key)),
                _ => None,
            };
            [Some(RecordKey::Tenant(*tenant)), Some(RecordKey::Usage(*tenant)), key]
        }
        Command::TouchKey(key, _) => [Some(RecordKey::ApiKey(*key)), None, None],
        Command::Load(key) => [Some(key.clone()), None, None],
        Command::List(_) => [None, None, None],
    }
}

/// Decides a change of something. Loads and lists are not decided here.
pub(crate) fn apply(working_set: &mut WorkingSet, command: Command) -> CommandResult {
    match command {
        Command::Counter(command) => apply_counter(working_set, command),
        Command::Register(tenant) => apply_tenant::register(working_set, *tenant).map(Reply::Registered),
        Command::Tenant(tenant, command) => apply_tenant::change(working_set, tenant, *command),
        Command::TouchKey(key, day) => apply_tenant::touch_key(working_set, key, day),
        Command::Load(_) | Command::List(_) => Err(StoreError::OutcomeUnknown),
    }
}

/// The answer that was given to this request before, if it was; or why it is not this request.
pub(crate) fn replay(
    working_set: &WorkingSet,
    command: &Command,
    lookup_idempotency: &Lookup,
) -> Option<CommandResult> {
    let Command::Counter(CounterCommand { idempotency: Some(once), op: change, .. }) = command else { return None };
    let entry = match lookup_idempotency {
        Lookup::Miss => return None,
        Lookup::InBatch(entry) => entry,
        Lookup::Stored(page, index) => match working_set.get(page) {
            Some(Record::IdempotencyPage(answers)) => answers.entries.get(*index)?,
            // It expired and was removed while its page was being loaded.
            _ => return None,
        },
    };
    let is_its_kind = match change {
        CounterOp::Advance(_) => matches!(entry.result, StoredResult::Issued(_)),
        CounterOp::Set(_) | CounterOp::Create(_) => matches!(entry.result, StoredResult::State(_)),
        CounterOp::Delete(_) => false,
    };
    let is_it = is_its_kind && entry.request_fingerprint == once.request_fingerprint;
    Some(if is_it { Ok(to_reply(entry.result, true)) } else { Err(Refusal::IdempotencyKeyReused.into()) })
}

fn to_reply(result: StoredResult, replayed: bool) -> Reply {
    match result {
        StoredResult::Issued(result) => Reply::Issued(Applied { result, replayed }),
        StoredResult::State(result) => Reply::State(Applied { result, replayed }),
    }
}

fn apply_counter(working_set: &mut WorkingSet, command: CounterCommand) -> CommandResult {
    let CounterCommand { tenant, name, op: change, idempotency: once } = command;
    if once.is_some() {
        working_set.idempotency.check_capacity(tenant)?;
    }
    let result = match change {
        CounterOp::Advance(count) => StoredResult::Issued(advance(working_set, tenant, &name, count)?),
        CounterOp::Set(to) => StoredResult::State(set(working_set, tenant, &name, &to)?),
        CounterOp::Create(new) => StoredResult::State(create(working_set, tenant, name, *new)?),
        CounterOp::Delete(expected) => {
            delete(working_set, tenant, name, &expected)?;
            return Ok(Reply::Ack);
        }
    };
    if let Some(once) = &once {
        working_set.idempotency.insert(tenant, once, result);
    }
    Ok(to_reply(result, false))
}

/// The counter as decided so far. `default` is there before it was ever written.
fn counter(working_set: &WorkingSet, tenant: TenantId, name: &CounterName) -> Result<CounterState, Refusal> {
    match working_set.get(&RecordKey::Counter(tenant, name.clone())) {
        Some(Record::Counter(state)) => Ok(*state),
        _ if name.is_default() => Ok(CounterState::default()),
        _ => Err(Refusal::NoSuchCounter),
    }
}

fn write_counter(
    working_set: &mut WorkingSet,
    tenant: TenantId,
    name: &CounterName,
    mut state: CounterState,
) -> CounterState {
    state.version.revision = state.version.revision.saturating_add(1);
    working_set.write(RecordKey::Counter(tenant, name.clone()), Some(Record::Counter(state)));
    state
}

fn advance(working_set: &mut WorkingSet, tenant: TenantId, name: &CounterName, count: u32) -> Result<Issued, Refusal> {
    let mut state = counter(working_set, tenant, name)?;
    let range = state.counter.advance(count)?;
    let version = write_counter(working_set, tenant, name, state).version;
    working_set.increments += 1;
    working_set.integers += u64::from(count);
    Ok(Issued { range, version })
}

fn set(
    working_set: &mut WorkingSet,
    tenant: TenantId,
    name: &CounterName,
    to: &SetCounter,
) -> Result<CounterState, Refusal> {
    let mut state = counter(working_set, tenant, name)?;
    if !to.expected.is_met_by(state.version) {
        return Err(Refusal::PreconditionFailed(state));
    }
    state.counter.set(to.value, to.rewind)?;
    Ok(write_counter(working_set, tenant, name, state))
}

fn create(
    working_set: &mut WorkingSet,
    tenant: TenantId,
    name: CounterName,
    new: NewCounter,
) -> Result<CounterState, Refusal> {
    live_tenant(working_set, tenant)?;
    match counter(working_set, tenant, &name) {
        Ok(_) if name.is_default() => return Err(Refusal::DefaultCounter),
        Ok(_) => return Err(Refusal::CounterExists),
        Err(_) => {}
    }
    let mut usage = usage(working_set, tenant);
    if usage.counters >= new.quota {
        return Err(Refusal::Quota(new.quota));
    }
    usage.counters += 1;
    usage.counters_created = usage.counters_created.saturating_add(1);
    working_set.write(RecordKey::Usage(tenant), Some(Record::Usage(usage)));
    let version = Version { generation: usage.counters_created, revision: 0 };
    let state = CounterState { counter: Counter::new(new.shape), version, created_unix_s: new.created_unix_s };
    working_set.write(RecordKey::Counter(tenant, name.clone()), Some(Record::Counter(state)));
    working_set.write_uncached(RecordKey::IndexEntry(tenant, IndexEntry::Counter(name)), Some(Record::IndexEntry));
    Ok(state)
}

fn delete(
    working_set: &mut WorkingSet,
    tenant: TenantId,
    name: CounterName,
    expected: &Precondition,
) -> Result<(), Refusal> {
    if name.is_default() {
        return Err(Refusal::DefaultCounter);
    }
    let state = counter(working_set, tenant, &name)?;
    if !expected.is_met_by(state.version) {
        return Err(Refusal::PreconditionFailed(state));
    }
    let mut usage = usage(working_set, tenant);
    usage.counters = usage.counters.saturating_sub(1);
    working_set.write(RecordKey::Usage(tenant), Some(Record::Usage(usage)));
    working_set.write(RecordKey::Counter(tenant, name.clone()), None);
    working_set.write_uncached(RecordKey::IndexEntry(tenant, IndexEntry::Counter(name)), None);
    Ok(())
}
