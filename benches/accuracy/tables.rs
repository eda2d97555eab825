//! The tables, and what must hold in them.

use crate::cell::Cell;

/// Largest median relative error: the samplers without a step-size bias to choose, and the others.
const MEDIAN_EXACT: f64 = 0.03;
const MEDIAN_STOCHASTIC: f64 = 0.10;
/// Largest share of `ok` verdicts that are wrong.
const WRONG: f64 = 0.02;
/// Smallest pooled coverage, and the binomial probability below which a row fails.
const LEAST_COVERAGE: f64 = 0.90;
const ROW_PROBABILITY: f64 = 1e-4;
const NOMINAL: f64 = 0.95;
/// Coverage above which intervals are wider than they need to be.
const TOO_WIDE: f64 = 0.99;
/// Joint standard errors by which a difference is seen.
const SEEN: f64 = 4.0;

fn head(title: &str, names: &[&str]) {
    println!("\n{title}");
    print!("{:<44} {:>9}", "", "exact");
    names.iter().for_each(|n| print!(" {n:>15}"));
    println!();
}

/// Relative errors in percent, with the distance in MCSE after any predicted bias is taken off, a mark
/// where the verdict is `check`, and one where it is wrong. Returns the median error of every sampler,
/// and what fails of its verdicts.
pub fn errors(
    part: &str,
    rows: &[&str],
    names: &[&str],
    truths: &[f64],
    cells: &[Vec<Vec<Cell>>],
) -> (Vec<f64>, Vec<String>) {
    head(&format!("{part}: relative error of λ̂ in %, (distance in MCSE); ? check, ! wrong ok"), names);
    let mut medians = vec![Vec::new(); names.len()];
    let (mut ok, mut wrong) = (vec![0u32; names.len()], vec![0u32; names.len()]);
    for ((row, &exact), cells) in rows.iter().zip(truths).zip(cells) {
        let name: String = row.chars().take(44).collect();
        print!("{name:<44} {exact:>9.4}");
        for (s, cell) in cells.iter().enumerate() {
            let cell = &cell[0];
            let (Some(mean), Some(mcse)) = (cell.mean, cell.mcse) else {
                print!(" {:>15}", "failed");
                continue;
            };
            let error = (mean - exact) / exact;
            medians[s].push(error.abs());
            ok[s] += u32::from(cell.ok);
            wrong[s] += u32::from(cell.wrong);
            let z = (mean - cell.bias.unwrap_or(0.0) - exact) / mcse;
            let mark = if cell.wrong {
                "!"
            } else if cell.ok {
                " "
            } else {
                "?"
            };
            print!(" {:>15}", format!("{:.2} ({z:.1}){mark}", 100.0 * error));
        }
        println!();
    }
    print!("{:<54}", "median of the size");
    let medians: Vec<f64> = medians.into_iter().map(median).collect();
    medians.iter().for_each(|m| print!(" {:>15}", format!("{:.2} %", 100.0 * m)));
    print!("\n{:<54}", "verdicts ok, of them wrong");
    ok.iter().zip(&wrong).for_each(|(ok, wrong)| print!(" {:>15}", format!("{ok}, {wrong}")));
    println!();
    let mut failures = Vec::new();
    for (name, (ok, wrong)) in names.iter().zip(ok.iter().zip(&wrong)) {
        if f64::from(*wrong) > WRONG * f64::from(*ok) {
            failures.push(format!("FAILS: {name}: {wrong} of {ok} ok verdicts are wrong"));
        }
    }
    (medians, failures)
}

/// Largest median error over singular rows; mala and vi are reported, not judged.
pub fn median_bars(names: &[&str], medians: &[f64]) -> Vec<String> {
    let mut failures = Vec::new();
    for (name, &median) in names.iter().zip(medians).filter(|(n, _)| !matches!(**n, "mala" | "vi")) {
        let limit = if name.starts_with("sg") { MEDIAN_STOCHASTIC } else { MEDIAN_EXACT };
        if median.is_nan() || median > limit {
            failures.push(format!(
                "FAILS: {name}: median error {:.1} % > {:.0} %",
                100.0 * median,
                100.0 * limit
            ));
        }
    }
    failures
}

