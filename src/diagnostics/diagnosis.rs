//! All that a trace tells of itself: `diagnostics/diagnosis.json`.

use serde::{Deserialize, Serialize};

use super::verdict::{MAX_DIVERGENT, MAX_R_HAT, MIN_E_BFMI, MIN_ESS};
use crate::stats::{self, Turn};
use crate::trace::Trace;

/// Columns of a trace that a diagnosis looks at.
pub const COLUMNS: [&str; 6] = ["llc", "L", "energy", "diverging", "acceptance_rate", "cumulative_fge"];
/// Quantities that are diagnosed, in the order in which ranks are worked out: llc rises with L.
const QUANTITIES: [&str; 2] = [FIRST, "llc"];
/// The one whose draws are put in order.
pub(crate) const FIRST: &str = "L";
/// Quantiles that are told.
const QUANTILES: [f64; 5] = [0.05, 0.25, 0.5, 0.75, 0.95];
/// Longest lag of the autocorrelations.
const LONGEST_LAG: usize = 100;
/// Points of the running estimate.
const POINTS: usize = 200;

/// How much is worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The numbers of the summary.
    Light,
    /// Autocorrelations, running estimate and burn-in too.
    Full,
}

/// A trace's own account. Serialises to JSON in this order; `None` (null) is what is undefined or not
/// finite. A pure function of the trace, whatever the number of threads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// How much was worked out.
    pub mode: Mode,
    /// Chains.
    pub n_chains: usize,
    /// Draws a chain.
    pub n_draws: usize,
    /// llc and L, as far as the trace has them.
    pub quantities: Vec<Quantity>,
    /// Energies, for a sampler that has any.
    pub energy: Option<Energy>,
    /// Divergent draws of each chain, for a sampler that reports any.
    pub divergences: Option<Vec<u64>>,
    /// Mean of `acceptance_rate` over each chain, for a sampler that has one.
    pub acceptance: Option<Vec<Option<f64>>>,
    /// Thresholds that are missed, a short sentence each.
    pub findings: Vec<String>,
}

/// What is known of one quantity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantity {
    /// `llc` or `L`.
    pub name: String,
    /// Draws that are NaN or infinite. Statistics are then null as far as such draws enter them.
    pub not_finite: usize,
    /// Mean over all draws of all chains.
    pub mean: Option<f64>,
    /// Their standard deviation.
    pub sd: Option<f64>,
    /// Standard error of the mean, sd/√`ess_mean`.
    pub mcse_mean: Option<f64>,
    /// Standard error of the standard deviation.
    pub mcse_sd: Option<f64>,
    /// Rank-normalised split R-hat. Null for one chain.
    pub r_hat: Option<f64>,
    /// Effective draws for the mean.
    pub ess_mean: Option<f64>,
    /// Effective draws in the bulk.
    pub ess_bulk: Option<f64>,
    /// Effective draws in the tails.
    pub ess_tail: Option<f64>,
    /// Effective draws for the standard deviation.
    pub ess_sd: Option<f64>,
    /// The 5, 25, 50, 75 and 95 % quantiles.
    pub quantiles: Vec<Quantile>,
    /// Geweke's z over all chains together.
    pub geweke_z: Option<f64>,
    /// Geweke's z of each chain.
    pub geweke_z_chains: Vec<Option<f64>>,
    /// Only in full mode.
    pub full: Option<Full>,
}

/// A quantile with its error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantile {
    /// Which, in [0, 1].
    pub q: f64,
    /// Its estimate.
    pub value: Option<f64>,
    /// Effective draws for it.
    pub ess: Option<f64>,
    /// Its standard error.
    pub mcse: Option<f64>,
}

/// What takes more time to compute and to look at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Full {
    /// Autocorrelation of each chain at lags 0, 1, …, up to 100 draws or one less than the chain has.
    pub autocorrelation: Vec<Vec<Option<f64>>>,
    /// The estimate after so many draws of each chain, evenly spaced.
    pub running: Vec<Running>,
    /// What the trace says of the warmup before it.
    pub burn_in: BurnIn,
}

