//! What NetCDF-4 traces and gathered results share: HDF5 files built in memory with the same
//! bytes every time, trace columns as (chain, draw) datasets, attributes.

use hdf5::file::LibraryVersion;
use hdf5::plist::file_create::{AttrCreationOrder, LinkCreationOrder};
use hdf5::types::VarLenUnicode;
use hdf5::{Dataset, File, Group, H5Type, Location};
use ndarray::Array2;

use super::{IoError, check_names, ffi};
use crate::trace::{Column, Kind, Trace};

/// An attribute of a file, group or run.
#[derive(Clone, Debug, PartialEq)]
pub enum Attr {
    /// A text, without NUL characters.
    Str(String),
    /// A number.
    F64(f64),
    /// A whole number.
    I64(i64),
}

/// Draws a chunk: whole chains, several where they are short, up to 256 KiB of 8-byte numbers: small enough
/// for readers' 1 MiB chunk caches, large enough to compress, and few even for thousands of chains.
pub(super) const CHUNK: usize = 32_768;
/// A common choice: higher levels cost much more time for 1–2 % on random draws.
const DEFLATE: u8 = 4;
/// By how much a file in memory grows at a time.
const GROWTH: usize = 1 << 20;

/// Builds a file in memory and returns its bytes.
///
/// Groups and datasets are in the format of HDF5 1.8, because they keep the order of their
/// attributes; the superblock is in the earliest one: it has no checksum, which
/// `H5Fget_file_image` leaves stale before HDF5 2.0 (HDFGroup/hdf5, pull request 5489).
///
/// The lock is held from the first call to the last, so that no other file's life is interleaved
/// with this one's.
pub(super) fn build(fill: impl FnOnce(&File) -> Result<(), IoError>) -> Result<Vec<u8>, IoError> {
    hdf5::sync::sync(|| {
        let file = File::with_options()
            .with_fapl(|p| {
                p.core_options(GROWTH, false)
                    .libver_bounds(LibraryVersion::Earliest, LibraryVersion::latest())
            })
            .with_fcpl(|p| {
                p.obj_track_times(false)
                    .attr_creation_order(AttrCreationOrder::Indexed)
                    .link_creation_order(LinkCreationOrder::Indexed)
            })
            .create(ffi::IN_MEMORY)?;
        fill(&file)?;
        Ok(ffi::file_image(&file)?)
    })
}

/// A new group without times that remembers the order of its members.
pub(super) fn new_group(parent: &Group, name: &str) -> Result<Group, IoError> {
    Ok(parent
        .create_group_builder()
        .with_gcpl(|p| {
            p.obj_track_times(false)
                .attr_creation_order(AttrCreationOrder::Indexed)
                .link_creation_order(LinkCreationOrder::Indexed)
        })
        .create(name)?)
}

/// A small one-dimensional dataset, stored as it is.
pub(super) fn new_scale(group: &Group, name: &str, values: &[i64]) -> Result<Dataset, IoError> {
    Ok(group
        .new_dataset_builder()
        .with_data(values)
        .obj_track_times(false)
        .attr_creation_order(AttrCreationOrder::Indexed)
        .create(name)?)
}

fn new_array<T: H5Type>(group: &Group, name: &str, values: &Array2<T>) -> Result<Dataset, IoError> {
    let draws = values.ncols().min(CHUNK);
    let chains = (CHUNK / draws).clamp(1, values.nrows());
    Ok(group
        .new_dataset_builder()
        .with_data(values)
        .chunk((chains, draws))
        .shuffle()
        .deflate(DEFLATE)
        .obj_track_times(false)
        .attr_creation_order(AttrCreationOrder::Indexed)
        .create(name)?)
}

