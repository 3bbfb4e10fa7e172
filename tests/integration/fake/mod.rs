//! A registry for tests: it holds repositories, writes down what it is asked and what it sends, and does wrong what a
//! script tells it to. Speaks HTTP/1.1 over TCP or TLS on a loopback port of its own.

mod answer;
mod auth;
mod content;
mod gate;
mod record;
mod script;
mod send;
#[cfg(test)]
mod tests;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use layby::oci::Digest;
use layby::runtime::Tasks;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use answer::{Answer, Ask, Habits, Manifest, Shelf};
use send::After;
use wire::{Connection, Head};

pub(crate) use auth::{Protection, TokenOffice};
pub(crate) use content::Content;
pub(crate) use gate::Gate;
pub(crate) use record::Record;
pub(crate) use script::{Cut, Rule};

use crate::support::Identity;

/// The fake. Clones are the same one; the last one dropped ends it.
#[derive(Debug, Clone)]
pub(crate) struct Fake {
    inner: Arc<Inner>,
    serving: Arc<Serving>,
}

#[derive(Debug)]
struct Inner {
    address: SocketAddr,
    identity: Option<Identity>,
    shelf: Mutex<Shelf>,
    rules: Mutex<Vec<Rule>>,
    settings: Mutex<Settings>,
    record: Record,
}

#[derive(Debug)]
struct Settings {
    protection: Protection,
    office: Option<TokenOffice>,
    storage: Option<Arc<Inner>>,
    refuses_authorization: bool,
    signs_once: bool,
    habits: Habits,
}

/// Its tasks; none while it is down.
#[derive(Debug, Default)]
struct Serving(Mutex<Option<Tasks>>);

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(tasks) = self.0.lock().take() {
            tasks.stop();
        }
    }
}

impl Fake {
    /// A registry behind plain HTTP.
    pub(crate) async fn start() -> Self {
        Self::bind(None).await
    }

    /// A registry behind TLS.
    pub(crate) async fn start_tls(identity: &Identity) -> Self {
        Self::bind(Some(identity.clone())).await
    }

    async fn bind(identity: Option<Identity>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let scheme = if identity.is_some() { "https" } else { "http" };
        let settings = Settings {
            protection: Protection::Open,
            office: None,
            storage: None,
            refuses_authorization: false,
            signs_once: false,
            habits: Habits {
                origin: format!("{scheme}://{address}"),
                ..Habits::default()
            },
        };
        let fake = Self {
            inner: Arc::new(Inner {
                address,
                identity,
                shelf: Mutex::default(),
                rules: Mutex::default(),
                settings: Mutex::new(settings),
                record: Record::default(),
            }),
            serving: Arc::default(),
        };
        fake.serve(listener);
        fake
    }

    fn serve(&self, listener: TcpListener) {
        let tasks = Tasks::new();
        *self.serving.0.lock() = Some(tasks.clone());
        let inner = Arc::clone(&self.inner);
        let connections = tasks.clone();
        tasks.spawn_until_stop(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                inner.record.connected();
                connections.spawn_until_stop(Arc::clone(&inner).converse(tcp));
            }
        });
    }

    /// Takes it off the network: its port is closed and its connections are gone.
    pub(crate) async fn go_down(&self) {
        let tasks = self.serving.0.lock().take();
        if let Some(tasks) = tasks {
            tasks.stop();
            assert!(
                tasks.drained(Duration::from_secs(10)).await,
                "the fake stops"
            );
        }
    }

    /// Brings it back at the same address.
    pub(crate) async fn come_back(&self) {
        let listener = TcpListener::bind(self.inner.address).await;
        self.serve(listener.expect("its port is still free"));
    }

    /// `127.0.0.1:port`.
    pub(crate) fn host(&self) -> String {
        self.inner.address.to_string()
    }

    /// `http://127.0.0.1:port`.
    pub(crate) fn origin(&self) -> String {
        self.inner.settings.lock().habits.origin.clone()
    }

    /// What it was asked and what it sent.
    pub(crate) fn record(&self) -> &Record {
        &self.inner.record
    }

    /// Puts a blob into a repository.
    pub(crate) fn put_blob(&self, repository: &str, content: &Content) -> Digest {
        let mut shelf = self.inner.shelf.lock();
        let repository = shelf.repositories.entry(repository.into()).or_default();
        let digest = content.digest().clone();
        repository.blobs.insert(digest.clone(), content.clone());
        digest
    }

    /// Puts a manifest into a repository.
    pub(crate) fn put_manifest(
        &self,
        repository: &str,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> Digest {
        self.put_manifest_content(repository, media_type, Content::bytes(bytes))
    }

    /// Puts a manifest into a repository, under whatever digest it is said to have.
    pub(crate) fn put_manifest_content(
        &self,
        repository: &str,
        media_type: &str,
        content: Content,
    ) -> Digest {
        let mut shelf = self.inner.shelf.lock();
        let repository = shelf.repositories.entry(repository.into()).or_default();
        let digest = content.digest().clone();
        let media_type = media_type.into();
        let manifest = Manifest {
            media_type,
            content,
        };
        repository.manifests.insert(digest.clone(), manifest);
        digest
    }

    /// Points a tag at a manifest.
    pub(crate) fn tag(&self, repository: &str, tag: &str, digest: &Digest) {
        let mut shelf = self.inner.shelf.lock();
        let repository = shelf.repositories.entry(repository.into()).or_default();
        repository.tags.insert(tag.into(), digest.clone());
    }

    /// Removes a repository and all that is in it.
    pub(crate) fn remove(&self, repository: &str) {
        self.inner.shelf.lock().repositories.remove(repository);
    }

    /// Adds a rule behind those that are there.
    pub(crate) fn script(&self, rule: Rule) {
        self.inner.rules.lock().push(rule);
    }

    /// Removes all rules: from now on all is right.
    pub(crate) fn mend(&self) {
        self.inner.rules.lock().clear();
    }

    /// Asks for tokens or passwords from now on.
    pub(crate) fn protect(&self, protection: Protection) {
        self.inner.settings.lock().protection = protection;
    }

    /// Answers `/token` for this office.
    pub(crate) fn give_tokens(&self, office: &TokenOffice) {
        self.inner.settings.lock().office = Some(office.clone());
    }

    /// `Bearer`, with tokens given out by `at`.
    pub(crate) fn protect_with_tokens(&self, office: &TokenOffice, at: &Self) {
        at.give_tokens(office);
        self.protect(Protection::Bearer {
            realm: format!("{}/token", at.origin()),
            service: self.host(),
            office: office.clone(),
        });
    }

    /// Redirects `GET`s of blobs to signed addresses at `storage`.
    pub(crate) fn redirect_blobs_to(&self, storage: &Self) {
        self.inner.settings.lock().storage = Some(Arc::clone(&storage.inner));
    }

    /// Answers `400` to whoever brings an `Authorization`, as object stores do.
    pub(crate) fn refuse_authorization(&self) {
        self.inner.settings.lock().refuses_authorization = true;
    }

    /// As a storage host: a signature is good for one request, after which it has expired.
    pub(crate) fn sign_once(&self) {
        self.inner.settings.lock().signs_once = true;
    }

    /// Answers every `Range` with everything.
    pub(crate) fn ignore_ranges(&self) {
        self.inner.settings.lock().habits.ignores_range = true;
    }

    /// Answers referrers.
    pub(crate) fn answer_referrers(&self) {
        self.inner.settings.lock().habits.referrers = true;
    }
}

