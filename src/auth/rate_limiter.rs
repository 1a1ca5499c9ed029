//! The rate limiters: a token bucket for each tenant and for each address of an unauthenticated
//! client, and the login throttle.
//!
//! Job: [`RateLimiters::check_tenant`] and [`RateLimiters::check_client`] take a token and return
//! what is left; [`RateLimiters::check_login`] counts an attempt at a password, and
//! [`RateLimiters::refund_login`] takes it back unless the password was wrong. The clock is
//! monotonic.
//! Invariant: memory is bounded: full buckets are dropped, since a new one is the same. A tenant's
//! bucket has the tenant's current limit.
//! Must never: lock on the path of an authenticated request; know HTTP.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::login_throttle::LoginThrottle;
use super::rate_limit::RateLimitDecision;
use crate::domain::rate_limit::RateLimit;
use crate::domain::tenant::{TenantId, TenantLimit};
use crate::failpoint::failpoint;

/// The number of tenants' or of addresses' buckets at which full ones are dropped.
const MAX_BUCKETS: usize = 100_000;

type Bucket = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;
type Buckets =
    RateLimiter<IpAddr, DefaultKeyedStateStore<IpAddr>, DefaultClock, StateInformationMiddleware>;

/// A tenant's bucket and the limit that it was created for.
struct TenantBucket {
    limit: RateLimit,
    bucket: Bucket,
}

/// The limits by configuration; `None` is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct RateLimits {
    /// Of each tenant that has no limit of its own.
    pub tenant: Option<RateLimit>,
    /// Of each address, for unauthenticated requests.
    pub client: Option<RateLimit>,
}

/// All rate limiters of a server.
pub struct RateLimiters {
    default: Option<RateLimit>,
    tenants: papaya::HashMap<TenantId, Arc<TenantBucket>>,
    logins: LoginThrottle,
    clients: Option<(RateLimit, Buckets)>,
    clock: DefaultClock,
}

impl RateLimiters {
    /// Rate limiters with these limits; every bucket is full.
    pub fn new(limits: RateLimits) -> Self {
        let RateLimits { tenant, client } = limits;
        Self {
            default: tenant,
            tenants: papaya::HashMap::new(),
            logins: LoginThrottle::new(),
            clients: client
                .map(|limit| (limit, RateLimiter::keyed(quota(limit)).with_middleware())),
            clock: DefaultClock::default(),
        }
    }

    /// The limit of a tenant whose record has the limit `own`; `None` if it has none.
    pub fn limit_of(&self, own: TenantLimit) -> Option<RateLimit> {
        match own {
            TenantLimit::Default => self.default,
            TenantLimit::Off => None,
            TenantLimit::Rate(limit) => Some(limit),
        }
    }

    /// Takes a token of a tenant whose record has the limit `own`; `None` if it has no limit. A
    /// changed limit applies from the next request on, with a full bucket.
    pub fn check_tenant(&self, tenant: TenantId, own: TenantLimit) -> Option<RateLimitDecision> {
        let limit = self.limit_of(own)?;
        let buckets = self.tenants.pin();
        let known = buckets.get(&tenant).filter(|known| known.limit == limit);
        let outcome = match known {
            Some(known) => known.bucket.check(),
            None => {
                if buckets.len() >= MAX_BUCKETS {
                    // Every tenant gets a full bucket again. That is the price of bounded memory;
                    // it takes 100,000 active tenants to get here.
                    buckets.clear();
                }
                let new = Arc::new(TenantBucket {
                    limit,
                    bucket: RateLimiter::direct(quota(limit)).with_middleware(),
                });
                // Several first requests may arrive at once; all of them must use one bucket, or
                // each would get a full burst.
                let current = buckets.update_or_insert_with(
                    tenant,
                    |known| {
                        if known.limit == limit { Arc::clone(known) } else { Arc::clone(&new) }
                    },
                    || Arc::clone(&new),
                );
                current.bucket.check()
            }
        };
        Some(self.decide(limit, outcome))
    }

    /// Counts an attempt at the password of `login`, a user name in lower case that need not exist.
    pub fn check_login(&self, login: &[u8]) -> RateLimitDecision {
        self.logins.take(login)
    }

    /// Takes an attempt back: the password was right, or was not verified.
    pub fn refund_login(&self, login: &[u8]) {
        self.logins.refund(login);
    }

