//! What a right registry answers: a function of the request and of what is on the shelf.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use bytes::Bytes;
use http::StatusCode;
use layby::oci::Digest;
use serde_json::{Value, json};

use super::content::Content;
use super::wire::Head;

/// An answer before any script has changed it.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(String, String)>,
    pub(super) content: Content,
    /// The part of the content that is sent.
    pub(super) range: Range<u64>,
}

/// What a registry holds.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub(super) repositories: BTreeMap<String, Repository>,
    /// What a storage host holds, by the path it is asked for.
    pub(super) objects: HashMap<String, Content>,
    /// And what it may be asked with.
    pub(super) signatures: HashSet<String>,
}

/// A repository.
#[derive(Debug, Default)]
pub(super) struct Repository {
    pub(super) blobs: HashMap<Digest, Content>,
    pub(super) manifests: HashMap<Digest, Manifest>,
    pub(super) tags: BTreeMap<String, Digest>,
}

/// A manifest.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) media_type: String,
    pub(super) content: Content,
}

/// A request below `/v2/<repository>/`.
pub(super) struct Ask<'a> {
    pub(super) repository: &'a str,
    pub(super) kind: &'a str,
    pub(super) reference: &'a str,
}

impl<'a> Ask<'a> {
    /// What a path asks for.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix("/v2/")?;
        let (rest, reference) = rest.rsplit_once('/')?;
        let (repository, kind) = rest.rsplit_once('/')?;
        Some(Self {
            repository,
            kind,
            reference,
        })
    }
}

impl Answer {
    pub(super) fn new(status: StatusCode, media_type: &str, body: impl Into<Bytes>) -> Self {
        Self::of(status, media_type, Content::bytes(body))
    }

    fn of(status: StatusCode, media_type: &str, content: Content) -> Self {
        Self {
            status,
            headers: vec![
                ("Content-Type".into(), media_type.into()),
                (
                    "Docker-Distribution-Api-Version".into(),
                    "registry/2.0".into(),
                ),
            ],
            range: 0..content.len(),
            content,
        }
    }

    pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self::new(status, "application/json", body)
    }

    pub(super) fn error(status: StatusCode, code: &str) -> Self {
        let body = json!({ "errors": [{ "code": code, "message": format!("fake: {code}") }] });
        Self::json(status, body.to_string())
    }

    pub(super) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Content by digest, or the part of it that the request wants.
    pub(super) fn content(head: &Head, content: &Content, ignores_range: bool) -> Self {
        let len = content.len();
        let whole = Self::of(StatusCode::OK, "application/octet-stream", content.clone())
            .header("Docker-Content-Digest", content.digest().as_str())
            .header("Accept-Ranges", "bytes");
        let Some(spec) = head.header("range").filter(|_| !ignores_range) else {
            return whole;
        };
        match one_range(spec, len) {
            None => whole,
            Some(range) if range.is_empty() => {
                Self::error(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID")
                    .header("Content-Range", format!("bytes */{len}"))
            }
            Some(range) => {
                let text = format!("bytes {}-{}/{len}", range.start, range.end - 1);
                Self {
                    status: StatusCode::PARTIAL_CONTENT,
                    range,
                    ..whole
                }
                .header("Content-Range", text)
            }
        }
    }
}

/// The single range of a header, clamped; empty when it cannot be satisfied, `None` when it is several or none.
fn one_range(spec: &str, len: u64) -> Option<Range<u64>> {
    let (first, last) = spec.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        let suffix: u64 = last.parse().ok()?;
        return Some(len.saturating_sub(suffix)..len);
    }
    let start: u64 = first.parse().ok()?;
    let end = match last {
        "" => len,
        last => last.parse::<u64>().ok()?.saturating_add(1).min(len),
    };
    Some(start..end.max(start))
}

impl Shelf {
    /// The answer to `ask`.
    pub(super) fn answer(&self, head: &Head, ask: &Ask<'_>, rules: &Habits) -> Answer {
        let Some(repository) = self.repositories.get(ask.repository) else {
            return Answer::error(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
        };
        match (ask.kind, ask.reference) {
            ("blobs", digest) => match digest.parse().ok().and_then(|d| repository.blobs.get(&d)) {
                Some(content) => Answer::content(head, content, rules.ignores_range),
                None => Answer::error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            },
            ("manifests", reference) => repository.manifest(head, reference),
            ("tags", "list") => repository.tag_list(head, ask.repository, &rules.origin),
            ("referrers", digest) if rules.referrers => repository.referrers(head, digest),
            _ => Answer::error(StatusCode::NOT_FOUND, "UNSUPPORTED"),
        }
    }
}

/// What a registry does and does not do.
#[derive(Debug, Clone, Default)]
pub(super) struct Habits {
    pub(super) ignores_range: bool,
    pub(super) referrers: bool,
    /// Its own address, for absolute links.
    pub(super) origin: String,
}

impl Repository {
    fn manifest(&self, head: &Head, reference: &str) -> Answer {
        let digest = match self.tags.get(reference) {
            Some(digest) => Some(digest.clone()),
            None => reference.parse().ok(),
        };
        let Some(manifest) = digest.and_then(|digest| self.manifests.get(&digest)) else {
            return Answer::error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
        };
        // Several registries hide what is not asked for by type (PROTOCOL 0, 14).
        let accepted = head.header("accept").unwrap_or_default();
        if !accepted.contains(&manifest.media_type) {
            return Answer::error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
        }
        let digest = manifest.content.digest().as_str();
        Answer::of(
            StatusCode::OK,
            &manifest.media_type,
            manifest.content.clone(),
        )
        .header("Docker-Content-Digest", digest)
        .header("ETag", format!("\"{digest}\""))
    }

    fn tag_list(&self, head: &Head, name: &str, origin: &str) -> Answer {
        let last = head.query_values("last").pop().unwrap_or_default();
        let mut tags: Vec<_> = self
            .tags
            .keys()
            .filter(|tag| **tag > last)
            .cloned()
            .collect();
        let wanted = head.query_values("n").pop().and_then(|n| n.parse().ok());
        let mut link = None;
        if let Some(n) = wanted.filter(|n: &usize| *n < tags.len()) {
            tags.truncate(n);
            link = tags.last().map(|last| {
                format!("<{origin}/v2/{name}/tags/list?n={n}&last={last}>; rel=\"next\"")
            });
        }
        let answer = Answer::json(
            StatusCode::OK,
            json!({ "name": name, "tags": tags }).to_string(),
        );
        match link {
            Some(link) => answer.header("Link", link),
            None => answer,
        }
    }

    fn referrers(&self, head: &Head, digest: &str) -> Answer {
        let wanted = head.query_values("artifactType").pop();
        let mut manifests = Vec::new();
        for manifest in self.manifests.values() {
            let body: Value = serde_json::from_slice(&manifest.content.all()).unwrap_or_default();
            let kind = body["artifactType"].as_str();
            if body["subject"]["digest"] == digest
                && wanted.as_deref().is_none_or(|w| kind == Some(w))
            {
                manifests.push(json!({
                    "mediaType": manifest.media_type,
                    "digest": manifest.content.digest().as_str(),
                    "size": manifest.content.len(),
                    "artifactType": kind,
                }));
            }
        }
        let index = "application/vnd.oci.image.index.v1+json";
        let body = json!({ "schemaVersion": 2, "mediaType": index, "manifests": manifests });
        let answer = Answer::new(StatusCode::OK, index, body.to_string());
        match wanted {
            Some(_) => answer.header("OCI-Filters-Applied", "artifactType"),
            None => answer,
        }
    }
}
