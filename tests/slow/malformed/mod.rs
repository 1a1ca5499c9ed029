//! A campaign of malformed requests against the real binary: over TLS, in clear where that is
//! wrong, in broken TLS and in broken HTTP/2.
//!
//! Job: send what the seeded generator makes (`templates` valid requests, `heads` and `bodies` what
//! is done to them, `peer`, `records` and `frames` how they travel), judge everything that comes
//! back (`checker`), and look at the process (`control`).
//! Invariant: the process never ends; no answer is a 5xx; every answer is well-formed HTTP; no
//! connection outlasts the limits that `docs/configuration.md` states; two tenants who do
//! everything right get exactly their numbers; descriptors and memory come back; no log line holds
//! a key, a password or a body; and SIGTERM ends it with 0.
//! Must never: assert how fast anything is.
//!
//! `ODOMETER_MALFORMED_REQUESTS` (3000) requests, drawn by `ODOMETER_SEED` (printed).
//! `ODOMETER_MALFORMED_ONLY` repeats one bundle of requests, by the number that its violation
//! shows.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod bodies;
mod checker;
mod control;
mod draft;
mod frames;
mod heads;
mod peer;
mod records;
mod templates;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::support::client::{Endpoint, Protocol};
use crate::support::server::{Keep, TestServer, Written};
use crate::support::workload::runtime;
use crate::support::{Random, number_setting, say, setting};
use checker::Tally;
use control::{Control, Looks};
use peer::Peer;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tempfile::TempDir;
use templates::{Account, CANARY, Cast};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

const PEERS: usize = 32;
/// Connections that are waited for beside the campaign.
const ENDINGS: usize = 64;
/// Bundles between two steps of the control tenant.
const CONTROL_EVERY: u64 = 32;
/// The journal may have rolled to its next file and a checkpoint or a backup may be under way.
const MORE_DESCRIPTORS: usize = 8;
/// From the first tenth of the campaign on, when each path has been taken and both threads have
/// hashed, memory may grow by this much: requests hold at most a few hundred KiB each and are gone
/// with their connections; what stays is the records of a few thousand tenants and what the
/// allocator keeps of the highest tide.
const MORE_RESIDENT_KIB: u64 = 64 << 10;
const SETTLE_DEADLINE: Duration = Duration::from_secs(20);

/// What all peers share.
pub(crate) struct Campaign {
    endpoint: Endpoint,
    /// The port without TLS.
    http: SocketAddr,
    http1: TlsConnector,
    http2: TlsConnector,
    client_hello: Vec<u8>,
    cast: Cast,
    seed: u64,
    next: AtomicU64,
    sent: AtomicU64,
    endings: Arc<Semaphore>,
    tally: Mutex<Tally>,
    control: tokio::sync::Mutex<Control>,
}

impl Campaign {
    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("nobody panics with the tally in hand")
    }

    /// The generator of one bundle: its number alone repeats it.
    fn random(&self, number: u64) -> Random {
        Random::seeded(
            Random::seeded(self.seed ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d)).next(),
        )
    }

    /// Bundles until enough requests were sent.
    async fn run(self: Arc<Self>, until: u64) {
        let mut peer = Peer::new(&self);
        while self.sent.load(Ordering::Relaxed) < until {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let requests = self.play(&mut peer, number).await;
            self.sent.fetch_add(requests, Ordering::Relaxed);
            if number.is_multiple_of(CONTROL_EVERY)
                && let Err(what) = self.control.lock().await.step().await
            {
                self.tally().violation(number, &what, b"");
            }
        }
    }

    async fn play(self: &Arc<Self>, peer: &mut Peer, number: u64) -> u64 {
        let mut random = self.random(number);
        match random.index(100) {
            0..=4 => records::play(self, number, &mut random).await,
            5..=14 => frames::play(self, number, &mut random).await,
            15..=17 => peer.play(number, true, &mut random).await,
            _ => peer.play(number, false, &mut random).await,
        }
    }

    /// One bundle, alone.
    async fn run_only(self: &Arc<Self>, number: u64) {
        self.play(&mut Peer::new(self), number).await;
        self.wait_for_endings().await;
    }

    /// All peers until so many requests were sent in all.
    async fn run_all(self: &Arc<Self>, until: u64) {
        let peers: JoinSet<()> = (0..PEERS).map(|_| Arc::clone(self).run(until)).collect();
        peers.join_all().await;
    }

    /// The waits that were begun beside the campaign.
    async fn wait_for_endings(&self) {
        let all = u32::try_from(ENDINGS).expect("a small number");
        drop(self.endings.acquire_many(all).await.expect("it is never closed"));
    }
}

