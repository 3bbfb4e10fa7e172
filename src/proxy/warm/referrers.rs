//! What refers to an image: signatures, SBOMs, attestations; as the registry lists them, under the fallback tag, and under
//! the tags that cosign uses.

use crate::oci::{Digest, Platforms, Reference, ReferrersIndex, Tag};
use crate::proxy::blobs::Unkept;
use crate::proxy::{CacheOutcome, Error, ListAnswer, Place, StaleReason};
use crate::upstream;

use super::image::Plan;
use super::model::WarmProblem;
use super::run::Run;

/// Signatures of SBOMs of images are followed, and no more.
const DEPTH: u32 = 3;
/// Pages of one list.
const MOST_PAGES: usize = 100;
/// What cosign puts behind the digest.
const SUFFIXES: [&str; 3] = ["sig", "att", "sbom"];

impl Run {
    /// Notes what refers to the manifests of the plan, and all that it needs.
    pub(super) async fn referrers(&self, text: &str, place: &Place, plan: &mut Plan) {
        let mut done = 0;
        for _ in 0..DEPTH {
            let subjects: Vec<Digest> = plan.subjects.iter().skip(done).cloned().collect();
            done = plan.subjects.len();
            for subject in subjects {
                if plan.is_too_much(&subject, 0) {
                    return;
                }
                if let Err(problem) = self.referrers_of(text, place, &subject, plan).await {
                    plan.problems.push(problem);
                }
            }
        }
    }

    async fn referrers_of(
        &self,
        text: &str,
        place: &Place,
        subject: &Digest,
        plan: &mut Plan,
    ) -> Result<(), WarmProblem> {
        let mut references = Vec::new();
        match self.listed(text, place, subject).await? {
            Some(listed) => references.extend(listed.into_iter().map(Reference::Digest)),
            None => references.push(Reference::Tag(Tag::of_referrers(subject))),
        }
        let cosign = Tag::of_referrers(subject);
        let tags = SUFFIXES.map(|suffix| format!("{cosign}.{suffix}").parse());
        references.extend(tags.into_iter().flatten().map(Reference::Tag));
        for reference in references {
            let found = match self.find(text, place, &reference).await {
                Ok(found) => found,
                // Most images have none.
                Err(problem)
                    if problem.reason == "not_found" && matches!(reference, Reference::Tag(_)) =>
                {
                    continue;
                }
                Err(problem) => return Err(problem),
            };
            plan.referrers += 1;
            let digest = found.0.digest.clone();
            self.walk(text, place, found, &Platforms::All, plan).await;
            if let Reference::Tag(tag) = &reference
                && !self.warmer.tags.is_saved(place, tag, &digest).await
            {
                let message = "where it points is not on disk; see the log, and check the disk";
                plan.problem(tag.as_str(), "store", message.to_owned());
            }
        }
        Ok(())
    }

    /// The registry's own list, which is kept for clients that ask when it is away; `None`: it keeps none.
    async fn listed(
        &self,
        text: &str,
        place: &Place,
        subject: &Digest,
    ) -> Result<Option<Vec<Digest>>, WarmProblem> {
        let part = format!("referrers of {subject}");
        let (mut listed, mut query) = (Vec::new(), String::new());
        for _ in 0..MOST_PAGES {
            let asked = &query;
            let page = self
                .insist(text, &part, |call| async move {
                    let lists = &self.warmer.lists;
                    let page = lists.referrers(place, subject, &[], asked, &call).await;
                    match page.and_then(|page| fresh(place, page)) {
                        Ok(page) => Ok(Some(page)),
                        Err(Error::NotFound { .. }) => Ok(None),
                        Err(error) => Err(Unkept::from(error)),
                    }
                })
                .await?;
            let Some(page) = page else { return Ok(None) };
            let index = ReferrersIndex::parse(&page.body).map_err(|error| WarmProblem {
                part: part.clone(),
                reason: "invalid".to_owned(),
                message: format!("{} sent no list: {error}", place.upstream),
            })?;
            listed.extend(index.manifests.into_iter().map(|one| one.digest));
            match page.next {
                Some(next) => query = next,
                None => return Ok(Some(listed)),
            }
        }
        Err(WarmProblem {
            part,
            reason: "too_many".to_owned(),
            message: format!("the list has more than {MOST_PAGES} pages"),
        })
    }
}

/// An old list says nothing of what there is now.
fn fresh(place: &Place, page: ListAnswer) -> Result<ListAnswer, Error> {
    match page.outcome {
        CacheOutcome::Stale(reason) if reason != StaleReason::Revalidating => {
            let message = format!(
                "{} cannot tell what refers to it now ({})",
                place.upstream,
                reason.as_str()
            );
            Err(Error::Upstream(upstream::Error::Unavailable { message }))
        }
        _ => Ok(page),
    }
}
