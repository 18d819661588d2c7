//! Traces as a user sees them, row by row, taken through steps whose coefficients are known:
//!
//! ```text
//! H' = clip(d H + c x)                          E' absent
//! H' = clip(H + m E),  E' = d E + c x           two traces
//! ```
//!
//! Without a clip the steps are summed up first, in O(T N): `H = keep H + sum_t weight_t x_t`.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::engine::cpu::form::lanes_of;
use crate::engine::cpu::simd::{Lanes, vectors_mut_of, vectors_of};

/// What happens to the traces of one episode at some steps.
pub(crate) struct Evolve<'a, S> {
    /// Post neurons.
    pub(crate) n: usize,
    /// `[T][M]`: x of the pre neurons.
    pub(crate) x: &'a [&'a [S]],
    /// `[T][N]` of the rule: d, c, and m where there are two traces, else empty.
    pub(crate) d: &'a [&'a [S]],
    pub(crate) c: &'a [&'a [S]],
    pub(crate) m: &'a [&'a [S]],
    pub(crate) clip: Option<S>,
    /// H, and E where there are two, `[M, N]`: before the steps, then after them.
    pub(crate) h: &'a mut [S],
    pub(crate) e: &'a mut [S],
}

/// Rows, and vectors of a row, whose sums are in registers at a time.
const ROWS: usize = 4;
const VECTORS: usize = 2;

impl<S: Lanes> WithSimd for Evolve<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        if self.clip.is_none() && self.x.len() > 1 {
            self.summed(a);
        } else {
            self.step_by_step(a);
        }
    }
}

impl<S: Lanes> Evolve<'_, S> {
    #[inline(always)]
    fn step_by_step<A: Simd>(self, a: A) {
        let n = self.n;
        let bound = self.clip.unwrap_or(S::from_f64(f64::INFINITY));
        let two = !self.e.is_empty();
        for i in 0..self.h.len() / n {
            let h = &mut self.h[i * n..][..n];
            let e = if two { &mut self.e[i * n..][..n] } else { &mut [][..] };
            for (t, x) in self.x.iter().enumerate() {
                let (d, c) = (&self.d[t][..n], &self.c[t][..n]);
                if two {
                    two_traces(a, x[i], [d, c, &self.m[t][..n]], bound, h, e);
                } else {
                    one_trace(a, x[i], [d, c], bound, h);
                }
            }
        }
    }

    #[inline(always)]
    fn summed<A: Simd>(self, a: A) {
        let (n, t) = (self.n, self.x.len());
        if self.e.is_empty() {
            let mut keep = vec![S::ONE; n];
            let mut weights = vec![S::ZERO; t * n];
            for (t, weight) in weights.chunks_exact_mut(n).enumerate().rev() {
                let (d, c) = (&self.d[t][..n], &self.c[t][..n]);
                for j in 0..n {
                    weight[j] = c[j] * keep[j];
                    keep[j] = keep[j] * d[j];
                }
            }
            self.h.chunks_exact_mut(n).for_each(|h| scale(h, &keep));
            add(a, self.x, &weights, n, self.h);
            return;
        }
        // of E at the end, and in H at the end, what E has before a step counts
        let (mut keep, mut reach) = (vec![S::ONE; n], vec![S::ZERO; n]);
        let (mut of_e, mut of_h) = (vec![S::ZERO; t * n], vec![S::ZERO; t * n]);
        let rows = of_e.chunks_exact_mut(n).zip(of_h.chunks_exact_mut(n));
        for (t, (of_e, of_h)) in rows.enumerate().rev() {
            let (d, c, m) = (&self.d[t][..n], &self.c[t][..n], &self.m[t][..n]);
            for j in 0..n {
                of_e[j] = c[j] * keep[j];
                of_h[j] = c[j] * reach[j];
                keep[j] = keep[j] * d[j];
                reach[j] = m[j] + reach[j] * d[j];
            }
        }
        let rows = self.h.chunks_exact_mut(n).zip(self.e.chunks_exact_mut(n));
        for (h, e) in rows {
            for ((h, &e), &reach) in h.iter_mut().zip(&*e).zip(&reach) {
                *h += reach * e;
            }
            scale(e, &keep);
        }
        add(a, self.x, &of_h, n, self.h);
        add(a, self.x, &of_e, n, self.e);
    }
}

