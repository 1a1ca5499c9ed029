//! Many tenants at once, each with a ledger of its own: every answer is exactly what the ledger
//! says, and nobody reaches what is another's.
//!
//! Job: `ledger` a tenant, whose counters are those of `tests/model`; `draw` what it does next;
//! `request` how that is sent; `expect` how an answer is compared. Here: tenants side by side on
//! several connections each, a restart in the middle, every pair of a key and somebody else's
//! things.
//! Invariant: what can be under way at once is about different counters, so each answer is the only
//! right one.
//! Must never: take a number, a status or a code from the server as the expected one.
//!
//! `ODOMETER_TENANT_MODEL_TENANTS` (5; the long form is 100), `ODOMETER_TENANT_MODEL_REQUESTS` (200
//! of each; 10,000), `ODOMETER_SEED` (printed).

mod draw;
mod expect;
mod ledger;
mod request;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::support::client::{Answer, Client, Endpoint, Protocol};
use crate::support::model::DEFAULT;
use crate::support::server::{Builder, Keep, TestServer};
use crate::support::workload::{PASSWORD, runtime};
use crate::support::{Random, number_setting, say};
use draw::{batch, counter_name};
use expect::check_refusal;
use futures_util::future::join_all;
use ledger::{COUNTER_LIMIT, Ledger};
use request::{COUNTERS, INTEGER, JSON, KEYS, Op, Request, Way, ask, send};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Of each tenant.
const CONNECTIONS: [Protocol; 3] = [Protocol::Http1, Protocol::Http2, Protocol::Http1];
/// Answers that are sent again at each look, and tenants that register at once.
const SOME: usize = 20;
/// Kinds of answers without which a run of at least `ENOUGH` requests proves little.
const KINDS: [&str; 17] = [
    "200",
    "201",
    "204",
    "replayed",
    "401 unauthorized",
    "403 insufficient_scope",
    "404 counter_not_found",
    "404 key_not_found",
    "409 counter_exhausted",
    "409 counter_exists",
    "409 default_counter",
    "409 rewind_required",
    "412 precondition_failed",
    "422 idempotency_key_reused",
    "422 invalid_value",
    "422 value_out_of_range",
    "404 of another's",
];
const ENOUGH: u64 = 1000;

/// A tenant's ledger, and what decides its next step.
struct Tenant {
    ledger: Ledger,
    random: Random,
    serial: u64,
}

#[test]
fn every_answer_is_what_the_ledger_says() {
    let tenants = usize::try_from(number_setting("ODOMETER_TENANT_MODEL_TENANTS", 5))
        .expect("a small number");
    let requests = number_setting("ODOMETER_TENANT_MODEL_REQUESTS", 200);
    let seed = Random::run_seed();
    say(&format!(
        "tenant model: {tenants} tenants, {requests} requests of each, ODOMETER_SEED={seed}"
    ));
    let folder = TempDir::new().expect("a temporary folder");
    let runtime = runtime();

    let server = server_on(&folder).start();
    let mut all = runtime.block_on(register(&server.endpoint(), tenants, seed));
    all = runtime.block_on(side_by_side(&server.endpoint(), all, move |tenant, endpoint| {
        play(tenant, endpoint, requests / 2)
    }));
    server.stop();

    let server = server_on(&folder).start();
    let endpoint = server.endpoint();
    all = runtime.block_on(side_by_side(&endpoint, all, look));
    all = runtime.block_on(side_by_side(&endpoint, all, move |tenant, endpoint| {
        play(tenant, endpoint, requests - requests / 2)
    }));
    let refused = runtime.block_on(reach_for_others(&endpoint, &all));
    all = runtime.block_on(side_by_side(&endpoint, all, look));
    server.stop();

    let mut tally = BTreeMap::from([("404 of another's".to_owned(), refused)]);
    for (kind, count) in all.iter().flat_map(|tenant| &tenant.ledger.tally) {
        *tally.entry(kind.clone()).or_default() += count;
    }
    let answers: u64 = tally.values().sum();
    say(&format!("tenant model: {answers} answers, each as the ledger says: {tally:?}"));
    let missing: Vec<_> = KINDS.into_iter().filter(|kind| !tally.contains_key(*kind)).collect();
    assert!(answers < ENOUGH || missing.is_empty(), "the seed {seed} never led to {missing:?}");
}

fn server_on(folder: &TempDir) -> Builder {
    let limit = COUNTER_LIMIT.to_string();
    TestServer::builder()
        .data_dir(folder.path().join("data"))
        .keep(Keep::Problems)
        .flag("--counters-per-tenant", limit)
        // So often that replays, reads and deletions meet records that are no longer in memory or
        // not yet.
        .flag("--checkpoint-interval", "100ms")
        .flag("--cache-records", "1000")
}

