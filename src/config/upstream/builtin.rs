//! The public registries that need no configuration.

/// A registry that is known without being written in the file.
pub(super) struct BuiltIn {
    pub(super) name: &'static str,
    pub(super) url: &'static str,
    pub(super) aliases: &'static [&'static str],
    /// Where its realm is, if not on its own host.
    pub(super) token_hosts: &'static [&'static str],
    pub(super) library: bool,
}

const fn plain(name: &'static str, url: &'static str) -> BuiltIn {
    BuiltIn {
        name,
        url,
        aliases: &[],
        token_hosts: &[],
        library: false,
    }
}

const fn with_realm_at(
    name: &'static str,
    url: &'static str,
    token_hosts: &'static [&'static str],
) -> BuiltIn {
    BuiltIn {
        token_hosts,
        ..plain(name, url)
    }
}

/// All of them, sorted by name.
pub(super) const BUILT_IN: &[BuiltIn] = &[
    plain("cgr.dev", "https://cgr.dev"),
    with_realm_at(
        "docker.elastic.co",
        "https://docker.elastic.co",
        &["docker-auth.elastic.co"],
    ),
    BuiltIn {
        name: "docker.io",
        url: "https://registry-1.docker.io",
        aliases: &["index.docker.io", "registry-1.docker.io"],
        token_hosts: &["auth.docker.io"],
        library: true,
    },
    plain("gcr.io", "https://gcr.io"),
    plain("ghcr.io", "https://ghcr.io"),
    plain("k8s.gcr.io", "https://k8s.gcr.io"),
    with_realm_at("lscr.io", "https://lscr.io", &["ghcr.io"]),
    plain("mcr.microsoft.com", "https://mcr.microsoft.com"),
    plain("mirror.gcr.io", "https://mirror.gcr.io"),
    plain("nvcr.io", "https://nvcr.io"),
    plain("public.ecr.aws", "https://public.ecr.aws"),
    plain("quay.io", "https://quay.io"),
    plain(
        "registry.access.redhat.com",
        "https://registry.access.redhat.com",
    ),
    with_realm_at(
        "registry.gitlab.com",
        "https://registry.gitlab.com",
        &["gitlab.com"],
    ),
    plain("registry.k8s.io", "https://registry.k8s.io"),
    plain("registry.redhat.io", "https://registry.redhat.io"),
];
