//! How right the samplers are: `make accuracy`, in tables. Cells that are on record in
//! `target/accuracy.jsonl` are not run again, so that it goes on where it was stopped.
//!
//! `ACCURACY_ROWS=words` runs only rows whose part and name contain the words, such as `coverage` or
//! `DLN`; `ACCURACY_REPETITIONS=n` changes the 400 repetitions of the coverage. What the tables mean
//! stands in docs/accuracy.md.

#[allow(dead_code)]
#[path = "../../tests/support/potentials.rs"]
mod potentials;

mod cell;
mod quadratic;
mod record;
mod rows;
mod settings;
mod tables;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cell::Cell;
use lambda_hat::config::SamplerSpec;
use record::Record;
use rows::{Row, Truth};
use settings::Effort;

/// A part of the benchmark: its rows, how often each is run, and how its samplers are chosen.
struct Part {
    name: &'static str,
    rows: Vec<Row>,
    samplers: fn(&Row) -> Vec<SamplerSpec>,
    repetitions: u64,
}

impl Part {
    /// What the columns of its table are called.
    fn columns(&self) -> Vec<&'static str> {
        if self.name == "energy variance" {
            settings::energy_variances().into_iter().map(|(name, _)| name).collect()
        } else {
            (self.samplers)(&self.rows[0]).iter().map(|s| s.algo.name()).collect()
        }
    }
}

fn quadratic_run(_: &Row) -> Vec<SamplerSpec> {
    settings::samplers(Effort::Wide)
}

fn one_run(row: &Row) -> Vec<SamplerSpec> {
    settings::samplers(Effort::of(row.centre.len()))
}

fn one_of_many(row: &Row) -> Vec<SamplerSpec> {
    settings::samplers(row.effort.unwrap_or(Effort::Short))
}

fn mclmc(_: &Row) -> Vec<SamplerSpec> {
    settings::energy_variances().into_iter().map(|(_, spec)| spec).collect()
}

fn main() -> ExitCode {
    // Run by `cargo test` among all benches: nothing to do there.
    if std::env::args().any(|a| a == "--test") {
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> std::io::Result<bool> {
    let wanted = std::env::var("ACCURACY_ROWS").unwrap_or_default();
    let repetitions = std::env::var("ACCURACY_REPETITIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(400);
    let record = Mutex::new(Record::open("target/accuracy.jsonl".as_ref())?);
    let parts = [
        Part { name: "quadratics", rows: rows::quadratics(), samplers: quadratic_run, repetitions: 1 },
        Part { name: "energy variance", rows: rows::energy_variance(), samplers: mclmc, repetitions: 1 },
        Part { name: "singular", rows: rows::singular(), samplers: one_run, repetitions: 1 },
        Part { name: "coverage", rows: rows::regular(), samplers: one_of_many, repetitions },
    ];
    let mut passed = true;
    for mut part in parts {
        part.rows.retain(|row| format!("{} {}", part.name, row.name).contains(&wanted));
        if part.rows.is_empty() {
            continue;
        }
        let truths = truths(&part, &record);
        let cells = all_cells(&part, &truths, &record);
        let names = part.columns();
        let lines: Vec<&str> = part.rows.iter().map(|r| r.name.as_str()).collect();
        let failures = if part.name == "coverage" {
            tables::coverage(&lines, &names, &truths, &cells)
        } else {
            let (medians, mut failures) = tables::errors(part.name, &lines, &names, &truths, &cells);
            failures.extend(match part.name {
                "singular" => tables::median_bars(&names, &medians),
                "energy variance" => tables::falling(&lines, &names, &truths, &cells),
                _ => quadratic_bars(&part, &truths, &cells),
            });
            failures
        };
        passed &= tables::conclude(&failures);
    }
    Ok(passed)
}

/// What the closed forms of quadratics are missed by.
fn quadratic_bars(part: &Part, truths: &[f64], cells: &[Vec<Vec<Cell>>]) -> Vec<String> {
    let mut failures = Vec::new();
    for ((row, &exact), cells) in part.rows.iter().zip(truths).zip(cells) {
        for (spec, cell) in (part.samplers)(row).iter().zip(cells) {
            if let Some(what) = quadratic::shortfall(row, spec, &cell[0], exact) {
                failures.push(format!("FAILS: {}: {}: {what}", spec.algo.name(), row.name));
            }
        }
    }
    failures
}

/// The truth of every row, by a long run where no formula is known.
fn truths(part: &Part, record: &Mutex<Record>) -> Vec<f64> {
    let spec = settings::reference();
    in_parallel(&part.rows, |row| match row.truth {
        Truth::Known(exact) => exact,
        Truth::LongRun => remembered(part.name, row, &spec, 0, f64::NAN, record).mean.unwrap_or(f64::NAN),
    })
}

/// `cells[row][sampler][repetition]`
fn all_cells(part: &Part, truths: &[f64], record: &Mutex<Record>) -> Vec<Vec<Vec<Cell>>> {
    let samplers: Vec<Vec<SamplerSpec>> = part.rows.iter().map(part.samplers).collect();
    let jobs: Vec<(usize, usize, u64)> = (0..part.rows.len())
        .flat_map(|r| (0..samplers[r].len()).map(move |s| (r, s)))
        .flat_map(|(r, s)| (0..part.repetitions).map(move |k| (r, s, k)))
        .collect();
    let done = in_parallel(&jobs, |&(r, s, k)| {
        remembered(part.name, &part.rows[r], &samplers[r][s], k, truths[r], record)
    });
    let mut cells = vec![vec![Vec::new(); samplers[0].len()]; part.rows.len()];
    for (&(r, s, _), cell) in jobs.iter().zip(done) {
        cells[r][s].push(cell);
    }
    cells
}

/// A cell from the record, else run and put there.
fn remembered(
    part: &str,
    row: &Row,
    spec: &SamplerSpec,
    repetition: u64,
    exact: f64,
    record: &Mutex<Record>,
) -> Cell {
    let key = Record::key(part, &row.name, spec, repetition);
    if let Some(cell) = record.lock().expect("no panic").find(&key) {
        return cell;
    }
    let cell = cell::run(row, spec, repetition, exact, key);
    record.lock().expect("no panic").add(&cell);
    cell
}

/// Works on as many threads as there are cores; results in order.
fn in_parallel<J: Sync, R: Send>(jobs: &[J], work: impl Fn(&J) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((i, job)) = {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    jobs.get(i).map(|job| (i, job))
                } {
                    let result = work(job);
                    results.lock().expect("no panic").push((i, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("no panic");
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, r)| r).collect()
}
