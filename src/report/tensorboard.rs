//! TensorBoard's event files: records of protocol buffers, each framed by its length and two masked
//! CRC-32C sums (tensorflow/core/lib/io/record_writer.cc, event.proto, summary.proto). Only scalars.

/// A scalar at a step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scalar {
    /// `train/loss`.
    pub tag: String,
    pub step: u64,
    /// Seconds since 1970.
    pub time: f64,
    pub value: f64,
}

/// What an event file is called that begins at a second since 1970.
pub(crate) fn file_name(begun: f64) -> String {
    format!("events.out.tfevents.{:010}.gradus", begun as u64)
}

/// The bytes of an event file.
pub(crate) fn event_file(begun: f64, scalars: &[Scalar]) -> Vec<u8> {
    let mut version = double_field(1, begun);
    version.extend(bytes_field(3, b"brain.Event:2"));
    let mut file = framed(&version);
    file.extend(events(scalars));
    file
}

/// The bytes that scalars add to an event file.
pub(crate) fn events(scalars: &[Scalar]) -> Vec<u8> {
    let mut file = Vec::new();
    for Scalar { tag, step, time, value } in scalars {
        let mut one = bytes_field(1, tag.as_bytes());
        one.extend([(2 << 3) | 5]);
        one.extend((*value as f32).to_le_bytes());
        let mut event = double_field(1, *time);
        event.push(2 << 3);
        event.extend(varint(*step));
        event.extend(bytes_field(5, &bytes_field(1, &one)));
        file.extend(framed(&event));
    }
    file
}

fn double_field(field: u8, value: f64) -> Vec<u8> {
    let mut bytes = vec![(field << 3) | 1];
    bytes.extend(value.to_le_bytes());
    bytes
}

fn bytes_field(field: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![(field << 3) | 2];
    bytes.extend(varint(value.len() as u64));
    bytes.extend(value);
    bytes
}

/// Seven bits a byte, the lowest first.
pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn framed(record: &[u8]) -> Vec<u8> {
    let length = (record.len() as u64).to_le_bytes();
    let mut bytes = length.to_vec();
    bytes.extend(masked(&length).to_le_bytes());
    bytes.extend(record);
    bytes.extend(masked(record).to_le_bytes());
    bytes
}

/// TensorFlow masks a sum, so that a sum over sums is another.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: event files are small.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut sum = !0u32;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            let low = (sum & 1).wrapping_neg();
            sum = (sum >> 1) ^ (0x82f6_3b78 & low);
        }
    }
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of CRC-32C, and one of RFC 3720 (32 bytes of zero).
    #[test]
    fn the_sum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    /// Byte for byte what tensorboard's RecordWriter writes of these two events.
    #[test]
    fn a_file_is_what_tensorboard_writes() {
        let scalar = Scalar { tag: "train/loss".into(), step: 300, time: 2.5, value: 0.5 };
        let hex: String =
            event_file(1.5, &[scalar]).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN);
    }

    const GOLDEN: &str = concat!(
        "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c",
        "2100000000000000017becf609000000000000044010ac022a130a110a0a747261696e2f6c6f7373",
        "150000003f0cb83673",
    );
}
