//! Applies commands to the working set; tenant commands are in apply_tenant.rs.
//!
//! Job: name the records that a command reads (`plan`), then apply it in memory, in one go.
//! Invariant: a refused command has written nothing. The value of a counter comes from
//! [`Counter::advance`] and [`Counter::set`] alone.
//! Must never: read a clock, a file, or a record that is not the newest.

use crate::domain::counter::Counter;
use crate::failpoint::failpoint;
use crate::store::embedded::codec::idempotency_page::StoredResult;
use crate::store::embedded::codec::key::{IndexEntry, RecordKey};
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::commit::apply_tenant;
use crate::store::embedded::commit::command::{
    Command, CommandResult, CounterCommand, CounterOp, Reply, TenantOp,
};
use crate::store::embedded::commit::idempotency::Lookup;
use crate::store::embedded::commit::working_set::{ReadSet, WorkingSet, live_tenant, usage};
use crate::store::{
    Applied, CounterState, Issued, NewCounter, Precondition, Proof, Refusal, SetCounter,
    StoreError, Version,
};

/// What has to be known and cached before a command is replayed or applied.
pub(crate) struct Plan {
    /// The result of looking the command's idempotency key up; a miss if it has none.
    pub(crate) lookup: Lookup,
    /// The keys of the records that must be in the cache.
    pub(crate) read_set: ReadSet,
}

/// Plans a command against the current working set.
pub(crate) fn plan(working_set: &WorkingSet, command: &Command) -> Plan {
    let lookup = match command {
        Command::Counter(CounterCommand { tenant, idempotency: Some(token), .. }) => {
            working_set.idempotency.find(*tenant, token)
        }
        _ => Lookup::Miss,
    };
    let read_set = match &lookup {
        // A stored result is replayed, which reads nothing else.
        Lookup::Stored(page, _) => [Some(page.clone()), None, None, None],
        Lookup::Miss | Lookup::InBatch(_) => read_set(command),
    };
    Plan { lookup, read_set }
}

/// The keys of the records that applying `command` reads.
fn read_set(command: &Command) -> ReadSet {
    match command {
        Command::Counter(CounterCommand { tenant, key, op, .. }) => match op {
            CounterOp::Advance(_) | CounterOp::Set(_) => [Some(key.clone()), None, None, None],
            CounterOp::Create(_) | CounterOp::Delete(_) => {
                let usage = Some(RecordKey::Usage(*tenant));
                [Some(key.clone()), usage, Some(RecordKey::Tenant(*tenant)), None]
            }
        },
        Command::Register(tenant) => {
            let name = RecordKey::Name(tenant.name.normalized());
            [Some(RecordKey::Tenants), Some(name), None, None]
        }
        Command::Tenant(tenant, op) => {
            let key = match &**op {
                TenantOp::RevokeKey(_, key) => Some(RecordKey::ApiKey(*key)),
                _ => None,
            };
            let proof = match op.proof() {
                Some(Proof::Key(key)) => Some(RecordKey::ApiKey(key)),
                _ => None,
            };
            [Some(RecordKey::Tenant(*tenant)), Some(RecordKey::Usage(*tenant)), key, proof]
        }
        Command::TouchKey(key, _) => [Some(RecordKey::ApiKey(*key)), None, None, None],
        Command::Load(key) => [Some(key.clone()), None, None, None],
        Command::List(_) => [None, None, None, None],
    }
}

/// Applies a change whose read set is in the cache. The committer handles loads and lists itself.
pub(crate) fn apply(working_set: &mut WorkingSet, command: Command) -> CommandResult {
    match command {
        Command::Counter(command) => apply_counter(working_set, &command),
        Command::Register(tenant) => {
            apply_tenant::register(working_set, *tenant).map(Reply::Registered)
        }
        Command::Tenant(tenant, op) => apply_tenant::change(working_set, tenant, *op),
        Command::TouchKey(key, day) => apply_tenant::touch_key(working_set, key, day),
        Command::Load(_) | Command::List(_) => Err(StoreError::OutcomeUnknown),
    }
}

/// The stored reply, if the command's idempotency key was used for an identical request, or a
/// refusal, if it was used for another one. `None`: the command has to be applied.
pub(crate) fn replay(
    working_set: &WorkingSet,
    command: &Command,
    lookup: &Lookup,
) -> Option<CommandResult> {
    let Command::Counter(CounterCommand { idempotency: Some(token), op, .. }) = command else {
        return None;
    };
    let entry = match lookup {
        Lookup::Miss => return None,
        Lookup::InBatch(entry) => entry,
        Lookup::Stored(page, index) => match working_set.get(page) {
            Some(Record::IdempotencyPage(page)) => page.entries.get(*index)?,
            // The page expired and was removed while it was being loaded.
            _ => return None,
        },
    };
    let is_same_kind = match op {
        CounterOp::Advance(_) => matches!(entry.result, StoredResult::Issued(_)),
        CounterOp::Set(_) | CounterOp::Create(_) => matches!(entry.result, StoredResult::State(_)),
        CounterOp::Delete(_) => false,
    };
    let is_same_request = entry.request_fingerprint == token.request_fingerprint
        || (matches!(lookup, Lookup::InBatch(_)) && failpoint!("batch-replay-not-compared"));
    Some(if is_same_kind && is_same_request {
        Ok(to_reply(entry.result, true))
    } else {
        Err(Refusal::IdempotencyKeyReused.into())
    })
}

