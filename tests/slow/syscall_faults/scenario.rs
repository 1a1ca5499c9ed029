//! Everything that clients know about a folder: their keys, and what they were told through many
//! servers on it.
//!
//! Invariant: every answer is in the history, with times around it.
//! Must never: panic because a server fails; its failing is the test.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::Random;
use crate::support::client::{Endpoint, Failure, Protocol};
use crate::support::history::{Op, Operation, Outcome, Rules, Verdict, check};
use crate::support::server::TestServer;
use crate::support::workload::{Clock, OBSERVER, PASSWORD, next_op, perform, runtime};

const LOAD_LIMIT: Duration = Duration::from_secs(5);

/// Everything that clients know about a folder.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) clock: Clock,
    pub(crate) keys: Vec<String>,
    history: Vec<Operation>,
    restarts: Vec<u64>,
}

impl Scenario {
    pub(crate) fn with_keys(keys: Vec<String>) -> Self {
        Self { clock: Clock::start(), keys, history: Vec::new(), restarts: Vec::new() }
    }

    /// The process is dead: whatever it had not done by now it will not do.
    pub(crate) fn end_of_process(&mut self) {
        self.restarts.push(self.clock.now());
    }

    pub(crate) fn judge(&self) -> Verdict {
        check(&self.history, &Rules { restarts: self.restarts.clone(), ..Rules::default() })
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.history
            .iter()
            .filter(|done| done.op != Op::Read && matches!(done.outcome, Outcome::Ok(_)))
            .count()
    }

    /// Two tenants; fewer when the store fails meanwhile.
    pub(crate) fn register(&mut self, endpoint: &Endpoint, prefix: &str) {
        let keys = runtime().block_on(async {
            let mut client = endpoint.connect(Protocol::Http1).await.ok()?;
            let mut keys = Vec::new();
            for number in 0..2 {
                keys.extend(client.register(&format!("{prefix}-{number}"), PASSWORD).await.ok());
            }
            Some(keys)
        });
        self.keys.extend(keys.unwrap_or_default());
    }

    pub(crate) async fn read_all(&mut self, endpoint: &Endpoint) -> Option<Failure> {
        let mut client =
            endpoint.connect(Protocol::Http1).await.expect("a ready server accepts a connection");
        for (tenant, key) in (0..).zip(&self.keys) {
            let (read, failure) =
                perform(&mut client, self.clock, (OBSERVER, tenant, key), Op::Read).await;
            self.history.push(read);
            if failure.is_some() {
                return failure;
            }
        }
        None
    }

    /// Clients until `enough` increments and sets were acknowledged. They bear a server that fails.
    pub(crate) fn load(
        &mut self,
        server: &TestServer,
        clients: u32,
        seed: u64,
        enough: &dyn Fn(usize) -> bool,
    ) {
        self.load_within(LOAD_LIMIT, server, clients, seed, enough);
    }

    pub(crate) fn load_within(
        &mut self,
        limit: Duration,
        server: &TestServer,
        clients: u32,
        seed: u64,
        enough: &dyn Fn(usize) -> bool,
    ) {
        if self.keys.len() < 2 {
            return;
        }
        let (endpoint, clock, keys) =
            (server.endpoint(), self.clock, Arc::<[String]>::from(self.keys.as_slice()));
        let stopped = Arc::new(AtomicBool::new(false));
        let until = Instant::now() + limit;
        let first = self.history.len();
        runtime().block_on(async {
            let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
            let mut tasks = JoinSet::new();
            for number in 0..clients {
                let (keys, stopped) = (Arc::clone(&keys), Arc::clone(&stopped));
                let random = Random::seeded(seed ^ u64::from(number));
                tasks.spawn(run_client(
                    endpoint.clone(),
                    clock,
                    keys,
                    stopped,
                    number,
                    random,
                    tell.clone(),
                ));
            }
            drop(tell);
            let mut acknowledged = 0;
            while let Some(operation) = told.recv().await {
                self.history.push(operation);
                acknowledged += usize::from(
                    operation.op != Op::Read && matches!(operation.outcome, Outcome::Ok(_)),
                );
                let checked = self.history.len() - first;
                if (checked.is_multiple_of(16) || acknowledged < 64)
                    && (enough(acknowledged) || Instant::now() > until)
                {
                    stopped.store(true, Ordering::Relaxed);
                }
            }
            tasks.join_all().await;
        });
    }
}

/// After these refusals more of the same would tell nothing new.
const STOPPED: [&str; 3] = ["poisoned", "closing", "storage_full"];

type Tell = tokio::sync::mpsc::UnboundedSender<Operation>;

async fn run_client(
    endpoint: Endpoint,
    clock: Clock,
    keys: Arc<[String]>,
    stopped: Arc<AtomicBool>,
    number: u32,
    mut random: Random,
    tell: Tell,
) {
    let protocol = if number % 4 == 3 { Protocol::Http2 } else { Protocol::Http1 };
    let Ok(mut client) = endpoint.connect(protocol).await else { return };
    let shared = u64::try_from(keys.len()).expect("a small number") - 1;
    let mut first = true;
    while !stopped.load(Ordering::Relaxed) {
        let sets = number == 0;
        let tenant = if sets { shared } else { random.between(0, shared - 1) };
        let op = next_op(sets, first, &mut random);
        first = false;
        let tenant = u32::try_from(tenant).expect("a small number");
        let (operation, failure) =
            perform(&mut client, clock, (number, tenant, &keys[tenant as usize]), op).await;
        let _ = tell.send(operation);
        match failure {
            Some(Failure::Refused { code, .. }) if STOPPED.contains(&code.as_str()) => return,
            Some(failure) if !failure.is_answer() => return,
            _ => {}
        }
    }
}
