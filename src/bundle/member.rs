//! What a name in an archive stands for.

use std::fmt;

use crate::oci::Digest;

use super::{DOCKER_MANIFEST, Fault, INDEX, OCI_LAYOUT};

/// A file that belongs to images.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Member {
    /// `oci-layout`
    Layout,
    /// `index.json`
    Index,
    /// `manifest.json`
    DockerManifest,
    /// `blobs/sha256/…`
    Blob(Digest),
    /// A configuration or a layer as `docker save` named them before it wrote image layouts, and as other tools still do.
    Legacy(String),
}

impl Member {
    /// The file of this name; `None` where images have none like it.
    pub fn of(name: &[u8]) -> Result<Option<Self>, Fault> {
        Ok(Self::of_normal(&normal(name)?))
    }

    fn of_normal(name: &str) -> Option<Self> {
        match name {
            OCI_LAYOUT => return Some(Self::Layout),
            INDEX => return Some(Self::Index),
            DOCKER_MANIFEST => return Some(Self::DockerManifest),
            _ => {}
        }
        if let Some(of_blob) = name.strip_prefix("blobs/") {
            let (algorithm, encoded) = of_blob.split_once('/')?;
            let digest: Digest = format!("{algorithm}:{encoded}").parse().ok()?;
            return digest.is_verifiable().then_some(Self::Blob(digest));
        }
        let is_config =
            !name.contains('/') && (name.strip_suffix(".json").is_some() || is_digest(name));
        let is_layer = [".tar", ".tar.gz", ".tgz"]
            .iter()
            .any(|end| name.ends_with(end));
        (is_config || is_layer).then(|| Self::Legacy(name.to_owned()))
    }

    /// The digest that the name promises, if it does.
    pub fn promised(&self) -> Option<Digest> {
        match self {
            Self::Blob(digest) => Some(digest.clone()),
            Self::Legacy(name) => {
                let stem = name.split('.').next().unwrap_or_default();
                let hex = stem.strip_prefix("sha256:").unwrap_or(stem);
                format!("sha256:{hex}").parse().ok()
            }
            _ => None,
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout => f.write_str(OCI_LAYOUT),
            Self::Index => f.write_str(INDEX),
            Self::DockerManifest => f.write_str(DOCKER_MANIFEST),
            Self::Blob(digest) => {
                write!(f, "blobs/{}/{}", digest.algorithm_name(), digest.encoded())
            }
            Self::Legacy(name) => f.write_str(name),
        }
    }
}

fn is_digest(name: &str) -> bool {
    name.starts_with("sha256:") && name.parse::<Digest>().is_ok()
}

/// A name without what changes nothing (`./`, `//`). One that leads out is refused.
pub(super) fn normal(name: &[u8]) -> Result<String, Fault> {
    let refused = || Fault::Path(String::from_utf8_lossy(name).into_owned());
    let text = std::str::from_utf8(name).map_err(|_| refused())?;
    if text.starts_with('/') || text.contains(['\\', '\0']) {
        return Err(refused());
    }
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(refused()),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// Where a link of this name leads. One that leads out is refused.
pub(super) fn target(name: &str, link: &[u8], is_from_top: bool) -> Result<String, Fault> {
    if is_from_top {
        return normal(link);
    }
    let refused = || Fault::Path(String::from_utf8_lossy(link).into_owned());
    let text = std::str::from_utf8(link).map_err(|_| refused())?;
    if text.starts_with('/') || text.contains(['\\', '\0']) {
        return Err(refused());
    }
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(refused)?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_whatever_their_spelling_and_strangers_are_none() {
        let digest = Digest::sha256(b"x");
        let blob = format!("blobs/sha256/{}", digest.encoded());
        for (name, member) in [
            ("oci-layout", Some(Member::Layout)),
            ("./index.json", Some(Member::Index)),
            (".//manifest.json", Some(Member::DockerManifest)),
            (&*blob, Some(Member::Blob(digest.clone()))),
            (
                "abc/layer.tar",
                Some(Member::Legacy("abc/layer.tar".to_owned())),
            ),
            ("abc.json", Some(Member::Legacy("abc.json".to_owned()))),
            ("abc/json", None),
            ("repositories", None),
            ("blobs/sha256/xyz", None),
            ("blobs/md5/d41d8cd98f00b204e9800998ecf8427e", None),
            ("etc/passwd", None),
            ("", None),
        ] {
            assert_eq!(Member::of(name.as_bytes()).unwrap(), member, "{name}");
        }
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        for name in [
            &b"../index.json"[..],
            b"blobs/../../etc/passwd",
            b"/etc/passwd",
            b"a\\..\\b",
            b"index.json\0x",
            b"\xff",
        ] {
            assert!(matches!(Member::of(name), Err(Fault::Path(_))), "{name:?}");
        }
    }

    #[test]
    fn a_link_leads_somewhere_in_the_archive_or_nowhere() {
        let follow = |link: &str| target("a/layer.tar", link.as_bytes(), false);
        assert_eq!(follow("../b/layer.tar").unwrap(), "b/layer.tar");
        assert_eq!(follow("other.tar").unwrap(), "a/other.tar");
        for out in ["../../x", "/x", "../b/../../x"] {
            assert!(matches!(follow(out), Err(Fault::Path(_))), "{out}");
        }
        assert_eq!(target("a/x", b"b/layer.tar", true).unwrap(), "b/layer.tar");
    }

    #[test]
    fn names_promise_digests_where_they_hold_one() {
        let digest = Digest::sha256(b"x");
        let hex = digest.encoded();
        for name in [
            format!("{hex}.json"),
            format!("{hex}.tar.gz"),
            format!("sha256:{hex}"),
            format!("blobs/sha256/{hex}"),
        ] {
            let member = Member::of(name.as_bytes()).unwrap().unwrap();
            assert_eq!(member.promised(), Some(digest.clone()), "{name}");
        }
        let layer = Member::Legacy("abc/layer.tar".to_owned());
        assert_eq!(layer.promised(), None);
    }
}
