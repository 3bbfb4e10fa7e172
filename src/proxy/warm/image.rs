//! One image of a run: where it points, what its platforms need, and that all of it is here.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::oci::{Digest, ManifestInfo, ManifestKind, Platforms, Reference};
use crate::proxy::admin::ImageName;
use crate::proxy::blobs::Brought;
use crate::proxy::manifests::{EMPTY, Found, Held};
use crate::proxy::{CacheOutcome, Place};

use super::model::{WarmEvent, WarmOutcome, WarmProblem, WarmedImage};
use super::part::Part;
use super::run::{Run, Warmed};

/// Indexes within indexes that are followed.
const DEPTH: u32 = 4;
/// Most parts of one image, what refers to it included, those that are still to be looked at among them.
const MOST_PARTS: usize = 16_384;

/// What an image turns out to need.
#[derive(Default)]
pub(super) struct Plan {
    /// All parts, manifests first.
    pub(super) parts: Vec<Arc<Part>>,
    seen: HashSet<Digest>,
    /// The manifests among them that something may refer to.
    pub(super) subjects: Vec<Digest>,
    pub(super) problems: Vec<WarmProblem>,
    pub(super) referrers: u64,
    is_too_much: bool,
}

impl Plan {
    fn has(&self, digest: &Digest) -> bool {
        self.seen.contains(digest)
    }

    fn note(&mut self, part: Arc<Part>) {
        self.seen.insert(part.digest.clone());
        self.parts.push(part);
    }

    /// Whether it has come to too much, with so many more `waiting`; that is told once, of `digest`.
    pub(super) fn is_too_much(&mut self, digest: &Digest, waiting: usize) -> bool {
        if !self.is_too_much && self.parts.len().saturating_add(waiting) > MOST_PARTS {
            self.is_too_much = true;
            let message = format!("it leads to more than {MOST_PARTS} parts");
            self.problem(digest.as_str(), "too_many", message);
        }
        self.is_too_much
    }

    pub(super) fn problem(&mut self, part: &str, reason: &str, message: String) {
        self.problems.push(WarmProblem {
            part: part.to_owned(),
            reason: reason.to_owned(),
            message,
        });
    }
}

impl Run {
    /// Brings an image.
    pub(super) async fn image(&self, text: &str) -> Warmed {
        let mut plan = Plan::default();
        let digest = match self.warmer.names.to_pull(text) {
            Ok(name) => self.bring_image(text, &name, &mut plan).await,
            Err(error) => {
                plan.problem(text, "name", error.to_string());
                None
            }
        };
        warmed(text, digest, plan)
    }

    async fn bring_image(&self, text: &str, name: &ImageName, plan: &mut Plan) -> Option<Digest> {
        let place = &name.place;
        let top = match self.find(text, place, &name.reference).await {
            Ok(top) => top,
            Err(problem) => {
                plan.problems.push(problem);
                return None;
            }
        };
        let digest = top.0.digest.clone();
        self.walk(text, place, top, &self.order.platforms, plan)
            .await;
        if self.order.referrers {
            self.referrers(text, place, plan).await;
        }
        self.consists_of(text, &plan.parts);
        self.tell(WarmEvent::Resolved {
            image: text.to_owned(),
            digest: digest.to_string(),
            bytes: plan.parts.iter().map(|part| part.size).sum(),
        })
        .await;
        if self.order.dry_run {
            self.look(&plan.parts).await;
        } else {
            self.bring_all(text, &plan.parts).await;
        }
        for part in &plan.parts {
            if let Some(Err(problem)) = part.fate.get()
                && !part.is_optional
            {
                plan.problems.push(problem.clone());
            }
        }
        if let Reference::Tag(tag) = &name.reference
            && !self.warmer.tags.is_saved(place, tag, &digest).await
        {
            let message = "where it points is not on disk; see the log, and check the disk";
            plan.problem(tag.as_str(), "store", message.to_owned());
        }
        Some(digest)
    }

