//! Registries that an upstream's redirects lead to, and that want a token of their own (registry.k8s.io leads to
//! `*.pkg.dev`): they get what they give out to anybody, never our login.

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;
use url::Url;

use super::Authenticator;
use super::bearer::no_token;
use super::challenge::{self, Challenge};
use super::realm::{self, Realm};
use super::scope::Scopes;
use super::token::Plan;
use super::tokens::Refused;
use crate::oci::RepoName;
use crate::upstream::Error;

impl Authenticator {
    /// What to show `target`, which a redirect led to, where it is known to want a token and one is in hand or to be had.
    pub(in crate::upstream) async fn guest(
        &self,
        target: &Url,
        deadline: Instant,
    ) -> Option<HeaderValue> {
        let place = place(target)?;
        let plan = self.learned.guest(&place)?;
        let header = self.guest_token(&plan, &place.1, None, deadline).await.ok();
        if header.is_none() {
            self.learned.forget_guest(&place);
        }
        header
    }

    /// What to try again with after `target`, which a redirect led to, answered `401` with these `headers` to a request
    /// with the `sent` token, if any. `None`: it does not ask for a token, and the answer stands.
    ///
    /// The realm is held to the same rules as the upstream's own: encrypted, and at no inner address. Nor is it the upstream,
    /// which we meet at whatever address and may show a certificate: what it gives to us is not the target's to have.
    pub(in crate::upstream) async fn guest_challenged(
        &self,
        target: &Url,
        headers: &HeaderMap,
        sent: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<Option<HeaderValue>, Error> {
        let (Some(place), Some(Challenge::Bearer(bearer))) =
            (place(target), challenge::strongest(headers))
        else {
            return Ok(None);
        };
        let realm = Realm::resolve(&bearer.realm, target, &self.upstream)?;
        if realm::is_own(&realm.url, &self.base) {
            return Ok(None);
        }
        let plan = Plan {
            realm,
            service: bearer.service.filter(|name| !name.is_empty()),
            scopes: Scopes::wanted(bearer.scope.as_deref(), &place.1),
        };
        let refused = sent.map(|header| Refused {
            header,
            reach: bearer.wants_more,
        });
        let header = self.guest_token(&plan, &place.1, refused, deadline).await?;
        self.learned.guest_wants_token(place, plan);
        Ok(Some(header))
    }

    async fn guest_token(
        &self,
        plan: &Plan,
        repository: &RepoName,
        refused: Option<Refused<'_>>,
        deadline: Instant,
    ) -> Result<HeaderValue, Error> {
        let token = self.token_for(plan, None, refused, deadline).await;
        token.map_err(|none| no_token(none, &self.upstream, repository))
    }
}

/// A registry and a repository of it.
pub(super) type Place = (String, RepoName);

/// The registry and the repository that `target` asks for; `None` where it is no registry's URL.
fn place(target: &Url) -> Option<Place> {
    let (_, path) = target.path().split_once("/v2/")?;
    let end = ["/manifests/", "/blobs/", "/tags/", "/referrers/"]
        .iter()
        .filter_map(|part| path.rfind(part))
        .max()?;
    let registry = format!("{}://{}", target.scheme(), realm::host_port(target));
    Some((registry, path.get(..end)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place_of(url: &str) -> Option<(String, String)> {
        let (registry, repository) = place(&url.parse().unwrap())?;
        Some((registry, repository.to_string()))
    }

    #[test]
    fn a_registrys_url_tells_registry_and_repository() {
        let expected =
            |registry: &str, repository: &str| Some((registry.to_owned(), repository.to_owned()));
        assert_eq!(
            place_of("https://eu-docker.pkg.dev/v2/k8s/images/pause/manifests/3.9?ns=x"),
            expected("https://eu-docker.pkg.dev", "k8s/images/pause")
        );
        assert_eq!(
            place_of("http://r.example:81/api/v2/blobs/manifests/blobs/sha256:ab"),
            expected("http://r.example:81", "blobs/manifests")
        );
    }

    #[test]
    fn other_urls_are_no_registrys() {
        for url in [
            "https://storage.example/bucket/sha256/ab?X-Signature=1",
            "https://r.example/v2/",
            "https://r.example/v2/manifests/x",
            "https://r.example/v2/No/manifests/x",
        ] {
            assert_eq!(place_of(url), None, "{url}");
        }
    }
}
