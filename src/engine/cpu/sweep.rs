//! The O(N^2) work of one step: sweeps down panels of w, alpha and the trace.
//!
//! H is stored once per window of K steps. Inside a window each sweep re-evolves it in
//! registers from the stored vectors, one step after another, so clipping and
//! coefficients that differ by step are exact and nothing is written. The adjoint is
//! kept as P (lambda = alpha P, see `README.md`), stored at the window's end and
//! evolved backwards in registers likewise.

use pulp::{Simd, WithSimd};

use crate::engine::cpu::panels::{Panels, VECTORS};
use crate::engine::cpu::simd::Lanes;

/// The longest window.
pub(crate) const MAX_WINDOW: usize = 16;

/// The steps of one window, as the sweeps read them. "Row" r is the window's r-th step.
#[derive(Clone, Copy)]
pub(crate) struct Window<'a, S> {
    /// Steps that have happened in the window.
    pub(crate) n_steps: usize,
    /// x `[M, stride]`, step fastest.
    pub(crate) x: &'a [S],
    pub(crate) stride: usize,
    /// Rule coefficients `[n_steps, padded N]`; `m` is empty for one trace.
    pub(crate) d: &'a [S],
    pub(crate) c: &'a [S],
    pub(crate) m: &'a [S],
    /// dL/dz `[n_steps, padded N]`; empty in a forward sweep.
    pub(crate) delta: &'a [S],
}

/// What every sweep reads: one network, one trace (`e` empty for one trace).
#[derive(Clone, Copy)]
pub(crate) struct Source<'a, S> {
    pub(crate) panels: Panels,
    pub(crate) w: &'a [S],
    pub(crate) alpha: &'a [S],
    /// H and E at the window's first step, in panels.
    pub(crate) h: &'a [S],
    pub(crate) e: &'a [S],
    pub(crate) clip: Option<S>,
    pub(crate) window: Window<'a, S>,
}

/// Coefficients of one panel over a window, as vectors.
struct Coefficients<V> {
    d: [[V; VECTORS]; MAX_WINDOW],
    c: [[V; VECTORS]; MAX_WINDOW],
    m: [[V; VECTORS]; MAX_WINDOW],
    delta: [[V; VECTORS]; MAX_WINDOW],
}

type Vector<A, S> = <S as Lanes>::Vector<A>;
type Wide<A, S> = [Vector<A, S>; VECTORS];

#[inline(always)]
fn wide<A: Simd, S: Lanes>(rows: &[Vector<A, S>], i: usize) -> Wide<A, S> {
    [rows[i * VECTORS], rows[i * VECTORS + 1]]
}

#[inline(always)]
fn store<A: Simd, S: Lanes>(rows: &mut [Vector<A, S>], i: usize, value: Wide<A, S>) {
    rows[i * VECTORS] = value[0];
    rows[i * VECTORS + 1] = value[1];
}

#[inline(always)]
fn zero<A: Simd, S: Lanes>(a: A) -> Wide<A, S> {
    [S::splat(a, S::ZERO); VECTORS]
}

#[inline(always)]
fn mul<A: Simd, S: Lanes>(a: A, x: Wide<A, S>, y: Wide<A, S>) -> Wide<A, S> {
    [S::times(a, x[0], y[0]), S::times(a, x[1], y[1])]
}

#[inline(always)]
fn fma<A: Simd, S: Lanes>(a: A, x: Wide<A, S>, y: Wide<A, S>, z: Wide<A, S>) -> Wide<A, S> {
    [S::fma(a, x[0], y[0], z[0]), S::fma(a, x[1], y[1], z[1])]
}

/// s x + z with a scalar s.
#[inline(always)]
fn axpy<A: Simd, S: Lanes>(a: A, s: Vector<A, S>, x: Wide<A, S>, z: Wide<A, S>) -> Wide<A, S> {
    [S::fma(a, s, x[0], z[0]), S::fma(a, s, x[1], z[1])]
}

#[inline(always)]
fn scale<A: Simd, S: Lanes>(a: A, s: Vector<A, S>, x: Wide<A, S>) -> Wide<A, S> {
    [S::times(a, s, x[0]), S::times(a, s, x[1])]
}

