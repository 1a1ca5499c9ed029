//! The way from many workers to the one committer, and back.
//!
//! Job: [`Queue`], bounded and lock-free, takes requests in and wakes the committer; [`ReplyChannel`]s carry answers back: all answers of a commit
//! for one worker travel in one message and cost one wake of that worker.
//!
//! ```text
//! worker 1 ─┐ push                      ┌─ mailbox ─ one wake ─► worker 1's lane task ─► its waiting requests, woken locally
//! worker 2 ─┼──────► queue ► committer ─┤
//!           ┘        (bounded)          └─ mailbox ─ one wake ─► worker 2's lane task …
//! ```
//! Invariant: every request that was accepted gets exactly one answer; one whose sender is lost (a panic) reads as *outcome unknown*.
//! Must never: wait for room. A full queue refuses at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::Poll;
use std::thread::Thread;
use std::time::Duration;

use crossbeam_queue::{ArrayQueue, SegQueue};
use futures_util::task::AtomicWaker;
use tokio::sync::oneshot;

use crate::store::embedded::commit::command::{Command, CommandResult};

/// Where an answer goes.
#[derive(Debug)]
pub struct Responder {
    lane: Option<Arc<ReplyChannel>>,
    sender: oneshot::Sender<CommandResult>,
}

impl Responder {
    /// A ticket, and where its answer arrives. Without a lane, the answer wakes its receiver by itself.
    pub fn new(lane: Option<Arc<ReplyChannel>>) -> (Self, oneshot::Receiver<CommandResult>) {
        let (sender, receiver) = oneshot::channel();
        (Self { lane, sender }, receiver)
    }
}

/// One request.
#[derive(Debug)]
pub struct QueuedCommand {
    /// What.
    pub ask: Command,
    /// For whom.
    pub ticket: Responder,
}

/// The way back to one worker.
#[derive(Debug, Default)]
pub struct ReplyChannel {
    mailbox: SegQueue<Vec<(oneshot::Sender<CommandResult>, CommandResult)>>,
    waker: AtomicWaker,
    closed: AtomicBool,
}

impl ReplyChannel {
    /// Hands out what arrives, on the worker that runs it, until the lane is closed.
    pub async fn run(self: Arc<Self>) {
        std::future::poll_fn(|context| {
            self.waker.register(context.waker());
            while let Some(answers) = self.mailbox.pop() {
                for (sender, outcome) in answers {
                    // A receiver that went away gave up the answer, not the change.
                    let _ = sender.send(outcome);
                }
            }
            if self.closed.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Ends [`ReplyChannel::run`].
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// Hands out the answers of one commit: one message and one wake for each lane.
pub fn deliver(answers: Vec<(Responder, CommandResult)>) {
    type ReplyBatch = (Arc<ReplyChannel>, Vec<(oneshot::Sender<CommandResult>, CommandResult)>);
    let mut letters: Vec<ReplyBatch> = Vec::new();
    let expected = answers.len();
    for (Responder { lane, sender }, outcome) in answers {
        let Some(lane) = lane else {
            let _ = sender.send(outcome);
            continue;
        };
        match letters.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &lane)) {
            Some((_, letter)) => letter.push((sender, outcome)),
            None => {
                let mut letter = Vec::with_capacity(expected);
                letter.push((sender, outcome));
                letters.push((lane, letter));
            }
        }
    }
    for (lane, letter) in letters {
        lane.mailbox.push(letter);
        lane.waker.wake();
    }
}

/// What the committer's helpers tell it; unbounded, since each message was asked for.
#[derive(Debug)]
pub struct Queue<C> {
    requests: ArrayQueue<QueuedCommand>,
    control: SegQueue<C>,
    asleep: AtomicBool,
    committer: std::sync::OnceLock<Thread>,
}

impl<C> Queue<C> {
    /// A queue for `capacity` requests.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            requests: ArrayQueue::new(capacity),
            control: SegQueue::new(),
            asleep: AtomicBool::new(false),
            committer: std::sync::OnceLock::new(),
        }
    }

    /// Puts a request in.
    ///
    /// # Errors
    /// The request, if there is no room.
    pub fn push(&self, work: QueuedCommand) -> Result<(), QueuedCommand> {
        self.requests.push(work)?;
        self.wake();
        Ok(())
    }

    /// Tells the committer something.
    pub fn tell(&self, message: C) {
        self.control.push(message);
        self.wake();
    }

    /// The next request.
    pub fn pop(&self) -> Option<QueuedCommand> {
        self.requests.pop()
    }

    /// The next message of a helper.
    pub fn heard(&self) -> Option<C> {
        self.control.pop()
    }

    /// How many requests wait.
    pub fn depth(&self) -> usize {
        self.requests.len()
    }

    /// Names the thread that calls this as the one to wake.
    pub fn attend(&self) {
        let _ = self.committer.set(std::thread::current());
    }

    /// Waits until there may be something, or `at_most`.
    pub fn wait(&self, at_most: Duration) {
        self.asleep.store(true, Ordering::Relaxed);
        // Pairs with the fence in `wake`: either this thread sees what was pushed, or the pusher sees it asleep.
        fence(Ordering::SeqCst);
        if self.requests.is_empty() && self.control.is_empty() {
            std::thread::park_timeout(at_most);
        }
        self.asleep.store(false, Ordering::Relaxed);
    }

    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed)
            && self.asleep.swap(false, Ordering::Relaxed)
            && let Some(thread) = self.committer.get()
        {
            thread.unpark();
        }
    }
}
