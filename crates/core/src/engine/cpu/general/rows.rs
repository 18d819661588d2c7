//! Sweeps over the connections of an episode, row by row of pre neurons, a block of columns at a time,
//! whose sums stay in the first cache.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::engine::cpu::general::code::{Code, Given, Value};
use crate::engine::cpu::general::equations::{Equations, Factors, Product};
use crate::engine::cpu::simd::{Instructions, Lanes, Vector, vectors_of};
use crate::rule::{MOST_PARAMETERS, MOST_TRACES};

/// Columns of a block.
pub(super) const BLOCK: usize = 256;

/// Rows that are given to the code of connections at the most: traces and parameters.
const MOST_ROWS: usize = MOST_TRACES + MOST_PARAMETERS;

/// Matrices `[M, stride]` with w and alpha multiplied by the mask, and what a step's sweeps share.
#[derive(Clone, Copy)]
pub(super) struct Grid<'a, S> {
    pub(super) arch: Instructions<S>,
    pub(super) equations: &'a Equations,
    pub(super) n_pre: usize,
    pub(super) n_post: usize,
    pub(super) stride: usize,
    pub(super) w: &'a [S],
    pub(super) alpha: &'a [S],
    /// Of the connections' parameters, `[M, stride]` each, in the order of `of_connections`.
    pub(super) parameters: &'a [S],
}

impl<S> Grid<'_, S> {
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<S> {
        let stride = self.stride;
        (0..stride).step_by(BLOCK).map(move |first| first..stride.min(first + BLOCK))
    }

    /// The padding of a block.
    #[inline(always)]
    fn padding(&self, block: &Range<usize>) -> Range<usize> {
        let len = block.len();
        self.n_post.saturating_sub(block.start).min(len)..len
    }

    fn n_parameters(&self) -> usize {
        self.equations.of_connections.len()
    }

    /// Numbers of a trace.
    pub(super) fn matrix(&self) -> usize {
        self.n_pre * self.stride
    }
}

/// What the code of connections reads in row `i`, from a block's first column on.
#[inline(always)]
fn rows_of<'a, S: Lanes>(
    grid: &Grid<'a, S>,
    traces: &'a [S],
    i: usize,
    first: usize,
) -> [&'a [S]; MOST_ROWS] {
    let mut rows: [&[S]; MOST_ROWS] = [&[]; MOST_ROWS];
    let n_traces = grid.equations.n_traces;
    for (k, row) in rows.iter_mut().enumerate().take(n_traces) {
        *row = &traces[k * grid.matrix() + i * grid.stride + first..];
    }
    for (k, row) in rows[n_traces..].iter_mut().enumerate().take(grid.n_parameters()) {
        *row = &grid.parameters[k * grid.matrix() + i * grid.stride + first..];
    }
    rows
}

/// Code, compiled once for all sweeps.
struct Run<'a, S> {
    code: &'a Code,
    given: Given<'a, S>,
    registers: &'a mut [S],
}

impl<S: Lanes> WithSimd for Run<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, _: A) {
        self.code.run(self.given, self.registers);
    }
}

/// Runs code, where there is any.
#[inline(always)]
pub(super) fn run<S: Lanes>(
    arch: Instructions<S>,
    code: &Code,
    given: Given<'_, S>,
    registers: &mut [S],
) {
    if code.n_registers() > 0 {
        arch.run(Run { code, given, registers });
    }
}

/// Vectors of the neurons that a pass reads: `[vectors, stride]` of the post neurons, and of the pre
/// neurons `[M, vectors]`.
#[derive(Clone, Copy)]
pub(super) struct Vectors<'a, S> {
    pub(super) post: &'a [S],
    pub(super) pre: &'a [S],
    pub(super) n_pre: usize,
}