impl<'a, S: Lanes> Source<'a, S> {
    #[inline(always)]
    fn coefficients<A: Simd>(&self, a: A, panel: usize) -> Coefficients<Vector<A, S>> {
        let padded = self.panels.padded();
        let none = [zero::<A, S>(a); MAX_WINDOW];
        let mut out = Coefficients { d: none, c: none, m: none, delta: none };
        for r in 0..self.window.n_steps {
            let row = |values: &'a [S]| {
                let at = r * padded + panel * self.panels.width;
                wide::<A, S>(S::vectors::<A>(&values[at..at + self.panels.width]), 0)
            };
            out.d[r] = row(self.window.d);
            out.c[r] = row(self.window.c);
            if !self.window.m.is_empty() {
                out.m[r] = row(self.window.m);
            }
            if !self.window.delta.is_empty() {
                out.delta[r] = row(self.window.delta);
            }
        }
        out
    }

    #[inline(always)]
    fn panel<A: Simd>(&self, values: &'a [S], panel: usize) -> &'a [Vector<A, S>] {
        if values.is_empty() {
            return &[];
        }
        let len = self.panels.panel_len();
        S::vectors::<A>(&values[panel * len..(panel + 1) * len])
    }

    #[inline(always)]
    fn x_row(&self, i: usize) -> &'a [S] {
        &self.window.x[i * self.window.stride..][..self.window.n_steps]
    }

    fn two_traces(&self) -> bool {
        !self.e.is_empty()
    }
}

/// One step of the traces: H' = clip(d H + c x), or H' = clip(H + m E), E' = d E + c x.
/// Returns the clip's mask.
#[inline(always)]
fn evolve<A: Simd, S: Lanes, const TWO: bool, const CLIP: bool>(
    a: A,
    k: &Coefficients<Vector<A, S>>,
    r: usize,
    x: Vector<A, S>,
    bound: Vector<A, S>,
    h: &mut Wide<A, S>,
    e: &mut Wide<A, S>,
) -> Wide<A, S> {
    let gain = scale::<A, S>(a, x, k.c[r]);
    if TWO {
        *h = fma::<A, S>(a, k.m[r], *e, *h);
        *e = fma::<A, S>(a, k.d[r], *e, gain);
    } else {
        *h = fma::<A, S>(a, k.d[r], *h, gain);
    }
    if !CLIP {
        return zero::<A, S>(a);
    }
    let mask = [S::inside(a, h[0], bound), S::inside(a, h[1], bound)];
    *h = [S::clip(a, h[0], bound), S::clip(a, h[1], bound)];
    mask
}

/// Calls the sweep compiled for one or two traces, with or without clip.
macro_rules! choose {
    ($sweep:ident, $simd:expr, $job:expr $(, $step:expr $(, $flag:literal)*)?) => {
        match ($job.source.two_traces(), $job.source.clip.is_some()) {
            (false, false) => $sweep::<_, _, false, false $($(, $flag)*)?>($simd, $job $(, $step)?),
            (false, true) => $sweep::<_, _, false, true $($(, $flag)*)?>($simd, $job $(, $step)?),
            (true, false) => $sweep::<_, _, true, false $($(, $flag)*)?>($simd, $job $(, $step)?),
            (true, true) => $sweep::<_, _, true, true $($(, $flag)*)?>($simd, $job $(, $step)?),
        }
    };
}

/// Plastic matmul: `z_j = sum_i x_i (w_ij + alpha_ij H_ij)` after evolving the trace
/// through the window; with `commit`, also stores the evolved trace.
pub(crate) struct Forward<'a, S> {
    pub(crate) source: &'a Source<'a, S>,
    /// x of the step to multiply with, `[M]`.
    pub(crate) x: &'a [S],
    /// Panels of this job.
    pub(crate) panels: std::ops::Range<usize>,
    /// `=`, padded N of these panels.
    pub(crate) z: &'a mut [S],
    /// `=`, H and E after the window, these panels; empty: not wanted.
    pub(crate) commit_h: &'a mut [S],
    pub(crate) commit_e: &'a mut [S],
}

fn split_mut<T>(values: &mut [T], at: usize) -> (&mut [T], &mut [T]) {
    let at = at.min(values.len());
    values.split_at_mut(at)
}

