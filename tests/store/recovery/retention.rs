//! How long a segment of the journal stays: until the state and a verified backup have what is in
//! it.
//!
//! Job: a committer with a journal of several segments, and the events that let segments go.
//! Invariant: neither event alone lets one go. Must never: wait for a thread; the events are given.

use std::fs;
use std::iter;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use odometer::store::embedded::codec::key::RecordKey;
use odometer::store::embedded::codec::record::Record;
use odometer::store::embedded::commit::cache::{ReadView, RecordCache};
use odometer::store::embedded::commit::committer::{
    BackgroundTask, Committer, CommitterEvent, RetentionWatermarks,
};
use odometer::store::embedded::commit::idempotency::IdempotencyTable;
use odometer::store::embedded::commit::working_set::WorkingSet;
use odometer::store::embedded::fs::{OsDirectory, OsFile};
use odometer::store::embedded::journal::frame::{CommitSeq, LogPosition, SegmentHeader};
use odometer::store::embedded::journal::reader::JournalTail;
use odometer::store::embedded::journal::segment::JournalDir;
use odometer::store::embedded::journal::writer::{AppendError, Journal};
use odometer::store::embedded::runtime::segment_allocator::SegmentAllocator;
use tempfile::TempDir;

use super::SEGMENT_BYTES;

/// Commits that fill three segments and begin a fourth.
const COMMITS: u64 = 250;

fn committer(dir: &Arc<OsDirectory>) -> Committer<OsDirectory> {
    let files = JournalDir { dir: Arc::clone(dir), store: [7; 16], segment_bytes: SEGMENT_BYTES };
    let mut allocator = SegmentAllocator::new(Arc::clone(dir), SEGMENT_BYTES);
    let mut journal = Journal::start(files, JournalTail::after(LogPosition::default())).unwrap();
    for number in 1..=COMMITS {
        let record = Record::Tenants(number);
        let write = || iter::once((&RecordKey::Tenants, Some(&record)));
        if matches!(journal.append(write()), Err(AppendError::NoSpare)) {
            allocator.enqueue(BackgroundTask::MakeSpare);
            for event in allocator.poll(false).events {
                if let CommitterEvent::Spare(spare) = event {
                    journal.set_spare(spare);
                }
            }
            journal.append(write()).unwrap();
        }
    }
    let cache = RecordCache::new(ReadView::default(), 10);
    let working_set = WorkingSet::new(cache, IdempotencyTable::new(10, Vec::new()));
    let nothing = CommitSeq(0);
    let watermarks = RetentionWatermarks { checkpointed: nothing, backed_up: nothing };
    Committer::new(journal, working_set, watermarks)
}

/// The segments that an event lets go.
fn removed(committer: &mut Committer<OsDirectory>, event: CommitterEvent<OsFile>) -> Vec<String> {
    drop(committer.on_event(event));
    let names = |task| if let BackgroundTask::Remove(names) = task { names } else { Vec::new() };
    committer.pending_tasks().flat_map(names).collect()
}

fn name(number: u64) -> String {
    format!("{number:020}.journal")
}

/// The last commit of a segment.
fn last(dir: &Path, number: u64) -> CommitSeq {
    let next = fs::read(dir.join(name(number + 1))).unwrap();
    CommitSeq(SegmentHeader::decode(&next).unwrap().first_seq.0 - 1)
}

#[test]
fn neither_a_checkpoint_nor_a_backup_alone_lets_a_segment_go() {
    let temp = TempDir::new().unwrap();
    let dir = Arc::new(OsDirectory::new(temp.path().to_owned()));
    let mut committer = committer(&dir);
    let checkpointed = |seq| CommitterEvent::Checkpointed(seq, Duration::ZERO);
    let [first, second, third] = [1, 2, 3].map(|number| last(temp.path(), number));
    assert_eq!(removed(&mut committer, CommitterEvent::BackedUp(second)), [""; 0]);
    assert_eq!(removed(&mut committer, checkpointed(first)), [name(1)]);
    assert_eq!(removed(&mut committer, checkpointed(third)), [name(2)]);
    // One commit short of its last.
    let almost = CommitSeq(third.0 - 1);
    assert_eq!(removed(&mut committer, CommitterEvent::BackedUp(almost)), [""; 0]);
    assert_eq!(removed(&mut committer, CommitterEvent::BackedUp(third)), [name(3)]);
}
