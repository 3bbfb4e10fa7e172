//! Proofs of what is gone, removed while others write.

use layby::store::{RefKind, RefLook};

use super::{Run, content, key, note, value};

impl Run {
    /// What a look says of a proof, if it is one of content that is gone.
    fn look(&mut self, number: u8) -> Option<RefLook> {
        let looked = self.life.store.look_at_orphan(&key(number));
        let looked = match looked {
            Ok(looked) => looked,
            Err(error) => {
                assert!(self.is_troubled, "{error}");
                return None;
            }
        };
        let is_proof = matches!(key(number).kind, RefKind::Blob(_));
        let (blob, record) = (self.model.blob(number).clone(), self.model.record(number));
        let may_be = is_proof && blob.contains(&None) && record.iter().any(Option::is_some);
        let must_be = is_proof && !blob.contains(&Some(())) && !record.contains(&None);
        assert!(if looked.is_some() { may_be } else { !must_be });
        looked
    }

    pub(super) async fn remove_orphan(&mut self, number: u8) {
        let Some(look) = self.look(number) else {
            return;
        };
        let answer = self
            .life
            .store
            .remove_orphan(&key(number), look, None)
            .await;
        assert!(!matches!(answer, Ok(false)), "nothing came in between");
        note(self.model.record(number), None, &answer);
    }

    /// What is written while a removal is under way is there after it.
    pub(super) async fn race_orphan(
        &mut self,
        number: u8,
        seed: u8,
        has_content: bool,
        removal_first: bool,
    ) {
        let Some(look) = self.look(number) else {
            return;
        };
        let (life, key) = (&self.life, key(number));
        let remove = life.store.remove_orphan(&key, look, None);
        let write = async {
            let committed = if has_content {
                Some(life.commit(&content(number)).await)
            } else {
                None
            };
            let put = life.store.put_ref(&key, value(seed)).await;
            (committed, put)
        };
        let (removed, (committed, put)) = if removal_first {
            futures_util::future::join(remove, write).await
        } else {
            let (write, remove) = futures_util::future::join(write, remove).await;
            (remove, write)
        };
        if let Some(committed) = committed {
            note(self.model.blob(number), Some(()), &committed);
        }
        let record = self.model.record(number);
        if !matches!(removed, Ok(false)) {
            note(record, None, &removed);
        }
        note(record, Some(value(seed)), &put);
    }
}
