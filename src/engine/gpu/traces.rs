//! Traces as the device stores them: by quads of rows, `[quad][N]` of four numbers each, in
//! f32 or f16; on the host row-major `[M, N]` in f32.

use half::f16;

use crate::engine::Storage;

/// Bytes of a quad.
pub(super) fn quad_bytes(storage: Storage) -> usize {
    match storage {
        Storage::F32 => 16,
        Storage::F16 => 8,
    }
}

/// A matrix `[M, N]` by quads; rows beyond M are zero.
pub(super) fn pack(values: &[f32], n: usize, storage: Storage) -> Vec<u8> {
    let m = values.len() / n;
    let quads = m.div_ceil(4);
    let mut out = Vec::with_capacity(quads * n * quad_bytes(storage));
    for quad in 0..quads {
        for j in 0..n {
            for i in 4 * quad..4 * quad + 4 {
                let value = if i < m { values[i * n + j] } else { 0.0 };
                match storage {
                    Storage::F32 => out.extend(value.to_le_bytes()),
                    Storage::F16 => out.extend(f16::from_f32(value).to_le_bytes()),
                }
            }
        }
    }
    out
}

/// What rounding to f16 takes from traces.
pub(super) fn residual(values: &[f32]) -> Vec<f32> {
    values.iter().map(|&value| value - f16::from_f32(value).to_f32()).collect()
}

/// H as the shaders read it (`lib/stored_f16.wgsl`): what rounding took past the clip lies on
/// it.
pub(super) fn onto_clip(h: &mut [f32], clip: f64) {
    #[expect(clippy::cast_possible_truncation, reason = "rounding is the meaning")]
    let clip = clip as f32;
    let past = clip * (1.0 + 1.0 / 1024.0) + f32::from(f16::MIN_POSITIVE_SUBNORMAL);
    for h in h.iter_mut().filter(|h| h.abs() <= past) {
        *h = h.clamp(-clip, clip);
    }
}

/// The matrix `[M, N]` of quads read back as words of four bytes, appended to `out`.
pub(super) fn unpack(words: &[f32], m: usize, n: usize, storage: Storage, out: &mut Vec<f32>) {
    let halves = |word: f32, high: usize| {
        let bits = word.to_bits().to_le_bytes();
        f16::from_le_bytes([bits[2 * high], bits[2 * high + 1]]).to_f32()
    };
    for i in 0..m {
        for j in 0..n {
            let quad = i / 4 * n + j;
            out.push(match storage {
                Storage::F32 => words[4 * quad + i % 4],
                Storage::F16 => halves(words[2 * quad + i % 4 / 2], i % 2),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quads_come_back_as_they_went() {
        let (m, n) = (7, 3);
        let values: Vec<f32> = (0..21_u8).map(|k| f32::from(k) / 8.0 - 1.0).collect();
        for storage in [Storage::F32, Storage::F16] {
            let bytes = pack(&values, n, storage);
            assert_eq!(bytes.len(), 2 * n * quad_bytes(storage));
            let words: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
            let mut out = Vec::new();
            unpack(&words, m, n, storage, &mut out);
            assert_eq!(out, values);
        }
    }
}
