//! Who sent bytes that do not match their digest, and who else may have the right ones.
//!
//! A source whose bytes do not match is banned for the digest, for its `negative_ttl`: others are asked before it. Where
//! the bytes of several were mixed nobody knows whose were wrong, so all of them are banned; while there are bans, each
//! flight takes the bytes of one source alone, and the next mismatch tells whose fault it is. Where nobody else is known,
//! a banned source is asked all the same: what was wrong may be mended.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::ports::Source;
use super::shared::Key;

/// The bans of all digests.
#[derive(Debug, Default)]
pub(super) struct Bans(Mutex<HashMap<Key, Suspicion>>);

/// What is known of a digest of which wrong bytes came.
#[derive(Debug)]
struct Suspicion {
    sources: Vec<Known>,
    /// Bans so far: tells the older from the newer.
    bans: u64,
    /// When the last ban is over.
    until: Instant,
}

#[derive(Debug)]
struct Known {
    source: Arc<dyn Source>,
    ban: Option<Ban>,
}

#[derive(Debug, Clone, Copy)]
struct Ban {
    number: u64,
    until: Instant,
}

/// The sources of a new flight, in the order in which they are asked.
#[derive(Debug)]
pub(super) struct LineUp {
    pub(super) first: Arc<dyn Source>,
    pub(super) others: Vec<Arc<dyn Source>>,
    /// Whether the bytes of one alone are to be taken.
    pub(super) is_strict: bool,
}

/// Digests that are remembered …
const MOST: usize = 1024;
/// … and sources of each.
const MOST_SOURCES: usize = 16;

impl Bans {
    /// Notes that a flight with these `sources` brought wrong bytes, of those with these numbers.
    pub(super) fn mismatched(&self, key: &Key, sources: &[Arc<dyn Source>], wrong: &[usize]) {
        let now = Instant::now();
        let mut all = self.0.lock();
        all.retain(|_, suspicion| suspicion.until > now);
        if all.len() >= MOST && !all.contains_key(key) {
            let soonest = all.iter().min_by_key(|(_, suspicion)| suspicion.until);
            if let Some(key) = soonest.map(|(key, _)| key.clone()) {
                all.remove(&key);
            }
        }
        let suspicion = all.entry(key.clone()).or_insert(Suspicion {
            sources: Vec::new(),
            bans: 0,
            until: now,
        });
        suspicion.bans += 1;
        for (index, source) in sources.iter().enumerate() {
            let ban = wrong.contains(&index).then(|| Ban {
                number: suspicion.bans,
                until: now + source.negative_ttl(),
            });
            suspicion.note(source, ban);
        }
    }

    /// Who is asked by a new flight that begins for `own`: who is not banned, then whose ban is the oldest; `own` first
    /// among equals.
    pub(super) fn line_up(&self, key: &Key, own: &Arc<dyn Source>) -> LineUp {
        let now = Instant::now();
        let mut all = self.0.lock();
        if all.get(key).is_some_and(|known| known.until <= now) {
            all.remove(key);
        }
        let suspicion = all.get(key);
        let ranked = suspicion.map_or_else(Vec::new, |suspicion| suspicion.ranked(own, now));
        let mut ranked = ranked.into_iter();
        LineUp {
            first: ranked.next().unwrap_or_else(|| Arc::clone(own)),
            others: ranked.collect(),
            is_strict: suspicion.is_some(),
        }
    }
}

impl Suspicion {
    fn note(&mut self, source: &Arc<dyn Source>, ban: Option<Ban>) {
        if let Some(ban) = ban {
            self.until = self.until.max(ban.until);
        }
        let mut known = self.sources.iter_mut();
        if let Some(known) = known.find(|known| known.source.key() == source.key()) {
            known.ban = ban.or(known.ban);
        } else if self.sources.len() < MOST_SOURCES {
            let source = Arc::clone(source);
            self.sources.push(Known { source, ban });
        }
    }

    fn ranked(&self, own: &Arc<dyn Source>, now: Instant) -> Vec<Arc<dyn Source>> {
        let rank = |known: &Known| {
            known
                .ban
                .filter(|ban| ban.until > now)
                .map(|ban| ban.number)
        };
        let (of_own, others): (Vec<_>, Vec<_>) = self
            .sources
            .iter()
            .partition(|known| known.source.key() == own.key());
        let own_rank = of_own.first().and_then(|known| rank(known));
        let others = others.into_iter().map(|known| (rank(known), &known.source));
        let mut all: Vec<_> = std::iter::once((own_rank, own)).chain(others).collect();
        all.sort_by_key(|(rank, _)| *rank);
        all.into_iter()
            .map(|(_, source)| Arc::clone(source))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::flight::testing::Scripted;
    use crate::oci::Digest;

    fn key(content: &[u8]) -> Key {
        Key {
            upstream: "example.com".parse().unwrap(),
            digest: Digest::sha256(content),
        }
    }

    fn sources(names: [&'static str; 3]) -> Vec<Arc<dyn Source>> {
        let scripted = names.map(|name| Scripted::new(name) as Arc<dyn Source>);
        scripted.into()
    }

    fn order(bans: &Bans, own: &Arc<dyn Source>) -> (Vec<String>, bool) {
        let line_up = bans.line_up(&key(b""), own);
        let all = std::iter::once(&line_up.first).chain(&line_up.others);
        let order = all.map(|source| source.key().to_owned()).collect();
        (order, line_up.is_strict)
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_banned_is_asked_first_then_whose_ban_is_oldest_and_one_at_a_time() {
        let (bans, all) = (Bans::default(), sources(["a", "b", "c"]));
        assert_eq!(order(&bans, &all[0]), (vec!["a".to_owned()], false));
        bans.mismatched(&key(b""), &all, &[0, 1]);
        assert_eq!(order(&bans, &all[0]).0, ["c", "a", "b"]);
        assert_eq!(order(&bans, &all[1]).0, ["c", "b", "a"]);
        bans.mismatched(&key(b""), &all[..1], &[0]);
        assert_eq!(
            order(&bans, &all[0]),
            (["c", "b", "a"].map(str::to_owned).into(), true)
        );
        // It says nothing of other digests.
        assert!(!bans.line_up(&key(b"another"), &all[0]).is_strict);
    }

    #[tokio::test(start_paused = true)]
    async fn a_ban_is_over_after_negative_ttl() {
        let (bans, all) = (Bans::default(), sources(["a", "b", "c"]));
        bans.mismatched(&key(b""), &all[..2], &[0]);
        let moment = Duration::from_millis(1);
        let nearly = all[0].negative_ttl().saturating_sub(moment);
        tokio::time::advance(nearly).await;
        assert_eq!(order(&bans, &all[0]).0, ["b", "a"]);
        tokio::time::advance(moment).await;
        assert_eq!(order(&bans, &all[0]), (vec!["a".to_owned()], false));
        assert!(bans.0.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_a_limit_is_remembered() {
        let (bans, all) = (Bans::default(), sources(["a", "b", "c"]));
        for number in 0..2 * MOST {
            bans.mismatched(&key(&number.to_le_bytes()), &all, &[0]);
        }
        assert_eq!(bans.0.lock().len(), MOST);
    }
}
