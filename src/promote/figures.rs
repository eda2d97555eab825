//! Figures of what lies on disk: which there are of a run and of a target, and from which files.
//!
//! [`run_figures`] and [`target_figures`] read the files themselves. Work that is sent to other ranks
//! carries a [`RunCard`] or [`TargetCard`] and the bytes of traces instead.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FoundRun, FoundTarget, Trouble, teacher};
use crate::config::{Loss, Problem};
use crate::diagnostics::{Analysis, Estimate, Mode, diagnose};
use crate::io::{netcdf, npz};
use crate::plot::{self, Figure, FigureName, Predictions, RunSeries, TargetCurves};
use crate::target::TrainingOutcome;
use crate::trace::Trace;

/// The figures of a run, in the order in which they are read.
pub const RUN_FIGURES: [FigureName; 5] =
    [FigureName::Trace, FigureName::RunningLlc, FigureName::Rank, FigureName::Autocorr, FigureName::Energy];

/// Those of a light diagnosis.
pub const LIGHT_FIGURES: [FigureName; 2] = [FigureName::Trace, FigureName::RunningLlc];

/// The figures of a target.
pub const TARGET_FIGURES: [FigureName; 6] = [
    FigureName::Comparison,
    FigureName::Convergence,
    FigureName::Wnv,
    FigureName::LossCurve,
    FigureName::PredTrain,
    FigureName::PredTest,
];

/// The run's figures in this mode.
pub fn of_mode(mode: Mode) -> &'static [FigureName] {
    match mode {
        Mode::Light => &LIGHT_FIGURES,
        Mode::Full => &RUN_FIGURES,
    }
}

/// Draws the figures `names` of one run from its trace. Those that the run has no data for (`energy` of
/// a sampler without one) and those that are no run's are left out.
///
/// # Errors
/// The [`Trouble`] with `trace.nc`.
pub fn run_figures(run: &FoundRun, names: &[FigureName]) -> Result<Vec<Figure>, Trouble> {
    Ok(RunCard::of(run).figures(&run.load_trace()?, names))
}

/// Draws the figures `names` of one target and `runs` on it. Those that there is no data for are left
/// out: `loss_curve` without training, `target_pred_vs_teacher_*` without a teacher, the others without runs.
/// A run whose trace cannot be read is left out too, and told of.
pub fn target_figures(
    target: &FoundTarget,
    runs: &[&FoundRun],
    names: &[FigureName],
) -> (Vec<Figure>, Vec<Trouble>) {
    let mut troubles = Vec::new();
    let mut sheets = Vec::new();
    if names.iter().any(|name| compares(*name)) {
        for (run, shown) in runs.iter().zip(setting_names(runs)) {
            match run.load_trace() {
                Ok(trace) => sheets.push(Sheet::new(RunCard { sampler: shown, ..RunCard::of(run) }, trace)),
                Err(trouble) => troubles.push(trouble),
            }
        }
    }
    let mut predictions = None;
    if names.iter().any(|name| predicts(*name)) && target.has_teacher() {
        match target
            .rows()
            .and_then(|rows| rows.compare().map_err(|what| Trouble::new(&target.dir, "data.npz", what)))
        {
            Ok(compared) => predictions = compared.map(|(_, bytes)| bytes),
            Err(trouble) => troubles.push(trouble),
        }
    }
    (TargetCard::of(target).figures(&sheets, predictions.as_deref(), names), troubles)
}

/// Whether a target's figure is drawn from traces.
pub(super) fn compares(name: FigureName) -> bool {
    matches!(name, FigureName::Comparison | FigureName::Convergence | FigureName::Wnv)
}

/// Whether it is drawn from predictions.
pub(super) fn predicts(name: FigureName) -> bool {
    matches!(name, FigureName::PredTrain | FigureName::PredTest)
}

/// What figures say of a run beside its draws.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunCard {
    /// Label of its target.
    pub target: String,
    /// Its sampler, as figures name it.
    pub sampler: String,
    /// Its `analysis.json`, where that is whole.
    pub analysis: Option<Analysis>,
    /// Wall seconds of all its units together, where `timing.json` is whole.
    pub seconds: Option<f64>,
}

impl RunCard {
    /// Of a run on disk.
    pub fn of(run: &FoundRun) -> Self {
        Self {
            target: run.manifest.target.clone(),
            sampler: run.manifest.sampler.clone(),
            analysis: run.analysis.clone(),
            seconds: run.timing.as_ref().map(|timing| timing.seconds),
        }
    }

    /// The figures `names` of the run with this trace.
    pub fn figures(&self, trace: &Trace, names: &[FigureName]) -> Vec<Figure> {
        let estimate = self.analysis.is_none().then(|| estimate_of(trace));
        names.iter().filter_map(|name| self.figure(trace, estimate.as_ref(), *name)).collect()
    }

