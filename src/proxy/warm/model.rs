//! What warming is asked for and what it tells, as JSON. `docs/openapi.json` describes it.

use serde::{Deserialize, Serialize};

/// What is to be brought.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmRequest {
    /// Images, as people name them. What is there twice is brought once.
    pub images: Vec<String>,
    /// `linux/amd64` and the like, or `all`; none: the platform of the machine that brings them.
    #[serde(default)]
    pub platforms: Vec<String>,
    /// Whether signatures, SBOMs and whatever else refers to the images come along.
    #[serde(default)]
    pub referrers: bool,
    /// Whether only manifests are fetched, to tell what would be.
    #[serde(default)]
    pub dry_run: bool,
    /// Blobs that are fetched at once; none: 4.
    #[serde(default)]
    pub jobs: Option<u32>,
}

/// What warming tells while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum WarmEvent {
    /// An image is taken up.
    Begun {
        /// Its name.
        image: String,
    },
    /// What an image consists of is known.
    Resolved {
        /// Its name.
        image: String,
        /// Digest of its manifest or index.
        digest: String,
        /// Bytes of all its parts.
        bytes: u64,
    },
    /// Something failed, and is tried again after a while.
    Retry {
        /// The image.
        image: String,
        /// What failed: a tag, a digest.
        part: String,
        /// Why.
        message: String,
        /// How long that while is.
        wait_ms: u64,
    },
    /// How far it has come.
    Progress(WarmProgress),
    /// An image is through.
    Ended(WarmedImage),
    /// Parts of an image that was through are gone before the end: there is not room for everything.
    Lost {
        /// Its name.
        image: String,
        /// How many of its parts.
        parts: u64,
    },
    /// It broke off.
    Failed {
        /// Why.
        message: String,
    },
    /// It is through.
    Done(WarmReport),
}

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WarmProgress {
    /// Images that are through.
    pub images: u64,
    /// Images in all.
    pub of_images: u64,
    /// Bytes that are here, of the images that are known so far.
    pub bytes: u64,
    /// Of these, those that this run fetched.
    pub fetched_bytes: u64,
    /// Bytes of the images that are known so far.
    pub of_bytes: u64,
    /// The images that are under way.
    pub under_way: Vec<ImageProgress>,
}

/// How far an image has come.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageProgress {
    /// Its name.
    pub image: String,
    /// Its bytes that are here.
    pub bytes: u64,
    /// Its bytes in all; 0 while nothing is known of it.
    pub of_bytes: u64,
}

/// What came of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarmOutcome {
    /// It is here, and something of it had to be fetched.
    Fetched,
    /// It was here.
    Here,
    /// In a dry run: something of it would be fetched.
    Lacking,
    /// Something of it is not here, or it cannot be told.
    Failed,
}

/// An image that is through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmedImage {
    /// Its name.
    pub image: String,
    /// What came of it.
    pub outcome: WarmOutcome,
    /// Digest of its manifest or index, if that became known.
    pub digest: Option<String>,
    /// Bytes of all its parts, manifests included.
    pub bytes: u64,
    /// Of these, those that were here.
    pub here_bytes: u64,
    /// Of these, those that were fetched.
    pub fetched_bytes: u64,
    /// How many signatures, SBOMs and the like came along.
    pub referrers: u64,
    /// What is not here, and why.
    pub problems: Vec<WarmProblem>,
}

/// Something that is not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmProblem {
    /// What: a tag, a digest, a platform.
    pub part: String,
    /// Why, in a word: `not_found`, `unavailable`, `no_room`, `platform` …
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
}

/// The sum of a run. What images have in common counts once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WarmReport {
    /// Whether only manifests were fetched.
    pub dry_run: bool,
    /// Images.
    pub images: u64,
    /// See [`WarmOutcome::Fetched`].
    pub fetched: u64,
    /// See [`WarmOutcome::Here`].
    pub here: u64,
    /// See [`WarmOutcome::Lacking`].
    pub lacking: u64,
    /// See [`WarmOutcome::Failed`].
    pub failed: u64,
    /// Bytes of all parts that became known.
    pub bytes: u64,
    /// Of these, those that were here.
    pub here_bytes: u64,
    /// Of these, those that were fetched.
    pub fetched_bytes: u64,
    /// How long it took.
    pub elapsed_ms: u64,
}

impl WarmOutcome {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fetched => "fetched",
            Self::Here => "here",
            Self::Lacking => "lacking",
            Self::Failed => "failed",
        }
    }
}

impl WarmReport {
    /// Counts an image.
    pub(super) fn count(&mut self, outcome: WarmOutcome) {
        let count = self.of(outcome);
        *count = count.saturating_add(1);
    }

    /// An image that was counted so is counted as failed.
    pub(super) fn lost(&mut self, outcome: WarmOutcome) {
        let count = self.of(outcome);
        *count = count.saturating_sub(1);
        self.count(WarmOutcome::Failed);
    }

    fn of(&mut self, outcome: WarmOutcome) -> &mut u64 {
        match outcome {
            WarmOutcome::Fetched => &mut self.fetched,
            WarmOutcome::Here => &mut self.here,
            WarmOutcome::Lacking => &mut self.lacking,
            WarmOutcome::Failed => &mut self.failed,
        }
    }
}
