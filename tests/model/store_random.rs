//! Random sequences of operations against a model: what was acknowledged is there and right after any power loss, and
//! nothing else is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use layby::oci::Digest;
use layby::store::{RefKey, RefKind, RefKindName, StagedBlob};
use proptest::prelude::*;

use crate::forgetful::{Forgetful, Luck};
use crate::store::{Life, assert_all_blobs_are_right, blobs_on_disk, run};

/// One thing that happens.
#[derive(Debug, Clone)]
enum Event {
    /// A blob is begun: its content's number.
    Stage(u8),
    /// The oldest begun blob is committed.
    CommitOldest,
    /// The oldest begun blob is given up.
    DropOldest,
    /// Several blobs are committed at once, among them perhaps the same.
    CommitTogether(Vec<u8>),
    /// A manifest is stored.
    PutBlob(u8),
    RemoveBlob(u8),
    OpenBlob(u8),
    PutRef(u8, u8),
    /// Two writers of one record at once, each expecting what is there; one may win.
    RaceRef(u8, u8, u8),
    RemoveRef(u8),
    /// The process ends and starts again.
    Restart,
    /// After so many more changes everything fails, until the next restart or power loss.
    PowerOffAfter(u64),
    PowerLoss(Luck),
}

fn events() -> impl Strategy<Value = Event> {
    let number = 0..6_u8;
    let luck = prop_oneof![
        Just(Luck::All),
        Just(Luck::Nothing),
        Just(Luck::Names),
        Just(Luck::Bytes),
        any::<u64>().prop_map(Luck::Seed),
    ];
    prop_oneof![
        3 => number.clone().prop_map(Event::Stage),
        3 => Just(Event::CommitOldest),
        1 => Just(Event::DropOldest),
        2 => prop::collection::vec(number.clone(), 1..6).prop_map(Event::CommitTogether),
        2 => number.clone().prop_map(Event::PutBlob),
        2 => number.clone().prop_map(Event::RemoveBlob),
        2 => number.clone().prop_map(Event::OpenBlob),
        4 => (number.clone(), any::<u8>()).prop_map(|(key, value)| Event::PutRef(key, value)),
        2 => (number.clone(), any::<u8>(), any::<u8>())
            .prop_map(|(key, a, b)| Event::RaceRef(key, a, b)),
        2 => number.prop_map(Event::RemoveRef),
        1 => Just(Event::Restart),
        2 => (0..12_u64).prop_map(Event::PowerOffAfter),
        2 => luck.prop_map(Event::PowerLoss),
    ]
}

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

struct Run {
    life: Life,
    model: Model,
    staged: Vec<(u8, StagedBlob)>,
}

impl Run {
    async fn step(mut self, event: Event) -> Self {
        match event {
            Event::Stage(number) => {
                if let Ok(stage) = self.life.stage(&content(number)) {
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
            Event::PowerOffAfter(changes) => self.life.files.power_off_after(changes),
            Event::Restart => {
                self.staged.clear();
                self.life = self.life.restart().await;
                self.check(false).await;
            }
            Event::PowerLoss(luck) => {
                self.staged.clear();
                let files = self.life.power_loss(luck).await;
                self.life = Life::start(files).await.unwrap();
                self.check(true).await;
            }
        }
        self
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
        let partial = life.files.data_dir().join("partial");
        assert_eq!(std::fs::read_dir(partial).unwrap().count(), 0);
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
            };
            for event in events {
                run = run.step(event).await;
            }
            run.step(Event::PowerLoss(Luck::Nothing)).await.life.power_loss(Luck::All).await;
        });
    }
}