/// Evolves the traces by a step, where there is one, then multiplies by x of the next:
/// `plastic_j = sum_i x_i (w + alpha H)_ij`, `r_j = sum_i x_i H_ij`.
pub(super) struct Forward<'a, S: Lanes> {
    pub(super) grid: Grid<'a, S>,
    /// The traces before the step and the vectors of it; none: the traces are what `after` holds.
    pub(super) step: Option<(&'a [S], Vectors<'a, S>)>,
    /// Traces after the step.
    pub(super) after: &'a mut [S],
    /// x of the next step, and its sums, `=`; r may be empty.
    pub(super) next: Option<(&'a [S], &'a mut [S], &'a mut [S])>,
    pub(super) registers: &'a mut [S],
}

impl<S: Lanes> WithSimd for Forward<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        let Forward { grid, step, after, mut next, registers } = self;
        if let Some((_, plastic, r)) = &mut next {
            plastic.fill(S::ZERO);
            r.fill(S::ZERO);
        }
        let matrix = grid.matrix();
        for block in grid.blocks() {
            for i in 0..grid.n_pre {
                let at = i * grid.stride + block.start..i * grid.stride + block.end;
                if let Some((before, vectors)) = step {
                    let rows = rows_of(&grid, before, i, block.start);
                    let given = given(&grid, &vectors, &rows, i, &block);
                    let factors = &grid.equations.forward;
                    run(grid.arch, &factors.connection, given, registers);
                    for (k, terms) in grid.equations.traces.iter().enumerate() {
                        let out = &mut after[k * matrix..][at.clone()];
                        sum(a, factors, terms, given, registers, out);
                        // what a rule makes of nothing may be no number
                        out[grid.padding(&block)].fill(S::ZERO);
                    }
                }
                if let Some((x, plastic, r)) = &mut next {
                    let (x, h) = (x[i], &after[at.clone()]);
                    let plastic = &mut plastic[block.clone()];
                    multiply(a, plastic, x, &grid.w[at.clone()], &grid.alpha[at.clone()], h);
                    if !r.is_empty() {
                        add(a, &mut r[block.clone()], x, h);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn given<'a, S: Lanes>(
    grid: &Grid<'a, S>,
    vectors: &Vectors<'a, S>,
    rows: &'a [&'a [S]],
    i: usize,
    block: &Range<usize>,
) -> Given<'a, S> {
    Given {
        ones: &vectors.pre[i * vectors.n_pre..(i + 1) * vectors.n_pre],
        rows,
        posts: vectors.post,
        stride: grid.stride,
        first: block.start,
        len: block.len(),
    }
}

/// The factor of a connection, if there is one.
#[inline(always)]
fn factor<'a, S: Lanes>(
    factors: &Factors,
    k: Option<usize>,
    given: Given<'a, S>,
    registers: &'a [S],
) -> Option<Value<'a, S>> {
    k.map(|k| factors.connection.output(k, given, registers))
}

#[inline(always)]
fn pre_of<S: Lanes>(k: Option<usize>, given: &Given<'_, S>) -> S {
    k.map_or(S::ONE, |k| given.ones[k])
}

/// `out = sum of products`.
#[inline(always)]
fn sum<A: Simd, S: Lanes>(
    a: A,
    factors: &Factors,
    terms: &[Product],
    given: Given<'_, S>,
    registers: &[S],
    out: &mut [S],
) {
    if terms.is_empty() {
        out.fill(S::ZERO);
    }
    for (k, term) in terms.iter().enumerate() {
        let (mut pre, post) = (pre_of(term.pre, &given), term.post.map(|k| given.post(k)));
        let row = match factor(factors, term.connection, given, registers) {
            Some(Value::Row(row)) => Some(row),
            Some(Value::One(value)) => {
                pre = pre * value;
                None
            }
            None => None,
        };
        match (k, post, row) {
            (0, None, None) => out.fill(pre),
            (0, Some(row), None) | (0, None, Some(row)) => scale(a, out, pre, row),
            (0, Some(post), Some(row)) => product(a, out, pre, post, row),
            (_, None, None) => out.iter_mut().for_each(|out| *out += pre),
            (_, Some(row), None) | (_, None, Some(row)) => add(a, out, pre, row),
            (_, Some(post), Some(row)) => add_product(a, out, pre, post, row),
        }
    }
}

