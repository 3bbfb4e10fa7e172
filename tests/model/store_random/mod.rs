//! Random sequences of operations against a model: what was acknowledged is there and right after any power loss, and
//! nothing else is wrong.

mod events;
mod orphans;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use layby::oci::Digest;
use layby::store::{RefKey, RefKind, RefKindName, StageKey, StagedBlob};
use proptest::prelude::*;

use crate::forgetful::{Forgetful, Luck};
use crate::store::{Life, assert_all_blobs_are_right, blobs_on_disk, run, stage_key};

use events::{Close, Event, Piece, events};

/// What may be under a name: one value that is surely there, or several that might be.
type Possible<T> = BTreeSet<Option<T>>;

#[derive(Debug, Default)]
struct Model {
    /// Whether a blob is there.
    blobs: BTreeMap<u8, Possible<()>>,
    refs: BTreeMap<u8, Possible<Vec<u8>>>,
}

impl Model {
    fn blob(&mut self, number: u8) -> &mut Possible<()> {
        self.blobs
            .entry(number)
            .or_insert_with(|| BTreeSet::from([None]))
    }

    fn record(&mut self, number: u8) -> &mut Possible<Vec<u8>> {
        self.refs
            .entry(number)
            .or_insert_with(|| BTreeSet::from([None]))
    }
}

/// Notes that `value` was written, for sure or, where the answer was an error, perhaps.
fn note<T: Ord, R>(possible: &mut Possible<T>, value: Option<T>, answer: &io::Result<R>) {
    if answer.is_ok() {
        possible.clear();
    }
    possible.insert(value);
}

fn content(number: u8) -> Vec<u8> {
    // One of them is empty, one is long enough to have space set aside.
    let len = match number {
        0 => 0,
        5 => (1 << 20) + 1,
        _ => usize::from(number) * 1000,
    };
    vec![number; len]
}

fn digest(number: u8) -> Digest {
    Digest::sha256(&content(number))
}

fn key(number: u8) -> RefKey {
    let names = ["a", "a/b", "a/b/c"];
    let name = names[usize::from(number) % names.len()];
    RefKey {
        upstream: "registry.test".parse().unwrap(),
        repository: name.parse().unwrap(),
        kind: match number % 2 {
            0 => RefKind::Tag(format!("v{number}").parse().unwrap()),
            _ => RefKind::Blob(digest(number)),
        },
    }
}

/// A record's content; every fourth is empty, as markers are.
fn value(seed: u8) -> Vec<u8> {
    vec![seed; usize::from(seed % 4) * 100]
}

/// What the fetches would bring: bytes that tell where they belong.
static FETCHED: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let byte = |at: u64| at.wrapping_mul(0x9e37_79b9).to_le_bytes()[3] | 1;
    (1..=3)
        .map(|size| (0..size * (1 << 20) + 4321).map(byte).collect())
        .collect()
});

fn fetched(number: u8) -> &'static [u8] {
    &FETCHED[usize::from(number)]
}

/// Positions of a blob, for indexing.
fn positions(range: &Range<u64>) -> Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

struct Run {
    life: Life,
    model: Model,
    staged: Vec<(u8, StagedBlob)>,
    /// Stages that are held open, by number.
    open: BTreeMap<u8, StagedBlob>,
    /// How much of a fetch must be there when it goes on.
    kept: BTreeMap<u8, usize>,
    /// Fetches that were committed.
    fetched: BTreeSet<u8>,
    /// The disk is off or full, or may be.
    is_troubled: bool,
}

