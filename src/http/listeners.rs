//! The TCP listeners: public HTTPS, plain HTTP that redirects to it, and ops.
//!
//! Job: [`Listeners::bind`]. Invariant: all of them are bound, or none; an error names the setting.
//! Must never: accept a connection.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result};

/// The addresses to listen on; port 0 lets the system choose one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// HTTPS, for clients.
    pub public: SocketAddr,
    /// The port at which clients reach HTTPS, if a port mapping makes it another than `public`'s.
    pub public_port: Option<u16>,
    /// Plain HTTP that redirects to HTTPS; `None`: off.
    pub http: Option<SocketAddr>,
    /// Metrics and health, for operators; `None`: off.
    pub ops: Option<SocketAddr>,
}

/// The addresses that were bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// HTTPS, for clients.
    pub public: SocketAddr,
    /// The port at which clients reach HTTPS.
    pub public_port: u16,
    /// Plain HTTP that redirects to HTTPS.
    pub http: Option<SocketAddr>,
    /// Metrics and health, for operators.
    pub ops: Option<SocketAddr>,
}

/// Bound, and not yet accepting.
#[derive(Debug)]
pub struct Listeners {
    /// HTTPS, for clients.
    pub public: TcpListener,
    /// Plain HTTP that redirects to HTTPS.
    pub http: Option<TcpListener>,
    /// Metrics and health, for operators.
    pub ops: Option<TcpListener>,
    /// Where they listen.
    pub addresses: Addresses,
}

impl Listeners {
    /// Binds every listener that is not off.
    ///
    /// # Errors
    /// Any error of the system, a port in use among them, with the setting that named the address.
    pub fn bind(options: &ListenOptions) -> Result<Self> {
        let (public, public_address) = bind("listen", options.public)?;
        let optional = |setting, address: Option<SocketAddr>| {
            address.map(|address| bind(setting, address)).transpose().map(Option::unzip)
        };
        let (http, http_address) = optional("http-listen", options.http)?;
        let (ops, ops_address) = optional("ops-listen", options.ops)?;
        let addresses = Addresses {
            public: public_address,
            public_port: options.public_port.unwrap_or(public_address.port()),
            http: http_address,
            ops: ops_address,
        };
        Ok(Self { public, http, ops, addresses })
    }
}

fn bind(setting: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let bind = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        std::io::Result::Ok((listener, address))
    };
    bind().with_context(|| format!("--{setting} {address}: cannot bind"))
}
