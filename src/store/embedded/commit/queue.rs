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
    replies: Option<Arc<ReplyChannel>>,
    sender: oneshot::Sender<CommandResult>,
}

impl Responder {
    /// A ticket, and where its answer arrives. Without a lane, the answer wakes its receiver by itself.
    pub fn new(replies: Option<Arc<ReplyChannel>>) -> (Self, oneshot::Receiver<CommandResult>) {
        let (sender, receiver) = oneshot::channel();
        (Self { replies, sender }, receiver)
    }
}

/// One request.
#[derive(Debug)]
pub struct QueuedCommand {
    /// What.
    pub command: Command,
    /// For whom.
    pub responder: Responder,
}

/// The way back to one worker.
#[derive(Debug, Default)]
pub struct ReplyChannel {
    batches: SegQueue<Vec<(oneshot::Sender<CommandResult>, CommandResult)>>,
    waker: AtomicWaker,
    closed: AtomicBool,
}

impl ReplyChannel {
    /// Hands out what arrives, on the worker that runs it, until the lane is closed.
    pub async fn run(self: Arc<Self>) {
        std::future::poll_fn(|context| {
            self.waker.register(context.waker());
            while let Some(replies) = self.batches.pop() {
                for (sender, outcome) in replies {
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
pub fn send_replies(replies: Vec<(Responder, CommandResult)>) {
    type ReplyBatch = (Arc<ReplyChannel>, Vec<(oneshot::Sender<CommandResult>, CommandResult)>);
    let mut letters: Vec<ReplyBatch> = Vec::new();
    let expected = replies.len();
    for (Responder { replies, sender }, outcome) in replies {
        let Some(replies) = replies else {
            let _ = sender.send(outcome);
            continue;
        };
        match letters.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &replies)) {
            Some((_, letter)) => letter.push((sender, outcome)),
            None => {
                let mut letter = Vec::with_capacity(expected);
                letter.push((sender, outcome));
                letters.push((replies, letter));
            }
        }
    }
    for (replies, letter) in letters {
        replies.batches.push(letter);
        replies.waker.wake();
    }
}

/// What the committer's helpers tell it; unbounded, since each message was asked for.
#[derive(Debug)]
pub struct Queue<C> {
    requests: ArrayQueue<QueuedCommand>,
    control: SegQueue<C>,
    is_parked: AtomicBool,
    committer: std::sync::OnceLock<Thread>,
}

impl<C> Queue<C> {
    /// A queue for `capacity` requests.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            requests: ArrayQueue::new(capacity),
            control: SegQueue::new(),
            is_parked: AtomicBool::new(false),
            committer: std::sync::OnceLock::new(),
        }
    }

    /// Puts a request in.
    ///
    /// # Errors
    /// The request, if there is no room.
    pub fn push(&self, queued: QueuedCommand) -> Result<(), QueuedCommand> {
        self.requests.push(queued)?;
        self.wake();
        Ok(())
    }

    /// Tells the committer something.
    pub fn send_control(&self, message: C) {
        self.control.push(message);
        self.wake();
    }

    /// The next request.
    pub fn pop(&self) -> Option<QueuedCommand> {
        self.requests.pop()
    }

    /// The next message of a helper.
    pub fn pop_control(&self) -> Option<C> {
        self.control.pop()
    }

    /// How many requests wait.
    pub fn depth(&self) -> usize {
        self.requests.len()
    }

    /// Names the thread that calls this as the one to wake.
    pub fn register_consumer(&self) {
        let _ = self.committer.set(std::thread::current());
    }

    /// Waits until there may be something, or `at_most`.
    pub fn wait(&self, at_most: Duration) {
        self.is_parked.store(true, Ordering::Relaxed);
        // Pairs with the fence in `wake`: either this thread sees what was pushed, or the pusher sees it asleep.
        fence(Ordering::SeqCst);
        if self.requests.is_empty() && self.control.is_empty() {
            std::thread::park_timeout(at_most);
        }
        self.is_parked.store(false, Ordering::Relaxed);
    }

    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.is_parked.load(Ordering::Relaxed)
            && self.is_parked.swap(false, Ordering::Relaxed)
            && let Some(thread) = self.committer.get()
        {
            thread.unpark();
        }
    }
}
