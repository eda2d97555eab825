//! Two ranks against one, held against what two threads of registers-only arithmetic gain at the same
//! time on the same cores.

use crate::dispatch::{self, Units};
use crate::measure::{median, spins};

/// Rounds that medians are of; odd.
const ROUNDS: usize = 5;
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