impl<S: Lanes> Forward<'_, S> {
    /// Runs the sweep on `n_threads` threads.
    pub(crate) fn run(self, n_threads: usize) {
        let n = self.panels.len();
        if n_threads < 2 || n < 2 {
            pulp::Arch::new().dispatch(self);
            return;
        }
        let half = n / 2;
        let (width, len) = (self.source.panels.width, self.source.panels.panel_len());
        let middle = self.panels.start + half;
        let (z0, z1) = split_mut(self.z, half * width);
        let (h0, h1) = split_mut(self.commit_h, half * len);
        let (e0, e1) = split_mut(self.commit_e, half * len);
        let (source, x, panels) = (self.source, self.x, self.panels);
        let part =
            |panels, z, commit_h, commit_e| Forward { source, x, panels, z, commit_h, commit_e };
        let left = part(panels.start..middle, z0, h0, e0);
        let right = part(middle..panels.end, z1, h1, e1);
        rayon::join(|| left.run(n_threads / 2), || right.run(n_threads - n_threads / 2));
    }
}

impl<S: Lanes> WithSimd for Forward<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        choose!(forward, a, self);
    }
}

#[inline(always)]
fn forward<A: Simd, S: Lanes, const TWO: bool, const CLIP: bool>(a: A, job: Forward<'_, S>) {
    let source = job.source;
    let panels = source.panels;
    let bound = S::splat(a, source.clip.unwrap_or(S::ZERO));
    let first = job.panels.start;
    for panel in job.panels {
        let k = source.coefficients(a, panel);
        let w = source.panel::<A>(source.w, panel);
        let alpha = source.panel::<A>(source.alpha, panel);
        let h0 = source.panel::<A>(source.h, panel);
        let e0 = source.panel::<A>(source.e, panel);
        let at = (panel - first) * panels.panel_len();
        let (commit_h, commit_e) = if job.commit_h.is_empty() {
            (&mut [][..], &mut [][..])
        } else {
            let e_len = if TWO { panels.panel_len() } else { 0 };
            let e_at = if TWO { at } else { 0 };
            (
                S::vectors_mut::<A>(&mut job.commit_h[at..at + panels.panel_len()]),
                S::vectors_mut::<A>(&mut job.commit_e[e_at..e_at + e_len]),
            )
        };
        let mut z = zero::<A, S>(a);
        for i in 0..panels.n_rows {
            let mut h = wide::<A, S>(h0, i);
            let mut e = if TWO { wide::<A, S>(e0, i) } else { h };
            for (r, &x) in source.x_row(i).iter().enumerate() {
                let x = S::splat(a, x);
                evolve::<A, S, TWO, CLIP>(a, &k, r, x, bound, &mut h, &mut e);
            }
            if !commit_h.is_empty() {
                store::<A, S>(commit_h, i, h);
                if TWO {
                    store::<A, S>(commit_e, i, e);
                }
            }
            let weight = fma::<A, S>(a, wide::<A, S>(alpha, i), h, wide::<A, S>(w, i));
            z = axpy::<A, S>(a, S::splat(a, job.x[i]), weight, z);
        }
        let out = &mut job.z[(panel - first) * panels.width..][..panels.width];
        store::<A, S>(S::vectors_mut::<A>(out), 0, z);
    }
}

/// Which halves of the backward step a sweep does. With P known after step `b`:
/// *propagate* step b (row sums `x_bar`, P before b), then *collect* step b-1 (the
/// column sums that its delta waits for).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Collect the window's last step, with P as stored.
    Collect,
    /// Propagate step `b` and collect step `b - 1`; b >= 1.
    Both(usize),
    /// Propagate the window's first step, add the window's dL/dw and dL/dalpha, store P.
    Commit,
}

/// The backward sweep. Column sums are `=`, `x_bar` is `=`, gradients are `+=`.
pub(crate) struct Backward<'a, S> {
    pub(crate) source: &'a Source<'a, S>,
    pub(crate) pass: Pass,
    pub(crate) panels: std::ops::Range<usize>,
    /// P of H (`p_h`) and of E (`p_e`, empty for one trace), these panels.
    pub(crate) p_h: &'a mut [S],
    pub(crate) p_e: &'a mut [S],
    /// Column sums of `model::Adjoint`, padded N of these panels; `sum_e` as `p_e`.
    pub(crate) q: &'a mut [S],
    pub(crate) r: &'a mut [S],
    pub(crate) sum_e: &'a mut [S],
    /// Row sums, `[threads, M, lanes]`, to be added up by the caller.
    pub(crate) x_bar: &'a mut [S],
    /// dL/dw and dL/dalpha per connection, these panels.
    pub(crate) d_w: &'a mut [S],
    pub(crate) d_alpha: &'a mut [S],
}

