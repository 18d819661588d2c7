//! How long an update takes on the device, from timestamps around its passes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::gpu::device::Gpu;
use crate::engine::gpu::number;
use crate::engine::{DeviceTime, KernelTime};
use crate::error::Result;

/// The most passes of an update; one of more is not timed.
const PASSES: usize = 2048;
/// Of the two timestamps of a pass.
const BYTES: u64 = 16;

/// The names of an update's passes, in order.
pub(super) type Passes = Vec<&'static str>;

/// See the module.
pub(super) struct Clock {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    /// Seconds a tick.
    tick: f64,
    /// Whether a pass is of one kernel.
    by_kernel: bool,
    /// Names of the update's passes so far.
    passes: Mutex<Passes>,
}

impl Clock {
    /// None where the device has no timestamps.
    pub(super) fn new(gpu: &Gpu, by_kernel: bool) -> Result<Option<Self>> {
        if !gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(None);
        }
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        Ok(Some(Clock {
            queries: gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("passes"),
                ty: wgpu::QueryType::Timestamp,
                count: 2 * number(PASSES),
            }),
            resolved: gpu.create("timestamps", BYTES * PASSES as u64, usage)?,
            tick: 1e-9 * f64::from(gpu.queue.get_timestamp_period()),
            by_kernel,
            passes: Mutex::default(),
        }))
    }

    /// What the next pass, of that name, is to write.
    pub(super) fn next(&self, name: &'static str) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let mut passes = self.passes();
        let k = number(passes.len());
        // one too many tells that there were
        if passes.len() <= PASSES {
            passes.push(name);
        }
        (passes.len() <= PASSES).then_some(wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(2 * k),
            end_of_pass_write_index: Some(2 * k + 1),
        })
    }

    /// Ends an update: the passes that were timed, none if there were too many.
    pub(super) fn take(&self) -> Passes {
        let passes = std::mem::take(&mut *self.passes());
        if passes.len() > PASSES { Passes::new() } else { passes }
    }

    fn passes(&self) -> MutexGuard<'_, Passes> {
        self.passes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of so many passes' timestamps.
    pub(super) fn bytes(passes: &Passes) -> u64 {
        BYTES * passes.len() as u64
    }

    /// Copies their timestamps to `staging`, from byte `at` on.
    pub(super) fn copy(
        &self,
        passes: &Passes,
        encoder: &mut wgpu::CommandEncoder,
        staging: &wgpu::Buffer,
        at: u64,
    ) {
        if !passes.is_empty() {
            encoder.resolve_query_set(
                &self.queries,
                0..2 * number(passes.len()),
                &self.resolved,
                0,
            );
            encoder.copy_buffer_to_buffer(&self.resolved, 0, staging, at, Self::bytes(passes));
        }
    }

    /// What copied timestamps tell; nothing where there are none, or where they do not go on.
    pub(super) fn read(&self, passes: &Passes, words: &[f32]) -> Option<DeviceTime> {
        let (halves, _) = words.as_chunks::<2>();
        let stamps: Vec<u64> = halves
            .iter()
            .map(|[low, high]| u64::from(low.to_bits()) | u64::from(high.to_bits()) << 32)
            .collect();
        let (times, _) = stamps.as_chunks::<2>();
        let all = times.last()?[1].checked_sub(times.first()?[0]).filter(|&all| all > 0)?;
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of an update")]
        let seconds = |ticks: u64| ticks as f64 * self.tick;
        let mut kernels: Vec<KernelTime> = Vec::new();
        let mut in_passes = 0.0;
        for (&kernel, [begin, end]) in passes.iter().zip(times) {
            let took = seconds(end.checked_sub(*begin)?);
            in_passes += took;
            match kernels.iter_mut().find(|k| k.kernel == kernel) {
                _ if !self.by_kernel => {}
                Some(k) => {
                    k.passes += 1;
                    k.seconds += took;
                }
                None => kernels.push(KernelTime { kernel, passes: 1, seconds: took }),
            }
        }
        Some(DeviceTime { seconds: seconds(all), in_passes, kernels })
    }
}
