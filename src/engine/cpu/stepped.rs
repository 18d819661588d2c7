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

use crate::engine::cpu::buffer::{Aligned, zeros};
use crate::engine::cpu::neurons::{Neurons, Task};
use crate::engine::cpu::panels::{BLOCK, GROUP, Panels, RowsView, Strided, Table};
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
    pub(crate) fn new(share: &Share, two: bool, size: usize, n_windows: usize, back: bool) -> Self {
        let len = share.panels.len();
        let both = |n: usize| [zeros(n * len), zeros(if two { n * len } else { 0 })];
        let back = usize::from(back);
        Traces {
            now: both(1),
            stored: (0..back * n_windows).map(|_| both(1)).collect(),
            window: both(back * size),
            p: both(back),
        }
    }

    /// Numbers that [`Traces::new`] keeps for each connection.
    pub(crate) fn per_connection(two: bool, size: usize, n_windows: usize, back: bool) -> usize {
        (1 + if back { n_windows + size + 1 } else { 0 }) * if two { 2 } else { 1 }
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

/// Coefficients of one column of vectors.
struct Column<'a, V> {
    d: &'a [V],
    c: &'a [V],
    m: &'a [V],
    delta: &'a [V],
    stride: usize,
    at: usize,
    bound: V,
}

impl<V: Copy> Column<'_, V> {
    /// One step of the traces; returns the clip's mask.
    #[inline(always)]
    fn evolve<A: Simd, S: Lanes<Vector<A> = V>, const TWO: bool>(
        &self,
        a: A,
        step: usize,
        x: V,
        h: &mut V,
        e: &mut V,
    ) -> V {
        let at = step * self.stride + self.at;
        let gain = S::times(a, x, self.c[at]);
        let before = if TWO {
            let before = S::fma(a, self.m[at], *e, *h);
            *e = S::fma(a, self.d[at], *e, gain);
            before
        } else {
            S::fma(a, self.d[at], *h, gain)
        };
        *h = S::clip(a, before, self.bound);
        S::inside(a, before, self.bound)
    }

    /// The clip's mask of a step, given the traces before it.
    #[inline(always)]
    fn mask<A: Simd, S: Lanes<Vector<A> = V>, const TWO: bool>(
        &self,
        a: A,
        step: usize,
        x: V,
        (mut h, mut e): (V, V),
    ) -> V {
        self.evolve::<A, S, TWO>(a, step, x, &mut h, &mut e)
    }
}

impl<'a, S: Lanes> Source<'a, S> {
    /// What sweeps read from step `first` on.
    pub(crate) fn new(
        on: Site<'a, S>,
        clip: S,
        neurons: &'a Neurons<S>,
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
    fn column<A: Simd>(&self, a: A, vector: usize) -> Column<'_, Vector<A, S>> {
        let Coefficients { d, c, m, delta } = self.coefficients;
        let [d_rows, c, m, delta] = [d, c, m, delta].map(|rows| S::vectors::<A>(rows.values));
        Column {
            d: d_rows,
            c,
            m,
            delta,
            stride: d.stride / self.panels.lanes,
            at: self.first / self.panels.lanes + vector,
            bound: S::splat(a, self.clip),
        }
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
        if self.traces[1].is_empty() {
            forward::<A, S, false>(a, self);
        } else {
            forward::<A, S, true>(a, self);
        }
    }
}

