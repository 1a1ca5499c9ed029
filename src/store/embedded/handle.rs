//! The verbs of [`Store`], asked of the committer or answered from what it published.
//!
//! Job: turn each verb into one or a few [`Command`]s. Invariant: an answer is durable; warm reads take no lock and ask nobody.
//! Must never: touch sled or the journal from a caller's thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::domain::api_key::KeyId;
use crate::domain::counter::CounterName;
use crate::domain::tenant::{PasswordHash, TenantId, TenantName};
use crate::store::embedded::EmbeddedStore;
use crate::store::embedded::codec::key::{IndexEntry, IndexKind, IndexScan, RecordKey, SYSTEM_TENANT};
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::commit::command::{Command, CounterCommand, CounterOp, Reply, TenantOp};
use crate::store::embedded::commit::queue::{QueuedCommand, ReplyChannel, Responder};
use crate::store::embedded::runtime::messages::CommitterMessage;
use crate::store::{
    Applied, CounterState, Health, IdempotencyToken, Issued, KeyRecord, ListedCounter, ListedKey, NewCounter,
    NewTenant, Page, Precondition, Refusal, SetCounter, Store, StoreError, StoreFuture, TenantRecord, TenantUpdate,
    TenantUsage, Unavailable,
};

/// Members that one commit of a deletion removes.
const SWEPT_AT_ONCE: usize = 256;
/// How often a change is tried that others were quicker with.
const TRIES: usize = 16;
/// More keys than any tenant has.
const ALL_KEYS: usize = 65_536;

impl EmbeddedStore {
    pub(crate) async fn ask(&self, ask: Command) -> Result<Reply, StoreError> {
        let (ticket, answer) = Responder::new(self.lane.clone());
        if self.shared.closed.load(Ordering::SeqCst) {
            return Err(self.shared.why_closed());
        }
        if self.shared.queue.push(QueuedCommand { ask, ticket }).is_err() {
            self.shared.metrics.shed.increment(1);
            return Err(Unavailable::Overloaded.into());
        }
        // The committer may have left between the look and the push: then nobody else would empty the queue.
        if self.shared.closed.load(Ordering::SeqCst) {
            self.shared.empty_queue();
        }
        answer.await.unwrap_or(Err(StoreError::OutcomeUnknown))
    }

    /// The record as it was last committed, from memory if it is there.
    async fn record(&self, key: RecordKey) -> Result<Option<Arc<Record>>, StoreError> {
        if let Some(published) = self.shared.window.pin().get(&key) {
            return Ok(published.record());
        }
        match self.ask(Command::Load(key)).await? {
            Reply::Loaded(published) => Ok(published.record()),
            other => unexpected(&other),
        }
    }

    async fn counter(&self, tenant: TenantId, name: &CounterName) -> Result<Option<CounterState>, StoreError> {
        let record = self.record(RecordKey::Counter(tenant, name.clone())).await?;
        Ok(match record.as_deref() {
            Some(Record::Counter(state)) => Some(*state),
            _ => name.is_default().then(CounterState::default),
        })
    }

    async fn list(
        &self,
        tenant: TenantId,
        shelf: IndexKind,
        after: Option<IndexEntry>,
        limit: usize,
    ) -> Result<Vec<IndexEntry>, StoreError> {
        match self.ask(Command::List(IndexScan { tenant, shelf, after, limit })).await? {
            Reply::Listed(members) => Ok(members),
            other => unexpected(&other),
        }
    }

    async fn key_ids(&self, tenant: TenantId, after: Option<KeyId>, limit: usize) -> Result<Vec<KeyId>, StoreError> {
        let members = self.list(tenant, IndexKind::ApiKeys, after.map(IndexEntry::ApiKey), limit).await?;
        let id = |member| if let IndexEntry::ApiKey(id) = member { Some(id) } else { None };
        Ok(members.into_iter().filter_map(id).collect())
    }

    async fn ask_of_tenant(&self, tenant: TenantId, of: TenantOp) -> Result<Reply, StoreError> {
        self.ask(Command::Tenant(tenant, Box::new(of))).await
    }

    async fn change(
        &self,
        tenant: TenantId,
        name: &CounterName,
        change: CounterOp,
        once: Option<IdempotencyToken>,
    ) -> Result<Reply, StoreError> {
        self.ask(Command::Counter(CounterCommand { tenant, name: name.clone(), change, once })).await
    }

    async fn change_state(
        &self,
        tenant: TenantId,
        name: &CounterName,
        change: CounterOp,
        once: Option<IdempotencyToken>,
    ) -> Result<Applied<CounterState>, StoreError> {
        match self.change(tenant, name, change, once).await? {
            Reply::State(done) => Ok(done),
            other => unexpected(&other),
        }
    }

