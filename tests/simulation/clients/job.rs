//! A request of a client, from its first copy to the last answer, and what its answers must be.
//!
//! Job: [`Job::hear`] judges the answer of a copy by what its client knows about the key.
//! Invariant: a request is done once, however many copies of it were sent; a key stands for one
//! request of its tenant until it may be expired.
//! Must never: know what the store holds; the checker compares answers with that.

use odometer::store::embedded::commit::idempotency::RETENTION_S;

use super::Now;
use super::request::{REUSED, Reply, What};

/// See the module's text.
pub(super) struct Job {
    pub(super) client: u32,
    pub(super) what: What,
    pub(super) origin: Origin,
    /// When it was sent first: the first time after which it may have been done.
    pub(super) sent: Now,
    /// When it was sent last, in steps.
    pub(super) resent: u64,
    /// Copies under way.
    pub(super) copies: u32,
    /// Copies that may have been done or were, all in all.
    pub(super) tries: u32,
    /// A copy was lost, and may have been done.
    pub(super) perhaps: bool,
    pub(super) refusals: u32,
    /// What it was answered.
    pub(super) result: Option<u64>,
    /// A copy was answered as done, and not as done before.
    pub(super) is_done: bool,
    /// Its client went away, so its history says *unknown* already.
    pub(super) gave_up: bool,
}

/// What is known about the key of a request when it is sent first.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// It has none, or one that was not used before.
    New,
    /// Another request was sent with it at the same time.
    Raced,
    /// This very request was done with it.
    Again(Settled),
    /// Another request was done with it.
    Other(Settled),
}

/// A request with a key that was done.
#[derive(Clone, Debug)]
pub(super) struct Settled {
    pub(super) what: What,
    value: u64,
    sent: Now,
}

impl Settled {
    /// Whether the key may be forgotten by now: it was used when it was sent, or later.
    pub(super) fn may_be_expired(&self, now: Now) -> bool {
        now.age_s - self.sent.age_s > RETENTION_S
    }
}

impl Job {
    pub(super) fn new(client: u32, what: What, origin: Origin, now: Now) -> Self {
        Self {
            client,
            what,
            origin,
            sent: now,
            resent: now.step,
            copies: 0,
            tries: 0,
            perhaps: false,
            refusals: 0,
            result: None,
            is_done: false,
            gave_up: false,
        }
    }

    /// Whether its client still wants an answer.
    pub(super) fn is_open(&self) -> bool {
        self.result.is_none() && !self.gave_up
    }

    /// Whether it does no harm to send it again.
    pub(super) fn may_be_copied(&self) -> bool {
        self.what.key().is_some() && matches!(self.origin, Origin::New | Origin::Raced)
    }

    /// Whether it was sent so long ago that its key could expire before a copy is decided.
    pub(super) fn is_old(&self, now: Now) -> bool {
        self.tries > 0 && now.age_s - self.sent.age_s > RETENTION_S / 3
    }

    /// Another copy is under way.
    pub(super) fn sent_copy(&mut self, now: Now) {
        if self.tries == 0 {
            self.sent = now;
        }
        self.copies += 1;
        self.tries += 1;
        self.resent = now.step;
    }

    /// A copy was answered.
    ///
    /// # Errors
    /// The answer cannot be right.
    pub(super) fn hear(&mut self, reply: &Reply, now: Now) -> Result<(), String> {
        match reply {
            Reply::Unknown => self.perhaps = true,
            Reply::Refused(why) => {
                self.refusals += 1;
                return if *why == REUSED { self.hear_reused(now) } else { Ok(()) };
            }
            Reply::Value(value) => return self.hear_done(*value, false, now),
            Reply::Replayed(value) => return self.hear_done(*value, true, now),
            Reply::Tenant(_) | Reply::Names(_) => self.result = Some(0),
        }
        Ok(())
    }

    fn hear_reused(&mut self, now: Now) -> Result<(), String> {
        match &self.origin {
            Origin::Other(_) => Ok(()),
            // The other request was done, so no copy of this one was, nor will be.
            Origin::Raced if self.result.is_none() => {
                self.perhaps = false;
                Ok(())
            }
            // Another request may have taken the key when it was forgotten.
            Origin::Again(before) if before.may_be_expired(now) => Ok(()),
            _ => Err("no other request was sent with this key".to_owned()),
        }
    }

    fn hear_done(&mut self, value: u64, replayed: bool, now: Now) -> Result<(), String> {
        let before = self.result.replace(value);
        let was_done = self.is_done;
        self.is_done |= !replayed;
        if let Some(before) = before.filter(|before| *before != value) {
            return Err(format!("another copy of it was answered {before}"));
        }
        if was_done && !replayed {
            return Err("it was done before".to_owned());
        }
        match &self.origin {
            Origin::New | Origin::Raced if replayed && self.what.key().is_none() => {
                Err("it has no key".to_owned())
            }
            Origin::New | Origin::Raced if replayed && self.tries == 1 => {
                Err("it was never sent before".to_owned())
            }
            Origin::Again(before) if replayed && before.value != value => {
                Err(format!("it was answered {} before", before.value))
            }
            Origin::Other(_) if replayed => Err("another request has its key".to_owned()),
            Origin::Again(before) | Origin::Other(before)
                if !replayed && !before.may_be_expired(now) =>
            {
                Err("its key was used for a request that was done".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// What the tally says about the answer of a copy.
    pub(super) fn noteworthy(&self, reply: &Reply) -> Option<(&'static str, &'static str)> {
        match (&self.origin, reply) {
            (Origin::Again(_), Reply::Replayed(_)) => Some(("used again", "for the same request")),
            (Origin::Again(_) | Origin::Other(_), Reply::Value(_)) => {
                Some(("used again", "after it expired"))
            }
            (Origin::Other(_), Reply::Refused(REUSED)) => Some(("of two requests", "later")),
            (Origin::Raced, Reply::Refused(REUSED)) => {
                Some(("of two requests", "at once, and one was refused"))
            }
            (Origin::New, Reply::Value(_)) if self.refusals > 0 && self.what.key().is_some() => {
                Some(("done", "after a refusal"))
            }
            (Origin::New, Reply::Replayed(_)) if !self.perhaps => {
                Some(("sent twice", "and answered from one"))
            }
            _ => None,
        }
    }

    /// The request as one that was done with its key, if it was, and if no other request may take
    /// the key later.
    pub(super) fn settled(&self) -> Option<Settled> {
        let (value, _) = (self.result?, self.what.key()?);
        match &self.origin {
            Origin::Raced => return None,
            Origin::Again(before) if !self.is_done => return Some(before.clone()),
            _ => {}
        }
        Some(Settled { what: self.what.clone(), value, sent: self.sent })
    }
}
