//! Checkpoints: all that a run needs to go on as if it had never stopped, in one
//! safetensors file that notices when a byte of it changes.
//!
//! Tensors are named as in case files, moments of the optimiser with `first.` and `second.`
//! before the name. Metadata: `format`, `version`, `update`, `episodes` (the next one of each
//! network's stream), `seconds`, `rate_scale`, `rollbacks`, `best`,
//! `config` (TOML) and `checksum`: SHA-256 of the whole file with zeros in the checksum's
//! own place.

use std::path::{Path, PathBuf};

use crate::engine::State;
use crate::error::{Error, Result};
use crate::files;
use crate::model::{Network, Parameters};
use crate::tensors::{Output, Source, Tensors, header_range, serialise};
use crate::train::Config;

/// The layout of the file; another one is another format.
const FORMAT: &str = "hebbian.checkpoint/1";

/// What the axes of the tensors are.
pub(super) const AXES: &str = "w, alpha: network, pre, post; eta, mod.w, fanout.w, fanout.b: \
                               network, post; mod.b: network; an axis of 1 is shared";

/// Hexadecimal digits of a checksum.
const DIGITS: usize = 64;

/// Where a run stands, beside the engine's state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Position {
    /// Updates done.
    pub update: u64,
    /// Seconds of training so far.
    pub seconds: f64,
    /// The learning rate is multiplied by this: below 1 after a rollback.
    pub rate_scale: f64,
    /// How often training went back because it diverged.
    pub rollbacks: u32,
    /// The best checkpoint so far.
    pub best: Option<Best>,
}

/// The checkpoint with the lowest error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// Its update.
    pub update: u64,
    /// Its error: on held-out episodes where the run measures them, else of training since
    /// the checkpoint before.
    pub error: f64,
}

impl Position {
    /// Before the first update.
    #[must_use]
    pub fn start() -> Self {
        Position { update: 0, seconds: 0.0, rate_scale: 1.0, rollbacks: 0, best: None }
    }
}

/// A checkpoint that was read and found whole.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    bytes: Vec<u8>,
    /// The configuration of the run.
    pub config: Config,
    /// Where the run stood.
    pub position: Position,
}

impl Checkpoint {
    /// Reads a checkpoint and checks every byte of it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] for a file that is damaged, no checkpoint, or one of
    /// another version.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(path, files::read(path)?)
    }

    /// Parses the bytes of a checkpoint; `path` is for messages.
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        let tensors = Tensors::parse(path, &bytes)?;
        let metadata = tensors.metadata().clone();
        let entry = |key: &str| {
            metadata
                .get(key)
                .map(String::as_str)
                .ok_or_else(|| Error::file(path, format!("no metadata {key}"), "a checkpoint"))
        };
        let format = entry("format")?;
        if format != FORMAT {
            return Err(Error::file(path, format!("format {format}"), FORMAT));
        }
        entry("checksum")?;
        check_seal(path, &bytes, metadata.get("checksum"))?;
        let (made_by, own) = (entry("version")?, env!("CARGO_PKG_VERSION"));
        if made_by != own {
            let wanted = format!("one of version {own}: go on with the version that made it");
            return Err(Error::file(path, format!("a checkpoint of version {made_by}"), wanted));
        }
        let odd = |key: &str| Error::file(path, format!("an odd {key}"), "a checkpoint");
        let whole = |key: &str| -> Result<u64> { entry(key)?.parse().map_err(|_| odd(key)) };
        let real = |key: &str| -> Result<f64> {
            let value = entry(key)?.parse().ok().filter(|v: &f64| v.is_finite() && *v >= 0.0);
            value.ok_or_else(|| odd(key))
        };
        let best = match entry("best")? {
            "none" => None,
            text => {
                let parts = text.split_once(' ').and_then(|(update, error)| {
                    Some(Best { update: update.parse().ok()?, error: error.parse().ok()? })
                });
                Some(parts.ok_or_else(|| odd("best"))?)
            }
        };
        let position = Position {
            update: whole("update")?,
            seconds: real("seconds")?,
            rate_scale: real("rate_scale")?,
            rollbacks: u32::try_from(whole("rollbacks")?).map_err(|_| odd("rollbacks"))?,
            best,
        };
        let config = Config::parse(entry("config")?)?;
        if whole("episodes")? != position.update.wrapping_mul(config.batch as u64) {
            return Err(odd("episodes"));
        }
        Ok(Checkpoint { path: path.into(), bytes, config, position })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of the file.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The engine's state, for networks of this kind.
    ///
    /// # Errors
    /// [`Error::Tensor`] if they are of another kind.
    pub fn state(&self, network: &Network) -> Result<State<f32>> {
        let tensors = Tensors::parse(&self.path, &self.bytes)?;
        Ok(State {
            parameters: read_parameters(&tensors, "", network)?,
            first: read_parameters(&tensors, "first.", network)?,
            second: read_parameters(&tensors, "second.", network)?,
            update: self.position.update,
        })
    }

    /// The bytes of a checkpoint.
    #[must_use]
    pub fn serialise(config: &Config, state: &State<f32>, position: &Position) -> Vec<u8> {
        let mut lists = tensors_of("", &state.parameters);
        lists.extend(tensors_of("first.", &state.first));
        lists.extend(tensors_of("second.", &state.second));
        let best = position.best.map_or("none".into(), |b| format!("{} {}", b.update, b.error));
        let metadata = [
            ("format", FORMAT.into()),
            ("version", env!("CARGO_PKG_VERSION").into()),
            ("axes", AXES.into()),
            ("update", position.update.to_string()),
            ("episodes", position.update.wrapping_mul(config.batch as u64).to_string()),
            ("seconds", position.seconds.to_string()),
            ("rate_scale", position.rate_scale.to_string()),
            ("rollbacks", position.rollbacks.to_string()),
            ("best", best),
            ("config", config.to_toml()),
        ];
        sealed(&lists, metadata)
    }

    /// Writes into the bytes of a checkpoint the checksum that they should have.
    #[doc(hidden)]
    pub fn seal(bytes: &mut [u8]) {
        if let (Some(at), Some(sum)) = (checksum_at(bytes), digest(bytes)) {
            bytes[at..at + DIGITS].copy_from_slice(sum.as_bytes());
        }
    }
}

