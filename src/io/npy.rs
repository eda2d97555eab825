//! One `.npy` entry: header and values.
//!
//! Format: NumPy enhancement proposal 1 and the docs of `numpy.lib.format`, versions 1.0 to 3.0.
//! Object arrays, which would need pickle, are refused.

mod header;

use std::io::Read;

use self::header::{Dtype, Header};
use super::npz::{Array, Values};

/// What is wrong with one `.npy` entry, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum NpyFault {
    /// The entry does not begin as a `.npy` file does.
    #[error("is not a .npy array; write the file with numpy.savez")]
    Magic,
    /// A format version from the future.
    #[error("has .npy format version {0}.{1}, known are 1.0 to 3.0; write it with an older numpy")]
    Version(u8, u8),
    /// The header is not the dictionary that the format prescribes.
    #[error("has a damaged .npy header ({0}); write the file again with numpy.savez")]
    Header(&'static str),
    /// An object array.
    #[error("holds Python objects, which need pickle and are never read; convert it to float64 or int64")]
    Objects,
    /// An element type not read here.
    #[error(
        "has element type '{0}', read are f4, f8, i4, i8, u1, b1 and single texts; convert it with .astype('f8')"
    )]
    Dtype(String),
    /// A text array with dimensions.
    #[error("is an array of texts of shape {0:?}, only a single text is read; store one text an entry")]
    Texts(Vec<usize>),
    /// Header and entry disagree, or the product overflows.
    #[error("declares shape {shape:?} but holds {found} bytes of values; the file is cut short or damaged")]
    Size {
        /// As declared.
        shape: Vec<usize>,
        /// Bytes that follow the header.
        found: u64,
    },
    /// Larger than may be read, or than its compressed size allows.
    #[error("declares {0} bytes, more than its archive can hold or than may be read (8 GiB an archive)")]
    TooLarge(u64),
    /// A text that is not Unicode.
    #[error("holds a number that is not a Unicode character; store the text as numpy.array('...')")]
    Text,
    /// Not an array at all.
    #[error("is not named '<array>.npy'; keep only arrays in the archive")]
    Foreign,
    /// Reading failed, for instance by a wrong checksum.
    #[error("cannot be read ({0}); the file is cut short or damaged")]
    Read(#[from] std::io::Error),
}

/// The first six bytes of every `.npy` file.
const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Headers of plain arrays take about 100 bytes; anything near this is not one.
const MAX_HEADER: usize = 65_535;
/// Values decoded at a time.
const BLOCK: usize = 8192;

/// Reads an entry of `size` bytes. Nothing is allocated on the word of the header alone: the
/// declared shape must account for exactly the bytes that follow it, and memory grows with what
/// has been read.
pub(super) fn read(from: &mut impl Read, size: u64) -> Result<Array, NpyFault> {
    let mut start = [0; 8];
    from.read_exact(&mut start).map_err(|_| NpyFault::Magic)?;
    if !start.starts_with(MAGIC) {
        return Err(NpyFault::Magic);
    }
    let (length, prefix) = match (start[6], start[7]) {
        (1, 0) => {
            let mut bytes = [0; 2];
            from.read_exact(&mut bytes)?;
            (usize::from(u16::from_le_bytes(bytes)), 10)
        }
        (2 | 3, 0) => {
            let mut bytes = [0; 4];
            from.read_exact(&mut bytes)?;
            (u32::from_le_bytes(bytes) as usize, 12)
        }
        (major, minor) => return Err(NpyFault::Version(major, minor)),
    };
    if length > MAX_HEADER {
        return Err(NpyFault::Header("longer than 64 KiB"));
    }
    let mut text = vec![0; length];
    from.read_exact(&mut text)?;
    let text = str::from_utf8(&text).map_err(|_| NpyFault::Header("not a text"))?;
    let Header { dtype, big_endian, fortran, shape } = header::parse(text)?;

    let found = size.saturating_sub((prefix + length) as u64);
    let count = shape.iter().try_fold(1usize, |count, &n| count.checked_mul(n));
    let bytes = count.zip(dtype.size()).and_then(|(count, size)| count.checked_mul(size));
    let count = match (count, bytes) {
        (Some(count), Some(bytes)) if bytes as u64 == found => count,
        _ => return Err(NpyFault::Size { shape, found }),
    };
    macro_rules! numbers {
        ($variant:ident, $from:ty => $to:ty) => {{
            let decode = if big_endian { <$from>::from_be_bytes } else { <$from>::from_le_bytes };
            let values = read_values(from, count, |bytes| <$to>::from(decode(bytes)))?;
            Values::$variant(if fortran { to_c_order(&shape, &values) } else { values })
        }};
    }
    let values = match dtype {
        Dtype::F32 => numbers!(F32, f32 => f32),
        Dtype::F64 => numbers!(F64, f64 => f64),
        Dtype::I32 => numbers!(I64, i32 => i64),
        Dtype::I64 => numbers!(I64, i64 => i64),
        Dtype::U8 => numbers!(U8, u8 => u8),
        Dtype::Bool => {
            let values = read_values(from, count, |[byte]| u8::from(byte != 0))?;
            Values::U8(if fortran { to_c_order(&shape, &values) } else { values })
        }
        Dtype::Text(_) if !shape.is_empty() => return Err(NpyFault::Texts(shape)),
        Dtype::Text(points) => {
            let decode = if big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
            let mut points = read_values(from, points, decode)?;
            points.truncate(points.iter().rposition(|&p| p != 0).map_or(0, |last| last + 1));
            let text: Option<String> = points.into_iter().map(char::from_u32).collect();
            Values::Str(text.ok_or(NpyFault::Text)?)
        }
    };
    // The checksum of a zip entry is compared only at its end.
    if from.read(&mut [0])? != 0 {
        return Err(NpyFault::Size { shape, found });
    }
    Ok(Array { shape, values })
}

