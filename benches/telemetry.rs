//! What it costs to be seen: durable increments with logs off, with an access log to files and to a
//! pipe, and with one that is sampled.
//!
//! Invariant: the servers run side by side and are loaded in turn within each round, so that a
//! change of the machine's mood hits all of them; medians over the rounds are shown, as shares of
//! the silent server. Metrics cannot be turned off: what they take of a request is measured in this
//! process, and shown beside the CPU time that the server takes for one, with the time of a scrape.
//! It must never compare figures from different runs.
//!
//! `cargo bench --bench telemetry`. Settings: `ODOMETER_BENCH_ROUNDS` (5), `ODOMETER_BENCH_MS`
//! (2000 per measurement), `ODOMETER_BENCH_CONNECTIONS` (256), `ODOMETER_BENCH_TENANTS` (100),
//! `ODOMETER_BENCH_DIR` (where the data goes; default cargo's target/tmp). Without `--bench`
//! (`cargo test --benches`) or with `--test` it makes one very short round.

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use common::load_client::{Measured, Mode, drive};
use common::machine::{bench_folder, is_short, median, show, show_surroundings};
use odometer::telemetry::{LogFormat, LogOptions, install};
use support::number_setting;
use support::server::{Keep, TestServer};
use support::workload::{register, runtime};

/// How a server logs.
#[derive(Clone, Copy, Debug)]
enum Logs {
    Off,
    Files,
    Pipe,
    Sampled,
}

const ALL: [Logs; 4] = [Logs::Off, Logs::Files, Logs::Pipe, Logs::Sampled];

#[derive(Debug)]
struct Running {
    server: TestServer,
    keys: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    measured: Measured,
    cpu_us: f64,
}

fn main() {
    let short = is_short();
    let (rounds, period, connections, tenants) =
        if short { (1, 200, 4, 3) } else { (5, 2000, 256, 100) };
    let count = |name, default| {
        usize::try_from(number_setting(name, default)).expect("a small number").max(1)
    };
    let rounds = number_setting("ODOMETER_BENCH_ROUNDS", rounds).max(1);
    let period = Duration::from_millis(number_setting("ODOMETER_BENCH_MS", period).max(1));
    let connections = count("ODOMETER_BENCH_CONNECTIONS", connections);
    let tenants = count("ODOMETER_BENCH_TENANTS", tenants);
    let folder = bench_folder(env!("CARGO_TARGET_TMPDIR"));
    show_surroundings(folder.path());
    show(&format!(
        "run: {rounds} rounds x {period:?}, {connections} connections, {tenants} tenants"
    ));
    let running = ALL.map(|logs| start(logs, folder.path(), tenants));
    let mut samples: [Vec<Sample>; ALL.len()] = Default::default();
    for round in 0..rounds {
        // What one of them wrote to the disk is still on its way when the next is measured, so each
        // comes first once.
        for place in 0..ALL.len() {
            let at = (place + usize::try_from(round).expect("a small number")) % ALL.len();
            samples[at].push(measure(&running[at], connections, period));
        }
    }
    print_table(&running, &samples);
    let request_us = middle(&samples[0], |sample| sample.cpu_us);
    show_event(folder.path(), request_us);
    show_metrics(&running[0].server, request_us);
    for running in running {
        running.server.stop();
    }
}

fn start(logs: Logs, folder: &Path, tenants: usize) -> Running {
    let name = format!("{logs:?}");
    let builder = TestServer::builder().data_dir(folder.join(&name)).keep(Keep::Problems);
    let server = match logs {
        Logs::Off => builder.flag("--log-level", "off").chosen_ports(),
        Logs::Files => builder.flag("--log-dir", folder.join("files")).chosen_ports(),
        Logs::Pipe => builder,
        Logs::Sampled => builder
            .flag("--log-dir", folder.join("sampled"))
            .flag("--access-log-sample", "100")
            .chosen_ports(),
    }
    .start();
    let keys = runtime().block_on(register(&server.endpoint(), "bench", tenants));
    Running { server, keys }
}

fn measure(running: &Running, connections: usize, period: Duration) -> Sample {
    let before = running.server.cpu_seconds();
    let measured =
        drive(&running.server.endpoint(), &running.keys, Mode::Spread, connections, period, 1);
    let cpu = running.server.cpu_seconds() - before;
    Sample { measured, cpu_us: cpu * 1e6 / measured.answered as f64 }
}