    /// Removes what a doomed tenant has, and then the tenant.
    async fn bury(&self, tenant: TenantId) -> Result<(), StoreError> {
        for shelf in [IndexKind::ApiKeys, IndexKind::Counters] {
            loop {
                let members = self.list(tenant, shelf, None, SWEPT_AT_ONCE).await?;
                if members.is_empty() {
                    break;
                }
                self.ask_of_tenant(tenant, TenantOp::PurgeMembers(members)).await?;
            }
        }
        self.ask_of_tenant(tenant, TenantOp::RemoveTenant).await.map(drop)
    }

    /// Goes on with deletions that an earlier process began. Call it once, when the store is open.
    ///
    /// # Errors
    /// [`StoreError`]; the next start goes on.
    pub async fn finish_deletions(&self) -> Result<(), StoreError> {
        loop {
            let doomed = self.list(SYSTEM_TENANT, IndexKind::Deleting, None, SWEPT_AT_ONCE).await?;
            if doomed.is_empty() {
                return Ok(());
            }
            for member in doomed {
                if let IndexEntry::Deleting(tenant) = member {
                    self.bury(tenant).await?;
                }
            }
        }
    }
}

fn unexpected<T>(answer: &Reply) -> Result<T, StoreError> {
    unreachable!("the committer answered what was not asked: {answer:?}")
}

/// Takes the last one away if it only shows that more follow, and tells whether it did.
fn cut<T>(mut items: Vec<T>, limit: usize) -> (Vec<T>, bool) {
    let more = items.len() > limit;
    items.truncate(limit);
    (items, more)
}

