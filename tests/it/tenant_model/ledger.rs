//! The ledger: what one tenant has, and the judgement of every answer against it.
//!
//! Job: let the model of `tests/model` do what was asked for, word its outcome as the contract says
//! HTTP does, and compare. Keys, pages and documents are its own.
//! Invariant: it takes from an answer only what nobody else can know: tags, times, ids and secrets.
//! Those have to be new where the contract says so, and stay what they were.
//! Must never: be mended by an answer that it did not expect.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::expect::{
    Refusal, check_common, check_nothing, check_page, check_refusal, moment, same, same_body,
};
use super::request::{COUNTERS, KEYS, Op, Request, Way};
use crate::support::client::Answer;
use crate::support::model::{
    self, Condition, Counters, Entry, IdempotencyTable, Lookup, Range, RuleRefusal, Shape, Version,
};

pub(crate) const COUNTER_LIMIT: u32 = 1000;
const KEY_LIMIT: u64 = 100;
const MAX_COUNT: u64 = 1_000_000;
pub(crate) const ALL_SCOPES: [&str; 3] = ["read", "increment", "manage"];

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
    status: u16,
    body: Value,
    tag: String,
    location: String,
}

/// A refusal and, after a failed condition, how the counter stands.
type Refused = (Refusal, Option<Box<Entry<Value>>>);

/// One tenant.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) number: usize,
    pub(crate) id: String,
    pub(crate) username: String,
    created_at: Option<Value>,
    pub(crate) first_key: String,
    /// With the time of each one's creation, as it was told.
    pub(crate) counters: Counters<Value>,
    pub(crate) keys: BTreeMap<String, Key>,
    pub(crate) revoked: Vec<(String, String)>,
    told: IdempotencyTable<String, String, Told>,
    /// The keys of `told`, to draw from.
    pub(crate) told_keys: Vec<String>,
    /// By counter and state its tag, and by counter and tag the state: no two states have one tag,
    /// and none has two.
    tags: HashMap<(String, Version), String>,
    states: HashMap<(String, String), Version>,
    /// How often each status and code was answered, replays apart.
    pub(crate) tally: BTreeMap<String, u64>,
}

impl Ledger {
    /// A tenant that has just registered; `created_at` is known only by the new route. The tag of
    /// `default` is not known until it is read.
    pub(crate) fn new(
        number: usize,
        id: String,
        username: String,
        created_at: Option<Value>,
        api_key: &str,
    ) -> Self {
        let first_key = api_key[4..20].to_owned();
        let key = Key {
            api_key: api_key.to_owned(),
            label: String::new(),
            scopes: ALL_SCOPES.to_vec(),
            created_at: None,
            expires_at: Value::Null,
            used: false,
        };
        Self {
            number,
            id,
            username,
            created_at,
            counters: Counters::default(),
            keys: BTreeMap::from([(first_key.clone(), key)]),
            first_key,
            revoked: Vec::new(),
            told: IdempotencyTable::default(),
            told_keys: Vec::new(),
            tags: HashMap::new(),
            states: HashMap::new(),
            tally: BTreeMap::new(),
        }
    }

    /// The key that a request is sent with, also one that was revoked.
    pub(crate) fn api_key(&self, id: &str) -> &str {
        let revoked = || {
            self.revoked.iter().find(|(other, _)| other == id).map(|(_, api_key)| api_key.as_str())
        };
        self.keys
            .get(id)
            .map(|key| key.api_key.as_str())
            .or_else(revoked)
            .expect("a key of this tenant")
    }

    /// The request that was answered under this idempotency key.
    pub(crate) fn request_of(&self, once: &str) -> &Request {
        &self.told.get(&once.to_owned()).expect("a key that was drawn from those told").1.request
    }

    pub(crate) fn identity_of(&self, once: &str) -> &str {
        &self.told.get(&once.to_owned()).expect("a key that was drawn from those told").0
    }

