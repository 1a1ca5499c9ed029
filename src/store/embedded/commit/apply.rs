//! The decisions: what a request changes, by the records on the desk.
//!
//! Job: one function for each thing that can be asked, counters here and tenants in tenants.rs. Each names the records that it needs
//! ([`needs`]), and then decides in memory at once.
//! Invariant: a refusal has written nothing. The value of a counter comes from [`Counter::advance`] and [`Counter::set`] alone.
//! Must never: read a clock, a disk or a record that is not the newest.

use crate::domain::counter::{Counter, CounterName};
use crate::domain::tenant::TenantId;
use crate::store::embedded::codec::idempotency_page::Given;
use crate::store::embedded::codec::key::{Key, Member};
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::commit::apply_tenant;
use crate::store::embedded::commit::command::{Answer, Ask, CounterChange, OfCounter, OfTenant, Outcome};
use crate::store::embedded::commit::idempotency::Seen;
use crate::store::embedded::commit::working_set::{Desk, Needs, holdings, living};
use crate::store::{CounterState, Done, Expected, Issued, NewCounter, Refusal, SetTo, StoreError, Version};

/// What is known of the request's idempotency key, if it has one.
pub(crate) fn seen(desk: &Desk, ask: &Ask) -> Seen {
    match ask {
        Ask::Counter(OfCounter { tenant, once: Some(once), .. }) => desk.remembered.find(*tenant, once),
        _ => Seen::New,
    }
}

/// The records that have to be in memory before `ask` can be decided.
pub(crate) fn needs(ask: &Ask, seen: &Seen) -> Needs {
    if let Seen::Before(page, _) = seen {
        return [Some(page.clone()), None, None];
    }
    match ask {
        Ask::Counter(of) => {
            let counter = Some(Key::Counter(of.tenant, of.name.clone()));
            match of.change {
                CounterChange::Advance(_) | CounterChange::Set(_) => [counter, None, None],
                CounterChange::Create(_) | CounterChange::Delete(_) => {
                    [counter, Some(Key::Holdings(of.tenant)), Some(Key::Tenant(of.tenant))]
                }
            }
        }
        Ask::Register(tenant) => [Some(Key::Tenants), Some(Key::Name(tenant.name.folded())), None],
        Ask::Tenant(tenant, of) => {
            let key = match &**of {
                OfTenant::RevokeKey(key) => Some(Key::ApiKey(*key)),
                _ => None,
            };
            [Some(Key::Tenant(*tenant)), Some(Key::Holdings(*tenant)), key]
        }
        Ask::Used(key, _) => [Some(Key::ApiKey(*key)), None, None],
        Ask::Load(key) => [Some(key.clone()), None, None],
        Ask::List(_) => [None, None, None],
    }
}

/// Decides a change of something. Loads and lists are not decided here.
pub(crate) fn decide(desk: &mut Desk, ask: Ask) -> Outcome {
    match ask {
        Ask::Counter(of) => change_counter(desk, of),
        Ask::Register(tenant) => apply_tenant::register(desk, *tenant).map(Answer::Registered),
        Ask::Tenant(tenant, of) => apply_tenant::change(desk, tenant, *of),
        Ask::Used(key, day) => apply_tenant::note_use(desk, key, day),
        Ask::Load(_) | Ask::List(_) => Err(StoreError::OutcomeUnknown),
    }
}

/// The answer that was given to this request before, if it was; or why it is not this request.
pub(crate) fn replay(desk: &Desk, ask: &Ask, seen: &Seen) -> Option<Outcome> {
    let Ask::Counter(OfCounter { once: Some(once), change, .. }) = ask else { return None };
    let answered = match seen {
        Seen::New => return None,
        Seen::Now(answered) => answered,
        Seen::Before(page, index) => match desk.record(page) {
            Some(Record::Answers(answers)) => answers.list.get(*index)?,
            // It expired and was removed while its page was being loaded.
            _ => return None,
        },
    };
    let is_its_kind = match change {
        CounterChange::Advance(_) => matches!(answered.given, Given::Issued(_)),
        CounterChange::Set(_) | CounterChange::Create(_) => matches!(answered.given, Given::State(_)),
        CounterChange::Delete(_) => false,
    };
    let is_it = is_its_kind && answered.request == once.request;
    Some(if is_it { Ok(told(answered.given, true)) } else { Err(Refusal::KeyReused.into()) })
}

