//! The clients of `examples/` against the real server, through a proxy that loses requests and
//! answers.
//!
//! Job: whatever was lost, an order has taken exactly one number, with one key, and the client says
//! truly whether it was replayed.
//! Invariant: the counter is read past the client and the proxy. A language whose interpreter is
//! missing is skipped, and says so.
//! Must never: measure time, or build the Rust example: `cargo test` does that, and
//! `--test it examples::` alone finds the one built last.

mod proxy;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use crate::support::client::{Answer, Failure, Protocol};
use crate::support::command::Ended;
use crate::support::server::TestServer;
use crate::support::workload::{PASSWORD, runtime};
use proxy::{Fate, Noted, Proxy, Request};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Twice the examples' own limit for all their tries.
const DEADLINE: Duration = Duration::from_secs(120);
const INCREMENT: &str = "POST /api/v1/counters/invoices/increment";
const CREATE: &str = "POST /api/v1/counters";

/// How an example is started.
struct Example {
    language: &'static str,
    program: PathBuf,
    script: Option<PathBuf>,
}

/// Those that can run here.
fn examples() -> Vec<Example> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut examples = Vec::new();
    let test = std::env::current_exe().expect("the test has a path");
    let program = test
        .parent()
        .and_then(Path::parent)
        .expect("it is in target/…/deps")
        .join("examples/retry");
    let modified = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let is_current = modified(&program) >= modified(&folder.join("retry.rs"));
    if crate::support::require(
        "examples/retry, as `cargo build --examples` builds it from the source of today",
        is_current,
    ) {
        examples.push(Example { language: "Rust", program, script: None });
    }
    for (language, interpreter, file) in
        [("Python", "python3", "retry.py"), ("JavaScript", "node", "retry.mjs")]
    {
        if crate::support::require(interpreter, crate::support::has_program(interpreter)) {
            examples.push(Example {
                language,
                program: interpreter.into(),
                script: Some(folder.join(file)),
            });
        }
    }
    examples
}

/// A server, a tenant of one example, and a proxy between them.
struct Stage<'a> {
    example: &'a Example,
    server: &'a TestServer,
    proxy: Proxy,
    api_key: String,
    folder: TempDir,
}