/// From left to right the bias must get smaller: nowhere larger by more than 4 joint standard errors,
/// and smaller by as much at the end than at the beginning.
pub fn falling(rows: &[&str], names: &[&str], truths: &[f64], cells: &[Vec<Vec<Cell>>]) -> Vec<String> {
    let mut failures = Vec::new();
    for ((row, &exact), cells) in rows.iter().zip(truths).zip(cells) {
        let bias = |cell: &Cell| (cell.mean.unwrap_or(f64::NAN) - exact, cell.mcse.unwrap_or(f64::NAN));
        let biases: Vec<(f64, f64)> = cells.iter().map(|c| bias(&c[0])).collect();
        let fall = |a: (f64, f64), b: (f64, f64)| (a.0.abs() - b.0.abs()) / a.1.hypot(b.1);
        let rises = biases.windows(2).any(|pair| fall(pair[0], pair[1]) < -SEEN);
        let whole = fall(biases[0], biases[biases.len() - 1]);
        if rises || whole.is_nan() || whole < SEEN {
            failures.push(format!(
                "FAILS: {row}: the bias does not fall from {} to {}",
                names[0],
                names[names.len() - 1]
            ));
        }
    }
    failures
}

/// Prints what fails and what is noted; whether nothing fails.
pub fn conclude(failures: &[String]) -> bool {
    failures.iter().for_each(|f| println!("{f}"));
    !failures.iter().any(|f| f.starts_with("FAILS"))
}

/// How often the bias-corrected 95 % interval covers the truth.
pub fn coverage(rows: &[&str], names: &[&str], truths: &[f64], cells: &[Vec<Vec<Cell>>]) -> Vec<String> {
    head("coverage of bias-corrected 95 % intervals in %, of verdicts ok and wrong ok", names);
    let mut pooled = vec![(0usize, 0usize); names.len()];
    let mut verdicts = vec![(0usize, 0usize); names.len()];
    let mut failures = Vec::new();
    for ((row, &exact), cells) in rows.iter().zip(truths).zip(cells) {
        print!("{row:<44} {exact:>9.4}");
        for (s, cells) in cells.iter().enumerate() {
            let covered = cells.iter().filter(|c| c.covers(exact)).count();
            let wrong = cells.iter().filter(|c| c.wrong).count();
            let ok = cells.iter().filter(|c| c.ok).count();
            pooled[s] = (pooled[s].0 + covered, pooled[s].1 + cells.len());
            verdicts[s] = (verdicts[s].0 + ok, verdicts[s].1 + wrong);
            let share = 100.0 / cells.len() as f64;
            print!(" {:>15}", format!("{:.1} {:.0} {wrong}", share * covered as f64, share * ok as f64));
            let p = binomial_tail(covered, cells.len(), NOMINAL);
            if p < ROW_PROBABILITY {
                failures.push(format!(
                    "FAILS: {}: {row}: {covered} of {}: p = {p:.1e}",
                    names[s],
                    cells.len()
                ));
            }
        }
        println!();
    }
    print!("{:<54}", "pooled");
    for (s, (covered, all)) in pooled.iter().enumerate() {
        let share = *covered as f64 / *all as f64;
        print!(" {:>15}", format!("{:.1} %", 100.0 * share));
        if share < LEAST_COVERAGE {
            failures.push(format!("FAILS: {}: pooled coverage {:.1} %", names[s], 100.0 * share));
        } else if share > TOO_WIDE {
            failures.push(format!(
                "note: {}: pooled coverage {:.1} %: wider than needed",
                names[s],
                100.0 * share
            ));
        }
    }
    print!("\n{:<54}", "verdicts ok, of them wrong");
    for (s, (ok, wrong)) in verdicts.iter().enumerate() {
        print!(" {:>15}", format!("{ok}, {wrong}"));
        if *wrong as f64 > WRONG * *ok as f64 {
            failures.push(format!("FAILS: {}: {wrong} of {ok} ok verdicts are wrong", names[s]));
        }
    }
    println!();
    failures
}

fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    match x.len() {
        0 => f64::NAN,
        n => 0.5 * (x[(n - 1) / 2] + x[n / 2]),
    }
}

/// P(at most `k` of `n`) with success probability `p`.
fn binomial_tail(k: usize, n: usize, p: f64) -> f64 {
    let mut log_term = n as f64 * (1.0 - p).ln();
    let mut sum = log_term.exp();
    for i in 1..=k {
        log_term += ((n - i + 1) as f64 / i as f64 * p / (1.0 - p)).ln();
        sum += log_term.exp();
    }
    sum
}
