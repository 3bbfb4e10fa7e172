//! Which origins speak HTTP/2, so that of many requests at once one opens the connection for all: also of the first ones
//! after a time in which none was kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Origin;

/// The origins that were lately met with HTTP/2.
#[derive(Debug, Default)]
pub(super) struct Spoken(Mutex<HashMap<Origin, Met>>);

#[derive(Debug)]
struct Met {
    last: Instant,
    opening: Opening,
}

/// Held by the one that opens an HTTP/2 connection: those who wait can use it too.
pub(super) type Opening = Arc<tokio::sync::Mutex<()>>;

/// How long it is believed: a server that no longer speaks HTTP/2 says so with its next connection.
const BELIEVED: Duration = Duration::from_hours(1);
/// Origins that are remembered.
const MAX_ORIGINS: usize = 64;

impl Spoken {
    /// What to hold while opening a connection to `origin`; `None` where it is not known to speak HTTP/2.
    pub(super) fn opening(&self, origin: &Origin) -> Option<Opening> {
        let met = self.0.lock();
        let met = met.get(origin)?;
        (met.last.elapsed() < BELIEVED).then(|| Arc::clone(&met.opening))
    }

    /// It does now. Of too many origins the one that was met longest ago is forgotten.
    pub(super) fn meet(&self, origin: &Origin) {
        let (mut all, last) = (self.0.lock(), Instant::now());
        if let Some(met) = all.get_mut(origin) {
            met.last = last;
            return;
        }
        if all.len() >= MAX_ORIGINS {
            let oldest = all.iter().min_by_key(|(_, met)| met.last);
            if let Some(oldest) = oldest.map(|(origin, _)| origin.clone()) {
                all.remove(&oldest);
            }
        }
        let opening = Opening::default();
        all.insert(origin.clone(), Met { last, opening });
    }

    /// It does not, or takes no connection: nobody need wait for another's.
    pub(super) fn unlearn(&self, origin: &Origin) {
        self.0.lock().remove(origin);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn origin(number: usize) -> Origin {
        let url = format!("https://{number}.example").parse().unwrap();
        Origin::of(&url).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_origin_is_known_for_an_hour_after_it_was_last_met() {
        let spoken = Spoken::default();
        assert!(spoken.opening(&origin(1)).is_none());
        spoken.meet(&origin(1));
        advance(BELIEVED / 2).await;
        spoken.meet(&origin(1));
        advance(BELIEVED / 2).await;
        assert!(spoken.opening(&origin(1)).is_some());
        advance(BELIEVED / 2).await;
        assert!(spoken.opening(&origin(1)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_origins_the_last_ones_are_known() {
        let spoken = Spoken::default();
        for number in 0..100 {
            spoken.meet(&origin(number));
            advance(Duration::from_secs(1)).await;
        }
        let known = (0..100).filter(|&number| spoken.opening(&origin(number)).is_some());
        assert!(known.eq(100 - MAX_ORIGINS..100));
    }
}
