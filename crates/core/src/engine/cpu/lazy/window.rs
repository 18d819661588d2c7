//! The O(N) side of a window: what a trace inside it is in terms of the trace at its start.
//!
//! With one trace, for post neuron j and t steps into the window,
//!
//! ```text
//! H(t)   = A(t) H(0) + sum_{r<t} b(r,t) x(r)
//! P(t+1) = A'(t+1) P(n) + sum_{s>t} D(s,t+1) x(s),   D(s,t+1) c(t) = b(t,s) delta(s)
//! ```
//!
//! With two (the retroactive rule) x enters E, which enters H:
//!
//! ```text
//! E(t) = A(t) E(0) + sum b_E(r,t) x(r);   H(t) = H(0) + C(t) E(0) + sum b_H(r,t) x(r)
//! P_H(t+1) = P_H(n) + sum delta(s) x(s)
//! P_E(t+1) = A'(t+1) P_E(n) + C'(t+1) P_H(n) + sum D(s,t+1) x(s),  D(s,t+1) c(t) = b_H(t,s) delta(s)
//! ```
//!
//! The coefficients belong to the neuron, so z, its adjoint and the rule's column sums are
//! combinations of a few sums over the connections that hold H(0), P(n), alpha and x alone.

use std::ops::Range;

use pulp::Simd;

use crate::engine::cpu::buffer::Buffers;
use crate::engine::cpu::neurons::Neurons;
use crate::engine::cpu::panels::{Rows, RowsView, Table, padded, product};
use crate::engine::cpu::share::{Returns, Share};
use crate::engine::cpu::simd::Lanes;

/// Rows of the sums of one step: w, alpha H, (alpha E); then alpha x(r) for each r.
const SUM_W: usize = 0;
const SUM_H: usize = 1;
const SUM_E: usize = 2;

/// `out = values` of the first part, `out += values` of the others.
#[inline(always)]
fn put_part<S: Lanes>(out: &mut [S], values: &[S], first: bool) {
    if first {
        out[..values.len()].copy_from_slice(values);
    } else {
        for (out, &value) in out.iter_mut().zip(values) {
            *out += value;
        }
    }
}

/// See the module. Rows belong to neurons; where the kernels' lanes are episodes, every
/// neuron has a value for each lane.
pub(crate) struct Window<S: Lanes> {
    two: bool,
    /// Whether the traces are zero before the first step.
    from_zero: bool,
    /// Elements of what belongs to the pre neurons.
    m: usize,
    /// Its first step, and steps taken so far.
    pub(crate) first: usize,
    pub(crate) n_steps: usize,
    /// A(t) and C(t), a row each t, 0..=K.
    keep: Rows<S>,
    cross: Rows<S>,
    /// b(r,t) (of E with two traces), and b_H(r,t); rows by [`pair`].
    b: Rows<S>,
    b_h: Rows<S>,
    /// A'(t) and C'(t).
    back_keep: Rows<S>,
    back_cross: Rows<S>,
    /// D(s,t+1) at the step t at hand, a row each s; after the window's first step, what the
    /// fold takes.
    pub(crate) reach: Rows<S>,
    /// All sums of the forward pass, `n_sums` rows a step (of one step without a backward pass).
    sums: Rows<S>,
    n_sums: usize,
    /// Sums with Q over the window's x, a row a step, and <P, alpha H> (<P, alpha E>).
    qx: [Rows<S>; 2],
    dots: [Rows<S>; 2],
    /// dL/dx of the window's steps so far: sums with Q, and with alpha of later steps.
    d_x: Rows<S>,
    /// What the kernels read; see their fields. x is that of all steps.
    pub(crate) gather: Table<S>,
    pub(crate) gather_back: Table<S>,
    pub(crate) x: Table<S>,
    pub(crate) later: Range<usize>,
    /// A, b(r) of all steps, then with two traces C and b_H(r), at every window's end (without
    /// a backward pass at the last one's).
    ended: Rows<S>,
    pub(crate) size: usize,
    /// A' and C' of the later window.
    pub(crate) later_keep: Rows<S>,
    pub(crate) later_cross: Rows<S>,
    /// (A' c)_r and (C' c)_r of the window at hand, for the fold.
    pub(crate) kept_c: Table<S>,
    pub(crate) cross_c: Table<S>,
    /// What the rule's adjoint asks for at the step at hand.
    q: Rows<S>,
    r: Rows<S>,
    e: Rows<S>,
    /// <alpha x(s), Hebbian trace at t>, by [`pair`] (t, s), and <Q, it>, a row each t.
    products: Rows<S>,
    q_products: [Rows<S>; 2],
}