fn to_reply(result: StoredResult, replayed: bool) -> Reply {
    match result {
        StoredResult::Issued(result) => Reply::Issued(Applied { result, replayed }),
        StoredResult::State(result) => Reply::State(Applied { result, replayed }),
    }
}

/// Applies a change of a counter, and stores its result under its idempotency key.
pub(crate) fn apply_counter(
    working_set: &mut WorkingSet,
    command: &CounterCommand,
) -> CommandResult {
    if command.idempotency.is_some() {
        working_set.idempotency.check_capacity(command.tenant)?;
    }
    let result = match &command.op {
        CounterOp::Advance(count) => {
            StoredResult::Issued(advance(working_set, &command.key, *count)?)
        }
        CounterOp::Set(to) => StoredResult::State(set(working_set, &command.key, to)?),
        CounterOp::Create(new) => StoredResult::State(create(working_set, command, new)?),
        CounterOp::Delete(precondition) => {
            delete(working_set, command, precondition)?;
            return Ok(Reply::Ack);
        }
    };
    if let Some(token) = &command.idempotency {
        working_set.idempotency.insert(command.tenant, token, result);
    }
    Ok(to_reply(result, false))
}

/// The counter with the changes of this batch. `default` exists before it was ever written.
fn counter(working_set: &WorkingSet, key: &RecordKey) -> Result<CounterState, Refusal> {
    match (working_set.get(key), key) {
        (Some(Record::Counter(state)), _) => Ok(*state),
        (_, RecordKey::Counter(_, name)) if name.is_default() => Ok(CounterState::default()),
        _ => Err(Refusal::NoSuchCounter),
    }
}

/// Writes a changed counter with its next version.
fn write_counter(
    working_set: &mut WorkingSet,
    key: &RecordKey,
    mut state: CounterState,
) -> CounterState {
    state.version.revision = state.version.revision.saturating_add(1);
    working_set.write(key, Some(Record::Counter(state)));
    state
}

fn advance(working_set: &mut WorkingSet, key: &RecordKey, count: u32) -> Result<Issued, Refusal> {
    if failpoint!("increment-from-the-committed-value") {
        working_set.cache.roll_back(key);
    }
    let mut state = counter(working_set, key)?;
    let range = state.counter.advance(count)?;
    let version = write_counter(working_set, key, state).version;
    working_set.increments += 1;
    working_set.integers += u64::from(count);
    Ok(Issued { range, version })
}

fn set(
    working_set: &mut WorkingSet,
    key: &RecordKey,
    to: &SetCounter,
) -> Result<CounterState, Refusal> {
    let mut state = counter(working_set, key)?;
    let is_met = to.precondition.is_met_by(state.version);
    if !is_met && !failpoint!("precondition-of-a-set-ignored") {
        return Err(Refusal::PreconditionFailed(state));
    }
    state.counter.set(to.value, to.rewind)?;
    Ok(write_counter(working_set, key, state))
}

fn create(
    working_set: &mut WorkingSet,
    CounterCommand { tenant, name, key, .. }: &CounterCommand,
    new: &NewCounter,
) -> Result<CounterState, Refusal> {
    live_tenant(working_set, *tenant)?;
    match counter(working_set, key) {
        Ok(_) if name.is_default() => return Err(Refusal::DefaultCounter),
        Ok(_) => return Err(Refusal::CounterExists),
        Err(_) => {}
    }
    let mut usage = usage(working_set, *tenant);
    if usage.counters >= new.quota && !failpoint!("counter-quota-not-checked") {
        return Err(Refusal::Quota(new.quota));
    }
    usage.counters += 1;
    usage.counters_created = usage.counters_created.saturating_add(1);
    working_set.write(&RecordKey::Usage(*tenant), Some(Record::Usage(usage)));
    // The generation distinguishes this counter from a deleted one of the same name.
    let is_reused = failpoint!("generation-of-a-deleted-counter-reused");
    let number = if is_reused { usage.counters.into() } else { usage.counters_created };
    let version = Version { generation: number, revision: 0 };
    let (counter, created_unix_s) = (Counter::new(new.config), new.created_unix_s);
    let state = CounterState { counter, version, created_unix_s };
    working_set.write(key, Some(Record::Counter(state)));
    let entry = RecordKey::IndexEntry(*tenant, IndexEntry::Counter(name.clone()));
    working_set.write_uncached(entry, Some(Record::IndexEntry));
    Ok(state)
}

fn delete(
    working_set: &mut WorkingSet,
    CounterCommand { tenant, name, key, .. }: &CounterCommand,
    precondition: &Precondition,
) -> Result<(), Refusal> {
    if name.is_default() {
        return Err(Refusal::DefaultCounter);
    }
    let state = counter(working_set, key)?;
    let is_met = precondition.is_met_by(state.version);
    if !is_met && !failpoint!("precondition-of-a-deletion-ignored") {
        return Err(Refusal::PreconditionFailed(state));
    }
    let mut usage = usage(working_set, *tenant);
    usage.counters = usage.counters.saturating_sub(1);
    working_set.write(&RecordKey::Usage(*tenant), Some(Record::Usage(usage)));
    working_set.write(key, None);
    let entry = RecordKey::IndexEntry(*tenant, IndexEntry::Counter(name.clone()));
    if !failpoint!("deleted-counter-listed") {
        working_set.write_uncached(entry, None);
    }
    Ok(())
}