    /// Takes a token of a client's address; `None` if there is no limit. The addresses of an IPv6
    /// /64 network share a bucket, since a client can usually choose among all of them.
    pub fn check_client(&self, address: IpAddr) -> Option<RateLimitDecision> {
        let (limit, buckets) = self.clients.as_ref()?;
        if buckets.len() >= MAX_BUCKETS {
            buckets.retain_recent();
        }
        Some(self.decide(*limit, buckets.check_key(&rate_limit_prefix(address))))
    }

    fn decide(
        &self,
        limit: RateLimit,
        outcome: Result<
            governor::middleware::StateSnapshot,
            governor::NotUntil<<DefaultClock as Clock>::Instant>,
        >,
    ) -> RateLimitDecision {
        match outcome {
            Ok(state) => RateLimitDecision {
                limit,
                remaining: state.remaining_burst_capacity(),
                retry_after: None,
            },
            Err(not_until) => {
                let wait = not_until.wait_time_from(self.clock.now());
                RateLimitDecision { limit, remaining: 0, retry_after: Some(wait) }
            }
        }
    }
}

fn quota(limit: RateLimit) -> Quota {
    let at_once = failpoint!("rate-limit-not-spent");
    let one_per = if at_once { Duration::ZERO } else { limit.per / limit.count.get() };
    // The quota counts whole nanoseconds; no client sends more than one request in each.
    let one_per = one_per.max(Duration::from_nanos(1));
    Quota::with_period(one_per)
        .unwrap_or_else(|| unreachable!("the period is not zero"))
        .allow_burst(limit.burst)
}

fn rate_limit_prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(tenant: Option<&str>, client: Option<&str>) -> RateLimits {
        let limit = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        RateLimits { tenant: limit(tenant), client: limit(client) }
    }

    #[test]
    fn a_burst_is_allowed_and_the_next_request_learns_when_to_retry() {
        let limiters = RateLimiters::new(limits(Some("1/h:3"), Some("1/h:2")));
        for remaining in [2, 1, 0] {
            let decision = limiters.check_tenant(TenantId(1), TenantLimit::Default).unwrap();
            assert_eq!((decision.remaining, decision.retry_after), (remaining, None));
        }
        let refused = limiters.check_tenant(TenantId(1), TenantLimit::Default).unwrap();
        assert!(refused.retry_after.unwrap() > Duration::from_secs(3500));
        assert_eq!((refused.reset_s(), refused.window_s()), (3 * 3600, 3 * 3600));
        assert_eq!(limiters.check_tenant(TenantId(2), TenantLimit::Default).unwrap().remaining, 2);
        let address = |string: &str| string.parse::<IpAddr>().unwrap();
        for client in ["2001:db8::1", "2001:db8::2"] {
            assert_eq!(limiters.check_client(address(client)).unwrap().retry_after, None);
        }
        assert!(limiters.check_client(address("2001:db8::3")).unwrap().retry_after.is_some());
        assert_eq!(limiters.check_client(address("::ffff:10.0.0.1")).unwrap().remaining, 1);
        assert_eq!(limiters.check_client(address("10.0.0.1")).unwrap().remaining, 0);
    }

    #[test]
    fn off_is_no_limit() {
        let limiters = RateLimiters::new(limits(None, None));
        assert_eq!(limiters.check_tenant(TenantId(1), TenantLimit::Default), None);
        assert_eq!(limiters.check_client(IpAddr::from([127, 0, 0, 1])), None);
    }

    #[test]
    fn a_tenants_own_limit_beats_the_default_from_the_next_request_on() {
        let limiters = RateLimiters::new(limits(Some("1/h:2"), None));
        let check = |own: &str| {
            limiters
                .check_tenant(TenantId(1), own.parse().unwrap())
                .map(|decision| (decision.limit.burst.get(), decision.remaining))
        };
        assert_eq!((check("default"), check("default")), (Some((2, 1)), Some((2, 0))));
        assert!(
            limiters.check_tenant(TenantId(1), TenantLimit::Default).unwrap().retry_after.is_some()
        );
        assert_eq!(
            (check("1/h:5"), check("1/h:5"), check("off")),
            (Some((5, 4)), Some((5, 3)), None)
        );
        assert_eq!(check("default"), Some((2, 1)));
        let unlimited = RateLimiters::new(RateLimits::default());
        assert_eq!(
            unlimited
                .check_tenant(TenantId(1), TenantLimit::Rate("1/h:1".parse().unwrap()))
                .unwrap()
                .remaining,
            0
        );
    }
}