/// The row of (r, t), r < t.
fn pair(r: usize, t: usize) -> usize {
    t * (t - 1) / 2 + r
}

/// `out += x y`.
#[inline(always)]
fn add_product<A: Simd, S: Lanes>(a: A, out: &mut [S], x: &[S], y: &[S]) {
    let factors = S::vectors::<A>(x).iter().zip(S::vectors::<A>(y));
    for (out, (&x, &y)) in S::vectors_mut::<A>(out).iter_mut().zip(factors) {
        *out = S::fma(a, x, y, *out);
    }
}

/// `out = d now + c x`.
#[inline(always)]
fn evolve<A: Simd, S: Lanes>(a: A, out: &mut [S], (d, now): (&[S], &[S]), (c, x): (&[S], &[S])) {
    let kept = S::vectors::<A>(d).iter().zip(S::vectors::<A>(now));
    let gained = S::vectors::<A>(c).iter().zip(S::vectors::<A>(x));
    for (out, ((&d, &now), (&c, &x))) in S::vectors_mut::<A>(out).iter_mut().zip(kept.zip(gained)) {
        *out = S::fma(a, c, x, S::times(a, d, now));
    }
}

/// `out *= x`.
#[inline(always)]
fn times<A: Simd, S: Lanes>(a: A, out: &mut [S], x: &[S]) {
    for (out, &x) in S::vectors_mut::<A>(out).iter_mut().zip(S::vectors::<A>(x)) {
        *out = S::times(a, *out, x);
    }
}

/// `out += x`.
#[inline(always)]
fn add<A: Simd, S: Lanes>(a: A, out: &mut [S], x: &[S]) {
    for (out, &x) in S::vectors_mut::<A>(out).iter_mut().zip(S::vectors::<A>(x)) {
        *out = S::plus(a, *out, x);
    }
}

impl<S: Lanes> Window<S> {
    /// Buffers for windows of `size` steps of episodes of `n_steps`, `each` of which lie side by
    /// side; with `back`, for the backward pass too.
    pub(crate) fn new(
        buffers: &mut Buffers,
        (m, n): (usize, usize),
        two: bool,
        size: usize,
        n_steps: usize,
        back: bool,
        each: usize,
    ) -> Self {
        let n_sums = 2 + usize::from(two) + size - 1;
        let second = |rows: usize| if two { rows } else { 0 };
        let back = |rows: usize| if back { rows } else { 0 };
        let n_pairs = pair(0, size + 1);
        let n_fixed = 1 + usize::from(two);
        Window {
            two,
            from_zero: false,
            m,
            first: 0,
            n_steps: 0,
            keep: Rows::new(buffers, size + 1, n),
            cross: Rows::new(buffers, second(size + 1), n),
            b: Rows::new(buffers, n_pairs, n),
            b_h: Rows::new(buffers, second(n_pairs), n),
            back_keep: Rows::new(buffers, back(size + 1), n),
            back_cross: Rows::new(buffers, back(second(size + 1)), n),
            reach: Rows::new(buffers, back(size), n),
            sums: Rows::new(buffers, n_sums * back(n_steps).max(1), n),
            n_sums,
            qx: [Rows::new(buffers, back(size), n), Rows::new(buffers, back(second(size)), n)],
            dots: [Rows::new(buffers, back(1), n), Rows::new(buffers, back(second(1)), n)],
            d_x: Rows::new(buffers, back(size), m),
            gather: Table::new(buffers, m / each, size, each),
            gather_back: Table::new(buffers, back(n / each), n_sums, each),
            // the fold reads whole windows
            x: Table::new(buffers, m / each, n_steps.next_multiple_of(size), each),
            ended: Rows::new(buffers, n_fixed * (1 + size) * back((n_steps - 1) / size).max(1), n),
            size,
            later: 0..0,
            later_keep: Rows::new(buffers, back(1), n),
            later_cross: Rows::new(buffers, back(second(1)), n),
            kept_c: Table::new(buffers, back(n / each), size, each),
            cross_c: Table::new(buffers, back(second(n / each)), size, each),
            q: Rows::new(buffers, back(1), n),
            r: Rows::new(buffers, back(1), n),
            e: Rows::new(buffers, back(1), n),
            products: Rows::new(buffers, back(n_pairs), n),
            q_products: [
                Rows::new(buffers, back(size), n),
                Rows::new(buffers, back(second(size)), n),
            ],
        }
    }

