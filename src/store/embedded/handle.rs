//! The operations of [`Store`] on the embedded store's handle.
//!
//! Job: turn each operation into one or a few [`Command`]s, submit them to the committer and await
//! the replies; serve reads of cached records from the read view.
//! Invariant: a reply is durable; a read of a cached record takes no lock and waits for no thread.
//! Must never: use sled or the journal from a caller's thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::domain::api_key::KeyId;
use crate::domain::counter::CounterName;
use crate::domain::tenant::{PasswordHash, TenantId, TenantName};
use crate::failpoint::failpoint;
use crate::store::embedded::EmbeddedStore;
use crate::store::embedded::codec::key::{
    IndexEntry, IndexKind, IndexScan, RecordKey, SYSTEM_TENANT,
};
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::commit::command::{
    Command, CounterCommand, CounterOp, Reply, TenantOp,
};
use crate::store::embedded::commit::queue::{QueuedCommand, ReplyChannel, Responder};
use crate::store::embedded::runtime::messages::CommitterMessage;
use crate::store::{
    Applied, CounterState, FoundKey, Health, IdempotencyToken, Issued, KeyRecord, ListedCounter,
    ListedKey, NewCounter, NewTenant, Page, Precondition, Proof, Refusal, SetCounter, Store,
    StoreError, StoreFuture, TenantRecord, TenantUpdate, TenantUsage, Unavailable,
};

/// The number of objects that one commit of a purge removes.
const PURGE_BATCH: usize = 256;
/// A list limit that is larger than any quota of API keys.
const NO_LIMIT: usize = 65_536;

impl EmbeddedStore {
    /// Submits a command to the committer and awaits its reply.
    pub(crate) async fn submit(&self, command: Command) -> Result<Reply, StoreError> {
        let (responder, reply) = Responder::new(self.replies.clone());
        if self.shared.closed.load(Ordering::SeqCst) {
            return Err(self.shared.closed_error());
        }
        if self.shared.queue.push(QueuedCommand { command, responder }).is_err() {
            self.shared.metrics.shed.increment(1);
            return Err(Unavailable::Overloaded.into());
        }
        // The committer may have ended between the first check and the push. Then no other thread
        // would empty the queue.
        if self.shared.closed.load(Ordering::SeqCst) {
            self.shared.reject_queued();
        }
        reply.await.unwrap_or(Err(StoreError::OutcomeUnknown))
    }

    /// The committed record: from the read view if it is cached, else loaded by the committer.
    async fn record(&self, key: RecordKey) -> Result<Option<Arc<Record>>, StoreError> {
        if let Some(committed) = self.shared.read_view.pin().get(&key) {
            return Ok(committed.record());
        }
        match self.submit(Command::Load(key)).await? {
            Reply::Loaded(committed) => Ok(committed.record()),
            other => wrong_reply(&other),
        }
    }

    /// A tenant that is not deleted.
    async fn tenant(&self, tenant: TenantId) -> Result<Option<Arc<TenantRecord>>, StoreError> {
        let record = self.record(RecordKey::Tenant(tenant)).await?;
        Ok(record.and_then(|record| match &*record {
            Record::Tenant(tenant) if !tenant.deleting => Some(Arc::clone(tenant)),
            _ => None,
        }))
    }

