//! Where the path of an upstream's URL goes.

use url::Url;

use super::Error;
use crate::oci::RepoName;

/// Where a URL's path goes.
///
/// Registries have their API at `/v2/` and tell repositories apart behind it, so a path is a prefix of the repository
/// names: with `https://harbor.example/project`, `app` is asked for as `/v2/project/app/…`, and tokens are asked for
/// `project/app`. A path with a component `v2` says itself where the API is: `https://example/ghcr.io/v2` asks for
/// `/ghcr.io/v2/app/…`, and what follows the `v2` is a prefix as above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Paths {
    /// Before `/v2/`: empty, or starting with a slash.
    before: String,
    /// Before the repository: empty, or components without a final slash.
    prefix: String,
}

impl Paths {
    /// Of `url`; `None` where its path cannot be a part of repository names.
    pub(super) fn of(url: &Url) -> Option<Self> {
        let components: Vec<&str> = url
            .path()
            .split('/')
            .filter(|part| !part.is_empty())
            .collect();
        let at = components.iter().position(|part| *part == "v2");
        let (before, prefix) = match at {
            Some(at) => components.split_at(at),
            None => components.split_at(0),
        };
        let prefix = prefix
            .iter()
            .skip(usize::from(at.is_some()))
            .copied()
            .collect::<Vec<_>>()
            .join("/");
        let paths = Self {
            before: before.iter().flat_map(|part| ["/", part]).collect(),
            prefix,
        };
        (paths.prefix.is_empty() || paths.prefix.parse::<RepoName>().is_ok()).then_some(paths)
    }

    /// The repository as this URL's registry names it.
    pub(super) fn repository(&self, repository: &RepoName) -> Result<RepoName, Error> {
        if self.prefix.is_empty() {
            return Ok(repository.clone());
        }
        repository.prefixed(&self.prefix).map_err(|error| {
            Error::invalid(format!(
                "{}/{repository} cannot be asked for: {error}",
                self.prefix
            ))
        })
    }

    /// Where the API is: a path that starts with a slash and ends in `/v2/`.
    pub(super) fn api(&self) -> String {
        format!("{}/v2/", self.before)
    }

    /// The API at `url`, which has these paths.
    pub(super) fn base(&self, url: &Url) -> Url {
        let mut base = url.clone();
        base.set_path(&self.api());
        base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(url: &str) -> Option<(String, String)> {
        Paths::of(&url.parse().unwrap()).map(|paths| (paths.before, paths.prefix))
    }

    #[test]
    fn the_api_is_where_the_path_says_or_at_the_root() {
        for (url, base) in [
            ("https://r.example", "https://r.example/v2/"),
            ("https://r.example/project", "https://r.example/v2/"),
            ("https://r.example/x/y/v2/p", "https://r.example/x/y/v2/"),
        ] {
            let url: Url = url.parse().unwrap();
            assert_eq!(Paths::of(&url).unwrap().base(&url).as_str(), base);
        }
    }

    #[test]
    fn a_urls_path_prefixes_the_repository_unless_it_says_where_v2_is() {
        let pair = |before: &str, prefix: &str| Some((before.to_owned(), prefix.to_owned()));
        assert_eq!(paths("https://r.example"), pair("", ""));
        assert_eq!(paths("https://r.example/project"), pair("", "project"));
        assert_eq!(paths("https://r.example/a/b/"), pair("", "a/b"));
        assert_eq!(paths("https://r.example/ghcr.io/v2"), pair("/ghcr.io", ""));
        assert_eq!(paths("https://r.example/v2/project"), pair("", "project"));
        assert_eq!(paths("https://r.example/x/y/v2/p/q"), pair("/x/y", "p/q"));
        assert_eq!(paths("https://r.example/Project"), None);
    }
}