    /// Sums of one matrix each that are kept: w, alpha H, alpha E.
    pub(crate) fn n_single(&self) -> usize {
        2 + usize::from(self.two)
    }

    /// Those that are made: not with traces that are zero.
    fn n_made(&self) -> usize {
        if self.starts_at_zero() { 1 } else { self.n_single() }
    }

    /// Whether the traces are zero at its start.
    pub(crate) fn starts_at_zero(&self) -> bool {
        self.from_zero && self.first == 0
    }

    /// The same of window `w`.
    pub(crate) fn is_from_zero(&self, w: usize) -> bool {
        self.from_zero && w == 0
    }

    /// The window's steps so far.
    pub(crate) fn steps(&self) -> Range<usize> {
        self.first..self.first + self.n_steps
    }

    /// Starts an episode.
    #[inline(always)]
    pub(crate) fn start_episode(&mut self, from_zero: bool) {
        self.from_zero = from_zero;
        self.start(0);
    }

    /// Starts the window whose first step is `first`.
    #[inline(always)]
    fn start(&mut self, first: usize) {
        (self.first, self.n_steps) = (first, 0);
        self.keep.row_mut(0).fill(S::ONE);
        if self.two {
            self.cross.row_mut(0).fill(S::ZERO);
        }
    }

    /// Takes the forms over the step `t` of the episode.
    #[inline(always)]
    pub(crate) fn push<A: Simd>(&mut self, a: A, neurons: &Neurons<S>, t: usize) {
        let k = self.n_steps;
        let (d, c) = (neurons.d.row(t), neurons.c.row(t));
        let (next, now) = self.keep.pair(k + 1, k);
        product(a, next, now, d);
        if self.two {
            let m = neurons.m.row(t);
            let (next, now) = self.cross.pair(k + 1, k);
            next.copy_from_slice(now);
            add_product(a, next, m, self.keep.row(k));
            for r in 0..k {
                let (next, now) = self.b_h.pair(pair(r, k + 1), pair(r, k));
                next.copy_from_slice(now);
                add_product(a, next, m, self.b.row(pair(r, k)));
            }
            self.b_h.row_mut(pair(k, k + 1)).fill(S::ZERO);
        }
        for r in 0..k {
            let (next, now) = self.b.pair(pair(r, k + 1), pair(r, k));
            product(a, next, now, d);
        }
        self.b.row_mut(pair(k, k + 1)).copy_from_slice(c);
        self.n_steps += 1;
    }

    fn sum_row(&self, step: usize) -> usize {
        let step = if self.back_keep.is_empty() { 0 } else { step };
        step * self.n_sums
    }

    /// Scalars for the column sums of the next step.
    #[inline(always)]
    pub(crate) fn gather_forward<A: Simd>(&mut self, a: A, neurons: &Neurons<S>) {
        let k = self.n_steps;
        let x = neurons.x(self.first + k);
        self.gather.reset(1 + k);
        self.gather.set(0, x);
        for r in 0..k {
            self.gather.set_product(a, 1 + r, x, neurons.x(self.first + r));
        }
        self.x.set(self.first + k, x);
    }

