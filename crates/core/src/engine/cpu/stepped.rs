//! Traces with a clip, which no window can be skipped for (and all traces where a vector is a
//! single number, so that the lazy kernels are not compiled for it): H is evolved at every step, in
//! place, and stored once a window. In the backward pass a window's traces are formed again from
//! the stored one, before they were clipped (B), and the adjoint P (lambda = alpha P) is taken
//! back step by step:
//!
//! ```text
//! B(t+1) = d H(t) + c x, H(t+1) = clip(B(t+1))     (B = H + m E, E' = d E + c x)
//! G(t)   = P(t+1) where B(t+1) was not clipped, else 0
//! P(t)   = d G(t) + x delta                         (P_E = d P_E + m G, P_H = G + x delta)
//! ```

use std::marker::PhantomData;

use pulp::{Simd, WithSimd};

use crate::engine::cpu::buffer::{Aligned, Buffers};
use crate::engine::cpu::form::{Form, lanes_of};
use crate::engine::cpu::neurons;
use crate::engine::cpu::panels::{
    BLOCK, Panels, RowsView, Sweep, Table, Tile, row_of, tile_of, tile_of_mut, tiles_of_mut,
};
use crate::engine::cpu::share::{Gradients, Returns, Share, Site};
use crate::engine::cpu::simd::{Lanes, Vector, vectors_mut_of, vectors_of};
use crate::engine::cpu::task::Task;

/// One share's traces, H and E each.
pub(crate) struct Traces<S: Lanes> {
    now: [Aligned<S>; 2],
    /// At each window's start; none without a backward pass.
    stored: Vec<[Aligned<S>; 2]>,
    /// Before every step of the window at hand, end to end: H before the first, B before the
    /// others; and E.
    window: [Aligned<S>; 2],
    /// P; in place of P of H, after [`Traces::enter`] and each step but a window's first, G of the
    /// step before.
    p: [Aligned<S>; 2],
}

impl<S: Lanes> Traces<S> {
    pub(crate) fn new(
        buffers: &mut Buffers,
        share: &Share,
        two: bool,
        size: usize,
        n_windows: usize,
        back: bool,
    ) -> Self {
        let len = share.matrix_len();
        let back = usize::from(back);
        Traces {
            now: buffers.traces(len, two),
            stored: buffers.several(back * n_windows, |buffers| buffers.traces(len, two)),
            window: buffers.traces(back * size * len, two),
            p: buffers.traces(back * len, two),
        }
    }

    /// The traces before the first step.
    pub(crate) fn start(&mut self, task: &Task<'_, S>, on: Site<'_, S>) {
        let starts = [&task.episodes.h0, &task.episodes.e0];
        for (now, start) in self.now.iter_mut().zip(starts) {
            now.fill(S::ZERO);
            let Some(start) = start.as_deref().filter(|_| !now.is_empty()) else { continue };
            for lane in 0..task.n {
                let start = task.episode(lane).first_traces(start);
                on.share.connections(task.network, lane, |c, _, own| now[own] = start[c]);
            }
        }
        for p in &mut self.p {
            p.fill(S::ZERO);
        }
    }

    /// A step forward; stores the traces in slot `store`.
    pub(crate) fn forward<F: Form>(
        &mut self,
        on: Site<'_, S>,
        source: Source<'_, S>,
        evolve: bool,
        store: Option<usize>,
        out: &mut Returns<S>,
    ) {
        let [h, e] = &mut self.now;
        let stored = store.and_then(|slot| self.stored.get_mut(slot));
        let stored =
            stored.map_or([&mut [][..], &mut []], |both| both.each_mut().map(|s| &mut s[..]));
        let traces = [&mut h[..], &mut e[..]];
        let z = &mut out.sums[..on.share.row_len()];
        let form = PhantomData::<F>;
        on.arch.run_form::<F, _>(Forward { form, source, evolve, traces, stored, z });
    }

    /// The traces of a window of `n_steps` from slot `slot` on.
    pub(crate) fn enter<F: Form>(
        &mut self,
        on: Site<'_, S>,
        source: Source<'_, S>,
        slot: usize,
        n_steps: usize,
        out: &mut Returns<S>,
    ) {
        let stored = &self.stored[slot];
        on.arch.run_form::<F, _>(Enter {
            form: PhantomData::<F>,
            source,
            n_steps,
            stored: [&stored[0], &stored[1]],
            traces: self.window.each_mut().map(|t| &mut t[..]),
            p: self.p.each_mut().map(|p| &mut p[..]),
            collected: Collected::of(on.share, &mut out.sums),
        });
    }

