//! The ledger: what one tenant has, written from the contract, and the judgement of every answer against it.
//!
//! Invariant: it changes by its own rule and takes from an answer only what nobody else can know: tags, times, ids and secrets. Those have to be
//! new where the contract says so, and stay what they were.
//! Must never: be mended by an answer that it did not expect.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value, json};

use super::expect::{Refusal, check_common, check_nothing, check_page, check_refusal, moment, same, same_body};
use super::request::{Bounds, COUNTERS, DEFAULT, DEFAULT_MAX, KEYS, Op, Request, Shape, Way};
use crate::support::client::Answer;

pub(crate) const COUNTER_LIMIT: u64 = 1000;
const KEY_LIMIT: u64 = 100;
const MAX_COUNT: u64 = 1_000_000;
pub(crate) const ALL_SCOPES: [&str; 3] = ["read", "increment", "manage"];

#[derive(Clone, Debug)]
pub(crate) struct Counter {
    pub(crate) shape: Shape,
    pub(crate) value: u64,
    pub(crate) created_at: Value,
    pub(crate) tag: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) api_key: String,
    label: String,
    pub(crate) scopes: Vec<&'static str>,
    created_at: Option<Value>,
    expires_at: Value,
    used: bool,
}

/// What was answered to a request that happens once.
#[derive(Clone, Debug)]
struct Told {
    request: Request,
    identity: String,
    status: u16,
    body: Value,
    tag: String,
    location: String,
}

/// One tenant.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) number: usize,
    pub(crate) id: String,
    pub(crate) username: String,
    created_at: Option<Value>,
    pub(crate) first_key: String,
    pub(crate) counters: BTreeMap<String, Counter>,
    pub(crate) keys: BTreeMap<String, Key>,
    pub(crate) revoked: Vec<(String, String)>,
    told: HashMap<String, Told>,
    /// The keys of `told`, to draw from.
    pub(crate) told_keys: Vec<String>,
    seen_tags: HashSet<(String, String)>,
    /// How often each status and code was answered, replays apart.
    pub(crate) tally: BTreeMap<String, u64>,
}

impl Ledger {
    /// A tenant that has just registered; `created_at` is known only by the new route. The tag of `default` is empty until it is read.
    pub(crate) fn new(number: usize, id: String, username: String, created_at: Option<Value>, api_key: &str) -> Self {
        let first_key = api_key[4..20].to_owned();
        let key = Key {
            api_key: api_key.to_owned(),
            label: String::new(),
            scopes: ALL_SCOPES.to_vec(),
            created_at: None,
            expires_at: Value::Null,
            used: false,
        };
        let shape = Shape { start: 1, step: 1, min: 1, max: DEFAULT_MAX, rewindable: true };
        let default = Counter { shape, value: 1, created_at: Value::Null, tag: String::new() };
        Self {
            number,
            id,
            username,
            created_at,
            counters: BTreeMap::from([(DEFAULT.to_owned(), default)]),
            keys: BTreeMap::from([(first_key.clone(), key)]),
            first_key,
            revoked: Vec::new(),
            told: HashMap::new(),
            told_keys: Vec::new(),
            seen_tags: HashSet::new(),
            tally: BTreeMap::new(),
        }
    }

    /// The key that a request is sent with, also one that was revoked.
    pub(crate) fn api_key(&self, id: &str) -> &str {
        let revoked = || self.revoked.iter().find(|(other, _)| other == id).map(|(_, api_key)| api_key.as_str());
        self.keys.get(id).map(|key| key.api_key.as_str()).or_else(revoked).expect("a key of this tenant")
    }

    /// The request that was answered under this idempotency key.
    pub(crate) fn request_of(&self, once: &str) -> &Request {
        &self.told[once].request
    }

    pub(crate) fn identity_of(&self, once: &str) -> &str {
        &self.told[once].identity
    }

    /// Judges one answer and changes as the request has to.
    pub(crate) fn judge(&mut self, request: &Request, answer: &Answer) -> Result<(), String> {
        check_common(answer)?;
        let (kind, verdict) = self.judge_kind(request, answer);
        *self.tally.entry(kind).or_default() += 1;
        verdict
    }

