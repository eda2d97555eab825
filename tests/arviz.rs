//! Random and pathological traces, made anew: our statistics against those of ArviZ itself.

use std::process::Command;

use lambda_hat::io::npz::{self, Array, Values};
use lambda_hat::num::rng::{Key, Purpose, fill_normal, uniform};
use lambda_hat::stats;

/// As in tests/python/arviz_reference.py.
const QUANTILES: [f64; 4] = [0.05, 0.25, 0.5, 0.9];

/// Ways for a trace to be.
const KINDS: [&str; 14] = [
    "normal",
    "correlated",
    "slow",
    "anti_correlated",
    "cauchy",
    "log_normal",
    "constant",
    "stuck_chain",
    "shifted_chain",
    "wider_chain",
    "drifting",
    "ties",
    "nan",
    "infinite",
];
/// Chains and draws.
const SHAPES: [(usize, usize); 17] = [
    (1, 1),
    (1, 3),
    (2, 3),
    (1, 4),
    (2, 4),
    (3, 5),
    (4, 7),
    (1, 50),
    (2, 51),
    (8, 40),
    (4, 333),
    (1, 1000),
    (4, 1000),
    (2, 2001),
    (16, 250),
    (4, 3000),
    (3, 100),
];

/// The draws of one chain of a trace.
fn chain(kind: &str, c: usize, chains: usize, draws: usize, seed: u8) -> Vec<f64> {
    let mut rng = Key::new([seed; 32], Purpose::Probe, c as u32).at(draws as u64);
    let mut x = vec![0.0f64; draws];
    fill_normal(&mut rng, &mut x);
    let last = c + 1 == chains;
    let mut correlate = |phi: f64| (1..draws).for_each(|i| x[i] += phi * x[i - 1]);
    match kind {
        "normal" => {}
        "correlated" => correlate(0.7),
        "slow" => correlate(0.99),
        "anti_correlated" => correlate(-0.8),
        "cauchy" => x.iter_mut().for_each(|v| *v = (std::f64::consts::PI * (uniform(&mut rng) - 0.5)).tan()),
        "log_normal" => x.iter_mut().for_each(|v| *v = (3.0 * *v).exp()),
        "constant" => x.fill(-2.5),
        "stuck_chain" if last => x.fill(0.25),
        "shifted_chain" if last => x.iter_mut().for_each(|v| *v += 0.5),
        "wider_chain" if last => x.iter_mut().for_each(|v| *v *= 3.0),
        "drifting" => x.iter_mut().enumerate().for_each(|(i, v)| *v += 3.0 * i as f64 / draws as f64),
        "ties" => x.iter_mut().for_each(|v| *v = v.round()),
        "nan" if last => x[draws / 2] = f64::NAN,
        "infinite" if last => x[draws / 2] = f64::INFINITY,
        _ => {}
    }
    x
}

/// Name and chains of every trace.
fn traces() -> Vec<(String, Vec<Vec<f64>>)> {
    let mut all = Vec::new();
    for (seed, kind) in (1..).zip(KINDS) {
        for (chains, draws) in SHAPES {
            let made = (0..chains).map(|c| chain(kind, c, chains, draws, seed)).collect();
            all.push((format!("{:03}.{kind}.{chains}x{draws}", all.len()), made));
        }
    }
    all
}