/// Where the digits of the checksum begin. A string in JSON cannot hold a bare quotation
/// mark, so the key is found nowhere else.
fn checksum_at(bytes: &[u8]) -> Option<usize> {
    const KEY: &[u8] = b"\"checksum\":\"";
    let header = header_range(bytes)?;
    let found = bytes[header.clone()].windows(KEY.len()).position(|window| window == KEY)?;
    let at = header.start + found + KEY.len();
    (at + DIGITS <= header.end).then_some(at)
}

/// The checksum that a checkpoint's bytes should carry.
fn digest(bytes: &[u8]) -> Option<String> {
    let at = checksum_at(bytes)?;
    Some(files::sha256([&bytes[..at], &[b'0'; DIGITS], &bytes[at + DIGITS..]]))
}

/// The bytes of a safetensors file with a checksum over all of them.
pub(super) fn sealed<const K: usize>(lists: &Lists, metadata: [(&str, String); K]) -> Vec<u8> {
    let metadata = metadata.map(|(key, value)| (key.to_string(), value));
    let checksum = ("checksum".to_string(), "0".repeat(DIGITS));
    let metadata = metadata.into_iter().chain([checksum]).collect();
    let mut bytes = serialise(&outputs_of(lists), metadata);
    Checkpoint::seal(&mut bytes);
    bytes
}

/// Refuses bytes that are not those that were sealed.
pub(super) fn check_seal(path: &Path, bytes: &[u8], found: Option<&String>) -> Result<()> {
    if digest(bytes).as_ref() == found {
        return Ok(());
    }
    let wanted = "the bytes that were written (its checksum is another)";
    Err(Error::file(path, "a damaged checkpoint", wanted))
}

/// Name, shape and elements of every tensor.
pub(super) type Lists = Vec<(String, Vec<usize>, Vec<f32>)>;

/// The tensors of a population, `prefix` before their names.
pub(super) fn tensors_of(prefix: &str, parameters: &Parameters<f32>) -> Lists {
    let n = parameters.n_networks();
    let entries = parameters.layout().entries().iter();
    entries
        .map(|entry| {
            let all = (0..n).flat_map(|p| parameters.get(p, entry.tensor)).copied().collect();
            let shape = [&[n], &entry.shape[..]].concat();
            (format!("{prefix}{}", entry.name), shape, all)
        })
        .chain(mask_of(prefix, parameters))
        .collect()
}

/// Which connections there are, once.
fn mask_of(prefix: &str, parameters: &Parameters<f32>) -> Option<(String, Vec<usize>, Vec<f32>)> {
    let w = parameters.layout().find(crate::model::Tensor::W)?;
    let shape = [&[parameters.n_networks()], &w.shape[..]].concat();
    let there = prefix.is_empty() && !parameters.mask.is_empty();
    there.then(|| ("mask".into(), shape, parameters.mask.clone()))
}

