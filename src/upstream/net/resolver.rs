//! Names to addresses, by the system's resolver, which blocks.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use super::shortage::{is_shortage, shortage};
use crate::runtime::Pool;

/// Looks names up on threads of its own, so that a resolver that hangs holds up nothing else. One look-up for each name
/// at a time; all who ask meanwhile get its answer. Bounded, for all together and for each [`Share`].
pub(super) struct Resolver {
    pool: Pool,
    look_up: LookUp,
    under_way: UnderWay,
}

/// Blocks until the addresses of a name are known.
type LookUp = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;
/// What a look-up gave, for all who wait for it.
type Answer = Result<Arc<[IpAddr]>, Arc<io::Error>>;
type UnderWay = Arc<Mutex<HashMap<String, watch::Receiver<Stage>>>>;

/// How far a look-up is.
enum Stage {
    /// For a thread.
    Waiting,
    Running,
    Done(Answer),
}

/// How many look-ups one asker may have under way, so that names of its which hang hold up nobody else's.
#[derive(Debug, Clone)]
pub(in crate::upstream) struct Share(Option<Arc<Semaphore>>);

/// A look-up's part of a share, until it ends.
#[derive(Debug)]
pub(in crate::upstream) struct Part(
    #[expect(dead_code, reason = "counts by being held")] Option<OwnedSemaphorePermit>,
);

/// Look-ups that run at once. They take milliseconds, or as long as a resolver hangs. Threads are started when needed.
const THREADS: usize = 32;
/// Look-ups of names that upstreams send us to, for each URL of an upstream. Eight of them must hang at once with all
/// that they may have before any other name waits.
const FOREIGN: usize = 4;
/// Names that are looked up or wait for it.
const MOST_NAMES: usize = 256;
/// How long a look-up is waited for before it runs. Ends before a connection's time does, so that the look-ups of others
/// are not taken for a host that cannot be reached.
const PATIENCE: Duration = Duration::from_secs(1);

impl Share {
    /// Of one whose names the operator chose: they are few.
    pub(in crate::upstream) fn whole() -> Self {
        Self(None)
    }

    /// Of one whose names others choose.
    pub(in crate::upstream) fn foreign() -> Self {
        Self(Some(Arc::new(Semaphore::new(FOREIGN))))
    }

    /// A part for one look-up.
    pub(in crate::upstream) async fn take(&self) -> io::Result<Part> {
        let Some(share) = &self.0 else {
            return Ok(Part(None));
        };
        let permit = timeout(PATIENCE, Arc::clone(share).acquire_owned()).await;
        match permit {
            Ok(Ok(permit)) => Ok(Part(Some(permit))),
            _ => Err(shortage(format!(
                "{FOREIGN} names that the upstream sends us to are being looked up already; the resolver seems to hang"
            ))),
        }
    }
}

impl Resolver {
    /// The system's.
    pub(super) fn system() -> io::Result<Self> {
        Self::by(|name| {
            Ok((name, 0)
                .to_socket_addrs()?
                .map(|found| found.ip())
                .collect())
        })
    }

    fn by(
        look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Ok(Self {
            pool: Pool::growing("resolve", THREADS)?,
            look_up: Arc::new(look_up),
            under_way: Arc::default(),
        })
    }

    /// The addresses of `name`, with this port. A caller that leaves does not end the look-up, nor its part of `share`.
    pub(super) async fn resolve(
        &self,
        share: &Share,
        name: &str,
        port: u16,
    ) -> io::Result<Vec<SocketAddr>> {
        let joined = self.under_way.lock().get(name).cloned();
        let mut answer = match joined {
            Some(answer) => answer,
            None => self.ask(name, share.take().await?)?,
        };
        let failed = |_| io::Error::other("the look-up of its name failed");
        let begun = answer.wait_for(|stage| !matches!(stage, Stage::Waiting));
        let begun = timeout(PATIENCE, begun).await.map(|begun| begun.map(drop));
        begun
            .map_err(|_| {
                shortage("its name waits for the look-ups of others; the resolver seems to hang")
            })?
            .map_err(failed)?;
        let found = answer.wait_for(|stage| matches!(stage, Stage::Done(_)));
        match &*found.await.map_err(failed)? {
            Stage::Done(Ok(ips)) => Ok(ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect()),
            Stage::Done(Err(error)) if is_shortage(error) => Err(shortage(error.to_string())),
            Stage::Done(Err(error)) => Err(io::Error::new(error.kind(), error.to_string())),
            Stage::Waiting | Stage::Running => Ok(Vec::new()),
        }
    }

