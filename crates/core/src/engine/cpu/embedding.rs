//! Convolutions before a feed-forward layer, as products of matrices: the patches of some images by the
//! weights.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};
use pulp::{Simd, WithSimd};

use crate::engine::cpu::each;
use crate::engine::cpu::simd::{Instructions, Lanes};
use crate::model::{Embedding, Episodes, Network, Parameters, Signals, Tensor};

/// Images of a product: enough that a product is worth its call, few enough that patches stay in a core's
/// cache. The sums of a gradient follow their order, whoever takes which.
const IMAGES: usize = 16;

/// Groups of images whose gradients are held at a time, for some threads each.
const AT_A_TIME: usize = 32;

/// What the embedding of a batch left for its backward pass.
pub(crate) struct Embedded<S> {
    /// For each group of images, in the order of memory: the network, and every layer's output, the images
    /// first: `[image, y, x, map]`.
    groups: Vec<(usize, Vec<Vec<S>>)>,
}

impl<S> Default for Embedded<S> {
    fn default() -> Self {
        Embedded { groups: Vec::new() }
    }
}

/// Numbers that are kept of an image, with its gradient.
pub(crate) fn numbers(embedding: Embedding) -> usize {
    let sizes = embedding.sides().enumerate();
    sizes.map(|(k, side)| side * side * if k == 0 { 1 } else { embedding.channels }).sum()
}

impl<S: Lanes> Embedded<S> {
    /// The episodes with the features of their images as pre-synaptic activity; none for networks
    /// without an embedding.
    pub(crate) fn forward(
        &mut self,
        network: &Network,
        parameters: &Parameters<S>,
        episodes: &Episodes<S>,
    ) -> Option<Episodes<S>> {
        let embedding = network.stages.embedding?;
        let images = episodes.signals.images.as_ref()?;
        let pixels = embedding.side * embedding.side;
        let of_network = images.len() / network.n_networks;
        let parts = images.chunks(of_network).enumerate();
        self.groups = parts
            .flat_map(|(p, images)| images.chunks(IMAGES * pixels).map(move |some| (p, some)))
            .map(|(p, images)| (p, vec![images.to_vec()]))
            .collect();
        let arch = Instructions::<S>::widest();
        each(self.groups.iter_mut(), 0, |(p, outputs)| {
            let n = outputs[0].len() / pixels;
            for (k, shape) in shapes(embedding, n).enumerate() {
                let weights = parameters.get(*p, Tensor::ConvW(k));
                let bias = parameters.get(*p, Tensor::ConvB(k));
                let patches = shape.patches(&outputs[k]);
                let mut out: Vec<S> =
                    bias.iter().copied().cycle().take(shape.n_patches() * bias.len()).collect();
                product(&patches, false, weights, false, &mut out, bias.len());
                arch.run(Tanh(&mut out));
                outputs.push(out);
            }
        });
        let features = self.groups.iter().filter_map(|(_, outputs)| outputs.last());
        Some(Episodes {
            shape: episodes.shape,
            stimuli: episodes.stimuli.clone(),
            clamps: episodes.clamps.clone(),
            shown: episodes.shown.clone(),
            targets: episodes.targets.clone(),
            loss_weights: episodes.loss_weights.clone(),
            scored: episodes.scored.clone(),
            pre: Some(features.flatten().copied().collect()),
            y0: episodes.y0.clone(),
            h0: episodes.h0.clone(),
            e0: episodes.e0.clone(),
            signals: Signals { images: None, ..episodes.signals.clone() },
        })
    }

    /// Writes, or adds, the gradients of the embedding's parameters: `features` is dL/dx of the images of
    /// the last forward pass.
    pub(crate) fn backward(
        &mut self,
        network: &Network,
        parameters: &Parameters<S>,
        features: &[S],
        gradients: &mut Parameters<S>,
        add: bool,
    ) {
        let Some(embedding) = network.stages.embedding else { return };
        let mut rest = features;
        let jobs: Vec<_> = self
            .groups
            .drain(..)
            .map(|(p, outputs)| {
                let (own, others) = rest.split_at(outputs[embedding.layers].len());
                rest = others;
                (p, outputs, own)
            })
            .collect();
        for p in (0..network.n_networks).filter(|_| !add) {
            for k in 0..embedding.layers {
                gradients.get_mut(p, Tensor::ConvW(k)).fill(S::ZERO);
                gradients.get_mut(p, Tensor::ConvB(k)).fill(S::ZERO);
            }
        }
        let mut jobs = jobs.into_iter();
        loop {
            let some: Vec<_> = jobs.by_ref().take(AT_A_TIME).collect();
            if some.is_empty() {
                break;
            }
            let networks: Vec<usize> = some.iter().map(|(p, ..)| *p).collect();
            let mut found: Vec<Vec<[Vec<S>; 2]>> = some.iter().map(|_| Vec::new()).collect();
            each(some.into_iter().zip(&mut found), 0, |((p, outputs, d_features), found)| {
                *found = of_group(embedding, parameters, (p, &outputs), d_features);
            });
            for (p, layers) in networks.into_iter().zip(found) {
                for (k, [weights, bias]) in layers.into_iter().rev().enumerate() {
                    for (tensor, values) in [(Tensor::ConvW(k), weights), (Tensor::ConvB(k), bias)]
                    {
                        let to = gradients.get_mut(p, tensor);
                        to.iter_mut().zip(values).for_each(|(sum, d)| *sum += d);
                    }
                }
            }
        }
    }
}

