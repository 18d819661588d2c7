//! Metrics as TensorBoard reads them: TFRecord frames that hold `Event` messages of
//! TensorFlow's `event.proto`.

use crate::train::{Record, mean};

/// The name of the event file in a run directory.
pub(super) const FILE: &str = "events.out.tfevents.hebbian";

/// The frame that a file begins with.
pub(super) fn start(wall_time: f64) -> Vec<u8> {
    let mut event = double(1, wall_time);
    event.extend(bytes(3, b"brain.Event:2"));
    frame(&event)
}

/// A frame with means over networks: loss, gradient norm, eta, rate, the task's error by its name and on
/// held-out episodes; of several networks each one's too, as `loss/network 3`.
pub(super) fn record(record: &Record, error_name: &str, wall_time: f64) -> Vec<u8> {
    let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    let mut scalars: Vec<(String, f64)> = vec![("rate".into(), record.rate)];
    let held_out = record.held_out.clone().unwrap_or_default();
    for (name, values) in [
        ("loss", wide(&record.loss)),
        ("gradient_norm", wide(&record.gradient_norm)),
        ("eta", wide(&record.eta)),
        (error_name, record.error.clone()),
        (&format!("held-out {error_name}"), held_out),
    ] {
        if !values.is_empty() {
            scalars.push((name.into(), mean(values.iter().copied())));
        }
        if values.len() > 1 {
            let each = values.iter().enumerate();
            scalars.extend(each.map(|(p, &value)| (format!("{name}/network {p}"), value)));
        }
    }
    if !record.rollbacks.is_empty() {
        let n = f64::from(u32::try_from(record.rollbacks.len()).unwrap_or(0));
        scalars.push(("rollbacks".into(), n));
    }
    let mut summary = Vec::new();
    for (tag, value) in scalars {
        let mut one = bytes(1, tag.as_bytes());
        one.push(2 << 3 | 5);
        #[expect(clippy::cast_possible_truncation, reason = "the format holds f32")]
        one.extend((value as f32).to_le_bytes());
        summary.extend(bytes(1, &one));
    }
    let mut event = double(1, wall_time);
    event.push(2 << 3);
    event.extend(varint(record.update));
    event.extend(bytes(5, &summary));
    frame(&event)
}

fn double(field: u8, value: f64) -> Vec<u8> {
    let mut out = vec![field << 3 | 1];
    out.extend(value.to_le_bytes());
    out
}

fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    out.extend(varint(content.len() as u64));
    out.extend(content);
    out
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
    out
}

/// Length, its masked CRC-32C, content, its masked CRC-32C.
fn frame(content: &[u8]) -> Vec<u8> {
    let masked =
        |data: &[u8]| crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    let length = (content.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), content, &masked(content)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_tensorflow_writes_it() {
        let start = start(1.0);
        assert_eq!(start.len(), 8 + 4 + 24 + 4);
        assert_eq!(start[..8], 24u64.to_le_bytes());
        assert_eq!(start[12..21], [9, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
        assert_eq!(&start[21..36], b"\x1a\x0dbrain.Event:2");
        // the check value of CRC-32C, masked as the format asks
        let frame = frame(b"123456789");
        let sum = 0xe306_9283u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(frame[21..], sum.to_le_bytes());
    }
}