/// Registers the cast and the two tenants who do everything right.
async fn set_up(server: &TestServer, seed: u64) -> Campaign {
    let endpoint = server.endpoint();
    let mut client = endpoint.connect(Protocol::Http1).await.unwrap();
    let mut accounts = Vec::new();
    for number in 0..8 {
        let (name, password) = (format!("player-{number}"), format!("pass-{number}-{CANARY}"));
        let key = client.register(&name, &password).await.expect("a new name can be registered");
        accounts.push(Account { name, password, key });
    }
    let cast = Cast { expendable: accounts.split_off(5), lasting: accounts };
    let control = Control::start(&endpoint).await;
    let keys = cast
        .lasting
        .iter()
        .chain(&cast.expendable)
        .map(|account| &account.key)
        .chain(control.keys());
    // The secret part of a key alone, since a part of it is a leak too.
    let secrets = keys.map(|key| key[21..53].to_owned());
    server.keep_secret(secrets.chain([CANARY.to_owned(), "odo_".to_owned()]));
    let (http1, http2) = (endpoint.tls(&[b"http/1.1"]), endpoint.tls(&[b"h2"]));
    Campaign {
        http: server.http(),
        client_hello: client_hello(&http1),
        http1,
        http2,
        endpoint,
        cast,
        seed,
        next: AtomicU64::new(0),
        sent: AtomicU64::new(0),
        endings: Arc::new(Semaphore::new(ENDINGS)),
        tally: Mutex::default(),
        control: tokio::sync::Mutex::new(control),
    }
}

/// The first bytes of a real handshake.
fn client_hello(connector: &TlsConnector) -> Vec<u8> {
    let name = ServerName::try_from("localhost").expect("localhost is a name");
    let config = Arc::clone(connector.config());
    let mut connection =
        rustls::ClientConnection::new(config, name).expect("a handshake can begin");
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).expect("a Vec takes everything");
    bytes
}

#[test]
fn malformed_requests_hurt_nobody() {
    let (seed, wanted) = (Random::run_seed(), number_setting("ODOMETER_MALFORMED_REQUESTS", 3000));
    say(&format!("malformed: {wanted} requests, ODOMETER_SEED={seed}"));
    let folder = TempDir::new().unwrap();
    let builder =
        || TestServer::builder().data_dir(folder.path().join("data")).keep(Keep::Problems);
    let server = builder().flag("--http-listen", "127.0.0.1:0").start();
    let runtime = runtime();
    let campaign = Arc::new(runtime.block_on(set_up(&server, seed)));
    let looks = match setting("ODOMETER_MALFORMED_ONLY") {
        Some(only) => {
            runtime.block_on(campaign.run_only(only.parse().expect("the number of a bundle")));
            [Looks::of(&server); 3]
        }
        None => measure(&runtime, &server, &campaign, wanted),
    };
    let campaign = Arc::into_inner(campaign).unwrap_or_else(|| panic!("a peer is still there"));
    let tally = campaign.tally.into_inner().expect("nobody panics with the tally in hand");
    let (count, shown) = (tally.violation_count, tally.violations.join("\n"));
    assert_eq!(count, 0, "ODOMETER_SEED={seed}: {count} violations, the first are:\n{shown}");
    assert_looks(looks);
    let mut control = campaign.control.into_inner();
    runtime.block_on(control.check()).unwrap();
    assert_metrics(&server);
    let tenants = control.tenants;
    // Its connections end with it.
    drop(runtime);
    assert_written(&server.stop());

    // Another process finds the same.
    let server = builder().start();
    let runtime = self::runtime();
    runtime
        .block_on(async { Control::again(&server.endpoint(), tenants).await.check().await })
        .unwrap();
    drop(runtime);
    server.stop();
}