    /// One of them, for a run without `analysis.json` with this `estimate`.
    pub(super) fn figure(
        &self,
        trace: &Trace,
        estimate: Option<&Estimate>,
        name: FigureName,
    ) -> Option<Figure> {
        let mut series = self.series(trace.column("llc")?, estimate);
        series.energy = trace.column("energy");
        match name {
            FigureName::Trace => Some(plot::trace(&series)),
            FigureName::RunningLlc => Some(plot::running_llc(&series)),
            FigureName::Rank => Some(plot::rank(&series)),
            FigureName::Autocorr => Some(plot::autocorr(&series)),
            FigureName::Energy => series.energy.is_some().then(|| plot::energy(&series)),
            _ => None,
        }
    }

    /// Seconds are shared out between warmup and draws as the work was, so that both costs of a figure
    /// count the same things.
    fn series<'a>(&'a self, chains: Vec<&'a [f64]>, estimate: Option<&Estimate>) -> RunSeries<'a> {
        let mut series =
            RunSeries { target: &self.target, sampler: &self.sampler, chains, ..Default::default() };
        if let Some(analysis) = &self.analysis {
            let work = analysis.fge_warmup + analysis.fge_sampling;
            let warmup = if work > 0.0 { analysis.fge_warmup / work } else { 0.0 };
            series = RunSeries {
                fge_warmup: analysis.fge_warmup,
                fge_sampling: analysis.fge_sampling,
                seconds_warmup: self.seconds.map(|s| s * warmup),
                seconds_sampling: self.seconds.map(|s| s * (1.0 - warmup)),
                mean: analysis.llc_mean,
                mcse: analysis.llc_mcse,
                interval: analysis.llc_ci_low.zip(analysis.llc_ci_high),
                ess: analysis.ess_mean,
                r_hat: analysis.r_hat,
                exact_llc: analysis.exact_llc,
                exact_lambda: analysis.exact_lambda,
                verdict: Some(analysis.verdict),
                ..series
            };
        } else if let Some(found) = estimate {
            let Estimate { mean, mcse, ess, r_hat } = *found;
            series = RunSeries { mean, mcse, ess, r_hat, ..series };
        }
        series
    }
}

/// What the draws themselves say, for a run whose `analysis.json` is not to be had.
fn estimate_of(trace: &Trace) -> Estimate {
    let diagnosis = diagnose(trace, Mode::Light, 1);
    let llc = diagnosis.quantity("llc");
    Estimate {
        mean: llc.and_then(|q| q.mean),
        mcse: llc.and_then(|q| q.mcse_mean),
        ess: llc.and_then(|q| q.ess_mean),
        r_hat: llc.and_then(|q| q.r_hat),
    }
}

/// A run with its draws of llc: all that a target's figures need of it.
#[derive(Clone, Debug)]
pub struct Sheet {
    card: RunCard,
    llc: Vec<Vec<f64>>,
    estimate: Option<Estimate>,
}

impl Sheet {
    /// From a trace, of which nothing but llc is kept.
    pub fn new(card: RunCard, mut trace: Trace) -> Self {
        let estimate = card.analysis.is_none().then(|| estimate_of(&trace));
        let llc = match trace.index_of("llc") {
            Some(k) => trace.chains.iter_mut().map(|c| std::mem::take(&mut c.values[k])).collect(),
            None => Vec::new(),
        };
        Self { card, llc, estimate }
    }

    /// From the bytes of `trace.nc`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(card: RunCard, bytes: &[u8]) -> Result<Self, String> {
        let (trace, _) = netcdf::read_trace(bytes).map_err(|e| format!("is damaged ({e})"))?;
        Ok(Self::new(card, trace))
    }

    fn series(&self) -> RunSeries<'_> {
        self.card.series(self.llc.iter().map(Vec::as_slice).collect(), self.estimate.as_ref())
    }
}

/// What figures say of a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetCard {
    /// Its label.
    pub target: String,
    /// Name of the loss that training lowered.
    pub loss: String,
    /// L0 = L_n(w*).
    pub l0: f64,
    /// How training went, where there was one.
    pub training: Option<TrainingOutcome>,
}

impl TargetCard {
    /// Of a target on disk.
    pub fn of(target: &FoundTarget) -> Self {
        let loss = match &target.meta.config.problem {
            Problem::Mlp(problem) => teacher::name_of(&problem.loss),
            _ => teacher::name_of(&Loss::Mse),
        };
        Self {
            target: target.meta.label.clone(),
            loss: loss.into(),
            l0: target.meta.l0,
            training: target.meta.training.clone(),
        }
    }

    /// The figures `names` of the target with these runs and the bytes of `predictions.npz`.
    pub fn figures(&self, runs: &[Sheet], predictions: Option<&[u8]>, names: &[FigureName]) -> Vec<Figure> {
        names.iter().filter_map(|name| self.figure(runs, predictions, *name)).collect()
    }

