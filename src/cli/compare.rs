//! `compare`: finished runs side by side.

use std::path::PathBuf;

use comfy_table::CellAlignment::{Left, Right};
use serde_json::json;

use super::args::CompareArgs;
use super::table::{name, number, seconds, table, with_error};
use super::{Quit, start_log};
use crate::store::Store;
use crate::sweep::RunTable;
use crate::sweep::pivot::{Comparison, Group, Key, PivotError, VALUE, compare};

impl From<PivotError> for Quit {
    fn from(e: PivotError) -> Self {
        Quit::Usage(e.to_string())
    }
}

/// Prints finished runs in groups of the same target and sampler, or of whatever is asked for.
pub fn run(args: &CompareArgs) -> Result<u8, Quit> {
    start_log(&args.common);
    let root = args.common.root.clone().unwrap_or_else(|| PathBuf::from("."));
    if !root.join("store").is_dir() {
        let root = root.display();
        return Err(Quit::Usage(format!("{root} holds no store: name the directory of a sweep with --root")));
    }
    let store = Store::open(&root)?;
    let members = args.experiment.as_deref().map(|name| store.experiment(name)).transpose()?;
    let runs = RunTable::of(&store, |run| members.as_ref().is_none_or(|m| m.holds(run)))?;
    if runs.is_empty() {
        return Err(Quit::Usage(format!("{} holds no finished run: run a sweep first", root.display())));
    }
    let found = compare(&runs, &args.by, &args.value)?;
    if args.pivot && found.by.len() != 2 {
        return Err(Quit::Usage("--pivot needs two keys: --by ROWS,COLUMNS".to_owned()));
    }
    if args.common.json {
        let groups: Vec<_> = found.groups.iter().map(|group| as_json(&found.by, group)).collect();
        say!("{}", json!({ "by": found.by, "value": found.value, "groups": groups }));
    } else if args.pivot {
        print_pivot(&found);
    } else {
        print_groups(&found);
    }
    Ok(0)
}

fn as_json(by: &[String], group: &Group) -> serde_json::Value {
    let mut row = json!(group);
    row["keys"] = by.iter().zip(&group.keys).map(|(name, key)| (name.clone(), json!(key))).collect();
    row
}

/// The last part of a key, which tells enough in a heading.
fn heading(key: &str) -> String {
    name(key.rsplit('.').next().unwrap_or(key))
}

/// What the compared column is called.
fn value_heading(value: &str) -> String {
    if value == VALUE { "λ̂".to_owned() } else { heading(value) }
}

fn print_groups(found: &Comparison) {
    let keys: Vec<String> = found.by.iter().map(|key| heading(key)).collect();
    let value = value_heading(&found.value);
    let mut headings: Vec<_> = keys.iter().map(|key| (key.as_str(), Left)).collect();
    headings.extend(
        [value.as_str(), "off", "R-hat", "ESS", "FGE", "time", "WNV", "ok"].map(|heading| (heading, Right)),
    );
    let mut shown = table(&headings);
    // One blank between columns, so that all of them fit 80.
    for column in shown.column_iter_mut() {
        column.set_padding((0, 0));
    }
    for group in &found.groups {
        let mut row: Vec<String> = group.keys.iter().map(cell).collect();
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        row.extend([
            estimate(group),
            or_dash(group.relative_error.map(|e| format!("{:.1}%", 100.0 * e))),
            or_dash(group.r_hat.map(|r| format!("{r:.3}"))),
            or_dash(group.ess.map(compact)),
            or_dash(group.fge.map(compact)),
            or_dash(group.seconds.map(seconds)),
            or_dash(group.wnv.map(|w| format!("{w:.1e}"))),
            format!("{}/{}", group.ok, group.runs),
        ]);
        shown.add_row(row);
    }
    say!("{shown}");
}

fn cell(key: &Key) -> String {
    name(&key.to_string())
}

fn estimate(group: &Group) -> String {
    match (group.mean, group.error) {
        (Some(mean), Some(error)) => with_error(mean, error),
        (Some(mean), None) => number(mean),
        (None, _) => "–".to_owned(),
    }
}

/// Rows by the first key, columns by the second.
fn print_pivot(found: &Comparison) {
    let mut columns: Vec<&Key> = Vec::new();
    let mut rows: Vec<(&Key, Vec<(&Key, String)>)> = Vec::new();
    for group in &found.groups {
        let [row, column] = group.keys.as_slice() else { continue };
        if !columns.contains(&column) {
            columns.push(column);
        }
        let cell = (column, estimate(group));
        match rows.iter_mut().find(|(key, _)| *key == row) {
            Some((_, cells)) => cells.push(cell),
            None => rows.push((row, vec![cell])),
        }
    }
    columns.sort_by(|a, b| a.order(b));
    let first = found.by.first().map(|key| heading(key)).unwrap_or_default();
    let names: Vec<String> = columns.iter().map(|key| cell(key)).collect();
    let mut headings = vec![(first.as_str(), Left)];
    headings.extend(names.iter().map(|name| (name.as_str(), Right)));
    let mut shown = table(&headings);
    for (key, cells) in rows {
        let found =
            |column: &Key| cells.iter().find(|(other, _)| *other == column).map(|(_, text)| text.clone());
        let values = columns.iter().map(|column| found(column).unwrap_or_else(|| "–".to_owned()));
        shown.add_row(std::iter::once(cell(key)).chain(values).collect::<Vec<_>>());
    }
    say!("{} by {} and {}", value_heading(&found.value), name(&found.by[0]), name(&found.by[1]));
    say!("{shown}");
}

/// A number in at most five letters: three digits and the power of a thousand.
fn compact(x: f64) -> String {
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    let (mut value, mut unit) = (x, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_take_five_letters() {
        let said = [0.4, 12.0, 999.4, 999.6, 1234.0, 15_040.0, 1.603e6, 999.6e6, 2e13].map(compact);
        assert_eq!(said, ["0", "12", "999", "1.00k", "1.23k", "15.0k", "1.60M", "1.00G", "20.0T"]);
    }
}
