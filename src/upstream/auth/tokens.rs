//! Tokens in hand: one exchange at a time for each, and no storm after a failed one.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::credentials::{Fingerprint, Login};
use super::scope::Scopes;
use super::token::{Plan, Token};
use crate::upstream::Error;
use crate::upstream::health::Backoff;

/// The tokens of one upstream URL. Bounded; the least recently used go first.
#[derive(Debug)]
pub(super) struct Tokens(Cache<Key, Arc<Slot>>);

/// What tells one token from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    realm: String,
    service: Option<String>,
    scopes: Scopes,
    login: Option<Fingerprint>,
}

/// One token, there or being asked for.
#[derive(Debug, Default)]
struct Slot {
    /// Held by the one that asks. Dropping the asker frees it for the next, so that nobody waits for one who left.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The token, and when it came.
    token: Option<(Token, Instant)>,
    /// What went wrong last, and until when it is the answer.
    failure: Option<(Error, Instant)>,
    /// Times in a row that our login was refused for it.
    refused: u32,
}

/// A token that the registry did not take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused<'a> {
    /// The header that showed it.
    pub(super) header: &'a HeaderValue,
    /// Whether the registry found it good, and not far enough reaching.
    pub(super) reach: bool,
}

/// Why there is no token from [`Tokens::get`].
#[derive(Debug)]
pub(super) enum NoToken {
    /// The exchange failed.
    Failed(Error),
    /// Nothing was asked, since the login rests: over when the rest is, and so never remembered here.
    Resting(Error),
    /// The token has only just been given out and does not reach far enough: another one would not either.
    JustRefused,
}

impl Key {
    pub(super) fn new(plan: &Plan, login: Option<&Login>) -> Self {
        Self {
            realm: plan.realm.url.to_string(),
            service: plan.service.clone(),
            scopes: plan.scopes.clone(),
            login: login.map(|login| *login.fingerprint()),
        }
    }
}

impl Tokens {
    /// An empty store.
    pub(super) fn new() -> Self {
        Self(
            Cache::builder()
                .max_capacity(MAX_TOKENS)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
        )
    }

    /// The token in hand, or the one that `ask` gets, which is polled only when there is need. The token `refused` is not it.
    ///
    /// One caller asks for each key; the others wait for its outcome, at most until `deadline`. A failure is the
    /// outcome for those who waited and for some time after; a caller that was dropped hands its turn on.
    pub(super) async fn get(
        &self,
        key: Key,
        refused: Option<Refused<'_>>,
        deadline: Instant,
        ask: impl Future<Output = Result<Token, NoToken>> + Send,
    ) -> Result<HeaderValue, NoToken> {
        let slot = self.0.get_with(key, Arc::default);
        if let Some(outcome) = slot.outcome(refused) {
            return outcome;
        }
        let waited = tokio::time::timeout_at(deadline, slot.turn.lock()).await;
        let Ok(_turn) = waited else {
            return Err(NoToken::Failed(Error::unavailable(
                "the token service took too long",
            )));
        };
        if let Some(outcome) = slot.outcome(refused) {
            return outcome;
        }
        let outcome = ask.await;
        let mut state = slot.state.lock();
        match outcome {
            Ok(token) => {
                let header = token.header.clone();
                *state = State {
                    token: Some((token, Instant::now())),
                    ..State::default()
                };
                Ok(header)
            }
            Err(NoToken::Failed(error)) => {
                let now = Instant::now();
                // A failure at the asker's own deadline says little to those who have more time.
                let lasts = believed_for(&error, state.refused).filter(|_| now < deadline);
                state.failure = lasts.map(|lasts| (error.clone(), now + lasts));
                if matches!(error, Error::Denied { ours: true, .. }) {
                    state.refused = state.refused.saturating_add(1);
                }
                Err(NoToken::Failed(error))
            }
            Err(not_asked) => Err(not_asked),
        }
    }
}

impl Slot {
    /// What is known without asking; `None`: ask.
    fn outcome(&self, refused: Option<Refused<'_>>) -> Option<Result<HeaderValue, NoToken>> {
        let now = Instant::now();
        let state = self.state.lock();
        if let Some((token, came)) = &state.token {
            match refused.filter(|refused| refused.header == token.header) {
                None if now < token.expires => return Some(Ok(token.header.clone())),
                Some(refused) if refused.reach && now - *came < FRESH => {
                    return Some(Err(NoToken::JustRefused));
                }
                _ => {}
            }
        }
        match &state.failure {
            Some((error, until)) if now < *until => Some(Err(NoToken::Failed(error.clone()))),
            _ => None,
        }
    }
}

/// How long a failure answers for a token service that `refused` our login so often before; `None` where it says nothing
/// about the next attempt.
fn believed_for(error: &Error, refused: u32) -> Option<Duration> {
    match error {
        Error::Denied { ours: true, .. } => Some(REFUSED.wait(refused)),
        Error::Denied { ours: false, .. } | Error::Invalid { .. } | Error::Refused { .. } => {
            Some(Duration::from_secs(5))
        }
        Error::RateLimited { retry_after, .. } => {
            let asked = retry_after.unwrap_or(Duration::from_secs(5));
            Some(asked.clamp(Duration::from_secs(1), Duration::from_mins(5)))
        }
        Error::Unavailable { .. } => Some(Duration::from_secs(1)),
        Error::NotFound { .. } | Error::Corrupt { .. } | Error::Loop | Error::Offline => None,
    }
}

/// Longer than the login itself rests, so that it is another repository, if one is asked for, that it is tried with next.
const REFUSED: Backoff = Backoff::new(Duration::from_secs(15), Duration::from_mins(5));
const MAX_TOKENS: u64 = 4096;
/// What a token reaches does not change within this time of its coming.
const FRESH: Duration = Duration::from_secs(1);
