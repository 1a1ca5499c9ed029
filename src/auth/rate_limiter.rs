//! Rate limits: one bucket for each tenant, one for each address that is not authenticated, and a few that names share for wrong passwords.
//!
//! Job: [`RateLimiters::tenant`] and [`RateLimiters::client`] take one request from a bucket and say what is left; [`RateLimiters::name`] takes one try of a
//! password, which [`RateLimiters::refund_login`] gives back when it was right. The clock is monotonic.
//! Invariant: memory is bounded: buckets that are full again are forgotten, since a new one is the same. A tenant's bucket has its present limit.
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
use crate::domain::rate_limit::RateLimit;
use crate::domain::tenant::{TenantId, TenantLimit};

/// Buckets of tenants or addresses kept before the full ones are forgotten.
const MAX_BUCKETS: usize = 100_000;

type Bucket = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;
type Buckets =
    RateLimiter<IpAddr, DefaultKeyedStateStore<IpAddr>, DefaultClock, StateInformationMiddleware>;

/// What a bucket said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitDecision {
    /// The limit.
    pub limit: RateLimit,
    /// Requests left at once.
    pub remaining: u32,
    /// `Some`: refused, and how long to wait.
    pub retry_after: Option<Duration>,
}

impl RateLimitDecision {
    /// Seconds until the bucket is full again, rounded up.
    #[must_use]
    pub fn reset_s(&self) -> u64 {
        seconds_for(self.limit, self.limit.burst.get() - self.remaining.min(self.limit.burst.get()))
    }

    /// Seconds in which an empty bucket fills, rounded up.
    #[must_use]
    pub fn window_s(&self) -> u64 {
        seconds_for(self.limit, self.limit.burst.get())
    }
}

fn seconds_for(limit: RateLimit, requests: u32) -> u64 {
    (u64::from(requests) * limit.per.as_secs()).div_ceil(u64::from(limit.count.get()))
}

/// A tenant's bucket, and the limit that it was made for.
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

/// All buckets.
pub struct RateLimiters {
    default: Option<RateLimit>,
    tenants: papaya::HashMap<TenantId, Arc<TenantBucket>>,
    logins: LoginThrottle,
    clients: Option<(RateLimit, Buckets)>,
    clock: DefaultClock,
}

impl RateLimiters {
    /// Full buckets.
    #[must_use]
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

    /// The limit that holds for a tenant whose record says `own`; `None` if there is none.
    #[must_use]
    pub fn limit_of(&self, own: TenantLimit) -> Option<RateLimit> {
        match own {
            TenantLimit::Default => self.default,
            TenantLimit::Off => None,
            TenantLimit::Rate(limit) => Some(limit),
        }
    }

    /// Takes one request of a tenant whose record says `own`; `None` if there is no limit. A limit that was changed holds from the next request
    /// on, with a full bucket.
    pub fn check_tenant(&self, tenant: TenantId, own: TenantLimit) -> Option<RateLimitDecision> {
        let limit = self.limit_of(own)?;
        let buckets = self.tenants.pin();
        let known = buckets.get(&tenant).filter(|allowance| allowance.limit == limit);
        let outcome = match known {
            Some(allowance) => allowance.bucket.check(),
            None => {
                if buckets.len() >= MAX_BUCKETS {
                    // A tenant's burst starts anew; that is the price of a bound, and 100,000 tenants away.
                    buckets.clear();
                }
                let fresh = Arc::new(TenantBucket {
                    limit,
                    bucket: RateLimiter::direct(quota(limit)).with_middleware(),
                });
                // Of many first requests at once each must meet the same bucket.
                let now = buckets.update_or_insert_with(
                    tenant,
                    |known| {
                        if known.limit == limit { Arc::clone(known) } else { Arc::clone(&fresh) }
                    },
                    || Arc::clone(&fresh),
                );
                now.bucket.check()
            }
        };
        Some(self.decide(limit, outcome))
    }

    /// Takes one try of a password for a name in lower case, whether there is such a name or not.
    pub fn check_login(&self, folded: &[u8]) -> RateLimitDecision {
        self.logins.take(folded)
    }

    /// Gives a try back: the password was right, or was not looked at.
    pub fn refund_login(&self, folded: &[u8]) {
        self.logins.refund(folded);
    }

    /// Takes one request of an address; `None` if there is no limit. Addresses of one IPv6 /64 share a bucket.
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
    let one_per = limit.per / limit.count.get();
    // A rate above one per nanosecond is no limit that a request could meet.
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
    fn a_burst_is_allowed_and_the_next_is_told_when_to_come_back() {
        let throttle = RateLimiters::new(limits(Some("1/h:3"), Some("1/h:2")));
        for remaining in [2, 1, 0] {
            let decision = throttle.check_tenant(TenantId(1), TenantLimit::Default).unwrap();
            assert_eq!((decision.remaining, decision.retry_after), (remaining, None));
        }
        let refused = throttle.check_tenant(TenantId(1), TenantLimit::Default).unwrap();
        assert!(refused.retry_after.unwrap() > Duration::from_secs(3500));
        assert_eq!((refused.reset_s(), refused.window_s()), (3 * 3600, 3 * 3600));
        assert_eq!(throttle.check_tenant(TenantId(2), TenantLimit::Default).unwrap().remaining, 2);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        for client in ["2001:db8::1", "2001:db8::2"] {
            assert_eq!(throttle.check_client(address(client)).unwrap().retry_after, None);
        }
        assert!(throttle.check_client(address("2001:db8::3")).unwrap().retry_after.is_some());
        assert_eq!(throttle.check_client(address("::ffff:10.0.0.1")).unwrap().remaining, 1);
        assert_eq!(throttle.check_client(address("10.0.0.1")).unwrap().remaining, 0);
    }

    #[test]
    fn off_is_no_limit() {
        let throttle = RateLimiters::new(RateLimits::default());
        assert_eq!(throttle.check_tenant(TenantId(1), TenantLimit::Default), None);
        assert_eq!(throttle.check_client(IpAddr::from([127, 0, 0, 1])), None);
    }

    #[test]
    fn a_tenants_own_limit_beats_the_default_from_the_next_request_on() {
        let throttle = RateLimiters::new(limits(Some("1/h:2"), None));
        let ask = |own: &str| {
            throttle
                .check_tenant(TenantId(1), own.parse().unwrap())
                .map(|said| (said.limit.burst.get(), said.remaining))
        };
        assert_eq!((ask("default"), ask("default")), (Some((2, 1)), Some((2, 0))));
        assert!(
            throttle.check_tenant(TenantId(1), TenantLimit::Default).unwrap().retry_after.is_some()
        );
        assert_eq!((ask("1/h:5"), ask("1/h:5"), ask("off")), (Some((5, 4)), Some((5, 3)), None));
        assert_eq!(ask("default"), Some((2, 1)));
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