/// Registers them by both routes, and reads each one's `default` for its tag.
async fn register(endpoint: &Endpoint, tenants: usize, seed: u64) -> Vec<Tenant> {
    let mut client =
        endpoint.connect(Protocol::Http1).await.expect("the server accepts a connection");
    let mut all = Vec::with_capacity(tenants);
    for number in 0..tenants {
        let username = format!("Ledger-{number}");
        let body = json!({ "username": username, "password": PASSWORD }).to_string();
        let (path, status) =
            if number % 2 == 0 { ("/users/create", 200) } else { ("/api/v1/tenants", 201) };
        let answer = client.request("POST", path, &[JSON], body).await.expect("an answer");
        assert_eq!(answer.status, status, "{}", answer.text());
        let data = answer.json()["data"].clone();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let created_at = data["attributes"].get("created_at").cloned();
        let api_key = text(&data["attributes"]["api_key"]);
        let ledger = Ledger::new(number, text(&data["id"]), username, created_at, &api_key);
        let mut tenant =
            Tenant { ledger, random: Random::seeded(seed ^ (number as u64) << 32), serial: 0 };
        let by = tenant.ledger.first_key.clone();
        let read =
            Request { op: Op::Read { way: Way::Old, name: DEFAULT.to_owned() }, by, once: None };
        tenant.ask(&mut client, read).await;
        all.push(tenant);
    }
    all
}

/// Does the same with all of them at once, each on connections of its own.
async fn side_by_side<F: Future<Output = Tenant> + Send + 'static>(
    endpoint: &Endpoint,
    all: Vec<Tenant>,
    does: impl Fn(Tenant, Endpoint) -> F,
) -> Vec<Tenant> {
    let mut tasks = JoinSet::new();
    for tenant in all {
        tasks.spawn(does(tenant, endpoint.clone()));
    }
    let mut all = tasks.join_all().await;
    all.sort_by_key(|tenant| tenant.ledger.number);
    all
}

async fn connect(endpoint: &Endpoint) -> Vec<Client> {
    let mut clients = Vec::with_capacity(CONNECTIONS.len());
    for protocol in CONNECTIONS {
        clients.push(endpoint.connect(protocol).await.expect("the server accepts a connection"));
    }
    clients
}

async fn play(mut tenant: Tenant, endpoint: Endpoint, requests: u64) -> Tenant {
    let mut clients = connect(&endpoint).await;
    let mut left = usize::try_from(requests).expect("a small number");
    while left > 0 {
        let most = left.min(1 + tenant.random.index(clients.len()));
        let requests = batch(&tenant.ledger, &mut tenant.random, most, &mut tenant.serial);
        left -= requests.len();
        let ledger = &tenant.ledger;
        let sending = clients
            .iter_mut()
            .zip(&requests)
            .map(|(client, request)| send(client, request, ledger.api_key(&request.by)));
        let answers = join_all(sending).await;
        for (request, answer) in requests.iter().zip(answers) {
            tenant.judge(request, &answer.expect("nothing may fail under plain load"));
        }
        clients.rotate_left(1);
    }
    tenant
}

/// Reads everything that the tenant has and what it had, and sends some of what it asked for again.
async fn look(mut tenant: Tenant, endpoint: Endpoint) -> Tenant {
    let mut client =
        endpoint.connect(Protocol::Http2).await.expect("the server accepts a connection");
    let by = tenant.ledger.first_key.clone();
    let number = tenant.ledger.number;
    let names = (0..10).map(|counter| counter_name(number, counter)).chain([DEFAULT.to_owned()]);
    let mut requests: Vec<Request> = names
        .map(|name| Op::Read { way: Way::ByName, name })
        .chain([Op::Read { way: Way::Old, name: DEFAULT.to_owned() }, Op::Tenant])
        .chain([Op::List { size: 100 }, Op::List { size: 3 }, Op::ListKeys { size: 100 }])
        .map(|op| Request { op, by: by.clone(), once: None })
        .collect();
    for _ in 0..SOME.min(tenant.ledger.told_keys.len()) {
        let once = &tenant.ledger.told_keys[tenant.random.index(tenant.ledger.told_keys.len())];
        requests.push(Request { by: by.clone(), ..tenant.ledger.request_of(once).clone() });
    }
    for (id, _) in tenant.ledger.revoked.iter().take(SOME) {
        requests.push(Request { op: Op::Tenant, by: id.clone(), once: None });
    }
    for request in requests {
        tenant.ask(&mut client, request).await;
    }
    tenant
}