    /// Step `k` of the window of `n_steps` at hand, backward.
    pub(crate) fn back<F: Form>(
        &mut self,
        on: Site<'_, S>,
        source: Source<'_, S>,
        n_steps: usize,
        k: usize,
        gradients: &mut Gradients<S>,
        out: &mut Returns<S>,
    ) {
        let Traces { window, p, .. } = self;
        on.arch.run_form::<F, _>(Back {
            form: PhantomData::<F>,
            source,
            n_steps,
            k,
            traces: [&window[0], &window[1]],
            p: p.each_mut().map(|p| &mut p[..]),
            collected: Collected::of(on.share, &mut out.sums),
            room: &mut out.lanes,
            d_x: &mut out.added,
            d_w: &mut gradients.d_w,
            d_alpha: &mut gradients.d_alpha,
        });
    }

    /// P of H and of E before the first step.
    pub(crate) fn adjoints(&self) -> [&[S]; 2] {
        [&self.p[0], &self.p[1]]
    }
}

/// What every sweep reads.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a, S: Lanes> {
    panels: Panels,
    clip: S,
    /// Whether the rule asks for sums with the trace (`model::Adjoint::r`).
    with_trace: bool,
    w: &'a [S],
    alpha: &'a [S],
    /// What belongs to the post neurons, from the matrix's first column and the window's first
    /// step on (forward: from the step evolved). m is empty for one trace, delta without a way
    /// back.
    d: RowsView<'a, S>,
    c: RowsView<'a, S>,
    m: RowsView<'a, S>,
    delta: RowsView<'a, S>,
    /// x of the window (forward: of the step evolved and of the next).
    x: &'a Table<S>,
}

impl<'a, S: Lanes> Source<'a, S> {
    /// What sweeps read from step `first` on.
    pub(crate) fn new(
        task: &Task<'_, S>,
        on: Site<'a, S>,
        neurons: &'a neurons::Neurons<S>,
        x: &'a Table<S>,
        first: usize,
    ) -> Self {
        let [d, c, m, delta] = [&neurons.d, &neurons.c, &neurons.m, &neurons.delta]
            .map(|rows| rows.from(first).skip(on.share.columns.start));
        Source {
            panels: on.share.panels,
            clip: S::from_f64(task.network.trace_clip().unwrap_or(f64::INFINITY)),
            with_trace: task.network.rule.uses_eta(),
            w: &on.matrices.w,
            alpha: &on.matrices.alpha,
            d,
            c,
            m,
            delta,
            x,
        }
    }

    #[inline(always)]
    fn columns<A: Simd>(&self, a: A) -> Columns<'a, A, S> {
        let [d, c, m, delta] =
            vectors_of::<A, S, 4>([self.d.values, self.c.values, self.m.values, self.delta.values]);
        let stride = self.d.stride / lanes_of::<A, S>();
        Columns { d, c, m, delta, stride, bound: S::splat(a, self.clip) }
    }
}

/// What belongs to the post neurons, a row a step, and the clip.
#[derive(Clone, Copy)]
struct Columns<'a, A: Simd, S: Lanes> {
    d: &'a [Vector<A, S>],
    c: &'a [Vector<A, S>],
    m: &'a [Vector<A, S>],
    delta: &'a [Vector<A, S>],
    stride: usize,
    bound: Vector<A, S>,
}

impl<A: Simd, S: Lanes> Columns<'_, A, S> {
    /// d, c and m of W columns from `first` on at step `k`; m is d for one trace.
    #[inline(always)]
    fn of<const TWO: bool, const W: usize>(
        &self,
        k: usize,
        first: usize,
    ) -> [[Vector<A, S>; W]; 3] {
        let at = k * self.stride + first;
        let d = row_of(self.d, at);
        [d, row_of(self.c, at), if TWO { row_of(self.m, at) } else { d }]
    }

    /// What clips the trace before a window's step `k`; before the first it is H, which nothing
    /// clips.
    #[inline(always)]
    fn bound_before(&self, a: A, k: usize) -> Vector<A, S> {
        if k == 0 { S::splat(a, S::from_f64(f64::INFINITY)) } else { self.bound }
    }

    /// delta of W columns.
    #[inline(always)]
    fn delta<const W: usize>(&self, k: usize, first: usize) -> [Vector<A, S>; W] {
        row_of(self.delta, k * self.stride + first)
    }
}

