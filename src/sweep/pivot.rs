//! Finished runs set side by side: groups of runs with the same values of some columns, and what they come to.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde::Serialize;

use super::run_table::RunTable;
use crate::io::table::ColumnData;

/// The column that groups are compared by unless told.
pub const VALUE: &str = "llc_mean";

/// Names offered at most.
const OFFERED: usize = 40;

/// Why runs cannot be compared as asked.
#[derive(Debug, thiserror::Error)]
pub enum PivotError {
    /// No column of that name.
    #[error("there is no column {key:?}{}; there are {known}", near.as_ref().map_or_else(String::new, |n| format!(": did you mean {n}?")))]
    Unknown {
        /// The name as given.
        key: String,
        /// The one that comes nearest.
        near: Option<String>,
        /// Those that there are.
        known: String,
    },
    /// More than one column ends so.
    #[error("{key:?} may be {}: give the whole name", fits.join(", "))]
    Ambiguous {
        /// The name as given.
        key: String,
        /// The columns that it fits.
        fits: Vec<String>,
    },
    /// A value that is no number.
    #[error("--value {column}: the column holds no numbers; name one that does, such as llc_mean or seconds")]
    NotNumeric {
        /// The column.
        column: String,
    },
    /// The same column twice, or none.
    #[error("--by: give each column once, and at least one")]
    Keys,
}

/// A value that groups are made by.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Key {
    /// The run does not have it.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

impl Key {
    /// Numbers by size, texts by letters; what a run does not have comes first.
    pub fn order(&self, other: &Self) -> Ordering {
        let number = |key: &Key| match key {
            Key::Int(i) => Some(*i as f64),
            Key::Number(x) => Some(*x),
            _ => None,
        };
        let rank = |key: &Key| match key {
            Key::None => 0,
            Key::Bool(_) => 1,
            Key::Int(_) | Key::Number(_) => 2,
            Key::Text(_) => 3,
        };
        match (self, other) {
            (Key::Text(a), Key::Text(b)) => a.cmp(b),
            (Key::Bool(a), Key::Bool(b)) => a.cmp(b),
            _ => match (number(self), number(other)) {
                (Some(a), Some(b)) => a.total_cmp(&b),
                _ => rank(self).cmp(&rank(other)),
            },
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Key::None => f.write_str("–"),
            Key::Bool(b) => write!(f, "{b}"),
            Key::Int(i) => write!(f, "{i}"),
            Key::Number(x) if *x != 0.0 && !(1e-3..1e6).contains(&x.abs()) => write!(f, "{x:e}"),
            Key::Number(x) => write!(f, "{x}"),
            Key::Text(text) => f.write_str(text),
        }
    }
}

/// Runs with the same keys.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// Their values of the columns that were asked for.
    pub keys: Vec<Key>,
    /// How many they are.
    pub runs: usize,
    /// Mean of the value over those that have it.
    pub mean: Option<f64>,
    /// Standard error of that mean: √(Σ MCSE²)/runs for `llc_mean` of independent runs, null where two
    /// share their random numbers (one has more chains or draws than the other); for any
    /// other value their standard deviation over √runs, null for one run.
    pub error: Option<f64>,
    /// Mean of |λ̂ − exact|/exact over the runs whose exact value is known and not 0.
    pub relative_error: Option<f64>,
    /// Largest R-hat.
    pub r_hat: Option<f64>,
    /// Smallest bulk ESS.
    pub ess: Option<f64>,
    /// Mean work, warmup included, in full-data gradient evaluations.
    pub fge: Option<f64>,
    /// Mean wall seconds of a run's units together.
    pub seconds: Option<f64>,
    /// Mean work-normalised variance, MCSE² · FGE.
    pub wnv: Option<f64>,
    /// Verdicts `ok`; all others are `check`.
    pub ok: usize,
}

/// Groups in the order of their keys.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Whole names of the columns that groups are made by.
    pub by: Vec<String>,
    /// Whole name of the column that is compared.
    pub value: String,
    /// The groups.
    pub groups: Vec<Group>,
}