    /// Takes in the sums of the next step, of columns `from..` and their padding,
    /// `[n_made + k, columns]`; `plastic =` their plastic matmul.
    #[inline(always)]
    pub(crate) fn take_sums<A: Simd>(
        &mut self,
        a: A,
        (from, columns): (usize, usize),
        sums: &[S],
        plastic: &mut [S],
    ) {
        let (k, at, n_single) =
            (self.n_steps, self.sum_row(self.first + self.n_steps), self.n_single());
        let n_made = self.n_made();
        let here = from..from + columns;
        let mut sums = sums.chunks_exact(columns);
        let mut next = || sums.next().expect("a row for every sum");
        let plastic = &mut plastic[here.clone()];
        let w = next();
        plastic.copy_from_slice(w);
        self.sums.row_mut(at + SUM_W)[here.clone()].copy_from_slice(w);
        let share = if self.two { None } else { Some(&self.keep.row(k)[here.clone()]) };
        let traces = [(SUM_H, share), (SUM_E, self.two.then(|| &self.cross.row(k)[here.clone()]))];
        for (c, share) in traces.into_iter().take(n_single - 1) {
            let kept = &mut self.sums.row_mut(at + c)[here.clone()];
            if c >= n_made {
                kept.fill(S::ZERO);
                continue;
            }
            let sum = next();
            kept.copy_from_slice(sum);
            match share {
                Some(share) => add_product(a, plastic, share, sum),
                None => add(a, plastic, sum),
            }
        }
        let b = if self.two { &self.b_h } else { &self.b };
        for r in 0..k {
            let sum = next();
            self.sums.row_mut(at + n_single + r)[here.clone()].copy_from_slice(sum);
            add_product(a, plastic, &b.row(pair(r, k))[here.clone()], sum);
        }
    }

    /// Ends a whole window, and starts the next.
    #[inline(always)]
    pub(crate) fn commit(&mut self) {
        let (n, w) = (self.n_steps, self.first / self.size);
        let parts = [(&self.keep, &self.b), (&self.cross, &self.b_h)];
        let mut row = self.end_row(w);
        for (kept, b) in parts.into_iter().take(1 + usize::from(self.two)) {
            self.ended.row_mut(row).copy_from_slice(kept.row(n));
            for r in 0..n {
                self.ended.row_mut(row + 1 + r).copy_from_slice(b.row(pair(r, n)));
            }
            row += 1 + n;
        }
        self.start(self.first + n);
    }

    /// The first row of window `w` in `ended`.
    fn end_row(&self, w: usize) -> usize {
        let w = if self.back_keep.is_empty() { 0 } else { w };
        w * (1 + usize::from(self.two)) * (1 + self.size)
    }

