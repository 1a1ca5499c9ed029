//! The ledger: every frame that was ever meant for the journal, by its mark, and so what the store
//! must hold at each.
//!
//! Job: [`Ledger::hear`] reads frames out of what is written to the disk; [`Ledger::truth`] is
//! every record as of a mark.
//! Invariant: frames form a tree, since after a crash another frame may take a lost one's number; a
//! mark names one path in it.
//! Must never: look at what the store remembers.

use std::collections::{BTreeMap, HashMap};

use odometer::store::embedded::codec::key::RecordKey;
use odometer::store::embedded::codec::record::Record;
use odometer::store::embedded::journal::frame::{
    CommitSeq, FramePayload, FrameRead, LogPosition, NextFrame, RecordWrite, SEGMENT_HEADER_BYTES,
    next_frame,
};

use crate::disk::Written;

/// Every record there is.
pub(crate) type Truth = BTreeMap<RecordKey, Record>;

struct Frame {
    parent: LogPosition,
    changes: Vec<RecordWrite>,
    /// The files, offsets and ends of its bytes; a start may write it again where it is.
    place: (usize, usize, usize),
}

/// See the module's text.
#[derive(Default)]
pub(crate) struct Ledger {
    frames: HashMap<(u64, u32), Frame>,
}

impl Ledger {
    /// Takes what was written to a journal file; returns the mark if it is a frame.
    pub(crate) fn hear(&mut self, (inode, offset, bytes): &Written) -> Option<LogPosition> {
        let offset =
            usize::try_from(*offset).ok().filter(|&offset| offset >= SEGMENT_HEADER_BYTES)?;
        let chain = u32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?);
        let epoch = u64::from_be_bytes(bytes.get(16..24)?.try_into().ok()?);
        let seq = CommitSeq(u64::from_be_bytes(bytes.get(24..32)?.try_into().ok()?));
        let expected = NextFrame { epoch, seq, prev_crc: chain };
        let FrameRead::Frame { payload: body, crc, .. } =
            next_frame(bytes, 0, expected, CommitSeq(0))
        else {
            return None;
        };
        let changes = match body {
            FramePayload::Commit(changes) => changes,
            FramePayload::Checkpoint(_) | FramePayload::SkippedCommit => Vec::new(),
        };
        let place = (*inode, offset, offset + bytes.len());
        self.frames.insert((seq.0, crc), Frame { parent: expected.previous(), changes, place });
        Some(LogPosition { seq, crc })
    }

    /// The frames behind `after` up to `mark`, oldest first; nothing if `mark` does not follow
    /// `after`.
    fn path(&self, after: LogPosition, mark: LogPosition) -> Option<Vec<&Frame>> {
        let (mut path, mut at) = (Vec::new(), mark);
        while at != after {
            let frame = self.frames.get(&(at.seq.0, at.crc))?;
            path.push(frame);
            at = frame.parent;
        }
        path.reverse();
        Some(path)
    }

    /// Whether `mark` is `before` or follows it.
    pub(crate) fn follows(&self, mark: LogPosition, before: LogPosition) -> bool {
        self.path(before, mark).is_some()
    }

    /// What the frames behind `after` up to `mark` change, oldest first.
    pub(crate) fn changes_between(
        &self,
        after: LogPosition,
        mark: LogPosition,
    ) -> Result<impl Iterator<Item = &RecordWrite>, String> {
        let path = self.path(after, mark);
        let path = path.ok_or_else(|| format!("{mark:?} does not follow {after:?}"))?;
        Ok(path.into_iter().flat_map(|frame| &frame.changes))
    }

    /// Brings `truth` from `after` to `mark`.
    pub(crate) fn advance(
        &self,
        truth: &mut Truth,
        after: LogPosition,
        mark: LogPosition,
    ) -> Result<(), String> {
        for (key, record) in self.changes_between(after, mark)? {
            match record {
                Some(record) => drop(truth.insert(key.clone(), record.clone())),
                None => drop(truth.remove(key)),
            }
        }
        Ok(())
    }

    /// Every record as of `mark`.
    pub(crate) fn truth(&self, mark: LogPosition) -> Result<Truth, String> {
        let mut truth = Truth::new();
        self.advance(&mut truth, LogPosition::default(), mark)?;
        Ok(truth)
    }

    /// The newest frame at or before `mark` that changed something.
    pub(crate) fn last_change(&self, mark: LogPosition) -> LogPosition {
        let mut at = mark;
        while let Some(frame) =
            self.frames.get(&(at.seq.0, at.crc)).filter(|frame| frame.changes.is_empty())
        {
            at = frame.parent;
        }
        at
    }

    /// Where the bytes of the frame at `mark` are: file, offset, end.
    pub(crate) fn place(&self, mark: LogPosition) -> Option<(usize, usize, usize)> {
        self.frames.get(&(mark.seq.0, mark.crc)).map(|frame| frame.place)
    }

    /// Where the bytes of the frames behind `after` up to `mark` are.
    pub(crate) fn places(
        &self,
        after: LogPosition,
        mark: LogPosition,
    ) -> Option<Vec<(usize, usize, usize)>> {
        Some(self.path(after, mark)?.into_iter().map(|frame| frame.place).collect())
    }

    /// The counters that a frame changes.
    pub(crate) fn changes(&self, mark: LogPosition) -> &[RecordWrite] {
        self.frames.get(&(mark.seq.0, mark.crc)).map_or(&[], |frame| &frame.changes)
    }
}

/// The truth as sled and backups hold it.
pub(crate) fn stored(truth: &Truth) -> BTreeMap<Vec<u8>, Vec<u8>> {
    truth
        .iter()
        .map(|(key, record)| {
            let (stored, mut bytes) = (key.to_storage_key(), Vec::new());
            record.encode(crc32c::crc32c(&stored[2..]), &mut bytes);
            (stored, bytes)
        })
        .collect()
}
