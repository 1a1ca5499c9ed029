//! Increments whose answer never arrived, asked for again with their `Idempotency-Key`: each has
//! exactly one number, and no number is missing.
//!
//! Clients cut their connections at drawn moments and try again until they are answered; the server
//! is killed under the same load, and one key is sent by several connections at once. At the end
//! every counter was handed out without a hole, and every key answers the same again.
//! Invariant: nothing is excused. What `history.rs` explains by an unknown outcome would be a fault
//! here, since the key tells what became of it.
//! Must never: count an answer that was cut off as one; a client knows a number only from a whole
//! answer.
//!
//! `ODOMETER_RETRY_INCREMENTS` (200; the long form is 10,000), `ODOMETER_RETRY_KILLS` (3; 100),
//! `ODOMETER_SEED` (printed).

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::support::client::{Answer, Client, Endpoint, Failure, Protocol};
use crate::support::raw_client::{Interruption, Progress, RawConnection, interrupt};
use crate::support::server::{Builder, Keep, TestServer};
use crate::support::workload::{register, runtime};
use crate::support::{Random, number_setting, say};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

const CLIENTS: u64 = 16;
/// The counters that the increments are spread over; the first one by the old route.
const COUNTERS: [&str; 4] = ["default", "a", "b", "c"];
/// How often a client goes away before it waits for its answer.
const MOST_CUTS: usize = 2;
/// How many connections send the same key at once.
const AT_ONCE: usize = 4;
const KILL_AFTER_MS: (u64, u64) = (50, 500);
/// How long a client looks away from a server that does not answer, unless it is told that there is
/// one again.
const PAUSE: Duration = Duration::from_millis(20);
/// Far above any honest start.
const DEADLINE: Duration = Duration::from_secs(120);

/// The longest that a client waits before it goes away; an answer takes about as long.
const LONGEST_WAIT_US: u64 = 3000;
/// A status line of success, and some of what follows it.
const BEGINNING: (u64, u64) = (12, 212);

/// An increment of one counter, with an idempotency key and perhaps a count.
#[derive(Clone, Debug)]
struct Change {
    method: &'static str,
    path: String,
    bearer: String,
    once: String,
    body: String,
}

/// How a client goes away before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// From a connection of HTTP/1.1.
    Connection(Interruption),
    /// From a stream of HTTP/2, this long after it was sent: it is reset, and then its connection.
    Stream(Duration),
}

impl Change {
    /// The headers that it is sent with, whichever way.
    fn headers(&self) -> [(&str, &str); 3] {
        [
            ("authorization", &self.bearer),
            ("idempotency-key", &self.once),
            ("content-type", "application/json"),
        ]
    }

    fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nhost: localhost\r\n", self.method, self.path);
        for (name, value) in self.headers() {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("content-length: {}\r\n\r\n{}", self.body.len(), self.body));
        text.into_bytes()
    }

    /// One of the moments at which a client of this change may go away.
    fn moment(&self, random: &mut Random) -> Moment {
        let wait = Duration::from_micros(random.between(0, LONGEST_WAIT_US));
        Moment::Connection(match random.between(0, 5) {
            0 => Interruption::Partly(random.index(self.bytes().len())),
            1 => Interruption::Sent,
            2 => Interruption::Begun(random.between(BEGINNING.0, BEGINNING.1 - 1) as usize),
            3 => return Moment::Stream(wait),
            _ => Interruption::After(wait),
        })
    }
}

/// An increment as it was answered at last.
#[derive(Clone, Debug)]
struct Given {
    change: Change,
    counter: usize,
    first: u64,
    last: u64,
    /// How far the furthest try came whose answer was not read; nothing when the first one was
    /// answered.
    seen: Option<Progress>,
    replayed: bool,
}

/// What the clients of a load have in common.
#[derive(Clone)]
struct Plan {
    endpoint: Endpoint,
    connector: TlsConnector,
    bearer: String,
    /// How many servers have become ready.
    starts: watch::Receiver<u64>,
    stopped: Arc<AtomicBool>,
    /// Increments of each client at least.
    least: u64,
    /// A client goes away once in so many tries that it could.
    one_cut_in: u64,
}

#[test]
fn cut_connections_leave_no_hole_and_no_duplicate() {
    let seed = Random::run_seed();
    let increments = number_setting("ODOMETER_RETRY_INCREMENTS", 200);
    say(&format!("retries: {increments} increments, ODOMETER_SEED={seed}"));
    let server = TestServer::builder().keep(Keep::Problems).start();
    let (plan, _starts) = plan(&server, increments.div_ceil(CLIENTS), 2);
    plan.stopped.store(true, Ordering::Relaxed);
    let given = runtime().block_on(run_clients(&plan, seed));
    assert_both_kinds(assert_complete("retries", &plan, &given));
    server.stop();
}

