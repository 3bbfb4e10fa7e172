//! A small pool of threads for work that blocks.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};

type Job = Box<dyn FnOnce() + Send>;

/// Threads that run jobs in the order they come. The last clone dropped ends them, after the jobs that wait.
///
/// The queue has no limit of its own: whoever submits bounds what is under way. A job that panics ends alone.
#[derive(Clone)]
pub struct Pool(Arc<Owner>);

/// What all clones of a pool share. Dropped, it lets the threads end.
struct Owner(Arc<Crew>);

/// The threads of a pool.
struct Crew {
    name: String,
    work: Mutex<Work>,
    /// A job waits, or none will come any more.
    news: Condvar,
    /// How many threads there may be.
    most: usize,
}

#[derive(Default)]
struct Work {
    jobs: VecDeque<Job>,
    threads: usize,
    /// Threads that do nothing.
    idle: usize,
    is_over: bool,
}

impl Pool {
    /// A pool of `threads` threads called `name`.
    pub fn new(name: &str, threads: usize) -> io::Result<Self> {
        let pool = Self::growing(name, threads)?;
        while pool.crew().add()? {}
        Ok(pool)
    }

    /// A pool of one thread called `name`, to which others come, up to `most`, when jobs would have to wait.
    pub fn growing(name: &str, most: usize) -> io::Result<Self> {
        let crew = Arc::new(Crew {
            name: name.to_owned(),
            work: Mutex::default(),
            news: Condvar::new(),
            most: most.max(1),
        });
        crew.add()?;
        Ok(Self(Arc::new(Owner(crew))))
    }

    fn crew(&self) -> &Arc<Crew> {
        &self.0.0
    }

    /// Has `job` run on one of the threads.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let crew = self.crew();
        let mut work = crew.work.lock();
        work.jobs.push_back(Box::new(job));
        let must_wait = work.jobs.len() > work.idle;
        drop(work);
        crew.news.notify_one();
        if must_wait && let Err(error) = crew.add() {
            tracing::warn!(%error, pool = crew.name, "no further thread can be started, jobs wait for the others");
        }
    }

    /// Whether a job waits that no thread is free for.
    pub fn is_short(&self) -> bool {
        let work = self.crew().work.lock();
        work.jobs.len() > work.idle
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.work.lock().is_over = true;
        self.0.news.notify_all();
    }
}

impl Crew {
    /// Starts a further thread, if there may be one; whether it did.
    fn add(self: &Arc<Self>) -> io::Result<bool> {
        let mut work = self.work.lock();
        if work.threads == self.most {
            return Ok(false);
        }
        let crew = Arc::clone(self);
        thread::Builder::new()
            .name(format!("{}-{}", self.name, work.threads))
            .spawn(move || crew.work())?;
        work.threads += 1;
        // It will be.
        work.idle += 1;
        Ok(true)
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
                tracing::error!("a job of a worker thread panicked");
            }
            self.work.lock().idle += 1;
        }
    }

    /// Waits for a job; `None` when there will be none.
    fn next(&self) -> Option<Job> {
        let mut work = self.work.lock();
        loop {
            if let Some(job) = work.jobs.pop_front() {
                work.idle -= 1;
                return Some(job);
            }
            if work.is_over {
                return None;
            }
            self.news.wait(&mut work);
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_panicking_job_does_not_end_its_thread() {
        let pool = Pool::new("test", 1).unwrap();
        pool.run(|| panic!("on purpose"));
        let (sender, receiver) = channel();
        pool.run(move || sender.send(7).unwrap());
        assert_eq!(receiver.recv().unwrap(), 7);
    }

    #[test]
    fn a_growing_pool_has_as_many_threads_as_jobs_at_once_up_to_its_limit() {
        let pool = Pool::growing("test", 3).unwrap();
        let (started, starts) = channel();
        let (go, wait) = channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        assert_eq!(pool.crew().work.lock().threads, 1);
        for n in 0..5 {
            let (started, wait) = (started.clone(), Arc::clone(&wait));
            pool.run(move || {
                started.send(n).unwrap();
                let _ = wait.lock().recv();
            });
        }
        let mut first: Vec<_> = starts.iter().take(3).collect();
        first.sort_unstable();
        assert_eq!(first, [0, 1, 2]);
        assert_eq!(pool.crew().work.lock().threads, 3);
        assert!(starts.try_recv().is_err(), "the others wait");
        drop(go);
        assert_eq!(starts.iter().take(2).count(), 2);
    }

    #[test]
    fn the_jobs_that_wait_are_done_after_the_last_clone_is_gone() {
        let pool = Pool::new("test", 1).unwrap();
        let (started, starts) = channel();
        let (go, wait) = channel::<()>();
        let (done, dones) = channel();
        pool.run(move || {
            started.send(()).unwrap();
            let _ = wait.recv();
        });
        starts.recv().unwrap();
        for n in 0..3 {
            let done = done.clone();
            pool.run(move || done.send(n).unwrap());
        }
        drop((pool, done));
        drop(go);
        assert_eq!(dones.iter().collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn a_pool_is_short_of_threads_while_a_job_waits_for_one() {
        let pool = Pool::new("test", 1).unwrap();
        let (started, starts) = channel();
        let (go, wait) = channel::<()>();
        pool.run(move || {
            started.send(()).unwrap();
            let _ = wait.recv();
        });
        starts.recv().unwrap();
        assert!(!pool.is_short());
        let (done, dones) = channel();
        pool.run(move || done.send(()).unwrap());
        assert!(pool.is_short());
        drop(go);
        dones.recv().unwrap();
        assert!(!pool.is_short());
    }
}