    /// Joins the look-up of `name` that is under way, or starts one.
    fn ask(&self, name: &str, part: Part) -> io::Result<watch::Receiver<Stage>> {
        let mut under_way = self.under_way.lock();
        if let Some(answer) = under_way.get(name) {
            return Ok(answer.clone());
        }
        if under_way.len() >= MOST_NAMES {
            return Err(shortage(
                "too many names are being looked up; the resolver seems to hang",
            ));
        }
        let (sender, answer) = watch::channel(Stage::Waiting);
        under_way.insert(name.to_owned(), answer.clone());
        drop(under_way);
        let entry = Entry {
            name: name.to_owned(),
            under_way: Arc::clone(&self.under_way),
            _part: part,
        };
        let look_up = Arc::clone(&self.look_up);
        self.pool.run(move || {
            // A local one, so that a panic too takes it out of the table before those who wait hear of it.
            let entry = entry;
            sender.send_replace(Stage::Running);
            let found = look_up(&entry.name);
            // Out of the table first: whoever asks from now on looks anew.
            drop(entry);
            sender.send_replace(Stage::Done(found.map(Arc::from).map_err(Arc::new)));
        });
        Ok(answer)
    }
}

/// A look-up in the table. Leaves it however the look-up ends.
struct Entry {
    name: String,
    under_way: UnderWay,
    _part: Part,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.under_way.lock().remove(&self.name);
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use futures_util::future::join_all;

    use super::*;

    /// A resolver that gives an address for each message sent, and counts how often it was asked.
    fn waiting() -> (Resolver, mpsc::Sender<()>, Arc<AtomicUsize>) {
        let (go, wait) = mpsc::channel::<()>();
        let (wait, asked) = (Mutex::new(wait), Arc::<AtomicUsize>::default());
        let count = Arc::clone(&asked);
        let resolver = Resolver::by(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = wait.lock().recv();
            Ok(vec![Ipv4Addr::LOCALHOST.into()])
        });
        (resolver.unwrap(), go, asked)
    }

    #[tokio::test]
    async fn all_who_ask_for_a_name_at_once_share_one_look_up() {
        let (resolver, go, asked) = waiting();
        let share = Share::whole();
        let all = (0..20).map(|port| resolver.resolve(&share, "r.example", port));
        let open = async { go.send(()).unwrap() };
        let (found, ()) = tokio::join!(join_all(all), open);
        for (port, found) in (0..).zip(found) {
            let expected = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            assert_eq!(found.unwrap(), [expected]);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert!(resolver.under_way.lock().is_empty());
        go.send(()).unwrap();
        assert!(
            resolver
                .resolve(&Share::whole(), "r.example", 1)
                .await
                .is_ok()
        );
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_resolver_that_hangs_is_given_a_bounded_number_of_names() {
        let (resolver, go, asked) = waiting();
        for n in 0..MOST_NAMES {
            // The caller leaves at once, the look-up stays.
            assert!(resolver.ask(&format!("{n}.example"), Part(None)).is_ok());
        }
        let error = resolver
            .resolve(&Share::whole(), "one.more.example", 1)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("hang"), "{error}");
        assert!(is_shortage(&error));
        assert!(asked.load(Ordering::SeqCst) <= THREADS);
        assert!(
            resolver.ask("7.example", Part(None)).is_ok(),
            "it is under way"
        );
        drop(go);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_waits_for_the_look_ups_of_others_is_not_taken_for_a_dead_one() {
        let (resolver, go, _) = waiting();
        for n in 0..THREADS {
            assert!(resolver.ask(&format!("{n}.example"), Part(None)).is_ok());
        }
        let error = resolver
            .resolve(&Share::whole(), "r.example", 1)
            .await
            .unwrap_err();
        assert!(is_shortage(&error), "{error}");
        drop(go);
    }

    #[tokio::test(start_paused = true)]
    async fn names_of_one_that_hang_take_no_more_than_its_share() {
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let resolver = Resolver::by(move |name| {
            if name.starts_with("hangs") {
                let _ = wait.lock().recv();
            }
            Ok(vec![Ipv4Addr::LOCALHOST.into()])
        });
        let (resolver, share) = (resolver.unwrap(), Share::foreign());
        for n in 0..FOREIGN {
            let name = format!("hangs-{n}.example");
            let part = share.take().await.unwrap();
            // The caller leaves at once, the look-up stays.
            assert!(resolver.ask(&name, part).is_ok());
        }
        let error = resolver.resolve(&share, "r.example", 1).await.unwrap_err();
        assert!(is_shortage(&error), "{error}");
        // A thread answers, which the paused clock does not wait for.
        tokio::time::resume();
        for other in [Share::foreign(), Share::whole()] {
            assert!(resolver.resolve(&other, "r.example", 1).await.is_ok());
        }
        drop(go);
    }

    #[tokio::test]
    async fn failures_and_panics_of_a_look_up_reach_those_who_wait_and_nobody_later() {
        let asked = AtomicUsize::new(0);
        let resolver = Resolver::by(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
            0 => Err(io::Error::new(io::ErrorKind::NotFound, "no such name")),
            1 => panic!("on purpose"),
            _ => Ok(vec![Ipv4Addr::LOCALHOST.into()]),
        });
        let resolver = resolver.unwrap();
        let error = resolver
            .resolve(&Share::whole(), "r.example", 1)
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "no such name");
        assert!(
            resolver
                .resolve(&Share::whole(), "r.example", 1)
                .await
                .is_err()
        );
        assert!(
            resolver
                .resolve(&Share::whole(), "r.example", 1)
                .await
                .is_ok()
        );
    }
}