#[test]
fn kills_under_retries_leave_no_hole_and_no_duplicate() {
    let seed = Random::run_seed();
    let kills = number_setting("ODOMETER_RETRY_KILLS", 3);
    say(&format!("retries, killed: {kills} kills, ODOMETER_SEED={seed}"));
    let mut random = Random::seeded(seed);
    let folder = TempDir::new().expect("a temporary folder");
    let mut server = server_on(&folder, SocketAddr::from((own_address(), 0)), &mut random).start();
    let address = server.public();
    let (plan, starts) = plan(&server, 1, 8);
    let load = {
        let plan = plan.clone();
        std::thread::spawn(move || runtime().block_on(run_clients(&plan, seed)))
    };
    for kill in 1..=kills {
        wait_a_while(&mut random);
        assert!(!load.is_finished(), "the clients ended by themselves");
        server.kill();
        server = server_on(&folder, address, &mut random).start();
        starts.send_replace(kill);
    }
    wait_a_while(&mut random);
    plan.stopped.store(true, Ordering::Relaxed);
    let given = load.join().expect("the clients are content");
    assert_both_kinds(assert_complete("retries, killed", &plan, &given));
    server.stop();
}

#[test]
fn one_key_on_several_connections_at_once_takes_one_number() {
    let seed = Random::run_seed();
    let keys = number_setting("ODOMETER_RETRY_INCREMENTS", 200).div_ceil(AT_ONCE as u64);
    say(&format!(
        "retries, at once: {keys} keys on {AT_ONCE} connections each, ODOMETER_SEED={seed}"
    ));
    let server = TestServer::builder().keep(Keep::Problems).start();
    let (plan, _starts) = plan(&server, keys, 2);
    let mut random = Random::seeded(seed);
    let given = runtime().block_on(async {
        let mut clients: [Option<Client>; AT_ONCE] = Default::default();
        let mut given = Vec::new();
        for number in 0..keys {
            let (counter, change) = draw(&plan, &format!("once-{number}"), &mut random);
            // Some of them go away; the others are enough to tell.
            let cut = (random.between(0, 2) == 0).then(|| change.moment(&mut random));
            let cutting = async { plan.send_and_leave(&change, cut?, number % 2 == 0).await.ok() };
            let asking = clients
                .iter_mut()
                .enumerate()
                .map(|(at, client)| plan.until_answered(client, &change, at));
            let (seen, answers) = tokio::join!(cutting, join_all(asking));
            given.push(the_one(&answers, &change, counter, seen));
        }
        given
    });
    assert_complete("retries, at once", &plan, &given);
    server.stop();
}

/// All answers to one key are the same number, and one at most says that it is the first.
fn the_one(
    answers: &[(Answer, bool)],
    change: &Change,
    counter: usize,
    seen: Option<Progress>,
) -> Given {
    let all: Vec<Given> =
        answers.iter().map(|(answer, _)| Given::of(answer, change, counter, seen)).collect();
    let first = all.iter().filter(|given| !given.replayed).count();
    assert!(
        first == 1 || (first == 0 && seen > Some(Progress::Partly)),
        "{first} of {AT_ONCE} were the first: {all:#?}"
    );
    assert!(
        all.iter().all(|given| (given.first, given.last) == (all[0].first, all[0].last)),
        "two numbers: {all:#?}"
    );
    Given { replayed: first == 0, ..all[0].clone() }
}

fn server_on(folder: &TempDir, address: SocketAddr, random: &mut Random) -> Builder {
    let builder = TestServer::builder().data_dir(folder.path().join("data")).keep(Keep::Problems);
    let builder =
        builder.flag("--listen", address.to_string()).flag("--idempotency-keys", "4000000");
    // Half of the processes checkpoint, roll and back up so often that the end falls into one of
    // these.
    if random.between(0, 1) == 0 {
        let builder =
            builder.flag("--checkpoint-interval", "100ms").flag("--journal-segment-size", "1MiB");
        return builder
            .flag("--journal-cap", "2MiB")
            .flag("--backup-interval", "1s")
            .flag("--backup-keep", "2");
    }
    builder
}

/// An address of this machine that no client is given as its own, so nobody takes the port while
/// the server is down.
fn own_address() -> Ipv4Addr {
    let [a, b, c, d] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | (a ^ b) & 63, c, d | 1)
}

/// The random moment of the fault; the load goes on meanwhile.
fn wait_a_while(random: &mut Random) {
    let (_nobody_tells, told) = channel::<()>();
    let ran_out =
        told.recv_timeout(Duration::from_millis(random.between(KILL_AFTER_MS.0, KILL_AFTER_MS.1)));
    assert!(ran_out.is_err(), "only the time can end this");
}

