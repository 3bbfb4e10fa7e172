//! How often a login that is refused may be tried again: registries ban whom they see guessing.
//!
//! A refusal may be about the login or about what it was shown for, and many registries use the same `401` for both. So
//! a place that refuses rests by itself, and the login rests everywhere once too many places have refused it since it
//! was last accepted. Places that accepted it last are still tried then, since a good login works there; a revoked one
//! does not, so after a few of those nobody tries it.

mod pause;

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use self::pause::Pause;
use super::credentials::Fingerprint;
use crate::upstream::health::Backoff;

/// What became of our logins, by service and login. Bounded.
#[derive(Debug, Default)]
pub(super) struct Logins(Mutex<HashMap<Account, History>>);

/// A login as it is shown to someone for something.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    account: Account,
    /// A repository, or the scopes of a token.
    place: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Account {
    /// Host of a token service; empty for the registry itself.
    service: String,
    login: Fingerprint,
}

/// What a refusal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The login is not known. Once is enough, unless it was accepted before: some token services say it of what a good
    /// login may not have, too.
    Unknown,
    /// The login is not known, or may not have this.
    Unclear,
    /// The login may not have this. Counts against one that was never accepted only, and lets no place rest.
    Forbidden,
}

/// A rest that begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// For the place that refused.
    Here(Duration),
    /// For all places.
    Everywhere(Duration),
}

/// What became of one login at one service.
#[derive(Debug)]
struct History {
    places: HashMap<String, Place>,
    /// Times it was accepted.
    accepted: u64,
    /// Places that refused it since.
    refused: u32,
    /// Those of them that had accepted it before.
    lost: u32,
    pause: Pause,
    touched: Instant,
}

/// What one place said of a login.
#[derive(Debug)]
struct Place {
    /// Whether it accepted it last.
    accepted: bool,
    /// How often the login had been accepted anywhere when this place last refused it.
    refused_in: Option<u64>,
    pause: Pause,
    touched: Instant,
}

impl Shown {
    /// The `login` as it is shown to `service` for `place`.
    pub(super) fn new(
        service: impl Into<String>,
        place: impl Into<String>,
        login: &Fingerprint,
    ) -> Self {
        let account = Account {
            service: service.into(),
            login: *login,
        };
        Self {
            account,
            place: place.into(),
        }
    }

    /// What it is shown for.
    pub(super) fn place(&self) -> &str {
        &self.place
    }
}

impl Logins {
    /// Whether the login may be tried; else how long it has to rest. When a rest is over one may try it, and the others
    /// when it is known what became of that.
    pub(super) fn admit(&self, shown: &Shown) -> Result<(), Duration> {
        let (mut histories, now) = (self.0.lock(), Instant::now());
        let Some(history) = histories.get_mut(&shown.account) else {
            return Ok(());
        };
        let mut place = history.places.get_mut(&shown.place);
        let is_good = place.as_ref().is_some_and(|place| place.accepted);
        let is_excepted = is_good && history.lost <= TOLERATED;
        let everywhere = (!is_excepted).then_some(&mut history.pause);
        let here = place.as_mut().map(|place| &mut place.pause);
        let mut pauses: Vec<_> = here.into_iter().chain(everywhere).collect();
        // Both are asked before either takes this for the one that tries.
        if let Some(left) = pauses.iter().filter_map(|pause| pause.left(now)).max() {
            return Err(left);
        }
        for pause in &mut pauses {
            pause.try_out(now);
        }
        Ok(())
    }

    /// Notes that the login was accepted; whether it had to rest before.
    pub(super) fn accepted(&self, shown: &Shown) -> bool {
        let (mut histories, now) = (self.0.lock(), Instant::now());
        let history = history(&mut histories, &shown.account, now);
        history.accepted += 1;
        (history.refused, history.lost) = (0, 0);
        let place = place(&mut history.places, &shown.place, now);
        place.accepted = true;
        let rested_here = std::mem::take(&mut place.pause).has_been();
        std::mem::take(&mut history.pause).has_been() || rested_here
    }

    /// Notes that the login was refused. Gives the rest that begins, if one does.
    pub(super) fn refused(&self, shown: &Shown, refusal: Refusal) -> Option<Rest> {
        let (mut histories, now) = (self.0.lock(), Instant::now());
        let history = history(&mut histories, &shown.account, now);
        let was_accepted = history.accepted > 0;
        if refusal == Refusal::Forbidden && was_accepted {
            return None;
        }
        let place = place(&mut history.places, &shown.place, now);
        if place.refused_in.replace(history.accepted) != Some(history.accepted) {
            history.refused = history.refused.saturating_add(1);
            let had_accepted = std::mem::take(&mut place.accepted);
            history.lost = history.lost.saturating_add(u32::from(had_accepted));
        }
        let here = match refusal {
            Refusal::Forbidden => None,
            _ => place.pause.begin(now, REST_HERE),
        };
        let tolerated = match refusal {
            _ if was_accepted => DOUBTED,
            Refusal::Unknown => 0,
            _ => TOLERATED,
        };
        let is_too_much = history.refused > tolerated || history.lost > TOLERATED;
        let everywhere = if is_too_much || history.pause.is_tried_out() {
            history.pause.begin(now, REST)
        } else {
            None
        };
        everywhere.map(Rest::Everywhere).or(here.map(Rest::Here))
    }
}

fn history<'m>(
    histories: &'m mut HashMap<Account, History>,
    account: &Account,
    now: Instant,
) -> &'m mut History {
    make_room(histories, account, MAX_ACCOUNTS, |history| {
        (history.pause.relevance(now), history.touched)
    });
    let history = histories.entry(account.clone()).or_insert_with(|| History {
        places: HashMap::new(),
        accepted: 0,
        refused: 0,
        lost: 0,
        pause: Pause::default(),
        touched: now,
    });
    history.touched = now;
    history
}

fn place<'m>(places: &'m mut HashMap<String, Place>, name: &str, now: Instant) -> &'m mut Place {
    make_room(places, name, MAX_PLACES, |place| {
        (place.pause.relevance(now), place.touched)
    });
    let place = places.entry(name.to_owned()).or_insert_with(|| Place {
        accepted: false,
        refused_in: None,
        pause: Pause::default(),
        touched: now,
    });
    place.touched = now;
    place
}

/// Forgets the entry of least worth where `key` is a new one and there are `most`.
fn make_room<K, Q, V, W>(entries: &mut HashMap<K, V>, key: &Q, most: usize, worth: impl Fn(&V) -> W)
where
    K: std::borrow::Borrow<Q> + Clone + Eq + Hash,
    Q: Eq + Hash + ?Sized,
    W: Ord,
{
    if entries.len() < most || entries.contains_key(key) {
        return;
    }
    let least = entries.iter().min_by_key(|(_, entry)| worth(entry));
    if let Some(least) = least.map(|(key, _)| key.clone()) {
        entries.remove::<K>(&least);
    }
}

const REST: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_mins(5));
/// Longer than the login itself rests, so that it is another place, if one is asked for, that it is tried at next.
const REST_HERE: Backoff = Backoff::new(Duration::from_secs(15), Duration::from_mins(5));
/// Places that may refuse a login which was never accepted, and of those which accepted it, before it rests everywhere.
const TOLERATED: u32 = 2;
/// Places that may refuse a login since it was last accepted.
const DOUBTED: u32 = 4;
const MAX_PLACES: usize = 1024;
/// A URL has one login at a time, and a token service or two; the others are those of yesterday.
const MAX_ACCOUNTS: usize = 16;

#[cfg(test)]
mod tests;
