//! Manifests: `GET` and `HEAD` of `/v2/<name>/manifests/<reference>` (distribution-spec, "Pulling manifests").

use bytes::Bytes;
use http::header::ETAG;
use http::{HeaderName, Method};

use super::Error;
use super::answer::Reply;
use super::client::{Asking, Call, Upstream};
use super::endpoint::MANIFEST;
use super::failure::Failure;
use super::health::{Load, Tries};
use crate::oci::{Digest, ManifestError, ManifestInfo, MediaType, Reference, RepoName};

/// Largest manifest that is taken, in bytes: what registries must accept (distribution-spec, "Pushing manifests").
const MAX_MANIFEST: usize = 4 << 20;

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A manifest as the upstream sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its bytes, unchanged.
    pub bytes: Bytes,
    /// Its type: the upstream's, or the body's own where the upstream's says nothing.
    pub media_type: MediaType,
    /// The digest of `bytes`: the one that it was asked by or that the upstream named, if it matches, else SHA-256.
    pub digest: Digest,
    /// The upstream's `ETag`, as sent.
    pub etag: Option<String>,
}

/// What a `HEAD` tells of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestHead {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub len: u64,
    /// Its type.
    pub media_type: MediaType,
    /// The upstream's `ETag`, as sent.
    pub etag: Option<String>,
    /// The manifest itself, where the answer to `HEAD` lacked something and a `GET` was needed.
    pub body: Option<Manifest>,
}

impl Upstream {
    /// Asks what a reference stands for, which Docker Hub does not count as a pull.
    ///
    /// An answer without digest, length or usable type, or none to `HEAD` at all, costs one `GET`.
    pub async fn head_manifest(
        &self,
        repository: &RepoName,
        reference: &Reference,
        call: &Call,
    ) -> Result<ManifestHead, Error> {
        let mut tries = Tries::until(call.deadline);
        let head = loop {
            let asking = asking(Method::HEAD, repository, reference);
            match self.ask(asking, Load::Small, call).await {
                Ok(reply) => break read_head(&reply, reference)?,
                // 405 and the like: the method is what is wrong.
                Err(Failure {
                    error: Error::Invalid { .. },
                    ..
                }) => break None,
                Err(failure) => tries.after(failure).await?,
            }
        };
        if let Some(head) = head {
            return Ok(head);
        }
        let manifest = self.get_manifest(repository, reference, call).await?;
        Ok(ManifestHead {
            digest: manifest.digest.clone(),
            len: manifest.bytes.len() as u64,
            media_type: manifest.media_type.clone(),
            etag: manifest.etag.clone(),
            body: Some(manifest),
        })
    }

    /// Fetches a manifest of at most 4 MiB. One asked by a digest that can be verified matches it, or is
    /// [`Error::Corrupt`].
    pub async fn get_manifest(
        &self,
        repository: &RepoName,
        reference: &Reference,
        call: &Call,
    ) -> Result<Manifest, Error> {
        let mut tries = Tries::until(call.deadline);
        loop {
            match self.get_manifest_once(repository, reference, call).await {
                Ok(manifest) => return Ok(manifest),
                Err(failure) => tries.after(failure).await?,
            }
        }
    }

    async fn get_manifest_once(
        &self,
        repository: &RepoName,
        reference: &Reference,
        call: &Call,
    ) -> Result<Manifest, Failure> {
        let asking = asking(Method::GET, repository, reference);
        let reply = self.ask(asking, Load::Small, call).await?;
        check_ok(&reply)?;
        reply.check_content()?;
        let from = reply.from.clone();
        let sent_type = reply.media_type();
        let named = named_digest(&reply);
        let etag = reply.header(ETAG).map(str::to_owned);
        if reply
            .content_length()
            .is_some_and(|len| len > MAX_MANIFEST as u64)
        {
            let message = format!(
                "{from} is larger than {MAX_MANIFEST} bytes, the most that a manifest may have"
            );
            return Err(Error::invalid(message).into());
        }
        let bytes = reply.read(MAX_MANIFEST, call.deadline).await?;
        self.metrics
            .upstream
            .received(self.name().as_str(), bytes.len() as u64);
        let digest = match reference {
            Reference::Digest(asked) if asked.is_verifiable() => {
                self.verified(asked, &bytes, &from)?
            }
            _ => named
                .filter(|named| matches(named, &bytes) == Some(true))
                .unwrap_or_else(|| Digest::sha256(&bytes)),
        };
        let info = ManifestInfo::parse(sent_type.as_ref(), &bytes)
            .map_err(|error| unusable(&from, &error))?;
        Ok(Manifest {
            bytes,
            media_type: info.media_type,
            digest,
            etag,
        })
    }

    fn verified(&self, asked: &Digest, bytes: &[u8], from: &str) -> Result<Digest, Error> {
        if matches(asked, bytes) == Some(true) {
            return Ok(asked.clone());
        }
        self.metrics.upstream.verify_failed(self.name().as_str());
        Err(Error::Corrupt {
            message: format!("{from} sent bytes that do not match {asked}"),
        })
    }
}

fn asking<'a>(method: Method, repository: &'a RepoName, reference: &Reference) -> Asking<'a> {
    Asking {
        kind: if method == Method::HEAD {
            "manifest_head"
        } else {
            MANIFEST
        },
        method,
        repository,
        path: format!("manifests/{reference}"),
        query: "",
        accept: Some(MediaType::ACCEPT),
        range: None,
    }
}

/// A manifest that nobody can use. One of schema 1 counts as absent, since what current clients take is.
fn unusable(from: &impl std::fmt::Display, error: &ManifestError) -> Error {
    let message = format!("{from} is no usable manifest: {error}");
    match error {
        ManifestError::Schema1 => Error::NotFound { message },
        _ => Error::invalid(message),
    }
}

/// What the answer to `HEAD` says; `None` where it lacks something.
fn read_head(reply: &Reply, reference: &Reference) -> Result<Option<ManifestHead>, Error> {
    check_ok(reply)?;
    reply.check_content()?;
    let media_type = reply
        .media_type()
        .filter(|media_type| !media_type.is_generic());
    let len = reply.content_length().filter(|len| *len > 0);
    let (Some(media_type), Some(len), Some(named)) = (media_type, len, named_digest(reply)) else {
        return Ok(None);
    };
    let from = &reply.from;
    if media_type.is_schema1() {
        return Err(unusable(from, &ManifestError::Schema1));
    }
    let digest = match reference {
        Reference::Digest(asked) if asked.algorithm() != named.algorithm() => asked.clone(),
        Reference::Digest(asked) if *asked != named => {
            return Err(Error::Corrupt {
                message: format!("{from} is said to be {named}"),
            });
        }
        _ => named,
    };
    let etag = reply.header(ETAG).map(str::to_owned);
    Ok(Some(ManifestHead {
        digest,
        len,
        media_type,
        etag,
        body: None,
    }))
}

fn check_ok(reply: &Reply) -> Result<(), Error> {
    match reply.status().as_u16() {
        200 | 203 => Ok(()),
        status => Err(Error::invalid(format!(
            "{} answered {status} to a whole request",
            reply.from
        ))),
    }
}

fn named_digest(reply: &Reply) -> Option<Digest> {
    reply.header(DOCKER_CONTENT_DIGEST)?.trim().parse().ok()
}

/// Whether `bytes` have this digest; `None` where that cannot be computed.
fn matches(digest: &Digest, bytes: &[u8]) -> Option<bool> {
    Digest::of(digest.algorithm(), bytes).map(|computed| computed == *digest)
}
