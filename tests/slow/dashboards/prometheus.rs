//! A real Prometheus: its own folder, a port that the kernel chose, and its HTTP API.
//!
//! Job: start it on servers and rules, ask it, and end it with the test.
//! Invariant: every answer of the API is a success or fails the test, and shows its log. It must
//! never scrape what the test did not start, or outlive it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::support::process::{Keep, Output, open_pidfd};
use crate::support::{has_program, require};

/// A scrape may take as long as that, and a busy machine needs it.
const SCRAPE: &str = "400ms";
const EVALUATE: &str = "200ms";
const READY: Duration = Duration::from_secs(30);
/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(100);

/// Whether it and its tool can be started here; says so if not.
pub(crate) fn is_here() -> bool {
    require("prometheus", has_program("prometheus")) && require("promtool", has_program("promtool"))
}

/// One value of an answer to a query.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) labels: Map<String, Value>,
    pub(crate) value: f64,
}

impl Sample {
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

/// The running process. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Prometheus {
    child: Child,
    pidfd: OwnedFd,
    address: SocketAddr,
    output: Arc<Output>,
    _home: TempDir,
}

impl Prometheus {
    /// Scrapes the ops listeners of these servers, each under its name, as the job that the rules
    /// expect, and evaluates the rules of these files.
    #[track_caller]
    pub(crate) fn start(servers: &[(String, SocketAddr)], rule_files: &[PathBuf]) -> Self {
        let home = TempDir::new().expect("a temporary folder");
        let target = |(name, address): &(String, SocketAddr)| json!({ "targets": [address.to_string()], "labels": { "instance": name } });
        let targets: Vec<Value> = servers.iter().map(target).collect();
        let config = json!({
            "global": { "scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": EVALUATE },
            "rule_files": rule_files,
            "scrape_configs": [{ "job_name": "odometer", "static_configs": targets }],
        });
        // JSON is YAML.
        let path = home.path().join("prometheus.yml");
        std::fs::write(&path, config.to_string()).expect("a temporary file can be written");
        let mut command = Command::new("prometheus");
        command
            .arg("--config.file")
            .arg(path)
            .arg("--storage.tsdb.path")
            .arg(home.path().join("data"));
        command.args(["--web.listen-address=127.0.0.1:0", "--log.format=json"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("Prometheus starts");
        let pidfd = open_pidfd(child.id()).expect("a child that was not waited for has a pidfd");
        let output = Arc::new(Output::default());
        let stderr = child.stderr.take().expect("stderr is piped");
        // The reader ends when the process does.
        drop(output.collect_log(stderr, Keep::All));
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut prometheus = Self { child, pidfd, address: unknown, output, _home: home };
        prometheus.wait_ready();
        prometheus
    }

    #[track_caller]
    fn wait_ready(&mut self) {
        let until = Instant::now() + READY;
        let mut seen = 0;
        loop {
            let lines = self.output.lines_from(seen, until);
            let lines = lines.unwrap_or_else(|reason| {
                panic!("Prometheus did not start: {reason}\n{}", self.log())
            });
            seen += lines.len();
            for line in lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
                match line["msg"].as_str().unwrap_or_default() {
                    "Listening on" => {
                        self.address = line["address"]
                            .as_str()
                            .and_then(|text| text.parse().ok())
                            .expect("an address");
                    }
                    "Server is ready to receive web requests." => return,
                    _ => {}
                }
            }
        }
    }

    /// Everything that it wrote so far.
    pub(crate) fn log(&self) -> String {
        self.output.lock().log.join("\n")
    }

    /// What it wrote as a warning or an error.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut lines = self.output.lock().log.clone();
        lines.retain(|line| {
            line.contains(r#""level":"warn""#) || line.contains(r#""level":"error""#)
        });
        lines
    }

    /// `data` of an answer of the API.
    #[track_caller]
    pub(crate) fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let query =
            form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let answer = self.get(&format!("/api/v1/{path}?{query}"));
        let answer = answer
            .unwrap_or_else(|error| panic!("Prometheus does not answer: {error}\n{}", self.log()));
        let answer: Value =
            serde_json::from_str(&answer).unwrap_or_else(|_| panic!("not JSON: {answer}"));
        assert_eq!(answer["status"], "success", "{path} {parameters:?}: {answer}");
        answer["data"].clone()
    }

    /// The body of an answer. In HTTP/1.0 it is all that comes after the head.
    fn get(&self, target: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(READY))?;
        write!(stream, "GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
        Ok(body.to_owned())
    }

    /// What an expression comes to now.
    #[track_caller]
    pub(crate) fn query(&self, expression: &str) -> Vec<Sample> {
        let data = self.ask("query", &[("query", expression)]);
        let number =
            |value: &Value| value[1].as_str().and_then(|text| text.parse().ok()).expect("a number");
        match (data["resultType"].as_str(), &data["result"]) {
            (Some("vector"), Value::Array(samples)) => {
                let sample = |sample: &Value| Sample {
                    labels: sample["metric"].as_object().cloned().unwrap_or_default(),
                    value: number(&sample["value"]),
                };
                samples.iter().map(sample).collect()
            }
            (Some("scalar"), value) => vec![Sample { labels: Map::new(), value: number(value) }],
            _ => panic!("neither a vector nor a number: {data}"),
        }
    }

    /// Every rule with its group's name as `group`.
    #[track_caller]
    pub(crate) fn rules(&self) -> Vec<Value> {
        let groups = self.ask("rules", &[]);
        let mut rules = Vec::new();
        for group in groups["groups"].as_array().expect("a list of groups") {
            for rule in group["rules"].as_array().expect("a list of rules") {
                let mut rule = rule.clone();
                rule["group"] = group["name"].clone();
                rules.push(rule);
            }
        }
        rules
    }

    /// Looks again and again until there is nothing left of what `missing` names; fails with that
    /// when the time is up.
    #[track_caller]
    pub(crate) fn wait_until_none(
        &self,
        deadline: Duration,
        mut missing: impl FnMut() -> Vec<String>,
    ) {
        let until = Instant::now() + deadline;
        loop {
            let left = missing();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "not within {deadline:?}:\n{}", left.join("\n"));
            self.wait_a_look();
        }
    }

    /// Waits for its end, which fails the test, or for the time of the next look.
    #[track_caller]
    fn wait_a_look(&self) {
        let timeout = Timespec::try_from(LOOK).expect("a sensible time-out");
        let ended = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&timeout));
        assert!(ended.is_ok_and(|count| count == 0), "Prometheus ended by itself\n{}", self.log());
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