impl<S: Lanes> Backward<'_, S> {
    /// Runs the sweep on `n_threads` threads; `x_bar` has a part for each.
    pub(crate) fn run(self, n_threads: usize) {
        let n = self.panels.len();
        if n_threads < 2 {
            pulp::Arch::new().dispatch(self);
            return;
        }
        let threads = n_threads / 2;
        let half = n / 2;
        let (width, len) = (self.source.panels.width, self.source.panels.panel_len());
        let middle = self.panels.start + half;
        let rows = self.x_bar.len() / n_threads * threads;
        let (source, pass) = (self.source, self.pass);
        let (h0, h1) = split_mut(self.p_h, half * len);
        let (e0, e1) = split_mut(self.p_e, half * len);
        let (q0, q1) = split_mut(self.q, half * width);
        let (r0, r1) = split_mut(self.r, half * width);
        let (s0, s1) = split_mut(self.sum_e, half * width);
        let (x0, x1) = split_mut(self.x_bar, rows);
        let (w0, w1) = split_mut(self.d_w, half * len);
        let (a0, a1) = split_mut(self.d_alpha, half * len);
        let left = Backward {
            source,
            pass,
            panels: self.panels.start..middle,
            p_h: h0,
            p_e: e0,
            q: q0,
            r: r0,
            sum_e: s0,
            x_bar: x0,
            d_w: w0,
            d_alpha: a0,
        };
        let right = Backward {
            source,
            pass,
            panels: middle..self.panels.end,
            p_h: h1,
            p_e: e1,
            q: q1,
            r: r1,
            sum_e: s1,
            x_bar: x1,
            d_w: w1,
            d_alpha: a1,
        };
        rayon::join(|| left.run(threads), || right.run(n_threads - threads));
    }
}

impl<S: Lanes> WithSimd for Backward<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        let n_steps = self.source.window.n_steps;
        match self.pass {
            Pass::Collect => choose!(backward, a, self, n_steps, false, true),
            Pass::Both(b) => choose!(backward, a, self, b, true, true),
            Pass::Commit => choose!(backward, a, self, 0, true, false),
        }
    }
}

/// One step of the adjoint traces, from after the step to before it.
#[inline(always)]
fn evolve_back<A: Simd, S: Lanes, const TWO: bool, const CLIP: bool>(
    a: A,
    k: &Coefficients<Vector<A, S>>,
    r: usize,
    mask: Wide<A, S>,
    gain: Wide<A, S>,
    p_h: &mut Wide<A, S>,
    p_e: &mut Wide<A, S>,
) {
    let g = if CLIP { mul::<A, S>(a, mask, *p_h) } else { *p_h };
    if TWO {
        *p_e = fma::<A, S>(a, k.d[r], *p_e, mul::<A, S>(a, k.m[r], g));
        *p_h = [S::plus(a, g[0], gain[0]), S::plus(a, g[1], gain[1])];
    } else {
        *p_h = fma::<A, S>(a, k.d[r], g, gain);
    }
}

/// The body of [`Backward`]: propagates step `b` and collects step `b - 1`.
#[expect(clippy::needless_range_loop, reason = "one index into many panels")]
#[inline(always)]
fn backward<
    A: Simd,
    S: Lanes,
    const TWO: bool,
    const CLIP: bool,
    const PROPAGATE: bool,
    const COLLECT: bool,