    fn judge_kind(&mut self, request: &Request, answer: &Answer) -> (String, Result<(), String>) {
        let refused = |refusal: &Refusal| (format!("{} {}", refusal.0, refusal.1), check_refusal(answer, refusal));
        let authorization = json!({ "header": "Authorization" });
        let Some(key) = self.keys.get_mut(&request.by) else {
            return refused(&(401, "unauthorized", authorization));
        };
        key.used = true;
        if let Some(scope) = request.op.scope().filter(|scope| !key.scopes.contains(scope)) {
            let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
            let (kind, verdict) = refused(&(403, "insufficient_scope", authorization));
            return (kind, verdict.and(same("www-authenticate", answer.header("www-authenticate"), &*challenge)));
        }
        if let Some(told) = request.once.as_ref().and_then(|once| self.told.get(once)) {
            if told.identity == request.op.identity() {
                return ("replayed".to_owned(), check_replay(answer, told));
            }
            return refused(&(422, "idempotency_key_reused", json!({ "header": "Idempotency-Key" })));
        }
        if let Some(refusal) = self.refusal(&request.op) {
            let (kind, verdict) = refused(&refusal);
            return (kind, verdict.and_then(|()| self.check_precondition(&request.op, &refusal, answer)));
        }
        (answer.status.to_string(), self.judge_success(request, answer))
    }

    /// Why the contract refuses it, if it does.
    fn refusal(&self, op: &Op) -> Option<Refusal> {
        let parameter = |name: &str| json!({ "parameter": name });
        match op {
            Op::Create { name, .. } if name == DEFAULT => return Some((409, "default_counter", Value::Null)),
            Op::Create { bounds, .. } if !bounds.shape().is_sound() => {
                return Some((422, "value_out_of_range", parameter("start")));
            }
            Op::Create { name, .. } => {
                return self.counters.contains_key(name).then(|| (409, "counter_exists", parameter("name")));
            }
            Op::Delete { name, .. } if name == DEFAULT => return Some((409, "default_counter", Value::Null)),
            Op::Revoke { id } if !self.keys.contains_key(id) => return Some((404, "key_not_found", Value::Null)),
            _ => {}
        }
        let name = op.counter()?;
        let Some(counter) = self.counters.get(name) else { return Some((404, "counter_not_found", Value::Null)) };
        if op.if_match().is_some_and(|tag| tag != "*" && tag != counter.tag) {
            return Some((412, "precondition_failed", json!({ "header": "If-Match" })));
        }
        match *op {
            Op::Set { value, .. } if value < counter.shape.min || value > counter.shape.max => {
                Some((422, "value_out_of_range", parameter("value")))
            }
            Op::Set { value, rewind, .. } if value < counter.value && !rewind && !counter.shape.rewindable => {
                Some((409, "rewind_required", parameter("value")))
            }
            Op::Increment { count: Some(count), .. } if count == 0 || count > MAX_COUNT => {
                Some((422, "invalid_value", parameter("count")))
            }
            Op::Increment { count, .. } => {
                let fits = counter.advanced(count.unwrap_or(1)).is_some();
                (!fits).then_some((409, "counter_exhausted", Value::Null))
            }
            _ => None,
        }
    }

    /// A failed condition says how the counter stands.
    fn check_precondition(&self, op: &Op, refusal: &Refusal, answer: &Answer) -> Result<(), String> {
        if refusal.0 != 412 {
            return Ok(());
        }
        let counter = &self.counters[op.counter().expect("a condition is on one counter")];
        same("etag", answer.header("etag"), &*counter.tag)?;
        same("meta", &answer.json()["errors"][0]["meta"], &json!({ "value": counter.value }))
    }

    fn judge_success(&mut self, request: &Request, answer: &Answer) -> Result<(), String> {
        same("idempotency-replayed", answer.header("idempotency-replayed"), "")?;
        match &request.op {
            Op::Read { way, name } => {
                let counter = self.counters[name].clone();
                self.check_tag(name, answer, false)?;
                self.check_counter(*way, name, &counter, answer)?;
            }
            Op::List { size } => self.check_list(*size, answer)?,
            Op::Create { name, bounds } => self.created(name, bounds, answer)?,
            Op::Set { way, name, value, .. } => {
                let counter = self.counters.get_mut(name).expect("it is there, or this is refused");
                counter.value = *value;
                let counter = counter.clone();
                self.check_tag(name, answer, true)?;
                self.check_counter(*way, name, &counter, answer)?;
            }
            Op::Increment { way, name, count } => self.incremented(*way, name, *count, answer)?,
            Op::Delete { name, .. } => {
                self.counters.remove(name);
                check_nothing(answer)?;
            }
            Op::ListKeys { size } => self.check_keys(*size, answer)?,
            Op::MakeKey { label, scopes, expires_in } => self.made_key(label, scopes, *expires_in, answer)?,
            Op::Revoke { id } => {
                let key = self.keys.remove(id).expect("it is there, or this is refused");
                self.revoked.push((id.clone(), key.api_key));
                check_nothing(answer)?;
            }
            Op::Tenant => self.check_tenant(answer)?,
        }
        self.remember(request, answer);
        Ok(())
    }

