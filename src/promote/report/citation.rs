//! How the runs of an experiment are cited.

use super::rows::Subject;
use super::words::count;

/// More URNs than these are left to the list below the entry.
const MOST_IN_NOTE: usize = 16;

/// A BibTeX entry of the program, its versions and the experiment's runs.
pub(super) fn bibtex(experiment: &str, day: &str, versions: &[String], runs: &[Subject]) -> String {
    let key: String = experiment.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let urns: Vec<String> = urns(runs);
    let note = if urns.is_empty() || urns.len() > MOST_IN_NOTE {
        format!("{}, listed in the report of the experiment", count(runs.len(), "run"))
    } else {
        format!("{}: {}", count(urns.len(), "run"), urns.join(", "))
    };
    let mut fields = vec![
        ("author", "{The lambda-hat-mpi developers}".to_owned()),
        ("title", format!("{{lambda-hat-mpi}}: experiment {}", escaped(experiment))),
        ("version", escaped(&versions.join("; "))),
    ];
    if !day.is_empty() {
        fields.push(("date", escaped(day)));
        fields.push(("year", escaped(day.get(..4).unwrap_or(day))));
    }
    fields.push(("note", escaped(&note)));
    let lines: Vec<String> =
        fields.iter().map(|(name, value)| format!("  {name:<7} = {{{value}}}")).collect();
    format!("@software{{lambda-hat-mpi-{key},\n{}\n}}\n", lines.join(",\n"))
}

/// URNs of the runs that are there.
pub(super) fn urns(runs: &[Subject]) -> Vec<String> {
    runs.iter().filter_map(|s| Some(s.found?.manifest.urn.clone())).collect()
}

/// With the letters that TeX reads as commands taken literally.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' => out.extend(['\\', c]),
            '{' | '}' | '\\' | '~' | '^' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