#[inline(always)]
fn scale<S: Lanes>(row: &mut [S], by: &[S]) {
    for (value, &by) in row.iter_mut().zip(by) {
        *value = *value * by;
    }
}

/// A row of H at a step of its own.
#[inline(always)]
fn one_trace<A: Simd, S: Lanes>(a: A, x: S, [d, c]: [&[S]; 2], bound: S, h: &mut [S]) {
    let (wide_x, wide_bound) = (S::splat(a, x), S::splat(a, bound));
    let [wide_d, wide_c] = vectors_of::<A, S, 2>([d, c]);
    let whole = S::vectors_mut::<A>(h);
    for ((h, &d), &c) in whole.iter_mut().zip(wide_d).zip(wide_c) {
        *h = S::clip(a, S::fma(a, d, *h, S::times(a, c, wide_x)), wide_bound);
    }
    let rest = whole.len() * lanes_of::<A, S>();
    if rest < h.len() {
        let [d, c, now] = [&d[rest..], &c[rest..], &h[rest..]];
        let new = S::fma(a, S::part(a, d), S::part(a, now), S::times(a, S::part(a, c), wide_x));
        S::set_part(a, &mut h[rest..], S::clip(a, new, wide_bound));
    }
}

/// A row of H and of E.
#[inline(always)]
fn two_traces<A: Simd, S: Lanes>(
    a: A,
    x: S,
    [d, c, m]: [&[S]; 3],
    bound: S,
    h: &mut [S],
    e: &mut [S],
) {
    let (wide_x, wide_bound) = (S::splat(a, x), S::splat(a, bound));
    let [wide_d, wide_c, wide_m] = vectors_of::<A, S, 3>([d, c, m]);
    let [whole_h, whole_e] = vectors_mut_of::<A, S>([&mut *h, &mut *e]);
    let whole = whole_h.len();
    let (whole_e, wide_d) = (&mut whole_e[..whole], &wide_d[..whole]);
    let (wide_c, wide_m) = (&wide_c[..whole], &wide_m[..whole]);
    for v in 0..whole {
        let before = whole_e[v];
        whole_h[v] = S::clip(a, S::fma(a, wide_m[v], before, whole_h[v]), wide_bound);
        whole_e[v] = S::fma(a, wide_d[v], before, S::times(a, wide_c[v], wide_x));
    }
    let rest = whole * lanes_of::<A, S>();
    if rest < h.len() {
        let before = S::part(a, &e[rest..]);
        let new = S::fma(a, S::part(a, &m[rest..]), before, S::part(a, &h[rest..]));
        S::set_part(a, &mut h[rest..], S::clip(a, new, wide_bound));
        let gain = S::times(a, S::part(a, &c[rest..]), wide_x);
        S::set_part(a, &mut e[rest..], S::fma(a, S::part(a, &d[rest..]), before, gain));
    }
}

/// Adds `sum_t x_t[i] weight_t[j]` to a matrix `[M, N]`.
#[inline(always)]
fn add<A: Simd, S: Lanes>(a: A, x: &[&[S]], weights: &[S], n: usize, out: &mut [S]) {
    let lanes = lanes_of::<A, S>();
    let mut first = 0;
    while n - first >= VECTORS * lanes {
        let columns = first..first + VECTORS * lanes;
        add_columns::<A, S, VECTORS>(a, x, (weights, n), columns.clone(), out);
        first = columns.end;
    }
    while first < n {
        let columns = first..n.min(first + lanes);
        add_columns::<A, S, 1>(a, x, (weights, n), columns.clone(), out);
        first = columns.end;
    }
}

