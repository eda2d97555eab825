//! File formats: npz, NetCDF-4 (InferenceData), plain HDF5, Parquet, CSV and TensorBoard events. Bytes
//! in, bytes out.
//!
//! Nothing here knows a path or a clock: the same values give the same bytes in every process, so
//! that files can be named by their hash.

pub mod csv;
mod ffi;
pub mod gathered;
mod hdf;
pub mod netcdf;
mod npy;
pub mod npz;
pub mod table;
pub mod tensorboard;

pub use hdf::Attr;
pub use npy::NpyFault;

/// Why bytes could not be written or understood.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// The zip container of an npz.
    #[error("not a readable npz file: {0}; write it with numpy.savez or numpy.savez_compressed")]
    Zip(#[from] zip::result::ZipError),
    /// One entry of an npz.
    #[error("npz entry '{entry}': {fault}")]
    Npy {
        /// The entry's name in the archive.
        entry: String,
        /// What is wrong with it.
        fault: NpyFault,
    },
    /// Number of values and shape of an array to be written disagree.
    #[error("array '{name}': shape {shape:?} does not hold {found} values; give one value an element")]
    Shape {
        /// The array's name.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Number of values it carries.
        found: usize,
    },
    /// A name that the format cannot carry.
    #[error("{what} name '{name}' {fault}; use other letters, digits, '_', '.' or '-'")]
    Name {
        /// What is named: array, column, attribute, run.
        what: &'static str,
        /// The name.
        name: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A text with a NUL character, which ends strings in npy and HDF5 files.
    #[error("the text of '{name}' holds a NUL character; remove it")]
    Nul {
        /// Array or attribute.
        name: String,
    },
    /// A trace without draws or with unequal chains or columns.
    #[error("trace: {0}; every chain needs the same number (at least one) of draws in every column")]
    Ragged(String),
    /// A value that its column's kind cannot hold.
    #[error("column '{column}', chain {chain}, draw {draw}: {value} is not {expected}; store it as Float")]
    Kind {
        /// The column.
        column: String,
        /// Index of the chain.
        chain: usize,
        /// Index of the draw.
        draw: usize,
        /// The offending value.
        value: f64,
        /// What the kind allows.
        expected: &'static str,
    },
    /// The HDF5 library's own complaint.
    #[error("HDF5: {0}; if the file was changed or cut short, delete it and run again")]
    Hdf5(#[from] hdf5::Error),
    /// An HDF5 file that is not a trace as written here.
    #[error("not a trace file: {0}; delete it and run again")]
    NotATrace(String),
    /// Parquet's own complaint.
    #[error("Parquet: {0}; if the file was changed or cut short, delete it and run again")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// A table that is not as this program wrote it.
    #[error("the table was changed or cut short, or written by another program; delete it and run again")]
    Unsealed,
    /// A table whose columns disagree, or with columns of a type not written here.
    #[error("table column '{column}': {fault}")]
    Table {
        /// The column.
        column: String,
        /// What is wrong with it, and the remedy.
        fault: String,
    },
}

/// Longest name of an array, column, attribute or run.
const MAX_NAME: usize = 64;

/// Checks that `name` matches `[A-Za-z0-9._-]{1,64}` and is not `.` or `..`, which are places
/// rather than names to HDF5 and to file systems.
fn check_name(what: &'static str, name: &str) -> Result<(), IoError> {
    let fault = if name.is_empty() {
        "is empty"
    } else if name.len() > MAX_NAME {
        "is longer than 64 characters"
    } else if name == "." || name == ".." {
        "is a place, not a name"
    } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        "holds a character that is not allowed"
    } else {
        return Ok(());
    };
    Err(IoError::Name { what, name: name.into(), fault })
}

/// Checks every name, and that none comes twice.
fn check_names<'a>(what: &'static str, names: impl IntoIterator<Item = &'a str>) -> Result<(), IoError> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        check_name(what, name)?;
        if !seen.insert(name) {
            return Err(IoError::Name { what, name: name.into(), fault: "comes twice" });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
