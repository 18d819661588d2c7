//! The O(N^2) work of one step: sweeps down panels of w, alpha and the trace.
//!
//! H is stored once per window of K steps. Inside a window nothing is written: without a
//! clip the trace at any step is an affine form of the stored trace and of the x of the
//! steps since, whose coefficients belong to the column and are formed once a panel; with
//! a clip it is evolved step by step. The adjoint is kept as P (lambda = alpha P, see
//! `README.md`), stored at the window's end, and treated likewise, backwards.

use pulp::{Simd, WithSimd};

use crate::engine::cpu::panels::{Panels, VECTORS};
use crate::engine::cpu::simd::Lanes;

/// Rows that a sweep takes at a time, so that a coefficient is loaded once for all of them:
/// forward, and backward, where a row needs more registers.
const ROWS: usize = 4;
const ROWS_BACK: usize = 2;

/// The longest window.
pub(crate) const MAX_WINDOW: usize = 8;

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

impl<V: Copy> Coefficients<V> {
    #[inline(always)]
    fn none<A: Simd, S: Lanes<Vector<A> = V>>(a: A) -> Self {
        let none = [zero::<A, S>(a); MAX_WINDOW];
        Coefficients { d: none, c: none, m: none, delta: none }
    }
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
    /// Loads the window's coefficients of a panel.
    #[inline(always)]
    fn coefficients<A: Simd>(&self, panel: usize, out: &mut Coefficients<Vector<A, S>>) {
        let padded = self.panels.padded();
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

/// A trace, or an adjoint, as `h H + e E + sum_r x_r x(r)` with H and E as stored.
#[derive(Clone, Copy)]
struct Affine<V> {
    h: [V; VECTORS],
    e: [V; VECTORS],
    x: [[V; VECTORS]; MAX_WINDOW],
}

/// The affine forms of H and E, or of P_H and P_E.
struct Forms<V> {
    h: Affine<V>,
    e: Affine<V>,
}

/// H and E, or P_H and P_E, of R rows.
struct Rows<V, const R: usize> {
    h: [[V; VECTORS]; R],
    e: [[V; VECTORS]; R],
}

impl<V: Copy> Affine<V> {
    /// s self + t other, coefficient by coefficient.
    #[inline(always)]
    fn combine<A: Simd, S: Lanes<Vector<A> = V>>(
        &mut self,
        a: A,
        steps: std::ops::Range<usize>,
        s: Wide<A, S>,
        t: Wide<A, S>,
        other: &Self,
    ) {
        let one = |x: Wide<A, S>, y: Wide<A, S>| fma::<A, S>(a, t, y, mul::<A, S>(a, s, x));
        self.h = one(self.h, other.h);
        self.e = one(self.e, other.e);
        for r in steps {
            self.x[r] = one(self.x[r], other.x[r]);
        }
    }

    #[inline(always)]
    fn scale<A: Simd, S: Lanes<Vector<A> = V>>(
        &mut self,
        a: A,
        steps: std::ops::Range<usize>,
        s: Wide<A, S>,
    ) {
        self.h = mul::<A, S>(a, self.h, s);
        self.e = mul::<A, S>(a, self.e, s);
        for r in steps {
            self.x[r] = mul::<A, S>(a, self.x[r], s);
        }
    }
}

impl<V: Copy> Forms<V> {
    #[inline(always)]
    fn none<A: Simd, S: Lanes<Vector<A> = V>>(a: A) -> Self {
        let none = zero::<A, S>(a);
        let form = Affine { h: none, e: none, x: [none; MAX_WINDOW] };
        Forms { h: form, e: form }
    }

    /// H and E themselves; coefficients of steps are set as steps are taken.
    #[inline(always)]
    fn start<A: Simd, S: Lanes<Vector<A> = V>>(&mut self, a: A) {
        let (none, one) = (zero::<A, S>(a), [S::splat(a, S::ONE); VECTORS]);
        (self.h.h, self.h.e, self.e.h, self.e.e) = (one, none, none, one);
    }

    /// The forms one step on: the trace's own recurrence, applied to coefficients.
    #[inline(always)]
    fn evolve<A: Simd, S: Lanes<Vector<A> = V>, const TWO: bool>(
        &mut self,
        a: A,
        k: &Coefficients<V>,
        r: usize,
    ) {
        let one = [S::splat(a, S::ONE); VECTORS];
        if TWO {
            self.h.x[r] = zero::<A, S>(a);
            self.h.combine::<A, S>(a, 0..r, one, k.m[r], &self.e);
            self.e.scale::<A, S>(a, 0..r, k.d[r]);
            self.e.x[r] = k.c[r];
        } else {
            self.h.scale::<A, S>(a, 0..r, k.d[r]);
            self.h.x[r] = k.c[r];
        }
    }

    /// The forms of the adjoints one step back.
    #[inline(always)]
    fn evolve_back<A: Simd, S: Lanes<Vector<A> = V>, const TWO: bool>(
        &mut self,
        a: A,
        k: &Coefficients<V>,
        r: usize,
        n: usize,
    ) {
        if TWO {
            self.e.x[r] = zero::<A, S>(a);
            self.e.combine::<A, S>(a, r + 1..n, k.d[r], k.m[r], &self.h);
        } else {
            self.h.scale::<A, S>(a, r + 1..n, k.d[r]);
        }
        self.h.x[r] = k.delta[r];
    }

    /// The values of R rows, given those stored and x of the steps that count.
    #[inline(always)]
    fn values<A: Simd, S: Lanes<Vector<A> = V>, const TWO: bool, const R: usize>(
        &self,
        a: A,
        stored: &Rows<V, R>,
        x: &[&[S]; R],
        steps: std::ops::Range<usize>,
        want_e: bool,
    ) -> Rows<V, R> {
        let mut out = Rows { h: stored.h, e: stored.e };
        for q in 0..R {
            out.h[q] = mul::<A, S>(a, self.h.h, stored.h[q]);
            if TWO {
                out.h[q] = fma::<A, S>(a, self.h.e, stored.e[q], out.h[q]);
                if want_e {
                    out.e[q] = fma::<A, S>(
                        a,
                        self.e.h,
                        stored.h[q],
                        mul::<A, S>(a, self.e.e, stored.e[q]),
                    );
                }
            }
        }
        for r in steps {
            for q in 0..R {
                let x = S::splat(a, x[q][r]);
                out.h[q] = axpy::<A, S>(a, x, self.h.x[r], out.h[q]);
                if TWO && want_e {
                    out.e[q] = axpy::<A, S>(a, x, self.e.x[r], out.e[q]);
                }
            }
        }
        out
    }
}

#[inline(always)]
fn load<A: Simd, S: Lanes, const TWO: bool, const R: usize>(
    h: &[Vector<A, S>],
    e: &[Vector<A, S>],
    i: usize,
) -> Rows<Vector<A, S>, R> {
    Rows {
        h: std::array::from_fn(|q| wide::<A, S>(h, i + q)),
        e: std::array::from_fn(|q| wide::<A, S>(if TWO { e } else { h }, i + q)),
    }
}

/// One panel of a forward sweep.
struct ForwardPanel<'a, 'b, A: Simd, S: Lanes> {
    source: &'a Source<'a, S>,
    x: &'a [S],
    k: &'a Coefficients<Vector<A, S>>,
    forms: &'a Forms<Vector<A, S>>,
    w: &'a [Vector<A, S>],
    alpha: &'a [Vector<A, S>],
    h: &'a [Vector<A, S>],
    e: &'a [Vector<A, S>],
    commit_h: &'b mut [Vector<A, S>],
    commit_e: &'b mut [Vector<A, S>],
    z: Wide<A, S>,
}

impl<A: Simd, S: Lanes> ForwardPanel<'_, '_, A, S> {
    /// Rows i..i + R.
    #[inline(always)]
    fn rows<const TWO: bool, const CLIP: bool, const R: usize>(&mut self, a: A, i: usize) {
        let n = self.source.window.n_steps;
        let x: [&[S]; R] = std::array::from_fn(|q| self.source.x_row(i + q));
        let mut at = load::<A, S, TWO, R>(self.h, self.e, i);
        if CLIP {
            let bound = S::splat(a, self.source.clip.unwrap_or(S::ZERO));
            for r in 0..n {
                for q in 0..R {
                    let x = S::splat(a, x[q][r]);
                    let (h, e) = (&mut at.h[q], &mut at.e[q]);
                    evolve::<A, S, TWO, CLIP>(a, self.k, r, x, bound, h, e);
                }
            }
        } else {
            let commit = !self.commit_h.is_empty();
            at = self.forms.values::<A, S, TWO, R>(a, &at, &x, 0..n, commit);
        }
        for q in 0..R {
            if !self.commit_h.is_empty() {
                store::<A, S>(self.commit_h, i + q, at.h[q]);
                if TWO {
                    store::<A, S>(self.commit_e, i + q, at.e[q]);
                }
            }
            let alpha = wide::<A, S>(self.alpha, i + q);
            let weight = fma::<A, S>(a, alpha, at.h[q], wide::<A, S>(self.w, i + q));
            self.z = axpy::<A, S>(a, S::splat(a, self.x[i + q]), weight, self.z);
        }
    }
}

#[inline(always)]
fn forward<A: Simd, S: Lanes, const TWO: bool, const CLIP: bool>(a: A, job: Forward<'_, S>) {
    let source = job.source;
    let panels = source.panels;
    let first = job.panels.start;
    let mut k = Coefficients::none::<A, S>(a);
    let mut forms = Forms::none::<A, S>(a);
    for panel in job.panels {
        source.coefficients::<A>(panel, &mut k);
        if !CLIP {
            forms.start::<A, S>(a);
            for r in 0..source.window.n_steps {
                forms.evolve::<A, S, TWO>(a, &k, r);
            }
        }
        let at = (panel - first) * panels.panel_len();
        let part = |values: &mut [S]| {
            let from = at.min(values.len());
            from..(from + panels.panel_len()).min(values.len())
        };
        let (h_part, e_part) = (part(job.commit_h), part(job.commit_e));
        let mut rows = ForwardPanel {
            source,
            x: job.x,
            k: &k,
            forms: &forms,
            w: source.panel::<A>(source.w, panel),
            alpha: source.panel::<A>(source.alpha, panel),
            h: source.panel::<A>(source.h, panel),
            e: source.panel::<A>(source.e, panel),
            commit_h: S::vectors_mut::<A>(&mut job.commit_h[h_part]),
            commit_e: S::vectors_mut::<A>(&mut job.commit_e[e_part]),
            z: zero::<A, S>(a),
        };
        let whole = panels.n_rows / ROWS * ROWS;
        for i in (0..whole).step_by(ROWS) {
            rows.rows::<TWO, CLIP, ROWS>(a, i);
        }
        for i in whole..panels.n_rows {
            rows.rows::<TWO, CLIP, 1>(a, i);
        }
        let z = rows.z;
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

/// One panel of a backward sweep that propagates step `b` and collects step `b - 1`.
struct BackwardPanel<'a, 'b, A: Simd, S: Lanes> {
    source: &'a Source<'a, S>,
    b: usize,
    k: &'a Coefficients<Vector<A, S>>,
    /// The trace before step b - 1 (Collect, Both), and the adjoint after step b (Both) or
    /// b - 1 (Collect).
    trace: &'a Forms<Vector<A, S>>,
    adjoint: &'a Forms<Vector<A, S>>,
    w: &'a [Vector<A, S>],
    alpha: &'a [Vector<A, S>],
    h: &'a [Vector<A, S>],
    e: &'a [Vector<A, S>],
    p_h: &'b mut [Vector<A, S>],
    p_e: &'b mut [Vector<A, S>],
    d_w: &'b mut [Vector<A, S>],
    d_alpha: &'b mut [Vector<A, S>],
    x_bar: &'b mut [Vector<A, S>],
    /// Whether this panel starts the row sums.
    first: bool,
    q: Wide<A, S>,
    r: Wide<A, S>,
    sum_e: Wide<A, S>,
}

impl<A: Simd, S: Lanes> BackwardPanel<'_, '_, A, S> {
    /// Rows i..i + R.
    #[inline(always)]
    fn rows<
        const TWO: bool,
        const CLIP: bool,
        const PROPAGATE: bool,
        const COLLECT: bool,
        const R: usize,
    >(
        &mut self,
        a: A,
        i: usize,
    ) {
        let (n, b) = (self.source.window.n_steps, self.b);
        let bound = S::splat(a, self.source.clip.unwrap_or(S::ZERO));
        let x: [&[S]; R] = std::array::from_fn(|q| self.source.x_row(i + q));
        let stored = load::<A, S, TWO, R>(self.h, self.e, i);
        let mut p = load::<A, S, TWO, R>(self.p_h, self.p_e, i);
        let mut masks = [[zero::<A, S>(a); R]; MAX_WINDOW];
        let mut at = Rows { h: stored.h, e: stored.e };
        // the trace before step b - 1 and before step b
        let mut before = Rows { h: stored.h, e: stored.e };
        let mut at_b = Rows { h: stored.h, e: stored.e };
        if !COLLECT {
            let mut sum_w: [Wide<A, S>; R] = std::array::from_fn(|q| wide::<A, S>(self.d_w, i + q));
            let mut sum_alpha: [Wide<A, S>; R] =
                std::array::from_fn(|q| wide::<A, S>(self.d_alpha, i + q));
            for r in 0..n {
                for q in 0..R {
                    let x = S::splat(a, x[q][r]);
                    let gain = scale::<A, S>(a, x, self.k.delta[r]);
                    let sum = sum_w[q];
                    sum_w[q] = [S::plus(a, sum[0], gain[0]), S::plus(a, sum[1], gain[1])];
                    sum_alpha[q] = fma::<A, S>(a, at.h[q], gain, sum_alpha[q]);
                    let (h, e) = (&mut at.h[q], &mut at.e[q]);
                    masks[r][q] = evolve::<A, S, TWO, CLIP>(a, self.k, r, x, bound, h, e);
                }
            }
            for q in 0..R {
                store::<A, S>(self.d_w, i + q, sum_w[q]);
                store::<A, S>(self.d_alpha, i + q, sum_alpha[q]);
            }
        } else if CLIP {
            for r in 0..n {
                if r + 1 == b {
                    before = Rows { h: at.h, e: at.e };
                }
                for q in 0..R {
                    let x = S::splat(a, x[q][r]);
                    let (h, e) = (&mut at.h[q], &mut at.e[q]);
                    masks[r][q] = evolve::<A, S, TWO, CLIP>(a, self.k, r, x, bound, h, e);
                }
                if r + 1 == b {
                    at_b = Rows { h: at.h, e: at.e };
                }
            }
        } else {
            before = self.trace.values::<A, S, TWO, R>(a, &stored, &x, 0..b - 1, true);
            at_b = Rows { h: before.h, e: before.e };
            for q in 0..R {
                let x = S::splat(a, x[q][b - 1]);
                let (h, e) = (&mut at_b.h[q], &mut at_b.e[q]);
                evolve::<A, S, TWO, CLIP>(a, self.k, b - 1, x, bound, h, e);
            }
        }

        let last = if PROPAGATE { b + 1 } else { b };
        if CLIP {
            for r in (last..n).rev() {
                for q in 0..R {
                    let gain = scale::<A, S>(a, S::splat(a, x[q][r]), self.k.delta[r]);
                    let (h, e) = (&mut p.h[q], &mut p.e[q]);
                    evolve_back::<A, S, TWO, CLIP>(a, self.k, r, masks[r][q], gain, h, e);
                }
            }
        } else if last < n {
            p = self.adjoint.values::<A, S, TWO, R>(a, &p, &x, last..n, true);
        }
        for q in 0..R {
            let alpha = wide::<A, S>(self.alpha, i + q);
            if PROPAGATE {
                let k = self.k;
                let g = if CLIP { mul::<A, S>(a, masks[b][q], p.h[q]) } else { p.h[q] };
                let hebbian = if TWO { p.e[q] } else { g };
                let weight = fma::<A, S>(a, alpha, at_b.h[q], wide::<A, S>(self.w, i + q));
                let plastic = mul::<A, S>(a, mul::<A, S>(a, alpha, hebbian), k.c[b]);
                let value = fma::<A, S>(a, weight, k.delta[b], plastic);
                let value = S::plus(a, value[0], value[1]);
                let so_far = self.x_bar[i + q];
                self.x_bar[i + q] = if self.first { value } else { S::plus(a, so_far, value) };
                let gain = scale::<A, S>(a, S::splat(a, x[q][b]), k.delta[b]);
                let (h, e) = (&mut p.h[q], &mut p.e[q]);
                evolve_back::<A, S, TWO, CLIP>(a, k, b, masks[b][q], gain, h, e);
            }
            if COLLECT {
                let g = if CLIP { mul::<A, S>(a, masks[b - 1][q], p.h[q]) } else { p.h[q] };
                let old = if TWO { before.e[q] } else { before.h[q] };
                let hebbian = mul::<A, S>(a, alpha, if TWO { p.e[q] } else { g });
                self.q = axpy::<A, S>(a, S::splat(a, x[q][b - 1]), hebbian, self.q);
                self.r = fma::<A, S>(a, old, hebbian, self.r);
                if TWO {
                    self.sum_e = fma::<A, S>(a, mul::<A, S>(a, alpha, g), old, self.sum_e);
                }
            } else {
                store::<A, S>(self.p_h, i + q, p.h[q]);
                if TWO {
                    store::<A, S>(self.p_e, i + q, p.e[q]);
                }
            }
        }
    }
}

/// The body of [`Backward`]: propagates step `b` and collects step `b - 1`.
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
    let source = job.source;
    let panels = source.panels;
    let n_steps = source.window.n_steps;
    let first = job.panels.start;
    let x_bar = S::vectors_mut::<A>(job.x_bar);
    let len = panels.panel_len();
    if PROPAGATE && job.panels.is_empty() {
        x_bar.fill(S::splat(a, S::ZERO));
    }
    let mut k = Coefficients::none::<A, S>(a);
    let (mut trace, mut adjoint) = (Forms::none::<A, S>(a), Forms::none::<A, S>(a));
    for panel in job.panels {
        source.coefficients::<A>(panel, &mut k);
        if !CLIP {
            trace.start::<A, S>(a);
            adjoint.start::<A, S>(a);
            for r in 0..b.saturating_sub(1) {
                trace.evolve::<A, S, TWO>(a, &k, r);
            }
            for r in (b + usize::from(PROPAGATE)..n_steps).rev() {
                adjoint.evolve_back::<A, S, TWO>(a, &k, r, n_steps);
            }
        }
        let at = (panel - first) * len;
        let (e_at, e_len) = if TWO { (at, len) } else { (0, 0) };
        let mut rows = BackwardPanel {
            source,
            b,
            k: &k,
            trace: &trace,
            adjoint: &adjoint,
            w: source.panel::<A>(source.w, panel),
            alpha: source.panel::<A>(source.alpha, panel),
            h: source.panel::<A>(source.h, panel),
            e: source.panel::<A>(source.e, panel),
            p_h: S::vectors_mut::<A>(&mut job.p_h[at..at + len]),
            p_e: S::vectors_mut::<A>(&mut job.p_e[e_at..e_at + e_len]),
            d_w: S::vectors_mut::<A>(&mut job.d_w[at..at + len]),
            d_alpha: S::vectors_mut::<A>(&mut job.d_alpha[at..at + len]),
            x_bar,
            first: panel == first,
            q: zero::<A, S>(a),
            r: zero::<A, S>(a),
            sum_e: zero::<A, S>(a),
        };
        let whole = panels.n_rows / ROWS_BACK * ROWS_BACK;
        for i in (0..whole).step_by(ROWS_BACK) {
            rows.rows::<TWO, CLIP, PROPAGATE, COLLECT, ROWS_BACK>(a, i);
        }
        for i in whole..panels.n_rows {
            rows.rows::<TWO, CLIP, PROPAGATE, COLLECT, 1>(a, i);
        }
        if COLLECT {
            let (q, r, sum_e) = (rows.q, rows.r, rows.sum_e);
            let at = (panel - first) * panels.width;
            let columns = at..at + panels.width;
            store::<A, S>(S::vectors_mut::<A>(&mut job.q[columns.clone()]), 0, q);
            store::<A, S>(S::vectors_mut::<A>(&mut job.r[columns.clone()]), 0, r);
            if TWO {
                store::<A, S>(S::vectors_mut::<A>(&mut job.sum_e[columns]), 0, sum_e);
            }
        }
    }
}