    /// A manifest, asked of the upstream where a tag is to be followed or nothing is here; on disk when this returns.
    pub(super) async fn find(
        &self,
        text: &str,
        place: &Place,
        reference: &Reference,
    ) -> Result<Found, WarmProblem> {
        let warmer = &self.warmer;
        let found = self
            .insist(text, reference.as_str(), |call| async move {
                let found = match reference {
                    Reference::Tag(tag) => warmer.tags.newest(place, tag, &call).await,
                    Reference::Digest(digest) => warmer.manifests.fetch(place, digest, &call).await,
                };
                Ok(found?)
            })
            .await?;
        if let CacheOutcome::Bypass(why) = found.1 {
            return Err(WarmProblem {
                part: reference.as_str().to_owned(),
                reason: why.as_str().to_owned(),
                message: why.in_words().to_owned(),
            });
        }
        let stored = warmer.manifests.store(place, &found.0).await;
        stored.map_err(|error| WarmProblem {
            part: reference.as_str().to_owned(),
            reason: "store".to_owned(),
            message: format!("it cannot be stored: {error}; check the disk"),
        })?;
        let answer = found.0.answer(found.1, None);
        warmer.retention.answered(place, reference, &answer);
        if !self.order.dry_run {
            warmer.retention.sent(&answer);
        }
        Ok(found)
    }

    /// Notes the manifest and all that it leads to on these platforms. What is listed waits by its digest, and is fetched
    /// when its turn comes.
    pub(super) async fn walk(
        &self,
        text: &str,
        place: &Place,
        top: Found,
        platforms: &Platforms,
        plan: &mut Plan,
    ) {
        let mut waiting = VecDeque::new();
        self.note(place, &top, DEPTH, platforms, plan, &mut waiting);
        while let Some((digest, depth)) = waiting.pop_front() {
            if plan.has(&digest) {
                continue;
            }
            if plan.is_too_much(&digest, waiting.len() + 1) {
                return;
            }
            let reference = Reference::Digest(digest);
            match self.find(text, place, &reference).await {
                Ok(found) => self.note(place, &found, depth, platforms, plan, &mut waiting),
                Err(problem) => plan.problems.push(problem),
            }
        }
    }

    /// Notes a manifest and its blobs, and has the manifests wait that it lists for these platforms.
    fn note(
        &self,
        place: &Place,
        (held, outcome): &Found,
        depth: u32,
        platforms: &Platforms,
        plan: &mut Plan,
        waiting: &mut VecDeque<(Digest, u32)>,
    ) {
        if plan.has(&held.digest) {
            return;
        }
        self.note_manifest(place, held, *outcome, plan);
        let Ok(info) = ManifestInfo::parse(Some(&held.media_type), &held.bytes) else {
            let message = "it is no manifest that layby can read, so what it needs is not known";
            plan.problem(held.digest.as_str(), "invalid", message.to_owned());
            return;
        };
        self.note_blobs(place, &info, plan);
        if plan.is_too_much(&held.digest, waiting.len()) {
            return;
        }
        let choice = platforms.choose(info.manifests(), self.order.referrers);
        let is_index = matches!(info.kind, ManifestKind::Index { .. });
        // An image that is in no index is taken for whatever it is for.
        if is_index && depth == DEPTH {
            let listed = written(&info);
            for platform in &choice.lacking {
                let message = format!("the index has nothing for it; it has {listed}");
                plan.problem(&platform.to_string(), "platform", message);
            }
        }
        let Some(below) = depth.checked_sub(1) else {
            for child in choice.chosen {
                let message = "indexes within indexes are not followed that deep";
                plan.problem(child.digest.as_str(), "too_many", message.to_owned());
            }
            return;
        };
        let chosen = choice.chosen.into_iter();
        waiting.extend(chosen.map(|child| (child.digest.clone(), below)));
    }

