//! Traces with a clip, which no window can be skipped for: H is evolved at every step, in
//! place, and stored once a window. On the way back a window's traces are formed again from
//! the stored one, and the adjoint P (lambda = alpha P) is taken back step by step:
//!
//! ```text
//! H(t+1) = clip(d H(t) + c x)              (H' = clip(H + m E), E' = d E + c x)
//! G      = P(t+1) where nothing was clipped, else 0
//! P(t)   = d G + x delta                    (P_E = d P_E + m G, P_H = G + x delta)
//! ```

use pulp::{Simd, WithSimd};

use crate::engine::cpu::buffer::{Aligned, Buffers};
use crate::engine::cpu::form::{Neurons, Pre};
use crate::engine::cpu::neurons::{self, Task};
use crate::engine::cpu::panels::{
    Groups, Panel, Panels, RowsView, Strided, Sweep, Table, group_of, group_of_mut,
};
use crate::engine::cpu::share::{Gradients, Returns, Share, Site};
use crate::engine::cpu::simd::{Lanes, Vector};

/// One share's traces, H and E each.
pub(crate) struct Traces<S: Lanes> {
    now: [Aligned<S>; 2],
    /// At each window's start; none without a way back.
    stored: Vec<[Aligned<S>; 2]>,
    /// Before every step of the window at hand, end to end.
    window: [Aligned<S>; 2],
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
        let len = share.panels.len();
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
        let len = task.network.n_connections();
        let starts = [&task.episodes.h0, &task.episodes.e0];
        for (now, start) in self.now.iter_mut().zip(starts) {
            match start {
                Some(start) if !now.is_empty() => {
                    let values = &start[task.index * len..][..len];
                    let matrix = Strided { values, row: task.network.n_post, column: 1 };
                    on.share.panels.pack(now, on.share.columns.start, matrix);
                }
                _ => now.fill(S::ZERO),
            }
        }
        for p in &mut self.p {
            p.fill(S::ZERO);
        }
    }

    /// A step forward; stores the traces in slot `store`.
    pub(crate) fn forward(
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
        let z = &mut out.sums[..on.share.panels.padded()];
        on.arch.dispatch(Forward { source, evolve, traces, stored, z });
    }

    /// The traces of a window of `n_steps` from slot `slot` on.
    pub(crate) fn enter(
        &mut self,
        on: Site<'_, S>,
        source: Source<'_, S>,
        slot: usize,
        n_steps: usize,
        out: &mut Returns<S>,
    ) {
        let (stored, p) = (&self.stored[slot], &self.p);
        on.arch.dispatch(Enter {
            source,
            n_steps,
            stored: [&stored[0], &stored[1]],
            traces: self.window.each_mut().map(|t| &mut t[..]),
            p: [&p[0], &p[1]],
            collected: Collected::of(on.share, &mut out.sums),
        });
    }

    /// Step `k` of the window of `n_steps` at hand, backward.
    pub(crate) fn back(
        &mut self,
        on: Site<'_, S>,
        source: Source<'_, S>,
        n_steps: usize,
        k: usize,
        gradients: &mut Gradients<S>,
        out: &mut Returns<S>,
    ) {
        let Traces { window, p, .. } = self;
        on.arch.dispatch(Back {
            source,
            n_steps,
            k,
            traces: [&window[0], &window[1]],
            p: p.each_mut().map(|p| &mut p[..]),
            collected: Collected::of(on.share, &mut out.sums),
            d_x: &mut out.lanes,
            d_w: &mut gradients.d_w,
            d_alpha: &mut gradients.d_alpha,
        });
        out.add_up(on.arch, on.share.panels.n_rows);
    }

    /// P of H and of E before the first step.
    pub(crate) fn adjoints(&self) -> [&[S]; 2] {
        [&self.p[0], &self.p[1]]
    }
}

/// What belongs to the post neurons at one step and after; rows of all steps from it on.
#[derive(Clone, Copy)]
pub(crate) struct Coefficients<'a, S> {
    pub(crate) d: RowsView<'a, S>,
    pub(crate) c: RowsView<'a, S>,
    /// Empty for one trace.
    pub(crate) m: RowsView<'a, S>,
    /// Empty on the way forward.
    pub(crate) delta: RowsView<'a, S>,
}

