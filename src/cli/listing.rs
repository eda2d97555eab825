//! `artifacts ls` and `artifacts show`: what the store holds, and all that is known of one thing in it.

use std::time::SystemTime;

use comfy_table::CellAlignment::{Left, Right};
use serde_json::{Value, json};

use super::Quit;
use super::table::{name, note, number, printable, seconds, table, unbroken, with_error};
use crate::store::{Experiment, RUN, Row, Status, Store, TARGET, size};
use crate::sweep;

/// Lists targets and runs, and what they take; of one experiment alone where it is named.
pub fn list(store: &Store, experiment: Option<&str>, as_json: bool) -> Result<u8, Quit> {
    let members = experiment.map(|name| store.experiment(name)).transpose()?;
    let wanted = |kind: &str, id: &_| members.as_ref().is_none_or(|m: &Experiment| m.has(kind, id));
    let rows: Vec<Row> = store.list()?.into_iter().filter(|row| wanted(&row.kind, &row.id)).collect();
    let totals = store.totals(wanted)?;
    let now = SystemTime::now();
    if as_json {
        let units: Vec<Value> = rows.iter().map(|row| unit(row, now)).collect();
        say!("{}", json!({ "units": units, "totals": totals }));
        return Ok(0);
    }
    let mut shown = table(&[
        ("target / run", Left),
        ("sampler", Left),
        ("status", Left),
        ("age", Right),
        ("size", Right),
    ]);
    unbroken(&mut shown, 0);
    unbroken(&mut shown, 2);
    let mut notes = Vec::new();
    for row in in_tree_order(&rows) {
        let short = short_name(row);
        let status = match &row.status {
            Status::Done => "done",
            Status::Failed { reason, .. } => {
                notes.push(format!("{} {short} failed: {reason}", row.kind));
                "failed"
            }
        };
        let age = age(row, now).map_or_else(|| "–".to_owned(), in_words);
        let what = if row.kind == TARGET { "label" } else { "sampler" };
        let what = name(row.details[what].as_str().unwrap_or("–"));
        shown.add_row([short, what, status.to_owned(), age, size(row.bytes)]);
    }
    say!("{shown}");
    for text in notes {
        say!("{}", note(&text));
    }
    let count = |kind: &str| rows.iter().filter(|row| row.kind == kind).count();
    say!(
        "{} targets, {} runs: {} objects, {} on disk, {} saved by sharing",
        count(TARGET),
        count(RUN),
        totals.objects,
        size(totals.bytes),
        size(totals.saved)
    );
    Ok(0)
}

/// A row for programs.
fn unit(row: &Row, now: SystemTime) -> Value {
    let mut unit = json!(row);
    unit["label"] = row.details["label"].clone();
    unit["sampler"] = row.details["sampler"].clone();
    unit["age_seconds"] = json!(age(row, now));
    unit
}

/// Every target before its runs; what has no directory last.
fn in_tree_order(rows: &[Row]) -> Vec<&Row> {
    let mut sorted: Vec<&Row> = rows.iter().collect();
    sorted.sort_by(|a, b| {
        (a.dir.is_none(), &a.dir, &a.kind, a.id).cmp(&(b.dir.is_none(), &b.dir, &b.kind, b.id))
    });
    sorted
}

/// A directory's own name, indented for what lies in another's.
fn short_name(row: &Row) -> String {
    let Some(dir) = &row.dir else { return row.id.short(12) };
    let own = dir.file_name().map(|n| printable(&n.to_string_lossy())).unwrap_or_default();
    if row.kind == RUN { format!("  {own}") } else { own }
}

/// Seconds since a unit ended.
fn age(row: &Row, now: SystemTime) -> Option<u64> {
    let when: SystemTime = row.when.parse::<jiff::Timestamp>().ok()?.into();
    // A clock that is set back makes nothing older than now.
    Some(now.duration_since(when).map_or(0, |age| age.as_secs()))
}