/// The gradients of weights and biases that a group of images has, the last layer first.
fn of_group<S: Lanes>(
    embedding: Embedding,
    parameters: &Parameters<S>,
    (p, outputs): (usize, &[Vec<S>]),
    d_features: &[S],
) -> Vec<[Vec<S>; 2]> {
    let mut found = Vec::new();
    let n = outputs[0].len() / (embedding.side * embedding.side);
    let mut d = d_features.to_vec();
    let shapes: Vec<Layer> = shapes(embedding, n).collect();
    for (k, shape) in shapes.iter().enumerate().rev() {
        for (d, &y) in d.iter_mut().zip(&outputs[k + 1]) {
            *d = *d * (S::ONE - y * y);
        }
        let channels = embedding.channels;
        let patches = shape.patches(&outputs[k]);
        let mut d_weights = vec![S::ZERO; shape.width() * channels];
        product(&patches, true, &d, false, &mut d_weights, channels);
        let mut d_bias = vec![S::ZERO; channels];
        for row in d.chunks_exact(channels) {
            d_bias.iter_mut().zip(row).for_each(|(sum, &d)| *sum += d);
        }
        found.push([d_weights, d_bias]);
        if k > 0 {
            let weights = parameters.get(p, Tensor::ConvW(k));
            let mut d_patches = patches;
            d_patches.fill(S::ZERO);
            product(&d, false, weights, true, &mut d_patches, shape.width());
            d = shape.images(&d_patches);
        }
    }
    found
}

/// Replaces numbers by their tanh.
struct Tanh<'a, S>(&'a mut [S]);

impl<S: Lanes> WithSimd for Tanh<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, _: A) {
        self.0.iter_mut().for_each(|z| *z = z.tanh());
    }
}

/// A layer's sizes for some images.
#[derive(Clone, Copy)]
struct Layer {
    n: usize,
    side: usize,
    channels: usize,
    /// Along a side of the output.
    out: usize,
}

fn shapes(embedding: Embedding, n: usize) -> impl Iterator<Item = Layer> {
    let sides: Vec<usize> = embedding.sides().collect();
    (0..embedding.layers).map(move |k| Layer {
        n,
        side: sides[k],
        channels: embedding.channels_into(k),
        out: sides[k + 1],
    })
}

impl Layer {
    fn n_patches(self) -> usize {
        self.n * self.out * self.out
    }

    /// Numbers of a patch.
    fn width(self) -> usize {
        9 * self.channels
    }

    /// Calls `work` with the places of every three pixels in a row of a patch: in the patches, and in the
    /// images.
    fn rows(self, mut work: impl FnMut(usize, usize)) {
        let Layer { n, side, channels, out } = self;
        for patch in 0..n * out * out {
            let (image, y, x) = (patch / (out * out), patch / out % out, patch % out);
            for row in 0..3 {
                let pixel = (image * side + 2 * y + row) * side + 2 * x;
                work((patch * 3 + row) * 3 * channels, pixel * channels);
            }
        }
    }

    /// The patches of images `[n_patches, width]`.
    fn patches<S: Lanes>(self, images: &[S]) -> Vec<S> {
        let mut patches = vec![S::ZERO; self.n_patches() * self.width()];
        let len = 3 * self.channels;
        self.rows(|patch, image| {
            patches[patch..][..len].copy_from_slice(&images[image..][..len]);
        });
        patches
    }

    /// Patches summed to where they were taken from.
    fn images<S: Lanes>(self, patches: &[S]) -> Vec<S> {
        let mut images = vec![S::ZERO; self.n * self.side * self.side * self.channels];
        let len = 3 * self.channels;
        self.rows(|patch, image| {
            let to = images[image..][..len].iter_mut();
            to.zip(&patches[patch..][..len]).for_each(|(sum, &d)| *sum += d);
        });
        images
    }
}

/// Adds the product of two matrices, each transposed where that is said, to `out`, which has `columns`
/// columns.
fn product<S: Lanes>(
    a: &[S],
    a_transposed: bool,
    b: &[S],
    b_transposed: bool,
    out: &mut [S],
    columns: usize,
) {
    let rows = out.len() / columns;
    let inner = a.len() / rows;
    let view = |values, shape: [usize; 2], transposed: bool| {
        let [rows, columns] = shape;
        let stored = if transposed { (columns, rows) } else { (rows, columns) };
        let view = ArrayView2::from_shape(stored, values).expect("sizes of a layer");
        if transposed { view.reversed_axes() } else { view }
    };
    let a = view(a, [rows, inner], a_transposed);
    let b = view(b, [inner, columns], b_transposed);
    let mut out = ArrayViewMut2::from_shape((rows, columns), out).expect("sizes of a layer");
    general_mat_mul(S::ONE, &a, &b, S::ONE, &mut out);
}