impl Run {
    async fn step(mut self, event: Event) -> Self {
        match event {
            Event::Stage(number) => {
                if let Ok(stage) = self.life.stage(&content(number)).await {
                    self.staged.push((number, stage));
                }
            }
            Event::CommitOldest if !self.staged.is_empty() => {
                let (number, stage) = self.staged.remove(0);
                let len = u64::try_from(content(number).len()).unwrap();
                let answer = self.life.store.commit(&stage, len, &digest(number)).await;
                note(self.model.blob(number), Some(()), &answer);
            }
            Event::DropOldest if !self.staged.is_empty() => drop(self.staged.remove(0)),
            Event::CommitOldest | Event::DropOldest => {}
            Event::CommitTogether(numbers) => {
                let life = &self.life;
                let commits = numbers
                    .iter()
                    .map(|&number| async move { (number, life.commit(&content(number)).await) });
                for (number, answer) in futures_util::future::join_all(commits).await {
                    note(self.model.blob(number), Some(()), &answer);
                }
            }
            Event::PutBlob(number) => {
                let bytes = content(number).into();
                let answer = self.life.store.put_blob(bytes, &digest(number)).await;
                note(self.model.blob(number), Some(()), &answer);
            }
            Event::RemoveBlob(number) => {
                let answer = self.life.store.remove_blob(&digest(number)).await;
                note(self.model.blob(number), None, &answer);
            }
            Event::OpenBlob(number) => {
                // While the power is off, nothing is said.
                if let Ok(found) = self.life.store.open_blob(&digest(number)) {
                    let possible = self.model.blob(number);
                    assert!(possible.contains(&found.map(|_| ())), "{possible:?}");
                }
            }
            Event::PutRef(number, seed) => {
                let answer = self.life.store.put_ref(&key(number), value(seed)).await;
                note(self.model.record(number), Some(value(seed)), &answer);
            }
            Event::RaceRef(number, a, b) => self.race(number, a, b).await,
            Event::RemoveRef(number) => {
                let answer = self.life.store.remove_ref(&key(number)).await;
                note(self.model.record(number), None, &answer);
            }
            Event::RemoveOrphan(number) => self.remove_orphan(number).await,
            Event::RaceOrphan {
                number,
                seed,
                has_content,
                removal_first,
            } => {
                let race = self.race_orphan(number, seed, has_content, removal_first);
                race.await;
            }
            Event::Fetch(number, pieces, close) => self.fetch(number, &pieces, close).await,
            Event::FillAfter(left) => {
                self.life.files.fill_after(left);
                self.is_troubled |= left.is_some();
            }
            Event::PowerOffAfter(changes) => {
                self.life.files.power_off_after(changes);
                self.is_troubled = true;
            }
            Event::Restart => {
                self.staged.clear();
                self.open.clear();
                self.life.files.fill_after(None);
                self.life = self.life.restart().await;
                self.calm();
                self.check(false).await;
            }
            Event::PowerLoss(luck) => {
                let closed = self.closed(luck).await;
                // The power goes before anybody can close anything else.
                let files = self.life.power_loss(luck).await;
                drop(closed);
                self.staged.clear();
                self.open.clear();
                self.life = Life::start(files).await.unwrap();
                if luck != Luck::All {
                    self.kept.clear();
                }
                self.calm();
                self.check(true).await;
            }
        }
        self
    }

    /// What has to be there again after a power loss that takes nothing. A fetch ends behind its back, and what it leaves is
    /// noted then: here it is over.
    async fn closed(&self, luck: Luck) -> Vec<StagedBlob> {
        let mut closed = Vec::new();
        let kept = self.kept.iter().filter(|(_, count)| **count > 0);
        for (&number, _) in kept.filter(|_| luck == Luck::All) {
            let resumed = self.life.store.resume(&stage_key(&[number])).await;
            closed.extend(resumed.ok().flatten());
        }
        closed
    }

    /// The disk is well again; what happened while it was not is unknown.
    fn calm(&mut self) {
        if std::mem::take(&mut self.is_troubled) {
            self.kept.clear();
        }
    }

