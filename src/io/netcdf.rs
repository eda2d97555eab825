//! Traces as NetCDF-4 files in ArviZ's InferenceData schema: groups `posterior` and
//! `sample_stats`, every variable of dimensions (chain, draw).
//!
//! NetCDF-4 is HDF5 with conventions ("NetCDF-4 File Format" in the NetCDF User's Guide;
//! "HDF5 Dimension Scale Specification"): a dimension is a one-dimensional dataset with the
//! attributes `CLASS = "DIMENSION_SCALE"`, `NAME` and `_Netcdf4Dimid`; a variable points to its
//! dimensions by `DIMENSION_LIST`, and they back to it by `REFERENCE_LIST`.

use std::collections::BTreeMap;
use std::ffi::CStr;

use hdf5::types::{FloatSize, IntSize, TypeDescriptor, VarLenArray, VarLenUnicode};
use hdf5::{Dataset, File, H5Type, IndexType, IterationOrder, Location, ObjectReference1};
use ndarray::{Array2, s};

use super::hdf::{self, Attr};
use super::{IoError, ffi};
use crate::trace::{ChainTrace, Column, Group, Kind, Trace};

/// The dimensions of every variable, in order.
const DIMENSIONS: [&str; 2] = ["chain", "draw"];
/// The same, as the labels that the C library wants.
const LABELS: [&CStr; 2] = [c"chain", c"draw"];
/// Group that holds the control chain as an InferenceData of its own.
const CONTROL: &str = "control";
/// Deflate's largest ratio of unpacked to packed bytes.
const MAX_RATIO: usize = 1032;

/// One entry of a dimension's `REFERENCE_LIST`.
#[derive(H5Type, Clone, Copy)]
#[repr(C)]
struct BackReference {
    dataset: ObjectReference1,
    dimension: i32,
}

/// Name of the InferenceData group.
fn group_name(group: Group) -> &'static str {
    match group {
        Group::Posterior => "posterior",
        Group::SampleStats => "sample_stats",
    }
}

/// The bytes of a NetCDF-4 file that ArviZ and xarray open.
///
/// Columns keep their order within each group; `chain` and `draw` are `int64` coordinates counted
/// from 0; `attrs` become attributes of the file. A `control` trace (a short chain at half the
/// step, to check an estimate) lies in the group `control`, itself an InferenceData
/// (`arviz.InferenceData.from_netcdf(file, base_group="control")`), where no summary of the posterior meets it.
/// The file holds no time and no version: equal input gives equal bytes.
///
/// # Errors
/// [`IoError::Ragged`] for a trace without draws or with unequal chains, [`IoError::Kind`] for a
/// value that its column's kind cannot hold, [`IoError::Name`] and [`IoError::Nul`] for names and
/// texts that the format cannot carry.
pub fn write_trace(
    trace: &Trace,
    control: Option<&Trace>,
    attrs: &[(&str, Attr)],
) -> Result<Vec<u8>, IoError> {
    hdf::check(trace)?;
    control.map_or(Ok(()), hdf::check)?;
    hdf::build(|file| {
        // Names the writer, as the NetCDF-4 format asks; a constant, so that it dates nothing.
        ffi::write_terminated(file, c"_NCProperties", c"version=2,lambda_hat=1")?;
        hdf::write_attrs(file, attrs.iter().map(|(name, attr)| (*name, attr)))?;
        let mut next_id = 0;
        write_groups(file, trace, &mut next_id)?;
        if let Some(control) = control {
            write_groups(&hdf::new_group(file, CONTROL)?, control, &mut next_id)?;
        }
        Ok(())
    })
}

