//! The buffers of a program.

/// Buffers of one part of a batch, sized for the largest.
pub(super) struct Buffers {
    pub(super) record: wgpu::Buffer,
    pub(super) traces: Vec<wgpu::Buffer>,
    /// What rounding took from the trace stored last.
    pub(super) residual: wgpu::Buffer,
    pub(super) adjoint: wgpu::Buffer,
    pub(super) stimuli: wgpu::Buffer,
    pub(super) shown: wgpu::Buffer,
    pub(super) targets: wgpu::Buffer,
    pub(super) scored: wgpu::Buffer,
    pub(super) pre: wgpu::Buffer,
    pub(super) partial: wgpu::Buffer,
    pub(super) column_partial: wgpu::Buffer,
    pub(super) row_partial: wgpu::Buffer,
    pub(super) loss_rows: wgpu::Buffer,
    /// Of the layers around the core: what the one observes, and what is asked of the other; what they
    /// give, forward and backward.
    pub(super) observed: wgpu::Buffer,
    pub(super) asked: wgpu::Buffer,
    pub(super) outer: wgpu::Buffer,
    pub(super) d_observed: wgpu::Buffer,
    pub(super) rule_bar: wgpu::Buffer,
    /// What a rule's text keeps of every step.
    pub(super) state: wgpu::Buffer,
    pub(super) steps: wgpu::Buffer,
    pub(super) y_last: wgpu::Buffer,
}

/// Of a group: weight gradients by splits, and alpha's by quads.
pub(super) struct Sums {
    pub(super) d_connections: wgpu::Buffer,
    pub(super) alpha_quads: wgpu::Buffer,
}
