//! The decisions: what a request changes, by the records on the desk.
//!
//! Job: one function for each thing that can be asked, counters here and tenants in tenants.rs. Each names the records that it needs
//! ([`needs`]), and then decides in memory at once.
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
use crate::store::embedded::commit::working_set::{ReadSet, WorkingSet, holdings, living};
use crate::store::{Applied, CounterState, Issued, NewCounter, Precondition, Refusal, SetCounter, StoreError, Version};

/// What is known of the request's idempotency key, if it has one.
pub(crate) fn seen(desk: &WorkingSet, ask: &Command) -> Lookup {
    match ask {
        Command::Counter(CounterCommand { tenant, once: Some(once), .. }) => desk.remembered.find(*tenant, once),
        _ => Lookup::Miss,
    }
}

/// The records that have to be in memory before `ask` can be decided.
pub(crate) fn needs(ask: &Command, seen: &Lookup) -> ReadSet {
    if let Lookup::Stored(page, _) = seen {
        return [Some(page.clone()), None, None];
    }
    match ask {
        Command::Counter(of) => {
            let counter = Some(RecordKey::Counter(of.tenant, of.name.clone()));
            match of.change {
                CounterOp::Advance(_) | CounterOp::Set(_) => [counter, None, None],
                CounterOp::Create(_) | CounterOp::Delete(_) => {
                    [counter, Some(RecordKey::Usage(of.tenant)), Some(RecordKey::Tenant(of.tenant))]
                }
            }
        }
        Command::Register(tenant) => [Some(RecordKey::Tenants), Some(RecordKey::Name(tenant.name.folded())), None],
        Command::Tenant(tenant, of) => {
            let key = match &**of {
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
pub(crate) fn decide(desk: &mut WorkingSet, ask: Command) -> CommandResult {
    match ask {
        Command::Counter(of) => change_counter(desk, of),
        Command::Register(tenant) => apply_tenant::register(desk, *tenant).map(Reply::Registered),
        Command::Tenant(tenant, of) => apply_tenant::change(desk, tenant, *of),
        Command::TouchKey(key, day) => apply_tenant::note_use(desk, key, day),
        Command::Load(_) | Command::List(_) => Err(StoreError::OutcomeUnknown),
    }
}

/// The answer that was given to this request before, if it was; or why it is not this request.
pub(crate) fn replay(desk: &WorkingSet, ask: &Command, seen: &Lookup) -> Option<CommandResult> {
    let Command::Counter(CounterCommand { once: Some(once), change, .. }) = ask else { return None };
    let answered = match seen {
        Lookup::Miss => return None,
        Lookup::InBatch(answered) => answered,
        Lookup::Stored(page, index) => match desk.record(page) {
            Some(Record::IdempotencyPage(answers)) => answers.list.get(*index)?,
            // It expired and was removed while its page was being loaded.
            _ => return None,
        },
    };
    let is_its_kind = match change {
        CounterOp::Advance(_) => matches!(answered.given, StoredResult::Issued(_)),
        CounterOp::Set(_) | CounterOp::Create(_) => matches!(answered.given, StoredResult::State(_)),
        CounterOp::Delete(_) => false,
    };
    let is_it = is_its_kind && answered.request == once.request;
    Some(if is_it { Ok(told(answered.given, true)) } else { Err(Refusal::IdempotencyKeyReused.into()) })
}

fn told(given: StoredResult, replayed: bool) -> Reply {
    match given {
        StoredResult::Issued(result) => Reply::Issued(Applied { result, replayed }),
        StoredResult::State(result) => Reply::State(Applied { result, replayed }),
    }
}

fn change_counter(desk: &mut WorkingSet, of: CounterCommand) -> CommandResult {
    let CounterCommand { tenant, name, change, once } = of;
    if once.is_some() {
        desk.remembered.has_room(tenant)?;
    }
    let given = match change {
        CounterOp::Advance(count) => StoredResult::Issued(advance(desk, tenant, &name, count)?),
        CounterOp::Set(to) => StoredResult::State(set(desk, tenant, &name, &to)?),
        CounterOp::Create(new) => StoredResult::State(create(desk, tenant, name, *new)?),
        CounterOp::Delete(expected) => {
            delete(desk, tenant, name, &expected)?;
            return Ok(Reply::Ack);
        }
    };
    if let Some(once) = &once {
        desk.remembered.note(tenant, once, given);
    }
    Ok(told(given, false))
}

/// The counter as decided so far. `default` is there before it was ever written.
fn counter(desk: &WorkingSet, tenant: TenantId, name: &CounterName) -> Result<CounterState, Refusal> {
    match desk.record(&RecordKey::Counter(tenant, name.clone())) {
        Some(Record::Counter(state)) => Ok(*state),
        _ if name.is_default() => Ok(CounterState::default()),
        _ => Err(Refusal::NoSuchCounter),
    }
}

fn write_counter(desk: &mut WorkingSet, tenant: TenantId, name: &CounterName, mut state: CounterState) -> CounterState {
    state.version.changes = state.version.changes.saturating_add(1);
    desk.write(RecordKey::Counter(tenant, name.clone()), Some(Record::Counter(state)));
    state
}

fn advance(desk: &mut WorkingSet, tenant: TenantId, name: &CounterName, count: u32) -> Result<Issued, Refusal> {
    let mut state = counter(desk, tenant, name)?;
    let range = state.counter.advance(count)?;
    let version = write_counter(desk, tenant, name, state).version;
    desk.increments += 1;
    desk.integers += u64::from(count);
    Ok(Issued { range, version })
}

fn set(desk: &mut WorkingSet, tenant: TenantId, name: &CounterName, to: &SetCounter) -> Result<CounterState, Refusal> {
    let mut state = counter(desk, tenant, name)?;
    if !to.expected.holds(state.version) {
        return Err(Refusal::PreconditionFailed(state));
    }
    state.counter.set(to.value, to.rewind)?;
    Ok(write_counter(desk, tenant, name, state))
}

fn create(
    desk: &mut WorkingSet,
    tenant: TenantId,
    name: CounterName,
    new: NewCounter,
) -> Result<CounterState, Refusal> {
    living(desk, tenant)?;
    match counter(desk, tenant, &name) {
        Ok(_) if name.is_default() => return Err(Refusal::DefaultCounter),
        Ok(_) => return Err(Refusal::CounterExists),
        Err(_) => {}
    }
    let mut holdings = holdings(desk, tenant);
    if holdings.counters >= new.quota {
        return Err(Refusal::Quota(new.quota));
    }
    holdings.counters += 1;
    holdings.born = holdings.born.saturating_add(1);
    desk.write(RecordKey::Usage(tenant), Some(Record::Usage(holdings)));
    let version = Version { born: holdings.born, changes: 0 };
    let state = CounterState { counter: Counter::new(new.shape), version, created_unix_s: new.created_unix_s };
    desk.write(RecordKey::Counter(tenant, name.clone()), Some(Record::Counter(state)));
    desk.pass(RecordKey::IndexEntry(tenant, IndexEntry::Counter(name)), Some(Record::IndexEntry));
    Ok(state)
}

fn delete(desk: &mut WorkingSet, tenant: TenantId, name: CounterName, expected: &Precondition) -> Result<(), Refusal> {
    if name.is_default() {
        return Err(Refusal::DefaultCounter);
    }
    let state = counter(desk, tenant, &name)?;
    if !expected.holds(state.version) {
        return Err(Refusal::PreconditionFailed(state));
    }
    let mut holdings = holdings(desk, tenant);
    holdings.counters = holdings.counters.saturating_sub(1);
    desk.write(RecordKey::Usage(tenant), Some(Record::Usage(holdings)));
    desk.write(RecordKey::Counter(tenant, name.clone()), None);
    desk.pass(RecordKey::IndexEntry(tenant, IndexEntry::Counter(name)), None);
    Ok(())
}
