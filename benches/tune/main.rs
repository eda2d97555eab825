//! Proposals against Optuna's on standard functions, and how long one takes: `make bench-tune`.
//!
//! `cargo bench --bench tune -- compare 50` compares with 50 seeds, `-- compare 50 1000 steps nested` with the
//! seeds 1000 to 1049 of ours on two functions, `-- ask 10000` measures proposals after so many trials,
//! `-- values batch steps 50 1000` lists what these seeds reach; without words the first and third are done.
//! `tests/data/tune/optuna.json` holds what Optuna reached, by `optuna_reference.py`. Ends with 1 where a bar
//! is missed.

mod compare;
mod functions;

use std::process::ExitCode;
use std::time::Instant;

use compare::{Comparison, Reference, best, variants};
use functions::functions;
use lambda_hat::config::tune::{Objective, Pruner, StudySpec, TpeSettings, TuneSampler, Units};
use lambda_hat::num::rng::{Key, Purpose};
use lambda_hat::tune::study::{Outcome, Recorded, Study};

/// Seconds that a proposal may take.
const ASK: f64 = 0.020;
const SEEDS: usize = 50;
const TRIALS: usize = 10_000;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<usize>().map_err(|_| format!("'{text}': expected a number"));
    let met = match *words.as_slice() {
        [] => compared(SEEDS, 0, &[]).and_then(|met| Ok(asked(TRIALS)? && met)),
        ["compare", seeds] => number(seeds).and_then(|n| compared(n, 0, &[])),
        ["compare", seeds, first, ref names @ ..] => {
            number(seeds).and_then(|n| compared(n, number(first)?, names))
        }
        ["values", variant, function, seeds] => number(seeds).and_then(|n| listed(variant, function, 0..n)),
        ["values", variant, function, seeds, first] => number(seeds).and_then(|n| {
            let first = number(first)?;
            listed(variant, function, first..first + n)
        }),
        ["ask", trials] => number(trials).and_then(asked),
        _ => Err("expected nothing, `compare SEEDS [FIRST [FUNCTION ...]]`, `values VARIANT FUNCTION SEEDS \
                  [FIRST]` or `ask TRIALS`"
            .to_owned()),
    };
    match met {
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

/// The table of all variants and of the functions of these names, of all if there are none; our seeds begin
/// with `first`. Whether we are nowhere worse beyond chance, and no worse in the
/// sum of ranks.
fn compared(seeds: usize, first: usize, names: &[&str]) -> Result<bool, String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tune/optuna.json");
    let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    let reference: Reference = serde_json::from_str(&text).map_err(|e| format!("{path}: {e}"))?;
    println!("lambda-hat-mpi {} against Optuna {}", lambda_hat::VERSION, reference.optuna);
    println!(
        "best value after {} trials, {seeds} seeds, ours from {first}, against theirs",
        reference.trials
    );
    println!("worse: ours larger with two-sided Mann–Whitney p < 1 %");
    if let Some(name) = names.iter().find(|name| functions().iter().all(|f| f.name != **name)) {
        return Err(format!("{name}: no such function: see the table"));
    }
    let mut met = true;
    for (variant, settings, batched) in variants() {
        let batch = if batched { reference.batch } else { 1 };
        println!("\n{variant}, {batch} in flight");
        println!(
            "  {:<14} {:>11} {:>11} {:>7} {:>7} {:>8}",
            "function", "median", "Optuna", "rank", "Optuna", "p"
        );
        let (mut sums, start, mut worse) = ([0.0; 2], Instant::now(), 0);
        for function in functions().iter().filter(|f| names.is_empty() || names.contains(&f.name)) {
            let theirs = reference.best.get(variant).and_then(|all| all.get(function.name));
            let theirs = theirs.filter(|values| values.len() >= seeds);
            let theirs =
                &theirs.ok_or_else(|| format!("{path}: too few of {variant}/{}", function.name))?[..seeds];
            let ours: Vec<f64> = (first..first + seeds)
                .map(|s| best(function, &settings, reference.trials, batch, s as u64))
                .collect();
            let found = Comparison::of(&ours, theirs);
            let mark = if found.is_worse() { "  worse" } else { "" };
            println!(
                "  {:<14} {:>11.5} {:>11.5} {:>7.1} {:>7.1} {:>8.4}{mark}",
                function.name, found.medians[0], found.medians[1], found.ranks[0], found.ranks[1], found.p
            );
            worse += usize::from(found.is_worse());
            sums = [sums[0] + found.ranks[0], sums[1] + found.ranks[1]];
        }
        println!(
            "  sum of mean ranks: {:.1} against {:.1}; worse on {worse}; {:.1} s",
            sums[0],
            sums[1],
            start.elapsed().as_secs_f64()
        );
        met &= worse == 0 && sums[0] <= sums[1];
    }
    Ok(met)
}