/// `out += x (w + alpha h)`.
#[inline(always)]
fn multiply<A: Simd, S: Lanes>(a: A, out: &mut [S], x: S, w: &[S], alpha: &[S], h: &[S]) {
    let x = S::splat(a, x);
    let [w, alpha, h] = vectors_of::<A, S, 3>([w, alpha, h]);
    let weights = w.iter().zip(alpha).zip(h);
    for (out, ((&w, &alpha), &h)) in S::vectors_mut::<A>(out).iter_mut().zip(weights) {
        *out = S::fma(a, x, S::fma(a, alpha, h, w), *out);
    }
}

/// `out = x row`.
#[inline(always)]
fn scale<A: Simd, S: Lanes>(a: A, out: &mut [S], x: S, row: &[S]) {
    let x = S::splat(a, x);
    for (out, &row) in S::vectors_mut::<A>(out).iter_mut().zip(S::vectors::<A>(row)) {
        *out = S::times(a, x, row);
    }
}

/// `out += x row`.
#[inline(always)]
fn add<A: Simd, S: Lanes>(a: A, out: &mut [S], x: S, row: &[S]) {
    let x = S::splat(a, x);
    for (out, &row) in S::vectors_mut::<A>(out).iter_mut().zip(S::vectors::<A>(row)) {
        *out = S::fma(a, x, row, *out);
    }
}

/// `out = x post row`.
#[inline(always)]
fn product<A: Simd, S: Lanes>(a: A, out: &mut [S], x: S, post: &[S], row: &[S]) {
    let x = S::splat(a, x);
    let rows = S::vectors::<A>(post).iter().zip(S::vectors::<A>(row));
    for (out, (&post, &row)) in S::vectors_mut::<A>(out).iter_mut().zip(rows) {
        *out = S::times(a, S::times(a, x, post), row);
    }
}

/// `out += x post row`.
#[inline(always)]
fn add_product<A: Simd, S: Lanes>(a: A, out: &mut [S], x: S, post: &[S], row: &[S]) {
    let x = S::splat(a, x);
    let rows = S::vectors::<A>(post).iter().zip(S::vectors::<A>(row));
    for (out, (&post, &row)) in S::vectors_mut::<A>(out).iter_mut().zip(rows) {
        *out = S::fma(a, S::times(a, x, post), row, *out);
    }
}

#[inline(always)]
fn dot<A: Simd, S: Lanes>(a: A, x: &[S], y: &[S]) -> S {
    let mut sum = S::splat(a, S::ZERO);
    for (&x, &y) in S::vectors::<A>(x).iter().zip(S::vectors::<A>(y)) {
        sum = S::fma(a, x, y, sum);
    }
    S::total(a, sum)
}

#[inline(always)]
fn total<A: Simd, S: Lanes>(a: A, x: &[S]) -> S {
    let mut sum = S::splat(a, S::ZERO);
    for &x in S::vectors::<A>(x) {
        sum = S::plus(a, sum, x);
    }
    S::total(a, sum)
}

/// The rule backward: lambda of the traces goes from after a step to before it, as far as it comes
/// through the rule; sums of the streams; gradients of the connections' parameters.
pub(super) struct Learn<'a, S: Lanes> {
    pub(super) grid: Grid<'a, S>,
    /// Before the step.
    pub(super) traces: &'a [S],
    pub(super) vectors: Vectors<'a, S>,
    pub(super) lambda: &'a mut [S],
    /// `=`: `[sums, stride]`, and `[M, sums]`.
    pub(super) columns: &'a mut [S],
    pub(super) rows: &'a mut [S],
    /// `+=`: `[parameters of connections, M, stride]`.
    pub(super) d_parameters: &'a mut [S],
    pub(super) registers: &'a mut [S],
    /// Room for a block of one stream, and of each trace.
    pub(super) room: &'a mut [S],
}

