//! TensorBoard's event files: TFRecords, each an `Event` with one scalar.
//!
//! A record is the length of its content (u64, little endian), the masked CRC-32C of these eight bytes, the
//! content and its masked CRC-32C (tensorflow/core/lib/io/record_writer.h). The content is the protocol
//! buffer `Event` of tensorflow/core/util/event.proto, of which four fields are used.

/// The first event of a file says this.
const VERSION: &str = "brain.Event:2";

/// One point of a curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar<'a> {
    /// Name of the curve.
    pub tag: &'a str,
    /// Where on it.
    pub step: u64,
    /// The value.
    pub value: f64,
}

/// An event file. Files hold no clocks, so the wall time of an event is its step in seconds.
pub fn write_events<'a>(scalars: impl IntoIterator<Item = Scalar<'a>>) -> Vec<u8> {
    write_events_at(0.0, scalars.into_iter().map(|scalar| (scalar.step as f64, scalar)))
}

/// An event file that was begun at `start`, of scalars with their wall times, all in seconds since 1970.
pub fn write_events_at<'a>(start: f64, scalars: impl IntoIterator<Item = (f64, Scalar<'a>)>) -> Vec<u8> {
    let mut file = Vec::new();
    let mut event = time_and_step(start, 0);
    text(&mut event, 3, VERSION);
    record(&mut file, &event);
    for (time, Scalar { tag, step, value }) in scalars {
        let mut point = Vec::new();
        text(&mut point, 1, tag);
        // simple_value, a float in 32 bits.
        point.push(2 << 3 | FIXED_32);
        point.extend((value as f32).to_le_bytes());
        let mut summary = Vec::new();
        bytes(&mut summary, 1, &point);
        let mut event = time_and_step(time, step);
        bytes(&mut event, 5, &summary);
        record(&mut file, &event);
    }
    file
}

// Wire types of protocol buffers (protobuf.dev/programming-guides/encoding).
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const DELIMITED: u8 = 2;
const FIXED_32: u8 = 5;

/// An `Event`'s wall_time (field 1) and step (field 2).
fn time_and_step(time: f64, step: u64) -> Vec<u8> {
    let mut event = vec![1 << 3 | FIXED_64];
    event.extend(time.to_le_bytes());
    event.push(2 << 3 | VARINT);
    varint(&mut event, step);
    event
}

fn text(out: &mut Vec<u8>, field: u8, value: &str) {
    bytes(out, field, value.as_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    out.push(field << 3 | DELIMITED);
    varint(out, value.len() as u64);
    out.extend(value);
}

/// Seven bits a byte, the lowest first; the eighth bit says that more follow.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn record(file: &mut Vec<u8>, content: &[u8]) {
    let length = (content.len() as u64).to_le_bytes();
    file.extend(length);
    file.extend(masked(crc32c(&length)).to_le_bytes());
    file.extend(content);
    file.extend(masked(crc32c(content)).to_le_bytes());
}

/// A checksum as it stands in a file, so that checksums of checksums are no trouble.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli; RFC 3720, appendix B.4).
fn crc32c(content: &[u8]) -> u32 {
    !content.iter().fold(!0, |crc: u32, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

/// Remainders of every byte, bits reflected.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut rest = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            rest = if rest & 1 == 1 { rest >> 1 ^ 0x82f6_3b78 } else { rest >> 1 };
            bit += 1;
        }
        table[byte] = rest;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 3720, appendix B.4, and the check value of CRC catalogues.
    #[test]
    fn checksums_are_those_of_the_standard() {
        let (up, down): (Vec<u8>, Vec<u8>) = ((0..32).collect(), (0..32).rev().collect());
        for (content, crc) in [
            (&[0; 32][..], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&up, 0x46dd_794e),
            (&down, 0x113f_db5c),
            (b"123456789", 0xe306_9283),
            (b"", 0),
        ] {
            assert_eq!(crc32c(content), crc, "{content:?}");
        }
        // The mask undone as tensorflow/core/lib/hash/crc32c.h undoes it.
        let crc = crc32c(b"foo");
        assert_eq!(masked(crc).wrapping_sub(0xa282_ead8).rotate_left(15), crc);
        assert_ne!(masked(crc), crc);
    }

    /// A file by hand: the first 24 bytes of any event file of TensorFlow's, then a scalar.
    #[test]
    fn a_file_is_this_byte_for_byte() {
        let file = write_events([Scalar { tag: "a", step: 300, value: 1.5 }]);
        let mut first = vec![0x09, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0x1a, 0x0d];
        first.extend(b"brain.Event:2");
        let mut second = vec![0x09, 0, 0, 0, 0, 0, 0xc0, 0x72, 0x40, 0x10, 0xac, 0x02];
        second.extend([0x2a, 10, 0x0a, 8, 0x0a, 1, b'a', 0x15, 0, 0, 0xc0, 0x3f]);
        let mut rest = file.as_slice();
        for content in [first, second] {
            let (length, after) = rest.split_at(8);
            assert_eq!(length, (content.len() as u64).to_le_bytes());
            let (sum, after) = after.split_at(4);
            assert_eq!(sum, masked(crc32c(length)).to_le_bytes());
            let (found, after) = after.split_at(content.len());
            assert_eq!(found, content);
            let (sum, after) = after.split_at(4);
            assert_eq!(sum, masked(crc32c(&content)).to_le_bytes());
            rest = after;
        }
        assert!(rest.is_empty());
    }
}