/// A point of the running estimate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// Draws of each chain.
    pub draws: usize,
    /// Their mean.
    pub mean: Option<f64>,
    /// Its standard error, with the autocorrelation time of the whole trace.
    pub mcse: Option<f64>,
    /// Work until then in full-data gradient evaluations, the draws' alone (without warmup), all chains;
    /// where the trace counts it.
    pub fge: Option<f64>,
}

/// How much of the chains' start still belongs to warmup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BurnIn {
    /// Draws a chain that should be dropped: 0 where warmup was long enough; null where the chains drift
    /// to the end, or are too short to tell.
    pub needed: Option<usize>,
    /// Draws that MSER-5 would drop, which is some even where none need be.
    pub mser5: Option<usize>,
    /// (draws dropped, drift after that in standard errors of the last half) for each cut that was tried.
    pub tried: Vec<(usize, Option<f64>)>,
    /// The mean of all draws less that of those after `needed`, in standard errors: what the start does to
    /// the estimate.
    pub shift_in_mcse: Option<f64>,
}

/// Energies of the Hamiltonian samplers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Energy {
    /// E-BFMI of each chain.
    pub e_bfmi: Vec<Option<f64>>,
    /// The smallest; null where one is.
    pub least: Option<f64>,
}

/// Diagnoses a trace on at most `threads` threads, which change no bit of it.
pub fn diagnose(trace: &Trace, mode: Mode, threads: usize) -> Diagnosis {
    diagnose_beside::<()>(trace, mode, threads, None, |_| Vec::new()).0
}

/// What is known of llc before the rest of a diagnosis; `None` is what is undefined.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// [`Quantity::mean`]
    pub mean: Option<f64>,
    /// [`Quantity::mcse_mean`]
    pub mcse: Option<f64>,
    /// [`Quantity::ess_mean`]
    pub ess: Option<f64>,
    /// [`Quantity::r_hat`]
    pub r_hat: Option<f64>,
}