>(
    a: A,
    job: Backward<'_, S>,
    b: usize,
) {
    let commit = !COLLECT;
    let source = job.source;
    let panels = source.panels;
    let n_steps = source.window.n_steps;
    let bound = S::splat(a, source.clip.unwrap_or(S::ZERO));
    let first = job.panels.start;
    let x_bar = S::vectors_mut::<A>(job.x_bar);
    let len = panels.panel_len();
    if PROPAGATE && job.panels.is_empty() {
        x_bar.fill(S::splat(a, S::ZERO));
    }
    for panel in job.panels {
        let k = source.coefficients(a, panel);
        let w = source.panel::<A>(source.w, panel);
        let alpha = source.panel::<A>(source.alpha, panel);
        let h0 = source.panel::<A>(source.h, panel);
        let e0 = source.panel::<A>(source.e, panel);
        let at = (panel - first) * len;
        let (e_at, e_len) = if TWO { (at, len) } else { (0, 0) };
        let p_h_panel = S::vectors_mut::<A>(&mut job.p_h[at..at + len]);
        let p_e_panel = S::vectors_mut::<A>(&mut job.p_e[e_at..e_at + e_len]);
        let d_w = S::vectors_mut::<A>(&mut job.d_w[at..at + len]);
        let d_alpha = S::vectors_mut::<A>(&mut job.d_alpha[at..at + len]);
        let mut q = zero::<A, S>(a);
        let mut r_sum = zero::<A, S>(a);
        let mut e_sum = zero::<A, S>(a);
        let mut masks = [zero::<A, S>(a); MAX_WINDOW];
        for i in 0..panels.n_rows {
            let x = source.x_row(i);
            let alpha = wide::<A, S>(alpha, i);
            let mut h = wide::<A, S>(h0, i);
            let mut e = if TWO { wide::<A, S>(e0, i) } else { h };
            let mut h_b = h;
            let mut before = h;
            if commit {
                let mut sum_w = wide::<A, S>(d_w, i);
                let mut sum_alpha = wide::<A, S>(d_alpha, i);
                for (r, &x) in x.iter().enumerate() {
                    let x = S::splat(a, x);
                    let gain = scale::<A, S>(a, x, k.delta[r]);
                    sum_w = [S::plus(a, sum_w[0], gain[0]), S::plus(a, sum_w[1], gain[1])];
                    sum_alpha = fma::<A, S>(a, h, gain, sum_alpha);
                    masks[r] = evolve::<A, S, TWO, CLIP>(a, &k, r, x, bound, &mut h, &mut e);
                }
                store::<A, S>(d_w, i, sum_w);
                store::<A, S>(d_alpha, i, sum_alpha);
            } else {
                for (r, &x) in x[..b - 1].iter().enumerate() {
                    let x = S::splat(a, x);
                    masks[r] = evolve::<A, S, TWO, CLIP>(a, &k, r, x, bound, &mut h, &mut e);
                }
                before = if TWO { e } else { h };
                let last = if CLIP { n_steps } else { b };
                for (r, &x) in x[..last].iter().enumerate().skip(b - 1) {
                    let x = S::splat(a, x);
                    masks[r] = evolve::<A, S, TWO, CLIP>(a, &k, r, x, bound, &mut h, &mut e);
                    if r == b - 1 {
                        h_b = h;
                    }
                }
            }

            let mut p_h = wide::<A, S>(p_h_panel, i);
            let mut p_e = if TWO { wide::<A, S>(p_e_panel, i) } else { p_h };
            let last = if PROPAGATE { b + 1 } else { b };
            for r in (last..n_steps).rev() {
                let gain = scale::<A, S>(a, S::splat(a, x[r]), k.delta[r]);
                evolve_back::<A, S, TWO, CLIP>(a, &k, r, masks[r], gain, &mut p_h, &mut p_e);
            }
            if PROPAGATE {
                let g = if CLIP { mul::<A, S>(a, masks[b], p_h) } else { p_h };
                let hebbian = if TWO { p_e } else { g };
                let weight = fma::<A, S>(a, alpha, h_b, wide::<A, S>(w, i));
                let plastic = mul::<A, S>(a, mul::<A, S>(a, alpha, hebbian), k.c[b]);
                let value = fma::<A, S>(a, weight, k.delta[b], plastic);
                let value = S::plus(a, value[0], value[1]);
                x_bar[i] = if panel == first { value } else { S::plus(a, x_bar[i], value) };
                let gain = scale::<A, S>(a, S::splat(a, x[b]), k.delta[b]);
                evolve_back::<A, S, TWO, CLIP>(a, &k, b, masks[b], gain, &mut p_h, &mut p_e);
            }
            if COLLECT {
                let g = if CLIP { mul::<A, S>(a, masks[b - 1], p_h) } else { p_h };
                let hebbian = mul::<A, S>(a, alpha, if TWO { p_e } else { g });
                q = axpy::<A, S>(a, S::splat(a, x[b - 1]), hebbian, q);
                r_sum = fma::<A, S>(a, before, hebbian, r_sum);
                if TWO {
                    e_sum = fma::<A, S>(a, mul::<A, S>(a, alpha, g), before, e_sum);
                }
            }
            if commit {
                store::<A, S>(p_h_panel, i, p_h);
                if TWO {
                    store::<A, S>(p_e_panel, i, p_e);
                }
            }
        }
        if COLLECT {
            let at = (panel - first) * panels.width;
            let columns = at..at + panels.width;
            store::<A, S>(S::vectors_mut::<A>(&mut job.q[columns.clone()]), 0, q);
            store::<A, S>(S::vectors_mut::<A>(&mut job.r[columns.clone()]), 0, r_sum);
            if TWO {
                store::<A, S>(S::vectors_mut::<A>(&mut job.sum_e[columns]), 0, e_sum);
            }
        }
    }
}