/// Ours, in the order of the script's table, each with the names that the script gives them.
fn statistics(chains: &[&[f64]]) -> Vec<(String, f64)> {
    let mut all: Vec<(String, f64)> = [
        ("ess_mean", stats::ess_mean(chains)),
        ("ess_bulk", stats::ess_bulk(chains)),
        ("ess_tail", stats::ess_tail(chains)),
        ("ess_sd", stats::ess_sd(chains)),
        ("r_hat", stats::r_hat(chains)),
        ("mcse_mean", stats::mcse_mean(chains)),
        ("mcse_sd", stats::mcse_sd(chains)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    for q in QUANTILES {
        all.push((format!("ess_q{q}"), stats::ess_quantile(chains, q)));
        all.push((format!("mcse_q{q}"), stats::mcse_quantile(chains, q)));
    }
    all.push(("e_bfmi".to_owned(), stats::e_bfmi(chains[0])));
    all
}

fn slices(chains: &[Vec<f64>]) -> Vec<&[f64]> {
    chains.iter().map(Vec::as_slice).collect()
}

#[test]
fn statistics_equal_those_of_arviz_itself() {
    let Some(python) = std::env::var_os("LAMBDA_HAT_PYTHON") else {
        eprintln!(
            "SKIPPED: set LAMBDA_HAT_PYTHON (`make test` does) to compare with ArviZ; stored answers of ArviZ are \
             compared with in the library's tests"
        );
        return;
    };
    let traces = traces();
    assert!(traces.len() >= 200, "{}", traces.len());
    let arrays: Vec<(&str, Array)> = traces
        .iter()
        .map(|(name, chains)| {
            let shape = vec![chains.len(), chains[0].len()];
            (name.as_str(), Array { shape, values: Values::F64(chains.concat()) })
        })
        .collect();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("traces.npz");
    std::fs::write(&path, npz::write(&arrays).expect("an archive")).expect("a file");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/arviz_reference.py");
    let ran = Command::new(python).arg(script).arg(&path).output().expect("LAMBDA_HAT_PYTHON can be started");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let table = String::from_utf8(ran.stdout).expect("text");
    let mut lines = table.lines();
    let names: Vec<&str> = lines.next().expect("a heading").split('\t').skip(1).collect();

    let (mut wrong, mut compared, mut undefined) = (Vec::new(), 0, 0);
    for (name, chains) in &traces {
        let line = lines.next().expect("a line a trace");
        let mut fields = line.split('\t');
        assert_eq!(fields.next(), Some(name.as_str()));
        let theirs: Vec<f64> = fields.map(|f| f.parse().expect("a number")).collect();
        let rows = slices(chains);
        let ours = statistics(&rows);
        assert_eq!(ours.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), names);
        for ((what, a), b) in ours.iter().zip(theirs) {
            compared += 1;
            undefined += usize::from(b.is_nan());
            let same = a.is_nan() && b.is_nan() || *a == b || (a - b).abs() <= 1e-8 * b.abs();
            // Chains that differ while none moves: R-hat is infinite or what rounding made of infinity.
            let endless = what == "r_hat" && *a > 1e7 && b > 1e7;
            if !same && !endless {
                wrong.push(format!("{name}: {what} {a:e} against {b:e}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {compared} differ:\n{}", wrong.len(), wrong.join("\n"));
    // Most answers are numbers: agreement is not one of NaNs.
    assert!(2 * undefined < compared, "{undefined} of {compared} are undefined");
    eprintln!("{} traces, {compared} numbers compared, {undefined} of them undefined", traces.len());
}

/// What the documentation promises where ArviZ has no answer, without asking it.
#[test]
fn where_there_is_no_answer_the_documented_one_is_given() {
    for (name, chains) in traces() {
        let rows = slices(&chains);
        let (count, draws) = (chains.len(), chains[0].len());
        let has_nan = chains.iter().flatten().any(|x| x.is_nan());
        for (what, value) in statistics(&rows) {
            if what == "e_bfmi" {
                // Fewer than two energies, or constant ones.
                let varies = chains[0].iter().any(|x| *x != chains[0][0]);
                let undefined = draws < 2 || !varies || chains[0].iter().any(|x| !x.is_finite());
                assert_eq!(value.is_nan(), undefined, "{name}: {what} {value}");
            } else if has_nan || draws < 4 || what == "r_hat" && count < 2 {
                assert!(value.is_nan(), "{name}: {what} {value}");
            }
        }
        if name.contains(".constant.") && draws >= 4 {
            // Draws that never move count in full; the error of their mean is 0, that of their sd undefined.
            let all = (count * (draws / 2) * 2) as f64;
            assert_eq!(stats::ess_mean(&rows), all, "{name}");
            assert_eq!(stats::mcse_mean(&rows), 0.0, "{name}");
            assert!(stats::mcse_sd(&rows).is_nan(), "{name}");
            assert!(stats::r_hat(&rows).is_nan(), "{name}");
        }
    }
}
