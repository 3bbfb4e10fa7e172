//! What a token is asked for (distribution's scope grammar; PROTOCOL 3.2).

use crate::oci::RepoName;

/// The scopes of one token, the needed one first, since some servers read only that. Empty only to see whether a login is
/// taken.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Scopes(Vec<String>);

impl Scopes {
    /// What to ask for when `challenge` came as an answer to a pull from `repository`.
    ///
    /// Repository scopes are narrowed to `pull`. A scope outside the grammar (ECR Public's `aws`) goes as it is. A
    /// challenge that names no repository, or another one, does not keep ours from being asked for first.
    pub(super) fn wanted(challenge: Option<&str>, repository: &RepoName) -> Self {
        let ours = format!("repository:{repository}:pull");
        let mut listed: Vec<String> = Vec::new();
        let mut names_ours = false;
        for text in challenge.unwrap_or_default().split_ascii_whitespace() {
            if text.len() > MAX_LEN || listed.len() == MAX_SCOPES {
                continue;
            }
            let scope = match resource(text) {
                None => {
                    names_ours = true;
                    text.to_owned()
                }
                Some((kind, name)) if is_repository(kind) => {
                    names_ours |= is_ours(name, repository);
                    format!("{kind}:{name}:pull")
                }
                Some(_) => text.to_owned(),
            };
            if !listed.contains(&scope) {
                listed.push(scope);
            }
        }
        if !names_ours {
            listed.insert(0, ours);
        }
        Self(listed)
    }

    /// None: a token for nothing, which a login gets all the same.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// Each scope.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// All of them in one field, as a `POST` wants them.
    pub(super) fn joined(&self) -> String {
        self.0.join(" ")
    }
}

/// Type and name of a scope, split at the first and the last colon, since a name may hold a port.
fn resource(text: &str) -> Option<(&str, &str)> {
    let (kind, rest) = text.split_once(':')?;
    let (name, _actions) = rest.rsplit_once(':')?;
    Some((kind, name))
}

/// `repository`, or with a class as in `repository(plugin)`.
fn is_repository(kind: &str) -> bool {
    kind == "repository" || kind.starts_with("repository(")
}

/// Whether `name` means `repository`, perhaps below a prefix that only the upstream knows.
fn is_ours(name: &str, repository: &RepoName) -> bool {
    name.strip_suffix(repository.as_str())
        .is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('/'))
}

const MAX_SCOPES: usize = 8;
const MAX_LEN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(challenge: Option<&str>) -> Vec<String> {
        let repository = "library/ubuntu".parse().unwrap();
        Scopes::wanted(challenge, &repository).0
    }

    #[test]
    fn without_a_scope_ours_is_built() {
        assert_eq!(wanted(None), ["repository:library/ubuntu:pull"]);
        assert_eq!(wanted(Some("  ")), ["repository:library/ubuntu:pull"]);
    }

    #[test]
    fn more_than_pull_is_never_asked_for() {
        assert_eq!(
            wanted(Some("repository:library/ubuntu:pull,push,delete")),
            ["repository:library/ubuntu:pull"]
        );
        assert_eq!(
            wanted(Some("repository(plugin):library/ubuntu:*")),
            ["repository(plugin):library/ubuntu:pull"]
        );
    }

    #[test]
    fn a_scope_outside_the_grammar_goes_as_it_is() {
        assert_eq!(wanted(Some("aws")), ["aws"]);
    }

    #[test]
    fn ours_comes_before_another_repository() {
        assert_eq!(
            wanted(Some("repository:official/ubuntu:pull")),
            [
                "repository:library/ubuntu:pull",
                "repository:official/ubuntu:pull"
            ]
        );
        assert_eq!(
            wanted(Some("registry:catalog:*")),
            ["repository:library/ubuntu:pull", "registry:catalog:*"]
        );
        assert_eq!(
            wanted(Some("repository:notlibrary/ubuntu:pull"))[0],
            "repository:library/ubuntu:pull"
        );
    }

    #[test]
    fn the_upstreams_longer_name_for_ours_is_believed() {
        assert_eq!(
            wanted(Some("repository:hub-proxy/library/ubuntu:pull")),
            ["repository:hub-proxy/library/ubuntu:pull"]
        );
        assert_eq!(
            wanted(Some("repository:host.example:5000/library/ubuntu:pull")),
            ["repository:host.example:5000/library/ubuntu:pull"]
        );
    }

    #[test]
    fn several_scopes_are_kept_once_each_and_within_a_limit() {
        assert_eq!(
            wanted(Some(
                "repository:library/ubuntu:pull repository:library/ubuntu:push"
            )),
            ["repository:library/ubuntu:pull"]
        );
        let many: Vec<String> = (0..50).map(|n| format!("repository:a{n}:pull")).collect();
        assert_eq!(wanted(Some(&many.join(" "))).len(), MAX_SCOPES + 1);
        assert_eq!(
            wanted(Some(&"x".repeat(MAX_LEN + 1))),
            ["repository:library/ubuntu:pull"]
        );
    }
}