/// Both groups of a trace, each with its own dimensions; `next_id` numbers dimensions file-wide.
fn write_groups(parent: &hdf5::Group, trace: &Trace, next_id: &mut i32) -> Result<(), IoError> {
    for which in [Group::Posterior, Group::SampleStats] {
        let group = hdf::new_group(parent, group_name(which))?;
        let mut scales = Vec::new();
        let lengths = [trace.chains.len(), trace.draws()];
        for ((name, label), length) in DIMENSIONS.into_iter().zip(LABELS).zip(lengths) {
            let indices: Vec<i64> = (0..).take(length).collect();
            let scale = hdf::new_scale(&group, name, &indices)?;
            ffi::write_terminated(&scale, c"CLASS", c"DIMENSION_SCALE")?;
            ffi::write_terminated(&scale, c"NAME", label)?;
            scale.new_attr::<i32>().create("_Netcdf4Dimid")?.write_scalar(next_id)?;
            *next_id += 1;
            scales.push((scale, Vec::new()));
        }
        for (index, column) in trace.layout.iter().enumerate().filter(|(_, c)| c.group == which) {
            let data = hdf::new_column(&group, trace, index)?;
            let own: ObjectReference1 = group.reference(&column.name)?;
            let mut list = Vec::new();
            for (dimension, (name, (_, users))) in (0..).zip(DIMENSIONS.into_iter().zip(&mut scales)) {
                let scale: ObjectReference1 = group.reference(name)?;
                list.push(VarLenArray::from_slice(&[scale]));
                users.push(BackReference { dataset: own, dimension });
            }
            data.new_attr_builder().with_data(&list).create("DIMENSION_LIST")?;
        }
        for (scale, users) in scales.iter().filter(|(_, users)| !users.is_empty()) {
            // Packed: the four bytes of padding in memory have no defined content.
            scale.new_attr_builder().with_data(users).packed(true).create("REFERENCE_LIST")?;
        }
    }
    Ok(())
}

/// The trace and the attributes of a file that [`write_trace`] made; columns of `posterior` come
/// first. Meant for bytes whose hash has been checked: libhdf5 is not built for hostile files.
///
/// # Errors
/// [`IoError::Hdf5`] for bytes that are not an HDF5 file, [`IoError::NotATrace`] for one of
/// another shape.
pub fn read_trace(bytes: &[u8]) -> Result<(Trace, BTreeMap<String, Attr>), IoError> {
    ffi::with_image(bytes, |file| Ok((read_groups(file, bytes.len(), &|_| true)?, read_attrs(file)?)))
}

/// A trace whose columns are read some at a time, and only those that are wanted.
pub struct Columns<'a> {
    file: &'a File,
    size: usize,
}

/// What `f` makes of the columns of a trace.
///
/// # Errors
/// As [`read_trace`], and whatever `f` objects to.
pub fn with_columns<T>(
    bytes: &[u8],
    f: impl FnOnce(&Columns<'_>) -> Result<T, IoError>,
) -> Result<T, IoError> {
    ffi::with_image(bytes, |file| f(&Columns { file, size: bytes.len() }))
}

impl Columns<'_> {
    /// Those whose names are `wanted`: the others are not unpacked.
    ///
    /// # Errors
    /// As [`read_trace`].
    pub fn read(&self, wanted: &dyn Fn(&str) -> bool) -> Result<Trace, IoError> {
        read_groups(self.file, self.size, wanted)
    }
}

/// The control trace of a file that [`write_trace`] made, if it has one.
///
/// # Errors
/// As [`read_trace`].
pub fn read_control(bytes: &[u8]) -> Result<Option<Trace>, IoError> {
    ffi::with_image(bytes, |file| {
        if !file.link_exists(CONTROL) {
            return Ok(None);
        }
        read_groups(&file.group(CONTROL)?, bytes.len(), &|_| true).map(Some)
    })
}

