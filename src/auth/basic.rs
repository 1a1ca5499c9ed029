//! `Basic` credentials (RFC 7617): a user name and a password.
//!
//! Job: [`BasicCredentials::parse`] reads them, [`BasicCredentials::authenticate`] verifies them on
//! the hashing threads.
//! Invariant: a wrong name and a wrong password fail alike and cost the same work. Both are wiped
//! from memory when dropped.
//! Must never: show them, or verify them before the rate limiters allow it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::password::HashingPool;
use super::{AuthFailure, Principal};
use crate::domain::tenant::TenantName;
use crate::store::Store;

/// A user name and a password that a client sent.
pub struct BasicCredentials {
    name: Zeroizing<Vec<u8>>,
    password: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for BasicCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BasicCredentials(..)")
    }
}

impl BasicCredentials {
    /// Parses what follows `Basic `: base64 of name, colon and password. Only the password may
    /// contain a colon.
    ///
    /// # Errors
    /// [`AuthFailure::Malformed`] if it is not base64 or has no colon.
    pub fn parse(token: &[u8]) -> Result<Self, AuthFailure> {
        let pair = Zeroizing::new(STANDARD.decode(token).map_err(|_| AuthFailure::Malformed)?);
        let colon = pair.iter().position(|byte| *byte == b':').ok_or(AuthFailure::Malformed)?;
        let (name, password) = (pair[..colon].to_ascii_lowercase(), pair[colon + 1..].to_vec());
        Ok(Self { name: Zeroizing::new(name), password: Zeroizing::new(password) })
    }

    /// The name in lower case, as the login throttle counts it.
    pub fn normalized_name(&self) -> &[u8] {
        &self.name
    }

    /// Authenticates the tenant of this name by this password.
    ///
    /// # Errors
    /// [`AuthFailure::Password`] if the name or the password is wrong; [`AuthFailure::Hash`] or
    /// [`AuthFailure::Store`] if that could not be determined.
    pub async fn authenticate(
        &self,
        store: &dyn Store,
        hashing: &HashingPool,
    ) -> Result<Principal, AuthFailure> {
        let name =
            std::str::from_utf8(&self.name).ok().and_then(|name| TenantName::parse(name).ok());
        let tenant = match name {
            Some(name) => store.tenant_by_name(&name).await?,
            None => None,
        };
        let found = match tenant {
            Some(tenant) => store.find_tenant(tenant).await?.map(|record| (tenant, record)),
            None => None,
        };
        let stored = found.as_ref().map(|(_, record)| record.password);
        let is_right = hashing.verify(self.password.clone(), stored).await?;
        match found {
            Some((tenant, record)) if is_right => Ok(Principal::of_password(tenant, record)),
            _ => Err(AuthFailure::Password),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_password_are_split_at_the_first_colon() {
        let sent = |pair: &str| BasicCredentials::parse(STANDARD.encode(pair).as_bytes());
        let read = sent("Alice:a:b é").unwrap();
        assert_eq!(
            (read.normalized_name(), read.password.as_slice()),
            (&b"alice"[..], "a:b é".as_bytes())
        );
        assert_eq!(sent(":").unwrap().normalized_name(), b"");
        assert!(
            sent("no colon").is_err()
                && BasicCredentials::parse(b"not base64!").is_err()
                && BasicCredentials::parse(b"").is_err()
        );
        assert!(!format!("{read:?}").contains("alice"));
    }
}
