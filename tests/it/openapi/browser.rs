//! A headless Chromium, driven over the pipe that it offers to debuggers: one page, and all that
//! its console said.
//!
//! Invariant: it has a profile of its own and ends with the test; everything that the page
//! complains about, a breach of its policy above all, is collected from the first byte of the page
//! on.
//! Must never: wait for a while instead of for an answer, or visit anything but loopback.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long one command may take, on a machine that is busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// Events in which a page complains.
const COMPLAINTS: [&str; 4] =
    ["Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Audits.issueAdded"];

/// A browser with one page.
#[derive(Debug)]
pub(crate) struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    sent: u64,
    session: Option<String>,
    complaints: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    pub(crate) const PROGRAM: &str = "chromium";

    /// Starts it with an empty page. Certificates are not checked: a test's server made its own.
    pub(crate) fn start() -> Self {
        let profile = TempDir::new().expect("a temporary folder");
        // Chromium takes commands from descriptor 3 and answers on 4.
        let mut command = Command::new("sh");
        command.args([
            "-c",
            r#"exec "$0" "$@" 3<&0 4>&1 1>&2 0</dev/null"#,
            Self::PROGRAM,
            "--headless",
        ]);
        command.args([
            "--remote-debugging-pipe",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-sync",
        ]);
        command.args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-dev-shm-usage",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        if crate::support::is_root() {
            command.arg("--no-sandbox");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the browser starts");
        let commands = child.stdin.take().expect("stdin is piped");
        let stdout = child.stdout.take().expect("stdout is piped");
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let parts = BufReader::new(stdout).split(0).map_while(Result::ok);
            for message in parts.filter_map(|part| serde_json::from_slice(&part).ok()) {
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let complaints = Vec::new();
        let mut browser = Self {
            child,
            commands,
            messages,
            sent: 0,
            session: None,
            complaints,
            _profile: profile,
        };
        let page = browser.call("Target.createTarget", json!({ "url": "about:blank" }))["targetId"]
            .clone();
        let attached =
            browser.call("Target.attachToTarget", json!({ "targetId": page, "flatten": true }));
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Log", "Runtime", "Page", "Audits"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.call("Security.setIgnoreCertificateErrors", json!({ "ignore": true }));
        browser
    }

    /// Goes to a page; it may still be loading afterwards.
    #[track_caller]
    pub(crate) fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", json!({ "url": url }));
        assert_eq!(opened["errorText"], Value::Null, "{url} cannot be opened");
    }

    /// What the script, an expression in which `until` waits for something in the page, comes to in
    /// the end.
    #[track_caller]
    pub(crate) fn evaluate(&mut self, script: &str) -> Value {
        const UNTIL: &str = "const until = look => new Promise(done => {
            const again = () => { const found = look(); if (found) { watch.disconnect(); done(found); } };
            const watch = new MutationObserver(again);
            watch.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
            again();
        });";
        let expression = format!("(async () => {{ {UNTIL} {script} }})()");
        let call = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", call);
        assert_eq!(answer["exceptionDetails"], Value::Null, "{script}");
        answer["result"]["value"].clone()
    }

    /// Everything that the page complained about since the last call.
    pub(crate) fn complaints(&mut self) -> Vec<Value> {
        // What was said before this answer is there with it.
        self.call("Runtime.evaluate", json!({ "expression": "0" }));
        std::mem::take(&mut self.complaints)
    }

    #[track_caller]
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.sent += 1;
        let mut message = json!({ "id": self.sent, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let sent = self
            .commands
            .write_all(format!("{message}\0").as_bytes())
            .and_then(|()| self.commands.flush());
        sent.expect("the browser listens");
        let until = Instant::now() + DEADLINE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(message) = self.messages.recv_timeout(left) else {
                panic!(
                    "no answer to {method} within {DEADLINE:?}: {params}\nthe page said {:#?}",
                    self.complaints
                );
            };
            if message["id"] == self.sent {
                assert_eq!(message["error"], Value::Null, "{method}");
                return message["result"].clone();
            }
            self.note(message);
        }
    }

    fn note(&mut self, event: Value) {
        let issue = &event["params"]["issue"]["code"];
        let is_complaint = COMPLAINTS.iter().any(|name| event["method"] == *name);
        // Other issues are advice on forms and the like.
        if is_complaint && (issue.is_null() || issue == "ContentSecurityPolicyIssue") {
            self.complaints.push(event);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its helpers end when it does.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
