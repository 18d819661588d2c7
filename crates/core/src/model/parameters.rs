//! Parameters of a population, and their gradients, as one flat array.

use crate::error::{Error, Result};
use crate::model::{AlphaSharing, EtaSharing, Network};

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
}

impl Tensor {
    /// Every tensor, in the order of the flat array.
    pub const ALL: [Tensor; 7] = [
        Tensor::W,
        Tensor::Alpha,
        Tensor::Eta,
        Tensor::ModW,
        Tensor::ModB,
        Tensor::FanoutW,
        Tensor::FanoutB,
    ];

    /// The tensor's name in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
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
                EtaSharing::PerNeuron => vec![n],
                EtaSharing::PerNetwork => vec![1],
            },
            Tensor::ModB => vec![],
            Tensor::ModW | Tensor::FanoutW | Tensor::FanoutB => vec![n],
        }
    }

    fn used(self, network: &Network) -> bool {
        match self {
            Tensor::W | Tensor::Alpha => true,
            Tensor::Eta => network.rule.uses_eta(),
            _ => network.rule.uses_modulator(),
        }
    }
}

/// Where one tensor lies in a network's flat array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which tensor.
    pub tensor: Tensor,
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
        for tensor in Tensor::ALL.into_iter().filter(|t| t.used(network)) {
            let shape = tensor.shape(network);
            let len = shape.iter().product();
            entries.push(Entry { tensor, shape, offset, len });
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
}

impl<S: Copy + Default> Parameters<S> {
    /// All zero.
    #[must_use]
    pub fn zeros(network: &Network) -> Self {
        let layout = Layout::new(network);
        let values = vec![S::default(); network.n_networks * layout.len()];
        Parameters { layout, values }
    }

    /// Other values of the same networks.
    ///
    /// # Panics
    /// If there are not as many.
    pub(crate) fn like(&self, values: &[S]) -> Self {
        assert_eq!(values.len(), self.values.len(), "values of the same networks");
        Parameters { layout: self.layout.clone(), values: values.to_vec() }
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
            let one = |e: &Entry| format!("{} {}", e.len, e.tensor.name());
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

impl Parameters<f32> {
    /// The same in f64, exactly.
    #[must_use]
    pub fn widened(&self) -> Parameters<f64> {
        Parameters {
            layout: self.layout.clone(),
            values: self.values.iter().map(|&x| f64::from(x)).collect(),
        }
    }
}
