//! Plasticity rules as O(N) calculations.
//!
//! Every rule is `H' = clip(d_j H + c_j x_i)` with coefficients that depend on the
//! post-synaptic neuron alone, so the O(N^2) kernels know no rule. The retroactive
//! rule adds a second trace: `H' = clip(H + m_j E)`, `E' = d_j E + c_j x_i`. The trace
//! that receives x y is called the Hebbian trace below: E there, H elsewhere.
//!
//! A new rule needs an arm in [`Rule::coefficients`] and one in [`Rule::adjoint`] (and
//! their twins in `shaders/lib/rule.wgsl`).

use crate::error::{Error, Result, one_of};
use crate::model::{Parameters, Scalar, Tensor};

/// A plasticity rule (Miconi et al. 2018, equations 2 and 3; 2019, equations 2 to 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// H stays as it is.
    None,
    /// `H' = (1 - eta) H + eta x y`.
    Decay,
    /// `H' = H + eta y (x - y H)`.
    Oja,
    /// `H' = H + m x y`, with m the neuromodulator's output.
    Modulated,
    /// `H' = H + m E`, then `E' = (1 - eta) E + eta x y`.
    Retroactive,
    /// A text: [`Stages::rule`](crate::model::Stages::rule).
    Custom,
}

/// What a rule asks of the trace kernels at one step, each `[N, lanes]`.
#[derive(Debug)]
pub struct Coefficients<'a, S> {
    /// Episodes of one network that lie side by side, at most 16.
    pub lanes: usize,
    /// d, the share of the Hebbian trace that stays.
    pub d: &'a mut [S],
    /// c = g y: the Hebbian trace gains c_j x_i.
    pub c: &'a mut [S],
    /// m: H gains m_j E (retroactive only; else left alone).
    pub m: &'a mut [S],
}

/// What the backward trace kernel returns for one step, each `[N, lanes]`: column sums with
/// G, the adjoint of the trace after the step (times the clip's mask for H).
#[derive(Debug)]
pub struct Adjoint<'a, S> {
    /// Episodes of one network that lie side by side, at most 16.
    pub lanes: usize,
    /// `q_j = sum_i G_ij x_i`, G of the Hebbian trace.
    pub q: &'a [S],
    /// `r_j = sum_i G_ij trace_ij`, both of the Hebbian trace, before the step.
    pub r: &'a [S],
    /// `e_j = sum_i G_ij E_ij`, G of H (retroactive only).
    pub e: &'a [S],
}

impl Rule {
    /// Every rule that is not a text, in the order of the shaders' numbering.
    pub const ALL: [Rule; 5] =
        [Rule::None, Rule::Decay, Rule::Oja, Rule::Modulated, Rule::Retroactive];