/// A tenant with its counters, each of which starts where `default` does.
fn plan(server: &TestServer, least: u64, one_cut_in: u64) -> (Plan, watch::Sender<u64>) {
    let endpoint = server.endpoint();
    let bearer = runtime().block_on(async {
        let key = register(&endpoint, "retries", 1).await.remove(0);
        let bearer = format!("Bearer {key}");
        let mut client =
            endpoint.connect(Protocol::Http1).await.expect("the server accepts a connection");
        for name in &COUNTERS[1..] {
            let headers = [("authorization", &*bearer), ("content-type", "application/json")];
            let answer = client
                .request("POST", "/api/v1/counters", &headers, json!({ "name": name }).to_string())
                .await;
            assert_eq!(answer.expect("an answer").status, 201);
        }
        bearer
    });
    let (sender, starts) = watch::channel(0);
    let connector = endpoint.tls(&[b"http/1.1"]);
    (
        Plan { endpoint, connector, bearer, starts, stopped: Arc::default(), least, one_cut_in },
        sender,
    )
}

async fn run_clients(plan: &Plan, seed: u64) -> Vec<Given> {
    let mut tasks = JoinSet::new();
    for number in 0..CLIENTS {
        tasks.spawn(run_client(plan.clone(), number, Random::seeded(seed ^ number << 32)));
    }
    tasks.join_all().await.concat()
}

/// Increments until it did its part and the load is stopped; what it has begun it brings to its
/// end.
async fn run_client(plan: Plan, number: u64, mut random: Random) -> Vec<Given> {
    let (mut given, mut client) = (Vec::new(), None);
    while (given.len() as u64) < plan.least || !plan.stopped.load(Ordering::Relaxed) {
        let (counter, change) = draw(&plan, &format!("{number}-{}", given.len()), &mut random);
        let mut seen = None;
        for _ in 0..MOST_CUTS {
            if random.between(1, plan.one_cut_in) > 1 {
                continue;
            }
            let moment = change.moment(&mut random);
            let cut = plan.cut(&change, moment, random.between(0, 1) == 0).await;
            seen = seen.max(cut);
        }
        let (answer, unanswered) = plan.until_answered(&mut client, &change, random.index(4)).await;
        let seen = seen.max(unanswered.then_some(Progress::Sent));
        given.push(Given::of(&answer, &change, counter, seen).follows());
    }
    given
}

/// An increment of some counter, with a count or without.
fn draw(plan: &Plan, once: &str, random: &mut Random) -> (usize, Change) {
    let counter = random.index(COUNTERS.len());
    let (method, path) = match counter {
        0 => ("PUT", "/api/v1/integer/increment".to_owned()),
        _ => ("POST", format!("/api/v1/counters/{}/increment", COUNTERS[counter])),
    };
    let body = match random.between(0, 3) {
        0 => json!({ "count": random.between(2, 5) }).to_string(),
        _ => String::new(),
    };
    (counter, Change { method, path, bearer: plan.bearer.clone(), once: once.to_owned(), body })
}

impl Given {
    /// What a whole answer says; it must be a success.
    fn of(answer: &Answer, change: &Change, counter: usize, seen: Option<Progress>) -> Self {
        assert_eq!(answer.status, 200, "{change:?}: {}", answer.text());
        let document = answer.json();
        let number = |name: &str| document["data"]["attributes"][name].as_u64();
        let last = number("value").expect("a value");
        let first = number("first").unwrap_or(last);
        let replayed = match answer.header("idempotency-replayed") {
            "" => false,
            "true" => true,
            other => panic!("Idempotency-Replayed: {other}"),
        };
        Self { change: change.clone(), counter, first, last, seen, replayed }
    }

    /// Of tries one after another: a beginning that was read was done before; what was never sent
    /// whole was not.
    fn follows(self) -> Self {
        assert!(self.replayed || self.seen != Some(Progress::Begun), "done twice: {self:?}");
        assert!(
            !self.replayed || self.seen > Some(Progress::Partly),
            "done without being asked: {self:?}"
        );
        self
    }
}

impl Plan {
    /// Sends it and goes away, to any server that there is.
    async fn cut(&self, change: &Change, moment: Moment, reset: bool) -> Option<Progress> {
        let cutting = self.send_and_leave(change, moment, reset);
        match tokio::time::timeout(DEADLINE, cutting)
            .await
            .expect("an answer begins or its connection ends")
        {
            Ok(seen) => Some(seen),
            Err(_) => {
                self.pause().await;
                None
            }
        }
    }