fn read_groups(
    parent: &hdf5::Group,
    file_size: usize,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<Trace, IoError> {
    let mut shape = None;
    let mut layout = Vec::new();
    let mut chains: Vec<ChainTrace> = Vec::new();
    for which in [Group::Posterior, Group::SampleStats] {
        let group = parent.group(group_name(which))?;
        for name in group.member_names_by(IndexType::CreationOrder, IterationOrder::Increasing)? {
            if DIMENSIONS.contains(&name.as_str()) {
                continue;
            }
            let data = group.dataset(&name)?;
            let odd = |what: &str| IoError::NotATrace(format!("variable '{name}' {what}"));
            let [rows, draws] = data.shape()[..] else { return Err(odd("has not two dimensions")) };
            let possible = file_size.saturating_mul(MAX_RATIO);
            if rows == 0 || draws == 0 || rows.checked_mul(draws).is_none_or(|count| count > possible) {
                return Err(odd("has an impossible size"));
            }
            if *shape.get_or_insert([rows, draws]) != [rows, draws] {
                return Err(odd("has another shape than the others"));
            }
            if !wanted(&name) {
                continue;
            }
            chains.resize_with(rows, ChainTrace::default);
            let (kind, columns) = read_column(&data, [rows, draws], &odd)?;
            for (chain, values) in chains.iter_mut().zip(columns) {
                chain.values.push(values);
            }
            layout.push(Column { name, group: which, kind });
        }
    }
    if shape.is_none() {
        return Err(IoError::NotATrace("no variables".into()));
    }
    Ok(Trace { layout, chains })
}

/// A chunk's worth of chains at a time: a column at once would be in memory twice.
fn read_column(
    data: &Dataset,
    [rows, draws]: [usize; 2],
    odd: &impl Fn(&str) -> IoError,
) -> Result<(Kind, Vec<Vec<f64>>), IoError> {
    match data.dtype()?.to_descriptor()? {
        TypeDescriptor::Float(FloatSize::U8) => Ok((Kind::Float, read_chains(data, rows, draws, own_rows)?)),
        TypeDescriptor::Integer(IntSize::U8) => {
            Ok((Kind::Int, read_chains(data, rows, draws, |block| in_f64(&block, |i: i64| i as f64))?))
        }
        TypeDescriptor::Integer(IntSize::U1) => {
            Ok((Kind::Bool, read_chains(data, rows, draws, |block| in_f64(&block, |i: i8| f64::from(i)))?))
        }
        other => Err(odd(&format!("has the type {other}"))),
    }
}

fn read_chains<T: H5Type>(
    data: &Dataset,
    rows: usize,
    draws: usize,
    convert: impl Fn(Array2<T>) -> Vec<Vec<f64>>,
) -> hdf5::Result<Vec<Vec<f64>>> {
    let mut chains = Vec::with_capacity(rows);
    let some = (hdf::CHUNK / draws).max(1);
    for first in (0..rows).step_by(some) {
        chains.extend(convert(data.read_slice_2d(s![first..rows.min(first + some), ..])?));
    }
    Ok(chains)
}

/// A long chain comes alone, and is not copied.
fn own_rows(block: Array2<f64>) -> Vec<Vec<f64>> {
    if block.nrows() == 1 { vec![block.into_raw_vec_and_offset().0] } else { in_f64(&block, |x| x) }
}

fn in_f64<T: Copy>(block: &Array2<T>, convert: impl Fn(T) -> f64) -> Vec<Vec<f64>> {
    block.rows().into_iter().map(|row| row.iter().map(|&x| convert(x)).collect()).collect()
}

fn read_attrs(place: &Location) -> Result<BTreeMap<String, Attr>, IoError> {
    let mut attrs = BTreeMap::new();
    for name in place.attr_names()? {
        if name == "_NCProperties" {
            continue;
        }
        let attr = place.attr(&name)?;
        let value = match attr.dtype()?.to_descriptor()? {
            TypeDescriptor::VarLenUnicode => {
                Attr::Str(attr.read_scalar::<VarLenUnicode>()?.as_str().to_owned())
            }
            TypeDescriptor::Float(FloatSize::U8) => Attr::F64(attr.read_scalar()?),
            TypeDescriptor::Integer(IntSize::U8) => Attr::I64(attr.read_scalar()?),
            other => return Err(IoError::NotATrace(format!("attribute '{name}' has the type {other}"))),
        };
        attrs.insert(name, value);
    }
    Ok(attrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Vec<Column> {
        vec![
            Column::posterior("llc"),
            Column::posterior("L"),
            Column::stat("acceptance_rate", Kind::Float),
            Column::stat("n_steps", Kind::Int),
            Column::stat("diverging", Kind::Bool),
        ]
    }

    fn trace(chains: usize, draws: usize) -> Trace {
        let mut all = Vec::new();
        for c in 0..chains {
            let mut chain = ChainTrace::with_capacity(5, draws);
            for d in 0..draws {
                let x = (c * 7919 + d * 104_729) as f64 % 1009.0;
                chain.push(&[x / 7.0, -x, x / 1009.0, x, f64::from(d % 3 == 0)]);
            }
            all.push(chain);
        }
        Trace { layout: layout(), chains: all }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (chains, draws) in [(1, 1), (4, 250), (2, 40_000), (40_000, 1), (331, 200)] {
            let mut given = trace(chains, draws);
            given.chains[0].values[0][0] = f64::NAN;
            given.chains[0].values[1][0] = f64::NEG_INFINITY;
            let bytes = write_trace(&given, None, &[]).unwrap();
            let (back, _) = read_trace(&bytes).unwrap();
            assert_eq!(back.layout, given.layout);
            assert!(back.chains[0].values[0][0].is_nan());
            // NaN differs from itself: compare the rest.
            let mut back = back;
            back.chains[0].values[0][0] = 0.0;
            given.chains[0].values[0][0] = 0.0;
            assert!(back == given, "{chains} chains of {draws} draws");
            let some = with_columns(&bytes, |c| c.read(&|name| name == "diverging" || name == "L")).unwrap();
            assert_eq!(some.layout.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["L", "diverging"]);
            assert_eq!(some.column("diverging"), back.column("diverging"));
            assert_eq!(read_control(&bytes).unwrap(), None);
        }
    }

    #[test]
    fn control_and_attributes_come_back() {
        let long = "λ".repeat(40_000);
        let attrs = [
            ("run_id", Attr::Str("0a1b".into())),
            ("empty", Attr::Str(String::new())),
            ("config", Attr::Str(long)),
            ("beta", Attr::F64(f64::MIN_POSITIVE)),
            ("seed", Attr::I64(i64::MIN)),
        ];
        let (main, control) = (trace(2, 10), trace(1, 5));
        let bytes = write_trace(&main, Some(&control), &attrs).unwrap();
        let (back, found) = read_trace(&bytes).unwrap();
        assert_eq!(back, main);
        assert_eq!(read_control(&bytes).unwrap(), Some(control));
        assert_eq!(found.len(), attrs.len());
        for (name, attr) in &attrs {
            assert_eq!(&found[*name], attr);
        }
    }

    #[test]
    fn random_draws_are_compressed_and_counters_much_more() {
        let given = trace(4, 5000);
        let bytes = write_trace(&given, None, &[]).unwrap();
        assert!(bytes.len() < 4 * 5000 * 5 * 8 / 2, "{} bytes", bytes.len());
    }

    #[test]
    fn traces_that_cannot_be_stored_are_refused() {
        let with = |change: &dyn Fn(&mut Trace)| {
            let mut trace = trace(2, 4);
            change(&mut trace);
            trace
        };
        let cases: Vec<(Trace, &str)> = vec![
            (with(&|t| t.chains.clear()), "no draws"),
            (with(&|t| t.chains[0] = ChainTrace::with_capacity(5, 0)), "no draws"),
            (with(&|t| t.chains[1].values[2].truncate(3)), "3 draws of 'acceptance_rate'"),
            (with(&|t| t.chains[1].values.truncate(4)), "4 columns"),
            (with(&|t| t.layout.truncate(3)), "5 columns"),
            (with(&|t| t.layout[0].name = "L".into()), "'L' comes twice"),
            (with(&|t| t.layout[0].name = "a/b".into()), "'a/b' holds"),
            (with(&|t| t.layout[0].name = "draw".into()), "dimension"),
            (with(&|t| t.chains[1].values[3][2] = 0.5), "'n_steps', chain 1, draw 2: 0.5"),
            (with(&|t| t.chains[0].values[3][0] = f64::NAN), "NaN is not a whole number"),
            (with(&|t| t.chains[0].values[3][0] = 1e17), "not a whole number up to 2^53"),
            (with(&|t| t.chains[0].values[4][1] = 2.0), "2 is not 0 or 1"),
        ];
        for (trace, expected) in cases {
            let text = write_trace(&trace, None, &[]).expect_err(expected).to_string();
            assert!(text.contains(expected), "'{text}' lacks '{expected}'");
        }
        for (attrs, expected) in [
            ([("a", Attr::I64(1)), ("a", Attr::I64(2))], "comes twice"),
            ([("b", Attr::I64(1)), ("a", Attr::Str("x\0y".into()))], "NUL"),
            ([("b", Attr::I64(1)), ("", Attr::I64(2))], "empty"),
        ] {
            let text = write_trace(&trace(1, 1), None, &attrs).expect_err(expected).to_string();
            assert!(text.contains(expected), "'{text}' lacks '{expected}'");
        }
    }

    #[test]
    fn other_files_are_errors() {
        let bytes = write_trace(&trace(2, 100), None, &[]).unwrap();
        for length in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
            let text = read_trace(&bytes[..length]).unwrap_err().to_string();
            assert!(text.contains("HDF5"), "{length}: {text}");
        }
        let gathered = super::super::gathered::write_gathered(&[]).unwrap();
        assert!(matches!(read_trace(&gathered), Err(IoError::Hdf5(_))));
    }
}