    /// The entity tag of a counter as it is now.
    pub(crate) fn tag(&self, name: &str) -> Option<&str> {
        self.tag_of(name, self.counters.get(name)?.version)
    }

    fn tag_of(&self, name: &str, version: Version) -> Option<&str> {
        self.tags.get(&(name.to_owned(), version)).map(String::as_str)
    }

    /// Judges one answer and changes as the request has to.
    pub(crate) fn judge(&mut self, request: &Request, answer: &Answer) -> Result<(), String> {
        check_common(answer)?;
        let (kind, verdict) = self.judge_kind(request, answer);
        *self.tally.entry(kind).or_default() += 1;
        verdict
    }

    fn judge_kind(&mut self, request: &Request, answer: &Answer) -> (String, Result<(), String>) {
        let refused = |refusal: &Refusal| {
            (format!("{} {}", refusal.0, refusal.1), check_refusal(answer, refusal))
        };
        let authorization = json!({ "header": "Authorization" });
        let Some(key) = self.keys.get_mut(&request.by) else {
            return refused(&(401, "unauthorized", authorization));
        };
        key.used = true;
        if let Some(scope) = request.op.scope().filter(|scope| !key.scopes.contains(scope)) {
            let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
            let (kind, verdict) = refused(&(403, "insufficient_scope", authorization));
            return (
                kind,
                verdict.and(same(
                    "www-authenticate",
                    answer.header("www-authenticate"),
                    &*challenge,
                )),
            );
        }
        if let Some(once) = &request.once {
            match self.told.lookup(once, &request.op.identity()) {
                Lookup::New => {}
                Lookup::Replay(told) => return ("replayed".to_owned(), check_replay(answer, told)),
                Lookup::Reused => {
                    return refused(&(
                        422,
                        "idempotency_key_reused",
                        json!({ "header": "Idempotency-Key" }),
                    ));
                }
            }
        }
        match self.apply(&request.op, answer) {
            Ok(issued) => (answer.status.to_string(), self.judge_success(request, issued, answer)),
            Err((refusal, entry)) => {
                let (kind, verdict) = refused(&refusal);
                let stands = entry
                    .map_or(Ok(()), |entry| self.check_precondition(&request.op, &entry, answer));
                (kind, verdict.and(stands))
            }
        }
    }

    /// Lets the model do it. Returns the integers that it issues, or the refusal as it has to be
    /// worded and, after a failed condition, how the counter stands.
    fn apply(&mut self, op: &Op, answer: &Answer) -> Result<Option<Range>, Refused> {
        let parameter = |name: &str| json!({ "parameter": name });
        let condition = self.condition(op);
        let counters = &mut self.counters;
        let done = match op {
            Op::Create { bounds, .. } if !bounds.shape().is_sound() => {
                return Err(((422, "value_out_of_range", parameter("start")), None));
            }
            Op::Increment { count: Some(count), .. } if *count == 0 || *count > MAX_COUNT => {
                return Err(((422, "invalid_value", parameter("count")), None));
            }
            Op::Revoke { id } if !self.keys.contains_key(id) => {
                return Err(((404, "key_not_found", Value::Null), None));
            }
            Op::Create { name, bounds } => {
                let created_at = answer.json()["data"]["attributes"]["created_at"].clone();
                counters.create(name, bounds.shape(), COUNTER_LIMIT, created_at).map(|_| None)
            }
            Op::Increment { name, count, .. } => {
                counters.increment(name, count.unwrap_or(1)).map(|(range, _)| Some(range))
            }
            Op::Set { name, value, rewind, .. } => {
                counters.set(name, *value, *rewind, &condition).map(|_| None)
            }
            Op::Delete { name, .. } => counters.delete(name, &condition).map(|()| None),
            Op::Read { name, .. } => {
                counters.get(name).map(|_| None).ok_or(model::Refusal::NotFound)
            }
            Op::List { .. }
            | Op::ListKeys { .. }
            | Op::MakeKey { .. }
            | Op::Revoke { .. }
            | Op::Tenant => Ok(None),
        };
        done.map_err(|refusal| match refusal {
            model::Refusal::NotFound => ((404, "counter_not_found", Value::Null), None),
            model::Refusal::AlreadyExists => ((409, "counter_exists", parameter("name")), None),
            model::Refusal::DefaultCounter => ((409, "default_counter", Value::Null), None),
            model::Refusal::Quota(_) => ((409, "quota_exceeded", Value::Null), None),
            model::Refusal::ConditionFailed(entry) => (
                (412, "precondition_failed", json!({ "header": "If-Match" })),
                Some(Box::new(entry)),
            ),
            model::Refusal::Rule(RuleRefusal::Exhausted { .. }) => {
                ((409, "counter_exhausted", Value::Null), None)
            }
            model::Refusal::Rule(RuleRefusal::OutOfRange { .. }) => {
                ((422, "value_out_of_range", parameter("value")), None)
            }
            model::Refusal::Rule(RuleRefusal::RewindRequired { .. }) => {
                ((409, "rewind_required", parameter("value")), None)
            }
        })
    }