    /// The steps of window `w`, which is whole and has ended, and its A, C, b and b_H.
    pub(crate) fn at_commit(&self, w: usize) -> (Range<usize>, [RowsView<'_, S>; 4]) {
        let (row, next) = (self.end_row(w), 1 + self.size);
        let second = if self.two { row + next } else { row };
        let rows = [row, second, row + 1, second + 1].map(|row| self.ended.from(row));
        (w * self.size..(w + 1) * self.size, rows)
    }

    /// Turns to the window of `steps` in the backward pass; the current one becomes the later
    /// one.
    #[inline(always)]
    pub(crate) fn turn<A: Simd>(&mut self, a: A, neurons: &Neurons<S>, steps: Range<usize>) {
        self.later = self.steps();
        if !self.later.is_empty() {
            self.later_keep.row_mut(0).copy_from_slice(self.back_keep.row(0));
            if self.two {
                self.later_cross.row_mut(0).copy_from_slice(self.back_cross.row(0));
            }
        }
        let n = steps.len();
        self.start(steps.start);
        for t in steps.clone() {
            self.push(a, neurons, t);
        }
        self.trace_products(a, neurons);
        self.kept_c.reset(n);
        self.cross_c.reset(n);
        self.back_keep.row_mut(n).fill(S::ONE);
        if self.two {
            self.back_cross.row_mut(n).fill(S::ZERO);
        }
        for (k, t) in steps.enumerate().rev() {
            self.kept_c.set_product(a, k, self.back_keep.row(k + 1), neurons.c.row(t));
            let (before, after) = self.back_keep.pair(k, k + 1);
            product(a, before, after, neurons.d.row(t));
            if self.two {
                self.cross_c.set_product(a, k, self.back_cross.row(k + 1), neurons.c.row(t));
                let (before, after) = self.back_cross.pair(k, k + 1);
                product(a, before, after, neurons.d.row(t));
                add(a, before, neurons.m.row(t));
            }
        }
    }

    /// After the last step P is zero, and so is all that sums with it.
    #[inline(always)]
    pub(crate) fn nothing_later(&mut self) {
        self.n_steps = 0;
        self.d_x.fill(S::ZERO);
        for rows in self.qx.iter_mut().chain(&mut self.dots) {
            rows.fill(S::ZERO);
        }
    }

    /// Takes in what a share's fold summed; the sums over post neurons are its part of them.
    #[inline(always)]
    pub(crate) fn put_fold(&mut self, share: &Share, returns: &Returns<S>) {
        let (from, columns, n) = (share.columns.start, share.row_len(), self.n_steps);
        let from_zero = self.starts_at_zero();
        for ((qx, dots), sums) in self.qx.iter_mut().zip(&mut self.dots).zip(&returns.qx) {
            for (r, sums) in sums.chunks_exact(columns).take(n + 1).enumerate() {
                let out = if r < n { qx.row_mut(r) } else { dots.row_mut(0) };
                let out = &mut out[from..from + columns];
                if r == n && from_zero {
                    // with a trace that is zero, whatever is stored
                    out.fill(S::ZERO);
                } else {
                    out.copy_from_slice(sums);
                }
            }
        }
        for (r, sums) in returns.sums.chunks_exact(padded(self.m)).take(n).enumerate() {
            put_part(self.d_x.row_mut(r), sums, from == 0);
        }
    }

    /// q, r and e of [`Window::collect`].
    pub(crate) fn collected(&self) -> [&Rows<S>; 3] {
        [&self.q, &self.r, &self.e]
    }

    /// Inner products with the Hebbian trace at every step of the window, by the trace's own
    /// recurrence `<g, H(t+1)> = d <g, H(t)> + c <g, x(t)>`: of alpha x(s) for s > t.
    #[inline(always)]
    fn trace_products<A: Simd>(&mut self, a: A, neurons: &Neurons<S>) {
        let hebbian = if self.two { SUM_E } else { SUM_H };
        for s in 1..self.n_steps {
            let at = (self.first + s) * self.n_sums;
            self.products.row_mut(pair(0, s)).copy_from_slice(self.sums.row(at + hebbian));
            for t in 0..s - 1 {
                let (next, now) = self.products.pair(pair(t + 1, s), pair(t, s));
                let with_x = self.sums.row(at + 2 + usize::from(self.two) + t);
                let (d, c) = (neurons.d.row(self.first + t), neurons.c.row(self.first + t));
                evolve(a, next, (d, now), (c, with_x));
            }
        }
    }

    /// The same of Q, once its sums are known.
    #[inline(always)]
    pub(crate) fn adjoint_products<A: Simd>(&mut self, a: A, neurons: &Neurons<S>) {
        for (products, (qx, dots)) in self.q_products.iter_mut().zip(self.qx.iter().zip(&self.dots))
        {
            if products.is_empty() {
                continue;
            }
            products.row_mut(0).copy_from_slice(dots.row(0));
            for t in 0..self.n_steps - 1 {
                let (next, now) = products.pair(t + 1, t);
                let (d, c) = (neurons.d.row(self.first + t), neurons.c.row(self.first + t));
                evolve(a, next, (d, now), (c, qx.row(t)));
            }
        }
    }

    /// The column sums that the rule's adjoint needs at the window's step `k`: of each part
    /// of the adjoint after the step, with x(k), and with the Hebbian trace.
    #[inline(always)]
    pub(crate) fn collect<A: Simd>(&mut self, a: A, neurons: &Neurons<S>, k: usize) {
        let n_single = self.n_single();
        let (q, r, e) = (self.q.row_mut(0), self.r.row_mut(0), self.e.row_mut(0));
        let [qx_h, qx_e] = &self.qx;
        let [products_h, products_e] = &self.q_products;
        let (qx, products) = if self.two { (qx_e, products_e) } else { (qx_h, products_h) };
        let share = self.back_keep.row(k + 1);
        product(a, q, share, qx.row(k));
        product(a, r, share, products.row(k));
        if self.two {
            let share = self.back_cross.row(k + 1);
            add_product(a, q, share, qx_h.row(k));
            add_product(a, r, share, products_h.row(k));
            e.copy_from_slice(products_h.row(k));
        }
        for s in k + 1..self.n_steps {
            let (reach, product) = (self.reach.row(s), self.products.row(pair(k, s)));
            let with_x = self.sums.row((self.first + s) * self.n_sums + n_single + k);
            add_product(a, q, reach, with_x);
            add_product(a, r, reach, product);
            if self.two {
                add_product(a, e, neurons.delta.row(self.first + s), product);
            }
        }
    }

    /// Scalars for the row sums of the window's step `k`, whose delta is known, and the
    /// adjoint's coefficients one step back.
    #[inline(always)]
    pub(crate) fn gather_backward<A: Simd>(&mut self, a: A, neurons: &Neurons<S>, k: usize) {
        let n_made = self.n_made();
        let t = self.first + k;
        let delta = neurons.delta.row(t);
        let out = &mut self.gather_back;
        out.reset(n_made + k);
        out.set(SUM_W, delta);
        if n_made > SUM_H && self.two {
            out.set(SUM_H, delta);
            out.set_product(a, SUM_E, self.cross.row(k), delta);
        } else if n_made > SUM_H {
            out.set_product(a, SUM_H, self.keep.row(k), delta);
        }
        for r in 0..k {
            let b = if self.two { &self.b_h } else { &self.b };
            out.set_product(a, n_made + r, b.row(pair(r, k)), delta);
        }
        for s in k + 1..self.n_steps {
            let reach = self.reach.row_mut(s);
            times(a, reach, neurons.d.row(t));
            if self.two {
                add_product(a, reach, neurons.m.row(t), neurons.delta.row(self.first + s));
            }
        }
        if self.two {
            self.reach.row_mut(k).fill(S::ZERO);
        } else {
            self.reach.row_mut(k).copy_from_slice(delta);
        }
    }

    /// Takes in a share's part of the row sums of step `k`, `[1 + k, pre neurons]`. Those of
    /// alpha belong to the traces of step k and to their adjoints of the step before.
    #[inline(always)]
    pub(crate) fn put_row_sums<A: Simd>(
        &mut self,
        a: A,
        neurons: &Neurons<S>,
        k: usize,
        sums: &[S],
    ) {
        let mut sums = sums.chunks_exact(padded(self.m));
        let mut next = || sums.next().expect("a row for every sum");
        add(a, self.d_x.row_mut(k), next());
        for r in 0..k {
            let sum = next();
            add_product(a, self.d_x.row_mut(k), neurons.x(self.first + r), sum);
            add_product(a, self.d_x.row_mut(r), neurons.x(self.first + k), sum);
        }
    }

    /// dL/dx of the window's step `k`, after [`Window::put_row_sums`]; its padding means
    /// nothing.
    pub(crate) fn d_x(&self, k: usize) -> &[S] {
        self.d_x.row(k)
    }
}
