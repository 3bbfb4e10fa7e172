//! A small fixed pool of threads for work that blocks.

use std::sync::Arc;
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
}

impl Pool {
    /// A pool of `threads` threads called `name`.
    pub fn new(name: &str, threads: usize) -> std::io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..threads.max(1) {
            let queue = Arc::clone(&queue);
            thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || work(&queue))?;
        }
        Ok(Self { jobs })
    }

    /// Has `job` run on one of the threads.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        // The threads end only after the last sender is gone, so there is always a receiver.
        let _ = self.jobs.send(Box::new(job));
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        // One idle thread waits in `recv` with the lock; the others wait for the lock.
        let job = queue.lock().recv();
        let Ok(job) = job else { return };
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
            tracing::error!("a job of a worker thread panicked");
        }
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
}