#[inline(always)]
fn forward<A: Simd, S: Lanes, const TWO: bool>(a: A, job: Forward<'_, S>) {
    let Forward { source, evolve, traces, stored, z } = job;
    let panels = source.panels;
    let [trace_h, trace_e] = traces.map(S::vectors_mut::<A>);
    let [stored_h, stored_e] = stored.map(S::vectors_mut::<A>);
    let (w, alpha) = (S::vectors::<A>(source.w), S::vectors::<A>(source.alpha));
    let z = S::vectors_mut::<A>(z);
    let zero = S::splat(a, S::ZERO);
    z.fill(zero);
    let n_x = source.x.n() * BLOCK;
    for panel in panels.iter() {
        for group in (0..panels.n_rows).step_by(GROUP) {
            let n = GROUP.min(panels.n_rows - group);
            let x = &source.x.blocks()[group / BLOCK * n_x..][..n_x];
            let k = group % BLOCK;
            for v in 0..panel.width {
                let column = source.column(a, panel.first + v);
                let mut sum = zero;
                for q in 0..n {
                    let at = panels.n_rows * panel.first + (group + q) * panel.width + v;
                    let mut h = trace_h[at];
                    let mut e = if TWO { trace_e[at] } else { zero };
                    if evolve {
                        let x = S::splat(a, x[k + q]);
                        column.evolve::<A, S, TWO>(a, 0, x, &mut h, &mut e);
                        trace_h[at] = h;
                        if TWO {
                            trace_e[at] = e;
                        }
                    }
                    if !stored_h.is_empty() {
                        stored_h[at] = h;
                        if TWO {
                            stored_e[at] = e;
                        }
                    }
                    let weight = S::fma(a, alpha[at], h, w[at]);
                    sum = S::fma(a, S::splat(a, x[BLOCK + k + q]), weight, sum);
                }
                z[panel.first + v] = S::plus(a, z[panel.first + v], sum);
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
    let matrix = panels.len() / panels.lanes;
    let [stored_h, stored_e] = stored.map(S::vectors::<A>);
    let [trace_h, trace_e] = traces.map(S::vectors_mut::<A>);
    let [p_h, p_e] = p.map(S::vectors::<A>);
    let alpha = S::vectors::<A>(source.alpha);
    let zero = S::splat(a, S::ZERO);
    let mut out = collected.start(a);
    let n_x = source.x.n() * BLOCK;
    for panel in panels.iter() {
        for group in (0..panels.n_rows).step_by(GROUP) {
            let n = GROUP.min(panels.n_rows - group);
            let x = &source.x.blocks()[group / BLOCK * n_x..][..n_x];
            let k = group % BLOCK;
            for v in 0..panel.width {
                let column = source.column(a, panel.first + v);
                let mut sums = Sums { q: zero, r: zero, e: zero };
                for q in 0..n {
                    let at = panels.n_rows * panel.first + (group + q) * panel.width + v;
                    let mut h = stored_h[at];
                    let mut e = if TWO { stored_e[at] } else { zero };
                    let (mut before, mut mask, mut last_x) = ((h, e), zero, zero);
                    for r in 0..n_steps {
                        trace_h[r * matrix + at] = h;
                        if TWO {
                            trace_e[r * matrix + at] = e;
                        }
                        before = (h, e);
                        last_x = S::splat(a, x[r * BLOCK + k + q]);
                        mask = column.evolve::<A, S, TWO>(a, r, last_x, &mut h, &mut e);
                    }
                    let p = (p_h[at], if TWO { p_e[at] } else { zero });
                    sums.add::<A, S, TWO>(a, alpha[at], last_x, mask, before, p);
                }
                sums.store::<A, S, TWO>(a, &mut out, panel.first + v);
            }
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
    let Back { source, n_steps, k: step, traces, p, collected, d_x, d_w, d_alpha } = job;
    let panels = source.panels;
    let matrix = panels.len() / panels.lanes;
    let [trace_h, trace_e] = traces.map(S::vectors::<A>);
    let [p_h, p_e] = p.map(S::vectors_mut::<A>);
    let (w, alpha) = (S::vectors::<A>(source.w), S::vectors::<A>(source.alpha));
    let (d_w, d_alpha) = (S::vectors_mut::<A>(d_w), S::vectors_mut::<A>(d_alpha));
    let d_x = S::vectors_mut::<A>(d_x);
    let zero = S::splat(a, S::ZERO);
    d_x.fill(zero);
    let mut out = collected.start(a);
    let n_x = source.x.n() * BLOCK;
    for panel in panels.iter() {
        for group in (0..panels.n_rows).step_by(GROUP) {
            let n = GROUP.min(panels.n_rows - group);
            let x = &source.x.blocks()[group / BLOCK * n_x..][..n_x];
            let row = group % BLOCK;
            let mut row_sums = [zero; GROUP];
            for v in 0..panel.width {
                let column = source.column(a, panel.first + v);
                let here = step * column.stride + column.at;
                let (d, c, delta) = (column.d[here], column.c[here], column.delta[here]);
                let mut sums = Sums { q: zero, r: zero, e: zero };
                for q in 0..n {
                    let at = panels.n_rows * panel.first + (group + q) * panel.width + v;
                    let x_here = S::splat(a, x[step * BLOCK + row + q]);
                    let here_trace = both::<_, TWO>(trace_h, trace_e, step * matrix + at, zero);
                    let mask = column.mask::<A, S, TWO>(a, step, x_here, here_trace);
                    let alpha = alpha[at];
                    let g = S::times(a, mask, p_h[at]);
                    let hebbian = if TWO { p_e[at] } else { g };
                    let weight = S::fma(a, alpha, here_trace.0, w[at]);
                    let plastic = S::times(a, S::times(a, alpha, hebbian), c);
                    let value = S::fma(a, weight, delta, plastic);
                    row_sums[q] = S::plus(a, row_sums[q], value);
                    let gain = S::times(a, x_here, delta);
                    let (new_h, new_e);
                    if TWO {
                        new_e = S::fma(a, d, p_e[at], S::times(a, column.m[here], g));
                        new_h = S::plus(a, g, gain);
                        p_e[at] = new_e;
                    } else {
                        new_e = zero;
                        new_h = S::fma(a, d, g, gain);
                    }
                    p_h[at] = new_h;
                    if FIRST {
                        let (mut sum_w, mut sum_alpha) = (d_w[at], d_alpha[at]);
                        for r in 0..n_steps {
                            let delta = column.delta[r * column.stride + column.at];
                            let gain = S::times(a, S::splat(a, x[r * BLOCK + row + q]), delta);
                            sum_w = S::plus(a, sum_w, gain);
                            sum_alpha = S::fma(a, trace_h[r * matrix + at], gain, sum_alpha);
                        }
                        (d_w[at], d_alpha[at]) = (sum_w, sum_alpha);
                    } else {
                        let x = S::splat(a, x[(step - 1) * BLOCK + row + q]);
                        let at = (step - 1) * matrix + at;
                        let trace = both::<_, TWO>(trace_h, trace_e, at, zero);
                        let mask = column.mask::<A, S, TWO>(a, step - 1, x, trace);
                        sums.add::<A, S, TWO>(a, alpha, x, mask, trace, (new_h, new_e));
                    }
                }
                if !FIRST {
                    sums.store::<A, S, TWO>(a, &mut out, panel.first + v);
                }
            }
            for q in 0..n {
                d_x[group + q] = S::plus(a, d_x[group + q], row_sums[q]);
            }
        }
    }
}

/// H and E (with one trace `none`) of one connection.
#[inline(always)]
fn both<V: Copy, const TWO: bool>(h: &[V], e: &[V], at: usize, none: V) -> (V, V) {
    (h[at], if TWO { e[at] } else { none })
}
