//! End to end over TLS: durable increments per second and their latency, beside the same server's
//! reads.
//!
//! Invariant: reads and the kinds of increments (spread, one hot counter, named counters, with
//! idempotency keys) alternate within each round on the same server, so that a change of the
//! machine's mood hits all of them; medians over the rounds are shown, with the machine and the
//! disk's own sync time as the reference. Server CPU per request includes the TLS handshakes of the
//! measurement's connections. It must never compare figures from different runs, and never measure
//! an undurable increment.
//!
//! `cargo bench --bench throughput`. Settings: `ODOMETER_BENCH_ROUNDS` (3), `ODOMETER_BENCH_MS`
//! (3000 per measurement), `ODOMETER_BENCH_CONNECTIONS` (1,64,256), `ODOMETER_BENCH_THREADS` (1),
//! `ODOMETER_BENCH_TENANTS` (100), `ODOMETER_BENCH_DIR` (where the data goes; default cargo's
//! target/tmp), `ODOMETER_BENCH_LOGS`: `warn` (no access log), `file` (access log to `--log-dir`),
//! `stdout` (access log to a pipe that the bench reads and throws away). Without `--bench`
//! (`cargo test --benches`) or with `--test` it makes one very short round.

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::time::Duration;

use common::load_client::{Measured, Mode, NAMED, drive};
use common::machine::{bench_folder, is_short, median, show, show_surroundings};
use support::client::Protocol;
use support::server::{Keep, TestServer};
use support::workload::{register, runtime};
use support::{number_setting, setting};

const MODES: [Mode; 5] = [Mode::Read, Mode::Spread, Mode::Hot, Mode::Named, Mode::Once];

/// What to measure.
#[derive(Debug)]
struct Plan {
    rounds: u64,
    period: Duration,
    connections: Vec<usize>,
    threads: usize,
    tenants: usize,
    logs: String,
}

/// One measurement: the clients' view, and what the server spent on it.
#[derive(Clone, Copy, Debug)]
struct Sample {
    measured: Measured,
    increments_per_commit: f64,
    cpu_us_per_request: f64,
}

fn main() {
    let plan = Plan::from_arguments();
    let folder = bench_folder(env!("CARGO_TARGET_TMPDIR"));
    show_surroundings(folder.path());
    show(&format!(
        "run: {} rounds x {:?}, {} tenants, {} generator threads, logs {}",
        plan.rounds, plan.period, plan.tenants, plan.threads, plan.logs
    ));
    let server = start_server(&plan, folder.path());
    let keys = runtime().block_on(async {
        let keys = register(&server.endpoint(), "bench", plan.tenants).await;
        let mut client = server
            .endpoint()
            .connect(Protocol::Http1)
            .await
            .expect("the server accepts a connection");
        for key in &keys {
            let headers = [
                ("authorization", &*format!("Bearer {key}")),
                ("content-type", "application/json"),
            ];
            let body = format!(r#"{{"name":"{NAMED}"}}"#);
            let answer = client
                .request("POST", "/api/v1/counters", &headers, body)
                .await
                .expect("an answer");
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
        keys
    });
    show(
        "\nconnections  what              per second   of reads  of plain    p50 µs    p99 µs  incr/commit  server CPU µs",
    );
    for connections in &plan.connections {
        let mut samples: [Vec<Sample>; 5] = Default::default();
        for _ in 0..plan.rounds {
            for (mode, samples) in MODES.iter().zip(&mut samples) {
                samples.push(measure(&plan, &server, &keys, *mode, *connections));
            }
        }
        print_table(*connections, &samples);
    }
    server.stop();
}

impl Plan {
    fn from_arguments() -> Self {
        let short = is_short();
        let (rounds, period, connections, tenants) =
            if short { (1, 200, "1,4", 3) } else { (3, 3000, "1,64,256", 100) };
        let connections =
            setting("ODOMETER_BENCH_CONNECTIONS").unwrap_or_else(|| connections.to_owned());
        let count = |name, default| {
            usize::try_from(number_setting(name, default)).expect("a small number").max(1)
        };
        Self {
            rounds: number_setting("ODOMETER_BENCH_ROUNDS", rounds).max(1),
            period: Duration::from_millis(number_setting("ODOMETER_BENCH_MS", period).max(1)),
            connections: connections
                .split(',')
                .map(|one| one.trim().parse().expect("numbers and commas"))
                .collect(),
            threads: count("ODOMETER_BENCH_THREADS", 1),
            tenants: count("ODOMETER_BENCH_TENANTS", tenants),
            logs: setting("ODOMETER_BENCH_LOGS").unwrap_or_else(|| "warn".to_owned()),
        }
    }
}

fn start_server(plan: &Plan, folder: &Path) -> TestServer {
    let builder = TestServer::builder().data_dir(folder.join("data")).keep(Keep::Problems);
    // Far more keys than a day of an ordinary server has: a bench must not end for want of room.
    let builder = builder.flag("--idempotency-keys", "50000000");
    let builder = match plan.logs.as_str() {
        "warn" => builder.flag("--log-level", "warn").chosen_ports(),
        "file" => builder.flag("--log-dir", folder.join("logs")).chosen_ports(),
        "stdout" => builder,
        other => panic!("ODOMETER_BENCH_LOGS={other} is none of warn, file, stdout"),
    };
    builder.start()
}

fn measure(
    plan: &Plan,
    server: &TestServer,
    keys: &[String],
    mode: Mode,
    connections: usize,
) -> Sample {
    let commits = || server.metric("odometer_commits_total").unwrap_or(0.0);
    let (commits_before, cpu_before) = (commits(), server.cpu_seconds());
    let measured = drive(&server.endpoint(), keys, mode, connections, plan.period, plan.threads);
    let cpu = server.cpu_seconds() - cpu_before;
    let requests = measured.answered as f64;
    let commits = commits() - commits_before;
    let increments_per_commit = if mode == Mode::Read { f64::NAN } else { requests / commits };
    Sample { measured, increments_per_commit, cpu_us_per_request: cpu * 1e6 / requests }
}

fn print_table(connections: usize, samples: &[Vec<Sample>; 5]) {
    let middle =
        |samples: &[Sample], of: fn(&Sample) -> f64| median(samples.iter().map(of).collect());
    let reads = middle(&samples[0], |sample| sample.measured.per_second);
    let plain = middle(&samples[1], |sample| sample.measured.per_second);
    for (mode, samples) in MODES.iter().zip(samples) {
        let what = match mode {
            Mode::Read => "reads",
            Mode::Spread => "increments, spread",
            Mode::Hot => "increments, one hot",
            Mode::Named => "increments, named",
            Mode::Once => "increments, with key",
        };
        let per_second = middle(samples, |sample| sample.measured.per_second);
        let batch = middle(samples, |sample| sample.increments_per_commit);
        show(&format!(
            "{connections:>11}  {what:<20}{per_second:>9.0}{:>11.2}{:>10.2}{:>10.0}{:>10.0}{:>13}{:>15.1}",
            per_second / reads,
            per_second / plain,
            middle(samples, |sample| sample.measured.p50_us),
            middle(samples, |sample| sample.measured.p99_us),
            if batch.is_finite() { format!("{batch:.1}") } else { "-".to_owned() },
            middle(samples, |sample| sample.cpu_us_per_request),
        ));
    }
}