/// B and E after a step, given H and E before it and the step's d, c and m of the column.
#[inline(always)]
fn evolve<A: Simd, S: Lanes, const TWO: bool>(
    a: A,
    [d, c, m]: [Vector<A, S>; 3],
    x: Vector<A, S>,
    (h, e): (Vector<A, S>, Vector<A, S>),
) -> (Vector<A, S>, Vector<A, S>) {
    let gain = S::times(a, x, c);
    if TWO { (S::fma(a, m, e, h), S::fma(a, d, e, gain)) } else { (S::fma(a, d, h, gain), e) }
}

/// Evolves the traces by one step and multiplies: `z_j = sum_i x_i (w_ij + alpha_ij H_ij)`.
struct Forward<'a, S: Lanes, F> {
    form: PhantomData<F>,
    source: Source<'a, S>,
    /// Whether there is a step to evolve by.
    evolve: bool,
    /// `=`, H and E (empty for one trace).
    traces: [&'a mut [S]; 2],
    /// `=`, copies of both; empty: not wanted.
    stored: [&'a mut [S]; 2],
    /// `=`, padded columns.
    z: &'a mut [S],
}

impl<S: Lanes, F: Form> WithSimd for Forward<'_, S, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        match (self.traces[1].is_empty(), self.evolve) {
            (true, false) => forward::<A, S, F, false, false>(a, self),
            (true, true) => forward::<A, S, F, false, true>(a, self),
            (false, false) => forward::<A, S, F, true, false>(a, self),
            (false, true) => forward::<A, S, F, true, true>(a, self),
        }
    }
}

#[inline(always)]
fn forward<A: Simd, S: Lanes, F: Form, const TWO: bool, const EVOLVE: bool>(
    a: A,
    job: Forward<'_, S, F>,
) {
    let Forward { source, traces, stored, z, .. } = job;
    let mut tiles = ForwardTiles::<A, S, F, TWO, EVOLVE> {
        a,
        columns: source.columns(a),
        x: source.x,
        w: F::shared::<A, S>(source.w),
        alpha: F::shared::<A, S>(source.alpha),
        traces: vectors_mut_of::<A, S>(traces),
        stored: vectors_mut_of::<A, S>(stored),
        z: S::vectors_mut::<A>(z),
    };
    tiles.z.fill(S::splat(a, S::ZERO));
    for tile in source.panels.tiles(0..source.panels.n_rows) {
        tiles.take::<A>(&tile);
    }
}