impl<S: Lanes> WithSimd for Learn<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        let Learn { grid, traces, vectors, lambda, columns, rows, d_parameters, .. } = self;
        let (registers, room) = (self.registers, self.room);
        let (equations, matrix) = (grid.equations, grid.matrix());
        let n_rows = equations.n_rows;
        columns.fill(S::ZERO);
        rows.fill(S::ZERO);
        let (stream_room, trace_room) = room.split_at_mut(BLOCK);
        for block in grid.blocks() {
            let len = block.len();
            for i in 0..grid.n_pre {
                let at = i * grid.stride + block.start..i * grid.stride + block.end;
                let given_rows = rows_of(&grid, traces, i, block.start);
                let given = given(&grid, &vectors, &given_rows, i, &block);
                let factors = &equations.backward;
                run(grid.arch, &factors.connection, given, registers);
                for (k, stays) in equations.stays.iter().enumerate() {
                    if !stays {
                        trace_room[k * BLOCK..][..len].fill(S::ZERO);
                    }
                }
                for stream in &equations.streams {
                    let own = &lambda[stream.trace * matrix..][at.clone()];
                    let own = match factor(factors, stream.connection, given, registers) {
                        None => own,
                        Some(value) => {
                            let out = &mut stream_room[..len];
                            match value {
                                Value::One(value) => scale(a, out, value, own),
                                Value::Row(row) => product(a, out, S::ONE, own, row),
                            }
                            out[grid.padding(&block)].fill(S::ZERO);
                            out
                        }
                    };
                    for &(k, pre) in &stream.columns {
                        let out = &mut columns[k * grid.stride..][block.clone()];
                        add(a, out, pre_of(pre, &given), own);
                    }
                    for &(k, post) in &stream.rows {
                        rows[i * n_rows + k] += match post {
                            None => total(a, own),
                            Some(post) => dot(a, own, given.post(post)),
                        };
                    }
                    let traces = stream.traces.iter().map(|(to, term)| (true, *to, term));
                    let own_parameters = stream.parameters.iter();
                    let parameters = own_parameters.map(|(k, term)| (false, *k, term));
                    for (trace, k, term) in traces.chain(parameters) {
                        let out = match trace {
                            true if equations.stays[k] => continue,
                            true => &mut trace_room[k * BLOCK..][..len],
                            false => &mut d_parameters[k * matrix..][at.clone()],
                        };
                        let pre = pre_of(term.pre, &given);
                        match term.post {
                            None => add(a, out, pre, own),
                            Some(post) => add_product(a, out, pre, given.post(post), own),
                        }
                    }
                }
                for (k, stays) in equations.stays.iter().enumerate() {
                    if !stays {
                        let out = &mut lambda[k * matrix..][at.clone()];
                        out.copy_from_slice(&trace_room[k * BLOCK..][..len]);
                    }
                }
            }
        }
    }
}

/// The connections backward:
/// `xbar_i += sum_j (w + alpha H)_ij delta_j + H_ij rbar_j`, `lambda_ij += x_i (alpha_ij delta_j + rbar_j)`.
pub(super) struct Connect<'a, S: Lanes> {
    pub(super) grid: Grid<'a, S>,
    pub(super) traces: &'a [S],
    pub(super) x: &'a [S],
    pub(super) delta: &'a [S],
    /// Empty where the rule reads no r.
    pub(super) r_bar: &'a [S],
    pub(super) x_bar: &'a mut [S],
    pub(super) lambda: &'a mut [S],
}

impl<S: Lanes> WithSimd for Connect<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        let Connect { grid, traces, x, delta, r_bar, x_bar, lambda } = self;
        for block in grid.blocks() {
            let delta = &delta[block.clone()];
            for i in 0..grid.n_pre {
                let at = i * grid.stride + block.start..i * grid.stride + block.end;
                let h = &traces[at.clone()];
                let weights = (&grid.w[at.clone()], &grid.alpha[at.clone()]);
                x_bar[i] += through(a, weights, h, delta, x[i], &mut lambda[at.clone()]);
                if !r_bar.is_empty() {
                    let r_bar = &r_bar[block.clone()];
                    x_bar[i] += dot(a, h, r_bar);
                    add(a, &mut lambda[at], x[i], r_bar);
                }
            }
        }
    }
}