/// Plays it with each example, all at once.
fn play(scenario: impl Fn(&mut Stage<'_>) + Sync) {
    let (server, examples) = (TestServer::start(), examples());
    std::thread::scope(|scope| {
        for example in &examples {
            let (server, scenario) = (&server, &scenario);
            let playing = move || scenario(&mut Stage::set(example, server));
            std::thread::Builder::new()
                .name(example.language.to_owned())
                .spawn_scoped(scope, playing)
                .expect("a thread");
        }
    });
    server.stop();
}

impl<'a> Stage<'a> {
    fn set(example: &'a Example, server: &'a TestServer) -> Self {
        let registering = async {
            let connecting = server.endpoint().connect(Protocol::Http1).await;
            let mut client = connecting.map_err(|error| Failure::NotSent(error.to_string()))?;
            client.register(example.language, PASSWORD).await
        };
        let api_key = runtime().block_on(registering).expect("a new name can be registered");
        let folder = TempDir::new().expect("a temporary folder");
        Self { example, server, proxy: Proxy::bind(), api_key, folder }
    }

    fn listen(&mut self, fates: &[Fate]) {
        self.proxy.listen(self.server, fates);
    }

    /// One request past the proxy.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {}", self.api_key);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let asking = async {
            let connecting = self.server.endpoint().connect(Protocol::Http1).await;
            let mut client = connecting.map_err(|error| Failure::NotSent(error.to_string()))?;
            client.request(method, path, &headers, body.to_string()).await
        };
        runtime().block_on(asking).expect("the server answers")
    }

    fn create(&self, parameters: &Value) {
        assert_eq!(self.ask("POST", "/api/v1/counters", parameters).status, 201);
    }

    /// Where the counter stands, which began at 0 and has taken so many numbers.
    fn taken(&self) -> Option<u64> {
        let answer = self.ask("GET", "/api/v1/counters/invoices", &json!({}));
        answer.json()["data"]["attributes"]["value"].as_u64()
    }

    /// The example for this order, not started yet.
    fn command(&self, counter: &str, order: &str) -> Command {
        let mut command = Command::new(&self.example.program);
        command.args(&self.example.script).args([counter, order]).current_dir(self.folder.path());
        let proxies =
            ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
        for name in proxies {
            command.env_remove(name);
        }
        command.env("ODOMETER_URL", format!("https://localhost:{}", self.proxy.address.port()));
        command.env("ODOMETER_KEY", &self.api_key);
        command.env("ODOMETER_CACERT", self.server.data_dir().join("tls/cert.pem"));
        command
    }

    fn run(&self, order: &str) -> Ended {
        Running::start(&mut self.command("invoices", order)).end()
    }

    /// It ended well and said this.
    #[track_caller]
    fn assert_said(&self, ended: &Ended, said: &str) {
        let noted = self.proxy.noted();
        assert_eq!(
            (ended.code, ended.stdout.trim_end()),
            (Some(0), said),
            "{}: {ended:?}\n{noted:#?}",
            self.example.language
        );
    }

    /// It gave up, naming the reason, and said no number.
    #[track_caller]
    fn assert_gave_up(&self, ended: &Ended, reason: &str) {
        let language = self.example.language;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{language}: {ended:?}");
        assert!(ended.stderr.contains(reason), "{language}: no {reason} in {ended:?}");
    }

    /// These requests came, and all increments of them with the one key of the order.
    #[track_caller]
    fn assert_sent(&self, order: &str, lines: &[&str]) {
        let key =
            std::fs::read_to_string(self.folder.path().join(order)).expect("the order has its key");
        assert!(key.len() >= 32, "{key:?} is no key that nobody else has");
        let expected = lines.iter().map(|line| Request {
            line: (*line).to_owned(),
            idempotency_key: (*line == INCREMENT).then(|| key.clone()),
        });
        let Noted { requests, .. } = self.proxy.noted();
        assert_eq!(requests, expected.collect::<Vec<_>>(), "{}", self.example.language);
    }
}