impl Tenant {
    async fn ask(&mut self, client: &mut Client, request: Request) {
        let answer = send(client, &request, self.ledger.api_key(&request.by)).await;
        self.judge(&request, &answer.expect("nothing may fail under plain load"));
    }

    fn judge(&mut self, request: &Request, answer: &Answer) {
        let before = request.op.counter().and_then(|name| self.ledger.counters.get(name).cloned());
        if let Err(difference) = self.ledger.judge(request, answer) {
            let (number, headers) = (self.ledger.number, &answer.headers);
            panic!(
                "tenant {number}: {difference}\nasked {request:?}\nof {before:?}\ntold {} {headers:?} {}",
                answer.status,
                answer.text()
            );
        }
    }
}

/// What a stranger is to reach for: names, ids and secrets, not more than it could have learnt.
struct Target {
    number: usize,
    counter: String,
    tag: String,
    key_id: String,
    api_key: String,
    once: Option<String>,
}

/// Each tenant's key on each other tenant's things, all at once. Returns how often there was no
/// such thing.
async fn reach_for_others(endpoint: &Endpoint, all: &[Tenant]) -> u64 {
    let targets: Arc<[Target]> = all.iter().map(|tenant| target(&tenant.ledger)).collect();
    let mut tasks = JoinSet::new();
    for thief in 0..targets.len() {
        let (endpoint, targets) = (endpoint.clone(), Arc::clone(&targets));
        tasks.spawn(async move {
            let mut client = endpoint
                .connect(CONNECTIONS[thief % 2])
                .await
                .expect("the server accepts a connection");
            let mut refused = 0;
            for target in targets.iter().filter(|target| target.number != thief) {
                refused += reach(&mut client, &targets[thief], target).await;
            }
            refused
        });
    }
    tasks.join_all().await.into_iter().sum()
}

/// A counter that is there, unless the tenant has none but `default`.
fn target(ledger: &Ledger) -> Target {
    let named = ledger.counters.iter().map(|(name, _)| name).find(|name| *name != DEFAULT);
    Target {
        number: ledger.number,
        counter: named.map_or_else(|| counter_name(ledger.number, 1), Clone::clone),
        tag: named.and_then(|name| ledger.tag(name)).unwrap_or("*").to_owned(),
        key_id: ledger.keys.keys().next_back().expect("each has a key").clone(),
        api_key: ledger.api_key(&ledger.first_key).to_owned(),
        once: ledger.told_keys.last().cloned(),
    }
}

async fn reach(client: &mut Client, thief: &Target, target: &Target) -> u64 {
    let (counter, no_source) = (format!("{COUNTERS}/{}", target.counter), Value::Null);
    let (increment, key) = (format!("{counter}/increment"), format!("{KEYS}/{}", target.key_id));
    let no_counter = (404, "counter_not_found", no_source.clone());
    let no_key = (404, "key_not_found", no_source);
    let nobody = (401, "unauthorized", json!({ "header": "Authorization" }));
    let crossed = crossed(&target.api_key, &thief.api_key);
    let (once, value) = (target.once.as_deref(), json!({ "value": 1_000_000, "rewind": true }));
    let cases = [
        (("GET", &*counter), &*thief.api_key, None, None, Value::Null, &no_counter),
        (("PUT", &counter), &thief.api_key, None, Some(&*target.tag), value, &no_counter),
        (("DELETE", &counter), &thief.api_key, None, Some(&*target.tag), Value::Null, &no_counter),
        (("POST", &increment), &thief.api_key, once, None, json!({ "count": 2 }), &no_counter),
        (("DELETE", &key), &thief.api_key, None, None, Value::Null, &no_key),
        (("GET", INTEGER), &crossed, None, None, Value::Null, &nobody),
    ];
    let count = cases.len() as u64;
    for (route, api_key, once, if_match, parameters, expected) in cases {
        let answer = ask(client, route, api_key, once, if_match, &parameters)
            .await
            .expect("nothing may fail");
        if let Err(difference) = check_refusal(&answer, expected) {
            let (thief, owner, text) = (thief.number, target.number, answer.text());
            panic!(
                "tenant {thief} at {route:?} of tenant {owner}: {difference}\ntold {} {text}",
                answer.status
            );
        }
    }
    count
}

/// The id of one tenant's key with the secret of another's, whole otherwise.
fn crossed(one: &str, other: &str) -> String {
    let body = format!("{}{}", &one[..21], &other[21..85]);
    format!("{body}{:08x}", crc32c::crc32c(body.as_bytes()))
}
