//! Every query of every panel, asked of a Prometheus that scrapes a loaded server.
//!
//! Job: no panel is empty while there is something to show, and none shows another source or
//! instance than the chosen one.
//! Invariant: the load goes on while it is asked, and does what the panels show: increments,
//! checkpoints, registrations, keys, deletions, wrong keys. It must never let a query count that
//! only answers with its own fallback; the exceptions stand in one list.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::prometheus::{self, Prometheus, Sample};
use super::{all_under, grafana};
use crate::support::Random;
use crate::support::client::{Client, Endpoint, Protocol};
use crate::support::server::TestServer;
use crate::support::workload::{Clock, Load, PASSWORD, register, runtime};

const DEADLINE: Duration = Duration::from_secs(60);
/// Panels that stay at their fallback: a healthy server answers no 5xx.
const QUIET_WHEN_HEALTHY: [&str; 1] = ["Failed requests by route"];

/// One query of a dashboard.
#[derive(Clone, Debug)]
struct Query {
    place: String,
    expression: String,
    /// Whether 0 is no answer.
    needs_more: bool,
}

/// The panels of a dashboard, those in rows included.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let mut lists = Vec::new();
    all_under(dashboard, "panels", &mut lists);
    let all = lists.into_iter().flat_map(|panels| panels.as_array().into_iter().flatten());
    all.filter(|panel| panel["type"] != "row" && panel["type"] != "text").collect()
}

fn queries() -> Vec<Query> {
    let mut queries = Vec::new();
    for (name, dashboard) in grafana() {
        let mut places: Vec<(&str, &Value)> = panels(&dashboard)
            .into_iter()
            .map(|panel| (panel["title"].as_str().unwrap(), &panel["targets"]))
            .collect();
        places.push(("annotations", &dashboard["annotations"]));
        for (title, targets) in places {
            let mut expressions = Vec::new();
            all_under(targets, "expr", &mut expressions);
            assert!(!expressions.is_empty(), "{name}: {title:?} asks for nothing");
            for expression in expressions.into_iter().map(|expression| expression.as_str().unwrap())
            {
                let asked = expression.replace("$instance", ".*").replace("$__rate_interval", "5s");
                let asked = asked.replace("$__range", "1m");
                assert!(
                    !asked.contains('$'),
                    "{name}: {title:?} has a variable that no one knows: {asked}"
                );
                let needs_more =
                    asked.contains("vector(0)") && !QUIET_WHEN_HEALTHY.contains(&title);
                queries.push(Query {
                    place: format!("{name}: {title:?}"),
                    expression: asked,
                    needs_more,
                });
            }
        }
    }
    queries
}

/// Somebody who registers, makes and revokes keys, comes with wrong ones, and goes.
struct Visitor {
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Visitor {
    fn start(endpoint: Endpoint) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stopped);
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let mut client = endpoint.connect(Protocol::Http2).await.unwrap();
                for round in 0.. {
                    if is_stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    visit(&mut client, &format!("visitor-{round}")).await;
                }
            });
        });
        Self { stopped, thread }
    }

    fn finish(self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.thread.join().expect("the visitor got the answers that it expected");
    }
}

async fn visit(client: &mut Client, name: &str) {
    const JSON: (&str, &str) = ("content-type", "application/json");
    let key = client.register(name, PASSWORD).await.unwrap();
    let bearer = format!("Bearer {key}");
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{PASSWORD}")));
    let again = json!({ "username": name, "password": PASSWORD }).to_string();
    let label = json!({ "label": "second" }).to_string();
    let made =
        ask(client, ("POST", "/api/v1/keys", 201), &[("authorization", &bearer), JSON], label)
            .await;
    let revoked = format!("/api/v1/keys/{}", made["data"]["id"].as_str().unwrap());
    ask(client, ("DELETE", &revoked, 204), &[("authorization", &bearer)], String::new()).await;
    let once = [("authorization", bearer.as_str()), ("idempotency-key", name)];
    ask(client, ("PUT", "/api/v1/integer/increment", 200), &once, String::new()).await;
    ask(client, ("POST", "/users/create", 422), &[JSON], again).await;
    ask(
        client,
        ("GET", "/api/v1/integer", 401),
        &[("authorization", "Bearer odo_no_key")],
        String::new(),
    )
    .await;
    ask(client, ("DELETE", "/api/v1/tenant", 204), &[("authorization", &basic)], String::new())
        .await;
}