impl Store for EmbeddedStore {
    fn register(&self, tenant: NewTenant) -> StoreFuture<'_, TenantId> {
        Box::pin(async move {
            match self.ask(Command::Register(Box::new(tenant))).await? {
                Reply::Registered(id) => Ok(id),
                other => unexpected(&other),
            }
        })
    }

    fn find_key(&self, key: KeyId) -> StoreFuture<'_, Option<Arc<KeyRecord>>> {
        Box::pin(async move {
            let record = self.record(RecordKey::ApiKey(key)).await?;
            Ok(record.and_then(|record| match &*record {
                Record::ApiKey(key) => Some(Arc::clone(key)),
                _ => None,
            }))
        })
    }

    fn find_tenant(&self, tenant: TenantId) -> StoreFuture<'_, Option<Arc<TenantRecord>>> {
        Box::pin(async move {
            let record = self.record(RecordKey::Tenant(tenant)).await?;
            Ok(record.and_then(|record| match &*record {
                Record::Tenant(tenant) if !tenant.doomed => Some(Arc::clone(tenant)),
                _ => None,
            }))
        })
    }

    fn find_name(&self, name: &TenantName) -> StoreFuture<'_, Option<TenantId>> {
        let key = RecordKey::Name(name.folded());
        Box::pin(async move {
            let record = self.record(key).await?;
            Ok(record.and_then(|record| match &*record {
                Record::Name(tenant) => Some(*tenant),
                _ => None,
            }))
        })
    }

    fn last_tenant(&self) -> StoreFuture<'_, TenantId> {
        Box::pin(async move {
            let record = self.record(RecordKey::Tenants).await?;
            Ok(match record.as_deref() {
                Some(Record::Tenants(count)) => TenantId(*count),
                _ => TenantId(0),
            })
        })
    }

    fn holdings(&self, tenant: TenantId) -> StoreFuture<'_, TenantUsage> {
        Box::pin(async move {
            let record = self.record(RecordKey::Usage(tenant)).await?;
            Ok(match record.as_deref() {
                Some(Record::Usage(holdings)) => *holdings,
                _ => TenantUsage::default(),
            })
        })
    }

    fn change_tenant(&self, tenant: TenantId, change: TenantUpdate) -> StoreFuture<'_, Arc<TenantRecord>> {
        Box::pin(async move {
            match self.ask_of_tenant(tenant, TenantOp::Update(change)).await? {
                Reply::Tenant(tenant) => Ok(tenant),
                other => unexpected(&other),
            }
        })
    }

    fn change_password(&self, tenant: TenantId, password: PasswordHash, revoke_keys: bool) -> StoreFuture<'_, u32> {
        Box::pin(async move {
            for _ in 0..TRIES {
                let keys = if revoke_keys { Some(self.key_ids(tenant, None, ALL_KEYS).await?) } else { None };
                let count = keys.as_ref().map_or(0, |keys| u32::try_from(keys.len()).unwrap_or(u32::MAX));
                match self.ask_of_tenant(tenant, TenantOp::Password(password, keys)).await? {
                    Reply::Tenant(_) => return Ok(count),
                    Reply::Conflict => {}
                    other => return unexpected(&other),
                }
            }
            Err(Unavailable::Overloaded.into())
        })
    }

    fn delete_tenant(&self, tenant: TenantId) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.ask_of_tenant(tenant, TenantOp::MarkDeleted).await?;
            self.bury(tenant).await
        })
    }

    fn add_key(&self, id: KeyId, key: KeyRecord, quota: u32) -> StoreFuture<'_, ()> {
        Box::pin(async move { self.ask_of_tenant(key.tenant, TenantOp::AddKey(id, key, quota)).await.map(drop) })
    }

    fn keys(&self, tenant: TenantId, after: Option<KeyId>, limit: usize) -> StoreFuture<'_, Page<ListedKey>> {
        Box::pin(async move {
            let (ids, more) = cut(self.key_ids(tenant, after, limit + 1).await?, limit);
            let mut items = Vec::with_capacity(ids.len());
            for id in ids {
                // One that was revoked since it was listed is gone.
                if let Some(record) = self.find_key(id).await? {
                    items.push((id, record));
                }
            }
            Ok(Page { items, more })
        })
    }

    fn revoke_key(&self, tenant: TenantId, key: KeyId) -> StoreFuture<'_, ()> {
        Box::pin(async move { self.ask_of_tenant(tenant, TenantOp::RevokeKey(key)).await.map(drop) })
    }

    fn note_use(&self, key: KeyId, day: u32) -> StoreFuture<'_, ()> {
        Box::pin(async move { self.ask(Command::TouchKey(key, day)).await.map(drop) })
    }

    fn current(&self, tenant: TenantId, name: &CounterName) -> StoreFuture<'_, CounterState> {
        let name = name.clone();
        Box::pin(async move { self.counter(tenant, &name).await?.ok_or(Refusal::NoSuchCounter.into()) })
    }

    fn counters(
        &self,
        tenant: TenantId,
        after: Option<CounterName>,
        limit: usize,
    ) -> StoreFuture<'_, Page<ListedCounter>> {
        Box::pin(async move {
            let default = CounterName::default_counter();
            let with_default = after.as_ref().is_none_or(|after| *after < default);
            let members = self.list(tenant, IndexKind::Counters, after.map(IndexEntry::Counter), limit + 1).await?;
            let mut names: Vec<CounterName> = members
                .into_iter()
                .filter_map(|member| match member {
                    IndexEntry::Counter(name) => Some(name),
                    _ => None,
                })
                .collect();
            if with_default {
                names.insert(names.partition_point(|name| *name < default), default);
            }
            let (names, more) = cut(names, limit);
            let mut items = Vec::with_capacity(names.len());
            for name in names {
                if let Some(state) = self.counter(tenant, &name).await? {
                    items.push((name, state));
                }
            }
            Ok(Page { items, more })
        })
    }

    fn create(
        &self,
        tenant: TenantId,
        name: &CounterName,
        new: NewCounter,
        once: Option<IdempotencyToken>,
    ) -> StoreFuture<'_, Applied<CounterState>> {
        let name = name.clone();
        Box::pin(async move { self.change_state(tenant, &name, CounterOp::Create(Box::new(new)), once).await })
    }

    fn advance(
        &self,
        tenant: TenantId,
        name: &CounterName,
        count: u32,
        once: Option<IdempotencyToken>,
    ) -> StoreFuture<'_, Applied<Issued>> {
        let name = name.clone();
        Box::pin(async move {
            match self.change(tenant, &name, CounterOp::Advance(count), once).await? {
                Reply::Issued(done) => Ok(done),
                other => unexpected(&other),
            }
        })
    }

    fn set(
        &self,
        tenant: TenantId,
        name: &CounterName,
        to: SetCounter,
        once: Option<IdempotencyToken>,
    ) -> StoreFuture<'_, Applied<CounterState>> {
        let name = name.clone();
        Box::pin(async move { self.change_state(tenant, &name, CounterOp::Set(Box::new(to)), once).await })
    }

    fn delete(&self, tenant: TenantId, name: &CounterName, expected: Precondition) -> StoreFuture<'_, ()> {
        let name = name.clone();
        Box::pin(async move { self.change(tenant, &name, CounterOp::Delete(expected), None).await.map(drop) })
    }

    fn health(&self) -> Health {
        **self.shared.health.load()
    }

    fn poisoned(&self) -> StoreFuture<'_, Arc<str>> {
        let mut watch = self.shared.poisoned.subscribe();
        Box::pin(async move {
            let reason = watch.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
            reason.ok_or(StoreError::Unavailable(Unavailable::Closing))
        })
    }

    fn for_worker(&self) -> Arc<dyn Store> {
        let lane = Arc::new(ReplyChannel::default());
        tokio::spawn(Arc::clone(&lane).run());
        Arc::new(Self { lane: Some(lane), ..self.clone() })
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.shared.queue.tell(CommitterMessage::Close);
            let thread = self.committer.lock().ok().and_then(|mut thread| thread.take());
            if let Some(thread) = thread {
                let _ = tokio::task::spawn_blocking(move || thread.join()).await;
            }
            Ok(())
        })
    }
}