/// What every sweep reads.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a, S: Lanes> {
    pub(crate) panels: Panels,
    /// Elements of a row of coefficients to the left of this matrix.
    pub(crate) first: usize,
    pub(crate) clip: S,
    pub(crate) w: &'a [S],
    pub(crate) alpha: &'a [S],
    /// From the window's first step on (forward: from the step evolved).
    pub(crate) coefficients: Coefficients<'a, S>,
    /// x of the window (forward: of the step evolved and of the next).
    pub(crate) x: &'a Table<S>,
}

/// [`Coefficients`] and the clip of a panel's columns; rows from its first column on.
#[derive(Clone, Copy)]
struct Columns<'a, V> {
    d: &'a [V],
    c: &'a [V],
    m: &'a [V],
    delta: &'a [V],
    stride: usize,
    bound: V,
}

impl<'a, V: Copy> Columns<'a, V> {
    /// Those of W columns, `step` steps after the first.
    #[inline(always)]
    fn at<const W: usize>(&self, step: usize) -> Step<'a, V, W> {
        let row = |rows: &'a [V]| rows.get(step * self.stride..).and_then(|row| row.first_chunk());
        let d = row(self.d).expect("a row for every step");
        let c = row(self.c).expect("a row for every step");
        Step { d, c, m: row(self.m).unwrap_or(d), bound: self.bound }
    }

    /// delta of W columns, `step` steps after the first.
    #[inline(always)]
    fn delta<const W: usize>(&self, step: usize) -> &'a [V; W] {
        self.delta[step * self.stride..].first_chunk().expect("a row for every step")
    }
}

/// Coefficients of W columns at one step; m stands for nothing with one trace.
struct Step<'a, V, const W: usize> {
    d: &'a [V; W],
    c: &'a [V; W],
    m: &'a [V; W],
    bound: V,
}

impl<V: Copy, const W: usize> Step<'_, V, W> {
    /// One step of the traces in column `v`; returns the clip's mask.
    #[inline(always)]
    fn evolve<A: Simd, S: Lanes<Vector<A> = V>, const TWO: bool>(
        &self,
        a: A,
        v: usize,
        x: V,
        (h, e): (&mut V, &mut V),
    ) -> V {
        let gain = S::times(a, x, self.c[v]);
        let before = if TWO {
            let before = S::fma(a, self.m[v], *e, *h);
            *e = S::fma(a, self.d[v], *e, gain);
            before
        } else {
            S::fma(a, self.d[v], *h, gain)
        };
        *h = S::clip(a, before, self.bound);
        S::inside(a, before, self.bound)
    }

    /// The clip's mask, given the traces before the step.
    #[inline(always)]
    fn mask<A: Simd, S: Lanes<Vector<A> = V>, const TWO: bool>(
        &self,
        a: A,
        v: usize,
        x: V,
        (mut h, mut e): (V, V),
    ) -> V {
        self.evolve::<A, S, TWO>(a, v, x, (&mut h, &mut e))
    }
}

impl<'a, S: Lanes> Source<'a, S> {
    /// What sweeps read from step `first` on.
    pub(crate) fn new(
        on: Site<'a, S>,
        clip: S,
        neurons: &'a neurons::Neurons<S>,
        x: &'a Table<S>,
        first: usize,
    ) -> Self {
        Source {
            panels: on.share.panels,
            first: on.share.columns.start,
            clip,
            w: &on.matrices.w,
            alpha: &on.matrices.alpha,
            coefficients: Coefficients {
                d: neurons.d.from(first),
                c: neurons.c.from(first),
                m: neurons.m.from(first),
                delta: neurons.delta.from(first),
            },
            x,
        }
    }

    #[inline(always)]
    fn columns<A: Simd>(&self, a: A, panel: Panel) -> Columns<'a, Vector<A, S>> {
        let Coefficients { d, c, m, delta } = self.coefficients;
        let lanes = self.panels.lanes;
        let from = self.first / lanes + panel.first;
        let stride = d.stride / lanes;
        let [d, c, m, delta] = [d, c, m, delta]
            .map(|rows| S::vectors::<A>(rows.values).get(from..).unwrap_or_default());
        Columns { d, c, m, delta, stride, bound: S::splat(a, self.clip) }
    }
}