impl Inner {
    async fn converse(self: Arc<Self>, tcp: TcpStream) {
        let connection = match &self.identity {
            None => Ok(Connection::plain(tcp)),
            Some(identity) => TlsAcceptor::from(identity.server())
                .accept(tcp)
                .await
                .map(Connection::tls),
        };
        // A client that goes away, or does not trust the certificate, is none of the fake's business.
        let Ok(mut connection) = connection else {
            return;
        };
        while let Ok(Some((head, _body))) = connection.request().await {
            match self.respond(&head, &mut connection).await {
                Ok(After::Keep) => {}
                Ok(After::End(how)) => return connection.end(how).await,
                Err(_) => return,
            }
        }
    }

    async fn respond(&self, head: &Head, connection: &mut Connection) -> std::io::Result<After> {
        let seen = Arc::new(record::Seen::new(head));
        self.record.add(&seen);
        let act = {
            let mut rules = self.rules.lock();
            let mut used = rules.iter_mut().filter_map(|rule| {
                let takes = rule.takes(&head.method, &head.path);
                takes.then(|| rule.act.clone())
            });
            used.next().unwrap_or_default()
        };
        let answer = self.answer(head, act.ignores_range).changed_by(&act);
        let is_head = head.method == "HEAD";
        answer.send(connection, is_head, &act, &seen).await
    }

    fn answer(&self, head: &Head, ignores_range: bool) -> Answer {
        let settings = self.settings.lock();
        if settings.refuses_authorization && head.header("authorization").is_some() {
            return auth::storage_refusal();
        }
        if let Some(office) = &settings.office
            && head.path == "/token"
        {
            return office.exchange(head);
        }
        if head.path.starts_with("/storage/") {
            return self.stored(head, settings.signs_once);
        }
        if head.path == "/v2/" || head.path == "/v2" {
            let refusal = settings.protection.refusal(head, None);
            return refusal.unwrap_or_else(|| Answer::json(StatusCode::OK, "{}"));
        }
        let Some(ask) = Ask::parse(&head.path) else {
            return Answer::new(StatusCode::NOT_FOUND, "text/plain", "404 page not found\n");
        };
        if let Some(refusal) = settings.protection.refusal(head, Some(ask.repository)) {
            return refusal;
        }
        let mut habits = settings.habits.clone();
        habits.ignores_range |= ignores_range;
        let answer = self.shelf.lock().answer(head, &ask, &habits);
        match &settings.storage {
            Some(storage) if ask.kind == "blobs" && head.method == "GET" => storage.shelve(answer),
            _ => answer,
        }
    }

    /// As a storage host: takes the content of `answer`, and gives the redirect to it.
    fn shelve(&self, answer: Answer) -> Answer {
        if !answer.status.is_success() {
            return answer;
        }
        let digest = answer.content.digest().clone();
        let path = format!("/storage/{digest}");
        let signature = format!("X-Amz-Signature={:016x}", fastrand::u64(..));
        {
            let mut shelf = self.shelf.lock();
            shelf.objects.insert(path.clone(), answer.content);
            shelf.signatures.insert(signature.clone());
        }
        let origin = &self.settings.lock().habits.origin;
        Answer::new(StatusCode::TEMPORARY_REDIRECT, "text/html", "moved")
            .header("Docker-Content-Digest", digest.as_str())
            .header("Location", format!("{origin}{path}?{signature}"))
    }

    fn stored(&self, head: &Head, signs_once: bool) -> Answer {
        let mut shelf = self.shelf.lock();
        let is_good = if signs_once {
            shelf.signatures.remove(&head.query)
        } else {
            shelf.signatures.contains(&head.query)
        };
        match shelf.objects.get(&head.path) {
            Some(content) if is_good => Answer::content(head, content, false),
            _ => auth::expired(),
        }
    }
}
