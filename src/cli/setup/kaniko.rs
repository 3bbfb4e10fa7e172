//! kaniko: flags, since it has no file.

use super::mirror::Wish;

/// The flags, one a line.
pub(super) fn flags(wish: &Wish) -> String {
    let mirror = &wish.mirror;
    let authority = mirror.authority();
    let mut flags = Vec::new();
    let mut map = Vec::new();
    for name in wish.named() {
        let path = mirror.of(&name);
        if name.as_str() == "docker.io" {
            flags.push(format!("--registry-mirror={path}"));
        } else {
            map.push(format!("{name}={path}"));
        }
    }
    if !map.is_empty() {
        // In quotes, since a shell would end the command at the semicolon.
        flags.push(format!("'--registry-map={}'", map.join(";")));
    }
    if !mirror.is_tls() {
        flags.push(format!("--insecure-registry={authority}"));
    }
    if let Some(ca) = &wish.authority {
        let path = ca.path.display();
        flags.push(format!("--registry-certificate={authority}={path}"));
    }
    flags.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::tests::{authority, wish};
    use super::*;

    #[test]
    fn docker_hub_has_a_flag_of_its_own_and_the_others_are_mapped() {
        assert_eq!(
            flags(&wish("http://layby.lan:5000")),
            "--registry-mirror=layby.lan:5000/docker.io\n\
             '--registry-map=ghcr.io=layby.lan:5000/ghcr.io;quay.io=layby.lan:5000/quay.io;registry.k8s.io=layby.lan:5000/registry.k8s.io'\n\
             --insecure-registry=layby.lan:5000\n"
        );
        let mut tls = wish("https://layby.lan");
        tls.registries = vec!["ghcr.io".parse().unwrap()];
        tls.authority = Some(authority());
        assert_eq!(
            flags(&tls),
            "'--registry-map=ghcr.io=layby.lan/ghcr.io'\n--registry-certificate=layby.lan=/etc/ssl/layby.pem\n"
        );
    }
}
