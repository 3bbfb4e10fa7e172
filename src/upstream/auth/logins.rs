//! How often a login that is refused may be tried again: registries ban whom they see guessing.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::credentials::Fingerprint;

/// What became of our logins, by place and login. Bounded.
#[derive(Debug, Default)]
pub(super) struct Logins(Mutex<HashMap<Key, Record>>);

/// Where a login is shown, and which.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Host of a token service, or a repository of a registry that wants `Basic`.
    place: String,
    login: Fingerprint,
}

#[derive(Debug, Clone, Copy, Default)]
struct Record {
    /// Times it was refused since it was last accepted or has rested.
    refused: u32,
    /// Not tried before.
    rest_until: Option<Instant>,
    accepted: Option<Instant>,
}

impl Key {
    pub(super) fn new(place: impl Into<String>, login: &Fingerprint) -> Self {
        Self {
            place: place.into(),
            login: *login,
        }
    }
}

impl Logins {
    /// How long the login has to rest, if it has.
    pub(super) fn resting(&self, key: &Key) -> Option<Duration> {
        let until = self.0.lock().get(key)?.rest_until?;
        let rest = until.saturating_duration_since(Instant::now());
        (!rest.is_zero()).then_some(rest)
    }

    /// Notes that the login was accepted.
    pub(super) fn accepted(&self, key: Key) {
        let record = Record {
            accepted: Some(Instant::now()),
            ..Record::default()
        };
        self.put(key, record);
    }

    /// Notes that the login was refused: after `tolerated` times in a row it rests.
    ///
    /// One that was accepted lately does not: then it is a repository that is refused, and no repository may keep
    /// the others from being pulled.
    pub(super) fn refused(&self, key: Key, tolerated: u32) {
        let now = Instant::now();
        let mut record = self.0.lock().get(&key).copied().unwrap_or_default();
        if record.accepted.is_some_and(|at| now - at < ACCEPTED_FOR) {
            return;
        }
        if record.rest_until.is_some_and(|until| until <= now) {
            record = Record::default();
        }
        record.refused = record.refused.saturating_add(1);
        if record.refused > tolerated {
            record.rest_until = Some(now + REST);
        }
        self.put(key, record);
    }

    fn put(&self, key: Key, record: Record) {
        let mut records = self.0.lock();
        if records.len() >= MAX_RECORDS && !records.contains_key(&key) {
            let now = Instant::now();
            records.retain(|_, record| record.rest_until.is_some_and(|until| until > now));
            if records.len() >= MAX_RECORDS {
                records.clear();
            }
        }
        records.insert(key, record);
    }
}

const REST: Duration = Duration::from_secs(30);
const ACCEPTED_FOR: Duration = Duration::from_mins(10);
const MAX_RECORDS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::auth::credentials::Login;

    fn key(place: &str) -> Key {
        Key::new(place, Login::password("jane", "pw".into()).fingerprint())
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_refused_too_often_rests_for_half_a_minute() {
        let logins = Logins::default();
        logins.refused(key("a"), 1);
        assert_eq!(logins.resting(&key("a")), None);
        logins.refused(key("a"), 1);
        assert_eq!(logins.resting(&key("a")), Some(REST));
        assert_eq!(logins.resting(&key("b")), None);
        tokio::time::advance(REST).await;
        assert_eq!(logins.resting(&key("a")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_that_has_rested_may_be_refused_as_often_as_before() {
        let logins = Logins::default();
        logins.refused(key("a"), 1);
        logins.refused(key("a"), 1);
        tokio::time::advance(REST).await;
        logins.refused(key("a"), 1);
        assert_eq!(logins.resting(&key("a")), None);
        logins.refused(key("a"), 1);
        assert_eq!(logins.resting(&key("a")), Some(REST));
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_accepted_lately_does_not_rest() {
        let logins = Logins::default();
        logins.accepted(key("a"));
        logins.refused(key("a"), 0);
        assert_eq!(logins.resting(&key("a")), None);
        tokio::time::advance(ACCEPTED_FOR).await;
        logins.refused(key("a"), 0);
        assert_eq!(logins.resting(&key("a")), Some(REST));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_a_limit_is_remembered() {
        let logins = Logins::default();
        for n in 0..3 * MAX_RECORDS {
            logins.refused(key(&n.to_string()), 0);
        }
        assert!(logins.0.lock().len() <= MAX_RECORDS);
    }
}
