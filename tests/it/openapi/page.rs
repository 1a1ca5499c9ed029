//! `/docs` in a real browser.
//!
//! Invariant: the page is asked by its elements, as somebody sees them, and its console is silent,
//! breaches of its policy included.
//! Must never: accept a page that only loads; an operation is tried with a key.

use std::collections::BTreeSet;

use super::browser::Browser;
use super::operations;
use crate::support::client::Protocol;
use crate::support::server::TestServer;
use crate::support::workload::{PASSWORD, runtime};
use crate::support::{has_program, require};

/// Types into a field as somebody would: the framework of the page listens to the event.
const TYPE: &str = "const type = (field, text) => {
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(field, text);
    field.dispatchEvent(new Event('input', { bubbles: true }));
};";

#[test]
fn the_page_shows_every_operation_and_tries_one_under_a_strict_policy() {
    if !require(Browser::PROGRAM, has_program(Browser::PROGRAM)) {
        return;
    }
    let server = TestServer::start();
    let endpoint = server.endpoint();
    let key = runtime().block_on(async {
        let mut client = endpoint.connect(Protocol::Http1).await.expect("a connection");
        client.register("reader", PASSWORD).await.expect("a tenant")
    });
    let mut browser = Browser::start();
    browser.open(&format!("https://localhost:{}/docs", server.public().port()));

    let described: BTreeSet<String> = operations()
        .iter()
        .map(|operation| format!("{} {}", operation.method, operation.path))
        .collect();
    let count = described.len();
    let shown = browser.evaluate(&format!(
        "const blocks = await until(() => {{
            const all = [...document.querySelectorAll('.opblock')];
            return all.length >= {count} && all;
        }});
        return blocks.map(block => block.querySelector('.opblock-summary-method').textContent + ' '
            + block.querySelector('.opblock-summary-path').dataset.path);"
    ));
    let shown: BTreeSet<String> = shown
        .as_array()
        .expect("a list")
        .iter()
        .map(|line| line.as_str().expect("a text").to_owned())
        .collect();
    assert_eq!(shown, described);

    let answered = browser.evaluate(&format!(
        "{TYPE}
        (await until(() => document.querySelector('button.authorize'))).click();
        type(await until(() => document.querySelector('#auth-bearer-value')), '{key}');
        (await until(() => document.querySelector('.auth-container:has(#auth-bearer-value) button.authorize'))).click();
        (await until(() => document.querySelector('.btn-done'))).click();
        (await until(() => document.querySelector('#operations-integer-readInteger .opblock-summary-control'))).click();
        (await until(() => document.querySelector('#operations-integer-readInteger .try-out__btn'))).click();
        (await until(() => document.querySelector('#operations-integer-readInteger .execute'))).click();
        return (await until(() => document.querySelector('#operations-integer-readInteger .live-responses-table .microlight'))).textContent;"
    ));
    let answered: serde_json::Value =
        serde_json::from_str(answered.as_str().unwrap_or_default()).unwrap_or_default();
    assert_eq!(answered["data"]["attributes"]["value"], 1, "{answered}");
    assert_eq!(browser.complaints(), Vec::<serde_json::Value>::new());

    // The other way round: what the policy forbids does not happen, and is noticed above.
    let ran = browser.evaluate(
        "const script = document.createElement('script');
        script.textContent = 'window.ran = true';
        document.body.append(script);
        return window.ran === true;",
    );
    assert_eq!(ran, false, "a script in the page ran");
    let complaints = browser.complaints();
    assert!(
        complaints.iter().any(|complaint| complaint.to_string().contains("script-src")),
        "{complaints:#?}"
    );
    drop(browser);
    server.stop();
}
