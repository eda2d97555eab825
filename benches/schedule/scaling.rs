//! Two ranks against one, held against what two threads of registers-only arithmetic gain at the same
//! time on the same cores.

use std::time::{Duration, Instant};

use lambda_hat::device::{Arith, fma_peak};

use crate::dispatch::{self, Units};
use crate::measure::median;

/// Rounds that medians are of; odd.
const ROUNDS: usize = 5;
/// Seconds of arithmetic a round.
const SPIN: Duration = Duration::from_millis(700);
/// Share of the arithmetic's gain that the program must reach.
const BAR: f64 = 0.95;

/// Prints the gains; whether the bar is met.
pub fn row() -> Result<bool, String> {
    let (mut ours, mut registers) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (one_thread, one) = (spins(1), dispatch::job(Units::Small, 1)?.rate);
        let (two_threads, two) = (spins(2), dispatch::job(Units::Small, 2)?.rate);
        registers.push(two_threads / one_thread);
        ours.push(two / one);
    }
    let (ours, registers) = (median(ours), median(registers));
    println!(
        "  2 ranks against 1 on the preset small: {ours:.2}; 2 threads against 1 of registers alone: {registers:.2}; ratio {:.3} (bar {BAR})",
        ours / registers
    );
    Ok(ours / registers >= BAR)
}

/// Measurements of the peak a second, by so many threads together.
fn spins(threads: usize) -> f64 {
    let spin = || {
        let start = Instant::now();
        let mut done = 0;
        while start.elapsed() < SPIN {
            fma_peak::<f64>(Arith::current(), 1);
            done += 1;
        }
        f64::from(done) / start.elapsed().as_secs_f64()
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(spin)).collect();
        running.into_iter().map(|thread| thread.join().unwrap_or(0.0)).sum()
    })
}