fn middle(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    median(samples.iter().map(of).collect())
}

fn print_table(running: &[Running], samples: &[Vec<Sample>]) {
    show(
        "\naccess log   increments/s   of silent    p50 µs    p99 µs   server CPU µs   lines lost",
    );
    for ((logs, running), own) in ALL.iter().zip(running).zip(samples) {
        // Of the same round: the mood changes from one to the next.
        let shares = own
            .iter()
            .zip(&samples[0])
            .map(|(own, silent)| own.measured.per_second / silent.measured.per_second);
        show(&format!(
            "{:<12}{:>13.0}{:>12.2}{:>10.0}{:>10.0}{:>16.1}{:>13.0}",
            format!("{logs:?}").to_lowercase(),
            middle(own, |sample| sample.measured.per_second),
            median(shares.collect()),
            middle(own, |sample| sample.measured.p50_us),
            middle(own, |sample| sample.measured.p99_us),
            middle(own, |sample| sample.cpu_us),
            running.server.metric("odometer_log_lines_dropped_total").unwrap_or(0.0),
        ));
    }
}

/// What an access event takes of the thread that answers: to be made a line and to be left in the
/// queue.
fn show_event(folder: &Path, request_cpu_us: f64) {
    const EVENTS: u32 = 200;
    // As many as come in two milliseconds of the busiest server, and then a pause for the writer,
    // which has the other core there too.
    const PAUSE: Duration = Duration::from_millis(3);
    let options = LogOptions {
        format: LogFormat::Json,
        level: "info".to_owned(),
        dir: Some(folder.join("events")),
        keep: 2,
        reserve_bytes: 0,
    };
    let logs = install(&options).expect("nobody else logs here");
    let client = std::net::IpAddr::from([127, 0, 0, 1]);
    let once = |_| {
        let started = Instant::now();
        for number in 0..EVENTS {
            tracing::info!(
                target: "odometer::access",
                {
                    event.action = "request",
                    event.outcome = "success",
                    event.duration = u64::from(number) + 1_000_000,
                    http.request.method = "PUT",
                    http.request.id = "597b7bbb2606396f0000000000000007",
                    http.response.status_code = 200_u16,
                    http.version = "1.1",
                    url.path = "/api/v1/integer/increment",
                    client.ip = tracing::field::display(client),
                    trace.id = None::<&str>,
                    organization.id = Some(tracing::field::display(number)),
                    error.code = None::<&str>,
                    odometer.sampled = None::<u64>,
                },
                "request"
            );
        }
        let ns = started.elapsed().as_secs_f64() * 1e9 / f64::from(EVENTS);
        std::thread::park_timeout(PAUSE);
        ns
    };
    let ns = median((0..500).map(once).collect());
    show(&format!(
        "access event: {ns:.0} ns of a request, {:.3} of its {request_cpu_us:.1} µs on the server's CPU; {} lines lost",
        ns / 1000.0 / request_cpu_us,
        logs.drops().count()
    ));
    logs.flush();
}

/// What metrics take of a request: its count and its duration, and the upkeep of durations, as the
/// server does it.
fn show_metrics(server: &TestServer, request_cpu_us: f64) {
    const REQUESTS: u32 = 1_000_000;
    let metrics = odometer::http::routes::metrics();
    let once = |_| {
        let started = Instant::now();
        for number in 0..REQUESTS {
            metrics.http(3, 3, 200, Duration::from_nanos(u64::from(number)));
            if number % 50_000 == 0 {
                metrics.run_upkeep();
            }
        }
        started.elapsed().as_secs_f64() * 1e9 / f64::from(REQUESTS)
    };
    let ns = median((0..5).map(once).collect());
    let scrape = |_| {
        let started = Instant::now();
        server.ops_get("/metrics");
        started.elapsed().as_secs_f64() * 1e3
    };
    let scrape_ms = median((0..21).map(scrape).collect());
    show(&format!(
        "metrics: {ns:.0} ns of a request, {:.3} of its {request_cpu_us:.1} µs on the server's CPU; a scrape takes {scrape_ms:.1} ms",
        ns / 1000.0 / request_cpu_us
    ));
}