    fn note_manifest(&self, place: &Place, held: &Held, outcome: CacheOutcome, plan: &mut Plan) {
        let part = self
            .parts
            .get(place, &held.digest, held.bytes.len() as u64, false);
        let brought = match outcome {
            CacheOutcome::Hit | CacheOutcome::Revalidated => Brought::Here,
            _ => Brought::Fetched,
        };
        if part.fate.set(Ok(brought)).is_ok() {
            self.parts.brought(&part, brought);
        }
        plan.subjects.push(held.digest.clone());
        plan.note(part);
    }

    fn note_blobs(&self, place: &Place, info: &ManifestInfo, plan: &mut Plan) {
        for blob in info.blobs() {
            // Layers with their own URLs are not the registry's to have.
            if !blob.urls.is_empty() || plan.has(&blob.digest) {
                continue;
            }
            let is_optional = blob.digest.as_str() == EMPTY;
            let part = self.parts.get(place, &blob.digest, blob.size, is_optional);
            plan.note(part);
        }
    }

    /// Finds out which parts are here, and brings none.
    async fn look(&self, parts: &[Arc<Part>]) {
        for part in parts {
            let bytes = self.warmer.ctx.records.blob_len(&part.digest).await;
            if let Ok(Some(_)) = bytes
                && part.fate.set(Ok(Brought::Here)).is_ok()
            {
                self.parts.brought(part, Brought::Here);
            }
        }
    }
}

/// The sum of an image.
fn warmed(text: &str, digest: Option<Digest>, plan: Plan) -> Warmed {
    let (mut here, mut fetched, mut lacks) = (0_u64, 0_u64, false);
    let (mut bytes, mut is_fetched) = (0_u64, false);
    for part in plan.parts.iter().filter(|part| !part.is_optional) {
        bytes = bytes.saturating_add(part.size);
        match part.fate.get() {
            Some(Ok(Brought::Here)) => here = here.saturating_add(part.size),
            Some(Ok(Brought::Fetched)) => {
                is_fetched = true;
                fetched = fetched.saturating_add(part.size);
            }
            Some(Err(_)) | None => lacks = true,
        }
    }
    let outcome = if !plan.problems.is_empty() {
        WarmOutcome::Failed
    } else if lacks {
        WarmOutcome::Lacking
    } else if is_fetched {
        WarmOutcome::Fetched
    } else {
        WarmOutcome::Here
    };
    let mut problems = plan.problems;
    if let Some(more) = problems
        .len()
        .checked_sub(MOST_PROBLEMS)
        .filter(|more| *more > 0)
    {
        problems.truncate(MOST_PROBLEMS);
        problems.push(WarmProblem {
            part: text.to_owned(),
            reason: "too_many".to_owned(),
            message: format!("{more} more of its parts are not here"),
        });
    }
    let told = WarmedImage {
        image: text.to_owned(),
        outcome,
        digest: digest.map(|digest| digest.to_string()),
        bytes,
        here_bytes: here,
        fetched_bytes: fetched,
        referrers: plan.referrers,
        problems,
    };
    Warmed {
        told,
        parts: plan.parts,
    }
}

/// The platforms of an index, for people.
fn written(info: &ManifestInfo) -> String {
    let platforms = info
        .manifests()
        .iter()
        .filter_map(|one| one.platform.as_ref());
    let mut names: Vec<String> = platforms
        .filter(|platform| platform.os != "unknown")
        .map(|platform| {
            let variant = platform.variant.as_deref().unwrap_or_default();
            let mark = if variant.is_empty() { "" } else { "/" };
            format!("{}/{}{mark}{variant}", platform.os, platform.architecture)
        })
        .collect();
    names.dedup();
    names.truncate(MOST_NAMED);
    if names.is_empty() {
        return "none by name".to_owned();
    }
    names.join(", ")
}

/// Problems of an image that are told one by one.
const MOST_PROBLEMS: usize = 100;
/// Platforms in a message.
const MOST_NAMED: usize = 24;
