//! A secret and who uses it: its label, its limit and what is counted by secret. The rules of the door have
//! an account for each of their secrets. An account is never given back, so that clients and counters refer
//! to it as long as they like; a reload finds it again by its label, or without one by its secret. One lock
//! around the list of all, taken when rules are made.

use std::sync::atomic::{AtomicU32, Ordering};

use mtproxy::formats::secret::SecretEntry;
use mtproxy::proto::secret::Secret;

use crate::base::gauge::{Counter, Gauge};
use crate::base::lock::Mutex;

/// A secret, and who uses it.
pub struct Account {
    /// Its label; may be empty.
    pub label: String,
    secret: Secret,
    /// See [`Account::limit`].
    limit: AtomicU32,
    /// How many are connected now.
    pub open: Gauge,
    /// Clients refused because of the limit.
    pub refused: Counter,
}

/// Of all clients where no secret is set.
pub static OPEN: Account = Account::new(String::new(), Secret::new([0; 16]));

static ALL: Mutex<Vec<&Account>> = Mutex::new(Vec::new());

impl Account {
    const fn new(label: String, secret: Secret) -> Account {
        Account {
            label,
            secret,
            limit: AtomicU32::new(u32::MAX),
            open: Gauge::new(),
            refused: Counter::new(),
        }
    }

    /// The account of a secret, with the limit that it has now.
    pub fn of(entry: &SecretEntry) -> &'static Account {
        let label = entry.label.as_deref().unwrap_or_default();
        let mut all = ALL.lock();
        let same = |account: &&&Account| {
            account.label == label && (!label.is_empty() || account.secret == entry.secret)
        };
        let account = all.iter().find(same).copied().unwrap_or_else(|| {
            let new: &Account = Box::leak(Box::new(Account::new(label.into(), entry.secret)));
            all.push(new);
            new
        });
        let limit = entry.limit.unwrap_or(u32::MAX);
        account.limit.store(limit, Ordering::Relaxed);
        account
    }

    /// How many clients it admits at a time.
    pub fn limit(&self) -> Option<u32> {
        let limit = self.limit.load(Ordering::Relaxed);
        (limit < u32::MAX).then_some(limit)
    }
}
