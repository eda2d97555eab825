//! Paths in specifications. A path that is UTF-8 is its text; any other is a NUL, which no path holds,
//! and its bytes in hexadecimal digits, so that every path has a text of its own and comes back from it.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serializer, de};

/// Marks a text as bytes.
const BYTES: char = '\0';

pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    match path.to_str() {
        Some(text) => serializer.serialize_str(text),
        None => {
            let digits = path.as_os_str().as_bytes().iter().map(|byte| format!("{byte:02x}"));
            serializer.serialize_str(&format!("{BYTES}{}", digits.collect::<String>()))
        }
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let text = String::deserialize(deserializer)?;
    let Some(digits) = text.strip_prefix(BYTES) else { return Ok(text.into()) };
    let digits: Option<Vec<u8>> = digits.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    match digits {
        Some(digits) if digits.len().is_multiple_of(2) => {
            let bytes = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
            Ok(OsString::from_vec(bytes).into())
        }
        _ => Err(de::Error::custom("expected a path, or NUL and pairs of hexadecimal digits")),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Parameters;

    use super::*;

    #[test]
    fn every_path_has_a_text_of_its_own_and_comes_back() {
        let paths: [&[u8]; 5] = [b"a/b.npz", b"a/\xff.npz", b"a/\xfe.npz", "a/\u{fffd}.npz".as_bytes(), b""];
        let mut texts = Vec::new();
        for bytes in paths {
            let path = Parameters::Mask(OsString::from_vec(bytes.to_vec()).into());
            let text = serde_json::to_string(&path).expect("a text");
            assert_eq!(serde_json::from_str::<Parameters>(&text).expect("a path"), path);
            let wire = postcard::to_stdvec(&path).expect("bytes");
            assert_eq!(postcard::from_bytes::<Parameters>(&wire).expect("a path"), path);
            texts.push(text);
        }
        assert_eq!(texts[0], "{\"mask\":\"a/b.npz\"}");
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), paths.len());
        assert!(serde_json::from_str::<Parameters>("{\"mask\":\"\\u0000f\"}").is_err());
    }
}
