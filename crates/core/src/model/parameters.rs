//! Parameters of a population, and their gradients, as one flat array.

use crate::error::{Error, Result};
use crate::model::{AlphaSharing, Network, Scalar, Sharing};
use crate::rule::Per;

/// A trained tensor. The names are those of case files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tensor {
    /// Fixed weights `[M, N]`, indexed (pre, post).
    W,
    /// Plasticity coefficients `[M, N]`, `[1, N]` or `[1, 1]`.
    Alpha,
    /// Plasticity rates `[N]` or `[1]`.
    Eta,
    /// Neuromodulator read-out weights `[N]`.
    ModW,
    /// Neuromodulator read-out bias, one number.
    ModB,
    /// Fan-out weights of the modulator `[N]`.
    FanoutW,
    /// Fan-out biases `[N]`.
    FanoutB,
    /// Biases on z, `[N]` or `[1]`.
    Bias,
    /// Leak rates, `[N]` or `[1]`.
    Leak,
    /// Weights of the input layer `[K, N]`.
    InW,
    /// Its biases `[N]`.
    InB,
    /// Weights of the read-out `[N, O]`.
    OutW,
    /// Its biases `[O]`.
    OutB,
    /// Weights of layer k of the embedding `[9 C, channels]`: row `(3 y + x) C + c` is that of pixel
    /// (y, x) of the patch and map c.
    ConvW(usize),
    /// Biases of layer k of the embedding `[channels]`.
    ConvB(usize),
    /// Parameter k of a rule that is a text.
    OfRule(usize),
}

impl Tensor {
    /// Every tensor but those of which there may be several, in the order of the flat array.
    pub const ALL: [Tensor; 13] = [
        Tensor::W,
        Tensor::Alpha,
        Tensor::Eta,
        Tensor::ModW,
        Tensor::ModB,
        Tensor::FanoutW,
        Tensor::FanoutB,
        Tensor::Bias,
        Tensor::Leak,
        Tensor::InW,
        Tensor::InB,
        Tensor::OutW,
        Tensor::OutB,
    ];

    /// A number that no other tensor has, for streams of random numbers.
    #[must_use]
    pub fn number(self) -> u32 {
        let at = match self {
            Tensor::OfRule(k) => 64 + k,
            Tensor::ConvW(k) => 1024 + 2 * k,
            Tensor::ConvB(k) => 1025 + 2 * k,
            _ => Self::ALL.iter().position(|&tensor| tensor == self).unwrap_or(0),
        };
        u32::try_from(at).expect("few tensors")
    }