struct ForwardTiles<'a, 'b, A: Simd, S: Lanes, F: Form, const TWO: bool, const EVOLVE: bool> {
    a: A,
    columns: Columns<'a, A, S>,
    x: &'a Table<S>,
    w: &'a [F::Shared<A, S>],
    alpha: &'a [F::Shared<A, S>],
    traces: [&'b mut [Vector<A, S>]; 2],
    stored: [&'b mut [Vector<A, S>]; 2],
    /// `+=`.
    z: &'b mut [Vector<A, S>],
}

impl<A: Simd, S: Lanes, F: Form, const TWO: bool, const EVOLVE: bool> Sweep
    for ForwardTiles<'_, '_, A, S, F, TWO, EVOLVE>
{
    #[inline(always)]
    fn tile<const W: usize>(&mut self, tile: &Tile) {
        let (a, first, all) = (self.a, tile.panel.first, tile.vectors());
        let [d, c, m]: [[_; W]; 3] = self.columns.of::<TWO, W>(0, first);
        let bound = self.columns.bound;
        let w = tile_of::<_, W>(self.w, all.clone());
        let alpha = tile_of::<_, W>(self.alpha, all.clone());
        let [trace_h, trace_e] = tiles_of_mut::<_, W>(&mut self.traces, all.clone());
        let mut z: [_; W] = row_of(self.z, first);
        for (block, row, n) in tile.blocks() {
            let x = F::block::<A, S, 2>(self.x, block, 0);
            let (w, alpha) = (&w[row..][..n], &alpha[row..][..n]);
            let trace_h = &mut trace_h[row..][..n];
            let trace_e = if TWO { &mut trace_e[row..][..n] } else { &mut [] };
            for i in 0..n {
                let [x, next] = F::values(a, x, i);
                for v in 0..W {
                    let mut h = trace_h[i][v];
                    if EVOLVE {
                        let e = if TWO { trace_e[i][v] } else { h };
                        let (b, e) = evolve::<A, S, TWO>(a, [d[v], c[v], m[v]], x, (h, e));
                        h = S::clip(a, b, bound);
                        trace_h[i][v] = h;
                        if TWO {
                            trace_e[i][v] = e;
                        }
                    }
                    let weight = S::fma(a, F::load(a, alpha[i][v]), h, F::load(a, w[i][v]));
                    z[v] = S::fma(a, next, weight, z[v]);
                }
            }
        }
        self.z[first..first + W].copy_from_slice(&z);
        for (stored, trace) in self.stored.iter_mut().zip(&self.traces) {
            if !stored.is_empty() {
                stored[all.clone()].copy_from_slice(&trace[all.clone()]);
            }
        }
    }
}

/// Column sums of `model::Adjoint` for one step, padded columns each.
struct Collected<'a, S> {
    q: &'a mut [S],
    /// Zero where the rule does not ask for it.
    r: &'a mut [S],
    /// Zero for one trace.
    e: &'a mut [S],
}

impl<'a, S: Lanes> Collected<'a, S> {
    /// The first rows of a share's sums.
    fn of(share: &Share, sums: &'a mut [S]) -> Self {
        let columns = share.row_len();
        let (q, rest) = sums.split_at_mut(columns);
        let (r, rest) = rest.split_at_mut(columns);
        Collected { q, r, e: &mut rest[..columns] }
    }

    /// The three as vectors, zero.
    #[inline(always)]
    fn start<A: Simd>(self, a: A) -> [&'a mut [Vector<A, S>]; 3] {
        let mut sums =
            [S::vectors_mut::<A>(self.q), S::vectors_mut::<A>(self.r), S::vectors_mut::<A>(self.e)];
        for sums in &mut sums {
            sums.fill(S::splat(a, S::ZERO));
        }
        sums
    }
}

/// The three sums of a column.
#[inline(always)]
fn column_of<V, const W: usize>([q, r, e]: &mut [[V; W]; 3], v: usize) -> [&mut V; 3] {
    [&mut q[v], &mut r[v], &mut e[v]]
}

/// What a connection adds to the column sums, given x and the traces (H, E) before a step, and
/// after it alpha, G and P_E.
#[inline(always)]
fn collect<A: Simd, S: Lanes, const TWO: bool, const TRACE: bool>(
    a: A,
    x: Vector<A, S>,
    (h, e): (Vector<A, S>, Vector<A, S>),
    [alpha, g, p_e]: [Vector<A, S>; 3],
    [sum_q, sum_r, sum_e]: [&mut Vector<A, S>; 3],
) {
    let lambda = S::times(a, alpha, if TWO { p_e } else { g });
    *sum_q = S::fma(a, x, lambda, *sum_q);
    if TRACE {
        *sum_r = S::fma(a, if TWO { e } else { h }, lambda, *sum_r);
    }
    if TWO {
        *sum_e = S::fma(a, S::times(a, alpha, g), e, *sum_e);
    }
}

/// Forms a window's traces again, takes P to G of its last step, and collects for that.
struct Enter<'a, S: Lanes, F> {
    form: PhantomData<F>,
    source: Source<'a, S>,
    n_steps: usize,
    /// The stored H and E.
    stored: [&'a [S]; 2],
    /// `=`, B (at first H) and E before every step `[n_steps, matrix]`.
    traces: [&'a mut [S]; 2],
    /// P of H and of E after the window; of H becomes G.
    p: [&'a mut [S]; 2],
    /// `=`.
    collected: Collected<'a, S>,
}

impl<S: Lanes, F: Form> WithSimd for Enter<'_, S, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        match (self.p[1].is_empty(), self.source.with_trace) {
            (true, false) => enter::<A, S, F, false, false>(a, self),
            (true, true) => enter::<A, S, F, false, true>(a, self),
            (false, _) => enter::<A, S, F, true, true>(a, self),
        }
    }
}

