//! How long an update takes on the device, from timestamps around its passes.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::engine::DeviceTime;
use crate::engine::gpu::device::Gpu;
use crate::error::Result;

/// The most passes of an update; one of more is not timed.
const PASSES: u32 = 1024;
/// Of the two timestamps of a pass.
const BYTES: u64 = 16;

/// See the module.
pub(super) struct Clock {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    /// Seconds a tick.
    tick: f64,
    /// Passes of the update so far.
    n: AtomicU32,
}

impl Clock {
    /// None where the device has no timestamps.
    pub(super) fn new(gpu: &Gpu) -> Result<Option<Self>> {
        if !gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(None);
        }
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        Ok(Some(Clock {
            queries: gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("passes"),
                ty: wgpu::QueryType::Timestamp,
                count: 2 * PASSES,
            }),
            resolved: gpu.create("timestamps", BYTES * u64::from(PASSES), usage)?,
            tick: 1e-9 * f64::from(gpu.queue.get_timestamp_period()),
            n: AtomicU32::new(0),
        }))
    }

    /// Starts an update.
    pub(super) fn start(&self) {
        self.n.store(0, Ordering::Relaxed);
    }

    /// What the next pass is to write.
    pub(super) fn next(&self) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let k = self.n.fetch_add(1, Ordering::Relaxed);
        (k < PASSES).then_some(wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(2 * k),
            end_of_pass_write_index: Some(2 * k + 1),
        })
    }

    /// Bytes of the update's timestamps.
    pub(super) fn bytes(&self) -> u64 {
        let n = self.n.load(Ordering::Relaxed);
        if n > PASSES { 0 } else { BYTES * u64::from(n) }
    }

    /// Copies the update's timestamps to `staging`, from byte `at` on.
    pub(super) fn copy(&self, encoder: &mut wgpu::CommandEncoder, staging: &wgpu::Buffer, at: u64) {
        let bytes = self.bytes();
        if bytes > 0 {
            let n = self.n.load(Ordering::Relaxed);
            encoder.resolve_query_set(&self.queries, 0..2 * n, &self.resolved, 0);
            encoder.copy_buffer_to_buffer(&self.resolved, 0, staging, at, bytes);
        }
    }

    /// What copied timestamps tell; nothing where there are none, or where they do not go on.
    pub(super) fn read(&self, words: &[f32]) -> Option<DeviceTime> {
        let (halves, _) = words.as_chunks::<2>();
        let stamps: Vec<u64> = halves
            .iter()
            .map(|[low, high]| u64::from(low.to_bits()) | u64::from(high.to_bits()) << 32)
            .collect();
        let (passes, _) = stamps.as_chunks::<2>();
        let all = passes.last()?[1].checked_sub(passes.first()?[0]).filter(|&all| all > 0)?;
        let in_passes =
            passes.iter().try_fold(0, |sum, [begin, end]| Some(sum + end.checked_sub(*begin)?))?;
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of an update")]
        let seconds = |ticks: u64| ticks as f64 * self.tick;
        Some(DeviceTime { seconds: seconds(all), in_passes: seconds(in_passes) })
    }
}
