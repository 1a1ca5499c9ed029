//! The scheduler's rules about time and order, with sled in a temporary directory.
//!
//! Job: what the simulation does not assert by itself: timeouts, reads between steps, a stall.
//! Invariant: no test waits: time is an argument. Must never: test the checkpointer again.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::oneshot;

use super::messages::{CheckpointMessage, ChunkOutcome, Effect, Now};
use super::scheduler::{CheckpointScheduler, SchedulerConfig};
use crate::domain::tenant::TenantId;
use crate::store::embedded::BackupPolicy;
use crate::store::embedded::codec::key::RecordKey;
use crate::store::embedded::codec::record::Record;
use crate::store::embedded::commit::committer::{BackgroundTask, CommitterEvent};
use crate::store::embedded::fs::{OsDirectory, OsFile};
use crate::store::embedded::journal::frame::{CommitSeq, LogPosition};
use crate::store::embedded::state::checkpointer::Checkpointer;
use crate::store::embedded::state::sled::SledState;

type Scheduler = CheckpointScheduler<SledState, OsDirectory>;

fn scheduler(temp: &TempDir, policy: Option<BackupPolicy>) -> Scheduler {
    let config = SchedulerConfig {
        store: [7; 16],
        backups: Arc::new(OsDirectory::new(temp.path().to_owned())),
        interval: Duration::from_secs(10),
        policy,
        min_free_bytes: 0,
        journal_is_complete: true,
        newest_backup: None,
    };
    let state = SledState::open(temp.path()).unwrap();
    CheckpointScheduler::new(Checkpointer::open(state).unwrap(), config, at(0))
}

fn at(uptime_ms: u64) -> Now {
    Now { uptime: Duration::from_millis(uptime_ms), unix_s: 1_700_000_000 + uptime_ms / 1000 }
}

fn key(name: &str) -> RecordKey {
    RecordKey::Name(name.to_owned())
}

fn send(scheduler: &mut Scheduler, ms: u64, task: BackgroundTask) -> Vec<Effect<OsDirectory>> {
    let effects = scheduler.on_message(at(ms), CheckpointMessage::Task(task));
    assert!(!scheduler.is_finished());
    effects
}

fn stage(scheduler: &mut Scheduler, ms: u64, seq: u64) {
    let changes = vec![(key("a"), Some(Record::Name(TenantId(seq))))];
    let position = LogPosition { seq: CommitSeq(seq), crc: 1 };
    assert!(send(scheduler, ms, BackgroundTask::Stage(changes, position)).is_empty());
}

/// Steps until a checkpoint is reported or nothing is under way; its last commit.
fn finish(scheduler: &mut Scheduler, ms: u64) -> Option<CommitSeq> {
    loop {
        for effect in scheduler.run_step(at(ms)) {
            if let Effect::Checkpointed { seq, .. } = effect {
                return Some(seq);
            }
        }
        if !scheduler.in_progress() {
            return None;
        }
    }
}

#[test]
fn a_checkpoint_starts_when_its_timeout_has_passed_and_not_before() {
    let temp = tempfile::tempdir().unwrap();
    let mut scheduler = scheduler(&temp, None);
    assert_eq!(scheduler.next_timeout(at(500)), Duration::from_secs(3600), "nothing to write");
    stage(&mut scheduler, 500, 1);
    assert_eq!(scheduler.next_timeout(at(500)), Duration::from_millis(9500));
    assert_eq!(finish(&mut scheduler, 9_999), None);
    assert_eq!(finish(&mut scheduler, 10_000), Some(CommitSeq(1)));
    stage(&mut scheduler, 10_000, 2);
    assert_eq!(scheduler.next_timeout(at(12_000)), Duration::from_secs(8));
    let journal = CheckpointMessage::Journal { uncheckpointed_segments: 4, sealed_bytes: 0 };
    assert!(scheduler.on_message(at(12_000), journal).is_empty());
    assert_eq!(finish(&mut scheduler, 12_000), Some(CommitSeq(2)), "too many segments");
}

#[test]
fn a_load_is_served_between_two_steps_and_takes_none() {
    let temp = tempfile::tempdir().unwrap();
    let mut scheduler = scheduler(&temp, None);
    stage(&mut scheduler, 0, 1);
    let load = || BackgroundTask::Load(key("a"));
    let effects = send(&mut scheduler, 20_000, load());
    assert!(matches!(effects.as_slice(), [Effect::Event(CommitterEvent::Loaded(_, Ok(Some(_))))]));
    assert!(scheduler.run_step(at(20_000)).is_empty());
    assert!(!scheduler.in_progress(), "the checkpoint is due, but the load goes first");
    assert!(scheduler.run_step(at(20_000)).is_empty());
    assert!(scheduler.in_progress());
    assert_eq!(scheduler.next_timeout(at(20_000)), Duration::ZERO);
}

#[test]
fn a_close_takes_a_last_checkpoint_unless_a_write_failed() {
    for checkpoint in [true, false] {
        let temp = tempfile::tempdir().unwrap();
        let mut scheduler = scheduler(&temp, None);
        stage(&mut scheduler, 0, 1);
        assert!(scheduler.on_message(at(1), CheckpointMessage::Close { checkpoint }).is_empty());
        assert_eq!(finish(&mut scheduler, 1), checkpoint.then_some(CommitSeq(1)));
        assert!(scheduler.run_step(at(1)).is_empty());
        assert!(scheduler.is_finished());
    }
}

#[test]
fn a_backup_that_stalls_is_given_up_and_its_checkpoint_completes() {
    let temp = tempfile::tempdir().unwrap();
    let mut scheduler = scheduler(&temp, None);
    stage(&mut scheduler, 0, 1);
    let (reply_to, mut reply) = oneshot::channel();
    assert!(scheduler.on_message(at(0), CheckpointMessage::Backup(reply_to)).is_empty());
    assert!(matches!(scheduler.run_step(at(0)).as_slice(), [Effect::StartBackup(_)]));
    // The task takes nothing.
    for (ms, stops) in [(0, false), (59_999, false), (60_000, true)] {
        assert_eq!(scheduler.next_timeout(at(ms)), Duration::from_millis(1));
        let Some(Effect::OfferChunk(chunk)) = scheduler.run_step(at(ms)).pop() else {
            panic!("no chunk at {ms} ms");
        };
        let effects = scheduler.on_chunk(at(ms), ChunkOutcome::Full(chunk));
        assert_eq!(matches!(effects.as_slice(), [Effect::StopBackup]), stops, "at {ms} ms");
    }
    assert_eq!(finish(&mut scheduler, 60_000), Some(CommitSeq(1)));
    let ended: CheckpointMessage<OsFile> = CheckpointMessage::BackupEnded(Err("stalled".into()));
    let effects = scheduler.on_message(at(60_001), ended);
    for effect in effects {
        if let Effect::BackupReply(reply_to, result) = effect {
            reply_to.send(result).unwrap();
        }
    }
    assert_eq!(reply.try_recv().unwrap().unwrap_err(), "stalled");
}
