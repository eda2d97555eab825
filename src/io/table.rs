//! Flat tables as Parquet files, for pandas, polars and DuckDB.

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::Type;

use super::IoError;

/// A column's rows; `None` is a null.
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnData {
    /// UTF-8 texts.
    Str(Vec<Option<String>>),
    /// Numbers; NaN is a value, not a null.
    F64(Vec<Option<f64>>),
    /// Whole numbers.
    I64(Vec<Option<i64>>),
    /// Truth values.
    Bool(Vec<Option<bool>>),
}

impl ColumnData {
    /// The cells of these rows.
    pub fn rows(&self, rows: &[usize]) -> Self {
        fn of<T: Clone>(cells: &[Option<T>], rows: &[usize]) -> Vec<Option<T>> {
            rows.iter().map(|&row| cells.get(row).cloned().flatten()).collect()
        }
        match self {
            Self::Str(cells) => Self::Str(of(cells, rows)),
            Self::F64(cells) => Self::F64(of(cells, rows)),
            Self::I64(cells) => Self::I64(of(cells, rows)),
            Self::Bool(cells) => Self::Bool(of(cells, rows)),
        }
    }

    /// Two columns one below the other, each with its length; one that is not there has no values. Whole numbers and
    /// numbers make numbers, other types texts.
    pub fn join((upper, above): (Option<Self>, usize), (lower, below): (Option<Self>, usize)) -> Self {
        let nothing = |like: &Self, rows: usize| like.rows(&vec![usize::MAX; rows]);
        let (upper, lower) = match (upper, lower) {
            (Some(upper), Some(lower)) => (upper, lower),
            (Some(upper), None) => (upper.clone(), nothing(&upper, below)),
            (None, Some(lower)) => (nothing(&lower, above), lower),
            (None, None) => return Self::Str(vec![None; above + below]),
        };
        fn chain<T: Clone>(a: &[Option<T>], b: &[Option<T>]) -> Vec<Option<T>> {
            a.iter().chain(b).cloned().collect()
        }
        let wide = |cells: &[Option<i64>]| cells.iter().map(|v| v.map(|v| v as f64)).collect::<Vec<_>>();
        match (&upper, &lower) {
            (Self::Str(a), Self::Str(b)) => Self::Str(chain(a, b)),
            (Self::F64(a), Self::F64(b)) => Self::F64(chain(a, b)),
            (Self::I64(a), Self::I64(b)) => Self::I64(chain(a, b)),
            (Self::Bool(a), Self::Bool(b)) => Self::Bool(chain(a, b)),
            (Self::I64(a), Self::F64(b)) => Self::F64(chain(&wide(a), b)),
            (Self::F64(a), Self::I64(b)) => Self::F64(chain(a, &wide(b))),
            (a, b) => Self::Str(chain(&a.texts(), &b.texts())),
        }
    }

