//! The window's end backward, on matrices by rows: the adjoint P is taken step by step over
//! the later window, whose delta are all known by now, with dL/dw and dL/dalpha on the way;
//! then it is summed for the earlier window, with Q = alpha P:
//!
//! ```text
//! d_w += x delta;   d_alpha += c x P;   P = d P + x delta
//!                   (two traces: d_alpha += c x P_E;  P_E = d P_E + m P_H;  P_H = P_H + x delta)
//! qx_r[j] = sum_i Q_ij x_r[i]
//! qc_r[i] = sum_j Q_ij (A' c)_r[j]      (two traces: Q_E (A' c)_r + Q_H (C' c)_r)
//! dot[j]  = sum_i P_ij (alpha H)_ij     (two traces: of P_H and of P_E with alpha E)
//! ```

use pulp::{Simd, WithSimd};

use crate::engine::cpu::panels::{
    Groups, Panels, RowsView, Table, TableView, group_of, group_of_mut,
};
use crate::engine::cpu::simd::{Lanes, Vector};

/// The job.
pub(crate) struct Fold<'a, S: Lanes> {
    pub(crate) panels: Panels,
    /// Steps of the later window, and its x.
    pub(crate) n_steps: usize,
    pub(crate) x: RowsView<'a, S>,
    /// Steps of the earlier window, and its x; 0 where there is none.
    pub(crate) n_next: usize,
    pub(crate) next_x: RowsView<'a, S>,
    /// Of the later window d, c, delta and with two traces m, each step's; of the earlier
    /// window (A' c)_r and with two traces (C' c)_r.
    pub(crate) scalars: &'a Table<S>,
    /// Elements of a row of x to the left of this matrix.
    pub(crate) first: usize,
    pub(crate) alpha: &'a [S],
    /// alpha H and alpha E at the earlier window's start.
    pub(crate) u: [&'a [S]; 2],
    /// `=`, P of H and of E (empty for one trace).
    pub(crate) p: [&'a mut [S]; 2],
    /// `+=`.
    pub(crate) d_w: &'a mut [S],
    pub(crate) d_alpha: &'a mut [S],
    /// `=`, `[n_next, padded columns]`.
    pub(crate) qc: &'a mut [S],
    /// `=`, `[n_next + 1, rows, lanes]`, lanes still to be added up: qx, then dot; of P_H and
    /// of P_E.
    pub(crate) along: [&'a mut [S]; 2],
}

impl<S: Lanes> WithSimd for Fold<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        if self.p[1].is_empty() {
            fold::<A, S, false>(a, self);
        } else {
            fold::<A, S, true>(a, self);
        }
    }
}

#[inline(always)]
fn fold<A: Simd, S: Lanes, const TWO: bool>(a: A, job: Fold<'_, S>) {
    let panels = job.panels;
    let (stride, first) = (job.x.stride / panels.lanes, job.first / panels.lanes);
    let x = S::vectors::<A>(job.x.values);
    let next_x = S::vectors::<A>(job.next_x.values);
    let alpha = S::vectors::<A>(job.alpha);
    let [u_h, u_e] = job.u.map(S::vectors::<A>);
    let u = if TWO { u_e } else { u_h };
    let [p_h, p_e] = job.p.map(S::vectors_mut::<A>);
    let (d_w, d_alpha) = (S::vectors_mut::<A>(job.d_w), S::vectors_mut::<A>(job.d_alpha));
    let [along_h, along_e] = job.along.map(S::vectors_mut::<A>);
    let qc = S::vectors_mut::<A>(job.qc);
    for out in [&mut *qc, &mut *along_h, &mut *along_e] {
        out.fill(S::splat(a, S::ZERO));
    }
    for panel in panels.iter() {
        let all = panels.vectors_of(panel);
        let second = if TWO { all.clone() } else { 0..0 };
        let column = first + panel.first;
        FoldPanel::<A, S, TWO> {
            a,
            n_steps: job.n_steps,
            n_next: job.n_next,
            n_rows: panels.n_rows,
            x: &x[column..],
            next_x: &next_x[if job.n_next > 0 { column } else { 0 }..],
            stride,
            scalars: job.scalars.view(),
            alpha: &alpha[all.clone()],
            u: if job.n_next > 0 { &u[all.clone()] } else { &[] },
            p_h: &mut p_h[all.clone()],
            p_e: &mut p_e[second],
            d_w: &mut d_w[all.clone()],
            d_alpha: &mut d_alpha[all],
            along_h,
            along_e,
            qc: &mut qc[panel.first..],
            out_stride: panels.vectors(),
        }
        .down(panels.n_rows, panel.width);
    }
}

/// One panel of the job.
struct FoldPanel<'a, 'b, A: Simd, S: Lanes, const TWO: bool> {
    a: A,
    n_steps: usize,
    n_next: usize,
    n_rows: usize,
    /// Rows of x from the panel's first column on.
    x: &'a [Vector<A, S>],
    next_x: &'a [Vector<A, S>],
    stride: usize,
    scalars: TableView<'a, S>,
    alpha: &'a [Vector<A, S>],
    u: &'a [Vector<A, S>],
    p_h: &'b mut [Vector<A, S>],
    p_e: &'b mut [Vector<A, S>],
    d_w: &'b mut [Vector<A, S>],
    d_alpha: &'b mut [Vector<A, S>],
    along_h: &'b mut [Vector<A, S>],
    along_e: &'b mut [Vector<A, S>],
    qc: &'b mut [Vector<A, S>],
    out_stride: usize,
}

