//! Lists of what is stored.

use bytes::Bytes;

use crate::oci::{
    self, Descriptor, Digest, ManifestInfo, MediaType, ReferrersIndex, TagList, TagsQuery,
};
use crate::store::{RefKind, RefKindName};

use super::super::manifests::Held;
use super::{CacheOutcome, Error, ListAnswer, Lists, Place};

/// Most manifests that are read for a list of referrers.
const SCANNED: usize = 16_384;

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
        let mut tags: Vec<String> = keys
            .into_iter()
            .filter_map(|key| match key.kind {
                RefKind::Tag(tag) => Some(tag.to_string()),
                _ => None,
            })
            .collect();
        if tags.is_empty() {
            return Ok(None);
        }
        tags.sort_unstable();
        let (page, more) = oci::page(&tags, query.n, query.last.as_deref());
        let last = page.last().filter(|_| more);
        let next = last.map(|last| TagsQuery::new(query.n, Some(last)).as_query().to_owned());
        let body = TagList {
            name: place.repository.to_string(),
            tags: page.to_vec(),
        };
        Ok(built(body.to_json(), "application/json", next))
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
        let mut index = ReferrersIndex::default();
        for key in keys.into_iter().take(SCANNED) {
            let RefKind::Manifest(candidate) = key.kind else {
                continue;
            };
            let held = self.manifests.peek(place, &candidate).await;
            index
                .manifests
                .extend(held.and_then(|held| referrer(&held, digest)));
        }
        if index.manifests.is_empty() {
            return Ok(None);
        }
        index.manifests.sort_by(|a, b| a.digest.cmp(&b.digest));
        index.retain_types(artifact_types);
        let answer = built(index.to_json(), MediaType::OCI_INDEX, None);
        Ok(answer.map(|answer| ListAnswer {
            filters_applied: (!artifact_types.is_empty()).then(|| "artifactType".to_owned()),
            ..answer
        }))
    }
}

/// A manifest as an entry of the list, if it refers to `subject`.
fn referrer(held: &Held, subject: &Digest) -> Option<Descriptor> {
    let info = ManifestInfo::parse(Some(&held.media_type), &held.bytes).ok()?;
    (info.subject.as_ref() == Some(subject))
        .then(|| info.as_referrer(held.digest.clone(), held.bytes.len() as u64))
}

/// An answer of our own, which says that it may not be all there is.
fn built(body: Vec<u8>, media_type: &str, next: Option<String>) -> Option<ListAnswer> {
    Some(ListAnswer {
        body: Bytes::from(body),
        media_type: MediaType::parse(media_type)?,
        next,
        filters_applied: None,
        outcome: CacheOutcome::Hit,
        warning: Some("lists what is cached".to_owned()),
    })
}
