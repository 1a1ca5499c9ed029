//! Two tenants who do everything right while the campaign goes on, and what the process looks like
//! from outside.
//!
//! Job: [`Control`] asks for a number now and then and knows what it must be; [`Looks`] are
//! descriptors and memory.
//! Invariant: nobody else has these tenants' keys, so each value is known exactly.
//! Must never: excuse a failed request.

use crate::support::client::{Client, Endpoint, Failure, Protocol};
use crate::support::server::TestServer;
use crate::support::workload::PASSWORD;

/// Steps between two sets of the counter.
const SET_EVERY: u64 = 100;
/// What the tenant who does nothing once set.
const LEFT_ALONE: u64 = 4242;

/// Two tenants: one counts, and one does nothing until the end.
#[derive(Clone, Debug)]
pub(crate) struct Tenants {
    key: String,
    value: u64,
    other_key: String,
    other_value: u64,
}

/// They, and their connections over both protocols.
#[derive(Debug)]
pub(crate) struct Control {
    clients: [Client; 2],
    pub(crate) tenants: Tenants,
    steps: u64,
}

impl Control {
    /// Registers the two.
    pub(crate) async fn start(endpoint: &Endpoint) -> Self {
        let mut clients = connect(endpoint).await;
        let key =
            clients[0].register("control", PASSWORD).await.expect("a new name can be registered");
        let other_key = clients[0]
            .register("left-alone", PASSWORD)
            .await
            .expect("a new name can be registered");
        let other_value =
            clients[1].set(&other_key, LEFT_ALONE).await.expect("a counter can be set");
        Self { clients, tenants: Tenants { key, value: 1, other_key, other_value }, steps: 0 }
    }

    /// The same two on a server that was started again.
    pub(crate) async fn again(endpoint: &Endpoint, tenants: Tenants) -> Self {
        Self { clients: connect(endpoint).await, tenants, steps: 0 }
    }

    pub(crate) fn keys(&self) -> [&String; 2] {
        [&self.tenants.key, &self.tenants.other_key]
    }

    /// Both counters are where they must be and go on; newcomers are welcome.
    pub(crate) async fn check(&mut self) -> Result<(), String> {
        self.step().await?;
        let (client, other) = (&mut self.clients[0], &mut self.tenants);
        let (now, next) =
            (client.read(&other.other_key).await, client.increment(&other.other_key).await);
        let is_right = |told: &Result<u64, Failure>, wanted: u64| matches!(told, Ok(value) if *value == wanted);
        if !is_right(&now, other.other_value) || !is_right(&next, other.other_value + 1) {
            return Err(format!(
                "{} was left alone, and is {now:?}, then {next:?}",
                other.other_value
            ));
        }
        other.other_value += 1;
        let name = format!("newcomer-{}", other.other_value);
        client
            .register(&name, PASSWORD)
            .await
            .map(drop)
            .map_err(|failure| format!("{name}: {failure:?}"))
    }

    /// One increment; the error says what came instead of the next value.
    pub(crate) async fn step(&mut self) -> Result<(), String> {
        let (client, tenant) =
            (&mut self.clients[usize::from(self.steps % 2 == 1)], &mut self.tenants);
        self.steps += 1;
        let wanted = tenant.value + 1;
        match client.increment(&tenant.key).await {
            Ok(value) if value == wanted => tenant.value = wanted,
            other => return Err(format!("the control tenant was to get {wanted}: {other:?}")),
        }
        if self.steps.is_multiple_of(SET_EVERY) {
            tenant.value += 1000;
            let set = client.set(&tenant.key, tenant.value).await;
            if !matches!(set, Ok(value) if value == tenant.value) {
                return Err(format!("the control tenant set {}: {set:?}", tenant.value));
            }
        }
        Ok(())
    }
}

async fn connect(endpoint: &Endpoint) -> [Client; 2] {
    let http1 = endpoint.connect(Protocol::Http1).await.expect("the server accepts a connection");
    let http2 = endpoint.connect(Protocol::Http2).await.expect("the server accepts a connection");
    [http1, http2]
}

/// The process from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Looks {
    pub(crate) descriptors: usize,
    pub(crate) resident_kib: u64,
}

impl Looks {
    #[track_caller]
    pub(crate) fn of(server: &TestServer) -> Self {
        let pid = server.pid().expect("the server runs");
        let descriptors =
            std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the server runs").count();
        let status =
            std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("a process has memory");
        let resident_kib = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        Self { descriptors, resident_kib }
    }
}