    /// The record of an API key, which may be revoked by a later epoch of its tenant.
    async fn key_record(&self, key: KeyId) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        let record = self.record(RecordKey::ApiKey(key)).await?;
        Ok(record.and_then(|record| match &*record {
            Record::ApiKey(key) => Some(Arc::clone(key)),
            _ => None,
        }))
    }

    /// A counter; `default` exists before it was ever written.
    async fn counter(
        &self,
        tenant: TenantId,
        name: &CounterName,
    ) -> Result<Option<CounterState>, StoreError> {
        let tenant = if failpoint!("counter-of-another-tenant") { TenantId(1) } else { tenant };
        let record = self.record(RecordKey::Counter(tenant, name.clone())).await?;
        Ok(match record.as_deref() {
            Some(Record::Counter(state)) => Some(*state),
            _ => name.is_default().then(CounterState::default),
        })
    }

    async fn list(
        &self,
        tenant: TenantId,
        index_kind: IndexKind,
        after: Option<IndexEntry>,
        limit: usize,
    ) -> Result<Vec<IndexEntry>, StoreError> {
        let scan = IndexScan { tenant, index_kind, after, limit };
        match self.submit(Command::List(scan)).await? {
            Reply::Listed(entries) => Ok(entries),
            other => wrong_reply(&other),
        }
    }

    async fn key_ids(
        &self,
        tenant: TenantId,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<KeyId>, StoreError> {
        let after = after.map(IndexEntry::ApiKey);
        let entries = self.list(tenant, IndexKind::ApiKeys, after, limit).await?;
        let id = |entry| if let IndexEntry::ApiKey(id) = entry { Some(id) } else { None };
        Ok(entries.into_iter().filter_map(id).collect())
    }

    async fn submit_tenant(&self, tenant: TenantId, op: TenantOp) -> Result<Reply, StoreError> {
        self.submit(Command::Tenant(tenant, Box::new(op))).await
    }

    async fn submit_counter(
        &self,
        tenant: TenantId,
        name: CounterName,
        op: CounterOp,
        idempotency: Option<IdempotencyToken>,
    ) -> Result<Reply, StoreError> {
        let command = CounterCommand::new(tenant, name, op, idempotency);
        self.submit(Command::Counter(command)).await
    }

    async fn submit_counter_state(
        &self,
        tenant: TenantId,
        name: CounterName,
        op: CounterOp,
        idempotency: Option<IdempotencyToken>,
    ) -> Result<Applied<CounterState>, StoreError> {
        match self.submit_counter(tenant, name, op, idempotency).await? {
            Reply::State(applied) => Ok(applied),
            other => wrong_reply(&other),
        }
    }

    /// Purges the data of a tenant that is marked deleted, then removes the tenant.
    async fn purge_tenant(&self, tenant: TenantId) -> Result<(), StoreError> {
        for index_kind in [IndexKind::ApiKeys, IndexKind::Counters] {
            loop {
                let entries = self.list(tenant, index_kind, None, PURGE_BATCH).await?;
                if entries.is_empty() {
                    break;
                }
                self.submit_tenant(tenant, TenantOp::PurgeMembers(entries)).await?;
            }
        }
        self.submit_tenant(tenant, TenantOp::RemoveTenant).await.map(drop)
    }

    /// Removes the records of API keys that an earlier epoch of the tenant revoked.
    async fn purge_revoked_keys(&self, tenant: TenantId) -> Result<(), StoreError> {
        let Some(record) = self.tenant(tenant).await? else { return Ok(()) };
        let mut revoked = Vec::new();
        for id in self.key_ids(tenant, None, NO_LIMIT).await? {
            // A key's epoch never changes and an id is never used twice, so a key that is revoked
            // here still is when the committer removes it.
            if self.key_record(id).await?.is_some_and(|key| key.epoch < record.key_epoch) {
                revoked.push(IndexEntry::ApiKey(id));
            }
        }
        for batch in revoked.chunks(PURGE_BATCH) {
            self.submit_tenant(tenant, TenantOp::PurgeMembers(batch.to_vec())).await?;
        }
        Ok(())
    }

    /// Resumes deletions that an earlier process began. Call it once, after the store was opened.
    ///
    /// # Errors
    /// [`StoreError`]; the next start resumes them.
    pub async fn resume_deletions(&self) -> Result<(), StoreError> {
        loop {
            let deleting = self.list(SYSTEM_TENANT, IndexKind::Deleting, None, PURGE_BATCH).await?;
            if deleting.is_empty() {
                return Ok(());
            }
            for entry in deleting {
                if let IndexEntry::Deleting(tenant) = entry {
                    self.purge_tenant(tenant).await?;
                }
            }
        }
    }
}

fn wrong_reply<T>(reply: &Reply) -> Result<T, StoreError> {
    unreachable!("the committer sent a reply of the wrong kind: {reply:?}")
}

/// Removes the look-ahead item, if there is one; returns whether there is a next page.
fn split_page<T>(mut items: Vec<T>, limit: usize) -> (Vec<T>, bool) {
    let more = items.len() > limit;
    items.truncate(limit);
    (items, more)
}

