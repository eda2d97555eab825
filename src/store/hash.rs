//! Names by content: BLAKE3 hashes and the URNs made of them.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{StoreError, check_name};

/// A BLAKE3 hash (O'Connor et al. 2020): of an object's bytes, or an id. Written as 64 lower-case
/// hexadecimal digits, in serialised forms too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The hash of a file's content, read in pieces.
    pub(super) fn of_file(path: &Path) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(path)?)?;
        Ok(Self(*hasher.finalize().as_bytes()))
    }

    /// The first `digits` hexadecimal digits (64 at most).
    pub fn short(&self, digits: usize) -> String {
        let mut text = self.to_string();
        text.truncate(digits);
        text
    }

    /// Number of leading hexadecimal digits that two hashes share.
    pub(super) fn common_digits(&self, other: &Hash) -> usize {
        let (a, b) = (self.to_string(), other.to_string());
        a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count()
    }
}

impl From<[u8; 32]> for Hash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = StoreError;

    /// Exactly 64 lower-case hexadecimal digits, so that a hash has one spelling.
    fn from_str(text: &str) -> Result<Self, StoreError> {
        let lower = text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        let hash = Some(text).filter(|_| lower).and_then(|text| blake3::Hash::from_hex(text).ok());
        hash.map(|hash| Self(*hash.as_bytes())).ok_or_else(|| StoreError::Urn { text: text.into() })
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// `urn:lh:<kind>:blake3:<64 hex>`: how a result is cited.
pub fn urn(kind: &str, id: &Hash) -> String {
    format!("urn:lh:{kind}:blake3:{id}")
}

/// Kind and id of a URN.
///
/// # Errors
/// [`StoreError::Urn`] if the text is not one.
pub fn parse_urn(text: &str) -> Result<(String, Hash), StoreError> {
    let parts = text.strip_prefix("urn:lh:").and_then(|rest| rest.split_once(":blake3:"));
    let (kind, hex) = parts.ok_or_else(|| StoreError::Urn { text: text.into() })?;
    let id = hex.parse().map_err(|_| StoreError::Urn { text: text.into() })?;
    check_name(kind).map_err(|_| StoreError::Urn { text: text.into() })?;
    Ok((kind.into(), id))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BLAKE3 of the empty input and of "abc", from the reference implementation's vectors.
    const EMPTY: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    const ABC: &str = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";

    #[test]
    fn hashes_are_blake3_and_have_one_spelling() {
        assert_eq!(Hash::of(b"").to_string(), EMPTY);
        assert_eq!(Hash::of(b"abc").to_string(), ABC);
        assert_eq!(ABC.parse::<Hash>().unwrap(), Hash::of(b"abc"));
        assert_eq!(serde_json::to_string(&Hash::of(b"abc")).unwrap(), format!("\"{ABC}\""));
        assert_eq!(serde_json::from_str::<Hash>(&format!("\"{ABC}\"")).unwrap(), Hash::of(b"abc"));
        assert_eq!(Hash::of(b"abc").short(12), "6437b3ac3846");
        for bad in ["", "abc", &ABC.to_uppercase(), &ABC[1..], &format!("{ABC}0"), &ABC.replace('6', "ä")] {
            assert!(bad.parse::<Hash>().is_err(), "{bad}");
        }
    }

    #[test]
    fn urns_come_back_and_nothing_else_passes() {
        let id = Hash::of(b"abc");
        let text = urn("target", &id);
        assert_eq!(text, format!("urn:lh:target:blake3:{ABC}"));
        assert_eq!(parse_urn(&text).unwrap(), ("target".into(), id));
        for bad in [
            ABC.to_string(),
            format!("urn:lh:target:sha256:{ABC}"),
            format!("urn:lh::blake3:{ABC}"),
            format!("urn:lh:../x:blake3:{ABC}"),
            format!("urn:lh:run:blake3:{}", &ABC[..63]),
        ] {
            assert!(matches!(parse_urn(&bad), Err(StoreError::Urn { .. })), "{bad}");
        }
    }
}
