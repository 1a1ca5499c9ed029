//! Clients that increment, read and set for as long as a test wants, and write down what they were
//! told.
//!
//! Invariant: each operation is recorded with times taken before its first byte was sent and after
//! its answer was complete. The load runs on a thread of its own, so the test can kill the server
//! at any moment. It must never let two clients use a counter that is set: sets belong to one
//! client alone, so that every history can be judged exactly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::Random;
use super::client::{Client, Endpoint, Failure, Protocol};
use super::history::{Op, Operation, Outcome};

/// A password that the server accepts.
pub(crate) const PASSWORD: &str = "correct-horse-battery-staple-42";
/// The client number of reads that the test itself makes.
pub(crate) const OBSERVER: u32 = u32::MAX;
/// The one counter that the old routes know.
pub(crate) const DEFAULT_COUNTER: u32 = 0;
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
const READS_PERCENT: u64 = 20;
const SETS_PERCENT: u64 = 10;

/// The clock of a history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).expect("a test does not run for centuries")
    }
}

/// A runtime on the calling thread: the load shares its cores with the server.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made")
}

/// Registers tenants `<prefix>-0` and on; returns their keys.
pub(crate) async fn register(endpoint: &Endpoint, prefix: &str, count: usize) -> Vec<String> {
    let mut client =
        endpoint.connect(Protocol::Http1).await.expect("the server accepts a connection");
    let mut keys = Vec::with_capacity(count);
    for number in 0..count {
        let name = format!("{prefix}-{number}");
        keys.push(client.register(&name, PASSWORD).await.expect("a new name can be registered"));
    }
    keys
}

/// Does one operation and writes it down.
pub(crate) async fn perform(
    client: &mut Client,
    clock: Clock,
    (number, tenant, key): (u32, u32, &str),
    op: Op,
) -> (Operation, Option<Failure>) {
    let sent = clock.now();
    let result = match op {
        Op::Increment => client.increment(key).await,
        Op::Read => client.read(key).await,
        Op::Set(value) => client.set(key, value).await,
    };
    let returned = clock.now();
    let outcome = Outcome::from(&result);
    let (counter, resent) = (DEFAULT_COUNTER, sent);
    let operation =
        Operation { client: number, tenant, counter, op, sent, resent, returned, outcome };
    (operation, result.err())
}

/// Reads the value of every tenant once.
pub(crate) async fn observe(endpoint: &Endpoint, clock: Clock, keys: &[String]) -> Vec<Operation> {
    let mut client =
        endpoint.connect(Protocol::Http1).await.expect("the server accepts a connection");
    let mut reads = Vec::with_capacity(keys.len());
    for (tenant, key) in (0..).zip(keys) {
        let (read, failure) = perform(&mut client, clock, (OBSERVER, tenant, key), Op::Read).await;
        assert!(failure.is_none(), "a healthy server answers a read: {failure:?}");
        reads.push(read);
    }
    reads
}

/// Load that runs until the server is gone or `finish` is called.
#[derive(Debug)]
pub(crate) struct Load {
    thread: JoinHandle<Vec<Operation>>,
    stopped: Arc<AtomicBool>,
}

/// What the clients of a load have in common. The last tenant belongs to client 0, which also sets
/// it.
#[derive(Clone, Debug)]
struct Plan {
    endpoint: Endpoint,
    keys: Arc<[String]>,
    clock: Clock,
    stopped: Arc<AtomicBool>,
    connected: Arc<Barrier>,
}

impl Load {
    /// Starts the clients; returns when all of them are connected and on their way.
    pub(crate) fn start(
        endpoint: &Endpoint,
        keys: &[String],
        clock: Clock,
        clients: u32,
        seed: u64,
    ) -> Self {
        assert!(keys.len() > 1, "one tenant to share and one that is set");
        let stopped = Arc::new(AtomicBool::new(false));
        let all = usize::try_from(clients).expect("a small number") + 1;
        let plan = Plan {
            endpoint: endpoint.clone(),
            keys: keys.into(),
            clock,
            stopped: Arc::clone(&stopped),
            connected: Arc::new(Barrier::new(all)),
        };
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let mut tasks = JoinSet::new();
                for client in 0..clients {
                    tasks.spawn(run_client(
                        plan.clone(),
                        client,
                        Random::seeded(seed ^ u64::from(client)),
                    ));
                }
                plan.connected.wait().await;
                tell.send(()).expect("the test waits for this");
                tasks.join_all().await.concat()
            })
        });
        wait_connected(&told);
        Self { thread, stopped }
    }

    /// Ends the load and returns what the clients were told.
    pub(crate) fn finish(self) -> Vec<Operation> {
        self.stopped.store(true, Ordering::Relaxed);
        self.thread.join().expect("the clients do not panic")
    }
}

fn wait_connected(told: &Receiver<()>) {
    told.recv_timeout(CONNECT_DEADLINE).expect("all clients connect to a ready server");
}

async fn run_client(plan: Plan, number: u32, mut random: Random) -> Vec<Operation> {
    let protocol = if number % 4 == 3 { Protocol::Http2 } else { Protocol::Http1 };
    let mut client =
        plan.endpoint.connect(protocol).await.expect("a ready server accepts a connection");
    plan.connected.wait().await;
    let mut told = Vec::new();
    let shared = u64::try_from(plan.keys.len()).expect("a small number") - 1;
    while !plan.stopped.load(Ordering::Relaxed) {
        let sets = number == 0;
        let tenant = if sets { shared } else { random.between(0, shared - 1) };
        let op = next_op(sets, told.is_empty(), &mut random);
        let tenant = u32::try_from(tenant).expect("a small number");
        let key = &plan.keys[tenant as usize];
        let (operation, failure) =
            perform(&mut client, plan.clock, (number, tenant, key), op).await;
        told.push(operation);
        if failure.is_some_and(|failure| !failure.is_answer()) {
            break;
        }
    }
    told
}

/// The setting client begins each run with a set, so that what follows has a certain base.
pub(crate) fn next_op(sets: bool, first: bool, random: &mut Random) -> Op {
    let dice = random.between(0, 99);
    if sets && (first || dice < SETS_PERCENT) {
        return Op::Set(random.between(1, 1 << 40));
    }
    if dice < SETS_PERCENT + READS_PERCENT { Op::Read } else { Op::Increment }
}