pub(super) fn outputs_of(lists: &Lists) -> Vec<Output<'_, f32>> {
    lists
        .iter()
        .map(|(name, shape, values)| Output { name: name.clone(), shape: shape.clone(), values })
        .collect()
}

/// The tensors of a population of this kind.
pub(super) fn read_parameters(
    tensors: &Tensors<'_>,
    prefix: &str,
    network: &Network,
) -> Result<Parameters<f32>> {
    let n = network.n_networks;
    let layout = crate::model::Layout::new(network);
    // before any memory is asked for
    for entry in layout.entries() {
        let name = format!("{prefix}{}", entry.name);
        let (found, wanted) = (tensors.shape(&name)?, [&[n], &entry.shape[..]].concat());
        if found != wanted {
            let (found, wanted) = (format!("shape {found:?}"), format!("{wanted:?}"));
            return Err(Error::tensor(&name, found, wanted));
        }
    }
    if prefix.is_empty() {
        // what was trained is used, whole
        let known = |name: &str| {
            let moment = name.starts_with("first.") || name.starts_with("second.");
            let mask = name == "mask" && network.stages.masked;
            moment || mask || layout.entries().iter().any(|entry| entry.name == name)
        };
        if let Some(name) = tensors.names().into_iter().find(|name| !known(name)) {
            let found = "one that was trained with the others";
            return Err(Error::tensor(name, found, "networks that have it, as in training"));
        }
    }
    let mut parameters = Parameters::zeros(network);
    for entry in layout.entries() {
        let values = tensors.read::<f32>(&format!("{prefix}{}", entry.name))?;
        for (p, values) in values.chunks(entry.len).enumerate() {
            parameters.get_mut(p, entry.tensor).copy_from_slice(values);
        }
    }
    if network.stages.masked && prefix.is_empty() {
        parameters.mask = tensors.read("mask")?;
        let (found, wanted) = (parameters.mask.len(), n * network.n_connections());
        if found != wanted {
            return Err(Error::tensor("mask", format!("{found} numbers"), wanted.to_string()));
        }
    }
    Ok(parameters)
}

/// Replaces parameters by the tensors of a file that have their names, of any writer: `[P, ...]` as a
/// case has them, `[1, ...]` for all networks alike, or without that axis. Other tensors are not read.
///
/// # Errors
/// [`Error::File`] for a file without any of them, [`Error::Tensor`] for one of another shape.
pub fn start_from(
    path: &Path,
    bytes: &[u8],
    network: &Network,
    parameters: &mut Parameters<f32>,
) -> Result<()> {
    let tensors = Tensors::parse(path, bytes)?;
    let layout = crate::model::Layout::new(network);
    let mut none = true;
    for entry in layout.entries().iter().filter(|entry| tensors.has(&entry.name)) {
        let name = &*entry.name;
        let found = tensors.shape(name)?;
        let shapes = [
            [&[network.n_networks], &entry.shape[..]].concat(),
            [&[1], &entry.shape[..]].concat(),
            entry.shape.clone(),
        ];
        if !shapes.contains(&found) {
            let wanted = format!("{:?} or {:?}", shapes[0], shapes[2]);
            return Err(Error::tensor(name, format!("shape {found:?}"), wanted));
        }
        let values = tensors.read::<f32>(name)?;
        let leaks = entry.tensor == crate::model::Tensor::Leak;
        if let Some(k) = values.iter().position(|&k| leaks && !(k > 0.0 && k <= 1.0)) {
            let found = format!("{:?} at element {k}", values[k]);
            return Err(Error::tensor(name, found, "above 0 and at most 1"));
        }
        for p in 0..network.n_networks {
            let from = if values.len() > entry.len { p * entry.len } else { 0 };
            parameters.get_mut(p, entry.tensor).copy_from_slice(&values[from..][..entry.len]);
        }
        none = false;
    }
    if tensors.has("mask") && tensors.read::<f32>("mask")? != parameters.mask {
        let wanted = "the mask of these networks, or none: --init takes no connections away";
        return Err(Error::tensor("mask", "another one", wanted));
    }
    if none {
        let names: Vec<&str> = layout.entries().iter().map(|entry| &*entry.name).collect();
        let wanted = format!("one of the tensors {}", names.join(", "));
        return Err(Error::file(path, "no parameters", wanted));
    }
    Ok(())
}