    /// A fetch goes on with what is there, which must be right, or begins anew; writes; commits if all is there.
    async fn fetch(&mut self, number: u8, pieces: &[Piece], close: Close) {
        if self.open.contains_key(&number) {
            return;
        }
        let (content, key) = (fetched(number), stage_key(&[number]));
        let len = u64::try_from(content.len()).unwrap();
        let Some(stage) = self.begin(number, &key, content).await else {
            return;
        };
        let mut there = vec![false; content.len()];
        for range in stage.present() {
            there[positions(range)].fill(true);
        }
        'pieces: for piece in pieces {
            let unit = content.len() / 32;
            let range = piece.start * unit..content.len().min((piece.start + piece.len) * unit);
            for at in range.clone().step_by(piece.step) {
                let part = at..range.end.min(at + piece.step);
                let offset = u64::try_from(at).unwrap();
                if let Err(error) = stage.write_at(offset, &content[part.clone()]) {
                    assert!(self.is_troubled, "{error}");
                    break 'pieces;
                }
                there[part].fill(true);
            }
        }
        let count = there.iter().filter(|&&is_there| is_there).count();
        if count == content.len() {
            let digest = Digest::sha256(content);
            if self.life.store.commit(&stage, len, &digest).await.is_ok() {
                self.fetched.insert(number);
                self.kept.insert(number, 0);
                return;
            }
        }
        self.kept.insert(number, 0);
        match close {
            Close::Keep | Close::Drop => {
                if matches!(close, Close::Keep) {
                    stage.keep();
                }
                if !self.is_troubled {
                    self.kept.insert(number, count);
                }
            }
            Close::Discard => stage.discard(),
            Close::Never => _ = self.open.insert(number, stage),
        }
    }

    /// A stage for a fetch, after a look at what it holds.
    async fn begin(&mut self, number: u8, key: &StageKey, content: &[u8]) -> Option<StagedBlob> {
        let resumed = match self.life.store.resume(key).await {
            Ok(resumed) => resumed,
            Err(error) => {
                assert!(self.is_troubled, "{error}");
                return None;
            }
        };
        let kept = resumed.iter().flat_map(StagedBlob::present);
        let kept: u64 = kept.map(|range| range.end - range.start).sum();
        let expected = self.kept.get(&number).copied().unwrap_or(0);
        assert!(
            self.is_troubled || kept >= u64::try_from(expected).unwrap(),
            "{kept} of {expected} bytes are left"
        );
        let Some(stage) = resumed else {
            let len = u64::try_from(content.len()).ok();
            let made = self.life.store.stage(key, len).await;
            assert!(self.is_troubled || made.is_ok(), "{made:?}");
            return made.ok();
        };
        for range in stage.present() {
            let at = positions(range);
            let mut bytes = vec![0; at.len()];
            match stage.read_at(range.start, &mut bytes) {
                Ok(()) => assert!(bytes == content[at], "wrong bytes in {range:?}"),
                Err(error) => assert!(self.is_troubled, "{error}"),
            }
        }
        Some(stage)
    }

    async fn race(&mut self, number: u8, a: u8, b: u8) {
        let (store, key) = (&self.life.store, key(number));
        let Ok(current) = store.get_ref(&key) else {
            return;
        };
        let put = |seed| store.compare_and_put_ref(&key, current.as_deref(), value(seed));
        let answers = futures_util::future::join(put(a), put(b)).await;
        let is_won = |answer: &io::Result<bool>| matches!(answer, Ok(true));
        // The second may win only where the first wrote what was there already.
        let both = is_won(&answers.0) && is_won(&answers.1);
        assert!(!both || current == Some(value(a)), "both won");
        let possible = self.model.record(number);
        assert!(possible.contains(&current));
        for (seed, answer) in [(a, answers.0), (b, answers.1)] {
            match answer {
                Ok(true) => *possible = BTreeSet::from([Some(value(seed))]),
                Ok(false) => {}
                Err(_) => {
                    possible.insert(Some(value(seed)));
                }
            }
        }
    }

    /// Compares everything with the model. After a power loss, what is there is there for good.
    async fn check(&mut self, is_durable: bool) {
        let life = &self.life;
        assert_all_blobs_are_right(&life.files.data_dir());
        for (&number, possible) in &mut self.model.blobs {
            let found = life.read(&digest(number));
            assert!(found.as_ref().is_none_or(|bytes| *bytes == content(number)));
            let found = found.map(|_| ());
            assert!(
                possible.contains(&found),
                "blob {number}: {found:?} instead of {possible:?}"
            );
            if is_durable {
                *possible = BTreeSet::from([found]);
            }
        }
        for &number in &self.fetched {
            let content = fetched(number);
            let found = life.read(&Digest::sha256(content));
            assert!(found.is_some_and(|bytes| bytes == content), "blob {number}");
        }
        let mut repositories = BTreeSet::new();
        for (&number, possible) in &mut self.model.refs {
            let key = key(number);
            let found = life.store.get_ref(&key).unwrap();
            assert!(
                possible.contains(&found),
                "record {number}: {found:?} instead of {possible:?}"
            );
            let kind = match key.kind {
                RefKind::Tag(_) => RefKindName::Tag,
                _ => RefKindName::Blob,
            };
            let listed = life.store.list_refs(&key.upstream, &key.repository, kind);
            assert_eq!(listed.unwrap().contains(&key), found.is_some());
            if found.is_some() {
                repositories.insert(key.repository);
            }
            if is_durable {
                *possible = BTreeSet::from([found]);
            }
        }
        let found = life.store.repositories().unwrap();
        let found: BTreeSet<_> = found.into_iter().map(|(_, name)| name).collect();
        assert!(found.is_superset(&repositories), "{found:?}");
        life.store.scanned().await;
        let on_disk = blobs_on_disk(&life.files.data_dir());
        let bytes: usize = on_disk.values().map(Vec::len).sum();
        let totals = life.store.totals();
        assert_eq!(totals.blobs, u64::try_from(on_disk.len()).unwrap());
        assert_eq!(totals.bytes, u64::try_from(bytes).unwrap());
        // Nothing but partials that can be gone on with is left over.
        let partial = life.files.data_dir().join("partial");
        let names = std::fs::read_dir(partial).unwrap();
        let names: BTreeSet<_> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        for name in &names {
            let key = name.strip_suffix(".log").unwrap_or(name);
            assert!(StageKey::parse(key).is_some(), "{names:?}");
            assert!(names.contains(key) && names.contains(&format!("{key}.log")));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        max_shrink_iters: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_was_acknowledged_survives_and_nothing_else_is_wrong(
        events in prop::collection::vec(events(), 1..40)
    ) {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let files: Arc<Forgetful> = Forgetful::new(dir.path());
            let mut run = Run {
                life: Life::start(files).await.unwrap(),
                model: Model::default(),
                staged: Vec::new(),
                open: BTreeMap::new(),
                kept: BTreeMap::new(),
                fetched: BTreeSet::new(),
                is_troubled: false,
            };
            for event in events {
                run = run.step(event).await;
            }
            run.step(Event::PowerLoss(Luck::Nothing)).await.life.power_loss(Luck::All).await;
        });
    }
}