    /// What `If-Match` makes a condition of: a tag that was never told is that of no state.
    fn condition(&self, op: &Op) -> Condition {
        match (op.if_match(), op.counter()) {
            (Some(tag), Some(name)) if tag != "*" => {
                let state = self.states.get(&(name.to_owned(), tag.to_owned()));
                Condition::OneOf(state.copied().into_iter().collect())
            }
            _ => Condition::Exists,
        }
    }

    /// A failed condition says how the counter stands.
    fn check_precondition(
        &self,
        op: &Op,
        entry: &Entry<Value>,
        answer: &Answer,
    ) -> Result<(), String> {
        let name = op.counter().expect("a condition is on one counter");
        same("etag", Some(answer.header("etag")), self.tag_of(name, entry.version))?;
        same("meta", &answer.json()["errors"][0]["meta"], &json!({ "value": entry.counter.value }))
    }

    fn judge_success(
        &mut self,
        request: &Request,
        issued: Option<Range>,
        answer: &Answer,
    ) -> Result<(), String> {
        same("idempotency-replayed", answer.header("idempotency-replayed"), "")?;
        match &request.op {
            Op::Read { way, name } | Op::Set { way, name, .. } => {
                self.check_tag(name, answer)?;
                self.check_counter(*way, name, answer)?;
            }
            Op::List { size } => self.check_list(*size, answer)?,
            Op::Create { name, .. } => self.created(name, answer)?,
            Op::Increment { way, name, count } => {
                let range = issued.expect("the model issued them");
                self.incremented(*way, name, *count, range, answer)?;
            }
            Op::Delete { .. } => check_nothing(answer)?,
            Op::ListKeys { size } => self.check_keys(*size, answer)?,
            Op::MakeKey { label, scopes, expires_in } => {
                self.made_key(label, scopes, *expires_in, answer)?
            }
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
            status: answer.status,
            body: answer.json(),
            tag: answer.header("etag").to_owned(),
            location: answer.header("location").to_owned(),
        };
        self.told.record(once.clone(), request.op.identity(), told);
        self.told_keys.push(once.clone());
    }

    /// A state has the tag that it had, and a new one a tag that this name never had.
    fn check_tag(&mut self, name: &str, answer: &Answer) -> Result<(), String> {
        let tag = answer.header("etag").to_owned();
        let strong = tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"');
        if !strong {
            return Err(format!("etag: {tag:?} is no strong tag"));
        }
        let version = self.counters.get(name).expect("a counter of this tenant").version;
        if let Some(known) = self.tag_of(name, version) {
            return same("etag", &*tag, known);
        }
        if self.states.insert((name.to_owned(), tag.clone()), version).is_some() {
            return Err(format!("etag: {tag} of {name} came back"));
        }
        self.tags.insert((name.to_owned(), version), tag);
        Ok(())
    }

