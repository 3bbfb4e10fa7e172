//! What administration asks of the store: walking, looking, checking, notes, the token.

use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;

use secrecy::ExposeSecret;

use super::*;

/// The repositories from `from` on, as they come.
fn walked(store: &Store, from: Option<(&str, &str)>) -> Vec<String> {
    let from = from.map(|(upstream, name)| (upstream.parse().unwrap(), name.parse().unwrap()));
    let mut found = Vec::new();
    let mut visit = |upstream: UpstreamName, repository: RepoName| {
        found.push(format!("{upstream}/{repository}"));
        Ok(ControlFlow::Continue(()))
    };
    let from = from.as_ref().map(|(upstream, name)| (upstream, name));
    store
        .each_repository(from, &mut visit, &mut |path| panic!("{path:?}"))
        .unwrap();
    found
}

#[tokio::test]
async fn a_walk_can_begin_anywhere_and_goes_on_in_the_same_order() {
    let fixture = Fixture::new().await;
    for name in ["b", "a", "a/b", "a-b", "a/b/c", "a.b", "c/d", "a0"] {
        fixture
            .store
            .put_ref(&tag(name, "v1"), vec![1])
            .await
            .unwrap();
    }
    let all = walked(&fixture.store, None);
    let place = |name: &str| format!("registry.test:5000/{name}");
    assert_eq!(
        all,
        ["a", "a/b", "a/b/c", "a-b", "a.b", "a0", "b", "c/d"].map(place)
    );
    for (index, name) in all.iter().enumerate() {
        let name = name.split_once('/').unwrap().1;
        let rest = walked(&fixture.store, Some(("registry.test:5000", name)));
        assert_eq!(rest, all[index..], "from {name}");
    }
    // What is there no more, or never was, is a place to begin as well.
    assert_eq!(
        walked(&fixture.store, Some(("registry.test:5000", "a/a"))),
        all[1..]
    );
    assert_eq!(
        walked(&fixture.store, Some(("registry.test:5000", "b/x"))),
        all[7..]
    );
    assert_eq!(
        walked(&fixture.store, Some(("zzz", "a"))),
        Vec::<String>::new()
    );
    assert_eq!(walked(&fixture.store, Some(("a", "a"))), all);
}

