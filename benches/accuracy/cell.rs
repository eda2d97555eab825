//! One sampler on one posterior.

use std::time::Instant;

use lambda_hat::config::{Dtype, SamplerSpec};
use lambda_hat::diagnostics::{Analysis, Bias, Context, Tuning, Verdict, analyse, is_wrong};
use lambda_hat::resume::Desk;
use lambda_hat::sampler::{self, Posterior, Role, run_chain, warmup};
use lambda_hat::stats::mean;
use lambda_hat::trace::Trace;
use serde::{Deserialize, Serialize};

use crate::rows::{Row, cell_id};

/// What came out of a cell; a line of the record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// Part, row, sampler and repetition, and a hash of the settings.
    pub key: String,
    pub mean: Option<f64>,
    pub mcse: Option<f64>,
    pub bias: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub ok: bool,
    pub wrong: bool,
    pub fge: f64,
    pub seconds: f64,
    pub failure: Option<String>,
    /// The step size that was given or chosen.
    #[serde(default)]
    pub step_size: Option<f64>,
    /// Mean of ln target − ln q (vi).
    #[serde(default)]
    pub elbo: Option<f64>,
}

impl Cell {
    /// Whether the interval covers the truth.
    pub fn covers(&self, exact: f64) -> bool {
        matches!((self.low, self.high), (Some(low), Some(high)) if low <= exact && exact <= high)
    }
}

/// Runs a cell; `exact` may be NaN where it is to be found.
pub fn run(row: &Row, spec: &SamplerSpec, repetition: u64, exact: f64, key: String) -> Cell {
    let start = Instant::now();
    let outcome = sample(row, spec, repetition);
    let seconds = start.elapsed().as_secs_f64();
    match outcome {
        Ok(Sampled { analysis: a, fge, step_size, elbo }) => Cell {
            key,
            step_size: Some(step_size),
            elbo,
            mean: a.llc_mean,
            mcse: a.llc_mcse,
            bias: a.llc_bias,
            low: a.llc_ci_low,
            high: a.llc_ci_high,
            ok: a.verdict == Verdict::Ok,
            wrong: is_wrong(&a, exact),
            fge,
            seconds,
            failure: None,
        },
        Err(e) => Cell {
            key,
            mean: None,
            mcse: None,
            bias: None,
            low: None,
            high: None,
            ok: false,
            wrong: false,
            fge: 0.0,
            seconds,
            failure: Some(e.to_string()),
            step_size: None,
            elbo: None,
        },
    }
}

struct Sampled {
    analysis: Analysis,
    fge: f64,
    step_size: f64,
    elbo: Option<f64>,
}

fn sample(row: &Row, spec: &SamplerSpec, repetition: u64) -> Result<Sampled, sampler::SamplerError> {
    debug_assert_eq!(spec.dtype, Dtype::F64);
    let id = cell_id(row, spec, repetition);
    let posterior = Posterior::new(row.potential.as_ref(), &row.centre, row.nbeta, row.gamma)?;
    let exact_sampler = sampler::is_exact(spec, posterior.dim());
    let adapted = warmup(spec, &posterior, id, &mut Desk::unwatched())?;
    let mut chains = Vec::new();
    let (mut fge_warmup, mut fge_sampling) = (adapted.fge, 0.0);
    for chain in 0..spec.chains as u32 {
        let out = run_chain(spec, &posterior, &adapted, id, chain, Role::Main, &mut Desk::unwatched())?;
        fge_warmup += out.fge_warmup;
        fge_sampling += out.fge_sampling;
        chains.push(out.trace);
    }
    let needs_control = row.singular && sampler::bias_at_half_step(spec).is_some();
    let mut control = None;
    if needs_control {
        let out = run_chain(spec, &posterior, &adapted, id, 0, Role::Control, &mut Desk::unwatched())?;
        fge_warmup += out.fge_warmup + out.fge_sampling;
        control = Some(out.trace);
    }
    let layout = sampler::layout(spec);
    let llc = layout.iter().position(|c| c.name == "llc").unwrap_or(0);
    let context = Context {
        target_id: "",
        run_id: "",
        sampler: spec.algo.name(),
        beta: f64::NAN,
        gamma: row.gamma,
        nbeta: row.nbeta,
        l0: posterior.l0(),
        exact_lambda: None,
        exact_multiplicity: None,
        exact_llc: None,
        fge_warmup,
        fge_sampling,
        bias: match (exact_sampler, adapted.bias) {
            (true, _) => Bias::Exact,
            (false, Some(excess)) => Bias::Predicted(excess),
            (false, None) => Bias::Unknown,
        },
        tuning: Tuning::default(),
        control: control.as_ref().map(|c| c.values[llc].as_slice()),
        needs_control,
        unknown_bias: sampler::unknown_bias(spec),
        bias_at_half_step: sampler::bias_at_half_step(spec).unwrap_or(0.0),
    };
    let trace = Trace { layout, chains };
    let elbo = elbo(&trace);
    let analysis = analyse(&trace, &context);
    Ok(Sampled { analysis, fge: fge_warmup + fge_sampling, step_size: adapted.step_size, elbo })
}

/// The mean of ln target − ln q over all draws, where there are such columns.
fn elbo(trace: &Trace) -> Option<f64> {
    let column = |name: &str| trace.layout.iter().position(|c| c.name == name);
    let (target, q) = (column("log_target")?, column("log_q")?);
    let draws = trace.chains.iter().flat_map(|c| c.values[target].iter().zip(&c.values[q]));
    Some(mean(&draws.map(|(p, q)| p - q).collect::<Vec<_>>()))
}