/// Evolves the traces by one step and multiplies: `z_j = sum_i x_i (w_ij + alpha_ij H_ij)`.
pub(crate) struct Forward<'a, S: Lanes> {
    pub(crate) source: Source<'a, S>,
    /// Whether there is a step to evolve by.
    pub(crate) evolve: bool,
    /// `=`, H and E (empty for one trace).
    pub(crate) traces: [&'a mut [S]; 2],
    /// `=`, copies of both; empty: not wanted.
    pub(crate) stored: [&'a mut [S]; 2],
    /// `=`, padded columns.
    pub(crate) z: &'a mut [S],
}

impl<S: Lanes> WithSimd for Forward<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        match (self.traces[1].is_empty(), self.evolve) {
            (true, false) => forward::<A, S, false, false>(a, self),
            (true, true) => forward::<A, S, false, true>(a, self),
            (false, false) => forward::<A, S, true, false>(a, self),
            (false, true) => forward::<A, S, true, true>(a, self),
        }
    }
}

#[inline(always)]
fn forward<A: Simd, S: Lanes, const TWO: bool, const EVOLVE: bool>(a: A, job: Forward<'_, S>) {
    let Forward { source, traces, stored, z, .. } = job;
    let panels = source.panels;
    let [trace_h, trace_e] = traces.map(S::vectors_mut::<A>);
    let [stored_h, stored_e] = stored.map(S::vectors_mut::<A>);
    let (w, alpha) = (S::vectors::<A>(source.w), S::vectors::<A>(source.alpha));
    let z = S::vectors_mut::<A>(z);
    z.fill(S::splat(a, S::ZERO));
    for tile in panels.tiles(0..panels.n_rows) {
        let (panel, all) = (tile.panel, tile.vectors());
        let second = if TWO { all.clone() } else { 0..0 };
        ForwardTile::<A, S, TWO, EVOLVE> {
            a,
            columns: source.columns(a, panel),
            x: source.x,
            w: &w[all.clone()],
            alpha: &alpha[all.clone()],
            h: &mut trace_h[all.clone()],
            e: &mut trace_e[second.clone()],
            stored_h: stored_h.get_mut(all).unwrap_or_default(),
            stored_e: stored_e.get_mut(second).unwrap_or_default(),
            z: &mut z[panel.first..],
        }
        .take::<A>(&tile);
    }
}

/// One tile of the job.
struct ForwardTile<'a, 'b, A: Simd, S: Lanes, const TWO: bool, const EVOLVE: bool> {
    a: A,
    columns: Columns<'a, Vector<A, S>>,
    x: &'a Table<S>,
    w: &'a [Vector<A, S>],
    alpha: &'a [Vector<A, S>],
    h: &'b mut [Vector<A, S>],
    e: &'b mut [Vector<A, S>],
    stored_h: &'b mut [Vector<A, S>],
    stored_e: &'b mut [Vector<A, S>],
    z: &'b mut [Vector<A, S>],
}

impl<A: Simd, S: Lanes, const TWO: bool, const EVOLVE: bool> Groups
    for ForwardTile<'_, '_, A, S, TWO, EVOLVE>
{
    #[inline(always)]
    fn group<const W: usize, const G: usize>(&mut self, row: usize, place: usize) {
        let (a, zero) = (self.a, S::splat(self.a, S::ZERO));
        let x = Pre::<A, S, Neurons, G>::of(self.x, row, (0, self.x.n()));
        let step = self.columns.at::<W>(0);
        let w = group_of::<_, W, G>(self.w, place);
        let alpha = group_of::<_, W, G>(self.alpha, place);
        let trace_h = group_of_mut::<_, W, G>(self.h, place);
        let (x, x_next) = (x.get(a, 0), x.get(a, 1));
        for v in 0..W {
            let mut sum = zero;
            for q in 0..G {
                let at = q * W + v;
                let mut h = trace_h[at];
                if EVOLVE {
                    let mut none = zero;
                    let e = if TWO {
                        &mut group_of_mut::<_, W, G>(self.e, place)[at]
                    } else {
                        &mut none
                    };
                    step.evolve::<A, S, TWO>(a, v, x[q], (&mut h, e));
                    trace_h[at] = h;
                }
                let weight = S::fma(a, alpha[at], h, w[at]);
                sum = S::fma(a, x_next[q], weight, sum);
            }
            self.z[v] = S::plus(a, self.z[v], sum);
        }
        if !self.stored_h.is_empty() {
            group_of_mut::<_, W, G>(self.stored_h, place).copy_from_slice(trace_h);
            if TWO {
                let e = group_of::<_, W, G>(self.e, place);
                group_of_mut::<_, W, G>(self.stored_e, place).copy_from_slice(e);
            }
        }
    }
}

