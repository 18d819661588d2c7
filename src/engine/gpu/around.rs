//! What stands around the core of an episode on a device: bias and input layer, leaks, m as data,
//! read-out and its loss, cotangents. Vectors of N numbers a step lie in slots of the record that a
//! network without them has not; those of other sizes in buffers of their own.

use crate::engine::gpu::kernels::{ObservedBack, grid};
use crate::engine::gpu::plan::INVOCATIONS;
use crate::engine::gpu::prepare::{Part, Prepared};
use crate::engine::gpu::slots::sizes;
use crate::engine::gpu::{GpuEngine, Z, number};
use crate::error::Result;
use crate::model::{Leak, Signals};

/// What is asked of the read-out: targets, weights and cotangents, where they are given.
fn asked(signals: &Signals<f32>) -> [Option<&Vec<f32>>; 3] {
    let [target, weight] = match &signals.output_targets {
        Some([target, weight]) => [Some(target), Some(weight)],
        None => [None, None],
    };
    [target, weight, signals.dout.as_ref()]
}

impl GpuEngine {
    /// Hands over what the part's episodes bring beside the core's.
    pub(super) fn upload_signals(
        &self,
        prepared: &Prepared,
        part: &Part,
        signals: &Signals<f32>,
        alive: bool,
    ) {
        let queue = &self.gpu().queue;
        let (b, shape, slots) = (&prepared.buffers, &prepared.shape, prepared.slots);
        let (first, count) = (part.first_episode, part.n_episodes());
        let (n, t) = (self.network.n_post, shape.n_steps);
        let slot = count * (t + 1) * n;
        let own = |len: usize| first * len..(first + count) * len;
        let put = |which: usize, e: usize, rows: &[f32]| {
            let at = 4 * (which * slot + e * (t + 1) * n) as u64;
            queue.write_buffer(&b.record, at, bytemuck::cast_slice(rows));
        };
        if let Some(m) = &signals.m {
            let width = m.len() / (self.network.n_networks * shape.n_batch * t);
            let mut rows = vec![0.0; if width == n { 0 } else { t * n }];
            for (e, given) in m[own(t * width)].chunks(t * width).enumerate() {
                if width == n {
                    put(slots.given, e, given);
                    continue;
                }
                rows.chunks_mut(n).zip(given).for_each(|(row, &m)| row.fill(m));
                put(slots.given, e, &rows);
            }
        }
        if let Some(dy) = &signals.dy {
            let each = dy[own(t * n)].chunks(t * n).enumerate();
            each.for_each(|(e, rows)| put(slots.d_y, e, rows));
        }
        let is_new = prepared.start_written || signals.v0.is_some();
        if self.leaks_by_membrane() && !alive && is_new {
            let zeros = vec![0.0; n];
            for e in 0..count {
                let v0 = signals.v0.as_ref().map_or(&zeros[..], |v0| &v0[(first + e) * n..][..n]);
                put(slots.leaked, e, v0);
            }
        }
        let [n_observed, n_outputs] = sizes(&self.network);
        if let Some(observed) = &signals.observed {
            let values = &observed[own(t * n_observed)];
            queue.write_buffer(&b.observed, 0, bytemuck::cast_slice(values));
        }
        for (k, plane) in asked(signals).into_iter().enumerate() {
            let Some(plane) = plane else { continue };
            let values = &plane[own(t * n_outputs)];
            let at = (k * size_of_val(values)) as u64;
            queue.write_buffer(&b.asked, at, bytemuck::cast_slice(values));
        }
    }

    /// Clears what a part's kernels add to, where nobody hands it over.
    pub(super) fn clear_cotangents(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        prepared: &Prepared,
        part: &Part,
        signals: &Signals<f32>,
    ) {
        let (slot, d_y) = (prepared.slot_bytes(part, self.network.n_post), prepared.slots.d_y);
        if d_y > 0 && signals.dy.is_none() {
            encoder.clear_buffer(&prepared.buffers.record, d_y as u64 * slot, Some(slot));
        }
        let [_, n_outputs] = sizes(&self.network);
        let plane = 4 * (part.n_episodes() * prepared.shape.n_steps * n_outputs) as u64;
        for (k, given) in (0..).zip(asked(signals)) {
            if given.is_none() && plane > 0 {
                encoder.clear_buffer(&prepared.buffers.asked, k * plane, Some(plane));
            }
        }
    }

