//! Lists: tags and referrers (distribution-spec, "Listing tags" and "Listing referrers").

use bytes::Bytes;
use http::header::LINK;
use http::{HeaderName, Method};

use super::Error;
use super::client::{Asking, Call, Upstream};
use super::failure::Failure;
use super::health::{Load, Tries};
use crate::oci::{self, Digest, MediaType, RepoName, TagsQuery};

/// Largest list that is taken, in bytes; a page of a hundred thousand tags is smaller.
const MAX_LIST: usize = 16 << 20;

const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// A page of a list as the upstream sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListAnswer {
    /// JSON, unchanged. Names the repository as the upstream does, the prefix in its url included.
    pub body: Bytes,
    /// Its type.
    pub media_type: MediaType,
    /// Query string of the next page, without `ns`; `None` on the last page.
    pub next: Option<String>,
    /// `OCI-Filters-Applied`, as sent.
    pub filters_applied: Option<String>,
}

impl Upstream {
    /// Asks for a page of a repository's tags.
    pub async fn tags(
        &self,
        repository: &RepoName,
        query: &TagsQuery,
        call: &Call,
    ) -> Result<ListAnswer, Error> {
        let asking = || Asking {
            method: Method::GET,
            kind: "tags",
            repository,
            path: "tags/list".to_owned(),
            query: query.as_query(),
            accept: Some("application/json"),
            range: None,
        };
        self.list(asking, call).await
    }

    /// Asks what refers to a manifest; `query` is encoded, without `ns`. An upstream without the API is
    /// [`Error::NotFound`].
    pub async fn referrers(
        &self,
        repository: &RepoName,
        digest: &Digest,
        query: &str,
        call: &Call,
    ) -> Result<ListAnswer, Error> {
        let asking = || Asking {
            method: Method::GET,
            kind: "referrers",
            repository,
            path: format!("referrers/{digest}"),
            query,
            accept: Some(MediaType::OCI_INDEX),
            range: None,
        };
        self.list(asking, call).await
    }

    async fn list<'a>(
        &self,
        asking: impl Fn() -> Asking<'a> + Send,
        call: &Call,
    ) -> Result<ListAnswer, Error> {
        let mut tries = Tries::until(call.deadline);
        loop {
            match self.list_once(asking(), call).await {
                Ok(list) => return Ok(list),
                Err(failure) => tries.after(failure).await?,
            }
        }
    }

    async fn list_once(&self, asking: Asking<'_>, call: &Call) -> Result<ListAnswer, Failure> {
        let reply = self.ask(asking, Load::List, call).await?;
        reply.check_content()?;
        let from = reply.from.clone();
        let media_type = reply
            .media_type()
            .or_else(|| MediaType::parse("application/json"))
            .filter(|_| reply.status() == 200)
            .ok_or_else(|| {
                Error::invalid(format!("{from} answered {}", reply.status().as_u16()))
            })?;
        let filters_applied = reply.header(OCI_FILTERS_APPLIED).map(str::to_owned);
        let links = reply.response.headers().get_all(LINK).iter();
        let next = links
            .filter_map(|link| link.to_str().ok())
            .find_map(oci::next_query);
        let body = reply.read(MAX_LIST, call.deadline).await?;
        self.metrics
            .upstream
            .received(self.name().as_str(), body.len() as u64);
        if serde_json::from_slice::<&serde_json::value::RawValue>(&body).is_err() {
            let message = format!("{from} answered with what is not JSON");
            return Err(Error::invalid(message).into());
        }
        Ok(ListAnswer {
            body,
            media_type,
            next,
            filters_applied,
        })
    }
}
