//! Records: written, compared, listed, removed.

use super::*;

#[tokio::test]
async fn records_are_replaced_compared_and_removed() {
    let fixture = Fixture::new().await;
    let (store, key) = (&fixture.store, tag("library/app", "v1"));
    let put = |expected: Option<&'static [u8]>, new: &str| {
        store.compare_and_put_ref(&key, expected, new.as_bytes().to_vec())
    };
    assert_eq!(store.get_ref(&key).unwrap(), None);
    assert!(!put(Some(b"x"), "one").await.unwrap());
    assert!(put(None, "one").await.unwrap());
    assert!(!put(None, "two").await.unwrap());
    assert!(put(Some(b"one"), "two").await.unwrap());
    store.put_ref(&key, b"three".to_vec()).await.unwrap();
    assert_eq!(store.get_ref(&key).unwrap().unwrap(), b"three");
    let fixture = fixture.restart().await;
    assert_eq!(fixture.store.get_ref(&key).unwrap().unwrap(), b"three");
    assert!(fixture.store.remove_ref(&key).await.unwrap());
    assert!(!fixture.store.remove_ref(&key).await.unwrap());
    assert_eq!(fixture.store.get_ref(&key).unwrap(), None);
    assert_eq!(fixture.partial_files(), 0);
}

#[tokio::test]
async fn of_many_who_replace_one_record_at_once_exactly_one_wins() {
    let fixture = Fixture::new().await;
    let key = tag("app", "v1");
    let puts = (0..50_u8).map(|n| fixture.store.compare_and_put_ref(&key, None, vec![n]));
    let results = futures_util::future::join_all(puts).await;
    let won: Vec<_> = (0..50_u8)
        .zip(&results)
        .filter(|(_, result)| *result.as_ref().unwrap())
        .map(|(n, _)| vec![n])
        .collect();
    assert_eq!(won, [fixture.store.get_ref(&key).unwrap().unwrap()]);
}

#[tokio::test]
async fn records_are_listed_by_repository_also_where_one_name_goes_on_in_another() {
    let fixture = Fixture::new().await;
    let digest = Digest::sha256(b"x");
    let keys = [
        tag("a", "v1"),
        tag("a", "v2"),
        tag("a/b/c", "v1"),
        key("a/b/c", RefKind::Manifest(digest.clone())),
        key("a/b/c", RefKind::Blob(digest)),
        key("d", RefKind::List("tags?n=10&last=../../x".to_owned())),
    ];
    for key in &keys {
        // A marker is an empty file.
        let bytes = if matches!(key.kind, RefKind::Blob(_)) {
            vec![]
        } else {
            b"{}".to_vec()
        };
        fixture.store.put_ref(key, bytes.clone()).await.unwrap();
        assert_eq!(fixture.store.get_ref(key).unwrap(), Some(bytes));
    }
    let refs = fixture.store.layout.refs_dir().join("registry.test:5000");
    for foreign in ["a/_tags/.hidden", "a/_tags/v3", "a/README", "Not A Name"] {
        fs::write(refs.join(foreign), "foreign").unwrap();
    }
    fs::create_dir(refs.join("a/_tags/v4.json")).unwrap();
    symlink("/", refs.join("loop")).unwrap();
    let list = |repository: &str, kind| {
        let repository = repository.parse().unwrap();
        let mut found = fixture
            .store
            .list_refs(&keys[0].upstream, &repository, kind)
            .unwrap();
        found.sort_by_key(|key| format!("{key:?}"));
        found
    };
    assert_eq!(list("a", RefKindName::Tag), keys[..2]);
    assert_eq!(list("a/b", RefKindName::Tag), []);
    assert_eq!(list("a/b/c", RefKindName::Tag), keys[2..3]);
    assert_eq!(list("a/b/c", RefKindName::Manifest), keys[3..4]);
    assert_eq!(list("a/b/c", RefKindName::Blob), keys[4..5]);
    let mut repositories: Vec<_> = fixture
        .store
        .repositories()
        .unwrap()
        .into_iter()
        .map(|(upstream, name)| format!("{upstream}/{name}"))
        .collect();
    repositories.sort();
    let expected = ["a", "a/b/c", "d"].map(|name| format!("registry.test:5000/{name}"));
    assert_eq!(repositories, expected);
}

#[tokio::test]
async fn directories_that_a_removed_record_leaves_empty_go_with_it() {
    let fixture = Fixture::new().await;
    let (short, long) = (tag("a", "v1"), tag("a/b/c", "v1"));
    for key in [&short, &long] {
        fixture.store.put_ref(key, b"{}".to_vec()).await.unwrap();
    }
    let refs = fixture.store.layout.refs_dir();
    fixture.store.remove_ref(&long).await.unwrap();
    assert!(!refs.join("registry.test:5000/a/b").is_dir());
    assert!(fixture.store.get_ref(&short).unwrap().is_some());
    fixture.store.remove_ref(&short).await.unwrap();
    assert_eq!(fs::read_dir(&refs).unwrap().count(), 0);
    fixture.store.put_ref(&long, b"{}".to_vec()).await.unwrap();
    assert!(fixture.store.get_ref(&long).unwrap().is_some());
}

#[tokio::test]
async fn what_cannot_be_a_record_counts_as_missing_and_is_replaced() {
    let fixture = Fixture::new().await;
    let key = tag("app", "v1");
    let path = fixture.store.layout.record(&key);
    fixture.store.put_ref(&key, b"{}".to_vec()).await.unwrap();
    let too_large = usize::try_from(MAX_REF_LEN).unwrap() + 1;
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(MAX_REF_LEN + 1)
        .unwrap();
    assert_eq!(fixture.store.get_ref(&key).unwrap(), None);
    let error = fixture.store.put_ref(&key, vec![0; too_large]).await;
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    fs::remove_file(&path).unwrap();
    symlink("/etc/hostname", &path).unwrap();
    assert_eq!(fixture.store.get_ref(&key).unwrap(), None);
    fixture.store.put_ref(&key, b"{}".to_vec()).await.unwrap();
    assert_eq!(fixture.store.get_ref(&key).unwrap().unwrap(), b"{}");
    assert_eq!(fixture.partial_files(), 0);
}
