//! What the lanes of a vector are: sixteen post neurons of one episode, or one post neuron of
//! sixteen episodes (fewer on narrower instruction sets). The kernels are the same: a matrix
//! is rows of vectors, a row for each pre neuron.

use pulp::{Simd, WithSimd};

use crate::engine::cpu::panels::{BLOCK, Table};
use crate::engine::cpu::simd::{Instructions, Lanes, Vector};

/// See the module.
pub(crate) trait Form: Copy + Send + Sync {
    /// Whether the lanes are episodes.
    const EPISODES: bool;

    /// What w and alpha, which all episodes share, hold for a vector.
    type Shared<A: Simd, S: Lanes>: Copy;

    /// What a row of pre neurons holds for one of them.
    type Pre<A: Simd, S: Lanes>: Copy;

    /// w or alpha in such.
    fn shared<A: Simd, S: Lanes>(matrix: &[S]) -> &[Self::Shared<A, S>];

    /// One of them as a vector.
    fn load<A: Simd, S: Lanes>(a: A, shared: Self::Shared<A, S>) -> Vector<A, S>;

    /// A row of pre neurons.
    fn pre<A: Simd, S: Lanes>(row: &[S]) -> &[Self::Pre<A, S>];

    /// One of them as a vector.
    fn spread<A: Simd, S: Lanes>(a: A, pre: Self::Pre<A, S>) -> Vector<A, S>;

    /// Values `from..from + N` of a table's block of pre neurons.
    #[inline(always)]
    fn block<A: Simd, S: Lanes, const N: usize>(
        table: &Table<S>,
        block: usize,
        from: usize,
    ) -> &[[Self::Pre<A, S>; BLOCK]; N] {
        let all = Self::pre::<A, S>(table.blocks()).as_chunks().0;
        all[block * table.n() + from..].first_chunk().expect("as many values")
    }

    /// The values of the block's neuron `place` as vectors.
    #[inline(always)]
    fn values<A: Simd, S: Lanes, const N: usize>(
        a: A,
        block: &[[Self::Pre<A, S>; BLOCK]; N],
        place: usize,
    ) -> [Vector<A, S>; N] {
        let mut values = [S::splat(a, S::ZERO); N];
        for r in 0..N {
            values[r] = Self::spread(a, block[r][place]);
        }
        values
    }

    /// Sets the values of pre neurons `at..` to sums that stand in vectors.
    fn put<A: Simd, S: Lanes>(a: A, sums: &[Vector<A, S>], out: &mut [S], at: usize);
}

impl<S: Lanes> Instructions<S> {
    /// Runs a job whose lanes are as `F` has them: a vector of one lane holds no several episodes.
    #[inline(always)]
    pub(crate) fn run_form<F: Form, J: WithSimd>(self, job: J) -> J::Output {
        if const { F::EPISODES } { self.run_lanes(job) } else { self.run(job) }
    }
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

    type Shared<A: Simd, S: Lanes> = Vector<A, S>;
    type Pre<A: Simd, S: Lanes> = S;

    #[inline(always)]
    fn shared<A: Simd, S: Lanes>(matrix: &[S]) -> &[Vector<A, S>] {
        S::vectors::<A>(matrix)
    }

    #[inline(always)]
    fn load<A: Simd, S: Lanes>(_: A, shared: Vector<A, S>) -> Vector<A, S> {
        shared
    }

    #[inline(always)]
    fn pre<A: Simd, S: Lanes>(row: &[S]) -> &[S] {
        row
    }

    #[inline(always)]
    fn spread<A: Simd, S: Lanes>(a: A, pre: S) -> Vector<A, S> {
        S::splat(a, pre)
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

    type Shared<A: Simd, S: Lanes> = S;
    type Pre<A: Simd, S: Lanes> = Vector<A, S>;

    #[inline(always)]
    fn shared<A: Simd, S: Lanes>(matrix: &[S]) -> &[S] {
        matrix
    }

    #[inline(always)]
    fn load<A: Simd, S: Lanes>(a: A, shared: S) -> Vector<A, S> {
        S::splat(a, shared)
    }

    #[inline(always)]
    fn pre<A: Simd, S: Lanes>(row: &[S]) -> &[Vector<A, S>] {
        S::vectors::<A>(row)
    }

    #[inline(always)]
    fn spread<A: Simd, S: Lanes>(_: A, pre: Vector<A, S>) -> Vector<A, S> {
        pre
    }

    #[inline(always)]
    fn put<A: Simd, S: Lanes>(_: A, sums: &[Vector<A, S>], out: &mut [S], at: usize) {
        S::vectors_mut::<A>(out)[at..at + sums.len()].copy_from_slice(sums);
    }
}
