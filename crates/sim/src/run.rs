//! Work on several threads, whose results do not depend on their number.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use kith_sansio::{Rng, SeededRng};

/// One simulation while it runs: how many threads it has, how far it is, and whether it is to stop.
#[derive(Debug)]
pub struct Run {
    threads: usize,
    is_stopped: AtomicBool,
    planned: AtomicU64,
    done: AtomicU64,
}

impl Run {
    /// A run on so many threads, one at least.
    pub fn new(threads: usize) -> Run {
        Run {
            threads: threads.max(1),
            is_stopped: AtomicBool::new(false),
            planned: AtomicU64::new(0),
            done: AtomicU64::new(0),
        }
    }

    /// No further piece of work is begun; the simulation ends with what it has.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Whether it was stopped.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// How many pieces of work are done, and how many there are in all.
    pub fn progress(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.planned.load(Ordering::Relaxed))
    }

    /// Says beforehand how many pieces of work will follow.
    pub(crate) fn plan(&self, pieces: u64) {
        self.planned.fetch_add(pieces, Ordering::Relaxed);
    }

    /// `work(0)`, `work(1)` … in this order. Where the run is stopped, the first of them: whatever was begun is ended.
    pub(crate) fn map<T: Send>(&self, pieces: u64, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
        let next = AtomicU64::new(0);
        let worker = || {
            let mut results = Vec::new();
            while !self.is_stopped() {
                let piece = next.fetch_add(1, Ordering::Relaxed);
                if piece >= pieces {
                    break;
                }
                results.push((piece, work(piece)));
                self.done.fetch_add(1, Ordering::Relaxed);
            }
            results
        };
        let mut results: Vec<_> = thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads).map(|_| scope.spawn(worker)).collect();
            workers
                .into_iter()
                .flat_map(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .collect()
        });
        results.sort_unstable_by_key(|(piece, _)| *piece);
        results.into_iter().map(|(_, result)| result).collect()
    }
}

/// What chance is for. Each piece of work has its own, so that it matters to none which thread does it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Places,
    Colluders,
    Work,
    Absent,
    Setters,
}

/// The chance of the `item`-th piece of what a purpose needs.
pub(crate) fn chance(seed: u64, purpose: Purpose, item: u64) -> SeededRng {
    let derived = |seed, with| SeededRng::new(seed).next_u64() ^ with;
    SeededRng::new(derived(derived(seed, purpose as u64), item))
}

/// `count` of `all` numbers, each set as likely as any other (Floyd).
pub(crate) fn drawn(count: u64, all: u64, rng: &mut dyn Rng) -> Vec<bool> {
    let mut is_drawn = vec![false; all as usize];
    for last in all - count.min(all)..all {
        let at = rng.below(last + 1) as usize;
        let free = if is_drawn[at] { last as usize } else { at };
        is_drawn[free] = true;
    }
    is_drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let results =
            |threads| Run::new(threads).map(1_000, |piece| chance(1, Purpose::Work, piece).next_u64());
        assert_eq!(results(1), results(2));
        assert_eq!(results(1).len(), 1_000);
    }

    #[test]
    fn a_run_that_is_stopped_has_the_first_results() {
        let run = Run::new(2);
        let stops_at_seven = |piece| {
            if piece == 7 {
                run.stop();
            }
            piece
        };
        let results = run.map(1_000, stops_at_seven);
        assert!((8..1_000).contains(&results.len()), "{}", results.len());
        assert!(results.iter().copied().eq(0..results.len() as u64));
        assert!(run.map(10, |piece| piece).is_empty());
    }

    #[test]
    fn as_many_are_drawn_as_wanted() {
        for count in [0, 1, 50, 99, 100] {
            let is_drawn = drawn(count, 100, &mut SeededRng::new(count));
            assert_eq!(is_drawn.iter().filter(|drawn| **drawn).count() as u64, count);
        }
    }
}