    /// One of them.
    pub(super) fn figure(
        &self,
        runs: &[Sheet],
        predictions: Option<&[u8]>,
        name: FigureName,
    ) -> Option<Figure> {
        let series: Vec<RunSeries> = runs.iter().map(Sheet::series).collect();
        let predicted = |set: &str| {
            let arrays = npz::read(predictions?).ok()?;
            let of = |who: &str| arrays.get(&format!("{set}_{who}"))?.values.to_f64();
            let pairs: Vec<(f64, f64)> = of("teacher")?.into_iter().zip(of("student")?).collect();
            let held_out = set == "test";
            let data = Predictions { target: &self.target, held_out, pairs: pairs.into(), observed: false };
            Some(plot::pred_vs_teacher(&data))
        };
        match name {
            name if compares(name) && series.is_empty() => None,
            FigureName::Comparison => Some(plot::comparison(&self.target, &series)),
            FigureName::Convergence => Some(plot::convergence(&self.target, &series)),
            FigureName::Wnv => Some(plot::wnv(&self.target, &series)),
            FigureName::LossCurve => self.loss_curve(),
            FigureName::PredTrain => predicted("train"),
            FigureName::PredTest => predicted("test"),
            _ => None,
        }
    }

    fn loss_curve(&self) -> Option<Figure> {
        let history = &self.training.as_ref()?.history;
        let train: Vec<(f64, f64)> = history.iter().map(|&(step, loss)| (step as f64, loss)).collect();
        let curves = TargetCurves {
            target: &self.target,
            loss: &self.loss,
            train: train.into(),
            l0: Some(self.l0),
            ..TargetCurves::default()
        };
        (!history.is_empty()).then(|| plot::loss_curve(&curves))
    }
}

/// Of runs on one target, the newest of each setting of a sampler (a longer run of the same draws takes
/// the place of a shorter one), by sampler and then by age.
pub fn newest_of_each_setting<'a>(runs: impl IntoIterator<Item = &'a FoundRun>) -> Vec<&'a FoundRun> {
    let mut newest: Vec<&FoundRun> = Vec::new();
    for run in runs {
        match newest.iter_mut().find(|other| other.manifest.stream_id == run.manifest.stream_id) {
            Some(other) if other.age() < run.age() => *other = run,
            Some(_) => {}
            None => newest.push(run),
        }
    }
    newest.sort_by(|a, b| (&a.manifest.sampler, a.age()).cmp(&(&b.manifest.sampler, b.age())));
    newest
}

/// How figures name the samplers of `runs` on one target: `hmc`, and where one sampler is there with several
/// settings, what tells them apart: `hmc, step_size 0.1`; else the beginning of the run's id.
pub fn setting_names(runs: &[&FoundRun]) -> Vec<String> {
    const MOST_KEYS: usize = 2;
    let leaves: Vec<Vec<(String, String)>> = runs.iter().map(|run| leaves(&run.manifest.config)).collect();
    let name = |(i, run): (usize, &&FoundRun)| {
        let sampler = &run.manifest.sampler;
        let alike: Vec<usize> =
            (0..runs.len()).filter(|&j| j != i && runs[j].manifest.sampler == *sampler).collect();
        if alike.is_empty() {
            return sampler.clone();
        }
        let value = |j: usize, key: &str| leaves[j].iter().find(|(k, _)| k == key).map(|(_, v)| v);
        let differing: Vec<&(String, String)> = leaves[i]
            .iter()
            .filter(|(key, mine)| alike.iter().any(|&j| value(j, key) != Some(mine)))
            .collect();
        let told_apart =
            alike.iter().all(|&j| differing.iter().any(|(key, mine)| value(j, key) != Some(mine)));
        if differing.len() > MOST_KEYS || !told_apart {
            let id: String = run.manifest.run_id.chars().take(8).collect();
            return format!("{sampler} {id}");
        }
        let said: Vec<String> = differing
            .iter()
            .map(|(key, mine)| format!("{} {mine}", key.rsplit('.').next().unwrap_or(key)))
            .collect();
        format!("{sampler}, {}", said.join(", "))
    };
    runs.iter().enumerate().map(name).collect()
}

/// Each value of a configuration with the dotted key that leads to it.
fn leaves(config: &Value) -> Vec<(String, String)> {
    fn walk(at: &str, value: &Value, into: &mut Vec<(String, String)>) {
        match value {
            Value::Object(map) => {
                map.iter().for_each(|(key, value)| walk(&format!("{at}.{key}"), value, into))
            }
            Value::String(text) => into.push((at.to_owned(), text.clone())),
            other => into.push((at.to_owned(), other.to_string())),
        }
    }
    let mut found = Vec::new();
    walk("", config, &mut found);
    found
}
