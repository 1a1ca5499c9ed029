//! The commands `tenant` and `key`: what operators ask of the running server.
//!
//! Job: [`ask`] turns a question into requests to the admin socket, and their answers into rows.
//! Invariant: a list is followed to its end, page by page, or the command fails.
//! Must never: open the data folder; only the server that runs on it changes it.

use std::path::Path;

use anyhow::{Result, bail};
use hyper::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::client::{Client, Wait, no_server};
use super::rows::{KeyPage, KeyRow, NewLimit, TenantPage, TenantRow};

/// Rows of one answer: few enough that even a slow disk finds them while a client waits.
const PAGE: u32 = 100;
/// What a path may have between two slashes: RFC 3986's unreserved characters.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What the server is asked.
#[derive(Clone, Debug)]
pub enum Question {
    /// All tenants.
    Tenants,
    /// Something about one tenant.
    Tenant {
        /// Which: its name, in any case.
        name: String,
        /// What.
        action: TenantAction,
    },
}

/// What is to be done with a tenant.
#[derive(Clone, Debug)]
pub enum TenantAction {
    /// Only look.
    Show,
    /// Refuse its keys and password until it is resumed.
    Suspend,
    /// Take them again.
    Resume,
    /// Delete it, with everything it has.
    Delete,
    /// Let it make so many requests: `default`, `off`, or a rate.
    Limit(String),
    /// List its keys.
    ListKeys,
    /// Revoke one of them, by its id, or by the whole of it.
    RevokeKey(String),
}

/// What came back.
#[derive(Debug, Default)]
pub struct Rows {
    /// Tenants.
    pub tenants: Vec<TenantRow>,
    /// Keys.
    pub keys: Vec<KeyRow>,
}

/// Asks the server that runs on `data_dir`.
///
/// # Errors
/// One sentence: no server runs there, or what it said.
pub fn ask(data_dir: &Path, question: &Question) -> Result<Rows> {
    let Some(mut client) = Client::connect(data_dir)? else { return Err(no_server(data_dir)) };
    match question {
        Question::Tenants => list_tenants(&mut client),
        // It would be no part of a path.
        Question::Tenant { name, .. } if name.is_empty() => bail!("there is no tenant named \"\""),
        Question::Tenant { name, action } => carry_out(&mut client, &segment(name), action),
    }
}

fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

fn carry_out(client: &mut Client, tenant: &str, action: &TenantAction) -> Result<Rows> {
    let path = format!("/tenants/{tenant}");
    let row = match action {
        TenantAction::ListKeys => return list_keys(client, &path),
        TenantAction::Delete => {
            client.tell(Method::DELETE, &path, Wait::AsLongAsItTakes)?;
            return Ok(Rows::default());
        }
        TenantAction::RevokeKey(id) if id.is_empty() => {
            bail!("a key's id is 16 hexadecimal digits")
        }
        TenantAction::RevokeKey(id) => {
            client.tell(Method::DELETE, &format!("{path}/keys/{}", segment(id)), Wait::Briefly)?;
            return Ok(Rows::default());
        }
        TenantAction::Show => client.ask(Method::GET, &path, None, Wait::Briefly)?,
        TenantAction::Suspend => {
            client.ask(Method::POST, &format!("{path}/suspend"), None, Wait::Briefly)?
        }
        TenantAction::Resume => {
            client.ask(Method::POST, &format!("{path}/resume"), None, Wait::Briefly)?
        }
        TenantAction::Limit(limit) => {
            let body = serde_json::to_vec(&NewLimit { limit: limit.clone() })?;
            client.ask(Method::PUT, &format!("{path}/limit"), Some(body), Wait::Briefly)?
        }
    };
    Ok(Rows { tenants: vec![row], keys: Vec::new() })
}

fn list_tenants(client: &mut Client) -> Result<Rows> {
    let mut rows = Rows::default();
    let mut target = format!("/tenants?limit={PAGE}");
    loop {
        let page: TenantPage = client.ask(Method::GET, &target, None, Wait::Briefly)?;
        rows.tenants.extend(page.tenants);
        let Some(next) = page.next else { return Ok(rows) };
        target = format!("/tenants?limit={PAGE}&after={next}");
    }
}

fn list_keys(client: &mut Client, path: &str) -> Result<Rows> {
    let mut rows = Rows::default();
    let mut target = format!("{path}/keys?limit={PAGE}");
    loop {
        let page: KeyPage = client.ask(Method::GET, &target, None, Wait::Briefly)?;
        rows.keys.extend(page.keys);
        let Some(next) = page.next else { return Ok(rows) };
        target = format!("{path}/keys?limit={PAGE}&after={next}");
    }
}