    fn check_counter(&self, way: Way, name: &str, answer: &Answer) -> Result<(), String> {
        let entry = self.counters.get(name).expect("it is there, or this is refused");
        same("status", answer.status, 200)?;
        let data = match way {
            Way::Old => {
                json!({ "id": self.id, "type": "user_integer", "attributes": { "value": entry.counter.value } })
            }
            Way::ByName => resource(name, entry),
        };
        same_body(answer, &data)
    }

    fn created(&mut self, name: &str, answer: &Answer) -> Result<(), String> {
        let entry = self.counters.get(name).expect("the model created it");
        moment(&entry.data)?;
        same("status", answer.status, 201)?;
        same("location", answer.header("location"), &*format!("{COUNTERS}/{name}"))?;
        same_body(answer, &resource(name, entry))?;
        self.check_tag(name, answer)
    }

    fn incremented(
        &mut self,
        way: Way,
        name: &str,
        count: Option<u64>,
        range: Range,
        answer: &Answer,
    ) -> Result<(), String> {
        let (id, kind) =
            if way == Way::Old { (&*self.id, "user_integer") } else { (name, "counter") };
        let attributes = match (way, count) {
            (Way::Old, None) => json!({ "value": range.last }),
            _ => {
                json!({ "value": range.last, "first": range.first, "last": range.last, "count": range.count })
            }
        };
        same("status", answer.status, 200)?;
        same_body(answer, &json!({ "id": id, "type": kind, "attributes": attributes }))?;
        self.check_tag(name, answer)
    }

    fn check_list(&self, size: u64, answer: &Answer) -> Result<(), String> {
        let shown = usize::try_from(size).expect("a page is small");
        let data: Vec<Value> =
            self.counters.iter().take(shown).map(|(name, entry)| resource(name, entry)).collect();
        let is_more = self.counters.named() + 1 > shown;
        let last =
            self.counters.iter().take(shown).last().map(|(name, _)| name).filter(|_| is_more);
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
        let lives = expires_in.map(|_| {
            Ok::<_, String>((moment(&expires_at)? - moment(&created_at)?).whole_seconds())
        });
        same(
            "lifetime",
            lives.transpose()?,
            expires_in.and_then(|seconds| i64::try_from(seconds).ok()),
        )?;
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
        let key = Key {
            api_key,
            label,
            scopes: scopes.to_vec(),
            created_at: Some(created_at),
            expires_at,
            used: false,
        };
        let fresh = self.keys.insert(id, key).is_none();
        if fresh { Ok(()) } else { Err("id: of a key that is there".to_owned()) }
    }

    fn check_tenant(&mut self, answer: &Answer) -> Result<(), String> {
        let told = answer.json()["data"]["attributes"]["created_at"].clone();
        moment(&told)?;
        let attributes = json!({
            "username": self.username, "created_at": self.created_at.get_or_insert(told),
            "counters": { "count": self.counters.named(), "limit": COUNTER_LIMIT },
            "keys": { "count": self.keys.len(), "limit": KEY_LIMIT }, "rate_limit": null,
        });
        same("status", answer.status, 200)?;
        same_body(answer, &json!({ "id": self.id, "type": "tenant", "attributes": attributes }))
    }
}

fn resource(name: &str, entry: &Entry<Value>) -> Value {
    let Shape { start, step, min, max, rewindable } = entry.counter.shape;
    let attributes = json!({
        "value": entry.counter.value, "start": start, "step": step, "min": min, "max": max, "rewindable": rewindable,
        "created_at": entry.data,
    });
    json!({ "id": name, "type": "counter", "attributes": attributes })
}

/// Status, body and tag of the first answer, and that it is said.
fn check_replay(answer: &Answer, told: &Told) -> Result<(), String> {
    same("idempotency-replayed", answer.header("idempotency-replayed"), "true")?;
    same("status", answer.status, told.status)?;
    same("body", &answer.json(), &told.body)?;
    same("location", answer.header("location"), &*told.location)?;
    same("etag", answer.header("etag"), &*told.tag)
}