#[tokio::test]
async fn a_walk_ends_where_it_is_told() {
    let fixture = Fixture::new().await;
    for name in ["a", "a/b", "c"] {
        fixture
            .store
            .put_ref(&tag(name, "v1"), vec![1])
            .await
            .unwrap();
    }
    let mut count = 0;
    let mut visit = |_, _| {
        count += 1;
        Ok(if count == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    };
    fixture
        .store
        .each_repository(None, &mut visit, &mut |_| {})
        .unwrap();
    assert_eq!(count, 2);
}

#[tokio::test]
async fn looking_at_a_blob_is_no_use_of_it() {
    let fixture = Fixture::new().await;
    let digest = fixture.commit(b"content").await.unwrap();
    let before = fixture.store.look_at_blob(&digest).unwrap().unwrap();
    assert_eq!(before.len, 7);
    fixture.clock.advance(Duration::from_hours(1));
    assert_eq!(
        fixture.store.peek_blob(&digest, 7).unwrap().unwrap(),
        b"content"
    );
    assert_eq!(fixture.store.peek_blob(&digest, 6).unwrap(), None);
    assert_eq!(fixture.store.look_at_blob(&digest).unwrap(), Some(before));
    fixture.store.open_blob(&digest).unwrap();
    let after = fixture.store.look_at_blob(&digest).unwrap().unwrap();
    assert!(after.used >= before.used + Duration::from_mins(59));
    assert_eq!(
        fixture.store.look_at_blob(&Digest::sha256(b"x")).unwrap(),
        None
    );
}

#[tokio::test]
async fn a_check_can_be_called_off() {
    let fixture = Fixture::new().await;
    let digest = fixture.commit(&vec![7; 3 << 20]).await.unwrap();
    let mut read = 0;
    let checked = fixture.store.check_blob(&digest, &mut |bytes| {
        read += bytes;
        read < 2 << 20
    });
    assert!(matches!(checked, Ok(None)), "{checked:?}");
    assert_eq!(read, 2 << 20);
    let checked = fixture.store.check_blob(&digest, &mut |_| true);
    assert!(matches!(checked, Ok(Some(Soundness::Sound))), "{checked:?}");
}

#[tokio::test]
async fn what_cannot_be_opened_is_told_from_what_is_not_there() {
    let fixture = Fixture::new().await;
    let digest = fixture.commit(b"content").await.unwrap();
    let path = fixture.path(&digest);
    fs::rename(&path, path.with_extension("away")).unwrap();
    let checked = fixture.store.check_blob(&digest, &mut |_| true);
    assert!(
        matches!(checked, Ok(Some(Soundness::Missing))),
        "{checked:?}"
    );
    symlink(path.with_extension("away"), &path).unwrap();
    let checked = fixture.store.check_blob(&digest, &mut |_| true);
    assert!(
        matches!(checked, Ok(Some(Soundness::Closed(_)))),
        "{checked:?}"
    );
}

impl Fixture {
    /// What is wrong with a blob that is damaged.
    fn damage(&self, digest: &Digest) -> Faulty {
        match self.store.check_blob(digest, &mut |_| true).unwrap() {
            Some(Soundness::Damaged { file, .. } | Soundness::Emptied(file)) => file,
            other => panic!("{other:?}"),
        }
    }

    fn aside(&self) -> Vec<Vec<u8>> {
        let Ok(entries) = fs::read_dir(self.store.layout.damaged_dir()) else {
            return Vec::new();
        };
        let mut found: Vec<_> = entries
            .map(|entry| fs::read(entry.unwrap().path()).unwrap())
            .collect();
        found.sort();
        found
    }
}

#[tokio::test]
async fn a_damaged_blob_is_moved_aside_once_and_no_longer_counted() {
    let fixture = Fixture::new().await;
    let digest = fixture.commit(b"content").await.unwrap();
    for damage in [b"Content", b"CONTENT"] {
        fs::write(fixture.path(&digest), damage).unwrap();
        let faulty = fixture.damage(&digest);
        let aside = fixture.store.set_aside(&digest, &faulty).await.unwrap();
        let path = fixture.store.layout.damaged(&digest);
        assert_eq!(fs::read(&path).unwrap(), damage);
        assert_eq!(aside, SetAside::Moved(path));
        assert_eq!(fixture.read(&digest), None);
        assert_eq!(fixture.store.totals(), Totals::default());
        assert_eq!(fixture.aside(), [damage]);
        // Nothing is left to be moved.
        let again = fixture.store.set_aside(&digest, &faulty).await.unwrap();
        assert_eq!(again, SetAside::Gone);
        fixture.commit(b"content").await.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_blob_is_moved_aside_although_what_was_is_removed_with_its_directory() {
    let fixture = Fixture::new().await;
    for damage in [b"Content", b"CONTENT"] {
        let digest = fixture.commit(b"content").await.unwrap();
        fs::write(fixture.path(&digest), damage).unwrap();
        let faulty = fixture.damage(&digest);
        let aside = fixture.store.set_aside(&digest, &faulty).await.unwrap();
        assert!(matches!(aside, SetAside::Moved(_)), "{aside:?}");
        assert_eq!(fixture.aside(), [damage]);
        assert_eq!(fixture.read(&digest), None);
        fs::remove_dir_all(fixture.store.layout.damaged_dir()).unwrap();
    }
}

#[tokio::test]
async fn a_hundredth_of_the_store_is_kept_of_what_was_damaged_and_the_oldest_goes() {
    let fixture = Fixture::with_max_size(Some(100_000)).await;
    let own = fixture.store.layout.damaged_dir().join("notes");
    let mut asides = Vec::new();
    for (number, len) in [(1_u8, 400), (2, 400), (3, 400), (4, 1001)] {
        let digest = fixture.commit(&vec![number; len]).await.unwrap();
        fs::write(fixture.path(&digest), vec![number + 10; len]).unwrap();
        fixture.clock.advance(Duration::from_secs(10));
        let faulty = fixture.damage(&digest);
        asides.push(fixture.store.set_aside(&digest, &faulty).await.unwrap());
        assert!(!fixture.path(&digest).try_exists().unwrap());
        fs::write(&own, "an operator's").unwrap();
    }
    assert_eq!(asides.pop(), Some(SetAside::Removed));
    let there = asides.iter().map(|aside| match aside {
        SetAside::Moved(path) => path.try_exists().unwrap(),
        other => panic!("{other:?}"),
    });
    assert_eq!(there.collect::<Vec<_>>(), [false, true, true]);
    assert!(own.try_exists().unwrap());
}

#[tokio::test]
async fn a_blob_that_is_being_checked_is_not_evicted_and_not_used() {
    let fixture = Fixture::new().await;
    fixture.store.set_pinned(crate::oci::DigestSet::default());
    fixture.store.usage.ready_to_choose().await;
    let digest = fixture.commit(b"content").await.unwrap();
    fixture.clock.advance(Duration::from_mins(2));
    let before = fixture.store.look_at_blob(&digest).unwrap();
    let check = fixture.store.begin_check(&digest).unwrap();
    assert_eq!(fixture.store.look_at_blob(&digest).unwrap(), before);
    let collect = || fixture.store.collect(Some(0), false);
    assert_eq!(collect().await.unwrap().blobs, 0);
    drop(check);
    fixture.clock.advance(Duration::from_mins(2));
    assert_eq!(collect().await.unwrap().blobs, 1);
}

#[tokio::test]
async fn a_blob_that_was_committed_anew_since_it_was_found_damaged_stays() {
    let fixture = Fixture::new().await;
    let digest = fixture.commit(b"content").await.unwrap();
    fs::write(fixture.path(&digest), b"Content").unwrap();
    let faulty = fixture.damage(&digest);
    fixture.commit(b"content").await.unwrap();
    let aside = fixture.store.set_aside(&digest, &faulty).await.unwrap();
    assert_eq!(aside, SetAside::Gone);
    assert_eq!(fixture.read(&digest).unwrap(), b"content");
    assert_eq!(fixture.store.totals().blobs, 1);
    assert_eq!(fixture.aside(), Vec::<Vec<u8>>::new());
}

#[tokio::test]
async fn a_last_use_noted_meanwhile_does_not_save_a_damaged_blob() {
    let fixture = Fixture::new().await;
    let digest = fixture.commit(b"content").await.unwrap();
    fs::write(fixture.path(&digest), b"Content").unwrap();
    let faulty = fixture.damage(&digest);
    let later = SystemTime::now() + Duration::from_hours(1);
    Disk.set_modified(&fixture.path(&digest), later).unwrap();
    let aside = fixture.store.set_aside(&digest, &faulty).await.unwrap();
    assert!(matches!(aside, SetAside::Moved(_)), "{aside:?}");
}

#[tokio::test]
async fn the_empty_blob_is_sound() {
    let fixture = Fixture::new().await;
    let digest = fixture.commit(b"").await.unwrap();
    let checked = fixture.store.check_blob(&digest, &mut |_| true);
    assert!(matches!(checked, Ok(Some(Soundness::Sound))), "{checked:?}");
}

#[tokio::test]
async fn notes_outlive_a_restart() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.store.get_note(Note::Pins).unwrap(), None);
    fixture
        .store
        .put_note(Note::Pins, b"one".to_vec())
        .await
        .unwrap();
    fixture
        .store
        .put_note(Note::Pins, b"two".to_vec())
        .await
        .unwrap();
    fixture
        .store
        .put_note(Note::Statistics, b"three".to_vec())
        .await
        .unwrap();
    let fixture = fixture.restart().await;
    assert_eq!(fixture.store.get_note(Note::Pins).unwrap().unwrap(), b"two");
    assert_eq!(
        fixture.store.get_note(Note::Statistics).unwrap().unwrap(),
        b"three"
    );
    assert_eq!(
        fixture.store.foreign_in_root().unwrap(),
        Vec::<PathBuf>::new()
    );
}

#[tokio::test]
async fn the_token_is_made_once_and_for_its_owner_alone() {
    let fixture = Fixture::new().await;
    assert!(
        read_admin_token(fixture.store.data_dir())
            .unwrap()
            .is_none()
    );
    let token = fixture.store.admin_token().unwrap();
    assert_eq!(token.expose_secret().len(), 64);
    let path = fixture.store.data_dir().join("admin.token");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let fixture = fixture.restart().await;
    let again = fixture.store.admin_token().unwrap();
    assert_eq!(again.expose_secret(), token.expose_secret());
    let read = read_admin_token(fixture.store.data_dir()).unwrap().unwrap();
    assert_eq!(read.expose_secret(), token.expose_secret());
    // An operator's own is taken; what is too short to be one is not.
    fs::write(&path, "an operator's-own-token\n".replace(' ', "-")).unwrap();
    let own = fixture.store.admin_token().unwrap();
    assert_eq!(own.expose_secret(), "an-operator's-own-token");
    fs::write(&path, "short").unwrap();
    assert_eq!(
        fixture.store.admin_token().unwrap().expose_secret().len(),
        64
    );
}
