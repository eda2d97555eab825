//! NumPy archives: named arrays in one zip file, without pickle.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

use super::npy::{self, NpyFault};
use super::{IoError, check_names};

/// Most bytes of values that one archive may unpack to (8 GiB, uncompressed).
pub const MAX_BYTES: u64 = 8 << 30;

/// Deflate packs no more than 1032 bytes into one (258 bytes into two bits), so a larger claim is
/// false whatever the content.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// An array's elements, last index fastest.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// NumPy `f4`.
    F32(Vec<f32>),
    /// NumPy `f8`.
    F64(Vec<f64>),
    /// NumPy `i8`; `i4` is widened.
    I64(Vec<i64>),
    /// NumPy `u1`, and `b1` as 0 and 1.
    U8(Vec<u8>),
    /// A text, as a unicode array without dimensions.
    Str(String),
}

impl Values {
    /// Number of elements; a text is one.
    pub fn len(&self) -> usize {
        match self {
            Values::F32(v) => v.len(),
            Values::F64(v) => v.len(),
            Values::I64(v) => v.len(),
            Values::U8(v) => v.len(),
            Values::Str(_) => 1,
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as `f64`, whatever numbers they are (an `i64` beyond 2⁵³ is rounded); `None`
    /// for a text.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        match self {
            Values::F32(v) => Some(v.iter().map(|&x| f64::from(x)).collect()),
            Values::F64(v) => Some(v.clone()),
            Values::I64(v) => Some(v.iter().map(|&x| x as f64).collect()),
            Values::U8(v) => Some(v.iter().map(|&x| f64::from(x)).collect()),
            Values::Str(_) => None,
        }
    }
}

/// An array: a shape and as many values as it asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Length of each dimension; empty for a scalar or a text.
    pub shape: Vec<usize>,
    /// The elements.
    pub values: Values,
}

impl Array {
    /// A single text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { shape: Vec::new(), values: Values::Str(text.into()) }
    }
}

/// The bytes of an archive that `numpy.load(..., allow_pickle=False)` opens: entries in the given
/// order, not compressed, dated 1980-01-01, so that the same arrays give the same bytes.
///
/// # Errors
/// [`IoError::Name`] for names outside `[A-Za-z0-9._-]{1,64}` or used twice, [`IoError::Shape`]
/// where a shape (at most 64 dimensions) and its values disagree, [`IoError::Nul`] for a text with
/// a NUL character.
pub fn write(arrays: &[(&str, Array)]) -> Result<Vec<u8>, IoError> {
    check_names("array", arrays.iter().map(|(name, _)| *name))?;
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, array) in arrays {
        let count = array.shape.iter().try_fold(1usize, |count, &n| count.checked_mul(n));
        if count != Some(array.values.len()) || array.shape.len() > 64 {
            let (shape, found) = (array.shape.clone(), array.values.len());
            return Err(IoError::Shape { name: (*name).into(), shape, found });
        }
        if matches!(&array.values, Values::Str(text) if text.contains('\0')) {
            return Err(IoError::Nul { name: (*name).into() });
        }
        let bytes = npy::write(array);
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .unix_permissions(0o644)
            .large_file(u32::try_from(bytes.len()).is_err());
        zip.start_file(format!("{name}.npy"), options)?;
        zip.write_all(&bytes).map_err(zip::result::ZipError::from)?;
    }
    Ok(zip.finish()?.into_inner())
}