    fn remember(&mut self, request: &Request, answer: &Answer) {
        let Some(once) = &request.once else { return };
        let told = Told {
            request: request.clone(),
            identity: request.op.identity(),
            status: answer.status,
            body: answer.json(),
            tag: answer.header("etag").to_owned(),
            location: answer.header("location").to_owned(),
        };
        self.told.insert(once.clone(), told);
        self.told_keys.push(once.clone());
    }

    /// After a change the tag is one that this name never had; otherwise it is the one that it has.
    fn check_tag(&mut self, name: &str, answer: &Answer, changed: bool) -> Result<(), String> {
        let tag = answer.header("etag").to_owned();
        let strong = tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"');
        if !strong {
            return Err(format!("etag: {tag:?} is no strong tag"));
        }
        let counter = self.counters.get_mut(name).expect("a counter of this tenant");
        if !changed && !counter.tag.is_empty() {
            return same("etag", &*tag, &*counter.tag);
        }
        counter.tag.clone_from(&tag);
        if !self.seen_tags.insert((name.to_owned(), tag.clone())) {
            return Err(format!("etag: {tag} of {name} came back"));
        }
        Ok(())
    }

    fn check_counter(&self, way: Way, name: &str, counter: &Counter, answer: &Answer) -> Result<(), String> {
        same("status", answer.status, 200)?;
        let data = match way {
            Way::Old => {
                json!({ "id": self.id, "type": "user_integer", "attributes": { "value": counter.value } })
            }
            Way::ByName => counter.resource(name),
        };
        same_body(answer, &data)
    }

    fn created(&mut self, name: &str, bounds: &Bounds, answer: &Answer) -> Result<(), String> {
        let shape = bounds.shape();
        let created_at = answer.json()["data"]["attributes"]["created_at"].clone();
        moment(&created_at)?;
        let counter = Counter { shape, value: shape.start, created_at, tag: String::new() };
        same("status", answer.status, 201)?;
        same("location", answer.header("location"), &*format!("{COUNTERS}/{name}"))?;
        same_body(answer, &counter.resource(name))?;
        self.counters.insert(name.to_owned(), counter);
        self.check_tag(name, answer, true)
    }

    fn incremented(&mut self, way: Way, name: &str, count: Option<u64>, answer: &Answer) -> Result<(), String> {
        let counter = self.counters.get_mut(name).expect("it is there, or this is refused");
        let many = count.unwrap_or(1);
        let first = counter.value + counter.shape.step;
        let last = counter.advanced(many).expect("it fits, or this is refused");
        counter.value = last;
        let (id, kind) = if way == Way::Old { (&*self.id, "user_integer") } else { (name, "counter") };
        let attributes = match (way, count) {
            (Way::Old, None) => json!({ "value": last }),
            _ => json!({ "value": last, "first": first, "last": last, "count": many }),
        };
        same("status", answer.status, 200)?;
        same_body(answer, &json!({ "id": id, "type": kind, "attributes": attributes }))?;
        self.check_tag(name, answer, true)
    }

    fn check_list(&self, size: u64, answer: &Answer) -> Result<(), String> {
        let shown = usize::try_from(size).expect("a page is small");
        let data: Vec<Value> = self.counters.iter().take(shown).map(|(name, one)| one.resource(name)).collect();
        let last = self.counters.keys().take(shown).next_back().filter(|_| self.counters.len() > shown);
        check_page(answer, &json!(data), COUNTERS, size, last)
    }

