//! Sweeps over the connections of an episode, row by row of pre neurons, a block of columns at a time,
//! whose sums stay in the first cache. Loops are plain: compiled for an instruction set, they are
//! vectors.

use pulp::{Simd, WithSimd};

use crate::engine::cpu::general::code::{Given, Value};
use crate::engine::cpu::general::equations::{Equations, Factors, Product};
use crate::engine::cpu::simd::Lanes;

/// Columns of a block.
pub(super) const BLOCK: usize = 256;

/// Rows that are given to the code of connections at the most: traces and parameters.
const MOST_ROWS: usize = 20;

/// Matrices `[M, stride]` with w and alpha multiplied by the mask, and what a step's sweeps share.
#[derive(Clone, Copy)]
pub(super) struct Grid<'a, S> {
    pub(super) equations: &'a Equations,
    pub(super) n_pre: usize,
    pub(super) n_post: usize,
    pub(super) stride: usize,
    pub(super) w: &'a [S],
    pub(super) alpha: &'a [S],
    /// Of the connections' parameters, `[M, N]` each, in the order of `of_connections`.
    pub(super) parameters: &'a [&'a [S]],
}

impl<S> Grid<'_, S> {
    fn blocks(&self) -> impl Iterator<Item = std::ops::Range<usize>> + use<S> {
        let n = self.n_post;
        (0..n).step_by(BLOCK).map(move |first| first..n.min(first + BLOCK))
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
    for (row, parameter) in rows[n_traces..].iter_mut().zip(grid.parameters) {
        *row = &parameter[i * grid.n_post + first..];
    }
    rows
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
    fn with_simd<A: Simd>(self, _: A) {
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
                    factors.connection.run(given, registers);
                    for (k, terms) in grid.equations.traces.iter().enumerate() {
                        let out = &mut after[k * matrix..][at.clone()];
                        sum(factors, terms, given, registers, out);
                    }
                }
                if let Some((x, plastic, r)) = &mut next {
                    let (x, h) = (x[i], &after[at.clone()]);
                    let plastic = &mut plastic[block.clone()];
                    let weights = grid.w[at.clone()].iter().zip(&grid.alpha[at.clone()]);
                    for ((sum, &h), (&w, &alpha)) in plastic.iter_mut().zip(h).zip(weights) {
                        *sum += x * (w + alpha * h);
                    }
                    if !r.is_empty() {
                        let r = &mut r[block.clone()];
                        r.iter_mut().zip(h).for_each(|(sum, &h)| *sum += x * h);
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
    block: &std::ops::Range<usize>,
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
fn sum<S: Lanes>(
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
        let pre = pre_of(term.pre, &given);
        let post = term.post.map(|k| given.post(k));
        match factor(factors, term.connection, given, registers) {
            None => put(out, k == 0, pre, post, None),
            Some(Value::One(value)) => put(out, k == 0, pre * value, post, None),
            Some(Value::Row(row)) => put(out, k == 0, pre, post, Some(row)),
        }
    }
}

/// `out = pre post row`, or `+=` unless it is the `first`.
#[inline(always)]
fn put<S: Lanes>(out: &mut [S], first: bool, pre: S, post: Option<&[S]>, row: Option<&[S]>) {
    match (post, row, first) {
        (None, None, true) => out.fill(pre),
        (None, None, false) => out.iter_mut().for_each(|out| *out += pre),
        (Some(a), None, true) | (None, Some(a), true) => {
            out.iter_mut().zip(a).for_each(|(out, &a)| *out = pre * a);
        }
        (Some(a), None, false) | (None, Some(a), false) => {
            out.iter_mut().zip(a).for_each(|(out, &a)| *out += pre * a);
        }
        (Some(a), Some(b), true) => {
            out.iter_mut().zip(a).zip(b).for_each(|((out, &a), &b)| *out = pre * a * b);
        }
        (Some(a), Some(b), false) => {
            out.iter_mut().zip(a).zip(b).for_each(|((out, &a), &b)| *out += pre * a * b);
        }
    }
}

/// Partial sums of a sum over a row, so that it becomes vectors.
const PARTS: usize = 16;

#[inline(always)]
fn dot<S: Lanes>(a: &[S], b: &[S]) -> S {
    let mut sums = [S::ZERO; PARTS];
    let (a_blocks, a_rest) = a.as_chunks::<PARTS>();
    let (b_blocks, b_rest) = b.as_chunks::<PARTS>();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    for ((sum, &a), &b) in sums.iter_mut().zip(a_rest).zip(b_rest) {
        *sum += a * b;
    }
    sums.iter().fold(S::ZERO, |all, &sum| all + sum)
}

#[inline(always)]
fn total<S: Lanes>(a: &[S]) -> S {
    let mut sums = [S::ZERO; PARTS];
    let (blocks, rest) = a.as_chunks::<PARTS>();
    for a in blocks {
        sums.iter_mut().zip(a).for_each(|(sum, &a)| *sum += a);
    }
    sums.iter_mut().zip(rest).for_each(|(sum, &a)| *sum += a);
    sums.iter().fold(S::ZERO, |all, &sum| all + sum)
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
    /// `+=`: `[parameters of connections, M, N]`.
    pub(super) d_parameters: &'a mut [S],
    pub(super) registers: &'a mut [S],
    /// Room for a block of one stream, and of each trace.
    pub(super) room: &'a mut [S],
}

impl<S: Lanes> WithSimd for Learn<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, _: A) {
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
                factors.connection.run(given, registers);
                for (k, stays) in equations.stays.iter().enumerate() {
                    if !stays {
                        trace_room[k * BLOCK..][..len].fill(S::ZERO);
                    }
                }
                for stream in &equations.streams {
                    let own = &lambda[stream.trace * matrix..][at.clone()];
                    let own = match factor(factors, stream.connection, given, registers) {
                        None => own,
                        Some(Value::One(value)) => {
                            put(&mut stream_room[..len], true, value, Some(own), None);
                            &stream_room[..len]
                        }
                        Some(Value::Row(row)) => {
                            put(&mut stream_room[..len], true, S::ONE, Some(own), Some(row));
                            &stream_room[..len]
                        }
                    };
                    for &(k, pre) in &stream.columns {
                        let out = &mut columns[k * grid.stride..][block.clone()];
                        put(out, false, pre_of(pre, &given), Some(own), None);
                    }
                    for &(k, post) in &stream.rows {
                        rows[i * n_rows + k] += match post {
                            None => total(own),
                            Some(post) => dot(own, given.post(post)),
                        };
                    }
                    for (to, term) in &stream.traces {
                        if !equations.stays[*to] {
                            let out = &mut trace_room[to * BLOCK..][..len];
                            let post = term.post.map(|k| given.post(k));
                            put(out, false, pre_of(term.pre, &given), post, Some(own));
                        }
                    }
                    for (k, term) in &stream.parameters {
                        let from = (k * grid.n_pre + i) * grid.n_post + block.start;
                        let out = &mut d_parameters[from..][..len];
                        let post = term.post.map(|k| given.post(k));
                        put(out, false, pre_of(term.pre, &given), post, Some(own));
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
/// `xbar_i += sum_j (w + alpha H)_ij delta_j + H_ij rbar_j`, `lambda_ij += x_i (alpha_ij delta_j + rbar_j)`,
/// and `d_w_ij += x_i delta_j`, `d_alpha_ij += H_ij x_i delta_j`.
pub(super) struct Connect<'a, S: Lanes> {
    pub(super) grid: Grid<'a, S>,
    pub(super) traces: &'a [S],
    pub(super) x: &'a [S],
    pub(super) delta: &'a [S],
    /// Empty where the rule reads no r.
    pub(super) r_bar: &'a [S],
    pub(super) x_bar: &'a mut [S],
    pub(super) lambda: &'a mut [S],
    pub(super) d_w: &'a mut [S],
    pub(super) d_alpha: &'a mut [S],
}

impl<S: Lanes> WithSimd for Connect<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, _: A) {
        let Connect { grid, traces, x, delta, r_bar, x_bar, lambda, d_w, d_alpha } = self;
        for block in grid.blocks() {
            let delta = &delta[block.clone()];
            for i in 0..grid.n_pre {
                let at = i * grid.stride + block.start..i * grid.stride + block.end;
                let h = &traces[at.clone()];
                x_bar[i] += through(
                    (&grid.w[at.clone()], &grid.alpha[at.clone()], h, delta),
                    x[i],
                    (&mut lambda[at.clone()], &mut d_w[at.clone()], &mut d_alpha[at.clone()]),
                );
                if !r_bar.is_empty() {
                    let r_bar = &r_bar[block.clone()];
                    x_bar[i] += dot(h, r_bar);
                    put(&mut lambda[at], false, x[i], Some(r_bar), None);
                }
            }
        }
    }
}

/// One row of [`Connect`] but for r.
#[inline(always)]
fn through<S: Lanes>(
    (w, alpha, h, delta): (&[S], &[S], &[S], &[S]),
    x: S,
    (lambda, d_w, d_alpha): (&mut [S], &mut [S], &mut [S]),
) -> S {
    let n = delta.len();
    let (lambda, d_w, d_alpha) = (&mut lambda[..n], &mut d_w[..n], &mut d_alpha[..n]);
    let mut sums = [S::ZERO; PARTS];
    let read = [w, alpha, h, delta].map(|row| row[..n].as_chunks::<PARTS>());
    let [w, alpha, h, delta] = read;
    let (lambda, lambda_rest) = lambda.as_chunks_mut::<PARTS>();
    let (d_w, d_w_rest) = d_w.as_chunks_mut::<PARTS>();
    let (d_alpha, d_alpha_rest) = d_alpha.as_chunks_mut::<PARTS>();
    let rows = w.0.iter().zip(alpha.0).zip(h.0).zip(delta.0);
    let out = lambda.iter_mut().zip(d_w).zip(d_alpha);
    for ((((w, alpha), h), delta), ((lambda, d_w), d_alpha)) in rows.zip(out) {
        few(&mut sums, (w, alpha, h, delta), x, (lambda, d_w, d_alpha));
    }
    let rest = (w.1, alpha.1, h.1, delta.1);
    few(&mut sums, rest, x, (lambda_rest, d_w_rest, d_alpha_rest));
    sums.iter().fold(S::ZERO, |all, &sum| all + sum)
}

/// At most as many columns as there are partial sums.
#[inline(always)]
fn few<S: Lanes>(
    sums: &mut [S; PARTS],
    (w, alpha, h, delta): (&[S], &[S], &[S], &[S]),
    x: S,
    (lambda, d_w, d_alpha): (&mut [S], &mut [S], &mut [S]),
) {
    for (j, sum) in sums.iter_mut().enumerate().take(delta.len()) {
        let gain = x * delta[j];
        *sum += (w[j] + alpha[j] * h[j]) * delta[j];
        lambda[j] += alpha[j] * gain;
        d_w[j] += gain;
        d_alpha[j] += h[j] * gain;
    }
}
