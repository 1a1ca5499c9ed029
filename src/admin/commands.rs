//! The commands `tenant` and `key`, by which operators manage tenants on the running server.
//!
//! Job: [`send_request`] sends the HTTP requests of an [`AdminRequest`] to the admin socket and
//! collects the rows of the responses.
//! Invariant: a list is complete: all its pages are read, or the command fails.
//! Must never: open the data directory; only the server that runs on it changes it.

use std::path::Path;

use anyhow::{Result, bail};
use hyper::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::client::{Client, Wait, no_server};
use super::rows::{KeyPage, KeyRow, NewLimit, TenantPage, TenantRow};

/// Rows per page: few enough that the server reads them within the client's timeout, even from a
/// slow disk.
const PAGE_ROWS: u32 = 100;
/// All but RFC 3986's unreserved characters are percent-encoded in a path segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An admin request: what an operator wants of the running server.
#[derive(Clone, Debug)]
pub enum AdminRequest {
    /// List all tenants.
    ListTenants,
    /// An action on one tenant.
    Tenant {
        /// The tenant's name, in any case.
        name: String,
        /// The action.
        action: TenantAction,
    },
}

/// An action on a tenant.
#[derive(Clone, Debug)]
pub enum TenantAction {
    /// Show the tenant.
    Show,
    /// Suspend the tenant: its requests are refused until it is resumed.
    Suspend,
    /// Resume the suspended tenant.
    Resume,
    /// Delete the tenant with all its counters and keys.
    Delete,
    /// Set the rate limit: `default`, `off`, or a rate.
    Limit(String),
    /// List the tenant's API keys.
    ListKeys,
    /// Revoke an API key, given by its id or as a whole.
    RevokeKey(String),
}

/// The rows of a response.
#[derive(Debug, Default)]
pub struct Rows {
    /// Tenants.
    pub tenants: Vec<TenantRow>,
    /// API keys.
    pub keys: Vec<KeyRow>,
}

/// Sends the request to the server that runs on `data_dir`, and collects the rows.
///
/// # Errors
/// No server runs there, or its error, as one sentence.
pub fn send_request(data_dir: &Path, request: &AdminRequest) -> Result<Rows> {
    let Some(mut client) = Client::connect(data_dir)? else { return Err(no_server(data_dir)) };
    match request {
        AdminRequest::ListTenants => list_tenants(&mut client),
        // An empty name cannot be a path segment.
        AdminRequest::Tenant { name, .. } if name.is_empty() => {
            bail!("there is no tenant named \"\"")
        }
        AdminRequest::Tenant { name, action } => execute(&mut client, &segment(name), action),
    }
}

fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

fn execute(client: &mut Client, tenant: &str, action: &TenantAction) -> Result<Rows> {
    let path = format!("/tenants/{tenant}");
    let row = match action {
        TenantAction::ListKeys => return list_keys(client, &path),
        TenantAction::Delete => {
            client.request_no_content(Method::DELETE, &path, Wait::Unlimited)?;
            return Ok(Rows::default());
        }
        TenantAction::RevokeKey(id) if id.is_empty() => {
            bail!("a key's id is 16 hexadecimal digits")
        }
        TenantAction::RevokeKey(id) => {
            client.request_no_content(
                Method::DELETE,
                &format!("{path}/keys/{}", segment(id)),
                Wait::Limited,
            )?;
            return Ok(Rows::default());
        }
        TenantAction::Show => client.request(Method::GET, &path, None)?,
        TenantAction::Suspend => client.request(Method::POST, &format!("{path}/suspend"), None)?,
        TenantAction::Resume => client.request(Method::POST, &format!("{path}/resume"), None)?,
        TenantAction::Limit(limit) => {
            let body = serde_json::to_vec(&NewLimit { limit: limit.clone() })?;
            client.request(Method::PUT, &format!("{path}/limit"), Some(body))?
        }
    };
    Ok(Rows { tenants: vec![row], keys: Vec::new() })
}

fn list_tenants(client: &mut Client) -> Result<Rows> {
    let mut rows = Rows::default();
    let mut target = format!("/tenants?limit={PAGE_ROWS}");
    loop {
        let page: TenantPage = client.request(Method::GET, &target, None)?;
        rows.tenants.extend(page.tenants);
        let Some(next) = page.next else { return Ok(rows) };
        target = format!("/tenants?limit={PAGE_ROWS}&after={next}");
    }
}

fn list_keys(client: &mut Client, path: &str) -> Result<Rows> {
    let mut rows = Rows::default();
    let mut target = format!("{path}/keys?limit={PAGE_ROWS}");
    loop {
        let page: KeyPage = client.request(Method::GET, &target, None)?;
        rows.keys.extend(page.keys);
        let Some(next) = page.next else { return Ok(rows) };
        target = format!("{path}/keys?limit={PAGE_ROWS}&after={next}");
    }
}