    /// The same once; `reset` leaves a connection with RST instead of FIN. An error means that
    /// nothing was sent.
    async fn send_and_leave(
        &self,
        change: &Change,
        moment: Moment,
        reset: bool,
    ) -> io::Result<Progress> {
        match moment {
            Moment::Connection(at) => {
                let connection = RawConnection::over_tls(&self.endpoint, &self.connector).await?;
                if reset {
                    connection.reset_at_end()?;
                }
                Ok(interrupt(connection, &change.bytes(), at).await)
            }
            Moment::Stream(wait) => {
                let mut client = self.endpoint.connect(Protocol::Http2).await?;
                let headers = change.headers();
                let asking =
                    client.request(change.method, &change.path, &headers, change.body.clone());
                let is_done = |answer: &Answer| answer.status == 200;
                let answer = tokio::time::timeout(wait, asking).await.ok().and_then(Result::ok);
                Ok(if answer.as_ref().is_some_and(is_done) {
                    Progress::Begun
                } else {
                    Progress::Sent
                })
            }
        }
    }

    /// Asks until there is an answer, by HTTP/2 for one kind in four. The second: whether a try was
    /// sent and not answered.
    async fn until_answered(
        &self,
        client: &mut Option<Client>,
        change: &Change,
        kind: usize,
    ) -> (Answer, bool) {
        let (until, mut unanswered) = (Instant::now() + DEADLINE, false);
        let protocol = if kind == 3 { Protocol::Http2 } else { Protocol::Http1 };
        loop {
            assert!(Instant::now() < until, "not answered within {DEADLINE:?}: {change:?}");
            if client.is_none() {
                *client = self.endpoint.connect(protocol).await.ok();
            }
            let Some(connected) = client.as_mut() else {
                self.pause().await;
                continue;
            };
            match connected
                .request(change.method, &change.path, &change.headers(), change.body.clone())
                .await
            {
                Ok(answer) if answer.status == 503 => {
                    unanswered |= answer.code() == "outcome_unknown";
                    self.pause().await;
                }
                Ok(answer) => return (answer, unanswered),
                Err(failure) => {
                    unanswered |= matches!(failure, Failure::Unknown(_));
                    *client = None;
                }
            }
        }
    }

    async fn pause(&self) {
        let mut starts = self.starts.clone();
        starts.mark_unchanged();
        // A start ends the pause, and so does its end; a sender that is gone ends it at once.
        let _ = tokio::time::timeout(PAUSE, starts.changed()).await;
    }
}

/// Every number once, none missing, each counter where its last number says, and every key answered
/// again as before. Returns how many of those that were tried again had been done before, and how
/// many had not.
fn assert_complete(name: &str, plan: &Plan, given: &[Given]) -> (usize, usize) {
    let mut counters: BTreeMap<usize, Vec<&Given>> = BTreeMap::new();
    given.iter().for_each(|one| counters.entry(one.counter).or_default().push(one));
    let values = runtime().block_on(async {
        let mut client =
            plan.endpoint.connect(Protocol::Http1).await.expect("the server accepts a connection");
        for one in given {
            let change = &one.change;
            let answer = client
                .request(change.method, &change.path, &change.headers(), change.body.clone())
                .await;
            let again =
                Given::of(&answer.expect("an answer"), change, one.counter, Some(Progress::Begun))
                    .follows();
            assert_eq!(
                (again.first, again.last),
                (one.first, one.last),
                "another number for {one:?}"
            );
        }
        let mut values = Vec::new();
        for counter in COUNTERS {
            let headers = [("authorization", &*plan.bearer)];
            let answer =
                client.request("GET", &format!("/api/v1/counters/{counter}"), &headers, "").await;
            let document: Value = answer.expect("an answer").json();
            values.push(document["data"]["attributes"]["value"].as_u64().expect("a value"));
        }
        values
    });
    for (counter, mut all) in counters {
        all.sort_by_key(|one| one.first);
        let end = all.iter().fold(1, |before, one| {
            assert_eq!(
                one.first,
                before + 1,
                "{name}: a hole or a duplicate after {before} of {}: {one:?}",
                COUNTERS[counter]
            );
            one.last
        });
        assert_eq!(
            values[counter], end,
            "{name}: {} went further than it was answered",
            COUNTERS[counter]
        );
    }
    let count = |replayed: bool, least: Progress| {
        given.iter().filter(|one| one.replayed == replayed && one.seen >= Some(least)).count()
    };
    let (replayed, sent, partly) =
        (count(true, Progress::Sent), count(false, Progress::Sent), count(false, Progress::Partly));
    let (keys, numbers) = (given.len(), values.iter().sum::<u64>() - values.len() as u64);
    say(&format!(
        "{name}: {keys} keys, {numbers} numbers, no hole, no duplicate; of those that were tried again {replayed} had been done, {partly} not, \
         {sent} of which had been sent whole"
    ));
    (replayed, partly)
}

/// A retry of either kind happened, or the run proves little.
fn assert_both_kinds((replayed, partly): (usize, usize)) {
    assert!(replayed > 0, "no retry met what was done before");
    assert!(partly > 0, "no retry was the first that was done");
}
