//! Lists of what is stored.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::flight::ports::{RefKind, RefKindName};
use crate::oci::{Digest, ManifestInfo, ManifestKind, MediaType, Tag, TagsQuery};

use super::super::manifests::Held;
use super::{CacheOutcome, Error, ListAnswer, Lists, Place};

/// Most manifests that are read for a list of referrers.
const SCANNED: usize = 16_384;

#[derive(Serialize)]
struct TagsBody<'a> {
    name: &'a str,
    tags: Vec<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReferrersBody<'a> {
    schema_version: u8,
    media_type: &'a str,
    manifests: Vec<Referrer>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Referrer {
    media_type: MediaType,
    digest: Digest,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<Box<RawValue>>,
}

impl Lists {
    /// The tags that are stored of a repository; `None` where there are none at all.
    pub(super) async fn local_tags(
        &self,
        place: &Place,
        query: &TagsQuery,
    ) -> Result<Option<ListAnswer>, Error> {
        let records = &self.ctx.records;
        let keys = records
            .list(&place.upstream, &place.repository, RefKindName::Tag)
            .await?;
        let mut tags: Vec<Tag> = keys
            .into_iter()
            .filter_map(|key| match key.kind {
                RefKind::Tag(tag) => Some(tag),
                _ => None,
            })
            .collect();
        if tags.is_empty() {
            return Ok(None);
        }
        tags.sort_unstable();
        let (page, next) = page(&tags, query);
        let body = TagsBody {
            name: place.repository.as_str(),
            tags: page.iter().map(Tag::as_str).collect(),
        };
        Ok(Some(built(&body, "application/json", next)?))
    }

    /// The stored manifests of a repository whose `subject` is `digest`; `None` where there are none.
    pub(super) async fn local_referrers(
        &self,
        place: &Place,
        digest: &Digest,
        artifact_types: &[String],
    ) -> Result<Option<ListAnswer>, Error> {
        let Ok(_one_at_a_time) = self.scans.acquire().await else {
            return Err(Error::Stopping);
        };
        let records = &self.ctx.records;
        let keys = records
            .list(&place.upstream, &place.repository, RefKindName::Manifest)
            .await?;
        let mut found = BTreeMap::new();
        for key in keys.into_iter().take(SCANNED) {
            let RefKind::Manifest(candidate) = key.kind else {
                continue;
            };
            if let Some(held) = self.manifests.peek(place, &candidate).await
                && let Some(referrer) = referrer(&held, digest)
            {
                found.insert(candidate, referrer);
            }
        }
        if found.is_empty() {
            return Ok(None);
        }
        let manifests = found.into_values().filter(|referrer| {
            let is_wanted = |kind| artifact_types.contains(kind);
            artifact_types.is_empty() || referrer.artifact_type.as_ref().is_some_and(is_wanted)
        });
        let body = ReferrersBody {
            schema_version: 2,
            media_type: MediaType::OCI_INDEX,
            manifests: manifests.collect(),
        };
        let mut answer = built(&body, MediaType::OCI_INDEX, None)?;
        answer.filters_applied = (!artifact_types.is_empty()).then(|| "artifactType".to_owned());
        Ok(Some(answer))
    }
}

/// A manifest as an entry of the list, if it refers to `subject` (distribution-spec, "Listing Referrers").
fn referrer(held: &Held, subject: &Digest) -> Option<Referrer> {
    let info = ManifestInfo::parse(Some(&held.media_type), &held.bytes).ok()?;
    if info.subject.as_ref() != Some(subject) {
        return None;
    }
    let artifact_type = info.artifact_type.or(match info.kind {
        ManifestKind::Image { config, .. } => config.media_type,
        ManifestKind::Index { .. } | ManifestKind::Other { .. } => None,
    });
    Some(Referrer {
        media_type: held.media_type.clone(),
        digest: held.digest.clone(),
        size: held.bytes.len() as u64,
        artifact_type,
        annotations: info.annotations,
    })
}

fn built(
    body: &impl Serialize,
    media_type: &str,
    next: Option<String>,
) -> Result<ListAnswer, Error> {
    let body = serde_json::to_vec(body).map_err(std::io::Error::from)?;
    let media_type = MediaType::parse(media_type)
        .ok_or_else(|| std::io::Error::other("a media type of our own does not parse"))?;
    Ok(ListAnswer {
        body: Bytes::from(body),
        media_type,
        next,
        filters_applied: None,
        outcome: CacheOutcome::Hit,
        warning: None,
    })
}

/// The page of sorted `tags` that `query` asks for, and the query of the next one. A page of none has no next one
/// (distribution-spec, "Listing Tags").
fn page<'a>(tags: &'a [Tag], query: &TagsQuery) -> (&'a [Tag], Option<String>) {
    let from = query
        .last
        .as_deref()
        .map_or(0, |last| tags.partition_point(|tag| tag.as_str() <= last));
    let rest = tags.get(from..).unwrap_or_default();
    let size = query
        .n
        .map_or(rest.len(), |n| usize::try_from(n).unwrap_or(usize::MAX));
    let page = rest.get(..size).unwrap_or(rest);
    let next = match page.last() {
        Some(last) if page.len() < rest.len() => Some(tags_query(query.n, Some(last.as_str()))),
        _ => None,
    };
    (page, next)
}

/// A query of `tags/list`.
pub(super) fn tags_query(n: Option<u32>, last: Option<&str>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(n) = n {
        query.append_pair("n", &n.to_string());
    }
    if let Some(last) = last {
        query.append_pair("last", last);
    }
    query.finish()
}
