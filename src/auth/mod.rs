//! Who is calling, and what they may do: from the text of a credential to a [`Caller`].
//!
//! ```text
//! key.rs  keys     basic.rs  names and passwords     password.rs  hashing     throttle.rs, tries.rs  how often
//! ```
//! Job: prove a credential ([`Credential::from_header`], [`authenticate_key`], [`basic::BasicCredentials::prove`]) and let its owner through ([`Principal::authorize`]). Knows no
//! HTTP and emits no telemetry: it returns what happened.
//! Invariant: a [`Caller`] is made here and nowhere else, only of a proved credential, for what was asked, of a tenant that is not suspended; so a
//! handler that takes a `Caller` can not forget to ask.
//! Must never: say whether it was the id or the secret of a key, the name or the password, that was wrong.

pub mod basic;
pub mod key;
mod login_throttle;
pub mod password;
pub mod rate_limiter;

use std::sync::Arc;

use thiserror::Error;

use self::key::ApiKey;
use self::password::HashError;
use crate::domain::api_key::{KeyId, Scopes};
use crate::domain::tenant::TenantId;
use crate::store::{Store, StoreError, TenantRecord, now_unix_s};

/// What somebody must prove before they are let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthRequirement {
    /// A key with these scopes.
    Key(Scopes),
    /// A key with these scopes, any key if there are none, or the password.
    KeyOrPassword(Option<Scopes>),
    /// The password.
    Password,
}

impl AuthRequirement {
    /// Any credential of any tenant, whatever the key's scopes.
    pub const ANY_CREDENTIAL: Self = Self::KeyOrPassword(None);

    /// Whether a key will do.
    #[must_use]
    pub fn accepts_key(self) -> bool {
        self != Self::Password
    }

    /// Whether a name and a password will do.
    #[must_use]
    pub fn accepts_password(self) -> bool {
        !matches!(self, Self::Key(_))
    }

    /// The scopes that a key must have.
    #[must_use]
    pub fn scopes(self) -> Option<Scopes> {
        match self {
            Self::Key(scopes) => Some(scopes),
            Self::KeyOrPassword(scopes) => scopes,
            Self::Password => None,
        }
    }
}

/// Somebody whose credential was proved; whether they may do what they ask is another question.
#[derive(Clone, Debug)]
pub struct Principal {
    tenant: TenantId,
    record: Arc<TenantRecord>,
    /// What the key may do; a password may do everything.
    scopes: Option<Scopes>,
    /// The key, and the last day on which its use was noted.
    key: Option<(KeyId, Option<u32>)>,
}

impl Principal {
    fn of_password(tenant: TenantId, record: Arc<TenantRecord>) -> Self {
        Self { tenant, record, scopes: None, key: None }
    }

    /// Whose credential it was.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// What is known of the tenant.
    #[must_use]
    pub fn record(&self) -> &TenantRecord {
        &self.record
    }

    /// The key, unless its use on this day, in days since 1970, is noted already.
    #[must_use]
    pub fn key_to_touch(&self, day: u32) -> Option<KeyId> {
        self.key.filter(|(_, noted)| noted.is_none_or(|noted| noted < day)).map(|(key, _)| key)
    }

    /// Lets them through if they may do this.
    ///
    /// # Errors
    /// [`AuthFailure::Suspended`], [`AuthFailure::Scope`].
    pub fn authorize(self, needs: AuthRequirement) -> Result<Caller, AuthFailure> {
        if self.record.suspended {
            return Err(AuthFailure::Suspended);
        }
        match (self.scopes, needs.scopes()) {
            (Some(has), Some(wanted)) if !has.contains(wanted) => Err(AuthFailure::Scope(wanted)),
            _ => Ok(Caller { tenant: self.tenant, record: self.record }),
        }
    }
}

/// Somebody who proved who they are and may do what they asked for.
#[derive(Clone, Debug)]
pub struct Caller {
    tenant: TenantId,
    record: Arc<TenantRecord>,
}

impl Caller {
    /// Who it is.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// What is known of the tenant, as of the moment when they were let through.
    #[must_use]
    pub fn record(&self) -> &TenantRecord {
        &self.record
    }
}

