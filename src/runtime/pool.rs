//! A small pool of threads for work that blocks.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use parking_lot::Mutex;

type Job = Box<dyn FnOnce() + Send>;

/// Threads that run jobs in the order they come. The last clone dropped ends them, after the jobs that wait.
///
/// The queue has no limit of its own: whoever submits bounds what is under way. A job that panics ends alone.
#[derive(Clone)]
pub struct Pool {
    jobs: Sender<Job>,
    crew: Arc<Crew>,
}

/// The threads of a pool.
struct Crew {
    name: String,
    queue: Mutex<Receiver<Job>>,
    /// How many there are.
    threads: Mutex<usize>,
    /// How many there may be.
    most: usize,
    /// Jobs that run or wait.
    under_way: AtomicUsize,
}

impl Pool {
    /// A pool of `threads` threads called `name`.
    pub fn new(name: &str, threads: usize) -> io::Result<Self> {
        let pool = Self::growing(name, threads)?;
        while pool.crew.add()? {}
        Ok(pool)
    }

    /// A pool of one thread called `name`, to which others come, up to `most`, when jobs would have to wait.
    pub fn growing(name: &str, most: usize) -> io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let crew = Arc::new(Crew {
            name: name.to_owned(),
            queue: Mutex::new(queue),
            threads: Mutex::new(0),
            most: most.max(1),
            under_way: AtomicUsize::new(0),
        });
        crew.add()?;
        Ok(Self { jobs, crew })
    }

    /// Has `job` run on one of the threads.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let under_way = self.crew.under_way.fetch_add(1, Ordering::AcqRel) + 1;
        // The threads end only after the last sender is gone, and the crew has the receiver.
        let _ = self.jobs.send(Box::new(job));
        let threads = *self.crew.threads.lock();
        if under_way > threads
            && let Err(error) = self.crew.add()
        {
            tracing::warn!(%error, pool = self.crew.name, "no further thread can be started, jobs wait for the others");
        }
    }
}

impl Crew {
    /// Starts a further thread, if there may be one; whether it did.
    fn add(self: &Arc<Self>) -> io::Result<bool> {
        let mut threads = self.threads.lock();
        if *threads == self.most {
            return Ok(false);
        }
        let crew = Arc::clone(self);
        thread::Builder::new()
            .name(format!("{}-{}", self.name, *threads))
            .spawn(move || crew.work())?;
        *threads += 1;
        Ok(true)
    }

    fn work(&self) {
        loop {
            // One idle thread waits in `recv` with the lock; the others wait for the lock.
            let job = self.queue.lock().recv();
            let Ok(job) = job else { return };
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
                tracing::error!("a job of a worker thread panicked");
            }
            self.under_way.fetch_sub(1, Ordering::AcqRel);
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
        assert_eq!(*pool.crew.threads.lock(), 1);
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
        assert_eq!(*pool.crew.threads.lock(), 3);
        assert!(starts.try_recv().is_err(), "the others wait");
        drop(go);
        assert_eq!(starts.iter().take(2).count(), 2);
    }
}
