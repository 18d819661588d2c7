//! Adapters and devices: what there is, and a device that reports its own death.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How long the host waits for the device before it gives it up for lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long it waits before it looks whether the device is still there.
const GLANCE: Duration = Duration::from_secs(1);

/// An adapter as `hebbian devices` lists it.
#[derive(Clone, Debug)]
pub struct AdapterDescription {
    /// Its index, for `gpu:INDEX`.
    pub index: usize,
    /// Name, driver, backend.
    pub info: wgpu::AdapterInfo,
    /// What it allows.
    pub limits: wgpu::Limits,
}

impl AdapterDescription {
    /// Whether the adapter is the CPU in disguise.
    #[must_use]
    pub fn is_software(&self) -> bool {
        self.info.device_type == wgpu::DeviceType::Cpu
    }
}

fn adapters() -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    let instance = wgpu::Instance::new(descriptor);
    let mut adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    // hardware first, discrete before integrated; stable, so that an index stays
    adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    adapters
}

/// Every adapter, the best first.
#[must_use]
pub fn list() -> Vec<AdapterDescription> {
    adapters()
        .into_iter()
        .enumerate()
        .map(|(index, adapter)| AdapterDescription {
            index,
            info: adapter.get_info(),
            limits: adapter.limits(),
        })
        .collect()
}

/// An open device.
pub(crate) struct Gpu {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) info: wgpu::AdapterInfo,
    pub(crate) limits: wgpu::Limits,
    /// What came back so far.
    pub(crate) bytes_read: AtomicU64,
    lost: Arc<AtomicBool>,
    failure: Arc<Mutex<Option<String>>>,
}

impl Gpu {
    /// Opens adapter `index` of [`list`]; none: the best. With `baseline`, asks for no
    /// more than every WebGPU device has.
    pub(crate) fn open(index: Option<usize>, baseline: bool) -> Result<Self> {
        let mut adapters = adapters();
        let n = adapters.len();
        let index = index.unwrap_or(0);
        if index >= n {
            let found = if n == 0 { "no GPU adapter".into() } else { format!("{n} adapters") };
            return Err(Error::Device {
                found,
                wanted: format!(
                    "adapter {index}; `hebbian devices` lists them (on Debian, \
                     mesa-vulkan-drivers and libvulkan1 give a software one)"
                ),
            });
        }
        let adapter = adapters.swap_remove(index);
        let info = adapter.get_info();
        let most = adapter.limits();
        let mut limits = wgpu::Limits::default();
        if !baseline {
            limits.max_storage_buffer_binding_size = most.max_storage_buffer_binding_size;
            limits.max_buffer_size = most.max_buffer_size;
            limits.max_compute_workgroup_storage_size = most.max_compute_workgroup_storage_size;
        }
        // to time updates with, where there are any
        let clock = wgpu::Features::TIMESTAMP_QUERY & adapter.features();
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("hebbian"),
            required_features: if baseline { wgpu::Features::empty() } else { clock },
            required_limits: limits.clone(),
            ..wgpu::DeviceDescriptor::default()
        };
        let (device, queue) =
            pollster::block_on(adapter.request_device(&descriptor)).map_err(|e| Error::Device {
                found: format!("{}: {e}", info.name),
                wanted: "a device".into(),
            })?;
        let lost = Arc::new(AtomicBool::new(false));
        let failure = Arc::new(Mutex::new(None));
        let (set, words) = (Arc::clone(&lost), Arc::clone(&failure));
        device.set_device_lost_callback(move |reason, message| {
            set.store(true, Ordering::SeqCst);
            keep_first(&words, format!("device lost ({reason:?}): {message}"));
        });
        let words = Arc::clone(&failure);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            keep_first(&words, error.to_string());
        }));
        Ok(Gpu { device, queue, info, limits, bytes_read: AtomicU64::new(0), lost, failure })
    }

    /// What went wrong since the device was opened, if anything.
    pub(crate) fn check(&self) -> Result<()> {
        let failure = self.failure.lock().map_or(None, |words| words.clone());
        match failure {
            Some(found) => Err(Error::Device { found, wanted: "a device that works".into() }),
            None if self.lost.load(Ordering::SeqCst) => {
                Err(Error::Device { found: "a lost device".into(), wanted: "one at work".into() })
            }
            None => Ok(()),
        }
    }

    /// Waits for `submission`, or for everything.
    pub(crate) fn wait(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let begun = Instant::now();
        loop {
            let timeout = Some(GLANCE);
            let submission_index = submission.clone();
            let poll = wgpu::PollType::Wait { submission_index, timeout };
            let waited = self.device.poll(poll);
            // a device that was lost does not always end the wait
            self.check()?;
            match waited {
                Ok(_) => return Ok(()),
                Err(wgpu::PollError::Timeout) if begun.elapsed() < PATIENCE => {}
                Err(e) => {
                    return Err(Error::Device {
                        found: format!("no answer within {} s ({e})", begun.elapsed().as_secs()),
                        wanted: "a device that finishes its work".into(),
                    });
                }
            }
        }
    }

    /// A storage buffer of `len` numbers (at least one).
    pub(crate) fn buffer(&self, label: &str, len: usize) -> Result<wgpu::Buffer> {
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        self.create(label, 4 * len.max(1) as u64, usage)
    }

    pub(crate) fn create(
        &self,
        label: &str,
        size: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer> {
        let limit = self.limits.max_buffer_size.min(self.limits.max_storage_buffer_binding_size);
        if size > limit {
            return Err(Error::Memory {
                what: format!("buffer {label}"),
                needed: size,
                available: limit,
                advice: "that is the device's limit for one buffer; fewer neurons, steps or \
                         networks need less"
                    .into(),
            });
        }
        let descriptor =
            wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        Ok(self.device.create_buffer(&descriptor))
    }

    /// Fills `buffer` with `value`'s bits, for tests.
    pub(crate) fn fill(&self, buffer: &wgpu::Buffer, value: u32) {
        let chunk = vec![value; 1 << 18];
        let mut at = 0;
        while at < buffer.size() {
            let len = (buffer.size() - at).min(4 << 18);
            let words = usize::try_from(len / 4).unwrap_or(0);
            self.queue.write_buffer(buffer, at, bytemuck::cast_slice(&chunk[..words]));
            at += len;
        }
    }

    /// Reads `len` numbers of `buffer` from number `first` on; waits.
    pub(crate) fn read(&self, buffer: &wgpu::Buffer, first: usize, len: usize) -> Result<Vec<f32>> {
        if len == 0 {
            return Ok(Vec::new());
        }
        let size = 4 * len as u64;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = self.create("read-back", size, usage)?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 4 * first as u64, &staging, 0, size);
        let submission = self.queue.submit([encoder.finish()]);
        staging.slice(..).map_async(wgpu::MapMode::Read, |_| ());
        self.wait(Some(submission))?;
        self.bytes_read.fetch_add(size, Ordering::Relaxed);
        mapped(&staging)
    }
}

/// The numbers of a mapped buffer, which is unmapped.
pub(crate) fn mapped(staging: &wgpu::Buffer) -> Result<Vec<f32>> {
    let range = staging.slice(..).get_mapped_range().map_err(|e| Error::Device {
        found: format!("a read-back that failed ({e})"),
        wanted: "a device at work".into(),
    })?;
    let values = bytemuck::pod_collect_to_vec(&range[..]);
    drop(range);
    staging.unmap();
    Ok(values)
}

fn keep_first(words: &Mutex<Option<String>>, text: String) {
    if let Ok(mut words) = words.lock() {
        words.get_or_insert(text);
    }
}
