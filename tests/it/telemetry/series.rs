//! The number of series is the program's, whatever clients send.

use crate::support::client::Protocol;
use crate::support::server::TestServer;
use crate::support::workload::{PASSWORD, runtime};
use crate::support::{Random, number_setting, say};

const METHODS: [&str; 6] = ["GET", "PUT", "POST", "DELETE", "BREW", "PATCH"];

fn series(server: &TestServer) -> usize {
    let (_, page) = server.ops_get("/metrics");
    page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count()
}

/// A path that is somewhere near a route, or nowhere.
fn path(random: &mut Random) -> String {
    let word = random.next();
    match random.index(5) {
        0 => format!("/{word:x}"),
        1 => format!("/api/v1/counters/{word:x}"),
        2 => format!("/api/v1/counters/{word:x}/increment"),
        3 => format!("/api/v1/keys/{word:x}"),
        _ => format!("/api/v{word}/integer?{word:x}={word}"),
    }
}

#[test]
fn ten_thousand_paths_and_many_tenants_add_no_series() {
    let tenants = number_setting("ODOMETER_SERIES_TENANTS", 20);
    let server = TestServer::start();
    let mut random = Random::seeded(Random::run_seed());
    let runtime = runtime();
    let mut client = runtime.block_on(server.endpoint().connect(Protocol::Http2)).unwrap();
    let known = format!("Bearer {}", runtime.block_on(client.register("known", PASSWORD)).unwrap());
    let mut round =
        |client: &mut crate::support::client::Client, paths: u64, tenants: std::ops::Range<u64>| {
            runtime.block_on(async {
                for number in tenants {
                    let key = client.register(&format!("series-{number}"), PASSWORD).await.unwrap();
                    assert_eq!(client.increment(&key).await.unwrap(), 2);
                }
                for number in 0..paths {
                    let method = METHODS[usize::try_from(number).unwrap() % METHODS.len()];
                    // Every other one gets past the door.
                    let nobody = format!("Bearer {:x}", random.next());
                    let credential = if number % 2 == 0 { known.as_str() } else { &nobody };
                    client
                        .request(method, &path(&mut random), &[("authorization", credential)], "")
                        .await
                        .unwrap();
                }
            });
        };
    // Each kind of path with each method has been there.
    round(&mut client, 1000, 0..1);
    server.ops_get("/metrics");
    let before = series(&server);
    round(&mut client, 10_000, 1..tenants + 1);
    assert_eq!(series(&server), before);
    say(&format!("{before} series before and after 10,000 paths and {tenants} tenants"));
    server.stop();
}