impl Store for EmbeddedStore {
    fn register(&self, tenant: NewTenant) -> StoreFuture<'_, TenantId> {
        Box::pin(async move {
            match self.submit(Command::Register(Box::new(tenant))).await? {
                Reply::Registered(id) => Ok(id),
                other => wrong_reply(&other),
            }
        })
    }

    fn api_key(&self, key: KeyId) -> StoreFuture<'_, Option<FoundKey>> {
        Box::pin(async move {
            let Some(key) = self.key_record(key).await? else { return Ok(None) };
            // The tenant is read after the key, so an epoch that is newer than the key is seen.
            let tenant = self.tenant(key.tenant).await?;
            let is_valid = |tenant: &Arc<TenantRecord>| {
                tenant.key_epoch == key.epoch || failpoint!("key-epoch-not-compared")
            };
            Ok(tenant.filter(is_valid).map(|tenant| (key, tenant)))
        })
    }

    fn find_tenant(&self, tenant: TenantId) -> StoreFuture<'_, Option<Arc<TenantRecord>>> {
        Box::pin(self.tenant(tenant))
    }

    fn tenant_by_name(&self, name: &TenantName) -> StoreFuture<'_, Option<TenantId>> {
        let key = RecordKey::Name(name.normalized());
        Box::pin(async move {
            let record = self.record(key).await?;
            Ok(record.and_then(|record| match &*record {
                Record::Name(tenant) => Some(*tenant),
                _ => None,
            }))
        })
    }

    fn last_tenant_id(&self) -> StoreFuture<'_, TenantId> {
        Box::pin(async move {
            let record = self.record(RecordKey::Tenants).await?;
            Ok(match record.as_deref() {
                Some(Record::Tenants(count)) => TenantId(*count),
                _ => TenantId(0),
            })
        })
    }

    fn usage(&self, tenant: TenantId) -> StoreFuture<'_, TenantUsage> {
        Box::pin(async move {
            let record = self.record(RecordKey::Usage(tenant)).await?;
            Ok(match record.as_deref() {
                Some(Record::Usage(usage)) => *usage,
                _ => TenantUsage::default(),
            })
        })
    }

    fn change_tenant(
        &self,
        tenant: TenantId,
        update: TenantUpdate,
    ) -> StoreFuture<'_, Arc<TenantRecord>> {
        Box::pin(async move {
            match self.submit_tenant(tenant, TenantOp::Update(update)).await? {
                Reply::Tenant(tenant) => Ok(tenant),
                other => wrong_reply(&other),
            }
        })
    }

    fn change_password(
        &self,
        tenant: TenantId,
        proof: Proof,
        password: PasswordHash,
        revoke_keys: bool,
    ) -> StoreFuture<'_, u32> {
        Box::pin(async move {
            let op = TenantOp::Password(proof, password, revoke_keys);
            let revoked = match self.submit_tenant(tenant, op).await? {
                Reply::PasswordChanged(revoked) => revoked,
                other => return wrong_reply(&other),
            };
            if revoke_keys {
                // The keys are revoked, whatever happens now. Records that stay behind are removed
                // after the next change of this kind, or with the tenant.
                let _ = self.purge_revoked_keys(tenant).await;
            }
            Ok(revoked)
        })
    }

    fn delete_tenant(&self, tenant: TenantId, proof: Proof) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.submit_tenant(tenant, TenantOp::MarkDeleted(proof)).await?;
            self.purge_tenant(tenant).await
        })
    }

    fn add_key(&self, id: KeyId, key: KeyRecord, proof: Proof, quota: u32) -> StoreFuture<'_, ()> {
        let (tenant, op) = (key.tenant, TenantOp::AddKey(proof, id, key, quota));
        Box::pin(async move { self.submit_tenant(tenant, op).await.map(drop) })
    }

    fn list_api_keys(
        &self,
        tenant: TenantId,
        after: Option<KeyId>,
        limit: usize,
    ) -> StoreFuture<'_, Page<ListedKey>> {
        Box::pin(async move {
            let (ids, more) = split_page(self.key_ids(tenant, after, limit + 1).await?, limit);
            let mut items = Vec::with_capacity(ids.len());
            for id in ids {
                // A key that was revoked after the scan, or by an earlier epoch, is left out.
                if let Some((record, _)) = self.api_key(id).await? {
                    items.push((id, record));
                }
            }
            Ok(Page { items, more })
        })
    }

    fn revoke_key(&self, tenant: TenantId, key: KeyId, proof: Proof) -> StoreFuture<'_, ()> {
        let op = TenantOp::RevokeKey(proof, key);
        Box::pin(async move { self.submit_tenant(tenant, op).await.map(drop) })
    }

    fn touch_api_key(&self, key: KeyId, day: u32) -> StoreFuture<'_, ()> {
        Box::pin(async move { self.submit(Command::TouchKey(key, day)).await.map(drop) })
    }

    fn get_counter(&self, tenant: TenantId, name: &CounterName) -> StoreFuture<'_, CounterState> {
        let name = name.clone();
        Box::pin(async move {
            let state = self.counter(tenant, &name).await?;
            state.ok_or(Refusal::NoSuchCounter.into())
        })
    }

    fn list_counters(
        &self,
        tenant: TenantId,
        after: Option<CounterName>,
        limit: usize,
    ) -> StoreFuture<'_, Page<ListedCounter>> {
        Box::pin(async move {
            let default = CounterName::default_counter();
            // `default` has no index entry, because every tenant has it.
            let has_default = after.as_ref().is_none_or(|after| *after < default);
            let after = after.map(IndexEntry::Counter);
            // One more than requested, to see whether there is a next page.
            let entries = self.list(tenant, IndexKind::Counters, after, limit + 1).await?;
            let name =
                |entry| if let IndexEntry::Counter(name) = entry { Some(name) } else { None };
            let mut names: Vec<CounterName> = entries.into_iter().filter_map(name).collect();
            if has_default {
                names.insert(names.partition_point(|name| *name < default), default);
            }
            let (names, more) = split_page(names, limit);
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
        idempotency: Option<IdempotencyToken>,
    ) -> StoreFuture<'_, Applied<CounterState>> {
        let name = name.clone();
        let op = CounterOp::Create(Box::new(new));
        Box::pin(async move { self.submit_counter_state(tenant, name, op, idempotency).await })
    }

    fn advance(
        &self,
        tenant: TenantId,
        name: &CounterName,
        count: u32,
        idempotency: Option<IdempotencyToken>,
    ) -> StoreFuture<'_, Applied<Issued>> {
        let name = name.clone();
        Box::pin(async move {
            let op = CounterOp::Advance(count);
            match self.submit_counter(tenant, name, op, idempotency).await? {
                Reply::Issued(applied) => Ok(applied),
                other => wrong_reply(&other),
            }
        })
    }

    fn set(
        &self,
        tenant: TenantId,
        name: &CounterName,
        to: SetCounter,
        idempotency: Option<IdempotencyToken>,
    ) -> StoreFuture<'_, Applied<CounterState>> {
        let name = name.clone();
        let op = CounterOp::Set(Box::new(to));
        Box::pin(async move { self.submit_counter_state(tenant, name, op, idempotency).await })
    }

    fn delete(
        &self,
        tenant: TenantId,
        name: &CounterName,
        precondition: Precondition,
    ) -> StoreFuture<'_, ()> {
        let (name, op) = (name.clone(), CounterOp::Delete(precondition));
        Box::pin(async move { self.submit_counter(tenant, name, op, None).await.map(drop) })
    }

    fn health(&self) -> Health {
        **self.shared.health.load()
    }

    fn wait_poisoned(&self) -> StoreFuture<'_, Arc<str>> {
        let mut watch = self.shared.poisoned.subscribe();
        Box::pin(async move {
            let reason = watch.wait_for(Option::is_some).await.ok();
            let reason = reason.and_then(|reason| reason.clone());
            reason.ok_or(StoreError::Unavailable(Unavailable::Closing))
        })
    }

    fn for_worker(&self) -> Arc<dyn Store> {
        let replies = Arc::new(ReplyChannel::default());
        tokio::spawn(Arc::clone(&replies).run());
        Arc::new(Self { replies: Some(replies), ..self.clone() })
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.shared.queue.send_control(CommitterMessage::Close);
            let thread = self.committer.lock().ok().and_then(|mut thread| thread.take());
            if let Some(thread) = thread {
                let _ = tokio::task::spawn_blocking(move || thread.join()).await;
            }
            Ok(())
        })
    }
}