/// The whole campaign, and what the process looks like before, in the middle and behind it.
fn measure(
    runtime: &Runtime,
    server: &TestServer,
    campaign: &Arc<Campaign>,
    wanted: u64,
) -> [Looks; 3] {
    let (before, started) = (Looks::of(server), Instant::now());
    runtime.block_on(campaign.run_all(wanted / 10));
    let warm = Looks::of(server);
    runtime.block_on(campaign.run_all(wanted));
    let took = started.elapsed();
    runtime.block_on(campaign.wait_for_endings());
    let after = settled(server, before);
    let looks = [before, warm, after];
    report(campaign, server, took, looks);
    looks
}

fn assert_looks([before, warm, after]: [Looks; 3]) {
    assert!(
        after.descriptors <= before.descriptors + MORE_DESCRIPTORS,
        "descriptors leak: {before:?}, then {after:?}"
    );
    assert!(
        after.resident_kib <= warm.resident_kib + MORE_RESIDENT_KIB,
        "memory leaks: {warm:?}, then {after:?}"
    );
}

/// No secret in any line, no fault, and nothing where nothing belongs.
fn assert_written(written: &Written) {
    say(&format!("malformed: {} log lines searched for secrets", written.lines));
    // A request's id is what its sender calls it. A change that joins two header lines can make it
    // a secret; then its sender has told it.
    let told_elsewhere = |(secret, line): &&(String, String)| {
        let mut event: Value = serde_json::from_str(line).unwrap_or_else(|_| line.as_str().into());
        event.as_object_mut().map(|members| members.remove("http.request.id"));
        event.to_string().contains(secret)
    };
    let told: Vec<_> = written.told.iter().filter(told_elsewhere).take(5).collect();
    assert!(told.is_empty(), "a secret is in the log: {told:#?}");
    assert_eq!(written.stderr, "", "a server that logs to stdout has nothing to say elsewhere");
    let errors: Vec<_> =
        written.events().into_iter().filter(|event| event["log.level"] == "error").collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

/// The process when the last connection is gone, which the server may notice a moment later.
fn settled(server: &TestServer, before: Looks) -> Looks {
    let until = Instant::now() + SETTLE_DEADLINE;
    loop {
        // Each look costs a request to the operators' port, which is one more descriptor until the
        // server sees its end.
        server.ops_get("/livez");
        let looks = Looks::of(server);
        if looks.descriptors <= before.descriptors + MORE_DESCRIPTORS || Instant::now() > until {
            return looks;
        }
    }
}

/// What the server itself counted: nothing that it could not answer, over HTTP/2 either.
fn assert_metrics(server: &TestServer) {
    assert_eq!(server.metric("http_server_exceptions_total").unwrap_or(0.0), 0.0);
    let (_, text) = server.ops_get("/metrics");
    let faults: Vec<_> = text
        .lines()
        .filter(|line| {
            line.starts_with("http_server_requests_total{code=\"5") && !line.ends_with(" 0")
        })
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
    assert_eq!(server.metric("odometer_store_ready"), Some(1.0));
}

fn report(
    campaign: &Campaign,
    server: &TestServer,
    took: Duration,
    [before, warm, after]: [Looks; 3],
) {
    let tally = campaign.tally();
    let (requests, seconds) = (campaign.sent.load(Ordering::Relaxed), took.as_secs_f64());
    let bundles = campaign.next.load(Ordering::Relaxed);
    say(&format!(
        "malformed: {requests} requests in {bundles} bundles, {seconds:.1} s, {:.0}/s",
        requests as f64 / seconds
    ));
    for ((kind, status), count) in &tally.statuses {
        say(&format!("malformed: {kind:12} answered {status} {count:>9} times"));
    }
    for ((kind, end), count) in &tally.ends {
        say(&format!("malformed: {kind:12} {:11} {count:>9} times", format!("{end:?}")));
    }
    let mut codes = std::collections::BTreeMap::<String, u64>::new();
    let (_, text) = server.ops_get("/metrics");
    for line in
        text.lines().filter_map(|line| line.strip_prefix("http_server_requests_total{code=\""))
    {
        let count: f64 =
            line.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0.0);
        *codes.entry(line[..3].to_owned()).or_default() += count as u64;
    }
    say(&format!("malformed: counted by the server: {codes:?}, faults: {}", tally.violation_count));
    say(&format!("malformed: before {before:?}, warm {warm:?}, after {after:?}"));
}
