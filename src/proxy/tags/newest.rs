//! A tag for one who wants to know where it points now, and that this is on disk.

use std::sync::Arc;

use crate::oci::{Digest, Tag};
use crate::proxy::{Error, Place, What};
use crate::upstream::Call;

use super::{Found, TagKey, TagRecord, Tags};

impl Tags {
    /// The manifest that `tag` points at by the upstream's word, however fresh what is stored; of an immutable tag, the one
    /// that is stored. A failure to tell is one, whatever could be served instead.
    pub(in crate::proxy) async fn newest(
        self: &Arc<Self>,
        place: &Place,
        tag: &Tag,
        call: &Call,
    ) -> Result<Found, Error> {
        let what = What::Manifest;
        if self.ctx.offline {
            return Err(Error::NotCached { what });
        }
        let key = TagKey::new(place, tag);
        if let Some(known) = self.known(&key).await
            && self.terms(&key)?.immutable
            && !known.record.ask
            && let Some(held) = self.manifests.held(place, &known.record.digest).await
        {
            return Ok((held, super::CacheOutcome::Hit));
        }
        let resolve = || Arc::clone(self).resolve(key.clone(), call.clone(), true);
        let (found, _) = self.insisting.run(&key, call.deadline, resolve).await?;
        Ok(found)
    }

    /// Whether the record of `tag` on disk, once no more is on its way there, names `digest`.
    pub(in crate::proxy) async fn is_saved(
        &self,
        place: &Place,
        tag: &Tag,
        digest: &Digest,
    ) -> bool {
        let key = TagKey::new(place, tag);
        self.saver.written(&key).await;
        let record = self.ctx.record(&key.record()).await;
        let record = record.and_then(|record| serde_json::from_slice::<TagRecord>(&record).ok());
        record.is_some_and(|record| record.digest == *digest)
    }
}
