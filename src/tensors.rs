//! Tensors in safetensors files.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::error::{Error, Result};
use crate::files;
use crate::model::Scalar;

/// Where tensors come from: a file, or arrays in memory.
pub trait Source {
    /// Their names, sorted.
    fn names(&self) -> Vec<&str>;

    /// The shape of one, where there is one of that name.
    fn find(&self, name: &str) -> Option<Vec<usize>>;

    /// The numbers of one, all finite.
    ///
    /// # Errors
    /// [`Error::Tensor`] where there is none, or it holds no such numbers.
    fn read<S: Scalar>(&self, name: &str) -> Result<Vec<S>>;

    /// Whether there is one of that name.
    fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The shape of one.
    ///
    /// # Errors
    /// [`Error::Tensor`] where there is none.
    fn shape(&self, name: &str) -> Result<Vec<usize>> {
        self.find(name).ok_or_else(|| none(name))
    }
}

fn none(name: &str) -> Error {
    Error::tensor(name, "no such tensor", "a tensor of that name")
}

/// The tensors and metadata of a file held in memory.
pub(crate) struct Tensors<'a> {
    tensors: SafeTensors<'a>,
    metadata: HashMap<String, String>,
}

impl<'a> Tensors<'a> {
    /// Parses the bytes of the file `path`.
    pub(crate) fn parse(path: &Path, bytes: &'a [u8]) -> Result<Self> {
        let broken = |e: safetensors::SafeTensorError| {
            Error::file(
                path,
                format!("{} bytes that are no safetensors ({e})", bytes.len()),
                "a whole safetensors file",
            )
        };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(broken)?;
        let json = header_range(bytes).map_or(&[][..], |range| &bytes[range]);
        if let Err(twice) = serde_json::from_slice::<Once>(json) {
            return Err(Error::file(path, format!("{twice}"), "each name once"));
        }
        let tensors = SafeTensors::deserialize(bytes).map_err(broken)?;
        Ok(Tensors { tensors, metadata: header.metadata().clone().unwrap_or_default() })
    }

    pub(crate) fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }
}

impl Source for Tensors<'_> {
    fn names(&self) -> Vec<&str> {
        let mut names = self.tensors.names();
        names.sort_unstable();
        names
    }

    fn find(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.tensor(name).ok().map(|view| view.shape().to_vec())
    }

    fn read<S: Scalar>(&self, name: &str) -> Result<Vec<S>> {
        let view = self.tensors.tensor(name).map_err(|_| none(name))?;
        let data = view.data();
        let values: Vec<S> = match view.dtype() {
            Dtype::F64 => elements(data, |b| S::from_f64(f64::from_le_bytes(b))),
            Dtype::F32 => elements(data, |b| S::from_f64(f64::from(f32::from_le_bytes(b)))),
            Dtype::F16 => elements(data, |b| S::from_f64(half::f16::from_le_bytes(b).to_f64())),
            Dtype::BOOL if name == "clamp" => elements(data, |[b]| S::from_f64(f64::from(b))),
            Dtype::U8 if is_whole(name) => elements(data, |[b]| S::from_f64(f64::from(b))),
            Dtype::I32 if is_whole(name) => {
                elements(data, |b| S::from_f64(f64::from(i32::from_le_bytes(b))))
            }
            #[expect(clippy::cast_precision_loss, reason = "as other writers round it")]
            Dtype::I64 if is_whole(name) => {
                elements(data, |b| S::from_f64(i64::from_le_bytes(b) as f64))
            }
            Dtype::BF16 => elements(data, |b| S::from_f64(half::bf16::from_le_bytes(b).to_f64())),
            other => {
                return Err(Error::tensor(
                    name,
                    format!("dtype {other:?}"),
                    "float32 or float64 (or float16, bfloat16)",
                ));
            }
        };
        if let Some(k) = S::first_not_finite(&values) {
            return Err(Error::tensor(
                name,
                format!("{:?} at element {k}", values[k]),
                format!("numbers that are finite in {}", S::NAME),
            ));
        }
        Ok(values)
    }
}

/// A JSON object, and those in it, that name no key twice: readers differ in which one they take.
struct Once;

impl<'de> serde::Deserialize<'de> for Once {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        struct Keys;
        impl<'de> serde::de::Visitor<'de> for Keys {
            type Value = Once;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a header")
            }
            fn visit_map<M: serde::de::MapAccess<'de>>(
                self,
                mut map: M,
            ) -> std::result::Result<Once, M::Error> {
                let mut seen = std::collections::HashSet::new();
                while let Some(key) = map.next_key::<String>()? {
                    if key == "__metadata__" {
                        map.next_value::<Once>()?;
                    } else {
                        map.next_value::<serde::de::IgnoredAny>()?;
                    }
                    if let Some(twice) = seen.replace(key) {
                        let words = format!("a header that names \"{twice}\" twice");
                        return Err(serde::de::Error::custom(words));
                    }
                }
                Ok(Once)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// Tensors that other writers keep as whole numbers.
fn is_whole(name: &str) -> bool {
    ["clamp", "target"].contains(&name)
}

fn elements<const N: usize, S>(data: &[u8], convert: impl Fn([u8; N]) -> S) -> Vec<S> {
    data.as_chunks::<N>().0.iter().map(|&bytes| convert(bytes)).collect()
}

/// A tensor to write: name, shape, elements.
pub(crate) struct Output<'a, S> {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: &'a [S],
}

/// Writes tensors as one file, whole or not at all.
pub(crate) fn write<S: Scalar>(
    path: &Path,
    outputs: &[Output<'_, S>],
    metadata: HashMap<String, String>,
) -> Result<()> {
    files::write(path, &serialise(outputs, metadata))
}

/// The bytes of a safetensors file; the same content gives the same bytes.
pub(crate) fn serialise<S: Scalar>(
    outputs: &[Output<'_, S>],
    metadata: HashMap<String, String>,
) -> Vec<u8> {
    let dtype = if size_of::<S>() == 8 { Dtype::F64 } else { Dtype::F32 };
    let views: Vec<(String, TensorView<'_>)> = outputs
        .iter()
        .map(|o| {
            let bytes = bytemuck::cast_slice(o.values);
            let view = TensorView::new(dtype, o.shape.clone(), bytes);
            (o.name.clone(), view.expect("the shape is the array's"))
        })
        .collect();
    let metadata = (!metadata.is_empty()).then_some(metadata);
    let mut bytes = safetensors::serialize(views, metadata).expect("names are unique");
    // the metadata come in the order of a hash map: sort them, which changes no length
    let header = header_range(&bytes).expect("just written");
    let sorted: BTreeMap<String, BTreeMap<String, serde_json::Value>> =
        serde_json::from_slice(&bytes[header.clone()]).expect("just written");
    let sorted = serde_json::to_vec(&sorted).expect("plain data");
    bytes[header.clone()].fill(b' ');
    bytes[header][..sorted.len()].copy_from_slice(&sorted);
    bytes
}

/// Where the JSON of a safetensors file lies, if the file is long enough to hold it.
pub(crate) fn header_range(bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let len = u64::from_le_bytes(*bytes.first_chunk::<8>()?);
    let end = usize::try_from(len).ok()?.checked_add(8)?;
    (end <= bytes.len()).then_some(8..end)
}
