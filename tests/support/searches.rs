//! Searches of small files, and the tables that they leave.

use std::path::Path;

use lambda_hat::io::table::ColumnData;

use crate::support::{Ran, lambda_hat, repository};

#[allow(dead_code)]
pub fn config() -> String {
    file("tiny")
}

#[allow(dead_code)]
pub fn file(name: &str) -> String {
    repository(&format!("tests/data/tune/{name}.yaml")).to_string_lossy().into_owned()
}

#[allow(dead_code)]
pub fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// The table of trials.
#[allow(dead_code)]
pub fn table(root: &Path) -> Vec<(String, ColumnData)> {
    let path = root.join("results/optuna_trials.parquet");
    lambda_hat::io::table::read_parquet(&std::fs::read(path).expect("a table")).expect("is one")
}

/// A column of it.
#[allow(dead_code)]
pub fn column(root: &Path, wanted: &str) -> ColumnData {
    table(root).into_iter().find(|(name, _)| name == wanted).expect("a column").1
}

/// The table of trials without its clocks, a line a row.
#[allow(dead_code)]
pub fn trials(root: &Path) -> Vec<String> {
    let columns = table(root);
    let columns: Vec<_> = columns.into_iter().filter(|(name, _)| name != "seconds").collect();
    let cell = |data: &ColumnData, row: usize| {
        use ColumnData::{Bool, F64, I64, Str};
        match data {
            Str(v) => format!("{:?}", v[row]),
            F64(v) => format!("{:?}", v[row].map(f64::to_bits)),
            I64(v) => format!("{:?}", v[row]),
            Bool(v) => format!("{:?}", v[row]),
        }
    };
    let rows = columns.first().map_or(0, |(_, data)| data.len());
    (0..rows)
        .map(|row| columns.iter().map(|(n, d)| format!("{n}={}", cell(d, row))).collect::<Vec<_>>().join(" "))
        .collect()
}

#[allow(dead_code)]
pub fn searched(root: &Path, workers: &str) -> Ran {
    searched_by(root, &[&config(), "--workers", workers])
}

#[allow(dead_code)]
pub fn searched_by(root: &Path, arguments: &[&str]) -> Ran {
    let ran = lambda_hat(root, &[&["tune"], arguments, &["--local", "--json", "-q"]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    ran
}

#[allow(dead_code)]
pub fn texts(data: ColumnData) -> Vec<String> {
    let ColumnData::Str(cells) = data else { panic!("{data:?}") };
    cells.into_iter().map(Option::unwrap_or_default).collect()
}

#[allow(dead_code)]
pub fn numbers(data: ColumnData) -> Vec<f64> {
    let ColumnData::F64(cells) = data else { panic!("{data:?}") };
    cells.into_iter().map(|cell| cell.unwrap_or(f64::NAN)).collect()
}
