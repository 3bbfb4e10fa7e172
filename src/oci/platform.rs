//! Platforms as people write them, and which images of an index are for them (image-spec, image-index.md).

use std::fmt;
use std::str::FromStr;

use super::{Descriptor, Platform};

/// A platform that is wanted: `linux/amd64`, `linux/arm64`, `linux/arm/v7`.
///
/// Spellings that mean the same are the same: `x86_64` is `amd64`, `aarch64` and `arm64/v8` are `arm64`, `arm` alone is
/// `arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlatformName {
    os: String,
    architecture: String,
    /// Of the processor; none where the architecture has but one, or the oldest is meant.
    variant: Option<String>,
}

/// A text that is no [`PlatformName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a platform is os/architecture or os/architecture/variant, as in linux/amd64 or linux/arm/v7"
)]
pub struct PlatformError;

/// The platforms that are wanted of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Platforms {
    /// Whatever there is.
    All,
    /// These.
    Only(Vec<PlatformName>),
}

/// What an index has of the platforms that are wanted.
#[derive(Debug, Default)]
pub struct Choice<'a> {
    /// What is for them, in the order of the index.
    pub chosen: Vec<&'a Descriptor>,
    /// What it has nothing for.
    pub lacking: Vec<PlatformName>,
}

/// Where an attestation says which image it is about (BuildKit, "Attestation storage").
const ABOUT: &str = "vnd.docker.reference.digest";

impl PlatformName {
    /// That of containers on this machine.
    pub fn of_this_machine() -> Self {
        Self::normal("linux", std::env::consts::ARCH, None)
    }