/// `count` values of `N` bytes each.
fn read_values<const N: usize, T>(
    from: &mut impl Read,
    count: usize,
    decode: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, NpyFault> {
    let mut values = Vec::new();
    let mut block = vec![0; N * BLOCK.min(count)];
    while values.len() < count {
        let wanted = BLOCK.min(count - values.len());
        let bytes = &mut block[..N * wanted];
        from.read_exact(bytes)?;
        values.extend(bytes.as_chunks::<N>().0.iter().map(|&bytes| decode(bytes)));
    }
    Ok(values)
}

/// Values of an array of the given shape, from first-index-fastest to last-index-fastest order.
fn to_c_order<T: Copy>(shape: &[usize], values: &[T]) -> Vec<T> {
    let mut index = vec![0; shape.len()];
    let mut strides = Vec::with_capacity(shape.len());
    let mut stride = 1;
    for &n in shape {
        strides.push(stride);
        stride *= n;
    }
    let mut at = 0;
    let mut ordered = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        ordered.push(values[at]);
        for ((i, &n), &stride) in index.iter_mut().zip(shape).zip(&strides).rev() {
            *i += 1;
            at += stride;
            if *i < n {
                break;
            }
            at -= n * stride;
            *i = 0;
        }
    }
    ordered
}

/// The bytes of a `.npy` file: format 1.0, C order, little-endian, header padded to a multiple of
/// 64 bytes as NumPy does.
pub(super) fn write(array: &Array) -> Vec<u8> {
    let (descr, size) = match &array.values {
        Values::F32(v) => ("<f4".into(), v.len() * 4),
        Values::F64(v) => ("<f8".into(), v.len() * 8),
        Values::I64(v) => ("<i8".into(), v.len() * 8),
        Values::U8(v) => ("|u1".into(), v.len()),
        Values::Str(text) => {
            let points = text.chars().count().max(1);
            (format!("<U{points}"), 4 * points)
        }
    };
    let shape = match array.shape.as_slice() {
        [n] => format!("({n},)"),
        shape => format!("({})", shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    };
    let dictionary = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    // Magic, version and length take 10 bytes, the closing line feed one.
    let length = (10 + dictionary.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = Vec::with_capacity(10 + length + size);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[1, 0]);
    // At most 64 dimensions of 20 digits: far below 2¹⁶.
    bytes.extend_from_slice(&(length as u16).to_le_bytes());
    bytes.extend_from_slice(dictionary.as_bytes());
    bytes.resize(10 + length - 1, b' ');
    bytes.push(b'\n');
    match &array.values {
        Values::F32(v) => v.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes())),
        Values::F64(v) => v.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes())),
        Values::I64(v) => v.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes())),
        Values::U8(v) => bytes.extend_from_slice(v),
        Values::Str(text) => {
            text.chars().for_each(|c| bytes.extend_from_slice(&u32::from(c).to_le_bytes()));
            if text.is_empty() {
                bytes.extend_from_slice(&[0; 4]);
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `.npy` file of the given version, header text and value bytes.
    fn file(version: u8, header: &str, values: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend((header.len() as u16).to_le_bytes()),
            _ => bytes.extend((header.len() as u32).to_le_bytes()),
        }
        bytes.extend(header.as_bytes());
        bytes.extend(values);
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Array, NpyFault> {
        read(&mut &bytes[..], bytes.len() as u64)
    }

    #[test]
    fn every_element_type_order_and_version_is_read() {
        let be = |values: &[f64]| values.iter().flat_map(|x| x.to_be_bytes()).collect::<Vec<_>>();
        let le = |values: &[i32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
        let check = |version, header: &str, bytes: &[u8], shape: &[usize], values| {
            let array = parse(&file(version, header, bytes)).unwrap_or_else(|e| panic!("{header}: {e}"));
            assert_eq!((array.shape.as_slice(), array.values), (shape, values), "{header}");
        };
        let header = "{'descr': '>f8', 'fortran_order': False, 'shape': (2,), }";
        check(1, header, &be(&[1.5, -2.0]), &[2], Values::F64(vec![1.5, -2.0]));
        // [[1, 2, 3], [4, 5, 6]] column by column.
        let header = "{'descr': '<i4', 'fortran_order': True, 'shape': (2, 3), }   \n";
        check(2, header, &le(&[1, 4, 2, 5, 3, 6]), &[2, 3], Values::I64(vec![1, 2, 3, 4, 5, 6]));
        let header = "{\"shape\": (3,), \"fortran_order\": False, \"descr\": \"|b1\"}";
        check(3, header, &[0, 1, 7], &[3], Values::U8(vec![0, 1, 1]));
        let header = "{'descr': '|u1', 'fortran_order': True, 'shape': ()}";
        check(1, header, &[9], &[], Values::U8(vec![9]));
        let header = "{'descr': '<U3', 'fortran_order': False, 'shape': ()}";
        check(1, header, &le(&[0x3bb, 0x302, 0]), &[], Values::Str("λ\u{302}".into()));
        let header = "{'descr': '<f4', 'fortran_order': True, 'shape': (0, 18446744073709551615)}";
        check(1, header, &[], &[0, usize::MAX], Values::F32(vec![]));
    }

    #[test]
    fn three_dimensional_fortran_order_agrees_with_its_index_formula() {
        let shape = [2, 3, 4];
        let fortran: Vec<usize> = (0..24).collect();
        let c = to_c_order(&shape, &fortran);
        for i in 0..2 {
            for j in 0..3 {
                for k in 0..4 {
                    assert_eq!(c[(i * 3 + j) * 4 + k], i + 2 * j + 6 * k);
                }
            }
        }
    }

    #[test]
    fn bad_headers_are_named() {
        let plain = "'fortran_order': False, 'shape': (1,)}";
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (b"PK\x03\x04....".to_vec(), "is not a .npy"),
            (file(9, "{}", &[]), "version 9.0"),
            (file(1, &format!("{{'descr': '|O', {plain}"), &[0; 8]), "pickle"),
            (file(1, &format!("{{'descr': '<c16', {plain}"), &[0; 16]), "'<c16'"),
            (file(1, &format!("{{'descr': 'é8', {plain}"), &[0; 8]), "'é8'"),
            (file(1, &format!("{{'descr': '', {plain}"), &[0; 8]), "element type ''"),
            (file(1, &format!("{{'descr': [('a', '<f8')], {plain}"), &[0; 8]), "'record'"),
            (file(1, &format!("{{'descr': '<U2', {plain}"), &[0; 8]), "array of texts"),
            (file(1, &format!("{{'descr': '<f8', 'descr': '<f8', {plain}"), &[0; 8]), "comes twice"),
            (file(1, &format!("{{'evil': '<f8', {plain}"), &[0; 8]), "unknown key"),
            (file(1, &format!("{{'descr': '<f8', {plain} + 1"), &[0; 8]), "something follows"),
            (file(1, "{'descr': '<f8', 'shape': (1,)}", &[0; 8]), "a key is missing"),
            (file(1, "{'descr': '<f8', 'fortran_order': 0, 'shape': (1,)}", &[0; 8]), "True or False"),
            (file(1, "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}", &[0; 8]), "not a number"),
            (file(1, "{'descr': '<f8', 'fortran_order': False, 'shape': (1", &[0; 8]), "shape does not end"),
            (file(1, "{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}", &[0; 8]), "holds 8 bytes"),
            (file(1, "{'descr': '<f8', 'fortran_order': False, 'shape': ()}", &[0; 9]), "holds 9 bytes"),
            (
                file(
                    1,
                    "{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296)}",
                    &[0; 8],
                ),
                "declares shape",
            ),
            (
                file(1, "{'descr': '<U99999999999999999999', 'fortran_order': False, 'shape': ()}", &[]),
                "element type",
            ),
            (
                file(1, "{'descr': '<U1', 'fortran_order': False, 'shape': ()}", &[0, 0xd8, 0, 0]),
                "Unicode character",
            ),
            (
                file(
                    1,
                    &format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({})}}", "1,".repeat(65)),
                    &[0; 8],
                ),
                "64 dimensions",
            ),
        ];
        for (bytes, expected) in cases {
            let text = parse(&bytes).expect_err(expected).to_string();
            assert!(text.contains(expected), "'{text}' lacks '{expected}'");
        }
    }
}
