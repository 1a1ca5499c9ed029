//! `Basic` credentials: a name and a password, as RFC 7617 sends them.
//!
//! Job: [`BasicCredentials::parse`] them, [`BasicCredentials::authenticate`] them on the hashing threads. Invariant: a wrong name and a wrong password are told alike and cost
//! the same work. Both are wiped when dropped.
//! Must never: be shown, or be looked at before the throttles let them through.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::password::HashingPool;
use super::{AuthFailure, Principal};
use crate::domain::tenant::TenantName;
use crate::store::Store;

/// A name and a password that somebody sent.
pub struct BasicCredentials {
    name: Zeroizing<Vec<u8>>,
    password: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for BasicCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(..)")
    }
}

impl BasicCredentials {
    /// Reads what follows `Basic `: base64 of name, colon and password. The name can have no colon; the password may.
    ///
    /// # Errors
    /// [`AuthFailure::Malformed`].
    pub fn parse(token: &[u8]) -> Result<Self, AuthFailure> {
        let pair = Zeroizing::new(STANDARD.decode(token).map_err(|_| AuthFailure::Malformed)?);
        let colon = pair.iter().position(|byte| *byte == b':').ok_or(AuthFailure::Malformed)?;
        let (name, password) = (pair[..colon].to_ascii_lowercase(), pair[colon + 1..].to_vec());
        Ok(Self { name: Zeroizing::new(name), password: Zeroizing::new(password) })
    }

    /// The name in lower case, as throttles count it.
    #[must_use]
    pub fn normalized_name(&self) -> &[u8] {
        &self.name
    }

    /// Finds out whether there is such a tenant and this is its password.
    ///
    /// # Errors
    /// [`AuthFailure::BasicCredentials`], or why it was not found out.
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
        let sent = |text: &str| BasicCredentials::parse(STANDARD.encode(text).as_bytes());
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