    fn normal(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = os.to_ascii_lowercase();
        let os = if os == "macos" {
            "darwin".to_owned()
        } else {
            os
        };
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.map(str::to_ascii_lowercase);
        let variant = variant.as_deref().filter(|variant| !variant.is_empty());
        let (architecture, variant) = match (architecture.as_str(), variant) {
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64" | "amd64", other) => ("amd64", other),
            ("i386" | "i686" | "x86" | "386", _) => ("386", None),
            ("aarch64" | "arm64", None | Some("8" | "v8" | "v8.0")) => ("arm64", None),
            ("aarch64" | "arm64", other) => ("arm64", other),
            ("armhf", _) | ("arm", None | Some("7" | "v7")) => ("arm", Some("v7")),
            ("armel", _) | ("arm", Some("6" | "v6")) => ("arm", Some("v6")),
            ("arm", Some("5" | "v5")) => ("arm", Some("v5")),
            ("arm", Some("8" | "v8")) => ("arm", Some("v8")),
            ("powerpc64le", other) => ("ppc64le", other),
            (other, variant) => (other, variant),
        };
        Self {
            os,
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// How well an image for `platform` suits: the newer the variant that this runs, the better. `None`: not at all.
    fn suits(&self, platform: &Platform) -> Option<u32> {
        let offered = Self::normal(
            &platform.os,
            &platform.architecture,
            platform.variant.as_deref(),
        );
        if offered.os != self.os || offered.architecture != self.architecture {
            return None;
        }
        if offered.variant == self.variant {
            return Some(u32::MAX);
        }
        // Processors run what was made for older ones.
        let (offered, own) = (offered.level()?, self.level()?);
        (offered < own).then_some(offered)
    }

    /// The number of the variant, where variants are numbered.
    fn level(&self) -> Option<u32> {
        let oldest = match self.architecture.as_str() {
            "amd64" => 1,
            "arm64" => 8,
            _ => 0,
        };
        let Some(variant) = &self.variant else {
            return Some(oldest);
        };
        // v9.2 comes behind v9.
        let (major, minor) = variant
            .strip_prefix('v')
            .map(|digits| digits.split_once('.').unwrap_or((digits, "0")))?;
        let (major, minor) = (major.parse::<u16>().ok()?, minor.parse::<u16>().ok()?);
        Some(u32::from(major) * 100 + u32::from(minor)).map(|level| level.max(oldest))
    }
}

impl FromStr for PlatformName {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let is_part = |part: &&str| {
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            !part.is_empty() && part.len() <= 64 && part.bytes().all(is_plain)
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(is_part) {
            return Err(PlatformError);
        }
        match parts[..] {
            [os, architecture] => Ok(Self::normal(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::normal(os, architecture, Some(variant))),
            _ => Err(PlatformError),
        }
    }
}

impl fmt::Display for PlatformName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl Platforms {
    /// What of an index is for these platforms: of several variants the newest that the wanted one runs. What is for no
    /// platform in particular is for all. With `attested`, what the builder attests of the chosen images is chosen too.
    pub fn choose<'a>(&self, listed: &'a [Descriptor], attested: bool) -> Choice<'a> {
        let Self::Only(wanted) = self else {
            return Choice {
                chosen: listed.iter().collect(),
                lacking: Vec::new(),
            };
        };
        let mut lacking = Vec::new();
        let mut is_chosen = vec![false; listed.len()];
        for platform in wanted {
            let suits = |entry: &Descriptor| platform.suits(entry.platform.as_ref()?);
            let best = listed.iter().filter_map(suits).max();
            let Some(best) = best else {
                lacking.push(platform.clone());
                continue;
            };
            // Of Windows there are several, each for a version of its kernel.
            for (entry, is_chosen) in listed.iter().zip(&mut is_chosen) {
                *is_chosen |= suits(entry) == Some(best);
            }
        }
        let of_any = |entry: &Descriptor| entry.platform.as_ref().is_none_or(is_unnamed);
        if listed.iter().any(of_any) {
            // An index of indexes, or of artifacts: what they are for is said within.
            lacking.clear();
        }
        let about = |entry: &Descriptor| attested.then(|| subject_of(entry)).flatten();
        let chosen_digests: Vec<String> = listed
            .iter()
            .zip(&is_chosen)
            .filter(|(_, is_chosen)| **is_chosen)
            .map(|(entry, _)| entry.digest.to_string())
            .collect();
        let chosen = listed.iter().zip(is_chosen).filter(|(entry, is_chosen)| {
            *is_chosen
                || of_any(entry)
                || about(entry).is_some_and(|about| chosen_digests.contains(&about))
        });
        Choice {
            chosen: chosen.map(|(entry, _)| entry).collect(),
            lacking,
        }
    }
}

fn is_unnamed(platform: &Platform) -> bool {
    platform.os.is_empty() && platform.architecture.is_empty()
}

/// The image that an attestation is about.
fn subject_of(entry: &Descriptor) -> Option<String> {
    let annotations = entry.annotations.as_ref()?;
    let annotations: serde_json::Value = serde_json::from_str(annotations.get()).ok()?;
    annotations.get(ABOUT)?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::oci::Digest;

    fn entry(platform: &str) -> serde_json::Value {
        let mut parts = platform.split('/');
        let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
        json!({
            "digest": Digest::sha256(platform.as_bytes()).as_str(), "size": 1,
            "platform": { "os": os, "architecture": architecture, "variant": parts.next() },
        })
    }

    fn index(entries: Vec<serde_json::Value>) -> Vec<Descriptor> {
        let read = |entry| serde_json::from_value(entry).unwrap();
        entries.into_iter().map(read).collect()
    }

    /// The platforms chosen of an index with these, and those that it lacks.
    fn chosen(listed: &[&str], wanted: &[&str]) -> (Vec<String>, Vec<String>) {
        let listed = index(listed.iter().map(|one| entry(one)).collect());
        let wanted = wanted.iter().map(|one| one.parse().unwrap()).collect();
        let choice = Platforms::Only(wanted).choose(&listed, false);
        let written = |one: &&Descriptor| {
            let platform = one.platform.as_ref().unwrap();
            let variant = platform.variant.as_ref();
            let variant = variant
                .map(|variant| format!("/{variant}"))
                .unwrap_or_default();
            format!("{}/{}{variant}", platform.os, platform.architecture)
        };
        (
            choice.chosen.iter().map(written).collect(),
            choice.lacking.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn spellings_that_mean_the_same_are_the_same() {
        for (a, b) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("Linux/ARM/v6", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
        ] {
            let (a, b): (PlatformName, PlatformName) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(a, b);
            assert_eq!(a.to_string().parse(), Ok(b));
        }
        for wrong in [
            "",
            "linux",
            "linux/",
            "/amd64",
            "linux/arm/v7/x",
            "linux/a b",
            "all",
        ] {
            assert_eq!(wrong.parse::<PlatformName>(), Err(PlatformError), "{wrong}");
        }
    }

    #[test]
    fn the_wanted_platforms_are_chosen_and_the_others_are_not() {
        let listed = [
            "linux/amd64",
            "linux/arm64/v8",
            "linux/arm/v6",
            "windows/amd64",
        ];
        let (got, lacking) = chosen(&listed, &["linux/arm64", "linux/s390x"]);
        assert_eq!(got, ["linux/arm64/v8"]);
        assert_eq!(lacking, ["linux/s390x"]);
        assert_eq!(chosen(&listed, &["linux/amd64", "linux/arm64"]).0.len(), 2);
    }

    #[test]
    fn of_several_variants_it_is_the_newest_that_the_processor_runs() {
        let arm = ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"];
        assert_eq!(chosen(&arm, &["linux/arm"]).0, ["linux/arm/v7"]);
        assert_eq!(chosen(&arm, &["linux/arm/v6"]).0, ["linux/arm/v6"]);
        assert_eq!(chosen(&arm[..2], &["linux/arm/v7"]).0, ["linux/arm/v6"]);
        assert_eq!(chosen(&arm[1..], &["linux/arm/v5"]).1, ["linux/arm/v5"]);
        let amd = ["linux/amd64", "linux/amd64/v2", "linux/amd64/v3"];
        assert_eq!(chosen(&amd, &["linux/amd64"]).0, ["linux/amd64"]);
        assert_eq!(chosen(&amd[..2], &["linux/amd64/v4"]).0, ["linux/amd64/v2"]);
        assert_eq!(
            chosen(&["linux/arm64"], &["linux/arm64/v9"]).0,
            ["linux/arm64"]
        );
    }

    #[test]
    fn what_is_for_no_platform_is_for_all() {
        let artifact = json!({"digest": Digest::sha256(b"x").as_str(), "size": 1});
        let listed = index(vec![artifact, entry("linux/amd64")]);
        let wanted = Platforms::Only(vec!["linux/arm64".parse().unwrap()]);
        let choice = wanted.choose(&listed, false);
        assert_eq!((choice.chosen.len(), choice.lacking.len()), (1, 0));
    }

    #[test]
    fn attestations_come_with_their_image_where_they_are_wanted() {
        let mut attestation = entry("unknown/unknown");
        let about = Digest::sha256(b"linux/amd64");
        attestation["annotations"] = json!({ ABOUT: about.as_str() });
        let listed = index(vec![
            entry("linux/amd64"),
            entry("linux/arm64"),
            attestation,
        ]);
        let count = |wanted: &str, attested| {
            let wanted = Platforms::Only(vec![wanted.parse().unwrap()]);
            wanted.choose(&listed, attested).chosen.len()
        };
        assert_eq!(
            (count("linux/amd64", false), count("linux/amd64", true)),
            (1, 2)
        );
        assert_eq!(count("linux/arm64", true), 1);
        assert_eq!(Platforms::All.choose(&listed, false).chosen.len(), 3);
    }
}
