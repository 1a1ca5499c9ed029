//! Who is calling: from the text of a credential to a [`Caller`].
//!
//! Job: check keys ([`authenticate`]), make keys, hash passwords, throttle. Knows no HTTP and emits no telemetry: it returns what happened.
//! Invariant: a [`Caller`] is made here and nowhere else, and only for a key whose secret was proved; so a handler that takes a `Caller` can not
//! forget to ask.
//! Must never: say whether it was the id or the secret of a key that was wrong.

pub mod key;
pub mod password;
pub mod throttle;

use thiserror::Error;

use self::key::ApiKey;
use crate::store::{Store, StoreError};
use crate::tenant::{KeyId, TenantId};

/// Somebody whose key was proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    tenant: TenantId,
    key: KeyId,
}

impl Caller {
    /// Whose key it was.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Which key.
    #[must_use]
    pub fn key(&self) -> KeyId {
        self.key
    }
}

/// Why nobody is known.
#[derive(Clone, Debug, Error)]
pub enum AuthFailure {
    /// No credential came along.
    #[error("send your API key as: Authorization: Bearer <key>")]
    Missing,
    /// More than one did.
    #[error("send one Authorization header, not several")]
    Ambiguous,
    /// It is not of the form `Bearer odo_…`, or was mistyped.
    #[error("the Authorization header is not: Bearer <key>, or the key was mistyped")]
    Malformed,
    /// There is no such key, or its secret is another.
    #[error("the API key is not valid")]
    Unknown,
    /// The store could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AuthFailure {
    /// The failure as one word, for counting.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Ambiguous => "ambiguous",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Store(_) => "store",
        }
    }
}

/// Finds out who sends `credential`, the value of an `Authorization` header.
///
/// # Errors
/// [`AuthFailure`].
pub async fn authenticate(store: &dyn Store, credential: &[u8]) -> Result<Caller, AuthFailure> {
    let token = bearer_token(credential).ok_or(AuthFailure::Malformed)?;
    let key = ApiKey::parse(token).map_err(|_| AuthFailure::Malformed)?;
    let record = store.find_key(key.id()).await?.ok_or(AuthFailure::Unknown)?;
    if !key.proves(&record.secret) {
        return Err(AuthFailure::Unknown);
    }
    Ok(Caller { tenant: record.tenant, key: key.id() })
}

fn bearer_token(credential: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = credential.split_at_checked("Bearer".len())?;
    (scheme.eq_ignore_ascii_case(b"Bearer") && rest.first() == Some(&b' ')).then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_case_insensitive_and_needs_a_space() {
        assert_eq!(bearer_token(b"bEaReR  x "), Some(&b"x"[..]));
        for bad in [&b"Bearer"[..], b"Bearerx", b"Basic x", b"", b"Bear"] {
            assert_eq!(bearer_token(bad), None);
        }
    }
}