/// Groups the runs of `table` by the columns `by` and compares them by `value`. A name is a column's, or the
/// end of one behind a dot (`step_size` for `sampler.step_size`).
///
/// # Errors
/// [`PivotError`].
pub fn compare(table: &RunTable, by: &[String], value: &str) -> Result<Comparison, PivotError> {
    let mut chosen: Vec<(&str, &ColumnData)> = Vec::with_capacity(by.len());
    for name in by {
        let column = find(table, name)?;
        if chosen.iter().any(|(other, _)| *other == column.0) {
            return Err(PivotError::Keys);
        }
        chosen.push(column);
    }
    if chosen.is_empty() {
        return Err(PivotError::Keys);
    }
    let (value, data) = find(table, value)?;
    let values = numbers(data).ok_or_else(|| PivotError::NotNumeric { column: value.to_owned() })?;
    let mut rows: Vec<(Vec<Key>, usize)> =
        (0..table.len()).map(|row| (chosen.iter().map(|(_, data)| key(data, row)).collect(), row)).collect();
    let order = |a: &[Key], b: &[Key]| {
        a.iter().zip(b).map(|(a, b)| a.order(b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    };
    rows.sort_by(|a, b| order(&a.0, &b.0));
    let groups = rows
        .chunk_by(|a, b| order(&a.0, &b.0).is_eq())
        .map(|rows| {
            let members: Vec<usize> = rows.iter().map(|(_, row)| *row).collect();
            group(table, rows[0].0.clone(), &members, value, &values)
        })
        .collect();
    let by = chosen.iter().map(|(name, _)| (*name).to_owned()).collect();
    Ok(Comparison { by, value: value.to_owned(), groups })
}

fn group(table: &RunTable, keys: Vec<Key>, members: &[usize], name: &str, values: &[Option<f64>]) -> Group {
    let column = |name: &str| {
        let data = table.columns.iter().find(|(other, _)| other == name).map(|(_, data)| data);
        data.and_then(numbers).unwrap_or_else(|| vec![None; table.len()])
    };
    let of = |values: &[Option<f64>]| -> Vec<f64> {
        members.iter().filter_map(|row| values[*row]).filter(|x| x.is_finite()).collect()
    };
    let (llc, mcse, exact) = (column(VALUE), column("llc_mcse"), column("exact_llc"));
    let (warmup, sampling) = (column("fge_warmup"), column("fge_sampling"));
    let work = |row: usize| Some(warmup[row]? + sampling[row]?);
    let each =
        |f: &dyn Fn(usize) -> Option<f64>| -> Vec<f64> { members.iter().filter_map(|row| f(*row)).collect() };
    let had = of(values);
    let errors = of(&mcse);
    let streams: BTreeSet<&str> = members.iter().map(|row| table.streams[*row].as_str()).collect();
    let independent = streams.len() == members.len();
    let error = if name != VALUE {
        (had.len() > 1).then(|| crate::stats::sd(&had) / (had.len() as f64).sqrt())
    } else if errors.len() == had.len() && independent {
        mean(&had).map(|_| errors.iter().map(|e| e * e).sum::<f64>().sqrt() / had.len() as f64)
    } else {
        // One of them has no error, or they share draws: their mean has none.
        None
    };
    let verdicts = table.columns.iter().find(|(name, _)| name == "verdict").map(|(_, data)| data);
    let is_ok =
        |row: &&usize| matches!(verdicts, Some(ColumnData::Str(v)) if v[**row].as_deref() == Some("ok"));
    Group {
        keys,
        runs: members.len(),
        mean: mean(&had),
        error,
        relative_error: mean(&each(&|row| {
            let exact = exact[row].filter(|exact| *exact != 0.0)?;
            Some(((llc[row]? - exact) / exact).abs())
        })),
        r_hat: of(&column("r_hat")).into_iter().reduce(f64::max),
        ess: of(&column("ess_bulk")).into_iter().reduce(f64::min),
        fge: mean(&each(&work)),
        seconds: mean(&of(&column("seconds"))),
        wnv: mean(&each(&|row| Some(mcse[row]?.powi(2) * work(row)?))),
        ok: members.iter().filter(is_ok).count(),
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn numbers(data: &ColumnData) -> Option<Vec<Option<f64>>> {
    match data {
        ColumnData::F64(v) => Some(v.clone()),
        ColumnData::I64(v) => Some(v.iter().map(|i| i.map(|i| i as f64)).collect()),
        // All null: of no type.
        ColumnData::Bool(v) if v.iter().all(Option::is_none) => Some(vec![None; v.len()]),
        ColumnData::Bool(_) | ColumnData::Str(_) => None,
    }
}

fn key(data: &ColumnData, row: usize) -> Key {
    match data {
        ColumnData::Str(v) => v[row].clone().map_or(Key::None, Key::Text),
        ColumnData::F64(v) => v[row].map_or(Key::None, Key::Number),
        ColumnData::I64(v) => v[row].map_or(Key::None, Key::Int),
        ColumnData::Bool(v) => v[row].map_or(Key::None, Key::Bool),
    }
}

/// The column of that name, or the only one that ends so.
fn find<'a>(table: &'a RunTable, name: &str) -> Result<(&'a str, &'a ColumnData), PivotError> {
    let all = || {
        let settings = table.settings.iter().map(|setting| (setting.name.as_str(), &setting.data));
        table.columns.iter().map(|(name, data)| (name.as_str(), data)).chain(settings)
    };
    if let Some(column) = all().find(|(other, _)| *other == name) {
        return Ok(column);
    }
    let end = format!(".{name}");
    let fits: Vec<_> = all().filter(|(other, _)| other.ends_with(&end)).collect();
    match fits.as_slice() {
        [one] => Ok(*one),
        [] => Err(unknown(table, name, all().map(|(name, _)| name))),
        // Of several the one that varies is meant.
        many => {
            let varies = |name: &str| table.settings.iter().any(|s| s.varies && s.name == name);
            match many.iter().filter(|(name, _)| varies(name)).collect::<Vec<_>>().as_slice() {
                [one] => Ok(**one),
                _ => Err(PivotError::Ambiguous {
                    key: name.to_owned(),
                    fits: many.iter().map(|(name, _)| (*name).to_owned()).collect(),
                }),
            }
        }
    }
}

fn unknown<'a>(table: &RunTable, key: &str, all: impl Iterator<Item = &'a str>) -> PivotError {
    const NEAR: f64 = 0.8;
    let score = |name: &str| {
        let last = name.rsplit('.').next().unwrap_or(name);
        strsim::jaro_winkler(name, key).max(strsim::jaro_winkler(last, key))
    };
    let nearest = all.map(|name| (score(name), name)).max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1)));
    let varying: Vec<&str> = table.settings.iter().filter(|s| s.varies).map(|s| s.name.as_str()).collect();
    let mut known: Vec<&str> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
    known.retain(|name| !["run_id", "target_id", "reasons", "settings"].contains(name));
    known.extend(varying.iter().take(OFFERED));
    let rest = table.settings.len() - varying.len().min(OFFERED);
    let rest =
        if rest > 0 { format!(", and {rest} settings more, the same in all runs") } else { String::new() };
    PivotError::Unknown {
        key: key.to_owned(),
        near: nearest.filter(|(score, _)| *score >= NEAR).map(|(_, name)| name.to_owned()),
        known: format!("{}{rest}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::run_table::Setting;
    use super::*;

    fn table() -> RunTable {
        let f = |v: [f64; 4]| ColumnData::F64(v.map(|x| (!x.is_nan()).then_some(x)).to_vec());
        let s = |v: [&str; 4]| ColumnData::Str(v.map(|x| Some(x.to_owned())).to_vec());
        let setting = |name: &str, data, varies| Setting { name: name.into(), data, varies };
        RunTable {
            streams: ["p", "q", "r", "s"].map(String::from).to_vec(),
            columns: vec![
                ("target".into(), s(["b", "a", "a", "b"])),
                ("sampler".into(), s(["hmc", "hmc", "hmc", "sgld"])),
                ("llc_mean".into(), f([1.0, 2.0, 4.0, 1.1])),
                ("llc_mcse".into(), f([0.1, 0.3, 0.4, 0.2])),
                ("exact_llc".into(), f([1.0, f64::NAN, f64::NAN, 1.0])),
                ("fge_warmup".into(), f([10.0; 4])),
                ("fge_sampling".into(), f([90.0; 4])),
                ("r_hat".into(), f([1.0, 1.2, 1.1, 1.0])),
                ("ess_bulk".into(), f([500.0, 300.0, 400.0, 500.0])),
                ("seconds".into(), f([1.0, 1.0, 3.0, 2.0])),
                ("verdict".into(), s(["ok", "check", "ok", "ok"])),
            ],
            settings: vec![
                setting("sampler.step_size", f([0.1, 0.5, 0.1, 1e-6]), true),
                setting("target.depth", ColumnData::I64(vec![Some(10), Some(2), Some(2), Some(10)]), true),
                setting("sampler.seed", ColumnData::I64(vec![Some(1); 4]), false),
                setting("target.seed", ColumnData::I64(vec![Some(2); 4]), false),
            ],
        }
    }

    fn by(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn runs_that_share_draws_have_no_common_error() {
        let mut table = table();
        table.streams[2] = table.streams[1].clone();
        let by = ["target".to_owned()];
        let groups = compare(&table, &by, VALUE).unwrap().groups;
        let error = |target: &str| {
            groups.iter().find(|g| format!("{:?}", g.keys).contains(&format!("\"{target}\""))).unwrap().error
        };
        assert!(error("a").is_none() && error("b").is_some(), "{groups:?}");
    }

    #[test]
    fn groups_have_the_means_errors_and_extremes_of_their_runs() {
        let found = compare(&table(), &by(&["target", "sampler"]), VALUE).unwrap();
        assert_eq!(found.groups.len(), 3);
        let a = &found.groups[0];
        assert_eq!((a.runs, a.mean, a.ok), (2, Some(3.0), 1));
        // √(0.3² + 0.4²)/2
        assert!((a.error.unwrap() - 0.25).abs() < 1e-12);
        assert_eq!((a.r_hat, a.ess, a.fge, a.seconds), (Some(1.2), Some(300.0), Some(100.0), Some(2.0)));
        // 100·(0.09 + 0.16)/2
        assert!((a.wnv.unwrap() - 12.5).abs() < 1e-12);
        assert_eq!(a.relative_error, None);
        let sgld = &found.groups[2];
        assert_eq!(sgld.keys, [Key::Text("b".into()), Key::Text("sgld".into())]);
        assert!((sgld.relative_error.unwrap() - 0.1).abs() < 1e-12);
        let seconds = compare(&table(), &by(&["target"]), "seconds").unwrap();
        // Standard deviation of 1 and 3 over √2.
        assert!((seconds.groups[0].error.unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn numbers_are_in_their_order_and_short_names_find_the_one_column() {
        let found = compare(&table(), &by(&["depth", "step_size"]), VALUE).unwrap();
        assert_eq!(found.by, ["target.depth", "sampler.step_size"]);
        let keys: Vec<String> = found
            .groups
            .iter()
            .map(|g| g.keys.iter().map(Key::to_string).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(keys, ["2 0.1", "2 0.5", "10 1e-6", "10 0.1"]);
    }

    #[test]
    fn what_cannot_be_compared_is_told_with_what_can() {
        let table = table();
        for (keys, value, words) in [
            (&["seed"][..], VALUE, &["\"seed\"", "sampler.seed", "target.seed", "whole name"][..]),
            (&["stepsize"], VALUE, &["did you mean sampler.step_size?", "target.depth", "2 settings more"]),
            (&["target"], "verdict", &["verdict", "no numbers"]),
            (&["target", "target"], VALUE, &["once"]),
            (&[], VALUE, &["at least one"]),
            (&["zzz"], VALUE, &["no column \"zzz\"; there are target"]),
        ] {
            let told = compare(&table, &by(keys), value).unwrap_err().to_string();
            assert!(words.iter().all(|word| told.contains(word)), "{told}");
        }
    }
}
