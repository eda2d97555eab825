//! How searches stand, by their journals.

use std::collections::BTreeMap;
use std::path::Path;

use comfy_table::CellAlignment::{Left, Right};
use serde_json::{Value, json};

use super::super::Quit;
use super::super::args::Common;
use super::super::table::{name, note, number, seconds, table, unbroken};
use crate::config::LoadOptions;
use crate::config::tune::load_tune;
use crate::tune::conduct::{TRIALS, plan, problem_name};

/// Prints how the studies of a root stand, by their journals alone.
pub fn print(what: Option<&str>, common: &Common) -> Result<u8, Quit> {
    let root = common.root.clone().unwrap_or_else(|| ".".into());
    // Studies by name, with the label of their problem where a file says it.
    let mut labels = BTreeMap::new();
    let wanted: Option<Vec<String>> = match what {
        Some(file) if Path::new(file).is_file() => {
            let tune = load_tune(Path::new(file), &LoadOptions::default())
                .map_err(|e| Quit::Usage(e.to_string()))?;
            let plan = plan(&tune)?;
            for (i, problem) in tune.problems.iter().enumerate() {
                let name = problem_name(&tune, &plan, i);
                for method in &tune.methods {
                    labels.insert(format!("{name}:{}", method.method), problem.label.clone());
                }
            }
            Some(labels.keys().cloned().collect())
        }
        Some(name) => Some(vec![name.to_owned()]),
        None => None,
    };
    let dir = root.join("results/studies");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some(stem) = file.strip_suffix(".journal.log") else { continue };
        let study = stem.replacen('-', ":", 1);
        let is_meant = |wanted: &String| {
            *wanted == study
                || *wanted == stem
                || study.strip_prefix(wanted.as_str()).is_some_and(|s| s.starts_with(':'))
        };
        if wanted.as_ref().is_none_or(|wanted| wanted.iter().any(is_meant)) {
            match std::fs::read_to_string(entry.path()) {
                Ok(text) => {
                    let mut standing = standing(&text);
                    standing.target = labels.get(&study).cloned().unwrap_or(standing.target);
                    found.push((study, standing));
                }
                Err(e) => log::warn!("{}: {e}", entry.path().display()),
            }
        }
    }
    if found.is_empty() {
        let which = what.map_or_else(String::new, |what| format!(" of {what}"));
        return Err(Quit::Usage(format!(
            "{} holds no study{which}: name the directory of a search with --root; one that is young has none yet",
            dir.display()
        )));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    if common.json {
        let rows: Vec<Value> = found.iter().map(|(study, s)| s.json(study)).collect();
        say!("{}", json!(rows));
        return Ok(0);
    }
    let mut shown = table(&[
        ("study", Left),
        ("target", Left),
        ("ended", Right),
        ("pruned", Right),
        ("failed", Right),
        ("best", Right),
        ("last sign", Right),
    ]);
    unbroken(&mut shown, 0);
    for (study, s) in &found {
        shown.add_row([
            study.clone(),
            name(&s.target),
            format!("{}/{}", s.complete + s.pruned + s.failed, s.asked),
            s.pruned.to_string(),
            s.failed.to_string(),
            s.best.map_or_else(|| "–".to_owned(), number),
            s.age().map_or_else(|| "–".to_owned(), |age| format!("{} ago", seconds(age))),
        ]);
    }
    say!("{shown}");
    let mut objectives: Vec<&str> =
        found.iter().map(|(_, s)| s.objective.as_str()).filter(|o| !o.is_empty()).collect();
    objectives.sort_unstable();
    objectives.dedup();
    if !objectives.is_empty() {
        say!("  best: {}", objectives.join(" or "));
    }
    for (study, reason) in found.iter().filter_map(|(study, s)| Some((study, s.rough.as_ref()?))) {
        say!("{}", note(&format!("{study}: its reference is rough: {reason}")));
    }
    for (study, _) in found.iter().filter(|(_, s)| s.by_clock) {
        say!("{}", note(&format!("{study}: not reproducible, a clock decided something in it")));
    }
    Ok(0)
}

/// How a study stands.
#[derive(Debug, Default)]
struct Standing {
    target: String,
    /// Trials that were asked for; of a journal that does not say, those proposed.
    asked: usize,
    proposed: usize,
    complete: usize,
    /// What is minimised, with its unit.
    objective: String,
    /// Why its reference is rough, where it is.
    rough: Option<String>,
    pruned: usize,
    failed: usize,
    /// A clock has decided something in it.
    by_clock: bool,
    best: Option<f64>,
    last: Option<jiff::Timestamp>,
}

impl Standing {
    fn age(&self) -> Option<f64> {
        self.last.map(|last| (jiff::Timestamp::now().as_second() - last.as_second()).max(0) as f64)
    }

    fn json(&self, study: &str) -> Value {
        json!({ "study": study, "target": self.target, "asked": self.asked, "proposed": self.proposed, "objective": self.objective, "reference_rough": self.rough, "complete": self.complete,
            "pruned": self.pruned, "reproducible": !self.by_clock, "failed": self.failed, "best": self.best, "last": self.last.map(|t| t.to_string()) })
    }
}

/// Reads a journal; lines that are none are passed over, one may just be being written.
fn standing(text: &str) -> Standing {
    let mut standing = Standing::default();
    for line in text.lines() {
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        match line["op_code"].as_u64() {
            Some(2) => {
                if let Some(target) = line["user_attr"]["problem"].as_str() {
                    standing.target = target.to_owned();
                }
                if let Some(objective) = line["user_attr"]["objective"].as_str() {
                    standing.objective = objective.to_owned();
                }
                if let Some(reason) = line["user_attr"]["reference_rough"].as_str() {
                    standing.rough = Some(reason.to_owned());
                }
                if let Some(trials) = line["user_attr"][TRIALS].as_u64() {
                    standing.asked = trials as usize;
                }
                if let Some(reproducible) = line["user_attr"]["reproducible"].as_bool() {
                    standing.by_clock = !reproducible;
                }
            }
            Some(4) => standing.proposed += 1,
            Some(6) => {
                match line["state"].as_u64() {
                    Some(1) => standing.complete += 1,
                    Some(2) => standing.pruned += 1,
                    Some(3) => standing.failed += 1,
                    _ => {}
                }
                if let (Some(1), Some(value)) = (line["state"].as_u64(), line["values"][0].as_f64()) {
                    standing.best = Some(standing.best.map_or(value, |best| best.min(value)));
                }
            }
            _ => {}
        }
        for key in ["datetime_start", "datetime_complete"] {
            if let Some(time) = line[key].as_str().and_then(|time| time.parse().ok()) {
                standing.last = Some(time);
            }
        }
    }
    standing.asked = standing.asked.max(standing.proposed);
    standing
}