    fn check_keys(&mut self, size: u64, answer: &Answer) -> Result<(), String> {
        let shown = usize::try_from(size).expect("a page is small");
        let document = answer.json();
        let mut data = Vec::new();
        for (number, (id, key)) in self.keys.iter_mut().take(shown).enumerate() {
            let told = &document["data"][number]["attributes"];
            let (created_at, last_used_on) = (&told["created_at"], &told["last_used_on"]);
            moment(created_at)?;
            // The day of the last use is noted beside the requests, so it may not be there yet.
            let is_day = key.used && last_used_on.as_str().is_some_and(|day| day.len() == 10);
            if !last_used_on.is_null() && !is_day {
                return Err(format!("last_used_on: {last_used_on} of {id}, used: {}", key.used));
            }
            let attributes = json!({
                "label": key.label, "scopes": key.scopes, "created_at": key.created_at.get_or_insert_with(|| created_at.clone()),
                "expires_at": key.expires_at, "last_used_on": last_used_on,
            });
            data.push(json!({ "id": id, "type": "key", "attributes": attributes }));
        }
        let last = self.keys.keys().take(shown).next_back().filter(|_| self.keys.len() > shown);
        check_page(answer, &json!(data), KEYS, size, last)
    }

    fn made_key(
        &mut self,
        label: &str,
        scopes: &[&'static str],
        expires_in: Option<u64>,
        answer: &Answer,
    ) -> Result<(), String> {
        let told = answer.json()["data"]["attributes"].clone();
        let api_key = told["api_key"].as_str().unwrap_or_default().to_owned();
        if api_key.len() != 93 || !api_key.starts_with("odo_") {
            return Err(format!("api_key: no key in {}", answer.text()));
        }
        let id = api_key[4..20].to_owned();
        let (created_at, expires_at) = (told["created_at"].clone(), told["expires_at"].clone());
        let lives = expires_in.map(|_| Ok::<_, String>((moment(&expires_at)? - moment(&created_at)?).whole_seconds()));
        same("lifetime", lives.transpose()?, expires_in.and_then(|seconds| i64::try_from(seconds).ok()))?;
        let mut attributes = json!({
            "label": label, "scopes": scopes, "created_at": created_at, "expires_at": null, "last_used_on": null, "api_key": api_key,
        });
        if expires_in.is_some() {
            attributes["expires_at"] = expires_at.clone();
        }
        same("status", answer.status, 201)?;
        same("location", answer.header("location"), &*format!("{KEYS}/{id}"))?;
        same_body(answer, &json!({ "id": id, "type": "key", "attributes": attributes }))?;
        let label = label.to_owned();
        let key =
            Key { api_key, label, scopes: scopes.to_vec(), created_at: Some(created_at), expires_at, used: false };
        let fresh = self.keys.insert(id, key).is_none();
        if fresh { Ok(()) } else { Err("id: of a key that is there".to_owned()) }
    }

    fn check_tenant(&mut self, answer: &Answer) -> Result<(), String> {
        let told = answer.json()["data"]["attributes"]["created_at"].clone();
        moment(&told)?;
        let attributes = json!({
            "username": self.username, "created_at": self.created_at.get_or_insert(told),
            "counters": { "count": self.counters.len() - 1, "limit": COUNTER_LIMIT },
            "keys": { "count": self.keys.len(), "limit": KEY_LIMIT }, "rate_limit": null,
        });
        same("status", answer.status, 200)?;
        same_body(answer, &json!({ "id": self.id, "type": "tenant", "attributes": attributes }))
    }
}

impl Counter {
    /// The value after so many increments, if that many fit.
    fn advanced(&self, count: u64) -> Option<u64> {
        let value = u128::from(self.value) + u128::from(self.shape.step) * u128::from(count);
        u64::try_from(value).ok().filter(|value| *value <= self.shape.max)
    }

    fn resource(&self, name: &str) -> Value {
        let Shape { start, step, min, max, rewindable } = self.shape;
        let attributes = json!({
            "value": self.value, "start": start, "step": step, "min": min, "max": max, "rewindable": rewindable,
            "created_at": self.created_at,
        });
        json!({ "id": name, "type": "counter", "attributes": attributes })
    }
}

/// Status, body and tag of the first answer, and that it is said.
fn check_replay(answer: &Answer, told: &Told) -> Result<(), String> {
    same("idempotency-replayed", answer.header("idempotency-replayed"), "true")?;
    same("status", answer.status, told.status)?;
    same("body", &answer.json(), &told.body)?;
    same("location", answer.header("location"), &*told.location)?;
    same("etag", answer.header("etag"), &*told.tag)
}
