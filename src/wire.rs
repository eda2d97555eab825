//! Arrays on the wire and in checkpoints as blocks of bytes.
//!
//! Serde hands over a sequence one element at a time, which costs a large array more than copying it. Here an
//! array is one byte string: 8 bytes a number, little-endian IEEE 754, in order. Fields name these modules in
//! `#[serde(with = "…")]`; what is already bytes names `serde_bytes`. Formats for people
//! (JSON) get numbers as ever.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of a number.
const WIDTH: usize = size_of::<f64>();

// The numbers' own bytes are those that travel.
const _: () = assert!(cfg!(target_endian = "little"));

fn unpacked<E: Error>(bytes: &[u8]) -> Result<Vec<f64>, E> {
    let (numbers, rest) = bytes.as_chunks::<WIDTH>();
    if !rest.is_empty() {
        return Err(E::invalid_length(bytes.len(), &"a whole number of 8-byte values"));
    }
    Ok(numbers.iter().map(|&x| f64::from_le_bytes(x)).collect())
}

/// `Vec<f64>`.
pub mod floats {
    use super::{Deserialize, Deserializer, Serialize, Serializer, unpacked};

    /// Writes the numbers.
    ///
    /// # Errors
    /// Those of the serialiser.
    pub fn serialize<S: Serializer>(values: &[f64], to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            values.serialize(to)
        } else {
            serde_bytes::serialize(bytemuck::cast_slice::<f64, u8>(values), to)
        }
    }

    /// Reads them.
    ///
    /// # Errors
    /// The bytes are no such array.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
        if from.is_human_readable() {
            Vec::deserialize(from)
        } else {
            unpacked(<&serde_bytes::Bytes>::deserialize(from)?)
        }
    }
}

/// `Vec<Vec<f64>>`.
pub mod columns {
    use super::{Deserialize, Deserializer, Serialize, Serializer, floats};

    #[derive(Serialize)]
    struct Lent<'a>(#[serde(serialize_with = "floats::serialize")] &'a [f64]);

    #[derive(Deserialize)]
    struct Owned(#[serde(deserialize_with = "floats::deserialize")] Vec<f64>);

    /// Writes the columns.
    ///
    /// # Errors
    /// Those of the serialiser.
    pub fn serialize<S: Serializer>(columns: &[Vec<f64>], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(columns.iter().map(|column| Lent(column)))
    }

    /// Reads them.
    ///
    /// # Errors
    /// The bytes are no such columns.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Vec<f64>>, D::Error> {
        let columns = Vec::<Owned>::deserialize(from)?;
        Ok(columns.into_iter().map(|column| column.0).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Serialize, Deserialize)]
    struct Arrays {
        #[serde(with = "super::floats")]
        one: Vec<f64>,
        #[serde(with = "super::columns")]
        many: Vec<Vec<f64>>,
    }

    #[test]
    fn every_bit_of_every_number_comes_back() {
        let odd =
            [0.0, -0.0, 1.5, f64::MIN_POSITIVE / 2.0, f64::INFINITY, f64::from_bits(0x7ff8_0000_dead_beef)];
        let sent = Arrays { one: odd.to_vec(), many: vec![vec![], odd[2..].to_vec(), vec![-7.25]] };
        let bytes = postcard::to_stdvec(&sent).unwrap();
        // Lengths of one byte here.
        assert_eq!(bytes.len(), (1 + 8 * 6) + 1 + 1 + (1 + 8 * 4) + (1 + 8));
        let got: Arrays = postcard::from_bytes(&bytes).unwrap();
        let bits = |values: &[f64]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&got.one), bits(&sent.one));
        assert_eq!(
            got.many.iter().map(|c| bits(c)).collect::<Vec<_>>(),
            sent.many.iter().map(|c| bits(c)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn people_read_numbers() {
        let sent = Arrays { one: vec![0.5, -2.0], many: vec![vec![], vec![3.0]] };
        let text = serde_json::to_string(&sent).unwrap();
        assert_eq!(text, r#"{"one":[0.5,-2.0],"many":[[],[3.0]]}"#);
        let got: Arrays = serde_json::from_str(&text).unwrap();
        assert_eq!((got.one, got.many), (sent.one, sent.many));
    }

    #[test]
    fn half_a_number_is_refused() {
        assert!(postcard::from_bytes::<Arrays>(&[7, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(postcard::from_bytes::<Arrays>(&[16, 0, 0, 0]).is_err());
    }
}