#[inline(always)]
fn enter<A: Simd, S: Lanes, F: Form, const TWO: bool, const TRACE: bool>(
    a: A,
    job: Enter<'_, S, F>,
) {
    let Enter { source, n_steps, stored, traces, p, collected, .. } = job;
    let panels = source.panels;
    let mut tiles = EnterTiles::<A, S, F, TWO, TRACE> {
        a,
        columns: source.columns(a),
        x: source.x,
        n_steps,
        matrix: panels.n_rows * panels.vectors(),
        alpha: F::shared::<A, S>(source.alpha),
        stored: vectors_of::<A, S, 2>(stored),
        traces: vectors_mut_of::<A, S>(traces),
        p: vectors_mut_of::<A, S>(p),
        out: collected.start(a),
    };
    for tile in panels.tiles(0..panels.n_rows) {
        tiles.take::<A>(&tile);
    }
}

struct EnterTiles<'a, 'b, A: Simd, S: Lanes, F: Form, const TWO: bool, const TRACE: bool> {
    a: A,
    columns: Columns<'a, A, S>,
    x: &'a Table<S>,
    n_steps: usize,
    /// Vectors of the traces from a step to the next.
    matrix: usize,
    alpha: &'a [F::Shared<A, S>],
    stored: [&'a [Vector<A, S>]; 2],
    traces: [&'b mut [Vector<A, S>]; 2],
    p: [&'b mut [Vector<A, S>]; 2],
    /// `+=`: q, r, e.
    out: [&'b mut [Vector<A, S>]; 3],
}

impl<A: Simd, S: Lanes, F: Form, const TWO: bool, const TRACE: bool>
    EnterTiles<'_, '_, A, S, F, TWO, TRACE>
{
    /// A tile's traces before the window's step `at + 1`.
    #[inline(always)]
    fn evolve<const W: usize>(&mut self, tile: &Tile, at: usize) {
        let (a, which) = (self.a, (self.matrix, at));
        let [d, c, m]: [[_; W]; 3] = self.columns.of::<TWO, W>(at, tile.panel.first);
        let bound = self.columns.bound_before(a, at);
        let [trace_h, trace_e] = &mut self.traces;
        let (before_h, after_h) = tile_and_next::<_, W>(trace_h, which, tile);
        let (before_e, after_e) = tile_and_next::<_, W>(trace_e, which, tile);
        for (block, row, n) in tile.blocks() {
            let [x] = F::block::<A, S, 1>(self.x, block, at);
            let before_h = &before_h[row..][..n];
            let after_h = &mut after_h[row..][..n];
            let before_e = if TWO { &before_e[row..][..n] } else { before_h };
            let after_e = if TWO { &mut after_e[row..][..n] } else { &mut [] };
            for i in 0..n {
                let x = F::spread(a, x[i]);
                for v in 0..W {
                    let traces = (S::clip(a, before_h[i][v], bound), before_e[i][v]);
                    let (b, e) = evolve::<A, S, TWO>(a, [d[v], c[v], m[v]], x, traces);
                    after_h[i][v] = b;
                    if TWO {
                        after_e[i][v] = e;
                    }
                }
            }
        }
    }
}

/// A tile of the matrix number `k`, each of `len` vectors; nothing of an empty list.
#[inline(always)]
fn tile_at<'a, V, const W: usize>(
    matrices: &'a [V],
    (len, k): (usize, usize),
    tile: &Tile,
) -> &'a [[V; W]] {
    let all = tile.vectors();
    tile_of(matrices, k * len + all.start..k * len + all.end)
}

/// The same, and that of the next one to write.
#[inline(always)]
fn tile_and_next<'a, V, const W: usize>(
    matrices: &'a mut [V],
    (len, k): (usize, usize),
    tile: &Tile,
) -> (&'a [[V; W]], &'a mut [[V; W]]) {
    if matrices.is_empty() {
        return (&[], &mut []);
    }
    let (before, after) = matrices.split_at_mut((k + 1) * len);
    (tile_at(before, (len, k), tile), tile_of_mut(after, tile.vectors()))
}

impl<A: Simd, S: Lanes, F: Form, const TWO: bool, const TRACE: bool> Sweep
    for EnterTiles<'_, '_, A, S, F, TWO, TRACE>
{
    #[inline(always)]
    fn tile<const W: usize>(&mut self, tile: &Tile) {
        let (a, first, all) = (self.a, tile.panel.first, tile.vectors());
        for (traces, stored) in self.traces.iter_mut().zip(self.stored) {
            if !stored.is_empty() {
                traces[all.clone()].copy_from_slice(&stored[all.clone()]);
            }
        }
        let last = self.n_steps - 1;
        for at in 0..last {
            self.evolve::<W>(tile, at);
        }
        let zero = S::splat(a, S::ZERO);
        let [d, c, m]: [[_; W]; 3] = self.columns.of::<TWO, W>(last, first);
        let (bound, bound_before) = (self.columns.bound, self.columns.bound_before(a, last));
        let alpha = tile_of::<_, W>(self.alpha, all.clone());
        let which = (self.matrix, last);
        let [traces_h, traces_e] = &self.traces;
        let trace_h = tile_at::<_, W>(traces_h, which, tile);
        let trace_e = tile_at::<_, W>(traces_e, which, tile);
        let [p_h, p_e] = tiles_of_mut::<_, W>(&mut self.p, all.clone());
        let mut sums = [[zero; W]; 3];
        for (sums, out) in sums.iter_mut().zip(&self.out) {
            *sums = row_of(out, first);
        }
        for (block, row, n) in tile.blocks() {
            let [x] = F::block::<A, S, 1>(self.x, block, last);
            let (alpha, trace_h) = (&alpha[row..][..n], &trace_h[row..][..n]);
            let trace_e = if TWO { &trace_e[row..][..n] } else { trace_h };
            let p_h = &mut p_h[row..][..n];
            let p_e = if TWO { &p_e[row..][..n] } else { &[] };
            for i in 0..n {
                let x = F::spread(a, x[i]);
                for v in 0..W {
                    let traces = (S::clip(a, trace_h[i][v], bound_before), trace_e[i][v]);
                    let (b, _) = evolve::<A, S, TWO>(a, [d[v], c[v], m[v]], x, traces);
                    let g = S::where_equal(a, S::clip(a, b, bound), b, p_h[i][v]);
                    p_h[i][v] = g;
                    let adjoints = [F::load(a, alpha[i][v]), g, if TWO { p_e[i][v] } else { zero }];
                    let sums = column_of(&mut sums, v);
                    collect::<A, S, TWO, TRACE>(a, x, traces, adjoints, sums);
                }
            }
        }
        for (out, sums) in self.out.iter_mut().zip(sums) {
            out[first..first + W].copy_from_slice(&sums);
        }
    }
}

/// Takes P back over step `k` of a window, with the row sums dL/dx; then goes on to G of step
/// `k - 1` and collects for it, or, at the window's first step, adds the window's dL/dw and
/// dL/dalpha.
struct Back<'a, S: Lanes, F> {
    form: PhantomData<F>,
    source: Source<'a, S>,
    n_steps: usize,
    k: usize,
    /// B (at first H) and E before every step of the window.
    traces: [&'a [S]; 2],
    /// G of step `k` and P of E after it; become those of the step before, or P of both.
    p: [&'a mut [S]; 2],
    /// `=`.
    collected: Collected<'a, S>,
    /// Room for `[rows]` vectors.
    room: &'a mut [S],
    /// `=`, pre neurons.
    d_x: &'a mut [S],
    /// `+=`.
    d_w: &'a mut [S],
    d_alpha: &'a mut [S],
}

impl<S: Lanes, F: Form> WithSimd for Back<'_, S, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        match (self.p[1].is_empty(), self.source.with_trace, self.k == 0) {
            (true, false, false) => back::<A, S, F, false, false, false>(a, self),
            (true, true, false) => back::<A, S, F, false, true, false>(a, self),
            (false, _, false) => back::<A, S, F, true, true, false>(a, self),
            (true, _, true) => back::<A, S, F, false, false, true>(a, self),
            (false, _, true) => back::<A, S, F, true, false, true>(a, self),
        }
    }
}

