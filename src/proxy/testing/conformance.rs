//! What every place for records must do, whatever it is made of: the contract of [`Refs`] as a test.

use crate::config::UpstreamName;
use crate::oci::{Digest, RepoName};
use crate::proxy::ports::Refs;
use crate::store::{RefKey, RefKind, RefKindName};

fn upstream() -> UpstreamName {
    "registry.test:5000".parse().unwrap()
}

fn repository(name: &str) -> RepoName {
    name.parse().unwrap()
}

fn key(name: &str, kind: RefKind) -> RefKey {
    RefKey {
        upstream: upstream(),
        repository: repository(name),
        kind,
    }
}

fn tag(name: &str, tag: &str) -> RefKey {
    key(name, RefKind::Tag(tag.parse().unwrap()))
}

async fn get(refs: &impl Refs, key: &RefKey) -> Option<Vec<u8>> {
    refs.get(key).await.unwrap()
}

/// Fails where `refs`, which is empty, does not keep the contract.
pub(in crate::proxy) async fn records_conform(refs: &impl Refs) {
    records_are_written_replaced_and_removed(refs).await;
    a_record_is_replaced_only_where_it_is_as_expected(refs).await;
    of_several_the_first_that_is_there_is_found(refs).await;
    of_many_who_expect_the_same_one_wins(refs).await;
    keys_are_listed_by_repository_and_kind(refs).await;
}

async fn records_are_written_replaced_and_removed(refs: &impl Refs) {
    let (first, second) = (tag("a", "v1"), tag("a", "v2"));
    assert_eq!(get(refs, &first).await, None);
    refs.remove(&first).await.unwrap();
    refs.put(&first, b"one".to_vec()).await.unwrap();
    refs.put(&second, Vec::new()).await.unwrap();
    assert_eq!(get(refs, &first).await.unwrap(), b"one");
    refs.put(&first, b"two".to_vec()).await.unwrap();
    assert_eq!(get(refs, &first).await.unwrap(), b"two");
    refs.remove(&first).await.unwrap();
    assert_eq!(get(refs, &first).await, None);
    assert_eq!(get(refs, &second).await.unwrap(), b"");
    refs.remove(&second).await.unwrap();
}

async fn a_record_is_replaced_only_where_it_is_as_expected(refs: &impl Refs) {
    let key = key("a/b", RefKind::Blob(Digest::sha256(b"x")));
    let put = |expected: Option<&'static [u8]>, new: &str| {
        refs.compare_and_put(&key, expected, new.as_bytes().to_vec())
    };
    assert!(!put(Some(b"one"), "two").await.unwrap());
    assert_eq!(get(refs, &key).await, None);
    assert!(put(None, "one").await.unwrap());
    assert!(!put(None, "two").await.unwrap());
    assert!(!put(Some(b"on"), "two").await.unwrap());
    assert_eq!(get(refs, &key).await.unwrap(), b"one");
    assert!(put(Some(b"one"), "two").await.unwrap());
    assert_eq!(get(refs, &key).await.unwrap(), b"two");
    refs.remove(&key).await.unwrap();
}

async fn of_several_the_first_that_is_there_is_found(refs: &impl Refs) {
    let keys = ["v1", "v2", "v3"].map(|name| tag("a", name));
    let first = async || refs.first(&keys).await.unwrap();
    assert_eq!(refs.first(&[]).await.unwrap(), None);
    assert_eq!(first().await, None);
    for (key, record) in keys.iter().zip(["one", "two", "three"]).rev() {
        refs.put(key, record.into()).await.unwrap();
        assert_eq!(first().await.unwrap(), record.as_bytes());
    }
    for key in &keys {
        refs.remove(key).await.unwrap();
    }
}

async fn of_many_who_expect_the_same_one_wins(refs: &impl Refs) {
    let key = tag("a", "v1");
    let puts = (0..20_u8).map(|n| refs.compare_and_put(&key, None, vec![n]));
    let won: Vec<_> = futures_util::future::join_all(puts)
        .await
        .into_iter()
        .zip(0..20_u8)
        .filter_map(|(is_won, n)| is_won.unwrap().then_some(vec![n]))
        .collect();
    assert_eq!(won, [get(refs, &key).await.unwrap()]);
    refs.remove(&key).await.unwrap();
}

async fn keys_are_listed_by_repository_and_kind(refs: &impl Refs) {
    let digest = Digest::sha256(b"x");
    let keys = [
        tag("a", "v1"),
        tag("a", "v2"),
        tag("a/b/c", "v1"),
        key("a/b/c", RefKind::Manifest(digest.clone())),
        key("a/b/c", RefKind::Blob(digest)),
        key("d", RefKind::List("tags?n=10&last=../../x".to_owned())),
    ];
    assert_eq!(refs.repositories().await.unwrap(), []);
    for key in &keys {
        refs.put(key, b"{}".to_vec()).await.unwrap();
    }
    let list = async |name, kind| {
        let keys = refs.list(&upstream(), &repository(name), kind).await;
        let mut keys = keys.unwrap();
        keys.sort_by_key(|key| format!("{key:?}"));
        keys
    };
    assert_eq!(list("a", RefKindName::Tag).await, keys[..2]);
    assert_eq!(list("a", RefKindName::Blob).await, []);
    assert_eq!(list("a/b", RefKindName::Tag).await, []);
    assert_eq!(list("a/b/c", RefKindName::Tag).await, keys[2..3]);
    assert_eq!(list("a/b/c", RefKindName::Manifest).await, keys[3..4]);
    assert_eq!(list("a/b/c", RefKindName::Blob).await, keys[4..5]);
    let mut repositories = refs.repositories().await.unwrap();
    repositories.sort_by_key(|(_, name)| name.to_string());
    let expected = ["a", "a/b/c", "d"].map(|name| (upstream(), repository(name)));
    assert_eq!(repositories, expected);
    for key in &keys {
        refs.remove(key).await.unwrap();
    }
    assert_eq!(refs.repositories().await.unwrap(), []);
}