/// Column sums of `model::Adjoint` for one step, `=`, padded columns.
pub(crate) struct Collected<'a, S> {
    pub(crate) q: &'a mut [S],
    pub(crate) r: &'a mut [S],
    /// Zero for one trace.
    pub(crate) e: &'a mut [S],
}

/// Forms a window's traces again, and collects for its last step.
pub(crate) struct Enter<'a, S: Lanes> {
    pub(crate) source: Source<'a, S>,
    pub(crate) n_steps: usize,
    /// The stored H and E.
    pub(crate) stored: [&'a [S]; 2],
    /// `=`, H and E before every step `[n_steps, matrix]`.
    pub(crate) traces: [&'a mut [S]; 2],
    /// P of H and of E after the window.
    pub(crate) p: [&'a [S]; 2],
    pub(crate) collected: Collected<'a, S>,
}

impl<S: Lanes> WithSimd for Enter<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        if self.p[1].is_empty() {
            enter::<A, S, false>(a, self);
        } else {
            enter::<A, S, true>(a, self);
        }
    }
}

/// Column sums while a sweep goes down a group of rows.
struct Sums<V> {
    q: V,
    r: V,
    e: V,
}

impl<V: Copy> Sums<V> {
    /// Adds one connection, given the trace before the step and the adjoints after it.
    #[inline(always)]
    fn add<A: Simd, S: Lanes<Vector<A> = V>, const TWO: bool>(
        &mut self,
        a: A,
        alpha: V,
        x: V,
        mask: V,
        trace: (V, V),
        p: (V, V),
    ) {
        let g = S::times(a, alpha, S::times(a, mask, p.0));
        let (hebbian, trace) = if TWO { (S::times(a, alpha, p.1), trace.1) } else { (g, trace.0) };
        self.q = S::fma(a, x, hebbian, self.q);
        self.r = S::fma(a, trace, hebbian, self.r);
        if TWO {
            self.e = S::fma(a, g, trace, self.e);
        }
    }

    #[inline(always)]
    fn store<A: Simd, S: Lanes<Vector<A> = V>, const TWO: bool>(
        &self,
        a: A,
        out: &mut [&mut [V]; 3],
        at: usize,
    ) {
        out[0][at] = S::plus(a, out[0][at], self.q);
        out[1][at] = S::plus(a, out[1][at], self.r);
        if TWO {
            out[2][at] = S::plus(a, out[2][at], self.e);
        }
    }
}

impl<'a, S: Lanes> Collected<'a, S> {
    /// The first rows of a share's sums.
    fn of(share: &Share, sums: &'a mut [S]) -> Self {
        let columns = share.panels.padded();
        let (q, rest) = sums.split_at_mut(columns);
        let (r, rest) = rest.split_at_mut(columns);
        Collected { q, r, e: &mut rest[..columns] }
    }

    /// The three as vectors, zero.
    #[inline(always)]
    fn start<A: Simd>(self, a: A) -> [&'a mut [Vector<A, S>]; 3] {
        [self.q, self.r, self.e].map(|sums| {
            let sums = S::vectors_mut::<A>(sums);
            sums.fill(S::splat(a, S::ZERO));
            sums
        })
    }
}