    /// The tensor's name in files; see [`Entry::name`] for those of which there may be several.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Tensor::Bias => "bias",
            Tensor::Leak => "leak",
            Tensor::InW => "in.w",
            Tensor::InB => "in.b",
            Tensor::OutW => "out.w",
            Tensor::OutB => "out.b",
            Tensor::ConvW(_) | Tensor::ConvB(_) => "conv",
            Tensor::OfRule(_) => "rule",
            Tensor::W => "w",
            Tensor::Alpha => "alpha",
            Tensor::Eta => "eta",
            Tensor::ModW => "mod.w",
            Tensor::ModB => "mod.b",
            Tensor::FanoutW => "fanout.w",
            Tensor::FanoutB => "fanout.b",
        }
    }

    /// The tensor's shape in one network.
    #[must_use]
    pub fn shape(self, network: &Network) -> Vec<usize> {
        let (m, n) = (network.n_pre, network.n_post);
        match self {
            Tensor::W => vec![m, n],
            Tensor::Alpha => match network.alpha {
                AlphaSharing::PerConnection => vec![m, n],
                AlphaSharing::PerNeuron => vec![1, n],
                AlphaSharing::PerNetwork => vec![1, 1],
            },
            Tensor::Eta => match network.eta {
                Sharing::PerNeuron => vec![n],
                Sharing::PerNetwork => vec![1],
            },
            Tensor::ModB => vec![],
            Tensor::ModW | Tensor::FanoutW | Tensor::FanoutB | Tensor::InB => vec![n],
            Tensor::Bias => of_sharing(network.stages.bias, n),
            Tensor::Leak => of_sharing(network.stages.leak.map(|(_, sharing)| sharing), n),
            Tensor::InW => vec![network.stages.input.map_or(0, |layer| layer.size), n],
            Tensor::OutW => vec![n, network.stages.output.map_or(0, |layer| layer.size)],
            Tensor::OutB => vec![network.stages.output.map_or(0, |layer| layer.size)],
            Tensor::ConvW(k) => network.stages.embedding.map_or(Vec::new(), |embedding| {
                vec![9 * embedding.channels_into(k), embedding.channels]
            }),
            Tensor::ConvB(_) => vec![network.stages.embedding.map_or(0, |one| one.channels)],
            Tensor::OfRule(k) => match network.stages.rule.as_ref().map(|rule| rule.per[k]) {
                Some(Per::Neuron) => vec![n],
                Some(Per::Pre) => vec![m],
                Some(Per::Connection) => vec![m, n],
                Some(Per::Network) | None => vec![1],
            },
        }
    }

    fn used(self, network: &Network) -> bool {
        let stages = &network.stages;
        match self {
            Tensor::W | Tensor::Alpha => true,
            Tensor::Eta => network.rule.uses_eta(),
            Tensor::ModW | Tensor::ModB | Tensor::FanoutW | Tensor::FanoutB => {
                network.has_modulator()
            }
            Tensor::Bias => stages.bias.is_some(),
            Tensor::Leak => stages.leak.is_some(),
            Tensor::InW => stages.input.is_some(),
            Tensor::InB => stages.input.is_some_and(|layer| layer.bias),
            Tensor::OutW => stages.output.is_some(),
            Tensor::OutB => stages.output.is_some_and(|layer| layer.bias),
            Tensor::ConvW(k) | Tensor::ConvB(k) => {
                stages.embedding.is_some_and(|embedding| k < embedding.layers)
            }
            Tensor::OfRule(k) => {
                stages.rule.as_ref().is_some_and(|rule| k < rule.program.parameters().len())
            }
        }
    }
}

fn of_sharing(sharing: Option<Sharing>, n: usize) -> Vec<usize> {
    vec![if sharing == Some(Sharing::PerNeuron) { n } else { 1 }]
}

/// Where one tensor lies in a network's flat array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which tensor.
    pub tensor: Tensor,
    /// Its name in files.
    pub name: String,
    /// Its shape in one network.
    pub shape: Vec<usize>,
    /// Index of its first element.
    pub offset: usize,
    /// Its number of elements.
    pub len: usize,
}

/// The tensors that a network trains, and where each lies in the flat array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    entries: Vec<Entry>,
    len: usize,
}

impl Layout {
    /// The layout of one network of `network`.
    #[must_use]
    pub fn new(network: &Network) -> Self {
        let mut entries = Vec::new();
        let mut offset = 0;
        let of_rule = network.stages.rule.as_ref();
        let n_of_rule = of_rule.map_or(0, |rule| rule.program.parameters().len());
        let layers = network.stages.embedding.map_or(0, |embedding| embedding.layers);
        let all = Tensor::ALL
            .into_iter()
            .chain((0..n_of_rule).map(Tensor::OfRule))
            .chain((0..layers).flat_map(|k| [Tensor::ConvW(k), Tensor::ConvB(k)]));
        for tensor in all.filter(|t| t.used(network)) {
            let name = match (tensor, of_rule) {
                (Tensor::OfRule(k), Some(rule)) => rule.names[k].clone(),
                (Tensor::ConvW(k), _) => format!("conv{}.w", k + 1),
                (Tensor::ConvB(k), _) => format!("conv{}.b", k + 1),
                _ => tensor.name().into(),
            };
            let shape = tensor.shape(network);
            let len = shape.iter().product();
            entries.push(Entry { tensor, name, shape, offset, len });
            offset += len;
        }
        Layout { entries, len: offset }
    }

