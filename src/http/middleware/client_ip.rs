//! The client's address behind trusted proxies.
//!
//! Job: `client_address` evaluates `X-Forwarded-For`.
//! Invariant: an address in the header counts only if a trusted proxy wrote it.
//! Must never: trust the header of a peer that is not a trusted proxy.

use std::net::IpAddr;

use actix_web::http::header::{HeaderMap, HeaderName};
use ipnet::IpNet;

use crate::failpoint::failpoint;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client's address: the last one in `X-Forwarded-For` that is not a trusted proxy's, if the
/// peer is a trusted proxy; otherwise the peer's.
pub(super) fn client_address(
    trusted_proxies: &[IpNet],
    peer: IpAddr,
    headers: &HeaderMap,
) -> IpAddr {
    let mut client = peer.to_canonical();
    if trusted_proxies.is_empty() {
        return client;
    }
    let lines: Vec<&str> =
        headers.get_all(FORWARDED_FOR).filter_map(|line| line.to_str().ok()).collect();
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        if !contains(trusted_proxies, client) && !failpoint!("forwarded-for-of-any-peer-believed") {
            break;
        }
        match hop.trim().parse::<IpAddr>() {
            Ok(address) => client = address.to_canonical(),
            Err(_) => break,
        }
    }
    client
}

/// Whether an address is in one of these networks. An IPv4-mapped IPv6 address (`::ffff:10.0.0.1`,
/// which a dual-stack socket reports) counts as the IPv4 address.
fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn membership_follows_the_prefix() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.168.1.7/32", "192.168.1.7", "192.168.1.8"),
            ("10.1.2.128/25", "10.1.2.129", "10.1.2.127"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::1/128", "::1", "::2"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
            ("0.0.0.0/0", "8.8.8.8", "2001:db8::1"),
            ("::/0", "2001:db8::1", "8.8.8.8"),
        ] {
            let network = [text.parse().unwrap()];
            assert!(contains(&network, inside.parse().unwrap()), "{inside} in {text}");
            assert!(!contains(&network, outside.parse().unwrap()), "{outside} not in {text}");
        }
        assert!(!contains(&[], IpAddr::from([127, 0, 0, 1])));
    }
}