#[inline(always)]
fn enter<A: Simd, S: Lanes, const TWO: bool>(a: A, job: Enter<'_, S>) {
    let Enter { source, n_steps, stored, traces, p, collected } = job;
    let panels = source.panels;
    let [stored_h, stored_e] = stored.map(S::vectors::<A>);
    let [trace_h, trace_e] = traces.map(S::vectors_mut::<A>);
    let [p_h, p_e] = p.map(S::vectors::<A>);
    let alpha = S::vectors::<A>(source.alpha);
    let [q, r, e] = collected.start(a);
    for tile in panels.tiles(0..panels.n_rows) {
        let (panel, all) = (tile.panel, tile.vectors());
        let second = if TWO { all.clone() } else { 0..0 };
        EnterTile::<A, S, TWO> {
            a,
            columns: source.columns(a, panel),
            x: source.x,
            n_steps,
            matrix: panels.len() / panels.lanes,
            alpha: &alpha[all.clone()],
            stored_h: &stored_h[all.clone()],
            stored_e: &stored_e[second.clone()],
            trace_h: &mut trace_h[all.start..],
            trace_e: &mut trace_e[second.start..],
            p_h: &p_h[all],
            p_e: &p_e[second],
            out: [&mut *q, &mut *r, &mut *e].map(|sums| &mut sums[panel.first..]),
        }
        .take::<A>(&tile);
    }
}

/// One tile of the job; the window's traces `matrix` vectors from a step to the next.
struct EnterTile<'a, 'b, A: Simd, S: Lanes, const TWO: bool> {
    a: A,
    columns: Columns<'a, Vector<A, S>>,
    x: &'a Table<S>,
    n_steps: usize,
    matrix: usize,
    alpha: &'a [Vector<A, S>],
    stored_h: &'a [Vector<A, S>],
    stored_e: &'a [Vector<A, S>],
    trace_h: &'b mut [Vector<A, S>],
    trace_e: &'b mut [Vector<A, S>],
    p_h: &'a [Vector<A, S>],
    p_e: &'a [Vector<A, S>],
    out: [&'b mut [Vector<A, S>]; 3],
}

impl<A: Simd, S: Lanes, const TWO: bool> Groups for EnterTile<'_, '_, A, S, TWO> {
    #[inline(always)]
    fn group<const W: usize, const G: usize>(&mut self, row: usize, place: usize) {
        let (a, zero) = (self.a, S::splat(self.a, S::ZERO));
        let x = Pre::<A, S, Neurons, G>::of(self.x, row, (0, self.x.n()));
        let alpha = group_of::<_, W, G>(self.alpha, place);
        let p_h = group_of::<_, W, G>(self.p_h, place);
        let stored_h = group_of::<_, W, G>(self.stored_h, place);
        for v in 0..W {
            let (mut h, mut e) = ([zero; G], [zero; G]);
            for q in 0..G {
                h[q] = stored_h[q * W + v];
                if TWO {
                    e[q] = group_of::<_, W, G>(self.stored_e, place)[q * W + v];
                }
            }
            let (mut before, mut mask) = ((h, e), [zero; G]);
            for k in 0..self.n_steps {
                let step = self.columns.at::<W>(k);
                let at = k * self.matrix;
                let trace_h = group_of_mut::<_, W, G>(&mut self.trace_h[at..], place);
                before = (h, e);
                let x = x.get(a, k);
                for q in 0..G {
                    trace_h[q * W + v] = h[q];
                    if TWO {
                        let trace_e = group_of_mut::<_, W, G>(&mut self.trace_e[at..], place);
                        trace_e[q * W + v] = e[q];
                    }
                    mask[q] = step.evolve::<A, S, TWO>(a, v, x[q], (&mut h[q], &mut e[q]));
                }
            }
            let mut sums = Sums { q: zero, r: zero, e: zero };
            let x = x.get(a, self.n_steps - 1);
            for q in 0..G {
                let at = q * W + v;
                let p_e = if TWO { group_of::<_, W, G>(self.p_e, place)[at] } else { zero };
                let trace = (before.0[q], before.1[q]);
                sums.add::<A, S, TWO>(a, alpha[at], x[q], mask[q], trace, (p_h[at], p_e));
            }
            sums.store::<A, S, TWO>(a, &mut self.out, v);
        }
    }
}

/// Takes P back over step `k` of a window, with the row sums dL/dx; then collects for step
/// `k - 1`, or, at the window's first step, adds the window's dL/dw and dL/dalpha.
pub(crate) struct Back<'a, S: Lanes> {
    pub(crate) source: Source<'a, S>,
    pub(crate) n_steps: usize,
    pub(crate) k: usize,
    /// H and E before every step of the window.
    pub(crate) traces: [&'a [S]; 2],
    /// `=`.
    pub(crate) p: [&'a mut [S]; 2],
    pub(crate) collected: Collected<'a, S>,
    /// `=`, `[rows, lanes]`: lanes still to be added up.
    pub(crate) d_x: &'a mut [S],
    /// `+=`.
    pub(crate) d_w: &'a mut [S],
    pub(crate) d_alpha: &'a mut [S],
}

impl<S: Lanes> WithSimd for Back<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        match (self.p[1].is_empty(), self.k == 0) {
            (true, false) => back::<A, S, false, false>(a, self),
            (true, true) => back::<A, S, false, true>(a, self),
            (false, false) => back::<A, S, true, false>(a, self),
            (false, true) => back::<A, S, true, true>(a, self),
        }
    }
}