#[inline(always)]
fn back<A: Simd, S: Lanes, F: Form, const TWO: bool, const TRACE: bool, const FIRST: bool>(
    a: A,
    job: Back<'_, S, F>,
) {
    let Back { source, n_steps, k, traces, p, collected, room, d_x, d_w, d_alpha, .. } = job;
    let panels = source.panels;
    let mut tiles = BackTiles::<A, S, F, TWO, TRACE, FIRST> {
        a,
        columns: source.columns(a),
        x: source.x,
        n_steps,
        k,
        matrix: panels.n_rows * panels.vectors(),
        w: F::shared::<A, S>(source.w),
        alpha: F::shared::<A, S>(source.alpha),
        traces: vectors_of::<A, S, 2>(traces),
        p: vectors_mut_of::<A, S>(p),
        room: &mut S::vectors_mut::<A>(room)[..panels.n_rows],
        d_w: S::vectors_mut::<A>(d_w),
        d_alpha: S::vectors_mut::<A>(d_alpha),
        out: collected.start(a),
    };
    tiles.room.fill(S::splat(a, S::ZERO));
    for tile in panels.tiles(0..panels.n_rows) {
        tiles.take::<A>(&tile);
    }
    F::put(a, tiles.room, d_x, 0);
}

struct BackTiles<
    'a,
    'b,
    A: Simd,
    S: Lanes,
    F: Form,
    const TWO: bool,
    const TRACE: bool,
    const FIRST: bool,