/// The best values that a function's studies reach, one a seed.
fn listed(variant: &str, function: &str, seeds: std::ops::Range<usize>) -> Result<bool, String> {
    let (_, settings, batched) =
        variants().into_iter().find(|v| v.0 == variant).ok_or("no such variant: see the table")?;
    let function =
        functions().into_iter().find(|f| f.name == function).ok_or("no such function: see the table")?;
    let batch = if batched { 8 } else { 1 };
    for seed in seeds {
        println!("{:.9}", best(&function, &settings, 100, batch, seed as u64));
    }
    Ok(true)
}

/// How long proposals take after `trials` trials, on every function; whether none exceeds the bar.
fn asked(trials: usize) -> Result<bool, String> {
    println!("\nproposals after {trials} trials (bar {:.0} ms)", 1e3 * ASK);
    println!("  {:<14} {:>15} {:>15}", "function", "joint, ms", "each, ms");
    let mut most = 0.0f64;
    for function in functions() {
        let mut row = [0.0; 2];
        for (seconds, multivariate) in row.iter_mut().zip([true, false]) {
            let spec = StudySpec {
                max_trials: trials + 20,
                batch_size: 8,
                sampler: TuneSampler::Tpe(TpeSettings { multivariate, ..TpeSettings::default() }),
                seed: 1,
                pruner: Pruner::None,
                objective: Objective::Abs { units: Units::Llc },
            };
            let space = function.space();
            let key = Key::new([1; 32], Purpose::Probe, 0);
            let recorded: Vec<Recorded> = (0..trials as u64)
                .map(|i| {
                    let params = space.params(&space.random(&mut key.at(i)));
                    let outcome = Some(Outcome::complete(&[(function.value)(&params)]));
                    Recorded { params, outcome }
                })
                .collect();
            let mut study =
                Study::resume(function.name, space, &spec, &recorded).map_err(|e| e.to_string())?;
            // Each outcome makes room for one proposal, which is made at once. The median of 20 stands for
            // all: a machine that others use stops a thread now and then.
            let mut times = Vec::new();
            while let Some(proposal) = study.ask() {
                let outcome = Outcome::complete(&[(function.value)(&proposal.params)]);
                let (before, start) = (study.trials().len(), Instant::now());
                study.tell(proposal.number, outcome).map_err(|e| e.to_string())?;
                let made = study.trials().len() - before;
                if made > 0 {
                    times.push(start.elapsed().as_secs_f64() / made as f64);
                }
            }
            times.sort_by(f64::total_cmp);
            *seconds = times.get(times.len() / 2).copied().unwrap_or(0.0);
        }
        println!("  {:<14} {:>15.2} {:>15.2}", function.name, 1e3 * row[0], 1e3 * row[1]);
        most = row.into_iter().fold(most, f64::max);
    }
    println!("  longest: {:.2} ms", 1e3 * most);
    Ok(most < ASK)
}
