//! What holds for all formats: the same bytes every time, and Python reads them.

use std::path::Path;
use std::process::Command;

use super::gathered::{GatheredRun, write_gathered};
use super::netcdf::write_trace;
use super::npz::{self, Array, Values};
use super::table::{ColumnData, write_parquet};
use super::*;
use crate::trace::{ChainTrace, Column, Kind, Trace};

/// A trace of simple numbers that Python can compute again.
fn trace(chains: usize, draws: usize) -> Trace {
    let layout = vec![
        Column::posterior("llc"),
        Column::posterior("L"),
        Column::stat("energy", Kind::Float),
        Column::stat("n_steps", Kind::Int),
        Column::stat("diverging", Kind::Bool),
    ];
    let chain = |c: usize| {
        let mut chain = ChainTrace::with_capacity(layout.len(), draws);
        for d in 0..draws {
            let x = (c * 37 + d * 11) % 101;
            chain.push(&[x as f64 / 8.0, -(x as f64), f64::NAN, x as f64, f64::from(d % 5 == 0)]);
        }
        chain
    };
    Trace { chains: (0..chains).map(chain).collect(), layout }
}

/// One file of every format.
fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let (main, control) = (trace(4, 200), trace(1, 50));
    // More than eight attributes or groups are stored another way than few.
    let names: Vec<String> = (0..20).map(|i| format!("a{i}")).collect();
    let mut attrs = vec![
        ("run_id", Attr::Str("0123".into())),
        ("config", Attr::Str("{\"λ\": 1}".into())),
        ("empty", Attr::Str(String::new())),
        ("beta", Attr::F64(0.25)),
        ("seed", Attr::I64(12_345)),
    ];
    attrs.extend(names.iter().map(|name| (name.as_str(), Attr::I64(1))));
    let ids: Vec<String> = (0..20).map(|i| format!("hmc_{i}")).collect();
    let run = |(i, run_id)| GatheredRun {
        run_id,
        target_id: "tgt_1",
        sampler: "hmc",
        trace: &main,
        attrs: vec![("llc_mean".into(), Attr::F64(f64::from(i)))],
    };
    let runs: Vec<_> = (0..).zip(ids.iter().map(String::as_str)).map(run).collect();
    let arrays = [
        ("X", Array { shape: vec![2, 3], values: Values::F64(vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]) }),
        ("Y", Array { shape: vec![2], values: Values::F32(vec![0.5, -0.5]) }),
        ("widths", Array { shape: vec![3], values: Values::I64(vec![4, -2, 1]) }),
        ("mask", Array { shape: vec![1, 2], values: Values::U8(vec![0, 255]) }),
        ("spec", Array::text("{\"λ\": [1, 2.5]}")),
        ("empty", Array::text("")),
    ];
    let columns = [
        ("run_id", ColumnData::Str(vec![Some("hmc_1".into()), None])),
        ("llc_mean", ColumnData::F64(vec![Some(1.5), None])),
        ("n_draws", ColumnData::I64(vec![None, Some(200)])),
        ("ok", ColumnData::Bool(vec![Some(true), None])),
    ];
    vec![
        ("trace.nc", write_trace(&main, Some(&control), &attrs).unwrap()),
        ("gathered.h5", write_gathered(&runs).unwrap()),
        ("data.npz", npz::write(&arrays).unwrap()),
        ("llc_runs.parquet", write_parquet(&columns).unwrap()),
    ]
}

#[test]
fn bytes_depend_on_nothing_but_the_values() {
    let first = samples();
    // Other files in between, so that addresses and free lists inside the libraries differ.
    write_trace(&trace(3, 1000), None, &[("other", Attr::Str("text".repeat(1000)))]).unwrap();
    // More than a second later is another time to HDF5, zip and Parquet.
    let later = std::time::Instant::now() + std::time::Duration::from_millis(1100);
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(samples)).collect();
    for thread in threads {
        assert!(thread.join().unwrap() == first);
    }
    while std::time::Instant::now() < later {
        std::thread::yield_now();
    }
    for ((name, bytes), (_, again)) in first.iter().zip(samples()) {
        assert!(*bytes == again, "{name} changed with time");
    }
}

#[test]
fn no_file_appears_and_no_name_is_needed() {
    samples();
    assert!(!Path::new("<memory>").exists());
}

#[test]
fn another_process_writes_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "io::tests::python_reads_every_format"])
        .env("LAMBDA_HAT_SAMPLES", folder.path())
        .env_remove("LAMBDA_HAT_PYTHON")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    for (name, bytes) in samples() {
        assert!(std::fs::read(folder.path().join(name)).unwrap() == bytes, "{name}");
    }
}

/// Set `LAMBDA_HAT_PYTHON` to a Python with the packages of `tests/python/requirements.txt`.
#[test]
fn python_reads_every_format() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = std::env::var_os("LAMBDA_HAT_SAMPLES")
        .map_or_else(|| root.join("target/format-samples"), std::path::PathBuf::from);
    std::fs::create_dir_all(&folder).unwrap();
    for (name, bytes) in samples() {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    let Some(python) = std::env::var_os("LAMBDA_HAT_PYTHON") else {
        eprintln!("skipped: LAMBDA_HAT_PYTHON names no Python; samples lie in {}", folder.display());
        return;
    };
    let output = Command::new(python)
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/python/test_samples.py"])
        .env("LAMBDA_HAT_SAMPLES", &folder)
        .current_dir(root)
        .output()
        .expect("LAMBDA_HAT_PYTHON can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
}
