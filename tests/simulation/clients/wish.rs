//! What a client wishes for next, and with which idempotency key.
//!
//! Job: [`Clients::wish`] draws a request. Invariant: only the owner sets; a key is new, or it was
//! used for a request that was done, by the same tenant or by another one.
//! Must never: send anything.

use odometer::domain::api_key::KeyId;
use odometer::domain::tenant::TenantName;

use super::job::{Origin, Settled};
use super::request::{COUNTERS, TENANTS, What};
use super::{Clients, Now, OWNER};
use crate::support::Random;

impl Clients {
    pub(super) fn wish(
        &mut self,
        client: u32,
        random: &mut Random,
        now: Now,
        known: impl Fn(u32) -> Vec<String>,
    ) -> (What, Origin) {
        if self.registered < TENANTS && random.between(0, 3) == 0 {
            return (self.registration(random), Origin::New);
        }
        if random.between(0, 9) == 0
            && let Some(before) = self.take_settled(client, random, now)
        {
            return match before.what.another() {
                another if random.between(0, 2) == 0 => (another, Origin::Other(before)),
                _ => (before.what.clone(), Origin::Again(before)),
            };
        }
        // The counter that has to be created first is drawn less often, since it may be missing.
        let counter = if random.one_in(2) { 0 } else { random.between(0, COUNTERS - 1) as u32 };
        let place = (random.between(0, TENANTS - 1) as u32, counter);
        let is_keyed = random.between(0, 2) == 0;
        let dice = random.between(0, 99);
        let changes = !(0..37).contains(&dice);
        let key = (is_keyed && changes).then(|| self.draw_key(place.0, random));
        let what = match dice {
            0..30 => What::Read(place),
            30..33 => What::List(place.0, known(place.0)),
            33..37 => self.registration(random),
            37..43 => What::Create((place.0, 1), key),
            43..50 if client == OWNER => What::Set(place, random.between(1, 500), key),
            50..62 => What::Advance(place, random.between(2, 9) as u32, key),
            _ => What::Advance(place, 1, key),
        };
        (what, Origin::New)
    }

    /// A request that was done and whose key this client may use again. Old ones are drawn more
    /// often, since keys expire.
    fn take_settled(&mut self, client: u32, random: &mut Random, now: Now) -> Option<Settled> {
        let may_use = |settled: &Settled| client == OWNER || !matches!(settled.what, What::Set(..));
        let expired = self.settled.iter().position(|one| may_use(one) && one.may_be_expired(now));
        let any = (0..self.settled.len()).filter(|at| may_use(&self.settled[*at]));
        let any: Vec<usize> = any.collect();
        let at = match expired {
            Some(at) if random.one_in(2) => at,
            _ if any.is_empty() => return None,
            _ => any[random.index(any.len())],
        };
        Some(self.settled.remove(at))
    }

    /// A key that its tenant has not used; another tenant may have.
    fn draw_key(&mut self, tenant: u32, random: &mut Random) -> u64 {
        let others = random.between(0, 7) == 0 && self.keys > 0;
        if let Some(key) = others.then(|| random.between(1, self.keys))
            && !self.used_keys.contains(&(tenant, key))
        {
            self.tally.add("keys", "of another tenant", "");
            return key;
        }
        self.keys += 1;
        self.keys
    }

    fn registration(&mut self, random: &mut Random) -> What {
        // Sometimes a name that another tenant has, in another case.
        let name = if self.registered > 0 && random.between(0, 3) == 0 {
            format!("NAME{}", random.between(1, self.registered))
        } else {
            self.registered += 1;
            format!("name{}", self.registered)
        };
        let name = TenantName::parse(&name).expect("a good name");
        What::Register(name, KeyId(random.next().to_be_bytes()))
    }
}

impl What {
    /// Another request with the same key: another number of integers, or another kind of change.
    pub(super) fn another(&self) -> Self {
        let (place, key) = self.change().expect("only changes have keys");
        match self {
            Self::Advance(_, count, _) if count % 2 == 0 => Self::Create((place.0, 1), key),
            Self::Advance(_, count, _) => Self::Advance(place, count + 1, key),
            _ => Self::Advance(place, 1, key),
        }
    }
}