    pub(super) fn leaks_by_membrane(&self) -> bool {
        matches!(self.network.stages.leak, Some((Leak::Membrane, _)))
    }

    /// Rows of the record of a part: of each episode the `rows` from row `skip` on.
    pub(super) fn rows(
        &self,
        prepared: &Prepared,
        part: &Part,
        slot: usize,
        (skip, rows): (usize, usize),
    ) -> Result<Vec<f32>> {
        let n = self.network.n_post;
        let one = (prepared.shape.n_steps + 1) * n;
        let len = part.n_episodes() * one;
        let all = self.gpu().read(&prepared.buffers.record, slot * len, len)?;
        Ok(all.chunks(one).flat_map(|e| &e[skip * n..(skip + rows) * n]).copied().collect())
    }

    /// v after the last step of a part that ran; none without a membrane that leaks.
    pub(super) fn read_v(&self, prepared: &Prepared, part: &Part) -> Result<Vec<f32>> {
        match self.leaks_by_membrane() {
            true => self.rows(prepared, part, prepared.slots.leaked, (prepared.shape.n_steps, 1)),
            false => Ok(Vec::new()),
        }
    }

    /// The read-out of a part that ran; none of a network without one.
    pub(super) fn read_out(&self, prepared: &Prepared, part: &Part) -> Result<Vec<f32>> {
        match sizes(&self.network) {
            [_, 0] => Ok(Vec::new()),
            [_, n_outputs] => {
                let len = part.n_episodes() * prepared.shape.n_steps * n_outputs;
                self.gpu().read(&prepared.buffers.outer, 0, len)
            }
        }
    }

    /// What the input layer of a part sends back, which no update needs.
    pub(super) fn dispatch_observed_back(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        prepared: &Prepared,
        part: &Part,
    ) {
        let pipeline = prepared.pipelines.around.observed_back.as_ref();
        let bound = prepared.bound[part.group].around.observed_back.as_ref();
        let [x, y, _] = grid(part.n_episodes() * prepared.shape.n_steps);
        let [n_observed, _] = sizes(&self.network);
        pass.set_pipeline(&pipeline.expect("there is an input layer").pipeline);
        pass.set_bind_group(0, bound.expect("there is an input layer"), &[]);
        pass.dispatch_workgroups(x, y, number(n_observed.div_ceil(INVOCATIONS as usize)));
    }

    /// Gradients with respect to what the episodes of a part bring, after its backward pass.
    pub(super) fn read_signals(
        &self,
        prepared: &Prepared,
        part: &Part,
        signals: &Signals<f32>,
        found: &mut Signals<f32>,
    ) -> Result<()> {
        let (n, t, slots) = (self.network.n_post, prepared.shape.n_steps, prepared.slots);
        if let Some(m) = &signals.m {
            let rows = self.rows(prepared, part, slots.given + 1, (0, t))?;
            let total = self.network.n_networks * prepared.shape.n_batch * t;
            let each = found.m.get_or_insert_default();
            if m.len() == total {
                each.extend(rows.chunks(n).map(|row| row.iter().sum::<f32>()));
            } else {
                each.extend(rows);
            }
        }
        if signals.v0.is_some() {
            let rows = self.rows(prepared, part, Z, (t, 1))?;
            found.v0.get_or_insert_default().extend(rows);
        }
        if signals.observed.is_some() {
            let gpu = self.gpu();
            let [n_observed, _] = sizes(&self.network);
            let len = part.n_episodes() * t * n_observed;
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            let mut pass = self.pass(&mut encoder, ObservedBack::KERNEL.stem);
            self.dispatch_observed_back(&mut pass, prepared, part);
            drop(pass);
            gpu.queue.submit([encoder.finish()]);
            let values = gpu.read(&prepared.buffers.d_observed, 0, len)?;
            found.observed.get_or_insert_default().extend(values);
        }
        Ok(())
    }
}