impl<A: Simd, S: Lanes, const TWO: bool> Groups for FoldPanel<'_, '_, A, S, TWO> {
    #[inline(always)]
    fn group<const W: usize, const G: usize>(&mut self, row: usize) {
        let (a, zero) = (self.a, S::splat(self.a, S::ZERO));
        let (n, n_next) = (self.n_steps, self.n_next);
        let scalars = self.scalars.at(row);
        let next = if TWO { 4 * n } else { 3 * n };
        let alpha = group_of::<_, W, G>(self.alpha, row);
        let p_h = group_of_mut::<_, W, G>(self.p_h, row);
        let d_w = group_of_mut::<_, W, G>(self.d_w, row);
        let d_alpha = group_of_mut::<_, W, G>(self.d_alpha, row);
        // Q of the group; a row at a time, so that memory is read in order
        let (mut q_h, mut q_e) = ([[zero; W]; G], [[zero; W]; G]);
        let (mut dot_h, mut dot_e) = ([zero; G], [zero; G]);
        for q in 0..G {
            let at = q * W;
            let (mut h, mut e) = ([zero; W], [zero; W]);
            let (mut sum_w, mut sum_alpha) = ([zero; W], [zero; W]);
            h.copy_from_slice(&p_h[at..at + W]);
            sum_w.copy_from_slice(&d_w[at..at + W]);
            sum_alpha.copy_from_slice(&d_alpha[at..at + W]);
            if TWO {
                e.copy_from_slice(&group_of::<_, W, G>(self.p_e, row)[at..at + W]);
            }
            for s in (0..n).rev() {
                let x = &self.x[s * self.stride..][..W];
                let d = S::splat(a, scalars.one(s, q));
                let c = S::splat(a, scalars.one(n + s, q));
                let delta = S::splat(a, scalars.one(2 * n + s, q));
                let m = if TWO { S::splat(a, scalars.one(3 * n + s, q)) } else { zero };
                for v in 0..W {
                    let gain = S::times(a, delta, x[v]);
                    let hebbian = if TWO { e[v] } else { h[v] };
                    sum_w[v] = S::plus(a, sum_w[v], gain);
                    sum_alpha[v] = S::fma(a, S::times(a, c, x[v]), hebbian, sum_alpha[v]);
                    if TWO {
                        e[v] = S::fma(a, d, e[v], S::times(a, m, h[v]));
                        h[v] = S::plus(a, h[v], gain);
                    } else {
                        h[v] = S::fma(a, d, h[v], gain);
                    }
                }
            }
            p_h[at..at + W].copy_from_slice(&h);
            d_w[at..at + W].copy_from_slice(&sum_w);
            d_alpha[at..at + W].copy_from_slice(&sum_alpha);
            if TWO {
                group_of_mut::<_, W, G>(self.p_e, row)[at..at + W].copy_from_slice(&e);
            }
            if n_next > 0 {
                let u = &group_of::<_, W, G>(self.u, row)[at..at + W];
                let alpha = &alpha[at..at + W];
                for v in 0..W {
                    dot_h[q] = S::fma(a, h[v], u[v], dot_h[q]);
                    q_h[q][v] = S::times(a, alpha[v], h[v]);
                    if TWO {
                        dot_e[q] = S::fma(a, e[v], u[v], dot_e[q]);
                        q_e[q][v] = S::times(a, alpha[v], e[v]);
                    }
                }
            }
        }
        if n_next == 0 {
            return;
        }
        // the adjoint of the trace that x enters
        let hebbian = if TWO { &q_e } else { &q_h };
        for r in 0..n_next {
            let c: [S; G] = scalars.get(next + r);
            let cross: [S; G] = if TWO { scalars.get(next + n_next + r) } else { [S::ZERO; G] };
            let (mut along_h, mut along_e) = ([zero; G], [zero; G]);
            for v in 0..W {
                let out = &mut self.qc[r * self.out_stride + v];
                let x = self.next_x[r * self.stride + v];
                let mut sum = *out;
                for q in 0..G {
                    sum = S::fma(a, S::splat(a, c[q]), hebbian[q][v], sum);
                    along_h[q] = S::fma(a, x, q_h[q][v], along_h[q]);
                    if TWO {
                        sum = S::fma(a, S::splat(a, cross[q]), q_h[q][v], sum);
                        along_e[q] = S::fma(a, x, q_e[q][v], along_e[q]);
                    }
                }
                *out = sum;
            }
            add::<A, S, G>(a, self.along_h, r * self.n_rows + row, &along_h);
            if TWO {
                add::<A, S, G>(a, self.along_e, r * self.n_rows + row, &along_e);
            }
        }
        add::<A, S, G>(a, self.along_h, n_next * self.n_rows + row, &dot_h);
        if TWO {
            add::<A, S, G>(a, self.along_e, n_next * self.n_rows + row, &dot_e);
        }
    }
}

#[inline(always)]
fn add<A: Simd, S: Lanes, const G: usize>(
    a: A,
    out: &mut [Vector<A, S>],
    at: usize,
    values: &[Vector<A, S>; G],
) {
    for (out, &value) in out[at..at + G].iter_mut().zip(values) {
        *out = S::plus(a, *out, value);
    }
}