    fn texts(&self) -> Vec<Option<String>> {
        fn of<T: ToString>(cells: &[Option<T>]) -> Vec<Option<String>> {
            cells.iter().map(|cell| cell.as_ref().map(T::to_string)).collect()
        }
        match self {
            Self::Str(cells) => of(cells),
            Self::F64(cells) => of(cells),
            Self::I64(cells) => of(cells),
            Self::Bool(cells) => of(cells),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            ColumnData::Str(v) => v.len(),
            ColumnData::F64(v) => v.len(),
            ColumnData::I64(v) => v.len(),
            ColumnData::Bool(v) => v.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn fault(column: &str, fault: impl Into<String>) -> IoError {
    IoError::Table { column: column.into(), fault: fault.into() }
}

/// Key of the file metadata under which a table carries its own checksum.
const SEAL_KEY: &str = "lambda_hat";
/// What the checksum follows; 64 hexadecimal digits of BLAKE3 over the file with zeros in their
/// place.
const SEAL: &str = "table:blake3:";
const DIGITS: usize = 64;

/// Where the digits of the last seal lie.
fn find_seal(bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let start = bytes.windows(SEAL.len()).rposition(|w| w == SEAL.as_bytes())? + SEAL.len();
    let digits = start..start.checked_add(DIGITS)?;
    bytes.get(digits.clone()).map(|_| digits)
}

/// Writes the checksum of `bytes`, whose digits are zeros, into them.
fn seal(bytes: &mut [u8]) -> Result<(), IoError> {
    let digits = find_seal(bytes).ok_or(IoError::Unsealed)?;
    let hash = blake3::hash(bytes).to_hex();
    bytes[digits].copy_from_slice(hash.as_bytes());
    Ok(())
}

/// Checks the seal. The Parquet library trusts lengths inside pages, so nothing unchecked may
/// reach it.
fn check_seal(bytes: &[u8]) -> Result<(), IoError> {
    let digits = find_seal(bytes).ok_or(IoError::Unsealed)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..digits.start]).update(&[b'0'; DIGITS]).update(&bytes[digits.end..]);
    let intact = bytes[digits] == *hasher.finalize().to_hex().as_bytes();
    if intact { Ok(()) } else { Err(IoError::Unsealed) }
}

/// The bytes of a Parquet file: every column optional, one row group, not compressed (a row a run
/// is small), the same bytes for the same table. It carries a checksum of itself among its
/// metadata, which other readers pass over.
///
/// # Errors
/// [`IoError::Table`] for columns of unequal length, a column given twice or without a name.
pub fn write_parquet(columns: &[(&str, ColumnData)]) -> Result<Vec<u8>, IoError> {
    let rows = columns.first().map_or(0, |(_, data)| data.len());
    let mut fields = Vec::with_capacity(columns.len());
    for (i, (name, data)) in columns.iter().enumerate() {
        if name.is_empty() || columns[..i].iter().any(|(other, _)| other == name) {
            return Err(fault(name, "has no name of its own; give every column another name"));
        }
        if data.len() != rows {
            let text = format!("has {} rows, the first column {rows}; give both the same", data.len());
            return Err(fault(name, text));
        }
        let (physical, logical) = match data {
            ColumnData::Str(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            ColumnData::F64(_) => (Physical::DOUBLE, None),
            ColumnData::I64(_) => (Physical::INT64, None),
            ColumnData::Bool(_) => (Physical::BOOLEAN, None),
        };
        let field = Type::primitive_type_builder(name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical)
            .build()?;
        fields.push(Arc::new(field));
    }
    let schema = Arc::new(Type::group_type_builder("schema").with_fields(fields).build()?);
    // The library's own name holds its version, which would change the bytes.
    let blank = KeyValue::new(SEAL_KEY.into(), format!("{SEAL}{:0DIGITS$}", 0));
    let properties = WriterProperties::builder()
        .set_created_by("lambda-hat-mpi".into())
        .set_key_value_metadata(Some(vec![blank]))
        .build();
    let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    let mut group = file.next_row_group()?;
    for (_, data) in columns {
        let Some(mut column) = group.next_column()? else { break };
        match data {
            ColumnData::Str(v) => {
                write_column::<ByteArrayType, _>(&mut column, v, |s| ByteArray::from(s.as_str()))
            }
            ColumnData::F64(v) => write_column::<DoubleType, _>(&mut column, v, |&x| x),
            ColumnData::I64(v) => write_column::<Int64Type, _>(&mut column, v, |&i| i),
            ColumnData::Bool(v) => write_column::<BoolType, _>(&mut column, v, |&b| b),
        }?;
        column.close()?;
    }
    group.close()?;
    let mut bytes = file.into_inner()?;
    seal(&mut bytes)?;
    Ok(bytes)
}

/// Values that are there, and a definition level (1 there, 0 null) a row.
fn write_column<D: DataType, T>(
    column: &mut SerializedColumnWriter,
    rows: &[Option<T>],
    convert: impl Fn(&T) -> D::T,
) -> Result<(), IoError> {
    let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
    let values: Vec<D::T> = rows.iter().flatten().map(convert).collect();
    column.typed::<D>().write_batch(&values, Some(&levels), None)?;
    Ok(())
}

/// The columns of a file that [`write_parquet`] made, in order.
///
/// # Errors
/// [`IoError::Unsealed`] for any other file, or one that was changed since; [`IoError::Parquet`]
/// and [`IoError::Table`] for one of a later version of this program that is not understood.
pub fn read_parquet(bytes: &[u8]) -> Result<Vec<(String, ColumnData)>, IoError> {
    check_seal(bytes)?;
    let file = SerializedFileReader::new(Bytes::copy_from_slice(bytes))?;
    let schema = file.metadata().file_metadata().schema_descr_ptr();
    let mut columns = Vec::with_capacity(schema.num_columns());
    for i in 0..schema.num_columns() {
        let column = schema.column(i);
        if column.max_rep_level() > 0 || column.max_def_level() > 1 || column.path().parts().len() != 1 {
            return Err(fault(column.name(), "is nested; only flat tables are read"));
        }
        let data = match column.physical_type() {
            Physical::BYTE_ARRAY => ColumnData::Str(Vec::new()),
            Physical::DOUBLE => ColumnData::F64(Vec::new()),
            Physical::INT64 => ColumnData::I64(Vec::new()),
            Physical::BOOLEAN => ColumnData::Bool(Vec::new()),
            other => {
                return Err(fault(
                    column.name(),
                    format!("has the type {other}; use text, f64, i64 or bool"),
                ));
            }
        };
        columns.push((column.name().to_owned(), data));
    }
    for g in 0..file.num_row_groups() {
        let group = file.get_row_group(g)?;
        for (i, (name, data)) in columns.iter_mut().enumerate() {
            let nullable = schema.column(i).max_def_level() == 1;
            match (data, group.get_column_reader(i)?) {
                (ColumnData::Str(rows), ColumnReader::ByteArrayColumnReader(reader)) => {
                    let mut texts = Vec::new();
                    read_column(reader, nullable, &mut texts)?;
                    for text in texts {
                        let text =
                            text.map(|bytes: ByteArray| bytes.as_utf8().map(str::to_owned)).transpose()?;
                        rows.push(text);
                    }
                }
                (ColumnData::F64(rows), ColumnReader::DoubleColumnReader(reader)) => {
                    read_column(reader, nullable, rows)?;
                }
                (ColumnData::I64(rows), ColumnReader::Int64ColumnReader(reader)) => {
                    read_column(reader, nullable, rows)?;
                }
                (ColumnData::Bool(rows), ColumnReader::BoolColumnReader(reader)) => {
                    read_column(reader, nullable, rows)?;
                }
                _ => return Err(fault(name, "changes its type between row groups; write the table again")),
            }
        }
    }
    let rows = columns.first().map_or(0, |(_, data)| data.len());
    match columns.iter().find(|(_, data)| data.len() != rows) {
        Some((name, _)) => Err(fault(name, "has another length than the first; write the table again")),
        None => Ok(columns),
    }
}

/// Rows decoded at a time.
const BATCH: usize = 4096;

/// Appends all rows of one column chunk.
fn read_column<D: DataType>(
    mut reader: ColumnReaderImpl<D>,
    nullable: bool,
    rows: &mut Vec<Option<D::T>>,
) -> Result<(), IoError> {
    loop {
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        let (records, _, _) = reader.read_records(BATCH, Some(&mut levels), None, &mut values)?;
        if records == 0 {
            return Ok(());
        }
        let mut values = values.into_iter();
        if nullable {
            rows.extend(levels.iter().map(|&level| if level == 1 { values.next() } else { None }));
        } else {
            rows.extend(values.map(Some));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<(&'static str, ColumnData)> {
        vec![
            ("run_id", ColumnData::Str(vec![Some("a".into()), Some(String::new()), None])),
            ("llc_mean", ColumnData::F64(vec![Some(1.5), None, Some(f64::INFINITY)])),
            ("n_draws", ColumnData::I64(vec![None, Some(i64::MIN), Some(7)])),
            ("ok", ColumnData::Bool(vec![Some(true), Some(false), None])),
            ("exact", ColumnData::F64(vec![None; 3])),
        ]
    }

    fn owned(columns: Vec<(&str, ColumnData)>) -> Vec<(String, ColumnData)> {
        columns.into_iter().map(|(name, data)| (name.to_owned(), data)).collect()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let many = vec![("x", ColumnData::I64((0..10_000).map(|i| (i % 7 != 0).then_some(i)).collect()))];
        let none = vec![("x", ColumnData::F64(vec![])), ("y", ColumnData::Str(vec![]))];
        for columns in [sample(), many, none] {
            assert_eq!(read_parquet(&write_parquet(&columns).unwrap()).unwrap(), owned(columns));
        }
    }

    #[test]
    fn nan_is_not_null() {
        let bytes = write_parquet(&[("x", ColumnData::F64(vec![Some(f64::NAN), None]))]).unwrap();
        match &read_parquet(&bytes).unwrap()[0].1 {
            ColumnData::F64(rows) => assert!(rows[0].is_some_and(f64::is_nan) && rows[1].is_none()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn uneven_tables_are_refused() {
        let row = || ColumnData::I64(vec![Some(1)]);
        let cases = [
            (vec![("a", row()), ("b", ColumnData::Bool(vec![]))], "'b': has 0 rows"),
            (vec![("a", row()), ("a", row())], "'a': has no name of its own"),
            (vec![("", row())], "no name"),
        ];
        for (columns, expected) in cases {
            let text = write_parquet(&columns).expect_err(expected).to_string();
            assert!(text.contains(expected), "'{text}' lacks '{expected}'");
        }
    }

    #[test]
    fn truncations_are_errors() {
        let bytes = write_parquet(&sample()).unwrap();
        for length in 0..bytes.len() {
            assert!(read_parquet(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let mut bytes = write_parquet(&sample()).unwrap();
        for i in 0..bytes.len() {
            for bit in 0..8 {
                bytes[i] ^= 1 << bit;
                assert!(matches!(read_parquet(&bytes), Err(IoError::Unsealed)), "byte {i}, bit {bit}");
                bytes[i] ^= 1 << bit;
            }
        }
        assert!(read_parquet(&bytes).is_ok());
    }

    #[test]
    fn columns_stand_one_below_the_other_whatever_their_types() {
        use ColumnData::{Bool, F64, I64, Str};
        let join = |a: Option<ColumnData>, b: Option<ColumnData>| ColumnData::join((a, 1), (b, 2));
        let two = || Some(I64(vec![Some(2), None]));
        assert_eq!(join(Some(I64(vec![Some(1)])), two()), I64(vec![Some(1), Some(2), None]));
        assert_eq!(join(Some(F64(vec![Some(0.5)])), two()), F64(vec![Some(0.5), Some(2.0), None]));
        assert_eq!(join(None, two()), I64(vec![None, Some(2), None]));
        assert_eq!(join(Some(Bool(vec![Some(true)])), None), Bool(vec![Some(true), None, None]));
        let texts = ["true", "2"].map(|t| Some(t.to_owned()));
        assert_eq!(join(Some(Bool(vec![Some(true)])), two()), Str([&texts[..], &[None]].concat()));
        assert_eq!(I64(vec![Some(1), Some(2), None]).rows(&[2, 0]), I64(vec![None, Some(1)]));
    }
}