#[inline(always)]
fn back<A: Simd, S: Lanes, const TWO: bool, const FIRST: bool>(a: A, job: Back<'_, S>) {
    let Back { source, n_steps, k, traces, p, collected, d_x, d_w, d_alpha } = job;
    let panels = source.panels;
    let [trace_h, trace_e] = traces.map(S::vectors::<A>);
    let [p_h, p_e] = p.map(S::vectors_mut::<A>);
    let (w, alpha) = (S::vectors::<A>(source.w), S::vectors::<A>(source.alpha));
    let (d_w, d_alpha) = (S::vectors_mut::<A>(d_w), S::vectors_mut::<A>(d_alpha));
    let d_x = S::vectors_mut::<A>(d_x);
    d_x.fill(S::splat(a, S::ZERO));
    let [q, r, e] = collected.start(a);
    for tile in panels.tiles(0..panels.n_rows) {
        let (panel, all) = (tile.panel, tile.vectors());
        let second = if TWO { all.clone() } else { 0..0 };
        BackTile::<A, S, TWO, FIRST> {
            a,
            columns: source.columns(a, panel),
            x: source.x,
            n_steps,
            k,
            matrix: panels.len() / panels.lanes,
            w: &w[all.clone()],
            alpha: &alpha[all.clone()],
            trace_h: &trace_h[all.start..],
            trace_e: &trace_e[second.start..],
            p_h: &mut p_h[all.clone()],
            p_e: &mut p_e[second],
            d_x,
            d_w: &mut d_w[all.clone()],
            d_alpha: &mut d_alpha[all],
            out: [&mut *q, &mut *r, &mut *e].map(|sums| &mut sums[panel.first..]),
        }
        .take::<A>(&tile);
    }
}

/// One tile of the job; the window's traces `matrix` vectors from a step to the next.
struct BackTile<'a, 'b, A: Simd, S: Lanes, const TWO: bool, const FIRST: bool> {
    a: A,
    columns: Columns<'a, Vector<A, S>>,
    x: &'a Table<S>,
    n_steps: usize,
    k: usize,
    matrix: usize,
    w: &'a [Vector<A, S>],
    alpha: &'a [Vector<A, S>],
    trace_h: &'a [Vector<A, S>],
    trace_e: &'a [Vector<A, S>],
    p_h: &'b mut [Vector<A, S>],
    p_e: &'b mut [Vector<A, S>],
    d_x: &'b mut [Vector<A, S>],
    d_w: &'b mut [Vector<A, S>],
    d_alpha: &'b mut [Vector<A, S>],
    out: [&'b mut [Vector<A, S>]; 3],
}

impl<'a, A: Simd, S: Lanes, const TWO: bool, const FIRST: bool> BackTile<'a, '_, A, S, TWO, FIRST> {
    /// The window's traces before its step `k`, of the group from `place` on; E of nothing with
    /// one trace.
    #[inline(always)]
    fn traces<const W: usize, const G: usize>(
        &self,
        k: usize,
        place: usize,
    ) -> [&'a [Vector<A, S>]; 2] {
        let at = k * self.matrix;
        let h = group_of::<_, W, G>(&self.trace_h[at..], place);
        [h, if TWO { group_of::<_, W, G>(&self.trace_e[at..], place) } else { h }]
    }

