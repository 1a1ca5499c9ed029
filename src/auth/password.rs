//! Passwords: the policy, and a pool of threads that hashes them.
//!
//! Job: [`PasswordPolicy::check`] checks a new password; [`HashingPool::hash`] makes its argon2id
//! hash (m = 19 MiB, t = 2, p = 1: the OWASP minimum) on threads of the pool, so that increments
//! are not delayed; [`HashingPool::verify`] compares a password with a stored hash, with the
//! parameters of that hash.
//! Invariant: at most [`MAX_QUEUED`] passwords wait; more are refused at once. A password is wiped
//! from memory once it is hashed. Verifying takes as long for an unknown user as for a known one.
//! Must never: hash on a request worker, keep a password, or log one.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::constant_time;
use thiserror::Error;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::domain::tenant::PasswordHash;
use crate::failpoint::failpoint;

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Verified for unknown users, so that timing does not reveal whether a user exists. It has the
/// parameters of a new hash and is not the hash of any password.
const DUMMY_HASH: PasswordHash = PasswordHash {
    memory_kib: MEMORY_KIB,
    passes: PASSES,
    lanes: LANES,
    salt: [0; 16],
    hash: [0; 32],
};
/// Each thread keeps its 19 MiB of working memory for as long as it lives.
const THREADS: usize = 2;
/// The number of passwords that may wait for a thread.
pub const MAX_QUEUED: usize = 32;
/// The longest password, in bytes.
pub const MAX_BYTES: usize = 256;

/// Which passwords are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordPolicy {
    /// The minimum length in bytes.
    pub min_bytes: usize,
    /// Whether the most common passwords are accepted.
    pub allow_common: bool,
}

/// Why the policy rejects a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PasswordPolicyError {
    /// The password is empty.
    #[error("can't be blank")]
    Empty,
    /// Shorter than the policy's minimum, in bytes.
    #[error("is too short ({0} bytes at least)")]
    TooShort(usize),
    /// Longer than [`MAX_BYTES`].
    #[error("is too long ({MAX_BYTES} bytes at most)")]
    TooLong,
    /// Among the most common passwords.
    #[error("is one of the most common passwords; choose another")]
    Common,
}

impl PasswordPolicy {
    /// Checks a password.
    ///
    /// # Errors
    /// [`PasswordPolicyError`] names the rule that is violated, never the password.
    pub fn check(&self, password: &str) -> Result<(), PasswordPolicyError> {
        if password.is_empty() {
            return Err(PasswordPolicyError::Empty);
        }
        if password.len() < self.min_bytes {
            return Err(PasswordPolicyError::TooShort(self.min_bytes));
        }
        if password.len() > MAX_BYTES {
            return Err(PasswordPolicyError::TooLong);
        }
        let is_common = || {
            COMMON_PASSWORDS.split_whitespace().any(|common| common.eq_ignore_ascii_case(password))
        };
        if !self.allow_common && is_common() {
            return Err(PasswordPolicyError::Common);
        }
        Ok(())
    }
}

/// Why a password was not hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HashError {
    /// [`MAX_QUEUED`] passwords are waiting already.
    #[error("too many passwords are waiting to be hashed")]
    Overloaded,
    /// Memory, random bytes or the threads are unavailable.
    #[error("the password could not be hashed")]
    Failed,
}

struct HashJob {
    password: Zeroizing<Vec<u8>>,
    /// The hash whose salt and parameters to use; a new salt and the current parameters otherwise.
    params_from: Option<PasswordHash>,
    reply: oneshot::Sender<Result<PasswordHash, HashError>>,
}

/// A handle to the hashing threads. They end when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct HashingPool {
    jobs: SyncSender<HashJob>,
}

impl HashingPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn start() -> std::io::Result<Self> {
        let (jobs, inbox) = sync_channel(MAX_QUEUED);
        let inbox = Arc::new(Mutex::new(inbox));
        for _ in 0..THREADS {
            let inbox = Arc::clone(&inbox);
            thread::Builder::new()
                .name("odometer-argon2".into())
                .spawn(move || run_worker(&inbox))?;
        }
        Ok(Self { jobs })
    }

    /// Hashes a password with a new random salt.
    ///
    /// # Errors
    /// [`HashError`] if it was not hashed.
    pub async fn hash(&self, password: Zeroizing<Vec<u8>>) -> Result<PasswordHash, HashError> {
        self.run(password, None).await
    }

    /// Whether `stored` is the hash of `password`. Without a stored hash the result is false, after
    /// the same amount of work.
    ///
    /// # Errors
    /// [`HashError`] if it was not hashed.
    pub async fn verify(
        &self,
        password: Zeroizing<Vec<u8>>,
        stored: Option<PasswordHash>,
    ) -> Result<bool, HashError> {
        let made = self.run(password, Some(stored.unwrap_or(DUMMY_HASH))).await?;
        let expected = stored.unwrap_or(DUMMY_HASH).hash;
        let equal = constant_time::verify_slices_are_equal(&made.hash, &expected).is_ok()
            || failpoint!("password-not-compared");
        Ok(equal && stored.is_some())
    }

    async fn run(
        &self,
        password: Zeroizing<Vec<u8>>,
        params_from: Option<PasswordHash>,
    ) -> Result<PasswordHash, HashError> {
        let (reply, receiver) = oneshot::channel();
        let job = HashJob { password, params_from, reply };
        self.jobs.try_send(job).map_err(|_| HashError::Overloaded)?;
        receiver.await.unwrap_or(Err(HashError::Failed))
    }
}

