//! Authentication and authorization: from the `Authorization` header to a [`Caller`].
//!
//! ```text
//! credentials ── authenticate ──► Principal ── authorize ──► Caller
//! key.rs       API keys                     basic.rs           user names and passwords
//! password.rs  policy, hashing threads      rate_limiter.rs    token buckets
//! rate_limit.rs  a check's result           login_throttle.rs  password attempts per name
//! ```
//! Job: authenticate ([`Credential::from_header`], [`authenticate_key`],
//! [`basic::BasicCredentials::authenticate`]) and authorize ([`Principal::authorize`]). The module
//! knows no HTTP and emits no telemetry: it returns what happened.
//! Invariant: a [`Caller`] is made here and nowhere else, for a tenant that is authenticated, not
//! suspended and authorized for the request; so a handler that takes a `Caller` cannot forget to
//! check.
//! Must never: reveal whether the id or the secret of a key, the name or the password was wrong.

pub mod basic;
pub mod key;
mod login_throttle;
pub mod password;
pub mod rate_limit;
pub mod rate_limiter;

use std::sync::Arc;

use thiserror::Error;

use self::key::ApiKey;
use self::password::HashError;
use crate::domain::api_key::{KeyId, Scopes};
use crate::domain::tenant::TenantId;
use crate::failpoint::failpoint;
use crate::store::{Proof, Store, StoreError, TenantRecord, now_unix_s};

/// The authentication requirement of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthRequirement {
    /// An API key with these scopes.
    Key(Scopes),
    /// An API key with these scopes (any key if `None`), or user name and password.
    KeyOrPassword(Option<Scopes>),
    /// User name and password.
    Password,
}

impl AuthRequirement {
    /// Any valid credential, whatever a key's scopes.
    pub const ANY_CREDENTIAL: Self = Self::KeyOrPassword(None);

    /// Whether an API key is accepted.
    pub fn accepts_key(self) -> bool {
        self != Self::Password
    }

    /// Whether user name and password are accepted.
    pub fn accepts_password(self) -> bool {
        !matches!(self, Self::Key(_))
    }

    /// The scopes that an API key must have.
    pub fn scopes(self) -> Option<Scopes> {
        match self {
            Self::Key(scopes) => Some(scopes),
            Self::KeyOrPassword(scopes) => scopes,
            Self::Password => None,
        }
    }
}

/// An authenticated tenant, not yet authorized for a request.
#[derive(Clone, Debug)]
pub struct Principal {
    tenant: TenantId,
    record: Arc<TenantRecord>,
    /// The key's scopes; `None` for a password, which may do everything.
    scopes: Option<Scopes>,
    /// The key and its last-used day on record, in days since 1970.
    key: Option<(KeyId, Option<u32>)>,
}

impl Principal {
    fn of_password(tenant: TenantId, record: Arc<TenantRecord>) -> Self {
        Self { tenant, record, scopes: None, key: None }
    }

    /// The tenant's id.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The tenant's record.
    pub fn record(&self) -> &TenantRecord {
        &self.record
    }

    /// The key, unless its use on `day` (days since 1970) is recorded already.
    pub fn key_to_touch(&self, day: u32) -> Option<KeyId> {
        // A key that was never used is due on any day: `None` is less than `Some`.
        self.key.filter(|(_, last_used)| *last_used < Some(day)).map(|(key, _)| key)
    }

    /// Authorizes the principal for a route with this requirement.
    ///
    /// # Errors
    /// [`AuthFailure::Suspended`] if the tenant is suspended, [`AuthFailure::Scope`] if the key
    /// lacks a scope.
    pub fn authorize(self, requirement: AuthRequirement) -> Result<Caller, AuthFailure> {
        if self.record.suspended && !failpoint!("suspended-tenant-allowed") {
            return Err(AuthFailure::Suspended);
        }
        match (self.scopes, requirement.scopes()) {
            (Some(has), Some(wanted))
                if !has.contains(wanted) && !failpoint!("scope-not-checked") =>
            {
                Err(AuthFailure::Scope(wanted))
            }
            _ => {
                let proof = match self.key {
                    Some((key, _)) => Proof::Key(key),
                    None => Proof::Password(self.record.password),
                };
                Ok(Caller { tenant: self.tenant, record: self.record, proof })
            }
        }
    }
}