/// One row of [`Connect`] but for r.
#[inline(always)]
fn through<A: Simd, S: Lanes>(
    a: A,
    (w, alpha): (&[S], &[S]),
    h: &[S],
    delta: &[S],
    x: S,
    lambda: &mut [S],
) -> S {
    let (mut sum, x) = (S::splat(a, S::ZERO), S::splat(a, x));
    let [w, alpha, h, delta] = vectors_of::<A, S, 4>([w, alpha, h, delta]);
    let rows = w.iter().zip(alpha).zip(h).zip(delta);
    for ((((&w, &alpha), &h), &delta), lambda) in rows.zip(S::vectors_mut::<A>(lambda)) {
        sum = S::fma(a, S::fma(a, alpha, h, w), delta, sum);
        *lambda = S::fma(a, alpha, S::times(a, x, delta), *lambda);
    }
    S::total(a, sum)
}

/// `d_w_ij += x_i delta_j`, `d_alpha_ij += H_ij x_i delta_j` of some steps, which read and write them
/// once.
pub(super) struct Weigh<'a, S: Lanes> {
    pub(super) grid: Grid<'a, S>,
    /// H, x and delta of each step.
    pub(super) steps: &'a [[&'a [S]; 3]],
    pub(super) d_w: &'a mut [S],
    pub(super) d_alpha: &'a mut [S],
}

impl<S: Lanes> WithSimd for Weigh<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        let Weigh { grid, steps, d_w, d_alpha } = self;
        for block in grid.blocks() {
            for i in 0..grid.n_pre {
                let at = i * grid.stride + block.start..i * grid.stride + block.end;
                let d_w = S::vectors_mut::<A>(&mut d_w[at.clone()]);
                let d_alpha = S::vectors_mut::<A>(&mut d_alpha[at.clone()]);
                for steps in steps.chunks(TOGETHER) {
                    let mut rows: [[&[Vector<A, S>]; 2]; TOGETHER] = [[&[]; 2]; TOGETHER];
                    let mut x = [S::splat(a, S::ZERO); TOGETHER];
                    for ((rows, x), step) in rows.iter_mut().zip(&mut x).zip(steps) {
                        let [h, own, delta] = step;
                        *rows = vectors_of::<A, S, 2>([&h[at.clone()], &delta[block.clone()]]);
                        *x = S::splat(a, own[i]);
                    }
                    match steps.len() {
                        TOGETHER => weigh::<A, S, TOGETHER>(a, &rows, &x, d_w, d_alpha),
                        _ => {
                            for (rows, x) in rows.iter().zip(&x).take(steps.len()) {
                                weigh::<A, S, 1>(a, &[*rows], &[*x], d_w, d_alpha);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Steps that a row of gradients is read and written once for.
const TOGETHER: usize = 4;

/// One row of [`Weigh`], of N steps.
#[inline(always)]
fn weigh<A: Simd, S: Lanes, const N: usize>(
    a: A,
    rows: &[[&[Vector<A, S>]; 2]],
    x: &[Vector<A, S>],
    d_w: &mut [Vector<A, S>],
    d_alpha: &mut [Vector<A, S>],
) {
    let n = d_w.len();
    let rows: &[_; N] = rows.first_chunk().expect("as many steps");
    let x: &[_; N] = x.first_chunk().expect("as many steps");
    let mut cut = [[&[][..]; 2]; N];
    for k in 0..N {
        cut[k] = [&rows[k][0][..n], &rows[k][1][..n]];
    }
    for (v, (d_w, d_alpha)) in d_w.iter_mut().zip(d_alpha).enumerate() {
        let (mut sum_w, mut sum_alpha) = (*d_w, *d_alpha);
        for k in 0..N {
            let gain = S::times(a, x[k], cut[k][1][v]);
            sum_w = S::plus(a, sum_w, gain);
            sum_alpha = S::fma(a, cut[k][0][v], gain, sum_alpha);
        }
        (*d_w, *d_alpha) = (sum_w, sum_alpha);
    }
}
