//! Figures for the page: SVG in data URIs, so that nothing in one can clash with the page or with another.

use std::borrow::Cow;

use serde::Serialize;

use super::encode::base64;
use crate::config::{Id, Loss, Problem};
use crate::io::npz::{self, Values};
use crate::plot::{self, Figure, Predictions, RunSeries, TargetCurves};
use crate::promote::{FoundRun, FoundTarget, Timing, Trouble, compare_with_teacher};
use crate::trace::Trace;

/// A figure on the page.
#[derive(Debug, Serialize)]
pub(super) struct Picture {
    /// What it is, in a few words.
    pub what: &'static str,
    /// One sentence; the alternative text, too.
    pub caption: String,
    /// `data:image/svg+xml;base64,…`
    pub uri: String,
}

impl From<Figure> for Picture {
    fn from(figure: Figure) -> Self {
        Self {
            what: figure.name().what(),
            caption: figure.caption().to_owned(),
            uri: format!("data:image/svg+xml;base64,{}", base64(figure.svg().as_bytes())),
        }
    }
}

/// What figures need of a run: its draws beside its files.
pub(super) fn series<'a>(run: &'a FoundRun, label: &'a str, trace: &'a Trace) -> Option<RunSeries<'a>> {
    let mut series = RunSeries::new(label, trace, run.analysis.as_ref()?);
    let timing = run.timing.as_ref();
    series.seconds_warmup = timing.map(Timing::warmup_seconds);
    series.seconds_sampling = timing.map(|t| t.chain_seconds().iter().sum());
    Some(series)
}

/// Trace, ranks, autocorrelation, energy (of a sampler that has one) and running estimate.
pub(super) fn of_run(series: &RunSeries) -> Vec<Picture> {
    let mut figures = vec![plot::trace(series), plot::rank(series), plot::autocorr(series)];
    if series.energy.is_some() {
        figures.push(plot::energy(series));
    }
    figures.push(plot::running_llc(series));
    figures.into_iter().map(Picture::from).collect()
}

/// Comparison of samplers, convergence, work-normalised variance.
pub(super) fn of_samplers(label: &str, runs: &[RunSeries]) -> Vec<Picture> {
    let figures = [plot::comparison(label, runs), plot::convergence(label, runs), plot::wnv(label, runs)];
    figures.into_iter().map(Picture::from).collect()
}

/// Training loss and predictions, of a target that was trained.
///
/// # Errors
/// The trouble with the target's arrays, beside what can be drawn without them.
pub(super) fn of_training(target: &FoundTarget) -> (Vec<Picture>, Option<Trouble>) {
    let meta = &target.meta;
    let mut figures = Vec::new();
    if let Some(training) = &meta.training {
        let loss = match &meta.config.problem {
            Problem::Mlp(mlp) if matches!(mlp.loss, Loss::TRegression { .. }) => "t_regression",
            _ => "mse",
        };
        let points: Vec<(f64, f64)> = training.history.iter().map(|(s, l)| (*s as f64, *l)).collect();
        let curves = TargetCurves {
            target: &meta.label,
            loss,
            train: Cow::Owned(points),
            validation: Cow::Borrowed(&[]),
            l0: Some(meta.l0),
        };
        figures.push(plot::loss_curve(&curves));
    }
    let mut trouble = None;
    if matches!(meta.config.problem, Problem::Mlp(_)) {
        match predictions(target) {
            Ok(sets) => figures.extend(sets.into_iter().map(|(held_out, pairs)| {
                plot::pred_vs_teacher(&Predictions {
                    target: &meta.label,
                    held_out,
                    pairs: Cow::Owned(pairs),
                    observed: false,
                })
            })),
            Err(found) => trouble = Some(found),
        }
    }
    (figures.into_iter().map(Picture::from).collect(), trouble)
}

/// Whether rows are held out, and (teacher's output, student's output) of each.
type Pairs = (bool, Vec<(f64, f64)>);

fn predictions(target: &FoundTarget) -> Result<Vec<Pairs>, Trouble> {
    let damaged = |file: &str, why: String| Trouble::new(&target.dir, file, format!("is damaged ({why})"));
    let id = Id::from_hex(&target.meta.target_id)
        .ok_or_else(|| damaged("meta.json", "target_id has not 64 digits".into()))?;
    let array = |file: &str, name: &str| {
        let values = target.arrays(file)?.remove(name).and_then(|a| a.values.to_f64());
        values.ok_or_else(|| damaged(file, format!("no numbers called {name}")))
    };
    let (x, y, w) = (array("data.npz", "X")?, array("data.npz", "Y")?, array("params.npz", "flat")?);
    let compared = compare_with_teacher(&target.meta.config, id.0, &x, &y, &w);
    let Some((_, bytes)) = compared.map_err(|why| damaged("data.npz", why))? else { return Ok(Vec::new()) };
    let arrays = npz::read(&bytes).map_err(|e| damaged("data.npz", e.to_string()))?;
    let column = |name: String| match arrays.get(&name).map(|a| &a.values) {
        Some(Values::F64(values)) => values.clone(),
        _ => Vec::new(),
    };
    let pairs = |rows: &str| {
        let (teacher, student) = (column(format!("{rows}_teacher")), column(format!("{rows}_student")));
        teacher.into_iter().zip(student).collect()
    };
    Ok(vec![(false, pairs("train")), (true, pairs("test"))])
}