/// An authenticated tenant that is authorized for the request.
#[derive(Clone, Debug)]
pub struct Caller {
    tenant: TenantId,
    record: Arc<TenantRecord>,
    proof: Proof,
}

impl Caller {
    /// The tenant's id.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The tenant's record, as of the authentication.
    pub fn record(&self) -> &TenantRecord {
        &self.record
    }

    /// The credential, for the store to prove again when it decides a change of credentials.
    pub fn proof(&self) -> Proof {
        self.proof
    }
}

/// Why authentication or authorization failed.
#[derive(Clone, Debug, Error)]
pub enum AuthFailure {
    /// The request has no `Authorization` header.
    #[error("the request has no Authorization header")]
    Missing,
    /// The request has several `Authorization` headers.
    #[error("the request has several Authorization headers; send one")]
    Ambiguous,
    /// The route does not accept the header's scheme, or its value cannot be parsed.
    #[error(
        "the Authorization header has a scheme that this route does not accept, \
         or its value is mistyped"
    )]
    Malformed,
    /// The key does not exist, or its secret is wrong.
    #[error("the API key is not valid")]
    Unknown,
    /// The key has expired. The client sees the message of an unknown key.
    #[error("the API key is not valid")]
    Expired,
    /// The credential was valid when the request came, and was replaced, revoked or suspended before
    /// its change was made.
    #[error("the credential was replaced or revoked while the request was on its way")]
    Replaced,
    /// The user does not exist, or the password is wrong.
    #[error("the username or the password is wrong")]
    Password,
    /// The key is valid and lacks these scopes.
    #[error("the API key does not have the scope {0}")]
    Scope(Scopes),
    /// An operator suspended the tenant.
    #[error("the tenant is suspended")]
    Suspended,
    /// The password could not be hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AuthFailure {
    /// The reason as a metric label; `None` if the server failed, not the client.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Missing => Some("missing"),
            Self::Ambiguous => Some("ambiguous"),
            Self::Malformed => Some("malformed"),
            Self::Unknown => Some("unknown"),
            Self::Expired => Some("expired"),
            Self::Replaced => Some("replaced"),
            Self::Password => Some("password"),
            Self::Scope(_) => Some("scope"),
            Self::Suspended => Some("suspended"),
            Self::Hash(_) | Self::Store(_) => None,
        }
    }
}

/// A credential whose scheme the route accepts, not yet verified.
#[derive(Debug)]
pub enum Credential {
    /// An API key.
    Key(ApiKey),
    /// User name and password.
    Password(basic::BasicCredentials),
}

impl Credential {
    /// Parses the value of an `Authorization` header.
    ///
    /// # Errors
    /// [`AuthFailure::Malformed`] if the route does not accept its scheme, or it cannot be parsed.
    pub fn from_header(string: &[u8], requirement: AuthRequirement) -> Result<Self, AuthFailure> {
        if let Some(token) = token(string, b"Bearer").filter(|_| requirement.accepts_key()) {
            return ApiKey::parse(token).map(Self::Key).map_err(|_| AuthFailure::Malformed);
        }
        let token = token(string, b"Basic")
            .filter(|_| requirement.accepts_password())
            .ok_or(AuthFailure::Malformed)?;
        basic::BasicCredentials::parse(token).map(Self::Password)
    }
}

