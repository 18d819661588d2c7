//! What stands around the core of an episode on a device: bias and input layer, leaks, m as data,
//! read-out and its loss, cotangents. Vectors of N numbers a step lie in slots of the record that a
//! network without them has not; those of other sizes in buffers of their own.

use crate::engine::gpu::kernels::{ObservedBack, grid};
use crate::engine::gpu::prepare::{Part, Prepared};
use crate::engine::gpu::{GpuEngine, RECORD_SLOTS, Z};
use crate::error::Result;
use crate::model::{Leak, Network, Signals};

/// Numbers of the record's slots that some networks have, 0 for none: the overrides of
/// `shaders/lib/job.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slots {
    pub(crate) drive: usize,
    /// m as data, and in the next one dL/dm.
    pub(crate) given: usize,
    pub(crate) leaked: usize,
    pub(crate) d_y: usize,
    /// How many slots there are.
    pub(crate) n: usize,
}

impl Slots {
    /// Of a network whose episodes bring m, or do not.
    pub(crate) fn of(network: &Network, modulated: bool) -> Self {
        let stages = &network.stages;
        let mut n = RECORD_SLOTS;
        let mut take = |wanted: bool, slots: usize| {
            let first = n;
            n += if wanted { slots } else { 0 };
            if wanted { first } else { 0 }
        };
        let rate = matches!(stages.leak, Some((Leak::Rate, _)));
        let slots = Slots {
            drive: take(stages.bias.is_some() || stages.input.is_some(), 1),
            given: take(modulated, 2),
            leaked: take(stages.leak.is_some(), 1),
            d_y: take(rate || stages.output.is_some() || stages.cotangents, 1),
            n: 0,
        };
        Slots { n, ..slots }
    }
}

/// Whether the network has more than the resident plan runs.
pub(crate) fn surrounds(network: &Network, modulated: bool) -> bool {
    Slots::of(network, modulated).n > RECORD_SLOTS
}

/// Sizes of the layers around the core: K inputs and O outputs.
pub(crate) fn sizes(network: &Network) -> [usize; 2] {
    [network.stages.input, network.stages.output].map(|layer| layer.map_or(0, |layer| layer.size))
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
        let own = |list: &'_ [f32], len: usize| list[first * len..][..count * len].to_vec();
        if let (Some(m), true) = (&signals.m, slots.given > 0) {
            let width = m.len() / (self.network.n_networks * shape.n_batch * t);
            let mut rows = vec![0.0; slot];
            let given = own(m, t * width);
            for (rows, given) in rows.chunks_mut((t + 1) * n).zip(given.chunks(t * width)) {
                for (row, given) in rows.chunks_mut(n).zip(given.chunks(width)) {
                    let each = row.iter_mut().enumerate();
                    each.for_each(|(j, value)| *value = given[j.min(width - 1)]);
                }
            }
            let at = 4 * (slots.given * slot) as u64;
            queue.write_buffer(&b.record, at, bytemuck::cast_slice(&rows));
        }
        if let Some(dy) = &signals.dy {
            for (e, rows) in own(dy, t * n).chunks(t * n).enumerate() {
                let at = 4 * (slots.d_y * slot + e * (t + 1) * n) as u64;
                queue.write_buffer(&b.record, at, bytemuck::cast_slice(rows));
            }
        }
        if self.leaks_by_membrane() && !alive {
            let zeros = vec![0.0; n];
            for e in 0..count {
                let v0 = signals.v0.as_ref().map_or(&zeros[..], |v0| &v0[(first + e) * n..][..n]);
                let at = 4 * (slots.leaked * slot + e * (t + 1) * n) as u64;
                queue.write_buffer(&b.record, at, bytemuck::cast_slice(v0));
            }
        }
        let [n_observed, n_outputs] = sizes(&self.network);
        if let Some(observed) = &signals.observed {
            let values = own(observed, t * n_observed);
            queue.write_buffer(&b.observed, 0, bytemuck::cast_slice(&values));
        }
        if n_outputs > 0 {
            let [target, weight] = match &signals.output_targets {
                Some([target, weight]) => [Some(target), Some(weight)],
                None => [None, None],
            };
            let len = t * n_outputs;
            let planes = [target, weight, signals.dout.as_ref()];
            let values: Vec<f32> = planes
                .into_iter()
                .flat_map(|plane| plane.map_or(vec![0.0; count * len], |list| own(list, len)))
                .collect();
            queue.write_buffer(&b.asked, 0, bytemuck::cast_slice(&values));
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

    /// v after the last step and the read-out, of a part that ran.
    pub(super) fn read_outer(
        &self,
        prepared: &Prepared,
        part: &Part,
        [v, out]: [&mut Vec<f32>; 2],
    ) -> Result<()> {
        let t = prepared.shape.n_steps;
        if self.leaks_by_membrane() {
            v.extend(self.rows(prepared, part, prepared.slots.leaked, (t, 1))?);
        }
        let [_, n_outputs] = sizes(&self.network);
        if n_outputs > 0 {
            let len = part.n_episodes() * t * n_outputs;
            out.extend(self.gpu().read(&prepared.buffers.outer, 0, len)?);
        }
        Ok(())
    }

    /// What the input layer of a part sends back, which no update needs.
    pub(super) fn dispatch_observed_back(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        prepared: &Prepared,
        part: &Part,
    ) {
        let around = (&prepared.pipelines.around, &prepared.bound[part.group].around);
        let (Some(pipelines), Some(bound)) = around else { unreachable!("an input layer") };
        let [x, y, z] = grid(part.n_episodes() * prepared.shape.n_steps);
        pass.set_pipeline(&pipelines.observed_back.pipeline);
        pass.set_bind_group(0, &bound.observed_back, &[]);
        pass.dispatch_workgroups(x, y, z);
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
