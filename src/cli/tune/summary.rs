//! What a search came to: a table, what is to be known of it, and the same as JSON.

use comfy_table::CellAlignment::{Left, Right};
use serde_json::{Value, json};

use super::super::table::{name, note, number, table, unbroken, with_error};
use crate::config::tune::TuneExperiment;
use crate::tune::conduct::{Conductor, StudyState};
use crate::tune::objective::names;
use crate::tune::reference::Reference;
use crate::tune::study::End;

/// Prints what the studies came to.
pub fn print(tune: &TuneExperiment, conductor: &Conductor<'_>, executed: usize, as_json: bool) {
    if as_json {
        let rows: Vec<Value> = conductor.studies().iter().map(|state| told(tune, conductor, state)).collect();
        say!("{}", json!({ "experiment": tune.name, "executed_units": executed, "studies": rows }));
        return;
    }
    let mut shown = table(&[
        ("study", Left),
        ("trials", Right),
        ("best", Right),
        ("again", Right),
        ("fresh ± 95 %", Right),
        ("off", Right),
    ]);
    unbroken(&mut shown, 0);
    let mut notes = Vec::new();
    for state in conductor.studies() {
        shown.add_row(row(conductor, state));
        for text in remarks(conductor, state) {
            if !notes.contains(&text) {
                notes.push(text);
            }
        }
    }
    say!("{shown}");
    let of_several = if tune.study.objective.values() > 1 { " (of the least in the first)" } else { "" };
    let objective = names(&tune.study.objective).join("; ");
    say!("  best, and again with fresh seeds (mean of 4){of_several}: {objective}");
    for (index, of) in tune.problems.iter().enumerate() {
        let (problem, reference) = conductor.problem(index);
        if let Some(r) = reference {
            let (value, how) =
                if r.exact { (number(r.llc), "exact") } else { (with_error(r.llc, r.mcse), "nuts") };
            say!("  reference of {problem} ({}): {value}, {how}", name(&of.label));
        }
    }
    for text in notes {
        say!("{}", note(&text));
    }
    let again = if executed == 0 { " (all was done before)" } else { "" };
    let found = match conductor.studies().iter().any(|state| state.winner().is_some()) {
        true => "best settings are in results/best",
        false => "no study has a trial to take settings from",
    };
    let whole: f64 = conductor.studies().iter().map(StudyState::work).sum();
    say!("  trials and fresh runs: {} FGE", number(whole));
    say!("{}: {executed} units executed{again}; {found}", tune.name);
}

/// The first value of a study's winner.
fn best(state: &StudyState) -> Option<f64> {
    match &state.winner()?.outcome.as_ref()?.end {
        End::Complete(values) => values.first().copied(),
        _ => None,
    }
}

/// How far the fresh runs are from the newest reference.
fn off(conductor: &Conductor<'_>, state: &StudyState) -> Option<f64> {
    state.off(conductor.problem(state.problem).1?.estimate())
}

fn row(conductor: &Conductor<'_>, state: &StudyState) -> [String; 6] {
    let dash = || "–".to_owned();
    let (settled, failed, pruned) = state.counts();
    let ends = [(pruned, "pruned"), (failed, "failed")];
    let ends = ends.iter().filter(|(n, _)| *n > 0).map(|(n, how)| format!("{n} {how}"));
    let ends = ends.collect::<Vec<_>>().join(", ");
    [
        if ends.is_empty() { state.name.clone() } else { format!("{}\n  {ends}", state.name) },
        settled.to_string(),
        best(state).map_or_else(dash, number),
        state.fresh_values().map_or_else(dash, |values| number(values[0].0)),
        state.fresh_estimate().map_or_else(dash, |(llc, half)| with_error(llc, half)),
        off(conductor, state).map_or_else(dash, |off| format!("{:.1} %", 100.0 * off)),
    ]
}

