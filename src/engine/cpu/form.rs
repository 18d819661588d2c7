//! What the lanes of a vector are: sixteen post neurons of one episode, or one post neuron of
//! sixteen episodes (fewer on narrower instruction sets). The kernels are the same: a matrix
//! is rows of vectors, a row for each pre neuron.

use pulp::Simd;

use crate::engine::cpu::panels::{BLOCK, Table};
use crate::engine::cpu::simd::{Lanes, Vector};

/// See the module.
pub(crate) trait Form: Copy + Send + Sync {
    /// Whether the lanes are episodes.
    const EPISODES: bool;

    /// The elements of vectors `at..at + n` of w or alpha, which all episodes share.
    fn part<A: Simd, S: Lanes>(matrix: &[S], at: usize, n: usize) -> &[S];

    /// Vector number `at` of w or alpha.
    fn shared<A: Simd, S: Lanes>(a: A, matrix: &[S], at: usize) -> Vector<A, S>;

    /// Elements that hold a pre neuron's value.
    fn step<A: Simd, S: Lanes>() -> usize;

    /// A pre neuron's value, from element `at` on.
    fn pre<A: Simd, S: Lanes>(a: A, values: &[S], at: usize) -> Vector<A, S>;

    /// Sets the values of pre neurons `at..` to sums that stand in vectors.
    fn put<A: Simd, S: Lanes>(a: A, sums: &[Vector<A, S>], out: &mut [S], at: usize);
}

/// Elements of a vector.
#[inline(always)]
pub(crate) fn lanes_of<A: Simd, S: Lanes>() -> usize {
    size_of::<Vector<A, S>>() / size_of::<S>()
}

/// Lanes are post neurons.
#[derive(Clone, Copy)]
pub(crate) struct Neurons;

/// Lanes are episodes.
#[derive(Clone, Copy)]
pub(crate) struct Episodes;

impl Form for Neurons {
    const EPISODES: bool = false;

    #[inline(always)]
    fn part<A: Simd, S: Lanes>(matrix: &[S], at: usize, n: usize) -> &[S] {
        let lanes = lanes_of::<A, S>();
        &matrix[at * lanes..][..n * lanes]
    }

    #[inline(always)]
    fn shared<A: Simd, S: Lanes>(_: A, matrix: &[S], at: usize) -> Vector<A, S> {
        S::vectors::<A>(matrix)[at]
    }

    #[inline(always)]
    fn step<A: Simd, S: Lanes>() -> usize {
        1
    }

    #[inline(always)]
    fn pre<A: Simd, S: Lanes>(a: A, values: &[S], at: usize) -> Vector<A, S> {
        S::splat(a, values[at])
    }

    #[inline(always)]
    fn put<A: Simd, S: Lanes>(a: A, sums: &[Vector<A, S>], out: &mut [S], at: usize) {
        for (out, &sum) in out[at..at + sums.len()].iter_mut().zip(sums) {
            *out = S::total(a, sum);
        }
    }
}

impl Form for Episodes {
    const EPISODES: bool = true;

    #[inline(always)]
    fn part<A: Simd, S: Lanes>(matrix: &[S], at: usize, n: usize) -> &[S] {
        &matrix[at..][..n]
    }

    #[inline(always)]
    fn shared<A: Simd, S: Lanes>(a: A, matrix: &[S], at: usize) -> Vector<A, S> {
        S::splat(a, matrix[at])
    }

    #[inline(always)]
    fn step<A: Simd, S: Lanes>() -> usize {
        lanes_of::<A, S>()
    }

    #[inline(always)]
    fn pre<A: Simd, S: Lanes>(_: A, values: &[S], at: usize) -> Vector<A, S> {
        S::vectors::<A>(&values[at..])[0]
    }

    #[inline(always)]
    fn put<A: Simd, S: Lanes>(_: A, sums: &[Vector<A, S>], out: &mut [S], at: usize) {
        S::vectors_mut::<A>(out)[at..at + sums.len()].copy_from_slice(sums);
    }
}

/// What belongs to a few pre neurons: values of a table.
#[derive(Clone, Copy)]
pub(crate) struct Pre<'a, S> {
    values: &'a [S],
    /// Elements of a block, all its values together.
    block: usize,
}

impl<'a, S: Lanes> Pre<'a, S> {
    /// Those of neuron `row` and the next ones of its group.
    #[inline(always)]
    pub(crate) fn of<A: Simd, F: Form>(table: &'a Table<S>, row: usize) -> Self {
        let (at, block) = (row * F::step::<A, S>(), table.n() * BLOCK);
        Pre { values: &table.blocks()[at / BLOCK * block + at % BLOCK..], block }
    }

    /// Value `k` of the `q`-th neuron.
    #[inline(always)]
    pub(crate) fn get<A: Simd, F: Form>(self, a: A, k: usize, q: usize) -> Vector<A, S> {
        let at = q * F::step::<A, S>();
        F::pre(a, self.values, at / BLOCK * self.block + k * BLOCK + at % BLOCK)
    }
}
