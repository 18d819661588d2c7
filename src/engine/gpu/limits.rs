//! What a device can do, measured with kernels of our own: bytes and f32 multiply-adds a
//! second, and the time from one small dispatch to the next that needs it.

use std::time::Instant;

use crate::engine::Storage;
use crate::engine::gpu::Context;
use crate::engine::gpu::kernels::{Copy, Kernel, MultiplyAdds, Pipeline, Variant};
use crate::engine::gpu::prepare::OVERRIDES;
use crate::engine::gpu::shader::Form;
use crate::engine::gpu::tile::SWEEP_TILE;
use crate::error::Result;

/// Of `multiply_adds.wgsl`: invocations of a workgroup, chains of each, multiply-adds of one.
const INVOCATIONS: u32 = 256;
const CHAINS: u32 = 16;
const TIMES: u32 = 4096;

/// What a device can do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes read and written a second by a copy of large buffers.
    pub copy_bandwidth: f64,
    /// f32 multiply-adds a second.
    pub multiply_adds: f64,
    /// Seconds from one small dispatch to the next that depends on it.
    pub dispatch_gap: f64,
}

impl Context {
    /// Measures the device; takes about a second and up to 512 MiB of its memory.
    ///
    /// # Errors
    /// A lost device.
    pub fn measure(&self) -> Result<Limits> {
        let form = Form { traces: Storage::F32, n_traces: 1, tile: SWEEP_TILE, rule: None };
        let variant: Variant = OVERRIDES.map(|name| (name, 0.0));
        let compile = |kernel: &Kernel| self.pipeline(kernel, &form, &variant);
        let copy = compile(&Copy::KERNEL)?;
        let arithmetic = compile(&MultiplyAdds::KERNEL)?;
        let most = self.gpu.limits.max_storage_buffer_binding_size.min(256 << 20);
        let bytes = if self.info().device_type == wgpu::DeviceType::Cpu { 32 << 20 } else { most };
        let buffer = |label, bytes: u64| {
            self.gpu.buffer(label, usize::try_from(bytes / 4).expect("at most 64 Mi numbers"))
        };
        let (source, to) = (buffer("source", bytes)?, buffer("to", bytes)?);
        let (small_source, small_to) = (buffer("small source", 4096)?, buffer("small to", 4096)?);
        let large = Copy { source: &source, to: &to }.bind(&self.gpu, &copy);
        let small = Copy { source: &small_source, to: &small_to }.bind(&self.gpu, &copy);
        let chains =
            MultiplyAdds { source: &small_source, to: &small_to }.bind(&self.gpu, &arithmetic);

        let copied = 2.0 * f64::from(u32::try_from(bytes).expect("at most 256 MiB"));
        // as many copies as take a while, by a few long workgroups or many short ones
        let times = number_of(0.02 / self.seconds_of(&copy, &large, 4096, 1)?).clamp(1, 128);
        let mut seconds = f64::INFINITY;
        for groups in [4096, 32_768] {
            seconds = seconds.min(self.seconds_of(&copy, &large, groups, times)?);
        }
        let copy_bandwidth = copied / seconds;
        // as many workgroups as take a while
        let mut groups = 8;
        while groups < 16_384 && self.seconds_of(&arithmetic, &chains, groups, 1)? < 0.02 {
            groups *= 4;
        }
        let seconds = self.seconds_of(&arithmetic, &chains, groups, 1)?;
        let multiply_adds = f64::from(groups) * f64::from(INVOCATIONS * CHAINS * TIMES) / seconds;
        let dispatch_gap = self.seconds_of(&copy, &small, 1, 512)?;
        Ok(Limits { copy_bandwidth, multiply_adds, dispatch_gap })
    }

    /// Seconds of one of `times` dispatches in a row, the best of five rows.
    fn seconds_of(
        &self,
        pipeline: &Pipeline,
        bound: &wgpu::BindGroup,
        groups: u32,
        times: u32,
    ) -> Result<f64> {
        let mut best = f64::INFINITY;
        for _ in 0..5 {
            let start = Instant::now();
            let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline.pipeline);
            pass.set_bind_group(0, bound, &[]);
            for _ in 0..times {
                pass.dispatch_workgroups(groups, 1, 1);
            }
            drop(pass);
            let submission = self.gpu.queue.submit([encoder.finish()]);
            self.gpu.wait(Some(submission))?;
            best = best.min(start.elapsed().as_secs_f64() / f64::from(times));
        }
        Ok(best)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn number_of(times: f64) -> u32 {
    times as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiply_adds_are_counted_as_the_shader_does_them() {
        let text = MultiplyAdds::KERNEL.text;
        let vectors = u32::try_from(text.matches("= fma(").count()).unwrap();
        assert_eq!(4 * vectors, CHAINS);
        assert!(text.contains(&format!("const TIMES = {TIMES}u;")));
        assert!(text.contains(&format!("@workgroup_size({INVOCATIONS})")));
    }
}