/// Authenticates a tenant by an API key.
///
/// # Errors
/// [`AuthFailure::Unknown`] or [`AuthFailure::Expired`] if the key is not valid;
/// [`AuthFailure::Store`] if that could not be determined.
pub async fn authenticate_key(store: &dyn Store, key: &ApiKey) -> Result<Principal, AuthFailure> {
    // The keys of a deleted tenant exist until the purge reaches them; they are not found.
    let (found, record) = store.api_key(key.id()).await?.ok_or(AuthFailure::Unknown)?;
    if !key.matches(&found.secret) {
        return Err(AuthFailure::Unknown);
    }
    if found.is_expired(now_unix_s()) {
        return Err(AuthFailure::Expired);
    }
    let key = Some((key.id(), found.last_used_day));
    Ok(Principal { tenant: found.tenant, record, scopes: Some(found.scopes), key })
}

fn token<'a>(credential: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (sent, rest) = credential.split_at_checked(scheme.len())?;
    (sent.eq_ignore_ascii_case(scheme) && rest.first() == Some(&b' ')).then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tenant::{PasswordHash, TenantLimit, TenantName};

    #[test]
    fn the_scheme_is_case_insensitive_and_needs_a_space() {
        assert_eq!(token(b"bEaReR  x ", b"Bearer"), Some(&b"x"[..]));
        for bad in [&b"Bearer"[..], b"Bearerx", b"Basic x", b"", b"Bear"] {
            assert_eq!(token(bad, b"Bearer"), None);
        }
    }

    #[test]
    fn each_route_takes_its_own_schemes() {
        let key = ApiKey::generate().unwrap();
        let (bearer, basic) = (format!("Bearer {}", *key.expose()), "Basic YTpi");
        for (requirement, key, password) in [
            (AuthRequirement::Key(Scopes::READ), true, false),
            (AuthRequirement::KeyOrPassword(None), true, true),
            (AuthRequirement::Password, false, true),
        ] {
            assert_eq!(
                Credential::from_header(bearer.as_bytes(), requirement).is_ok(),
                key,
                "{requirement:?}"
            );
            assert_eq!(
                Credential::from_header(basic.as_bytes(), requirement).is_ok(),
                password,
                "{requirement:?}"
            );
        }
    }

    #[test]
    fn a_principal_without_the_scope_or_suspended_is_not_authorized() {
        let hash =
            PasswordHash { memory_kib: 8, passes: 1, lanes: 1, salt: [0; 16], hash: [0; 32] };
        let principal = |scopes: Option<Scopes>, suspended| {
            let name = TenantName::parse("a").unwrap();
            let limit = TenantLimit::Default;
            let record = TenantRecord {
                name,
                password: hash,
                created_unix_s: 0,
                suspended,
                limit,
                deleting: false,
                key_epoch: 0,
            };
            Principal { tenant: TenantId(1), record: Arc::new(record), scopes, key: None }
        };
        let all = [Scopes::READ, Scopes::INCREMENT, Scopes::MANAGE];
        for has in all {
            for wanted in all {
                for requirement in
                    [AuthRequirement::Key(wanted), AuthRequirement::KeyOrPassword(Some(wanted))]
                {
                    assert_eq!(
                        principal(Some(has), false).authorize(requirement).is_ok(),
                        has == wanted,
                        "{has} {wanted}"
                    );
                    assert!(principal(Some(Scopes::ALL), false).authorize(requirement).is_ok());
                }
            }
            assert!(
                principal(Some(has), false).authorize(AuthRequirement::KeyOrPassword(None)).is_ok()
            );
        }
        assert!(
            principal(None, false)
                .authorize(AuthRequirement::KeyOrPassword(Some(Scopes::MANAGE)))
                .is_ok()
        );
        for scopes in [None, Some(Scopes::ALL)] {
            for requirement in [
                AuthRequirement::KeyOrPassword(None),
                AuthRequirement::Key(Scopes::READ),
                AuthRequirement::Password,
            ] {
                assert!(matches!(
                    principal(scopes, true).authorize(requirement),
                    Err(AuthFailure::Suspended)
                ));
            }
        }
    }
}
