//! The commit queue: commands from many workers to the one committer, and replies back.
//!
//! Job: [`Queue`], bounded and lock-free, takes commands and wakes the committer;
//! [`ReplyChannel`]s carry replies back: all replies of a commit for one worker are one message,
//! and wake that worker once.
//!
//! ```text
//! worker 1 ─┐ push                      ┌─ batch, one wake-up ─► worker 1: ReplyChannel::run
//! worker 2 ─┼──────► queue ► committer ─┤                         └► its waiting requests
//!           ┘        (bounded)          └─ batch, one wake-up ─► worker 2 …
//! ```
//! Invariant: every accepted command gets exactly one reply; if the sender of a reply is dropped,
//! for example by a panic, the receiver reads *outcome unknown*.
//! Must never: block when the queue is full; the command is rejected at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::Poll;
use std::thread::Thread;
use std::time::Duration;

use crossbeam_queue::{ArrayQueue, SegQueue};
use futures_util::task::AtomicWaker;
use tokio::sync::oneshot;

use crate::store::embedded::commit::command::{Command, CommandResult};

type ReplyBatch = Vec<(oneshot::Sender<CommandResult>, CommandResult)>;

/// The handle by which a reply is sent.
#[derive(Debug)]
pub struct Responder {
    replies: Option<Arc<ReplyChannel>>,
    sender: oneshot::Sender<CommandResult>,
}

impl Responder {
    /// A responder, and the receiver of its reply. Without a reply channel, the reply wakes its
    /// receiver directly.
    pub fn new(replies: Option<Arc<ReplyChannel>>) -> (Self, oneshot::Receiver<CommandResult>) {
        let (sender, receiver) = oneshot::channel();
        (Self { replies, sender }, receiver)
    }
}

/// A command in the queue.
#[derive(Debug)]
pub struct QueuedCommand {
    /// The command.
    pub command: Command,
    /// Where the reply goes.
    pub responder: Responder,
}

/// The queue has no room; the command was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

/// The channel by which the replies for one worker travel.
#[derive(Debug, Default)]
pub struct ReplyChannel {
    batches: SegQueue<ReplyBatch>,
    waker: AtomicWaker,
}

impl ReplyChannel {
    /// Passes arriving replies to their receivers, for as long as the runtime of the worker lives
    /// that the receivers belong to. Spawn it there.
    pub async fn run(self: Arc<Self>) {
        std::future::poll_fn(|context| {
            self.waker.register(context.waker());
            while let Some(batch) = self.batches.pop() {
                for (sender, result) in batch {
                    // A dropped receiver gave up the reply, not the change.
                    let _ = sender.send(result);
                }
            }
            Poll::<()>::Pending
        })
        .await;
    }
}

/// Sends the replies of one commit: one batch and one wake-up for each channel.
pub fn send_replies(replies: Vec<(Responder, CommandResult)>) {
    let mut batches: Vec<(Arc<ReplyChannel>, ReplyBatch)> = Vec::new();
    let count = replies.len();
    for (Responder { replies: channel, sender }, result) in replies {
        let Some(channel) = channel else {
            let _ = sender.send(result);
            continue;
        };
        match batches.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &channel)) {
            Some((_, batch)) => batch.push((sender, result)),
            None => {
                let mut batch = Vec::with_capacity(count);
                batch.push((sender, result));
                batches.push((channel, batch));
            }
        }
    }
    for (channel, batch) in batches {
        channel.batches.push(batch);
        channel.waker.wake();
    }
}

/// The queue of the committer: a bounded queue of commands, and an unbounded queue of messages from
/// background threads, whose number the committer's own tasks limit.
#[derive(Debug)]
pub struct Queue<C> {
    commands: ArrayQueue<QueuedCommand>,
    control: SegQueue<C>,
    is_parked: AtomicBool,
    consumer: std::sync::OnceLock<Thread>,
}

impl<C> Queue<C> {
    /// A queue for at most `capacity` commands.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            commands: ArrayQueue::new(capacity),
            control: SegQueue::new(),
            is_parked: AtomicBool::new(false),
            consumer: std::sync::OnceLock::new(),
        }
    }

    /// Enqueues a command and wakes the consumer.
    ///
    /// # Errors
    /// [`QueueFull`].
    pub fn push(&self, queued: QueuedCommand) -> Result<(), QueueFull> {
        self.commands.push(queued).map_err(|_| QueueFull)?;
        self.wake();
        Ok(())
    }

    /// Enqueues a control message and wakes the consumer.
    pub fn send_control(&self, message: C) {
        self.control.push(message);
        self.wake();
    }

    /// The next command.
    pub fn pop(&self) -> Option<QueuedCommand> {
        self.commands.pop()
    }

    /// The next control message.
    pub fn pop_control(&self) -> Option<C> {
        self.control.pop()
    }

    /// The number of queued commands.
    pub fn depth(&self) -> usize {
        self.commands.len()
    }

    /// Registers the calling thread as the consumer, which a push wakes.
    pub fn register_consumer(&self) {
        let _ = self.consumer.set(std::thread::current());
    }

    /// Parks the consumer until there may be a command or a message, `at_most` at the longest.
    pub fn wait(&self, at_most: Duration) {
        self.is_parked.store(true, Ordering::Relaxed);
        // Prevents a lost wake-up. Pairs with the fence in `wake`: either this thread sees what was
        // pushed, or the pusher sees that this thread is parked.
        fence(Ordering::SeqCst);
        if self.commands.is_empty() && self.control.is_empty() {
            std::thread::park_timeout(at_most);
        }
        self.is_parked.store(false, Ordering::Relaxed);
    }

    fn wake(&self) {
        fence(Ordering::SeqCst);
        // The swap lets only one of several pushers pay for the wake-up.
        if self.is_parked.load(Ordering::Relaxed)
            && self.is_parked.swap(false, Ordering::Relaxed)
            && let Some(thread) = self.consumer.get()
        {
            thread.unpark();
        }
    }
}