/// What some columns gain: V vectors of them, or a part of one.
#[inline(always)]
fn add_columns<A: Simd, S: Lanes, const V: usize>(
    a: A,
    x: &[&[S]],
    (weights, n): (&[S], usize),
    columns: Range<usize>,
    out: &mut [S],
) {
    let n_rows = out.len() / n;
    let whole = n_rows - n_rows % ROWS;
    for i in (0..whole).step_by(ROWS) {
        add_tile::<A, S, ROWS, V>(a, x, (weights, n), columns.clone(), i, out);
    }
    for i in whole..n_rows {
        add_tile::<A, S, 1, V>(a, x, (weights, n), columns.clone(), i, out);
    }
}

/// What R rows from `first` on gain there, in registers.
#[inline(always)]
fn add_tile<A: Simd, S: Lanes, const R: usize, const V: usize>(
    a: A,
    x: &[&[S]],
    (weights, n): (&[S], usize),
    columns: Range<usize>,
    first: usize,
    out: &mut [S],
) {
    let lanes = lanes_of::<A, S>();
    let whole = columns.len() == V * lanes;
    let mut sums = [[S::splat(a, S::ZERO); V]; R];
    for r in 0..R {
        let row = &out[(first + r) * n..][columns.clone()];
        if whole {
            sums[r].copy_from_slice(S::vectors::<A>(row));
        } else {
            sums[r][0] = S::part(a, row);
        }
    }
    for (x, weight) in x.iter().zip(weights.chunks_exact(n)) {
        let (x, weight) = (&x[first..][..R], &weight[columns.clone()]);
        let mut vectors = [S::splat(a, S::ZERO); V];
        if whole {
            vectors.copy_from_slice(S::vectors::<A>(weight));
        } else {
            vectors[0] = S::part(a, weight);
        }
        for r in 0..R {
            let x = S::splat(a, x[r]);
            for v in 0..V {
                sums[r][v] = S::fma(a, x, vectors[v], sums[r][v]);
            }
        }
    }
    for r in 0..R {
        let row = &mut out[(first + r) * n..][columns.clone()];
        if whole {
            S::vectors_mut::<A>(row).copy_from_slice(&sums[r]);
        } else {
            S::set_part(a, row, sums[r][0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cpu::simd::Instructions;

    fn numbers(seed: &mut u32, n: usize) -> Vec<f64> {
        let mut one = || {
            *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(*seed >> 8) / f64::from(1 << 24) - 0.5
        };
        (0..n).map(|_| one()).collect()
    }

    #[test]
    fn sums_of_steps_are_the_steps() {
        let mut seed = 7;
        for (m, n, t) in [(1, 1, 1), (5, 3, 7), (9, 17, 8), (4, 33, 21)] {
            for two in [false, true] {
                let mut rows =
                    |width| (0..t).map(|_| numbers(&mut seed, width)).collect::<Vec<_>>();
                let (x, d, c, gain) = (rows(m), rows(n), rows(n), rows(n));
                let [x, d, c, gain] =
                    [&x, &d, &c, &gain].map(|rows| rows.iter().map(|r| &r[..]).collect::<Vec<_>>());
                let (h, e) = (numbers(&mut seed, m * n), numbers(&mut seed, m * n));
                let e = if two { e } else { Vec::new() };
                let run = |clip| {
                    let (mut h, mut e) = (h.clone(), e.clone());
                    Instructions::<f64>::widest().run(Evolve {
                        n,
                        x: &x,
                        d: &d,
                        c: &c,
                        m: if two { &gain } else { &[] },
                        clip,
                        h: &mut h,
                        e: &mut e,
                    });
                    [h, e].concat()
                };
                // a clip that never acts takes every step
                for (one, other) in run(None).iter().zip(run(Some(1e9))) {
                    assert!((one - other).abs() < 1e-13, "{m} {n} {t} {two}: {one} {other}");
                }
                let tight = run(Some(0.1));
                assert!(tight[..m * n].iter().all(|h| h.abs() <= 0.1));
            }
        }
    }
}
