//! Which slots of the record a network has, and which kernels it needs around its core.

use crate::engine::gpu::RECORD_SLOTS;
use crate::engine::gpu::kernels::{Drive, ObservedBack, OuterGradients, ReadOut};
use crate::model::{Leak, Network, Rule};

/// Numbers of the record's slots that some networks have, 0 for none: the overrides of
/// `shaders/lib/job.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slots {
    pub(crate) drive: usize,
    /// m as data, and in the next one dL/dm.
    pub(crate) given: usize,
    pub(crate) leaked: usize,
    pub(crate) d_y: usize,
    /// dL/dy, dL/dz and dL/dm through a rule's text.
    pub(crate) bars: usize,
    /// Which steps are reset, and which no gradient passes; then dL/dy(0) and dL/dv(0) of resets.
    pub(crate) marks: usize,
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
            bars: take(is_general(network), 3),
            marks: take(is_general(network), 2),
            n: 0,
        };
        Slots { n, ..slots }
    }
}

/// Whether the general plan runs the network: its rule is a text, or its episodes may bring resets,
/// truncation or a cotangent of H.
pub(crate) fn is_general(network: &Network) -> bool {
    network.rule == Rule::Custom || network.stages.general
}

/// Whether the network has more than the resident plan runs.
pub(crate) fn surrounds(network: &Network, modulated: bool) -> bool {
    Slots::of(network, modulated).n > RECORD_SLOTS
}

/// Whether a kernel is of a plan for this network: those around a core are where it has what they do.
pub(crate) fn needs(network: &Network, stem: &str) -> bool {
    let stages = &network.stages;
    let (input, output) = (stages.input.is_some(), stages.output.is_some());
    let kernels = [
        (Drive::KERNEL.stem, input || stages.bias.is_some()),
        (ReadOut::KERNEL.stem, output),
        (OuterGradients::KERNEL.stem, input || output),
        (ObservedBack::KERNEL.stem, input),
    ];
    kernels.into_iter().find(|(name, _)| *name == stem).is_none_or(|(_, needed)| needed)
}

/// Sizes of the layers around the core: K inputs and O outputs.
pub(crate) fn sizes(network: &Network) -> [usize; 2] {
    [network.stages.input, network.stages.output].map(|layer| layer.map_or(0, |layer| layer.size))
}