/// [`diagnose`] where the order of the draws of [`FIRST`] may be known, with other work on the same threads: `others` makes it from what is known of llc, and its answers
/// come back in its order. It is begun before what is left of the diagnosis.
pub(crate) fn diagnose_beside<'a, T: Send + 'a>(
    trace: &'a Trace,
    mode: Mode,
    threads: usize,
    order: Option<stats::Order>,
    others: impl FnOnce(Estimate) -> Vec<Turn<'a, T>>,
) -> (Diagnosis, Vec<T>) {
    let found: Vec<(&str, Vec<&'a [f64]>)> =
        QUANTITIES.into_iter().filter_map(|name| Some((name, trace.column(name)?))).collect();
    let chains: Vec<Vec<&'a [f64]>> = found.iter().map(|(_, chains)| chains.clone()).collect();
    let order = order.filter(|_| found.first().is_some_and(|(name, _)| *name == FIRST));
    let summaries = stats::summarise_ordered(&chains, &QUANTILES, threads, order);
    let llc = found.iter().position(|(name, _)| *name == "llc").map(|k| &summaries[k]);
    let estimate = llc.map_or_else(Estimate::default, |s| Estimate {
        mean: finite(s.mean),
        mcse: finite(s.mcse_mean),
        ess: finite(s.ess_mean),
        r_hat: finite(s.r_hat),
    });

    let mut tasks: Vec<Turn<'_, Part<T>>> = Vec::new();
    tasks.extend(
        others(estimate)
            .into_iter()
            .map(|task| -> Turn<'_, Part<T>> { Box::new(move || Part::Other(task())) }),
    );
    for ((_, chains), summary) in found.iter().zip(&summaries) {
        push_tasks(&mut tasks, chains, summary, mode);
    }
    let energies = trace.column("energy");
    for chain in energies.iter().flatten().copied() {
        tasks.push(Box::new(move || Part::Number(stats::e_bfmi(chain))));
    }
    let rates = trace.column("acceptance_rate");
    for chain in rates.iter().flatten().copied() {
        tasks.push(Box::new(move || Part::Number(stats::mean(chain))));
    }
    let mut answers = Answers::of(stats::in_parallel(tasks, threads));

    let work = work_until(trace);
    let mut quantities: Vec<Quantity> = found
        .iter()
        .zip(&summaries)
        .map(|((name, chains), summary)| quantity(name, chains, summary, mode, work.as_deref(), &mut answers))
        .collect();
    quantities.reverse();
    let energy = energies.map(|chains| {
        let each: Vec<f64> = chains.iter().map(|_| answers.number()).collect();
        // A NaN stays.
        let least = each.iter().copied().reduce(|a, b| if a.is_nan() || a <= b { a } else { b });
        Energy { e_bfmi: each.iter().map(|x| finite(*x)).collect(), least: least.and_then(finite) }
    });
    let marked = |chain: &&[f64]| chain.iter().filter(|&&mark| mark != 0.0).count() as u64;
    let mut diagnosis = Diagnosis {
        mode,
        n_chains: trace.chains.len(),
        n_draws: trace.draws(),
        quantities,
        energy,
        divergences: trace.column("diverging").map(|chains| chains.iter().map(marked).collect()),
        acceptance: rates.map(|chains| chains.iter().map(|_| finite(answers.number())).collect()),
        findings: Vec::new(),
    };
    diagnosis.findings = diagnosis.objections();
    (diagnosis, answers.others)
}

/// The answer of one task.
enum Part<T> {
    Other(T),
    Ends(f64, Option<stats::BurnIn>),
    Running(Vec<stats::RunningPoint>),
    Numbers(Vec<f64>),
    Number(f64),
}

/// Answers of each kind, in the order of their tasks.
struct Answers<T> {
    others: Vec<T>,
    ends: std::vec::IntoIter<(f64, Option<stats::BurnIn>)>,
    running: std::vec::IntoIter<Vec<stats::RunningPoint>>,
    lists: std::vec::IntoIter<Vec<f64>>,
    numbers: std::vec::IntoIter<f64>,
}

impl<T> Answers<T> {
    fn of(parts: Vec<Part<T>>) -> Self {
        let (mut others, mut ends, mut running) = (Vec::new(), Vec::new(), Vec::new());
        let (mut lists, mut numbers) = (Vec::new(), Vec::new());
        for part in parts {
            match part {
                Part::Other(answer) => others.push(answer),
                Part::Ends(z, found) => ends.push((z, found)),
                Part::Running(points) => running.push(points),
                Part::Numbers(list) => lists.push(list),
                Part::Number(x) => numbers.push(x),
            }
        }
        Self {
            others,
            ends: ends.into_iter(),
            running: running.into_iter(),
            lists: lists.into_iter(),
            numbers: numbers.into_iter(),
        }
    }

    fn number(&mut self) -> f64 {
        self.numbers.next().unwrap_or(f64::NAN)
    }
}

/// What [`quantity`] takes from its answers. Long tasks come first.
fn push_tasks<'a, T: Send + 'a>(
    tasks: &mut Vec<Turn<'a, Part<T>>>,
    chains: &[&'a [f64]],
    summary: &stats::Summary,
    mode: Mode,
) {
    let all = chains.to_vec();
    tasks.push(Box::new(move || match mode {
        Mode::Light => Part::Ends(stats::geweke(&all), None),
        Mode::Full => {
            let (z, found) = stats::geweke_and_burn_in(&all);
            Part::Ends(z, Some(found))
        }
    }));
    if mode == Mode::Full {
        let all = chains.to_vec();
        let count: usize = chains.iter().map(|c| c.len()).sum();
        let tau = count as f64 / summary.ess_mean;
        tasks.push(Box::new(move || Part::Running(stats::running_mean(&all, tau, POINTS))));
    }
    for &chain in chains {
        if mode == Mode::Full {
            let lags = move || Part::Numbers(stats::autocorrelation_to(chain, LONGEST_LAG));
            tasks.push(Box::new(lags));
        }
        tasks.push(Box::new(move || Part::Number(stats::geweke(&[chain]))));
    }
}

/// Work of all chains until each draw, where the trace counts it.
fn work_until(trace: &Trace) -> Option<Vec<f64>> {
    let chains = trace.column("cumulative_fge")?;
    let mut total = vec![0.0; trace.draws()];
    for chain in chains {
        total.iter_mut().zip(chain).for_each(|(t, x)| *t += x);
    }
    Some(total)
}

fn quantity<T>(
    name: &str,
    chains: &[&[f64]],
    summary: &stats::Summary,
    mode: Mode,
    work: Option<&[f64]>,
    answers: &mut Answers<T>,
) -> Quantity {
    let quantile = |q: &stats::QuantileSummary| Quantile {
        q: q.q,
        value: finite(q.value),
        ess: finite(q.ess),
        mcse: finite(q.mcse),
    };
    let (geweke, found) = answers.ends.next().unwrap_or((f64::NAN, None));
    Quantity {
        name: name.into(),
        not_finite: chains.iter().flat_map(|c| c.iter()).filter(|x| !x.is_finite()).count(),
        mean: finite(summary.mean),
        sd: finite(summary.sd),
        mcse_mean: finite(summary.mcse_mean),
        mcse_sd: finite(summary.mcse_sd),
        r_hat: finite(summary.r_hat),
        ess_mean: finite(summary.ess_mean),
        ess_bulk: finite(summary.ess_bulk),
        ess_tail: finite(summary.ess_tail),
        ess_sd: finite(summary.ess_sd),
        quantiles: summary.quantiles.iter().map(quantile).collect(),
        geweke_z: finite(geweke),
        geweke_z_chains: chains.iter().map(|_| finite(answers.number())).collect(),
        full: (mode == Mode::Full)
            .then_some(found)
            .flatten()
            .map(|found| full(chains, summary, work, &found, answers)),
    }
}

fn full<T>(
    chains: &[&[f64]],
    summary: &stats::Summary,
    work: Option<&[f64]>,
    found: &stats::BurnIn,
    answers: &mut Answers<T>,
) -> Full {
    let correlations: Vec<Vec<f64>> = answers.lists.by_ref().take(chains.len()).collect();
    let running = answers.running.next().unwrap_or_default();
    let shift = found.needed.map(|cut| {
        // Of chains of one length the mean of all is the mean of means.
        let rest: Vec<f64> = chains.iter().map(|c| stats::mean(&c[cut..])).collect();
        if cut == 0 { 0.0 } else { (summary.mean - stats::mean(&rest)) / summary.mcse_mean }
    });
    Full {
        autocorrelation: correlations.iter().map(|c| c.iter().map(|x| finite(*x)).collect()).collect(),
        running: running
            .iter()
            .map(|p| Running {
                draws: p.draws,
                mean: finite(p.mean),
                mcse: finite(p.mcse),
                fge: work.and_then(|w| w.get(p.draws.checked_sub(1)?)).copied().and_then(finite),
            })
            .collect(),
        burn_in: BurnIn {
            needed: found.needed,
            mser5: found.mser5,
            tried: found.tried.iter().map(|(cut, z)| (*cut, finite(*z))).collect(),
            shift_in_mcse: shift.and_then(finite),
        },
    }
}

impl Diagnosis {
    /// The quantity of this name.
    pub fn quantity(&self, name: &str) -> Option<&Quantity> {
        self.quantities.iter().find(|q| q.name == name)
    }

    /// What misses the thresholds of a verdict, as far as draws tell: for llc, where the trace has it.
    fn objections(&self) -> Vec<String> {
        let mut said = Vec::new();
        let Some(llc) = self.quantity("llc").or(self.quantities.first()) else {
            return vec!["the trace has neither llc nor L".into()];
        };
        if llc.not_finite > 0 {
            said.push(format!("draws of {} that are not finite: {}", llc.name, llc.not_finite));
        }
        if self.n_chains < 2 {
            said.push("a single chain: R-hat is undefined".into());
        } else {
            match llc.r_hat {
                Some(r) if r <= MAX_R_HAT => {}
                Some(r) => said.push(format!("R-hat {r:.3} > {MAX_R_HAT}")),
                None => said.push("R-hat is undefined".into()),
            }
        }
        for (name, ess) in [("bulk", llc.ess_bulk), ("tail", llc.ess_tail)] {
            match ess {
                Some(ess) if ess >= MIN_ESS => {}
                Some(ess) => said.push(format!("{name} ESS {ess:.0} < {MIN_ESS}")),
                None => said.push(format!("{name} ESS is undefined")),
            }
        }
        match self.energy.as_ref().map(|e| e.least) {
            Some(Some(least)) if least < MIN_E_BFMI => {
                said.push(format!("E-BFMI {least:.2} < {MIN_E_BFMI}"));
            }
            Some(None) => said.push("E-BFMI is undefined in a chain".into()),
            _ => {}
        }
        let divergent: u64 = self.divergences.iter().flatten().sum();
        let draws = (self.n_chains * self.n_draws) as f64;
        if divergent as f64 > MAX_DIVERGENT * draws {
            said.push(format!("{divergent} of {draws} draws diverged"));
        }
        if let Some(z) = llc.geweke_z.filter(|z| z.abs() > stats::DRIFT_LIMIT) {
            said.push(format!("the first tenth differs from the last half: z = {z:.1}"));
        }
        if let Some(full) = &llc.full {
            match full.burn_in.needed {
                Some(0) => {}
                Some(cut) => said.push(format!("warmup was too short: {cut} draws a chain more were needed")),
                None => said.push("how much warmup was needed cannot be told".into()),
            }
        }
        said
    }
}

fn finite(x: f64) -> Option<f64> {
    x.is_finite().then_some(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::{Key, Purpose, fill_normal};
    use crate::trace::{ChainTrace, Column, Kind};

    /// llc and L = llc/25 + ½ of independent normals, `edit`ed; energies that are independent too.
    fn trace(chains: u32, draws: usize, edit: impl Fn(u32, usize, f64) -> f64) -> Trace {
        let layout = vec![
            Column::posterior("llc"),
            Column::posterior("L"),
            Column::stat("energy", Kind::Float),
            Column::stat("diverging", Kind::Bool),
            Column::stat("acceptance_rate", Kind::Float),
            Column::stat("cumulative_fge", Kind::Float),
        ];
        let one = |c| {
            let mut z = vec![0.0f64; 2 * draws];
            fill_normal(&mut Key::new([8; 32], Purpose::Probe, c).at(0), &mut z);
            let mut chain = ChainTrace::with_capacity(6, draws);
            for i in 0..draws {
                let llc = edit(c, i, z[i]);
                chain.push(&[llc, llc / 25.0 + 0.5, z[draws + i], 0.0, 0.75, 10.0 * (i + 1) as f64]);
            }
            chain
        };
        Trace { layout, chains: (0..chains).map(one).collect() }
    }

    #[test]
    fn a_good_trace_has_no_findings_and_the_numbers_of_its_functions() {
        let trace = trace(4, 2000, |_, _, z| z);
        let full = diagnose(&trace, Mode::Full, 2);
        assert_eq!(full.findings, Vec::<String>::new());
        let chains = trace.column("llc").unwrap();
        let llc = full.quantity("llc").unwrap();
        assert_eq!(llc.ess_bulk, Some(stats::ess_bulk(&chains)));
        assert_eq!(llc.r_hat, Some(stats::r_hat(&chains)));
        assert_eq!(llc.quantiles[2].mcse, Some(stats::mcse_quantile(&chains, 0.5)));
        assert_eq!(full.divergences, Some(vec![0; 4]));
        assert_eq!(full.acceptance, Some(vec![Some(0.75); 4]));
        let more = llc.full.as_ref().unwrap();
        assert_eq!(more.burn_in.needed, Some(0));
        assert_eq!(more.autocorrelation.len(), 4);
        assert_eq!((more.autocorrelation[0].len(), more.autocorrelation[0][0]), (101, Some(1.0)));
        let last = more.running.last().unwrap();
        assert_eq!((last.draws, last.fge), (2000, Some(4.0 * 20_000.0)));
        assert!((last.mean.unwrap() - llc.mean.unwrap()).abs() < 1e-12);
        assert!((last.mcse.unwrap() / llc.mcse_mean.unwrap() - 1.0).abs() < 1e-9);
        // Ranks of L are those of llc.
        let l = full.quantity("L").unwrap();
        assert!((l.r_hat.unwrap() - llc.r_hat.unwrap()).abs() < 1e-12);
        assert_eq!(diagnose(&trace, Mode::Full, 1), full);
        let mut light = diagnose(&trace, Mode::Light, 1);
        assert!(light.quantities.iter().all(|q| q.full.is_none()));
        light.mode = Mode::Full;
        for (a, b) in light.quantities.iter_mut().zip(&full.quantities) {
            a.full.clone_from(&b.full);
        }
        assert_eq!(light, full);
        let text = serde_json::to_string(&full).unwrap();
        assert_eq!(serde_json::from_str::<Diagnosis>(&text).unwrap(), full);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = |trace: &Trace| diagnose(trace, Mode::Full, 1).findings.join("; ");
        let late = |_: u32, i: usize, z: f64| z + 8.0 * (-(i as f64) / 150.0).exp();
        let slow = said(&trace(4, 2000, late));
        assert!(slow.contains("warmup was too short") && slow.contains("z = "), "{slow}");
        let apart = said(&trace(4, 2000, |c, _, z| z + f64::from(c)));
        assert!(apart.contains("R-hat 1.") && apart.contains("bulk ESS"), "{apart}");
        let nan = said(&trace(2, 500, |c, i, z| if (c, i) == (1, 7) { f64::NAN } else { z }));
        assert!(
            nan.contains("draws of llc that are not finite: 1") && nan.contains("R-hat is undefined"),
            "{nan}"
        );
        assert!(said(&trace(1, 2000, |_, _, z| z)).contains("a single chain"));
        let mut divergent = trace(2, 2000, |_, _, z| z);
        divergent.chains[1].values[3][..50].fill(1.0);
        divergent.chains[0].values[2] = (0..2000).map(|i| f64::from(i) / 100.0).collect();
        let text = said(&divergent);
        assert!(text.contains("50 of 4000 draws diverged") && text.contains("E-BFMI 0.00 < 0.3"), "{text}");
    }

    #[test]
    fn short_constant_and_foreign_traces_are_no_panic() {
        for draws in [1, 2, 3, 4, 5, 39, 50] {
            let diagnosis = diagnose(&trace(2, draws, |_, _, _| 1.5), Mode::Full, 3);
            let llc = diagnosis.quantity("llc").unwrap();
            assert_eq!(llc.mean, Some(1.5));
            assert_eq!(llc.full.as_ref().unwrap().running.len(), draws);
            assert!(!diagnosis.findings.is_empty());
        }
        let empty = diagnose(&Trace { layout: Vec::new(), chains: Vec::new() }, Mode::Full, 1);
        assert_eq!(empty.findings, ["the trace has neither llc nor L"]);
    }
}