/// Why nobody is known, or why they may not.
#[derive(Clone, Debug, Error)]
pub enum AuthFailure {
    /// No credential came along.
    #[error("no Authorization header came along")]
    Missing,
    /// More than one did.
    #[error("send one Authorization header, not several")]
    Ambiguous,
    /// It is of no form that this route takes, or was mistyped.
    #[error(
        "the Authorization header is not of a form that this route takes, or the key was mistyped"
    )]
    Malformed,
    /// There is no such key, or its secret is another.
    #[error("the API key is not valid")]
    Unknown,
    /// The key was good once. Told as an unknown one.
    #[error("the API key is not valid")]
    Expired,
    /// There is no such name, or its password is another.
    #[error("the username or the password is wrong")]
    Password,
    /// The key is good, and may not do this: these scopes are needed.
    #[error("the API key does not have the scope {0}")]
    Scope(Scopes),
    /// An operator suspended the tenant.
    #[error("the tenant is suspended")]
    Suspended,
    /// The password could not be hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The store could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AuthFailure {
    /// The failure as one word, for counting; `None` if it is not the caller's.
    #[must_use]
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Missing => Some("missing"),
            Self::Ambiguous => Some("ambiguous"),
            Self::Malformed => Some("malformed"),
            Self::Unknown => Some("unknown"),
            Self::Expired => Some("expired"),
            Self::Password => Some("password"),
            Self::Scope(_) => Some("scope"),
            Self::Suspended => Some("suspended"),
            Self::Hash(_) | Self::Store(_) => None,
        }
    }
}

/// A credential of a form that a route takes.
#[derive(Debug)]
pub enum Credential {
    /// A key.
    Key(ApiKey),
    /// A name and a password.
    Password(basic::BasicCredentials),
}

impl Credential {
    /// Reads the value of an `Authorization` header.
    ///
    /// # Errors
    /// [`AuthFailure::Malformed`].
    pub fn from_header(text: &[u8], needs: AuthRequirement) -> Result<Self, AuthFailure> {
        if let Some(token) = token(text, b"Bearer").filter(|_| needs.accepts_key()) {
            return ApiKey::parse(token).map(Self::Key).map_err(|_| AuthFailure::Malformed);
        }
        let token = token(text, b"Basic")
            .filter(|_| needs.accepts_password())
            .ok_or(AuthFailure::Malformed)?;
        basic::BasicCredentials::parse(token).map(Self::Password)
    }
}

/// Finds out whether there is such a key, and whose it is.
///
/// # Errors
/// [`AuthFailure::Unknown`], [`AuthFailure::Expired`], [`AuthFailure::Store`].
pub async fn authenticate_key(store: &dyn Store, key: &ApiKey) -> Result<Principal, AuthFailure> {
    let found = store.api_key(key.id()).await?.ok_or(AuthFailure::Unknown)?;
    if !key.matches(&found.secret) {
        return Err(AuthFailure::Unknown);
    }
    if found.expires_unix_s.is_some_and(|expires| expires <= now_unix_s()) {
        return Err(AuthFailure::Expired);
    }
    // A tenant that is being deleted has keys for a while yet, and is not found any more.
    let record = store.find_tenant(found.tenant).await?.ok_or(AuthFailure::Unknown)?;
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
        for (needs, key, password) in [
            (AuthRequirement::Key(Scopes::READ), true, false),
            (AuthRequirement::KeyOrPassword(None), true, true),
            (AuthRequirement::Password, false, true),
        ] {
            assert_eq!(Credential::from_header(bearer.as_bytes(), needs).is_ok(), key, "{needs:?}");
            assert_eq!(
                Credential::from_header(basic.as_bytes(), needs).is_ok(),
                password,
                "{needs:?}"
            );
        }
    }

    #[test]
    fn nobody_passes_without_the_scope_or_while_suspended() {
        let hash =
            PasswordHash { memory_kib: 8, passes: 1, lanes: 1, salt: [0; 16], hash: [0; 32] };
        let identity = |scopes: Option<Scopes>, suspended| {
            let name = TenantName::parse("a").unwrap();
            let limit = TenantLimit::Default;
            let record = TenantRecord {
                name,
                password: hash,
                created_unix_s: 0,
                suspended,
                limit,
                deleting: false,
            };
            Principal { tenant: TenantId(1), record: Arc::new(record), scopes, key: None }
        };
        let all = [Scopes::READ, Scopes::INCREMENT, Scopes::MANAGE];
        for has in all {
            for wanted in all {
                for needs in
                    [AuthRequirement::Key(wanted), AuthRequirement::KeyOrPassword(Some(wanted))]
                {
                    assert_eq!(
                        identity(Some(has), false).authorize(needs).is_ok(),
                        has == wanted,
                        "{has} {wanted}"
                    );
                    assert!(identity(Some(Scopes::ALL), false).authorize(needs).is_ok());
                }
            }
            assert!(
                identity(Some(has), false).authorize(AuthRequirement::KeyOrPassword(None)).is_ok()
            );
        }
        assert!(
            identity(None, false)
                .authorize(AuthRequirement::KeyOrPassword(Some(Scopes::MANAGE)))
                .is_ok()
        );
        for scopes in [None, Some(Scopes::ALL)] {
            for needs in [
                AuthRequirement::KeyOrPassword(None),
                AuthRequirement::Key(Scopes::READ),
                AuthRequirement::Password,
            ] {
                assert!(matches!(
                    identity(scopes, true).authorize(needs),
                    Err(AuthFailure::Suspended)
                ));
            }
        }
    }
}
