//! A fetch that breaks goes on from its first missing byte: clients see a pause, the upstream no byte twice.

use std::time::Duration;

use layby::runtime::Clock;
use tokio::task::JoinSet;

use crate::fake::{Content, Cut, Fake, Gate, Rule, TokenOffice};
use crate::support::{
    Layby, MIB, Program, Request, Setup, UPSTREAM, Wire, beside, blob_path, done, download,
    eventually, pull,
};

const REPOSITORY: &str = "org/app";
const CLIENTS: usize = 10;
/// What may be on its way and lost when an upstream stalls or Layby is killed.
const LOST_IN_A_STALL: u64 = 8 * MIB;
const LOST_IN_A_KILL: u64 = 16 * MIB;

fn large() -> Content {
    Content::random(350, 200 * MIB)
}

fn middling() -> Content {
    Content::random(351, 32 * MIB)
}

/// A registry with one blob.
async fn registry_with(content: &Content) -> Fake {
    let fake = Fake::start().await;
    fake.put_blob(REPOSITORY, content);
    fake
}

/// Soon sure that an upstream that says nothing will not say anything more.
fn impatient(setup: Setup) -> Setup {
    setup.set("limits", r#"stall_timeout = "1s""#)
}

/// Several clients at once; fails unless each gets all of it, and right.
async fn pull_at_once(layby: &Layby, content: &Content, clients: usize) {
    let mut pulls = JoinSet::new();
    for _ in 0..clients {
        let (address, content) = (layby.address(), content.clone());
        let path = blob_path(REPOSITORY, &content);
        pulls.spawn(async move { pull(address, path, &content).await });
    }
    pulls.join_all().await;
    layby.has_committed(REPOSITORY, [content]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_cuts_every_connection_after_1_mib_sends_every_byte_once() {
    let content = large();
    let fake = registry_with(&content).await;
    fake.script(Rule::digest(content.digest()).cut_after(MIB, Cut::Fin));
    let layby = Layby::over(&fake).await;
    pull_at_once(&layby, &content, CLIENTS).await;
    let record = fake.record();
    assert_eq!(record.sent_twice(content.digest()), 0);
    assert_eq!(record.sent(content.digest()), content.len());
    assert!(record.broken(content.digest()) >= 199);
    assert!(layby.metric("resumes_total", UPSTREAM).await >= 199.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_stalls_at_random_costs_at_most_what_was_on_its_way() {
    let content = large();
    let fake = registry_with(&content).await;
    fake.script(Rule::digest(content.digest()).stall_within(MIB..64 * MIB));
    let layby = impatient(Setup::over(&fake)).start().await;
    pull_at_once(&layby, &content, CLIENTS).await;
    let (record, digest) = (fake.record(), content.digest());
    let stalls = record.broken(digest);
    assert!(stalls >= 1);
    let most = content.len() + stalls * LOST_IN_A_STALL;
    assert!(
        record.sent(digest) <= most,
        "{} after {stalls} stalls",
        record.sent(digest)
    );
}

/// Resets throw away what the receiver has not read yet.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_resets_connections_is_asked_for_the_rest() {
    let content = middling();
    let fake = registry_with(&content).await;
    fake.script(Rule::digest(content.digest()).cut_after(3 * MIB, Cut::Reset));
    let layby = Layby::over(&fake).await;
    pull_at_once(&layby, &content, 3).await;
    let (record, digest) = (fake.record(), content.digest());
    let most = content.len() + record.broken(digest) * LOST_IN_A_STALL;
    assert!(record.sent(digest) <= most);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_continuation_has_a_signed_address_of_its_own() {
    let content = middling();
    let (fake, storage) = (registry_with(&content).await, Fake::start().await);
    fake.redirect_blobs_to(&storage);
    storage.sign_once();
    storage.refuse_authorization();
    storage.script(Rule::digest(content.digest()).cut_after(4 * MIB, Cut::Fin));
    let layby = Layby::over(&fake).await;
    pull_at_once(&layby, &content, 3).await;
    let record = storage.record();
    assert_eq!(record.sent(content.digest()), content.len());
    assert!(record.all().iter().all(|seen| seen.status() != 403));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_address_that_expired_on_the_way_is_asked_for_again() {
    let content = middling();
    let (fake, storage) = (registry_with(&content).await, Fake::start().await);
    fake.redirect_blobs_to(&storage);
    let get = || Rule::digest(content.digest());
    storage.script(get().cut(5 * MIB, Cut::Fin).once());
    let body = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
    storage.script(get().answer(403, "application/xml", body).times(2));
    let layby = Layby::over(&fake).await;
    pull_at_once(&layby, &content, 3).await;
    assert_eq!(storage.record().sent(content.digest()), content.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_in_the_middle_of_a_blob_is_replaced() {
    let content = middling();
    let fake = registry_with(&content).await;
    // The registry's clock, not ours: Layby takes the token to be good.
    let clock = Clock::system();
    let office = TokenOffice::new(&clock, Duration::from_secs(300));
    fake.protect_with_tokens(&office, &fake);
    let layby = Layby::over(&fake).await;
    // The first request of all is refused for want of a token, and no script is for that one.
    let head = layby.head(&blob_path(REPOSITORY, &content)).await;
    head.expect(200);
    let gate = Gate::closed();
    let first = Rule::digest(content.digest()).wait_at(7 * MIB, &gate);
    fake.script(first.cut(7 * MIB + 1, Cut::Fin).once());
    let address = layby.address();
    let path = blob_path(REPOSITORY, &content);
    let pulling = beside(download(address, path));
    gate.reached().await;
    clock.advance(Duration::from_secs(400));
    gate.open();
    done(pulling).await.expect(&content);
    assert_eq!(office.given(), 2);
    assert_eq!(fake.record().sent(content.digest()), content.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_ignores_ranges_is_skipped_through_and_nothing_is_spoiled() {
    let content = middling();
    let fake = registry_with(&content).await;
    fake.ignore_ranges();
    let cuts = [MIB, 2 * MIB + 17, 20 * MIB];
    for at in cuts {
        fake.script(Rule::digest(content.digest()).cut(at, Cut::Fin).once());
    }
    let layby = Layby::over(&fake).await;
    pull_at_once(&layby, &content, 3).await;
    let all: u64 = cuts.iter().sum();
    assert_eq!(fake.record().sent(content.digest()), content.len() + all);
    layby.blob(REPOSITORY, &content).await.expect(&content);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_url_goes_on_where_the_first_one_died() {
    let content = middling();
    let (first, second) = (registry_with(&content).await, registry_with(&content).await);
    let gate = Gate::closed();
    first.script(Rule::digest(content.digest()).wait_at(10 * MIB, &gate));
    let urls = format!(r#"url = ["{}", "{}"]"#, first.origin(), second.origin());
    let layby = Setup::over(&first).of(UPSTREAM, &urls).start().await;

    let mut wire = Wire::connect(layby.address()).await;
    wire.send(&Request::get(blob_path(REPOSITORY, &content)))
        .await;
    let head = wire.head().await;
    assert_eq!(head.status, 200, "{}", head.raw);
    let begin = wire.exactly(10 * MIB).await;
    gate.reached().await;
    assert_eq!(second.record().sent(content.digest()), 0);
    first.go_down().await;
    wire.hash_rest_after(head, &begin).await.expect(&content);
    assert_eq!(second.record().sent(content.digest()), 22 * MIB);
}

/// Until its budget is spent; then clients are told by a broken connection, and the next request goes on from there.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_long_outage_the_next_request_continues_what_is_there() {
    let content = middling();
    let fake = registry_with(&content).await;
    let gate = Gate::closed();
    fake.script(
        Rule::digest(content.digest())
            .wait_at(20 * MIB, &gate)
            .once(),
    );
    let mut layby = impatient(Setup::over(&fake)).start().await;
    let mut wire = Wire::connect(layby.address()).await;
    wire.send(&Request::get(blob_path(REPOSITORY, &content)))
        .await;
    wire.head().await;
    wire.exactly(20 * MIB).await;
    fake.go_down().await;
    drop(wire);
    layby.restart().await;
    fake.come_back().await;
    eventually("the rest", || async {
        let got = layby.blob(REPOSITORY, &content).await;
        assert!(!got.is_a_lie(content.digest()), "{got}");
        got.is_whole(content.digest()).then_some(())
    })
    .await;
    let sent = fake.record().sent(content.digest());
    assert!(sent <= content.len() + LOST_IN_A_STALL, "{sent}");
}

/// How a program ends in the middle of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Killed,
    Stopped,
}

async fn half_then(ending: Ending) {
    let content = large();
    let fake = registry_with(&content).await;
    let (gate, half) = (Gate::closed(), content.len() / 2);
    fake.script(Rule::digest(content.digest()).wait_at(half, &gate));
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let setup = Setup::over(&fake);
    let program = Program::start(&setup, scratch.path()).await;
    let path = blob_path(REPOSITORY, &content);
    let mut wire = Wire::connect(program.address()).await;
    wire.send(&Request::get(&path)).await;
    wire.head().await;
    let mut got = 0;
    while got < half {
        got += wire.exactly(MIB).await.len() as u64;
    }
    match ending {
        Ending::Killed => program.kill().await,
        Ending::Stopped => {
            drop(wire);
            program.stop().await;
        }
    }
    fake.mend();
    fake.record().clear();
    let program = Program::start(&setup, scratch.path()).await;
    pull(program.address(), &path, &content).await;
    let sent = fake.record().sent(content.digest());
    let most = content.len() - half + LOST_IN_A_KILL;
    assert!(sent <= most, "{ending:?}: {sent} of at most {most}");
    assert_eq!(fake.record().sent_twice(content.digest()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_half_of_a_fetch_costs_the_missing_half_and_at_most_16_mib() {
    half_then(Ending::Killed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_at_half_of_a_fetch_costs_the_missing_half_and_at_most_16_mib() {
    half_then(Ending::Stopped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_asked_for_in_a_day_is_removed() {
    let content = middling();
    let fake = registry_with(&content).await;
    let gate = Gate::closed();
    fake.script(Rule::digest(content.digest()).wait_at(20 * MIB, &gate));
    let mut layby = Layby::over(&fake).await;
    let mut wire = Wire::connect(layby.address()).await;
    wire.send(&Request::get(blob_path(REPOSITORY, &content)))
        .await;
    wire.head().await;
    wire.exactly(20 * MIB).await;
    drop(wire);
    layby.restart().await;
    assert!(!partials(&layby).is_empty());
    layby.clock().advance(Duration::from_secs(25 * 3600));
    layby.restart().await;
    eventually("an empty directory", || async {
        partials(&layby).is_empty().then_some(())
    })
    .await;
    fake.mend();
    fake.record().clear();
    layby.blob(REPOSITORY, &content).await.expect(&content);
    assert_eq!(fake.record().sent(content.digest()), content.len());
}

/// The files of fetches that have not ended.
fn partials(layby: &Layby) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(layby.data().join("partial")).expect("the directory");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}