/// All arrays of an archive, by name, in C order and native byte order.
///
/// Fit for files from anywhere: no pickle, every size is checked before memory is taken, checksums
/// are compared.
///
/// # Errors
/// [`IoError::Zip`] where the container is damaged or encrypted, [`IoError::Npy`] naming the entry
/// that is not an array of `f4 f8 i4 i8 u1 b1` or a single text, that is larger than it can be, or
/// that breaks the limit of [`MAX_BYTES`].
pub fn read(bytes: &[u8]) -> Result<BTreeMap<String, Array>, IoError> {
    let mut archive = ZipArchive::new(Cursor::new(bytes))?;
    let mut arrays = BTreeMap::new();
    let mut left = MAX_BYTES;
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i)?;
        let entry_name = entry.name().to_owned();
        let fault = |fault| IoError::Npy { entry: entry_name.clone(), fault };
        let Some(name) = entry_name.strip_suffix(".npy") else {
            return Err(fault(NpyFault::Foreign));
        };
        let size = entry.size();
        let packed = entry.compressed_size();
        let possible = match entry.compression() {
            CompressionMethod::Stored => packed,
            _ => packed.saturating_mul(MAX_DEFLATE_RATIO),
        };
        if packed > bytes.len() as u64 || size > possible || size > left {
            return Err(fault(NpyFault::TooLarge(size)));
        }
        left -= size;
        let array = npy::read(&mut entry, size).map_err(fault)?;
        arrays.insert(name.to_owned(), array);
    }
    Ok(arrays)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Vec<(&'static str, Array)> {
        vec![
            (
                "X",
                Array {
                    shape: vec![2, 3],
                    values: Values::F64(vec![1.0, -0.0, 1e-300, 4.0, f64::INFINITY, 6.5]),
                },
            ),
            ("Y", Array { shape: vec![3], values: Values::F32(vec![0.1, 0.2, 0.3]) }),
            ("widths", Array { shape: vec![2, 1], values: Values::I64(vec![i64::MIN, 7]) }),
            ("mask", Array { shape: vec![0, 4], values: Values::U8(vec![]) }),
            ("scalar", Array { shape: vec![], values: Values::F64(vec![2.5]) }),
            ("spec", Array::text("{\"λ\": [1, 2.5]}")),
            ("empty", Array::text("")),
        ]
    }

    /// What `numpy.savez_compressed` would make of one entry.
    fn deflated(name: &str, bytes: &[u8]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
        zip.finish().unwrap().into_inner()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let bytes = write(&sample()).unwrap();
        let arrays = read(&bytes).unwrap();
        assert_eq!(arrays.len(), 7);
        for (name, array) in sample() {
            assert_eq!(arrays[name], array, "{name}");
        }
    }

    #[test]
    fn npy_entries_have_numpys_own_layout() {
        // Bytes of numpy.save for numpy.array([1, 2], dtype='u1'), numpy 2.4.
        let mut expected = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        expected.extend(b"{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }");
        expected.resize(127, b' ');
        expected.extend(b"\n\x01\x02");
        let array = Array { shape: vec![2], values: Values::U8(vec![1, 2]) };
        assert_eq!(npy::write(&array), expected);
    }

    /// `tests/data/npz/` says how the files were made.
    #[test]
    fn archives_of_numpys_own_making_are_read() {
        let plain: &[u8] = include_bytes!("../../tests/data/npz/savez.npz");
        let packed: &[u8] = include_bytes!("../../tests/data/npz/savez_compressed.npz");
        let grid: Vec<f64> = (0..24).map(|i| f64::from(i) / 7.0).collect();
        for bytes in [plain, packed] {
            let arrays = read(bytes).unwrap();
            assert_eq!(arrays["c"], Array { shape: vec![2, 3, 4], values: Values::F64(grid.clone()) });
            assert_eq!(arrays["fortran"], arrays["c"]);
            assert_eq!(arrays["big_endian"], arrays["c"]);
            assert_eq!(arrays["f4"].values, Values::F32(vec![0.1, -0.2, f32::MAX]));
            assert_eq!(arrays["i4"].values, Values::I64(vec![-1, i64::from(i32::MAX)]));
            assert_eq!(arrays["b1"].values, Values::U8(vec![1, 0, 1]));
            assert_eq!(arrays["scalar"], Array { shape: vec![], values: Values::I64(vec![7]) });
            assert_eq!(arrays["text"], Array::text("gelu λ"));
            assert_eq!(arrays["none"], Array { shape: vec![0, 5], values: Values::F64(vec![]) });
        }
        let text = read(include_bytes!("../../tests/data/npz/objects.npz")).unwrap_err().to_string();
        assert!(text.contains("'o.npy'") && text.contains("pickle"), "{text}");
    }

    #[test]
    fn compressed_archives_are_read() {
        let array = Array { shape: vec![1000], values: Values::I64(vec![3; 1000]) };
        let bytes = deflated("a.npy", &npy::write(&array));
        assert!(bytes.len() < 1000);
        assert_eq!(read(&bytes).unwrap()["a"], array);
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let one = || Array { shape: vec![1], values: Values::U8(vec![1]) };
        let cases: Vec<(Vec<(&str, Array)>, &str)> = vec![
            (vec![("a", one()), ("a", one())], "comes twice"),
            (vec![("../a", one())], "not allowed"),
            (vec![("", one())], "empty"),
            (vec![("a", Array { shape: vec![2], ..one() })], "does not hold 1 values"),
            (vec![("a", Array { shape: vec![usize::MAX, 2], ..one() })], "does not hold"),
            (vec![("a", Array { shape: vec![1; 65], ..one() })], "does not hold"),
            (vec![("a", Array::text("b\0"))], "NUL"),
        ];
        for (arrays, expected) in cases {
            let text = write(&arrays).expect_err(expected).to_string();
            assert!(text.contains(expected), "'{text}' lacks '{expected}'");
        }
    }

    #[test]
    fn foreign_archives_are_refused_by_name() {
        let text = read(&deflated("readme.txt", b"hello")).unwrap_err().to_string();
        assert!(text.contains("'readme.txt'") && text.contains("only arrays"), "{text}");
        let text = read(&deflated("a.npy", b"hello, hello")).unwrap_err().to_string();
        assert!(text.contains("'a.npy'") && text.contains("numpy.savez"), "{text}");
        let text = read(b"not a zip").unwrap_err().to_string();
        assert!(text.contains("npz"), "{text}");
    }

    /// Rewrites the uncompressed size that the central directory and the local header claim.
    fn claim_size(archive: &mut [u8], size: u32) {
        let central = archive.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
        archive[central + 24..central + 28].copy_from_slice(&size.to_le_bytes());
        archive[22..26].copy_from_slice(&size.to_le_bytes());
    }

    #[test]
    fn false_sizes_are_found_before_memory_is_taken() {
        let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (4000000000,), }";
        let mut npy = b"\x93NUMPY\x01\x00".to_vec();
        npy.extend((header.len() as u16).to_le_bytes());
        npy.extend(header.as_bytes());
        // The shape is false but agrees with the size that the container claims.
        let claimed = 4_000_000_000 + npy.len() as u32;
        npy.extend([0; 1000]);
        let mut archive = deflated("bomb.npy", &npy);
        claim_size(&mut archive, claimed);
        let text = read(&archive).unwrap_err().to_string();
        assert!(text.contains("more than its archive can hold"), "{text}");
        // Believed by the container's limits, caught when the values end.
        let mut archive = deflated("short.npy", &npy);
        claim_size(&mut archive, npy.len() as u32 + 1000);
        assert!(read(&archive).is_err());
    }

    #[test]
    fn a_changed_value_is_caught_by_its_checksum() {
        let array = Array { shape: vec![100], values: Values::F64(vec![1.25; 100]) };
        let mut bytes = write(&[("a", array)]).unwrap();
        bytes[300] ^= 1;
        let text = read(&bytes).unwrap_err().to_string();
        assert!(text.contains("'a.npy'") && text.to_lowercase().contains("checksum"), "{text}");
    }

    #[test]
    fn truncations_are_errors() {
        let bytes = write(&sample()).unwrap();
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(read(&bytes).is_err());
        }

        #[test]
        fn random_entries_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,80}") {
            let _ = read(&deflated("a.npy", &bytes));
            let mut npy = b"\x93NUMPY\x03\x00".to_vec();
            npy.extend((text.len() as u32).to_le_bytes());
            npy.extend(text.as_bytes());
            npy.extend(&bytes);
            let _ = read(&deflated("a.npy", &npy));
        }

        #[test]
        fn flipped_bits_never_panic(flips in proptest::collection::vec((any::<prop::sample::Index>(), 0..8u8), 1..4)) {
            let mut bytes = write(&sample()).unwrap();
            for (at, bit) in flips {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            let _ = read(&bytes);
        }

        #[test]
        fn any_array_survives(shape in proptest::collection::vec(0usize..5, 0..4), seed in any::<i64>()) {
            let count: usize = shape.iter().product();
            let values = (0..count as i64).map(|i| seed.wrapping_mul(i + 1)).collect();
            let array = Array { shape, values: Values::I64(values) };
            let arrays = read(&write(&[("a", array.clone())]).unwrap()).unwrap();
            prop_assert_eq!(&arrays["a"], &array);
        }
    }
}
