//! What scheduling costs and achieves, in one table: `make bench-schedule`.
//!
//! Planning, dispatch through rank 0 on real ranks, and a simulation of large jobs on the program's own
//! graph and scheduler. The words of a part after `--` measure that part alone:
//! `cargo bench --bench schedule -- plan 100000`, `dispatch 2`, `scaling`, `simulate`. What the figures
//! mean stands in docs/scheduling.md. Ends with 1 where a bar is missed.

mod bound;
mod dispatch;
#[path = "../throughput/measure.rs"]
#[allow(dead_code, reason = "its table is the other benchmark's")]
mod measure;
mod planning;
mod scaling;
mod simulation;
mod sweeps;
mod table;

use std::process::{Command, ExitCode};

use dispatch::Units;
use lambda_hat::device::Arith;
use simulation::Costs;

/// Empty units a second through rank 0.
const DISPATCH: f64 = 20_000.0;
/// Share of rank 0's slot that managing 100 units a second may take.
const SHARE: f64 = 0.02;
/// Jobs that a median is of; odd.
const JOBS: usize = 5;
/// The network of a cluster ten years old (FDR InfiniBand gives 6 GB/s and 1 µs; rank 0 sleeps up to
/// 2 ms between polls while nothing happens, 20 µs while something does), and a disk.
const MACHINE: Costs =
    Costs { service: 1.0 / DISPATCH, latency: 2e-4, bandwidth: 2e9, disk: 5e8, write: 5e-3 };

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match part(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("a bar is missed: see the table");
            ExitCode::FAILURE
        }
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Measures what the words say; whether its bars are met.
fn part(words: &[&str]) -> Result<bool, String> {
    let number = |text: &str| text.parse::<usize>().map_err(|_| format!("'{text}': expected a number"));
    match *words {
        [] => everything(),
        ["rank", units] => dispatch::rank(units).map(|()| true),
        ["plan", units] => planning::row(number(units)?),
        ["dispatch", ranks] => Ok(dispatched(number(ranks)?)? >= DISPATCH),
        ["share"] => share(),
        ["scaling"] => scaling::row(),
        ["simulate"] => table::show(MACHINE, None),
        _ => Err("expected plan UNITS, dispatch RANKS, share, scaling, simulate, or nothing".to_owned()),
    }
}

fn everything() -> Result<bool, String> {
    println!("lambda-hat-mpi {} ({:.12})", lambda_hat::VERSION, lambda_hat::GIT_SHA);
    println!("{}, {}\n", measure::processor(), Arith::current());
    let mut met = true;
    println!("Planning");
    let here = std::env::current_exe().map_err(|e| format!("this benchmark's own path: {e}"))?;
    for units in ["10000", "100000"] {
        // A process of its own, for its own memory.
        let status = Command::new(&here).args(["plan", units]).status();
        met &= status.map_err(|e| format!("planning did not start: {e}"))?.success();
    }
    println!(
        "Dispatch through rank 0, medians of {JOBS} jobs (bar: {DISPATCH} units/s, {:.0} %)",
        100.0 * SHARE
    );
    let mut service = MACHINE.service;
    for ranks in [2, 3, 4] {
        let rate = dispatched(ranks)?;
        met &= rate >= DISPATCH;
        service = if ranks == 2 { 1.0 / rate } else { service };
    }
    met &= share()?;
    met &= scaling::row()?;
    println!("Simulated sweeps");
    let costs = Costs { service, ..MACHINE };
    let plot = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/img/schedule.svg");
    met &= table::show(costs, Some(plot))?;
    Ok(met)
}

fn dispatched(ranks: usize) -> Result<f64, String> {
    let shown = dispatch::median_job(Units::Empty, ranks, JOBS)?;
    println!(
        "  {ranks} ranks  {:>8.0} empty units/s   managing {:.1} µs a unit",
        shown.rate,
        1e6 * shown.managing
    );
    Ok(shown.rate)
}

fn share() -> Result<bool, String> {
    let shown = dispatch::median_job(Units::Small, 2, JOBS)?;
    let share = 100.0 * shown.managing;
    println!(
        "  2 ranks  {:>8.0} units/s of the preset small   managing {:.1} µs a unit: {:.2} % of rank 0's slot at 100 units/s",
        shown.rate,
        1e6 * shown.managing,
        100.0 * share
    );
    Ok(share <= SHARE)
}