> {
    a: A,
    columns: Columns<'a, A, S>,
    x: &'a Table<S>,
    n_steps: usize,
    k: usize,
    /// Vectors of the traces from a step to the next.
    matrix: usize,
    w: &'a [F::Shared<A, S>],
    alpha: &'a [F::Shared<A, S>],
    traces: [&'a [Vector<A, S>]; 2],
    p: [&'b mut [Vector<A, S>]; 2],
    /// `+=`: dL/dx.
    room: &'b mut [Vector<A, S>],
    d_w: &'b mut [Vector<A, S>],
    d_alpha: &'b mut [Vector<A, S>],
    /// `+=`: q, r, e.
    out: [&'b mut [Vector<A, S>]; 3],
}

impl<'a, A: Simd, S: Lanes, F: Form, const TWO: bool, const TRACE: bool, const FIRST: bool>
    BackTiles<'a, '_, A, S, F, TWO, TRACE, FIRST>
{
    /// A tile of the traces before the window's step `k`.
    #[inline(always)]
    fn traces_of<const W: usize>(&self, k: usize, tile: &Tile) -> [&'a [[Vector<A, S>; W]]; 2] {
        let [traces_h, traces_e] = self.traces;
        [tile_at(traces_h, (self.matrix, k), tile), tile_at(traces_e, (self.matrix, k), tile)]
    }

    /// dL/dw and dL/dalpha of the window.
    #[inline(always)]
    fn add_gradients<const W: usize>(&mut self, tile: &Tile) {
        let (a, first, all) = (self.a, tile.panel.first, tile.vectors());
        let zero = S::splat(a, S::ZERO);
        for (block, row, n) in tile.blocks() {
            let mut sums = [[[zero; W]; BLOCK]; 2];
            for at in 0..self.n_steps {
                let delta: [_; W] = self.columns.delta(at, first);
                let bound = self.columns.bound_before(a, at);
                let [trace_h, _] = self.traces_of::<W>(at, tile);
                let [x] = F::block::<A, S, 1>(self.x, block, at);
                let [sum_w, sum_alpha] = &mut sums;
                let (sum_w, sum_alpha) = (&mut sum_w[..n], &mut sum_alpha[..n]);
                let trace_h = &trace_h[row..][..n];
                for i in 0..n {
                    let x = F::spread(a, x[i]);
                    for v in 0..W {
                        let gain = S::times(a, x, delta[v]);
                        let h = S::clip(a, trace_h[i][v], bound);
                        sum_w[i][v] = S::plus(a, sum_w[i][v], gain);
                        sum_alpha[i][v] = S::fma(a, h, gain, sum_alpha[i][v]);
                    }
                }
            }
            let out = [&mut *self.d_w, &mut *self.d_alpha];
            for (out, sums) in out.into_iter().zip(&sums) {
                let out = &mut tile_of_mut::<_, W>(out, all.clone())[row..][..n];
                for (out, sums) in out.iter_mut().zip(sums) {
                    for v in 0..W {
                        out[v] = S::plus(a, out[v], sums[v]);
                    }
                }
            }
        }
    }
}

impl<A: Simd, S: Lanes, F: Form, const TWO: bool, const TRACE: bool, const FIRST: bool> Sweep
    for BackTiles<'_, '_, A, S, F, TWO, TRACE, FIRST>
{
    #[inline(always)]
    fn tile<const W: usize>(&mut self, tile: &Tile) {
        let (a, first, all, at) = (self.a, tile.panel.first, tile.vectors(), self.k);
        let zero = S::splat(a, S::ZERO);
        // of this step, and of the one before, which is collected for
        let before = if FIRST { at } else { at - 1 };
        let [d, c, m]: [[_; W]; 3] = self.columns.of::<TWO, W>(at, first);
        let delta: [_; W] = self.columns.delta(at, first);
        let (bound, bound_before) = (self.columns.bound, self.columns.bound_before(a, before));
        let [trace_h, _] = self.traces_of::<W>(at, tile);
        let [before_h, before_e] = self.traces_of::<W>(before, tile);
        let w = tile_of::<_, W>(self.w, all.clone());
        let alpha = tile_of::<_, W>(self.alpha, all.clone());
        let [p_h, p_e] = tiles_of_mut::<_, W>(&mut self.p, all.clone());
        let room = &mut self.room[tile.rows.clone()];
        let mut sums = [[zero; W]; 3];
        for (sums, out) in sums.iter_mut().zip(&self.out) {
            *sums = row_of(out, first);
        }
        for (block, row, n) in tile.blocks() {
            let [x] = F::block::<A, S, 1>(self.x, block, at);
            let [x_before] = F::block::<A, S, 1>(self.x, block, before);
            let trace_h = &trace_h[row..][..n];
            let before_h = &before_h[row..][..n];
            let before_e = if TWO { &before_e[row..][..n] } else { before_h };
            let (w, alpha) = (&w[row..][..n], &alpha[row..][..n]);
            let p_h = &mut p_h[row..][..n];
            let p_e = if TWO { &mut p_e[row..][..n] } else { &mut [] };
            let room = &mut room[row..][..n];
            for i in 0..n {
                let (x, x_before) = (F::spread(a, x[i]), F::spread(a, x_before[i]));
                let mut row_sum = room[i];
                for v in 0..W {
                    let alpha = F::load(a, alpha[i][v]);
                    let b = trace_h[i][v];
                    let h = if FIRST { b } else { S::clip(a, b, bound) };
                    let g = p_h[i][v];
                    let gain = S::times(a, x, delta[v]);
                    let (hebbian, p, new_e);
                    if TWO {
                        hebbian = p_e[i][v];
                        new_e = S::fma(a, d[v], hebbian, S::times(a, m[v], g));
                        p = S::plus(a, g, gain);
                        p_e[i][v] = new_e;
                    } else {
                        (hebbian, new_e) = (g, zero);
                        p = S::fma(a, d[v], g, gain);
                    }
                    // delta (w + alpha H) + c alpha P
                    let plastic = S::fma(a, delta[v], h, S::times(a, c[v], hebbian));
                    row_sum = S::fma(a, delta[v], F::load(a, w[i][v]), row_sum);
                    row_sum = S::fma(a, alpha, plastic, row_sum);
                    if FIRST {
                        p_h[i][v] = p;
                    } else {
                        let g = S::where_equal(a, h, b, p);
                        p_h[i][v] = g;
                        let h = if TRACE && !TWO {
                            S::clip(a, before_h[i][v], bound_before)
                        } else {
                            zero
                        };
                        let e = if TWO { before_e[i][v] } else { zero };
                        let sums = column_of(&mut sums, v);
                        let adjoints = [alpha, g, new_e];
                        collect::<A, S, TWO, TRACE>(a, x_before, (h, e), adjoints, sums);
                    }
                }
                room[i] = row_sum;
            }
        }
        for (out, sums) in self.out.iter_mut().zip(sums) {
            out[first..first + W].copy_from_slice(&sums);
        }
        if FIRST {
            self.add_gradients::<W>(tile);
        }
    }
}
