//! The end of a run: chains become a trace, a trace becomes λ̂ with its error and verdict.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::SweepError;
use super::plan::{PlannedRun, PlannedTarget};
use super::writer::{ChainPart, RunParts};
use crate::config::{canonical_json, posterior_json};
use crate::diagnostics::{Analysis, Bias, Context, Tuning, analyse};
use crate::io::{Attr, netcdf};
use crate::sampler;
use crate::target::Exact;
use crate::trace::Trace;

/// A finished run: its files by name and what is told about it.
#[derive(Debug)]
pub struct Finished {
    /// λ̂, error, verdict.
    pub analysis: Analysis,
    /// Deterministic content: trace.nc, analysis.json, state.bin.
    pub files: BTreeMap<&'static str, Vec<u8>>,
    /// Clocks and places, a unit each.
    pub timing: Value,
    /// Wall seconds of all units together.
    pub seconds: f64,
    /// Where units ran.
    pub hosts: Vec<String>,
    /// Lines for the run's log.
    pub log: Vec<String>,
}

/// Makes a run's files from its parts.
pub fn assemble(
    run: &PlannedRun,
    target: &PlannedTarget,
    exact: &Exact,
    parts: RunParts,
) -> Result<Finished, SweepError> {
    let layout = sampler::layout(&run.sampler);
    let mut seconds = 0.0;
    let mut hosts = Vec::new();
    let mut units = Vec::new();
    let mut unit = |what: String, s: f64, host: &str| {
        seconds += s;
        if !hosts.iter().any(|h| h == host) {
            hosts.push(host.to_owned());
        }
        units.push(json!({ "unit": what, "seconds": s, "host": host }));
    };
    let (mut fge_warmup, mut fge_sampling) = (0.0, 0.0);
    let mut bias = if sampler::is_exact(&run.sampler, run.dim) { Bias::Exact } else { Bias::Unknown };
    let mut tuning = Tuning::default();
    let mut log = Vec::new();
    if let Some((adapted, s, host)) = &parts.warmup {
        unit("warmup".into(), *s, host);
        fge_warmup += adapted.fge;
        if let (Bias::Unknown, Some(excess)) = (bias, adapted.bias) {
            bias = Bias::Predicted(excess);
        }
        tuning = Tuning {
            // vi has none.
            step_size: (adapted.step_size > 0.0).then_some(adapted.step_size),
            momentum_length: adapted.length,
            mala_acceptance: adapted.mala_acceptance,
            bias_bound: adapted.bias_bound,
            lowest_loss: Some(adapted.lowest_loss),
            components: adapted.components,
            rank: adapted.rank,
        };
        log.push(format!("warmup: {s:.3} s, {:.1} FGE, step size {:e}", adapted.fge, adapted.step_size));
        let chosen = [("M", adapted.components), ("r", adapted.rank)];
        for (name, value) in chosen.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            log.push(format!("{name}: {value}, by ELBO"));
        }
    }
    for (i, chain) in parts.chains.iter().enumerate() {
        unit(format!("chain {i}"), chain.seconds, &chain.host);
        fge_warmup += chain.outcome.fge_warmup;
        fge_sampling += chain.outcome.fge_sampling;
        log.push(format!("chain {i}: {:.3} s, {:.1} FGE", chain.seconds, chain.outcome.fge_sampling));
    }
    if let Some(chain) = &parts.control {
        unit("control".into(), chain.seconds, &chain.host);
        // Work spent on checking is not work that draws came from.
        fge_warmup += chain.outcome.fge_warmup + chain.outcome.fge_sampling;
        log.push(format!("control chain at half the step: {:.3} s", chain.seconds));
    }
    let l0 = parts.chains.first().map_or(f64::NAN, |c| c.l0);
    let states: Vec<Vec<u8>> = parts.chains.iter().map(|c| c.outcome.final_state.clone()).collect();
    // What was to be kept of the chains is written by now, and they are nobody else's.
    let trace_of = |part: ChainPart| Arc::unwrap_or_clone(part.outcome).trace;
    let control = parts.control.map(|c| Trace { layout: layout.clone(), chains: vec![trace_of(c)] });
    let trace = Trace { layout, chains: parts.chains.into_iter().map(trace_of).collect() };
    let nbeta = run.nbeta(target);
    let gamma = run.posterior.gamma(run.dim);
    let (target_id, run_id) = (target.id.to_string(), run.id.to_string());
    let context = Context {
        target_id: &target_id,
        run_id: &run_id,
        sampler: run.sampler.algo.name(),
        beta: run.posterior.beta(target.n_data),
        gamma,
        nbeta,
        l0,
        // What is known of a target is of all its parameters.
        exact_lambda: exact.lambda.filter(|_| run.chosen.is_none()),
        exact_multiplicity: exact.multiplicity.filter(|_| run.chosen.is_none()),
        exact_llc: exact.llc(nbeta, gamma).filter(|_| run.chosen.is_none()),
        fge_warmup,
        fge_sampling,
        bias,
        tuning,
        control: control.as_ref().and_then(|c| c.column("llc")).map(|chains| chains[0]),
        needs_control: run.control,
        unknown_bias: sampler::unknown_bias(&run.sampler),
        bias_at_half_step: sampler::bias_at_half_step(&run.sampler).unwrap_or(0.0),
    };
    let analysis = analyse(&trace, &context);
    let mut settings =
        json!({ "sampler": run.sampler, "posterior": posterior_json(&run.posterior, run.mask) });
    if let Some(device) = run.device {
        settings["device"] = device.into();
    }
    let settings = canonical_json(&settings);
    let attrs = [
        ("target_id", Attr::Str(target_id.clone())),
        ("run_id", Attr::Str(run_id.clone())),
        ("sampler", Attr::Str(run.sampler.algo.name().to_owned())),
        ("settings", Attr::Str(settings)),
        ("inference_library", Attr::Str("lambda-hat-mpi".to_owned())),
        ("n_data", Attr::I64(target.n_data as i64)),
        ("dim", Attr::I64(run.dim as i64)),
        ("beta", Attr::F64(context.beta)),
        ("gamma", Attr::F64(gamma)),
        ("l0", Attr::F64(l0)),
    ];
    let mut analysis_json = serde_json::to_vec_pretty(&analysis)?;
    analysis_json.push(b'\n');
    let files = BTreeMap::from([
        ("trace.nc", netcdf::write_trace(&trace, control.as_ref(), &attrs)?),
        ("analysis.json", analysis_json),
        ("state.bin", postcard::to_stdvec(&states)?),
    ]);
    let timing = json!({
        "seconds": seconds,
        "wnv_time": analysis.llc_mcse.map(|mcse| mcse * mcse * seconds),
        "ess_per_second": analysis.ess_mean.map(|ess| ess / seconds),
        "units": units,
    });
    Ok(Finished { analysis, files, timing, seconds, hosts, log })
}
