//! BuildKit: `buildkitd.toml`.

use toml_edit::{Array, Value};

use super::mirror::Wish;
use super::piece::{Piece, Refusal};
use super::toml;

/// Where buildkitd looks.
pub(super) const FILE: &str = "/etc/buildkit/buildkitd.toml";

/// The file.
pub(super) fn piece(wish: &Wish) -> Piece {
    let text = text(wish);
    let wish = wish.clone();
    Piece::new(FILE, text, move |old| merge(&wish, old))
}

fn text(wish: &Wish) -> String {
    let mirror = &wish.mirror;
    let authority = mirror.authority();
    let loopback = if mirror.is_loopback() {
        format!(
            "# In a builder that runs in a container {} is the container: use an address of the host there, in all places.\n",
            authority
                .rsplit_once(':')
                .map_or(authority, |(host, _)| host)
        )
    } else {
        String::new()
    };
    let registries: Vec<String> = wish
        .named()
        .iter()
        .map(|name| {
            let path = mirror.of(name);
            format!("[registry.\"{name}\"]\n  mirrors = [\"{path}\"]\n\n")
        })
        .collect();
    let option = options(wish).map(|(key, value)| {
        format!(
            "# Options of a mirror stand under its host.\n[registry.\"{authority}\"]\n  {key} = {}\n",
            value.to_string().trim()
        )
    });
    let text = format!(
        "# BuildKit: {FILE}, or `docker buildx create --buildkitd-config buildkitd.toml`\n\
         #\n\
         {loopback}\
         # The path tells Layby the registry, also to a BuildKit that does not add ?ns=.\n\
         \n\
         {}{}",
        registries.concat(),
        option.unwrap_or_default()
    );
    format!("{}\n", text.trim_end())
}

/// What BuildKit must know of the mirror itself.
fn options(wish: &Wish) -> Option<(&'static str, Value)> {
    if !wish.mirror.is_tls() {
        return Some(("http", Value::from(true)));
    }
    let authority = wish.authority.as_ref()?;
    let path = authority.path.display().to_string();
    Some(("ca", Value::Array(std::iter::once(path).collect::<Array>())))
}

fn merge(wish: &Wish, old: &str) -> Result<String, Refusal> {
    let mut document = toml::parse(old)?;
    for name in wish.named() {
        let registry = toml::table_at(&mut document, &["registry", name.as_str()])?;
        toml::put_first(toml::strings(registry, "mirrors")?, &wish.mirror.of(&name));
    }
    if let Some((key, value)) = options(wish) {
        let mirror = toml::table_at(&mut document, &["registry", wish.mirror.authority()])?;
        match value.as_array() {
            Some(array) => {
                let paths = toml::strings(mirror, key)?;
                for path in array.iter().filter_map(Value::as_str) {
                    toml::put_first(paths, path);
                }
            }
            None => toml::set(mirror, key, &value)?,
        }
    }
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::piece::check_merge;
    use super::super::tests::{authority, wish};
    use super::*;

    fn on(registry: &str, mirror: &str) -> Piece {
        let mut wish = wish(mirror);
        wish.registries = vec![registry.parse().unwrap()];
        piece(&wish)
    }

    #[test]
    fn settings_that_are_there_stay_and_the_mirror_goes_first() {
        let old = "debug = true # mine\n\n[registry.\"docker.io\"]\n  mirrors = [ \"old.test\" ]\n\n[worker.oci]\n  gc = true\n";
        let new = check_merge(&on("docker.io", "http://layby.lan:5000"), old);
        let grown = old.replace("[ \"old", "[ \"layby.lan:5000/docker.io\", \"old");
        let option = "\n[registry.\"layby.lan:5000\"]\nhttp = true\n\n[worker";
        assert_eq!(new, grown.replace("\n[worker", option));
    }

    #[test]
    fn what_the_file_says_otherwise_is_not_overruled() {
        let piece = on("docker.io", "http://layby.lan:5000");
        for (old, why) in [
            (
                "[registry.\"layby.lan:5000\"]\nhttp = false\n",
                "http = false",
            ),
            (
                "[registry.\"docker.io\"]\nmirrors = \"old.test\"\n",
                "list of strings",
            ),
            ("registry = 1\n", "no table"),
        ] {
            let refusal = piece.merged(Some(old)).unwrap_err();
            assert!(refusal.why.contains(why), "{old}: {refusal:?}");
        }
    }

    #[test]
    fn an_authority_stands_with_the_mirror() {
        let mut wish = wish("https://layby.lan");
        wish.authority = Some(authority());
        let piece = piece(&wish);
        let end = "[registry.\"layby.lan\"]\n  ca = [\"/etc/ssl/layby.pem\"]\n";
        assert!(piece.text.ends_with(end), "{}", piece.text);
        check_merge(&piece, "root = \"/x\"\n");
        assert!(
            !on("docker.io", "https://layby.lan")
                .text
                .contains("Options")
        );
    }
}