fn told(given: Given, replayed: bool) -> Answer {
    match given {
        Given::Issued(result) => Answer::Issued(Done { result, replayed }),
        Given::State(result) => Answer::State(Done { result, replayed }),
    }
}

fn change_counter(desk: &mut Desk, of: OfCounter) -> Outcome {
    let OfCounter { tenant, name, change, once } = of;
    if once.is_some() {
        desk.remembered.has_room(tenant)?;
    }
    let given = match change {
        CounterChange::Advance(count) => Given::Issued(advance(desk, tenant, &name, count)?),
        CounterChange::Set(to) => Given::State(set(desk, tenant, &name, &to)?),
        CounterChange::Create(new) => Given::State(create(desk, tenant, name, *new)?),
        CounterChange::Delete(expected) => {
            delete(desk, tenant, name, &expected)?;
            return Ok(Answer::Done);
        }
    };
    if let Some(once) = &once {
        desk.remembered.note(tenant, once, given);
    }
    Ok(told(given, false))
}

/// The counter as decided so far. `default` is there before it was ever written.
fn counter(desk: &Desk, tenant: TenantId, name: &CounterName) -> Result<CounterState, Refusal> {
    match desk.record(&Key::Counter(tenant, name.clone())) {
        Some(Record::Counter(state)) => Ok(*state),
        _ if name.is_default() => Ok(CounterState::default()),
        _ => Err(Refusal::NoSuchCounter),
    }
}

fn write_counter(desk: &mut Desk, tenant: TenantId, name: &CounterName, mut state: CounterState) -> CounterState {
    state.version.changes = state.version.changes.saturating_add(1);
    desk.write(Key::Counter(tenant, name.clone()), Some(Record::Counter(state)));
    state
}

fn advance(desk: &mut Desk, tenant: TenantId, name: &CounterName, count: u32) -> Result<Issued, Refusal> {
    let mut state = counter(desk, tenant, name)?;
    let range = state.counter.advance(count)?;
    let version = write_counter(desk, tenant, name, state).version;
    desk.increments += 1;
    desk.integers += u64::from(count);
    Ok(Issued { range, version })
}

fn set(desk: &mut Desk, tenant: TenantId, name: &CounterName, to: &SetTo) -> Result<CounterState, Refusal> {
    let mut state = counter(desk, tenant, name)?;
    if !to.expected.holds(state.version) {
        return Err(Refusal::Unexpected(state));
    }
    state.counter.set(to.value, to.rewind)?;
    Ok(write_counter(desk, tenant, name, state))
}

fn create(desk: &mut Desk, tenant: TenantId, name: CounterName, new: NewCounter) -> Result<CounterState, Refusal> {
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
    desk.write(Key::Holdings(tenant), Some(Record::Holdings(holdings)));
    let version = Version { born: holdings.born, changes: 0 };
    let state = CounterState { counter: Counter::new(new.shape), version, created_unix_s: new.created_unix_s };
    desk.write(Key::Counter(tenant, name.clone()), Some(Record::Counter(state)));
    desk.pass(Key::Member(tenant, Member::Counter(name)), Some(Record::Member));
    Ok(state)
}

fn delete(desk: &mut Desk, tenant: TenantId, name: CounterName, expected: &Expected) -> Result<(), Refusal> {
    if name.is_default() {
        return Err(Refusal::DefaultCounter);
    }
    let state = counter(desk, tenant, &name)?;
    if !expected.holds(state.version) {
        return Err(Refusal::Unexpected(state));
    }
    let mut holdings = holdings(desk, tenant);
    holdings.counters = holdings.counters.saturating_sub(1);
    desk.write(Key::Holdings(tenant), Some(Record::Holdings(holdings)));
    desk.write(Key::Counter(tenant, name.clone()), None);
    desk.pass(Key::Member(tenant, Member::Counter(name)), None);
    Ok(())
}