/// An age in its largest unit.
fn in_words(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Shows what is known of a target or run.
pub fn show(store: &Store, what: &str, as_json: bool) -> Result<u8, Quit> {
    let record = store.find(what)?;
    let mut known = sweep::describe(store, &record)?;
    let sizes = files(store, &record);
    known["files"] = sizes
        .iter()
        .map(|(name, hash, bytes)| (name.clone(), json!({ "blake3": hash, "bytes": bytes })))
        .collect();
    if as_json {
        say!("{known}");
        return Ok(0);
    }
    // (A URN alone is wider than 80 columns; --json has it.)
    say!("{} {}", printable(&record.kind), record.id);
    let mut lines = vec![("directory", text(&known["dir"]))];
    match &record.status {
        Status::Done => lines.push(("status", format!("done, {}", text(&known["when"])))),
        Status::Failed { reason, .. } => {
            lines.push(("status", format!("failed, {}", text(&known["when"]))));
            lines.push(("reason", printable(reason)));
        }
    }
    if record.status == Status::Done {
        lines.extend(if record.kind == TARGET { of_target(&known) } else { of_run(&known) });
    }
    for (key, value) in lines {
        line(key, &value);
    }
    say!("provenance");
    settings(&known["provenance"]);
    if !known["config"].is_null() {
        say!("configuration");
        settings(&known["config"]);
    }
    if !sizes.is_empty() {
        say!("files");
    }
    for (name, hash, bytes) in sizes {
        let bytes = bytes.map_or_else(|| "missing".to_owned(), size);
        say!("  {name} ({bytes})");
        say!("    {hash}");
    }
    Ok(0)
}

/// Names, objects and sizes of a unit's files; no size for an object that is gone.
fn files(store: &Store, record: &crate::store::Ref) -> Vec<(String, String, Option<u64>)> {
    let file = |(name, hash): (&String, &crate::store::Hash)| {
        (printable(name), hash.to_string(), store.object_size(hash))
    };
    record.objects.iter().map(file).collect()
}

fn of_target(known: &Value) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("label", text(&known["label"])),
        ("problem", format!("{}, {}", text(&known["problem"]), text(&known["precision"]))),
        ("d, n", format!("{}, {}", text(&known["d"]), text(&known["n"]))),
        ("L0", text(&known["l0"])),
    ];
    let lambda = match (&known["exact_lambda"], &known["exact_multiplicity"]) {
        (Value::Null, _) => match &known["lambda_lower_bound"] {
            Value::Null => "unknown".to_owned(),
            bound => format!("unknown, at least {}", text(bound)),
        },
        (lambda, Value::Null) => text(lambda),
        (lambda, m) => format!("{}, multiplicity {}", text(lambda), text(m)),
    };
    lines.push(("exact λ", lambda));
    if let Some(llc) = known["exact_llc"]["llc"].as_f64() {
        let at = &known["exact_llc"];
        lines.push((
            "exact λ̂",
            format!("{} at nβ = {}, γ = {}", number(llc), of(&at["nbeta"]), of(&at["gamma"])),
        ));
    }
    if let Some(steps) = known["training"]["steps"].as_u64() {
        let training = &known["training"];
        lines.push((
            "training",
            format!(
                "{steps} steps, best loss {} after {}",
                text(&training["best_loss"]),
                text(&training["best_step"])
            ),
        ));
    }
    lines
}

fn of_run(known: &Value) -> Vec<(&'static str, String)> {
    let a = &known["analysis"];
    let estimate = match (a["llc_mean"].as_f64(), a["llc_mcse"].as_f64()) {
        (Some(mean), Some(error)) => with_error(mean, error),
        (Some(mean), None) => number(mean),
        (None, _) => "–".to_owned(),
    };
    let mut lines = vec![
        ("target", format!("{} ({})", text(&known["target"]), text(&known["target_id"]))),
        ("sampler", text(&known["sampler"])),
        ("λ̂", estimate),
    ];
    if let Some(exact) = a["exact_llc"].as_f64() {
        lines.push(("exact λ̂", number(exact)));
    }
    lines.push(("verdict", text(&a["verdict"])));
    for reason in a["reasons"].as_array().into_iter().flatten() {
        lines.push(("", text(reason)));
    }
    lines.push((
        "mixing",
        format!(
            "R-hat {}, ESS {} bulk, {} tail, {} for the mean",
            of(&a["r_hat"]),
            of(&a["ess_bulk"]),
            of(&a["ess_tail"]),
            of(&a["ess_mean"])
        ),
    ));
    let took = known["timing"]["seconds"].as_f64().map_or_else(|| "–".to_owned(), seconds);
    lines.push(("work", format!("{} FGE, {} of them warmup; {took}", total(a), of(&a["fge_warmup"]))));
    lines
}

fn total(a: &Value) -> String {
    match (a["fge_warmup"].as_f64(), a["fge_sampling"].as_f64()) {
        (Some(warmup), Some(sampling)) => number(warmup + sampling),
        _ => "–".to_owned(),
    }
}

fn of(value: &Value) -> String {
    value.as_f64().map_or_else(|| "–".to_owned(), number)
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => printable(text),
        other => printable(&other.to_string()),
    }
}

/// A key and its value, broken between words and indented where it is long.
fn line(key: &str, value: &str) {
    let broken = note(&format!("{key:<10} {value}"));
    // `note` squeezes blanks; the key's are put back.
    let rest = broken.trim_start().strip_prefix(key).unwrap_or(broken.trim_start()).trim_start();
    let pad = 10usize.saturating_sub(key.chars().filter(|c| *c != '\u{302}').count());
    say!("{key}{} {rest}", " ".repeat(pad));
}

/// The leaves of a JSON value by dotted keys, one a line.
fn settings(value: &Value) {
    let mut leaves = Vec::new();
    collect("", value, &mut leaves);
    for (key, value) in leaves {
        say!("{}", note(&format!("{}: {}", printable(&key), text(value))));
    }
}

fn collect<'a>(prefix: &str, value: &'a Value, leaves: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                collect(&key, value, leaves);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            for (i, value) in list.iter().enumerate() {
                collect(&format!("{prefix}[{i}]"), value, leaves);
            }
        }
        leaf => leaves.push((prefix.to_owned(), leaf)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_said_in_their_largest_unit() {
        let said = [0, 59, 60, 3599, 3600, 86_399, 86_400, 4_000_000].map(in_words);
        assert_eq!(said, ["0 s", "59 s", "1 min", "59 min", "1 h", "23 h", "1 d", "46 d"]);
    }
}
