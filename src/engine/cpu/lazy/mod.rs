//! Traces without a clip, lazily: inside a window of K steps the trace is a combination of
//! the trace at its start and of the x of its steps (`window.rs`), so a step reads w, alpha
//! and alpha H at the window's start and writes nothing. Forward works on matrices by
//! columns, for sums over pre neurons, backward on matrices by rows, for sums over post
//! neurons; the stored alpha H are kept by rows.

pub(crate) mod commit;
pub(crate) mod fold;
pub(crate) mod gather;
pub(crate) mod window;

use crate::engine::cpu::buffer::{Aligned, zeros};
use crate::engine::cpu::lazy::commit::{Commit, Sides};
use crate::engine::cpu::lazy::fold::Fold;
use crate::engine::cpu::lazy::gather::Gather;
use crate::engine::cpu::lazy::window::Window;
use crate::engine::cpu::neurons::{Neurons, Task};
use crate::engine::cpu::panels::{Panels, Strided};
use crate::engine::cpu::share::{Gradients, Returns, Share, Site};
use crate::engine::cpu::simd::Lanes;

/// The longest window: its last step has a sum for each step before it.
pub(crate) const MOST_STEPS: usize = gather::MOST + 1;

/// One share's traces.
pub(crate) struct Traces<S: Lanes> {
    /// alpha H and alpha E by columns, two in turn.
    by_columns: [[Aligned<S>; 2]; 2],
    /// By rows, one at each window's start; none without a way back.
    by_rows: Vec<[Aligned<S>; 2]>,
    /// P of H and of E, by rows.
    p: [Aligned<S>; 2],
}

impl<S: Lanes> Traces<S> {
    pub(crate) fn new(share: &Share, two: bool, n_windows: usize, back: bool) -> Self {
        let (columns, rows) = (share.by_columns.len(), share.by_rows.len());
        let both = |len: usize| [zeros(len), zeros(if two { len } else { 0 })];
        let (n_stored, back_rows) = if back { (n_windows, rows) } else { (0, 0) };
        Traces {
            by_columns: [both(columns), both(columns)],
            by_rows: (0..n_stored).map(|_| both(rows)).collect(),
            p: both(back_rows),
        }
    }

    /// Numbers that [`Traces::new`] keeps for each connection.
    pub(crate) fn per_connection(two: bool, n_windows: usize, back: bool) -> usize {
        (2 + if back { n_windows + 1 } else { 0 }) * if two { 2 } else { 1 }
    }

    /// The traces before the first step.
    pub(crate) fn start(&mut self, task: &Task<'_, S>, on: Site<'_, S>) {
        let Site { share, matrices, .. } = on;
        let n = task.network.n_post;
        let len = task.network.n_connections();
        for (k, start) in [&task.episodes.h0, &task.episodes.e0].into_iter().enumerate() {
            let columns = &mut self.by_columns[0][k];
            if columns.is_empty() {
                continue;
            }
            let Some(start) = start else {
                columns.fill(S::ZERO);
                if let Some(rows) = self.by_rows.first_mut() {
                    rows[k].fill(S::ZERO);
                }
                continue;
            };
            let values = &start[task.index * len..][..len];
            let matrix = Strided { values, row: n, column: 1 };
            share.by_columns.pack(columns, share.columns.start, matrix);
            multiply(columns, &matrices.alpha_columns);
            if let Some(rows) = self.by_rows.first_mut() {
                let matrix = Strided { values, row: 1, column: n };
                share.by_rows.pack(&mut rows[k], share.rows.start, matrix);
                multiply(&mut rows[k], &matrices.alpha_rows);
            }
        }
        for p in &mut self.p {
            p.fill(S::ZERO);
        }
    }

    /// Column sums of the next step of window `w`.
    pub(crate) fn gather_columns(
        &self,
        on: Site<'_, S>,
        window: &Window<S>,
        w: usize,
        out: &mut Returns<S>,
    ) {
        let matrices = [&on.matrices.w_columns, &on.matrices.alpha_columns];
        gather(on, on.share.by_columns, matrices, &self.by_columns[w % 2], window, out);
    }

    /// Row sums of the step of window `w` that the window prepared.
    pub(crate) fn gather_rows(
        &self,
        on: Site<'_, S>,
        window: &Window<S>,
        w: usize,
        out: &mut Returns<S>,
    ) {
        let matrices = [&on.matrices.w_rows, &on.matrices.alpha_rows];
        gather(on, on.share.by_rows, matrices, &self.by_rows[w], window, out);
    }

