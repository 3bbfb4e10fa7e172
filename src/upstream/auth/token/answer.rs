//! What a token service answers (PROTOCOL 3.4). Total on any bytes.

use std::time::Duration;

use http::HeaderValue;
use serde::Deserialize;

/// What a token service answers. Holds secrets, hence no `Debug`.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
}

/// The token, as the header that shows it, marked sensitive, and how long it may be sent; `None` where there is none.
pub(super) fn read(body: &[u8]) -> Option<(HeaderValue, Duration)> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let token = [answer.token, answer.access_token]
        .into_iter()
        .flatten()
        .find(|token| !token.is_empty())?;
    let mut header = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    let lifetime = lifetime(answer.expires_in.as_ref());
    Some((
        header,
        lifetime.saturating_sub((lifetime / 5).min(MAX_MARGIN)),
    ))
}

/// `expires_in` in whole seconds, however it is written. Missing or zero is the specification's 60 s; less than that
/// is believed, since some services do give out shorter tokens.
fn lifetime(expires_in: Option<&serde_json::Value>) -> Duration {
    let seconds = match expires_in {
        Some(serde_json::Value::Number(number)) => number.as_f64(),
        Some(serde_json::Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    seconds
        .filter(|&seconds: &f64| seconds > 0.0)
        .map_or(DEFAULT_LIFETIME, |seconds| {
            Duration::try_from_secs_f64(seconds).map_or(MAX_LIFETIME, |d| d.min(MAX_LIFETIME))
        })
}

const DEFAULT_LIFETIME: Duration = Duration::from_mins(1);
const MAX_LIFETIME: Duration = Duration::from_hours(24);
/// A token is not sent in its last fifth, or its last 20 s if that is less.
const MAX_MARGIN: Duration = Duration::from_secs(20);