/// What is to be known of a study beside its figures.
fn remarks(conductor: &Conductor<'_>, state: &StudyState) -> Vec<String> {
    let (study, settled) = (&state.name, state.counts().0);
    let mut found = Vec::new();
    if let Some(trouble) = &state.trouble {
        found.push(format!("{study}: {trouble}"));
    } else if state.winner().is_none() {
        let why = match state.reasons().first() {
            Some((reason, count)) if *count == settled => format!("; all {count} failed: {reason}"),
            Some((reason, count)) => format!("; {count} of {settled} failed: {reason}"),
            None => String::new(),
        };
        found.push(format!("{study}: no trial came to an end{why}"));
    }
    if let Some(reason) = &state.rough {
        found.push(format!("{study}: its reference is rough: {reason}"));
    }
    let (problem, newest) = conductor.problem(state.problem);
    let references = state.reference.zip(newest.map(Reference::estimate));
    if let Some((was, now)) = references.filter(|(was, now)| was != now) {
        found.push(format!(
            "{study}: its trials are measured against {}, the reference when it began, which its journal keeps; \"off\" \
             against today's, {}. Move its journal away to search against that",
            with_error(was.llc, was.mcse),
            with_error(now.llc, now.mcse)
        ));
    }
    if state.keeps_budget {
        let cap = state.cap.map_or("none".to_owned(), |cap| format!("{cap:.4e} FGE"));
        found.push(format!(
            "{study}: the budget of its trials stays what it began with ({cap}), not what the file says by now. Move its \
             journal away to search with that"
        ));
    }
    let by_rate = state.trial_sec.zip(state.rate).map(|(seconds, rate)| seconds / rate);
    if let Some(cap) = state.cap.filter(|cap| by_rate == Some(*cap)) {
        found.push(format!(
            "{problem}: trials have {cap:.4e} FGE, their seconds at this machine's speed; `trial_fge: {cap}` gives \
             another search the same trials"
        ));
    }
    if !state.reproducible {
        found.push(format!(
            "{study}: a clock decided something in it; it may come out otherwise another time"
        ));
    }
    for why in state.fresh.iter().flatten().filter_map(|fresh| fresh.as_ref().err()) {
        found.push(format!("{study}: a run of the best settings with a fresh seed failed: {why}"));
    }
    found
}

/// A study as JSON.
fn told(tune: &TuneExperiment, conductor: &Conductor<'_>, state: &StudyState) -> Value {
    let (settled, failed, pruned) = state.counts();
    let (winner, fresh, reference) = (state.winner(), state.fresh_estimate(), state.reference);
    let newest = conductor.problem(state.problem).1;
    let again = state.fresh_values();
    let exact = newest.is_some_and(|r| r.exact);
    json!({
        "study": state.name, "target": tune.problems[state.problem].label, "trials": settled, "pruned": pruned, "failed": failed,
        "best": best(state), "best_trial": winner.map(|t| t.number), "best_params": winner.map(|t| &t.params),
        "fresh_llc": fresh.map(|f| f.0), "fresh_half_width": fresh.map(|f| f.1), "relative_error": off(conductor, state),
        "reference_llc": reference.map(|r| r.llc), "reference_mcse": reference.map(|r| r.mcse),
        "reference_exact": exact, "reference_rough": state.rough, "newest_reference_llc": newest.map(|r| r.llc),
        "fresh_values": again.as_ref().map(|v| v.iter().map(|v| v.0).collect::<Vec<_>>()),
        "fresh_values_half_width": again.as_ref().map(|v| v.iter().map(|v| v.1).collect::<Vec<_>>()),
        "trial_fge": state.cap, "trial_sec": state.trial_sec,
        "newest_reference_mcse": newest.map(|r| r.mcse), "objective": names(&tune.study.objective).join("; "),
        "reasons": state.reasons(), "fge": state.work(), "reproducible": state.reproducible, "trouble": state.trouble,
    })
}