    /// Takes the traces from window `w` to the next.
    pub(crate) fn commit(
        &mut self,
        on: Site<'_, S>,
        neurons: &Neurons<S>,
        window: &Window<S>,
        w: usize,
    ) {
        let Site { arch, share, matrices } = on;
        let [even, odd] = &mut self.by_columns;
        let (from, to) = if w.is_multiple_of(2) { (even, odd) } else { (odd, even) };
        arch.dispatch(Commit {
            panels: share.by_columns,
            n_steps: window.committed.len(),
            sides: Sides::Columns {
                coefficients: window.commit_columns.from(0),
                x: &window.committed_x,
            },
            first: share.columns.start,
            alpha: &matrices.alpha_columns,
            from: [&from[0], &from[1]],
            to: to.each_mut().map(|t| &mut t[..]),
        });
        if let Some((before, after)) = self.by_rows.split_at_mut_checked(w + 1) {
            let from = &before[w];
            arch.dispatch(Commit {
                panels: share.by_rows,
                n_steps: window.committed.len(),
                sides: Sides::Rows {
                    coefficients: &window.commit_rows,
                    x: neurons.x_rows().from(window.committed.start),
                },
                first: share.rows.start,
                alpha: &matrices.alpha_rows,
                from: [&from[0], &from[1]],
                to: after[0].each_mut().map(|t| &mut t[..]),
            });
        }
    }

    /// Takes P over the later window; `w` is the earlier one, if there is one.
    pub(crate) fn fold(
        &mut self,
        on: Site<'_, S>,
        neurons: &Neurons<S>,
        window: &Window<S>,
        w: Option<usize>,
        gradients: &mut Gradients<S>,
        out: &mut Returns<S>,
    ) {
        let Site { arch, share, matrices } = on;
        let n_next = window.n_steps;
        let Traces { by_rows, p, .. } = self;
        let u = w.map_or([&[][..], &[]], |w| [&by_rows[w][0][..], &by_rows[w][1]]);
        let lane_rows = (n_next + 1) * share.by_rows.n_rows * share.by_rows.lanes;
        let [along_h, along_e] = &mut out.lanes;
        let along_e_len = lane_rows.min(along_e.len());
        arch.dispatch(Fold {
            panels: share.by_rows,
            n_steps: window.later.len(),
            x: neurons.x_rows().from(window.later.start),
            n_next,
            next_x: neurons.x_rows().from(window.first),
            scalars: &window.fold,
            first: share.rows.start,
            alpha: &matrices.alpha_rows,
            u,
            p: p.each_mut().map(|p| &mut p[..]),
            d_w: &mut gradients.d_w,
            d_alpha: &mut gradients.d_alpha,
            qc: &mut out.qc,
            along: [&mut along_h[..lane_rows], &mut along_e[..along_e_len]],
        });
        if n_next > 0 {
            out.add_up(arch, (n_next + 1) * share.by_rows.n_rows);
        }
    }

    /// Ends the way back: the first traces' share of dL/dalpha.
    pub(crate) fn finish(&self, task: &Task<'_, S>, on: Site<'_, S>, gradients: &mut Gradients<S>) {
        let share = on.share;
        let n = task.network.n_post;
        let len = task.network.n_connections();
        let starts = [&task.episodes.h0, &task.episodes.e0];
        for (start, p) in starts.into_iter().zip(&self.p) {
            let Some(start) = start.as_ref().filter(|_| !p.is_empty()) else { continue };
            let values = &start[task.index * len..][..len];
            let mut trace = zeros(p.len());
            let matrix = Strided { values, row: 1, column: n };
            share.by_rows.pack(&mut trace, share.rows.start, matrix);
            for ((out, &p), &trace) in gradients.d_alpha.iter_mut().zip(&**p).zip(&*trace) {
                *out += p * trace;
            }
        }
    }

    /// P of H and of E before the first step, by rows.
    pub(crate) fn adjoints(&self) -> [&[S]; 2] {
        [&self.p[0], &self.p[1]]
    }
}

/// Sums of w, of both traces and of alpha.
fn gather<S: Lanes>(
    on: Site<'_, S>,
    panels: Panels,
    [w, alpha]: [&Aligned<S>; 2],
    [h, e]: &[Aligned<S>; 2],
    window: &Window<S>,
    out: &mut Returns<S>,
) {
    on.arch.dispatch(Gather {
        panels,
        single: [w, h, e],
        n_single: window.n_single(),
        many: alpha,
        scalars: &window.gather,
        out: &mut out.sums,
    });
}

fn multiply<S: Lanes>(out: &mut [S], factor: &[S]) {
    for (out, &factor) in out.iter_mut().zip(factor) {
        *out = *out * factor;
    }
}
