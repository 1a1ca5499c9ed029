//! Does one noisy tenant slow the others? Quiet tenants alone, and beside one that floods past its
//! rate limit.
//!
//! Invariant: alone, beside a paced flood, beside an unpaced one and beside one that pipelines
//! alternate within each round on the same server, so that a change of the machine's mood hits all
//! of them; medians over the rounds are shown. All tenants have the default rate limit, and the
//! flood has used up its burst before the clock runs. It must never count a refused request of a
//! quiet tenant as anything but a failure.
//!
//! The flood's generator has a thread of its own, on the same cores as the server: an unpaced flood
//! slows the others by the CPU time that it takes itself, which a flood from elsewhere would not.
//!
//! `cargo bench --bench fairness`. Settings: `ODOMETER_BENCH_ROUNDS` (5), `ODOMETER_BENCH_MS` (4000
//! per measurement), `ODOMETER_BENCH_TENANTS` (20 quiet ones), `ODOMETER_BENCH_RATE` (5 requests/s
//! of each), `ODOMETER_BENCH_CONNECTIONS` (8 of the noisy one), `ODOMETER_BENCH_NOISE` (3000
//! requests/s that it offers where it is paced), `ODOMETER_BENCH_DIR` (where the data goes; default
//! cargo's target/tmp). Without `--bench` (`cargo test --benches`) or with `--test` it makes one
//! very short round.

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use common::machine::{bench_folder, is_short, median, show, show_surroundings};
use common::paced_load::{Manner, Noise, quiet};
use support::client::Endpoint;
use support::number_setting;
use support::server::{Keep, TestServer};
use support::workload::{register, runtime};

/// What goes on beside the quiet tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Nobody,
    Paced,
    Unpaced,
    Pipelined,
}

const ALL: [Beside; 4] = [Beside::Nobody, Beside::Paced, Beside::Unpaced, Beside::Pipelined];
/// Requests that a pipelining flood sends before it reads.
const DEPTH: usize = 32;

#[derive(Debug)]
struct Plan {
    rounds: u64,
    period: Duration,
    tenants: usize,
    rate: u64,
    connections: u32,
    noise: u64,
}

/// One measurement: the quiet tenants' latencies, and what became of the flood, each second.
#[derive(Clone, Copy, Debug)]
struct Sample {
    p50_us: f64,
    p99_us: f64,
    worst_us: f64,
    accepted: f64,
    refused: f64,
}

fn main() {
    let plan = Plan::from_arguments();
    let folder = bench_folder(env!("CARGO_TARGET_TMPDIR"));
    show_surroundings(folder.path());
    show(&format!(
        "run: {} rounds x {:?}, {} quiet tenants x {}/s, one noisy tenant with {} connections, tenant limit 1000/s:2000",
        plan.rounds, plan.period, plan.tenants, plan.rate, plan.connections
    ));
    let builder = TestServer::builder().data_dir(folder.path().join("data")).keep(Keep::Problems);
    let server =
        builder.flag("--log-level", "warn").chosen_ports().without("--tenant-rate-limit").start();
    let endpoint = server.endpoint();
    let keys = runtime().block_on(register(&endpoint, "quiet", plan.tenants));
    let noisy = runtime().block_on(register(&endpoint, "noisy", 1)).remove(0);
    let mut samples: [Vec<Sample>; 4] = Default::default();
    for _ in 0..plan.rounds {
        for (beside, samples) in ALL.into_iter().zip(&mut samples) {
            samples.push(measure(&plan, &endpoint, &keys, &noisy, beside));
        }
    }
    print_table(&plan, &samples);
    server.stop();
}

impl Plan {
    fn from_arguments() -> Self {
        let short = is_short();
        let (rounds, period, tenants) = if short { (1, 300, 4) } else { (5, 4000, 20) };
        Self {
            rounds: number_setting("ODOMETER_BENCH_ROUNDS", rounds).max(1),
            period: Duration::from_millis(number_setting("ODOMETER_BENCH_MS", period).max(100)),
            tenants: usize::try_from(number_setting("ODOMETER_BENCH_TENANTS", tenants))
                .expect("a small number")
                .max(1),
            rate: number_setting("ODOMETER_BENCH_RATE", if short { 20 } else { 5 }).max(1),
            connections: u32::try_from(number_setting("ODOMETER_BENCH_CONNECTIONS", 8))
                .expect("a small number")
                .max(1),
            noise: number_setting("ODOMETER_BENCH_NOISE", 3000).max(1),
        }
    }
}

fn measure(
    plan: &Plan,
    endpoint: &Endpoint,
    keys: &[String],
    noisy: &str,
    beside: Beside,
) -> Sample {
    let manner =
        |per_second, at_once| Some(Manner { connections: plan.connections, per_second, at_once });
    let manner = match beside {
        Beside::Nobody => None,
        Beside::Paced => manner(Some(plan.noise as f64), 1),
        Beside::Unpaced => manner(None, 1),
        Beside::Pipelined => manner(None, DEPTH),
    };
    let noise = manner.map(|manner| Noise::start(endpoint, noisy, manner));
    let so_far = || noise.as_ref().map_or((0, 0), Noise::so_far);
    let (before, started) = (so_far(), Instant::now());
    let latencies = quiet(endpoint, keys, plan.rate as f64, plan.period);
    let (after, seconds) = (so_far(), started.elapsed().as_secs_f64());
    if let Some(noise) = noise {
        noise.stop();
    }
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    Sample {
        p50_us: at(0.50),
        p99_us: at(0.99),
        worst_us: at(1.0),
        accepted: (after.0 - before.0) as f64 / seconds,
        refused: (after.1 - before.1) as f64 / seconds,
    }
}

fn print_table(plan: &Plan, samples: &[Vec<Sample>; 4]) {
    let middle =
        |samples: &[Sample], of: fn(&Sample) -> f64| median(samples.iter().map(of).collect());
    let alone =
        [middle(&samples[0], |sample| sample.p50_us), middle(&samples[0], |sample| sample.p99_us)];
    show(
        "\nquiet tenants             p50 µs  of alone    p99 µs  of alone  worst µs   noisy: accepted/s   refused/s",
    );
    for (beside, samples) in ALL.iter().zip(samples) {
        let what = match beside {
            Beside::Nobody => "alone".to_owned(),
            Beside::Paced => format!("beside {}/s", plan.noise),
            Beside::Unpaced => "beside an unpaced flood".to_owned(),
            Beside::Pipelined => format!("the same, {DEPTH} at once"),
        };
        let (p50, p99) =
            (middle(samples, |sample| sample.p50_us), middle(samples, |sample| sample.p99_us));
        show(&format!(
            "{what:<24}{p50:>8.0}{:>10.2}{p99:>10.0}{:>10.2}{:>10.0}{:>20.0}{:>12.0}",
            p50 / alone[0],
            p99 / alone[1],
            middle(samples, |sample| sample.worst_us),
            middle(samples, |sample| sample.accepted),
            middle(samples, |sample| sample.refused),
        ));
    }
}