    /// The tensors in order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Parameters in one network.
    #[expect(clippy::len_without_is_empty, reason = "a layout always holds w and alpha")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Where the parameters of the rule start, behind w and alpha.
    #[must_use]
    pub fn at_rule(&self) -> usize {
        self.find(Tensor::Alpha).map_or(0, |alpha| alpha.offset + alpha.len)
    }

    /// Where `tensor` lies, if the network has it.
    #[must_use]
    pub fn find(&self, tensor: Tensor) -> Option<&Entry> {
        self.entries.iter().find(|e| e.tensor == tensor)
    }
}

/// Parameters, gradients or optimiser moments of P networks: a flat array
/// `[P, layout.len()]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters<S> {
    layout: Layout,
    values: Vec<S>,
    /// `[P, M, N]`, 0 or 1, of networks that lack connections: one with 0 has neither w nor alpha. Empty
    /// for others.
    pub mask: Vec<S>,
}

impl<S: Copy + Default> Parameters<S> {
    /// All zero.
    #[must_use]
    pub fn zeros(network: &Network) -> Self {
        let layout = Layout::new(network);
        let values = vec![S::default(); network.n_networks * layout.len()];
        Parameters { layout, values, mask: Vec::new() }
    }

    /// Other values of the same networks.
    ///
    /// # Panics
    /// If there are not as many.
    pub(crate) fn like(&self, values: &[S]) -> Self {
        assert_eq!(values.len(), self.values.len(), "values of the same networks");
        Parameters { layout: self.layout.clone(), values: values.to_vec(), mask: Vec::new() }
    }

    /// Checks that these are parameters of the population `network`.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn check(&self, network: &Network) -> Result<()> {
        let wanted = Layout::new(network);
        if self.layout == wanted && self.n_networks() == network.n_networks {
            return Ok(());
        }
        let text = |p: usize, layout: &Layout| {
            let one = |e: &Entry| format!("{} {}", e.len, e.name);
            let each: Vec<String> = layout.entries().iter().map(one).collect();
            format!("{p} networks of {}", each.join(", "))
        };
        let found = text(self.n_networks(), &self.layout);
        Err(Error::value("parameters", found, text(network.n_networks, &wanted)))
    }

    /// The layout of one network.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// P.
    #[must_use]
    pub fn n_networks(&self) -> usize {
        self.values.len() / self.layout.len()
    }

    /// The whole flat array.
    #[must_use]
    pub fn values(&self) -> &[S] {
        &self.values
    }

    /// The whole flat array, to write.
    pub fn values_mut(&mut self) -> &mut [S] {
        &mut self.values
    }

    /// All tensors of network `p`, flat.
    #[must_use]
    pub fn network(&self, p: usize) -> &[S] {
        &self.values[p * self.layout.len()..][..self.layout.len()]
    }

    /// `tensor` of network `p`; empty if the network has no such tensor.
    #[must_use]
    pub fn get(&self, p: usize, tensor: Tensor) -> &[S] {
        match self.layout.find(tensor) {
            Some(e) => &self.network(p)[e.offset..][..e.len],
            None => &[],
        }
    }

    /// `tensor` of network `p`, to write; empty if the network has none.
    pub fn get_mut(&mut self, p: usize, tensor: Tensor) -> &mut [S] {
        let base = p * self.layout.len();
        match self.layout.find(tensor) {
            Some(e) => {
                let start = base + e.offset;
                &mut self.values[start..start + e.len]
            }
            None => &mut [],
        }
    }
}

impl<S: Scalar> Parameters<S> {
    /// The values in f64, exactly.
    #[must_use]
    pub fn widened(&self) -> Parameters<f64> {
        Parameters {
            layout: self.layout.clone(),
            values: self.values.iter().map(|x| x.to_f64()).collect(),
            mask: self.mask.iter().map(|x| x.to_f64()).collect(),
        }
    }
}
