//! How often a login that is refused may be tried again: registries ban whom they see guessing.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::credentials::Fingerprint;
use crate::upstream::health::Backoff;

/// What became of our logins, by place and login. Bounded.
#[derive(Debug, Default)]
pub(super) struct Logins(Mutex<HashMap<Key, Record>>);

/// Where a login is shown, and which.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Host of a token service, a repository of a registry that wants `Basic`, or empty for all of that registry.
    place: String,
    login: Fingerprint,
}

#[derive(Debug, Clone, Copy, Default)]
struct Record {
    /// Times it was refused since it was last accepted.
    refused: u32,
    /// Rests since it was last accepted.
    rests: u32,
    /// Not tried before.
    rest_until: Option<Instant>,
    /// Whether one tries it just now, while the others wait until `rest_until`.
    on_trial: bool,
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
    /// Whether the login may be tried; else how long it has to rest. When a rest is over one may try it, and the others
    /// when it is known what became of that.
    pub(super) fn admit(&self, key: &Key) -> Result<(), Duration> {
        let mut records = self.0.lock();
        let Some(record) = records.get_mut(key) else {
            return Ok(());
        };
        let Some(until) = record.rest_until else {
            return Ok(());
        };
        let now = Instant::now();
        if now < until {
            return Err(until - now);
        }
        record.on_trial = true;
        record.rest_until = Some(now + TRIAL);
        Ok(())
    }

    /// Notes that the login was accepted; whether it had to rest before.
    pub(super) fn accepted(&self, key: Key) -> bool {
        let now = Instant::now();
        let last = self.0.lock().get(&key).copied().unwrap_or_default();
        let record = Record {
            accepted: Some(now),
            ..Record::default()
        };
        self.put(key, record);
        last.rests > 0
    }

    /// Notes that the login was refused: after `tolerated` times in a row it rests, longer each time. Gives the time of
    /// a rest that begins.
    ///
    /// One that was accepted lately does not: then it is a repository that is refused, and no repository may keep
    /// the others from being pulled.
    pub(super) fn refused(&self, key: Key, tolerated: u32) -> Option<Duration> {
        let now = Instant::now();
        let mut record = self.0.lock().get(&key).copied().unwrap_or_default();
        if record.accepted.is_some_and(|at| now - at < ACCEPTED_FOR) {
            return None;
        }
        let is_resting = record.rest_until.is_some_and(|until| now < until);
        if is_resting && !record.on_trial {
            return None;
        }
        record.refused = record.refused.saturating_add(1);
        record.on_trial = false;
        let rest = (record.refused > tolerated).then(|| REST.wait(record.rests));
        if let Some(rest) = rest {
            record.rests = record.rests.saturating_add(1);
            record.rest_until = Some(now + rest);
        }
        self.put(key, record);
        rest
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

const REST: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_mins(5));
/// How long the others wait at most for the one that tries a login again.
const TRIAL: Duration = Duration::from_secs(10);
const ACCEPTED_FOR: Duration = Duration::from_mins(10);
const MAX_RECORDS: usize = 1024;

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::upstream::auth::credentials::Login;

    const FIRST: Duration = Duration::from_secs(10);

    fn key(place: &str) -> Key {
        Key::new(place, Login::password("jane", "pw".into()).fingerprint())
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_refused_too_often_rests_where_it_was_refused() {
        let logins = Logins::default();
        assert_eq!(logins.refused(key("a"), 1), None);
        assert_eq!(logins.admit(&key("a")), Ok(()));
        assert_eq!(logins.refused(key("a"), 1), Some(FIRST));
        assert_eq!(logins.admit(&key("a")), Err(FIRST));
        assert_eq!(logins.admit(&key("b")), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn after_each_rest_one_tries_and_a_refusal_makes_the_next_longer() {
        let logins = Logins::default();
        let mut rests = Vec::new();
        for _ in 0..7 {
            let rest = logins.refused(key("a"), 0).unwrap();
            assert_eq!(logins.refused(key("a"), 0), None, "of the same moment");
            advance(rest).await;
            assert_eq!(logins.admit(&key("a")), Ok(()));
            assert_eq!(logins.admit(&key("a")), Err(TRIAL));
            rests.push(rest.as_secs());
        }
        assert_eq!(rests, [10, 20, 40, 80, 160, 300, 300]);
        assert!(logins.accepted(key("a")));
        assert_eq!(logins.admit(&key("a")), Ok(()));
        assert!(!logins.accepted(key("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_tries_and_leaves_makes_way_for_another() {
        let logins = Logins::default();
        advance(logins.refused(key("a"), 0).unwrap()).await;
        assert_eq!(logins.admit(&key("a")), Ok(()));
        advance(TRIAL).await;
        assert_eq!(logins.admit(&key("a")), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_accepted_lately_does_not_rest() {
        let logins = Logins::default();
        logins.accepted(key("a"));
        assert_eq!(logins.refused(key("a"), 0), None);
        assert_eq!(logins.admit(&key("a")), Ok(()));
        advance(ACCEPTED_FOR).await;
        assert_eq!(logins.refused(key("a"), 0), Some(FIRST));
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