fn run_worker(inbox: &Mutex<Receiver<HashJob>>) {
    let mut memory = Vec::new();
    loop {
        let job = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(HashJob { password, params_from, reply }) = job else { return };
        // If the client has disconnected, do not spend 20 ms on its password.
        if !reply.is_closed() {
            let _ = reply.send(hash(&password, params_from.as_ref(), &mut memory));
        }
    }
}

fn hash(
    password: &[u8],
    params_from: Option<&PasswordHash>,
    memory: &mut Vec<Block>,
) -> Result<PasswordHash, HashError> {
    let mut made = params_from.copied().unwrap_or(DUMMY_HASH);
    if params_from.is_none() {
        aws_lc_rs::rand::fill(&mut made.salt).map_err(|_| HashError::Failed)?;
    }
    let params = Params::new(made.memory_kib, made.passes, made.lanes, Some(made.hash.len()))
        .map_err(|_| HashError::Failed)?;
    memory.resize(params.block_count(), Block::default());
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(password, &made.salt, &mut made.hash, memory.as_mut_slice())
        .map_err(|_| HashError::Failed)?;
    Ok(made)
}

/// The most common passwords of eight or more characters in public lists of leaked passwords.
const COMMON_PASSWORDS: &str = "
    12345678 123456789 1234567890 12345678910 0123456789 987654321 9876543210 87654321 11111111
    111111111 1111111111 00000000 000000000 0000000000 22222222 33333333 55555555 66666666 77777777
    88888888 99999999 12341234 11112222 12121212 123123123 123321123 147258369 159357456
    112233445566 123456123 12344321 1q2w3e4r 1q2w3e4r5t 1qaz2wsx 1qazxsw2 zaq12wsx q1w2e3r4
    qwertyuiop qwerty123 qwerty12 qwertyui qwerty1234 asdfghjkl asdfasdf asdf1234 zxcvbnm1 1234qwer
    qwer1234 qazwsxedc password password1 password12 password123 password1234 passw0rd p@ssword
    p@ssw0rd pa$$word passport iloveyou iloveyou1 sunshine princess princess1 football football1
    baseball baseball1 basketball superman superman1 starwars trustno1 welcome1 welcome123 whatever
    michelle jennifer jordan23 charlie1 computer internet corvette mercedes maverick midnight
    michael1 marlboro mustang1 samantha victoria alexander alexandra benjamin danielle december
    november september chocolate butterfly elephant dolphins einstein falcon123 facebook linkedin
    letmein1 letmein123 liverpool arsenal1 chelsea1 manchester barcelona monkey123 dragon123
    master123 shadow123 admin123 admin1234 administrator adminadmin rootroot changeme changeme1
    default1 secret123 test1234 testtest testing1 test12345 guest123 user1234 abcd1234 abc12345
    a1b2c3d4 aa123456 abcdefgh abcdefg1 aaaaaaaa access14 hello123 hellohello iloveu123 lovelove
    love1234 pokemon1 minecraft spiderman blink182 metallica slipknot1 nirvana1 rockyou1 yankees1
    cowboys1 steelers scorpion softball swimming thunder1 tinkerbell undertaker valentine wolverine
    jesus123 jesuschrist godisgood blessed1 heaven77 angel123 anthony1 brandon1 nicholas christian
    christopher jonathan matthew1 passpass 1password mypassword yourpassword";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_the_rule_that_is_violated() {
        let policy = PasswordPolicy { min_bytes: 8, allow_common: false };
        assert_eq!(policy.check(""), Err(PasswordPolicyError::Empty));
        assert_eq!(policy.check("short"), Err(PasswordPolicyError::TooShort(8)));
        assert_eq!(policy.check(&"x".repeat(257)), Err(PasswordPolicyError::TooLong));
        assert_eq!(policy.check("PassWord123"), Err(PasswordPolicyError::Common));
        assert_eq!(policy.check("correct horse"), Ok(()));
        assert_eq!(PasswordPolicy { min_bytes: 1, allow_common: true }.check("password"), Ok(()));
    }

    #[test]
    fn the_hash_is_argon2id_of_password_and_salt() {
        let made = hash(b"correct horse", None, &mut Vec::new()).unwrap();
        let params = Params::new(made.memory_kib, made.passes, made.lanes, Some(32)).unwrap();
        let mut again = [0; 32];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password_into(b"correct horse", &made.salt, &mut again).unwrap();
        assert_eq!(again, made.hash);
        assert_ne!(hash(b"correct horse", None, &mut Vec::new()).unwrap().salt, made.salt);
    }

    #[test]
    fn a_password_is_verified_with_the_parameters_of_its_hash() {
        let pool = HashingPool::start().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let older =
            PasswordHash { memory_kib: 64, passes: 1, lanes: 1, salt: [7; 16], hash: [0; 32] };
        let stored = hash(b"correct horse", Some(&older), &mut Vec::new()).unwrap();
        let verify = |password: &[u8], stored| {
            runtime.block_on(pool.verify(Zeroizing::new(password.to_vec()), stored)).unwrap()
        };
        assert_eq!((stored.memory_kib, stored.salt), (64, [7; 16]));
        assert!(verify(b"correct horse", Some(stored)));
        assert!(!verify(b"correct horsf", Some(stored)) && !verify(b"", Some(stored)));
        assert!(!verify(b"correct horse", Some(PasswordHash { salt: [8; 16], ..stored })));
        assert!(!verify(b"correct horse", None));
    }
}
