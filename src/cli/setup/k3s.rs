//! k3s and rke2: `registries.yaml`.

use super::mirror::Wish;
use super::piece::{Piece, Refusal};
use super::yaml;

/// Where k3s looks.
pub(super) const FILE: &str = "/etc/rancher/k3s/registries.yaml";

/// The file.
pub(super) fn piece(wish: &Wish) -> Piece {
    let text = text(wish);
    let wish = wish.clone();
    Piece::new(FILE, text, move |old| merge(&wish, old))
}

/// Registries as the file has them: `*` for all.
fn names(wish: &Wish) -> Vec<String> {
    if wish.registries.is_empty() {
        return vec!["*".to_owned()];
    }
    wish.registries.iter().map(ToString::to_string).collect()
}

fn text(wish: &Wish) -> String {
    let mirrors: Vec<String> = names(wish)
        .iter()
        .map(|name| {
            format!(
                "  \"{name}\":\n    endpoint:\n      - \"{}\"\n",
                wish.mirror
            )
        })
        .collect();
    let configs = wish.authority.as_ref().map(|authority| {
        let path = serde_json::Value::from(authority.path.display().to_string());
        let host = wish.mirror.authority();
        format!("\nconfigs:\n  \"{host}\":\n    tls:\n      ca_file: {path}\n")
    });
    format!(
        "# k3s: {FILE}; rke2: /etc/rancher/rke2/registries.yaml\n\
         #\n\
         # \"*\" stands for every registry; ?ns=<registry> tells Layby which. The registry itself is asked last, unless the \
         node runs\n\
         # with --disable-default-registry-endpoint.\n\
         \n\
         mirrors:\n{}{}",
        mirrors.concat(),
        configs.unwrap_or_default()
    )
}

fn merge(wish: &Wish, old: &str) -> Result<String, Refusal> {
    let url = wish.mirror.to_string();
    let mut text = old.to_owned();
    for name in names(wish) {
        text = yaml::with_first(&text, &["mirrors", &name, "endpoint"], &url)?;
    }
    if let Some(authority) = &wish.authority {
        let host = wish.mirror.authority();
        let path = authority.path.display().to_string();
        text = yaml::with_value(&text, &["configs", host, "tls", "ca_file"], &path)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::piece::check_merge;
    use super::super::tests::{authority, wish};
    use super::*;

    #[test]
    fn registries_and_logins_that_are_there_stay() {
        let old = "mirrors:\n  docker.io: # hub\n    endpoint:\n      - \"https://old.test\"\nconfigs:\n  \"r.test\":\n    auth: {username: u}\n";
        let all = check_merge(&piece(&wish("http://127.0.0.1:5000")), old);
        assert!(
            all.starts_with("mirrors:\n  \"*\":\n    endpoint:\n"),
            "{all}"
        );
        let mut wish = wish("https://layby.lan:5443");
        wish.registries = vec!["docker.io".parse().unwrap()];
        wish.authority = Some(authority());
        let one = check_merge(&piece(&wish), old);
        assert!(
            one.contains("      - \"https://layby.lan:5443\"\n      - \"https://old.test\"\n"),
            "{one}"
        );
        assert!(
            one.contains("      ca_file: \"/etc/ssl/layby.pem\"\n"),
            "{one}"
        );
    }
}