/// An example under way.
struct Running {
    child: Child,
    /// Its lines of stderr, as they come.
    told: Receiver<String>,
    stderr: String,
    until: Instant,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the example starts");
        let stderr: ChildStderr = child.stderr.take().expect("stderr is piped");
        let (teller, told) = mpsc::channel();
        std::thread::spawn(move || {
            // Ends with the process, or with the test.
            BufReader::new(stderr)
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| teller.send(line))
        });
        Self { child, told, stderr: String::new(), until: Instant::now() + DEADLINE }
    }

    /// The next line of stderr, or nothing when it has closed it.
    fn next_line(&mut self) -> Option<String> {
        match self.told.recv_timeout(self.until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                self.stderr.push_str(&line);
                self.stderr.push('\n');
                Some(line)
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                panic!("it did not end within {DEADLINE:?}: {}", self.stderr)
            }
        }
    }

    fn end(mut self) -> Ended {
        while self.next_line().is_some() {}
        let mut stdout = String::new();
        // One line, which fits into the pipe.
        self.child
            .stdout
            .take()
            .expect("stdout is piped")
            .read_to_string(&mut stdout)
            .expect("it writes text");
        let code = self.child.wait().expect("the child can be waited for").code();
        Ended { code, stdout, stderr: std::mem::take(&mut self.stderr) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_order_has_one_number_however_often_it_asks() {
    play(|stage| {
        stage.listen(&[]);
        stage.assert_said(&stage.run("first"), "invoices: 1, new");
        stage.assert_sent("first", &[INCREMENT, CREATE, INCREMENT]);
        stage.assert_said(&stage.run("first"), "invoices: 1, replayed");
        stage.assert_said(&stage.run("second"), "invoices: 2, new");
        assert_eq!(stage.taken(), Some(2));
    });
}

#[test]
fn a_lost_answer_is_asked_for_again_and_takes_no_second_number() {
    play(|stage| {
        stage.create(&json!({ "name": "invoices", "start": 0 }));
        let fates = [Fate::RequestLost, Fate::AnswerLost, Fate::AnswerCut];
        stage.listen(&fates);
        stage.assert_said(&stage.run("order"), "invoices: 1, replayed");
        assert_eq!(stage.taken(), Some(1), "{}", stage.example.language);
        stage.assert_sent("order", &[INCREMENT; 4]);
    });
}

/// Takes as long as the examples wait for one answer, five seconds.
#[test]
fn an_answer_that_does_not_come_is_asked_for_again() {
    play(|stage| {
        stage.create(&json!({ "name": "invoices", "start": 0 }));
        stage.listen(&[Fate::AnswerHeld]);
        stage.assert_said(&stage.run("order"), "invoices: 1, replayed");
        assert_eq!(stage.taken(), Some(1), "{}", stage.example.language);
        stage.assert_sent("order", &[INCREMENT; 2]);
    });
}

#[test]
fn a_lost_answer_to_the_creation_does_no_harm() {
    play(|stage| {
        stage.listen(&[Fate::Passed, Fate::AnswerLost, Fate::Passed, Fate::AnswerCut]);
        stage.assert_said(&stage.run("order"), "invoices: 1, replayed");
        assert_eq!(stage.taken(), Some(1), "{}", stage.example.language);
        stage.assert_sent("order", &[INCREMENT, CREATE, CREATE, INCREMENT, INCREMENT]);
    });
}

#[test]
fn a_server_that_is_not_there_yet_or_busy_is_waited_for() {
    play(|stage| {
        let mut running = Running::start(&mut stage.command("invoices", "order"));
        let line = running.next_line().unwrap_or_default();
        assert!(line.contains("again"), "{}: {line:?}", stage.example.language);
        stage.create(&json!({ "name": "invoices", "start": 0 }));
        // outcome_unknown with the same key is only one more reason to try again.
        stage.listen(&[Fate::Refused(503, 0), Fate::Refused(429, 1)]);
        stage.assert_said(&running.end(), "invoices: 1, new");
        assert_eq!(stage.taken(), Some(1), "{}", stage.example.language);
        stage.assert_sent("order", &[INCREMENT; 3]);
    });
}

#[test]
fn retry_after_is_believed() {
    play(|stage| {
        stage.create(&json!({ "name": "invoices", "start": 0 }));
        // Longer than an example would wait in all, so it does not begin to.
        stage.listen(&[Fate::AnswerLost, Fate::Refused(503, 3600)]);
        stage.assert_gave_up(&stage.run("order"), "outcome_unknown");
        stage.assert_sent("order", &[INCREMENT; 2]);
        stage.assert_said(&stage.run("order"), "invoices: 1, replayed");
        assert_eq!(stage.taken(), Some(1), "{}", stage.example.language);
    });
}

#[test]
fn a_refusal_is_told_once() {
    play(|stage| {
        stage.create(&json!({ "name": "invoices", "start": 0, "max": 1 }));
        stage.create(&json!({ "name": "receipts", "start": 0 }));
        stage.listen(&[]);
        stage.assert_said(&stage.run("order"), "invoices: 1, new");
        stage.assert_gave_up(&stage.run("late"), "counter_exhausted");
        let mut reusing = stage.command("receipts", "order");
        stage.assert_gave_up(&Running::start(&mut reusing).end(), "idempotency_key_reused");
        let mut nobody = stage.command("invoices", "nobody");
        nobody.env("ODOMETER_KEY", "odo_nobody");
        stage.assert_gave_up(&Running::start(&mut nobody).end(), "unauthorized");
        let Noted { requests, .. } = stage.proxy.noted();
        assert_eq!(requests.len(), 4, "{}: {requests:#?}", stage.example.language);
        assert_eq!(stage.taken(), Some(1));
    });
}

#[test]
fn another_certificate_is_not_trusted() {
    let stranger = TestServer::start();
    play(|stage| {
        stage.listen(&[]);
        let mut command = stage.command("invoices", "order");
        command.env("ODOMETER_CACERT", stranger.data_dir().join("tls/cert.pem"));
        stage.assert_gave_up(&Running::start(&mut command).end(), "ertificate");
        let noted = stage.proxy.noted();
        assert_eq!(
            (noted.connections, noted.requests.len()),
            (1, 0),
            "{}: {noted:?}",
            stage.example.language
        );
    });
    stranger.stop();
}
