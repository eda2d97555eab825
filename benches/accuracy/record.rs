//! The cells that were run: a line of JSON each.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use lambda_hat::config::SamplerSpec;

use crate::cell::Cell;

pub struct Record {
    cells: HashMap<String, Cell>,
    file: File,
}

impl Record {
    /// Reads what is there; a torn last line is as if it were not.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let cells = text.lines().filter_map(|line| serde_json::from_str::<Cell>(line).ok());
        let cells = cells.map(|cell| (cell.key.clone(), cell)).collect();
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        Ok(Self { cells, file })
    }

    /// Names a cell: other settings or another revision of a sampler are another cell.
    pub fn key(part: &str, row: &str, spec: &SamplerSpec, repetition: u64) -> String {
        let settings = format!("{spec:?} revision {}", spec.algo.revision());
        let hash = blake3::hash(settings.as_bytes()).to_hex();
        format!("{part}/{row}/{}/{}/{repetition}", spec.algo.name(), &hash[..8])
    }

    pub fn find(&self, key: &str) -> Option<Cell> {
        self.cells.get(key).cloned()
    }

    pub fn add(&mut self, cell: &Cell) {
        if let Ok(line) = serde_json::to_string(cell)
            && let Err(e) = writeln!(self.file, "{line}")
        {
            eprintln!("warning: a cell is not on record: {e}");
        }
    }
}