    /// dL/dw and dL/dalpha of the window.
    #[inline(always)]
    fn add_gradients<const W: usize, const G: usize>(&mut self, row: usize, place: usize) {
        let (a, n) = (self.a, self.x.n());
        let x = Pre::<A, S, Neurons, G>::of(self.x, row, (0, n));
        let zero = S::splat(a, S::ZERO);
        for v in 0..W {
            let (mut sum_w, mut sum_alpha) = ([zero; G], [zero; G]);
            for k in 0..self.n_steps {
                let delta = self.columns.delta::<W>(k)[v];
                let [h, _] = self.traces::<W, G>(k, place);
                let x = x.get(a, k);
                for q in 0..G {
                    let gain = S::times(a, x[q], delta);
                    sum_w[q] = S::plus(a, sum_w[q], gain);
                    sum_alpha[q] = S::fma(a, h[q * W + v], gain, sum_alpha[q]);
                }
            }
            let d_w = group_of_mut::<_, W, G>(self.d_w, place);
            let d_alpha = group_of_mut::<_, W, G>(self.d_alpha, place);
            for q in 0..G {
                let at = q * W + v;
                d_w[at] = S::plus(a, d_w[at], sum_w[q]);
                d_alpha[at] = S::plus(a, d_alpha[at], sum_alpha[q]);
            }
        }
    }
}

impl<A: Simd, S: Lanes, const TWO: bool, const FIRST: bool> Groups
    for BackTile<'_, '_, A, S, TWO, FIRST>
{
    #[inline(always)]
    fn group<const W: usize, const G: usize>(&mut self, row: usize, place: usize) {
        let (a, zero, k) = (self.a, S::splat(self.a, S::ZERO), self.k);
        let x = Pre::<A, S, Neurons, G>::of(self.x, row, (0, self.x.n()));
        // of this step, and of the one before, which is collected for
        let before = if FIRST { k } else { k - 1 };
        let (step, step_before) = (self.columns.at::<W>(k), self.columns.at::<W>(before));
        let delta = self.columns.delta::<W>(k);
        let [trace_h, trace_e] = self.traces::<W, G>(k, place);
        let [before_h, before_e] = self.traces::<W, G>(before, place);
        let w = group_of::<_, W, G>(self.w, place);
        let alpha = group_of::<_, W, G>(self.alpha, place);
        let p_h = group_of_mut::<_, W, G>(self.p_h, place);
        let (x, x_before) = (x.get(a, k), x.get(a, before));
        let mut row_sums = [zero; G];
        for v in 0..W {
            let (d, c, m, delta) = (step.d[v], step.c[v], step.m[v], delta[v]);
            let mut sums = Sums { q: zero, r: zero, e: zero };
            for q in 0..G {
                let at = q * W + v;
                let mask = step.mask::<A, S, TWO>(a, v, x[q], (trace_h[at], trace_e[at]));
                let g = S::times(a, mask, p_h[at]);
                let gain = S::times(a, x[q], delta);
                let (hebbian, new_e);
                if TWO {
                    let p_e = &mut group_of_mut::<_, W, G>(self.p_e, place)[at];
                    hebbian = *p_e;
                    new_e = S::fma(a, d, *p_e, S::times(a, m, g));
                    p_h[at] = S::plus(a, g, gain);
                    *p_e = new_e;
                } else {
                    (hebbian, new_e) = (g, zero);
                    p_h[at] = S::fma(a, d, g, gain);
                }
                let weight = S::fma(a, alpha[at], trace_h[at], w[at]);
                let plastic = S::times(a, S::times(a, alpha[at], hebbian), c);
                let value = S::fma(a, weight, delta, plastic);
                row_sums[q] = S::plus(a, row_sums[q], value);
                if !FIRST {
                    let trace = (before_h[at], before_e[at]);
                    let mask = step_before.mask::<A, S, TWO>(a, v, x_before[q], trace);
                    let p = (p_h[at], new_e);
                    sums.add::<A, S, TWO>(a, alpha[at], x_before[q], mask, trace, p);
                }
            }
            if !FIRST {
                sums.store::<A, S, TWO>(a, &mut self.out, v);
            }
        }
        for (out, &sum) in self.d_x[row..row + G].iter_mut().zip(&row_sums) {
            *out = S::plus(a, *out, sum);
        }
        if FIRST {
            self.add_gradients::<W, G>(row, place);
        }
    }
}