    /// The name in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Rule::None => "none",
            Rule::Decay => "decay",
            Rule::Oja => "oja",
            Rule::Modulated => "modulated",
            Rule::Retroactive => "retroactive",
            Rule::Custom => "custom",
        }
    }

    /// The rule of that name.
    ///
    /// # Errors
    /// [`Error::Value`] with the known names.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|r| r.name() == name)
            .ok_or_else(|| Error::value("rule", name, one_of(name, &Self::ALL.map(Self::name))))
    }

    /// Whether the rule has a plasticity rate.
    #[must_use]
    pub fn uses_eta(self) -> bool {
        matches!(self, Rule::Decay | Rule::Oja | Rule::Retroactive)
    }

    /// Whether the rule has a neuromodulator.
    #[must_use]
    pub fn uses_modulator(self) -> bool {
        matches!(self, Rule::Modulated | Rule::Retroactive)
    }

    /// Coefficients of one step from the activity y `[N, lanes]` and network `p`; `given` is what the
    /// episodes add to m, `[N, lanes]` or nothing.
    #[inline(always)]
    pub fn coefficients<S: Scalar>(
        self,
        parameters: &Parameters<S>,
        p: usize,
        y: &[S],
        out: &mut Coefficients<'_, S>,
        given: &[S],
    ) {
        let lanes = out.lanes;
        match parameters.get(p, Tensor::Eta) {
            &[eta] => self.rates(|_| eta, y, out.d, out.c),
            eta if lanes == 1 => self.rates(|j| eta[j], y, out.d, out.c),
            eta => {
                let rows = y.chunks(lanes).zip(out.d.chunks_mut(lanes));
                for (j, ((y, d), c)) in rows.zip(out.c.chunks_mut(lanes)).enumerate() {
                    // a rule without a rate has none to give
                    self.rates(|_| eta[j], y, d, c);
                }
            }
        }
        if self.uses_modulator() && parameters.get(p, Tensor::ModW).is_empty() {
            let m = if self == Rule::Modulated { &mut *out.c } else { &mut *out.m };
            m.fill(S::ZERO);
        } else if self.uses_modulator() {
            let signal = modulator(parameters, p, y, lanes);
            let w = parameters.get(p, Tensor::FanoutW);
            let b = parameters.get(p, Tensor::FanoutB);
            let m = if self == Rule::Modulated { &mut *out.c } else { &mut *out.m };
            if lanes == 1 {
                let (w, b) = (&w[..y.len()], &b[..y.len()]);
                self.gains(|j| (w[j], b[j]), |_| signal[0], y, m);
            } else {
                for (j, (m, y)) in m.chunks_mut(lanes).zip(y.chunks(lanes)).enumerate() {
                    let signal = &signal[..y.len()];
                    self.gains(|_| (w[j], b[j]), |lane| signal[lane], y, m);
                }
            }
        }
        if !given.is_empty() {
            let m = if self == Rule::Modulated { &mut *out.c } else { &mut *out.m };
            for ((m, &given), &y) in m.iter_mut().zip(given).zip(y) {
                *m += if self == Rule::Modulated { given * y } else { given };
            }
        }
    }

    /// What the modulator multiplies by: `fan(j)` is the fan-out's w and b.
    #[inline(always)]
    fn gains<S: Scalar>(
        self,
        fan: impl Fn(usize) -> (S, S),
        signal: impl Fn(usize) -> S,
        y: &[S],
        m: &mut [S],
    ) {
        for (k, (m, &y)) in m.iter_mut().zip(y).enumerate() {
            let (w, b) = fan(k);
            let gain = w * signal(k) + b;
            *m = if self == Rule::Modulated { gain * y } else { gain };
        }
    }

    /// d and c of every rule, but for the modulator's share. `eta(j)` is not called for a
    /// rule that has none.
    #[inline(always)]
    fn rates<S: Scalar>(self, eta: impl Fn(usize) -> S, y: &[S], d: &mut [S], c: &mut [S]) {
        match self {
            Rule::Custom => unreachable!("a text has no coefficients here"),
            Rule::None | Rule::Modulated => {
                d.fill(S::ONE);
                c.fill(S::ZERO);
            }
            Rule::Decay | Rule::Retroactive => {
                for (j, ((d, c), &y)) in d.iter_mut().zip(c).zip(y).enumerate() {
                    (*d, *c) = (S::ONE - eta(j), eta(j) * y);
                }
            }
            Rule::Oja => {
                for (j, ((d, c), &y)) in d.iter_mut().zip(c).zip(y).enumerate() {
                    (*d, *c) = (S::ONE - eta(j) * y * y, eta(j) * y);
                }
            }
        }
    }

    /// The rule's share of the backward step: `ybar += ...`, and the gradients of eta
    /// and of the modulator `+= ...` in `gradients`, the part from [`Layout::at_rule`] on of a
    /// network's flat array.
    ///
    /// [`Layout::at_rule`]: crate::model::Layout::at_rule
    #[inline(always)]
    pub fn adjoint<S: Scalar>(
        self,
        parameters: &Parameters<S>,
        p: usize,
        y: &[S],
        sums: &Adjoint<'_, S>,
        ybar: &mut [S],
        gradients: &mut [S],
    ) {
        let lanes = sums.lanes;
        let layout = parameters.layout();
        if let Some(entry) = layout.find(Tensor::Eta) {
            let d_eta = &mut gradients[entry.offset - layout.at_rule()..][..entry.len];
            match parameters.get(p, Tensor::Eta) {
                &[eta] => {
                    let mut totals = [S::ZERO; LANES];
                    let (blocks, rest) = y.as_chunks::<LANES>();
                    let (q, q_rest) = sums.q.as_chunks::<LANES>();
                    let (r, r_rest) = sums.r.as_chunks::<LANES>();
                    let (bars, bars_rest) = ybar.as_chunks_mut::<LANES>();
                    for (((y, q), r), ybar) in blocks.iter().zip(q).zip(r).zip(bars) {
                        // a copy, which cannot be part of the others, becomes a vector
                        let mut bar = *ybar;
                        self.rate_adjoint(|_| eta, y, (q, r, &mut bar), &mut totals);
                        *ybar = bar;
                    }
                    let sums = (q_rest, r_rest, bars_rest);
                    self.rate_adjoint(|_| eta, rest, sums, &mut totals);
                    d_eta[0] += sum(&totals);
                }
                eta if lanes == 1 => {
                    self.rate_adjoint(|j| eta[j], y, (sums.q, sums.r, &mut *ybar), d_eta);
                }
                eta => {
                    for (j, y) in y.chunks(lanes).enumerate() {
                        let at = j * lanes..j * lanes + y.len();
                        let sums =
                            (&sums.q[at.clone()], &sums.r[at.clone()], &mut ybar[at.clone()]);
                        let mut totals = [S::ZERO; LANES];
                        self.rate_adjoint(|_| eta[j], y, sums, &mut totals);
                        d_eta[j] += sum(&totals);
                    }
                }
            }
        }
        if self.uses_modulator() && !parameters.get(p, Tensor::ModW).is_empty() {
            self.modulator_adjoint(parameters, p, y, sums, ybar, gradients);
        }
    }

    /// What [`Rule::adjoint`] leaves of m that the episodes give: `ybar += ...`, dL/dm `=`, all
    /// `[N, lanes]`.
    #[inline(always)]
    pub fn given_adjoint<S: Scalar>(
        self,
        y: &[S],
        given: &[S],
        sums: &Adjoint<'_, S>,
        ybar: &mut [S],
        d_m: &mut [S],
    ) {
        if self == Rule::Modulated {
            let all = ybar.iter_mut().zip(d_m).zip(given).zip(sums.q).zip(y);
            for ((((ybar, d_m), &given), &q), &y) in all {
                *ybar += given * q;
                *d_m = y * q;
            }
        } else {
            d_m.iter_mut().zip(sums.e).for_each(|(d_m, &e)| *d_m = e);
        }
    }

    /// The modulator's share, as [`Rule::adjoint`] has it.
    #[inline(always)]
    fn modulator_adjoint<S: Scalar>(
        self,
        parameters: &Parameters<S>,
        p: usize,
        y: &[S],
        sums: &Adjoint<'_, S>,
        ybar: &mut [S],
        gradients: &mut [S],
    ) {
        let (lanes, n) = (sums.lanes, y.len() / sums.lanes);
        let get = |tensor| &parameters.get(p, tensor)[..n];
        let [w, b, k] = [Tensor::FanoutW, Tensor::FanoutB, Tensor::ModW].map(get);
        let layout = parameters.layout();
        let at = |tensor| {
            layout.find(tensor).expect("the rule has a modulator").offset - layout.at_rule()
        };
        let [d_w, d_b, d_k] = gradients
            .get_disjoint_mut([Tensor::FanoutW, Tensor::FanoutB, Tensor::ModW].map(|tensor| {
                let at = at(tensor);
                at..at + n
            }))
            .expect("tensors lie apart");
        let signal = modulator(parameters, p, y, lanes);
        // of the modulator, then of its input, for each episode
        let mut a_bar = [S::ZERO; LANES];
        if lanes == 1 {
            for first in (0..n).step_by(LANES) {
                let block = first..n.min(first + LANES);
                let given = [y, sums.q, sums.e].map(|rows| &rows[block.clone()]);
                let (w, b) = (&w[block.clone()], &b[block.clone()]);
                let ybar = &mut ybar[block.clone()];
                let out = [&mut d_w[block.clone()], &mut d_b[block], &mut a_bar];
                self.gain_adjoint(|j| (w[j], b[j]), |_| signal[0], given, ybar, out);
            }
            a_bar[0] = (S::ONE - signal[0] * signal[0]) * sum(&a_bar);
            let a_bar = a_bar[0];
            for (((d_k, &k), &y), ybar) in d_k.iter_mut().zip(k).zip(y).zip(ybar) {
                *d_k += a_bar * y;
                *ybar += a_bar * k;
            }
        } else {
            for j in 0..n {
                let block = j * lanes..(j + 1) * lanes;
                let given = [y, sums.q, sums.e].map(|rows| &rows[block.clone()]);
                let (mut total_w, mut total_b) = ([S::ZERO; LANES], [S::ZERO; LANES]);
                let out = [&mut total_w[..], &mut total_b[..], &mut a_bar];
                let ybar = &mut ybar[block];
                self.gain_adjoint(|_| (w[j], b[j]), |lane| signal[lane], given, ybar, out);
                d_w[j] += sum(&total_w);
                d_b[j] += sum(&total_b);
            }
            for (a_bar, &signal) in a_bar.iter_mut().zip(&signal) {
                *a_bar = (S::ONE - signal * signal) * *a_bar;
            }
            let rows = y.chunks(lanes).zip(ybar.chunks_mut(lanes));
            for ((d_k, &k), (y, ybar)) in d_k.iter_mut().zip(k).zip(rows) {
                for ((&y, ybar), &a_bar) in y.iter().zip(ybar).zip(&a_bar) {
                    *d_k += a_bar * y;
                    *ybar += a_bar * k;
                }
            }
        }
        gradients[at(Tensor::ModB)] += sum(&a_bar[..lanes]);
    }

    /// Of y, q and e: `ybar += ...`, and of the fan-out's w and b and of the modulator `+= ...`.
    #[inline(always)]
    fn gain_adjoint<S: Scalar>(
        self,
        fan: impl Fn(usize) -> (S, S),
        signal: impl Fn(usize) -> S,
        [y, q, e]: [&[S]; 3],
        ybar: &mut [S],
        [d_w, d_b, a_bar]: [&mut [S]; 3],
    ) {
        let given = y.iter().zip(q).zip(e).zip(ybar);
        let out = d_w.iter_mut().zip(d_b).zip(a_bar);
        for (k, ((((&y, &q), &e), ybar), ((d_w, d_b), a_bar))) in given.zip(out).enumerate() {
            let ((w, b), signal) = (fan(k), signal(k));
            let m_bar = if self == Rule::Modulated {
                *ybar += (w * signal + b) * q;
                y * q
            } else {
                e
            };
            *d_w += m_bar * signal;
            *d_b += m_bar;
            *a_bar += m_bar * w;
        }
    }

    /// The share of eta: `ybar += ...`, and `d_eta_j += ...`. The sums are q, r and ybar.
    #[inline(always)]
    fn rate_adjoint<S: Scalar>(
        self,
        eta: impl Fn(usize) -> S,
        y: &[S],
        (q, r, ybar): (&[S], &[S], &mut [S]),
        d_eta: &mut [S],
    ) {
        let all = y.iter().zip(q).zip(r).zip(ybar).zip(d_eta).enumerate();
        if self == Rule::Oja {
            for (j, ((((&y, &q), &r), ybar), d_eta)) in all {
                *ybar += eta(j) * (q - (y + y) * r);
                *d_eta += y * (q - y * r);
            }
        } else {
            for (j, ((((&y, &q), &r), ybar), d_eta)) in all {
                *ybar += eta(j) * q;
                *d_eta += y * q - r;
            }
        }
    }
}

/// Partial sums of a reduction over neurons, so that it becomes vectors; the most episodes
/// side by side.
const LANES: usize = 16;

#[inline(always)]
fn sum<S: Scalar>(values: &[S]) -> S {
    values.iter().fold(S::ZERO, |sum, &value| sum + value)
}

/// tanh(mod.w . y + mod.b) of every episode.
#[inline(always)]
fn modulator<S: Scalar>(parameters: &Parameters<S>, p: usize, y: &[S], lanes: usize) -> [S; LANES] {
    let k = parameters.get(p, Tensor::ModW);
    let bias = parameters.get(p, Tensor::ModB)[0];
    let mut totals = [S::ZERO; LANES];
    if lanes == 1 {
        for (k, y) in k.chunks(LANES).zip(y.chunks(LANES)) {
            for (total, (&k, &y)) in totals.iter_mut().zip(k.iter().zip(y)) {
                *total += k * y;
            }
        }
        totals[0] = sum(&totals);
    } else {
        for (&k, y) in k.iter().zip(y.chunks(lanes)) {
            for (total, &y) in totals.iter_mut().zip(y) {
                *total += k * y;
            }
        }
    }
    totals.map(|total| (bias + total).tanh())
}