async fn ask(
    client: &mut Client,
    (method, path, status): (&str, &str, u16),
    headers: &[(&str, &str)],
    body: String,
) -> Value {
    let answer = client.request(method, path, headers, body).await.unwrap();
    assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    answer.json()
}

/// What the answer lacks, if anything.
fn lack(query: &Query, samples: &[Sample]) -> Option<String> {
    let has = |is_good: fn(f64) -> bool| samples.iter().any(|sample| is_good(sample.value));
    let lack = match query.needs_more {
        _ if samples.is_empty() => "is empty",
        _ if !has(|value| !value.is_nan()) => "has no number",
        true if !has(|value| value > 0.0) => "has only its fallback, 0",
        _ => return None,
    };
    Some(format!("{} {lack}: {}", query.place, query.expression))
}

#[test]
fn each_query_of_each_panel_has_data_on_a_loaded_server() {
    if !prometheus::is_here() {
        return;
    }
    let builder = TestServer::builder()
        .flag("--checkpoint-interval", "100ms")
        .flag("--backup-interval", "1s");
    let server = builder.start();
    let keys = runtime().block_on(register(&server.endpoint(), "panels", 4));
    let load = Load::start(&server.endpoint(), &keys, Clock::start(), 4, Random::run_seed());
    let visitor = Visitor::start(server.endpoint());
    let prometheus = Prometheus::start(&[("loaded".to_owned(), server.ops())], &[]);
    let mut left = queries();
    prometheus.wait_until_none(DEADLINE, || {
        let asked: Vec<(Query, Option<String>)> = left
            .drain(..)
            .map(|query| {
                let lack = lack(&query, &prometheus.query(&query.expression));
                (query, lack)
            })
            .collect();
        let lacking = asked.into_iter().filter_map(|(query, lack)| Some((query, lack?)));
        let (queries, lacks) = lacking.unzip();
        left = queries;
        lacks
    });
    let instances = prometheus.ask("label/instance/values", &[("match[]", "odometer_build_info")]);
    assert_eq!(instances, json!(["loaded"]), "what the variable instance offers");
    visitor.finish();
    load.finish();
    server.stop();
}

#[test]
fn each_panel_asks_the_chosen_source_about_the_chosen_instances() {
    let mut uids = Vec::new();
    for (name, dashboard) in grafana() {
        uids.push(dashboard["uid"].as_str().unwrap_or_default().to_owned());
        let mut sources = Vec::new();
        all_under(&dashboard, "datasource", &mut sources);
        for source in sources {
            assert_eq!(
                *source,
                json!({ "type": "prometheus", "uid": "${datasource}" }),
                "{name}: a data source"
            );
        }
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap_or_default();
            assert!(!title.is_empty(), "{name}: a panel without a title");
            for place in panel["targets"].as_array().into_iter().flatten().chain([panel]) {
                assert!(
                    !place["datasource"].is_null(),
                    "{name}: {title:?} takes the default data source"
                );
            }
        }
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let variables: Vec<(&Value, &Value)> =
            variables.iter().map(|one| (&one["name"], &one["type"])).collect();
        assert_eq!(
            variables,
            [(&json!("datasource"), &json!("datasource")), (&json!("instance"), &json!("query"))]
        );
        let mut expressions = Vec::new();
        all_under(&dashboard, "expr", &mut expressions);
        for expression in expressions.into_iter().map(|expression| expression.as_str().unwrap()) {
            assert_all_selected(&name, expression);
        }
    }
    let count = uids.len();
    uids.sort();
    uids.dedup();
    assert!(
        uids.len() == count && !uids.contains(&String::new()),
        "uids are fixed and differ: {uids:?}"
    );
}

/// Each series that an expression names is selected by instance.
#[track_caller]
fn assert_all_selected(name: &str, expression: &str) {
    let unquoted: Vec<&str> = expression.split('"').step_by(2).collect();
    let selectors = unquoted.iter().map(|part| part.matches('{').count()).sum::<usize>();
    let selected = expression.matches(r#"instance=~"$instance""#).count();
    assert_eq!(
        selectors, selected,
        "{name}: a selector without the chosen instances in {expression}"
    );
    for metric in super::names(expression) {
        let bare = unquoted
            .iter()
            .flat_map(|part| part.match_indices(&metric).map(|(at, _)| &part[at + metric.len()..]));
        for rest in bare {
            let is_whole =
                !rest.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '_');
            assert!(
                !is_whole || rest.starts_with('{'),
                "{name}: {metric} without a selector in {expression}"
            );
        }
    }
}
