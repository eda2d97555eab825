//! What planning a large sweep costs rank 0: seconds from YAML to units, and memory.

use std::time::Instant;

use lambda_hat::config::{self, LoadOptions};
use lambda_hat::device::Arith;
use lambda_hat::sweep::costs::Model;
use lambda_hat::sweep::{Plan, SweepGraph};

use crate::measure::peak_memory;
use crate::sweeps;

/// Seconds and KiB that 10⁵ units may take.
const BARS: (f64, f64) = (2.0, 500.0 * 1024.0);

/// Plans a sweep of about `units` units and prints what each part took; whether that is within bounds.
pub fn row(units: usize) -> Result<bool, String> {
    let text = sweeps::yaml(units);
    let before = peak_memory("self").unwrap_or(f64::NAN);
    let start = Instant::now();
    let mut last = 0.0;
    let mut lap = || {
        let now = start.elapsed().as_secs_f64();
        now - std::mem::replace(&mut last, now)
    };
    let experiment =
        config::parse(&text, "large.yaml", &LoadOptions::default()).map_err(|e| e.to_string())?;
    let read = lap();
    let plan = Plan::new(&experiment).map_err(|e| e.to_string())?;
    let planned = lap();
    let graph = SweepGraph::whole(&plan, &Model::new(Arith::current()));
    let graphed = lap();
    let (together, memory) = (read + planned + graphed, peak_memory("self").unwrap_or(f64::NAN));
    println!(
        "{:>8} units {:>6} targets {:>6} runs   read {read:.3} s  plan {planned:.3} s  units {graphed:.3} s  together {together:.3} s   memory {:.1} MiB, {:.1} of it before",
        graph.len(),
        plan.targets.len(),
        plan.runs.len(),
        memory / 1024.0,
        before / 1024.0,
    );
    Ok(together <= BARS.0 && memory <= BARS.1)
}
