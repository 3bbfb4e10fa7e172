//! Routes: what a request asks for, read from its method and URI alone (distribution-spec, "Endpoints").
//!
//! Pure and total: every method and URI gives a [`Route`] or a [`RouteError`]. Only the shape is decided here; which
//! upstream a [`Target`] means is decided in `proxy/select.rs`.

use http::{Method, Uri};
use percent_encoding::percent_decode_str;

use super::{Digest, DigestError, NameError, Reference, ReferenceError, RepoName};

mod query;

use query::Query;
pub use query::TagsQuery;
pub(super) use query::{encode, parameters};

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/healthz`.
    Health,
    /// `/v2/`, `/v2` and the same behind a prefix: whether this is a registry.
    Base,
    /// `/v2/_catalog`: the repositories that are cached.
    Catalog {
        /// Most names wanted.
        n: Option<u32>,
        /// Last name of the page before.
        last: Option<String>,
    },
    /// `/v2/<name>/manifests/<reference>`.
    Manifest {
        /// Whose.
        target: Target,
        /// Which.
        reference: Reference,
    },
    /// `/v2/<name>/blobs/<digest>`.
    Blob {
        /// Whose.
        target: Target,
        /// Which.
        digest: Digest,
    },
    /// `/v2/<name>/tags/list`.
    Tags {
        /// Whose.
        target: Target,
        /// Which page.
        query: TagsQuery,
    },
    /// `/v2/<name>/referrers/<digest>`.
    Referrers {
        /// Whose.
        target: Target,
        /// What is referred to.
        digest: Digest,
        /// Values of `artifactType`, decoded; empty: all.
        artifact_types: Vec<String>,
        /// The whole query as received, its parameters sorted and `ns` left out.
        query: String,
    },
}

/// A repository as the client wrote it, together with everything in the URI that may say whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Text before `/v2/` (`ghcr.io` of `/ghcr.io/v2/…`); may hold slashes. `None` when the path starts with `/v2`.
    pub prefix: Option<String>,
    /// First component of the path, lower-case, when it can only be a host and no part of a repository name: it has a
    /// port or capitals, or the name would be too long with it. Never together with `prefix`.
    pub registry: Option<String>,
    /// The repository as written, behind `registry`; its first component may still name an upstream.
    pub repository: RepoName,
    /// Value of `?ns=`, decoded, lower-case, not empty.
    pub ns: Option<String>,
}

/// Why a request has no route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Neither `GET` nor `HEAD`; the answer carries [`Route::ALLOW`].
    #[error(
        "only GET and HEAD are served: this is a mirror to pull from, push to the registry itself"
    )]
    Method,
    /// No endpoint has this path.
    #[error("no such endpoint: ask for /v2/<name>/manifests/, blobs/, tags/list or referrers/")]
    NotFound,
    /// A `.` or `..` between slashes, or bytes that are not UTF-8.
    #[error("the path has '.' or '..' between slashes or is not UTF-8: write it plainly")]
    Path,
    /// What stands where the repository name should is none.
    #[error("{text:?} is not a repository name: {error}")]
    Name {
        /// The beginning of it.
        text: String,
        /// What is wrong.
        error: NameError,
    },
    /// What stands where a tag or digest should is neither.
    #[error("{text:?} is neither a tag nor a digest: {error}")]
    Reference {
        /// The beginning of it.
        text: String,
        /// What is wrong.
        error: ReferenceError,
    },
    /// What stands where a digest should is none.
    #[error("{text:?} is not a digest: {error}")]
    Digest {
        /// The beginning of it.
        text: String,
        /// What is wrong.
        error: DigestError,
    },
    /// `n` is not a number from 0 to 4294967295.
    #[error("{text:?} is no number of results: write n as a whole number, 0 or more")]
    PageSize {
        /// The beginning of it.
        text: String,
    },
    /// `ns` is given more than once, so that it is not clear whose the content is.
    #[error("ns is given more than once: name one registry")]
    TwoNamespaces,
}

impl Route {
    /// The methods that are served, as the `Allow` header of a `405` names them.
    pub const ALLOW: &str = "GET, HEAD";

    /// Reads what a request asks for.
    ///
    /// The path is percent-decoded once, empty components are dropped, and it is read from the right, since a repository
    /// may have components named `blobs`, `manifests`, `tags` or `referrers`.
    pub fn parse(method: &Method, uri: &Uri) -> Result<Self, RouteError> {
        if method != Method::GET && method != Method::HEAD {
            return Err(RouteError::Method);
        }
        let path = percent_decode_str(uri.path())
            .decode_utf8()
            .map_err(|_| RouteError::Path)?;
        let components: Vec<&str> = path.split('/').filter(|text| !text.is_empty()).collect();
        if components.iter().any(|text| matches!(*text, "." | "..")) {
            return Err(RouteError::Path);
        }
        if components == ["healthz"] {
            return Ok(Self::Health);
        }
        let mut halves = components.splitn(2, |text| *text == "v2");
        let (Some(before), Some(after)) = (halves.next(), halves.next()) else {
            return Err(RouteError::NotFound);
        };
        let prefix = (!before.is_empty()).then(|| before.join("/"));
        Self::behind_version(prefix, after, Query::new(uri.query().unwrap_or_default()))
    }

    /// Reads the components behind `/v2/`.
    fn behind_version(
        prefix: Option<String>,
        components: &[&str],
        query: Query<'_>,
    ) -> Result<Self, RouteError> {
        let ns = query.ns()?;
        let target = |name: &[&str]| Target::new(prefix, name, ns);
        match components {
            [] => Ok(Self::Base),
            ["_catalog"] => Ok(Self::Catalog {
                n: query.n()?,
                last: query.last(),
            }),
            [name @ .., "manifests", reference] => Ok(Self::Manifest {
                target: target(name)?,
                reference: reference.parse().map_err(|error| RouteError::Reference {
                    text: excerpt(reference),
                    error,
                })?,
            }),
            // Uploads: there are none here, whatever their name.
            [.., "blobs", "uploads"] | [.., "blobs", "uploads", _] => Err(RouteError::NotFound),
            [name @ .., "blobs", digest] => Ok(Self::Blob {
                target: target(name)?,
                digest: parse_digest(digest)?,
            }),
            [name @ .., "tags", "list"] => Ok(Self::Tags {
                target: target(name)?,
                query: query.tags()?,
            }),
            [name @ .., "referrers", digest] => Ok(Self::Referrers {
                target: target(name)?,
                digest: parse_digest(digest)?,
                artifact_types: query.artifact_types(),
                query: query.canonical(),
            }),
            _ => Err(RouteError::NotFound),
        }
    }
}

impl Target {
    fn new(
        prefix: Option<String>,
        components: &[&str],
        ns: Option<String>,
    ) -> Result<Self, RouteError> {
        let (registry, repository) = match (components.join("/").parse(), components) {
            (Ok(repository), _) => (None, repository),
            (Err(_), [first, rest @ ..])
                if prefix.is_none() && !rest.is_empty() && is_host(first) =>
            {
                (Some(first.to_ascii_lowercase()), parse_name(rest)?)
            }
            (Err(error), _) => return Err(bad_name(components, error)),
        };
        Ok(Self {
            prefix,
            registry,
            repository,
            ns,
        })
    }

    /// The path up to and with the repository, as the client wrote it: `/ghcr.io/v2/org/app`, `/v2/ghcr.io/org/app`.
    pub fn path(&self) -> String {
        let mut path = String::new();
        if let Some(prefix) = &self.prefix {
            path.push('/');
            path.push_str(prefix);
        }
        path.push_str("/v2/");
        if let Some(registry) = &self.registry {
            path.push_str(registry);
            path.push('/');
        }
        path.push_str(self.repository.as_str());
        path
    }
}

fn parse_name(components: &[&str]) -> Result<RepoName, RouteError> {
    components
        .join("/")
        .parse()
        .map_err(|error| bad_name(components, error))
}

fn bad_name(components: &[&str], error: NameError) -> RouteError {
    RouteError::Name {
        text: excerpt(&components.join("/")),
        error,
    }
}

fn parse_digest(text: &str) -> Result<Digest, RouteError> {
    text.parse().map_err(|error| RouteError::Digest {
        text: excerpt(text),
        error,
    })
}

/// Whether `text` is a host that cannot be taken for an organisation: it has a dot or a port.
fn is_host(text: &str) -> bool {
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let good_name = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    match port {
        Some(port) => good_name && port.parse::<u16>().is_ok(),
        None => good_name && name.contains('.'),
    }
}

/// The beginning of a text that was refused, short enough for a message.
fn excerpt(text: &str) -> String {
    const MOST: usize = 128;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