/// The trace's column `index` as a dataset of shape (chain, draw): `f64`, `i64`, or for booleans
/// `i8` with the attribute `dtype = "bool"`, which xarray turns back into booleans.
///
/// The trace must have passed [`check`].
pub(super) fn new_column(group: &Group, trace: &Trace, index: usize) -> Result<Dataset, IoError> {
    let Column { name, kind, .. } = &trace.layout[index];
    match kind {
        Kind::Float => new_array(group, name, &collect(trace, index, "a number", Some)?),
        Kind::Int => {
            // Beyond 2⁵³ an `f64` no longer tells neighbouring integers apart.
            let whole = |x: f64| (x.fract() == 0.0 && x.abs() <= 9_007_199_254_740_992.0).then_some(x as i64);
            new_array(group, name, &collect(trace, index, "a whole number up to 2^53", whole)?)
        }
        Kind::Bool => {
            let truth = |x: f64| (x == 0.0 || x == 1.0).then_some(x as i8);
            let data = new_array(group, name, &collect(trace, index, "0 or 1", truth)?)?;
            write_attr(&data, "dtype", &Attr::Str("bool".into()))?;
            Ok(data)
        }
    }
}

fn collect<T>(
    trace: &Trace,
    index: usize,
    expected: &'static str,
    convert: impl Fn(f64) -> Option<T>,
) -> Result<Array2<T>, IoError> {
    let mut values = Vec::with_capacity(trace.chains.len() * trace.draws());
    for (c, chain) in trace.chains.iter().enumerate() {
        for (d, &value) in chain.values[index].iter().enumerate() {
            values.push(convert(value).ok_or_else(|| IoError::Kind {
                column: trace.layout[index].name.clone(),
                chain: c,
                draw: d,
                value,
                expected,
            })?);
        }
    }
    Array2::from_shape_vec((trace.chains.len(), trace.draws()), values)
        .map_err(|e| IoError::Ragged(e.to_string()))
}

/// Checks that names can be variables, and that all chains have all columns at equal, positive
/// length.
pub(super) fn check(trace: &Trace) -> Result<(), IoError> {
    check_names("column", trace.layout.iter().map(|c| c.name.as_str()))?;
    for reserved in ["chain", "draw"] {
        if trace.index_of(reserved).is_some() {
            let fault = "is the name of a dimension";
            return Err(IoError::Name { what: "column", name: reserved.into(), fault });
        }
    }
    let draws = trace.draws();
    if draws == 0 {
        return Err(IoError::Ragged("has no draws".into()));
    }
    for (c, chain) in trace.chains.iter().enumerate() {
        if chain.values.len() != trace.layout.len() {
            let (found, columns) = (chain.values.len(), trace.layout.len());
            return Err(IoError::Ragged(format!("chain {c} has {found} columns, the layout {columns}")));
        }
        for (column, values) in trace.layout.iter().zip(&chain.values) {
            if values.len() != draws {
                let (name, found) = (&column.name, values.len());
                return Err(IoError::Ragged(format!("chain {c} has {found} draws of '{name}', not {draws}")));
            }
        }
    }
    Ok(())
}

/// Adds one attribute; texts are UTF-8 of variable length.
pub(super) fn write_attr(place: &Location, name: &str, attr: &Attr) -> Result<(), IoError> {
    match attr {
        Attr::Str(text) => {
            let text: VarLenUnicode = text.parse().map_err(|_| IoError::Nul { name: name.into() })?;
            place.new_attr::<VarLenUnicode>().create(name)?.write_scalar(&text)?;
        }
        Attr::F64(x) => place.new_attr::<f64>().create(name)?.write_scalar(x)?,
        Attr::I64(i) => place.new_attr::<i64>().create(name)?.write_scalar(i)?,
    }
    Ok(())
}

/// Adds attributes in order; names must differ.
pub(super) fn write_attrs<'a>(
    place: &Location,
    attrs: impl IntoIterator<Item = (&'a str, &'a Attr)> + Clone,
) -> Result<(), IoError> {
    check_names("attribute", attrs.clone().into_iter().map(|(name, _)| name))?;
    attrs.into_iter().try_for_each(|(name, attr)| write_attr(place, name, attr))
}
