//! Weights by name: read from safetensors, checked against the network's shape, written back.
//! Names are Hugging Face's (or PEFT's, for an adapter). Knows no file layout of a model folder
//! beyond `model.safetensors` and its shards; that is `model_files`.

use super::config::ModelConfig;
use super::error::LmError;
use super::tensors::{TensorSpec, tensors};
use candle_core::{CpuStorage, DType, Device, Shape, Storage, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Tensors by name, f32 on the CPU. The order of names is the order of a `BTreeMap`.
#[derive(Clone, Debug)]
pub struct Weights(pub BTreeMap<String, Tensor>);

/// How numbers are stored in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightDtype {
    /// 4 bytes, exact.
    F32,
    /// 2 bytes, rounded to nearest: 11 bits of a number, and none above 65,504.
    F16,
    /// 2 bytes, rounded to nearest: 8 bits of a number, of any size that F32 has.
    Bf16,
}

impl WeightDtype {
    /// Bytes a number.
    pub fn bytes(self) -> usize {
        match self {
            WeightDtype::F32 => 4,
            WeightDtype::F16 | WeightDtype::Bf16 => 2,
        }
    }

    /// What `config.json` calls it: `float32`, `float16`, `bfloat16`.
    pub fn hf_name(self) -> &'static str {
        match self {
            WeightDtype::F32 => "float32",
            WeightDtype::F16 => "float16",
            WeightDtype::Bf16 => "bfloat16",
        }
    }

    /// The one that `config.json` calls so.
    pub fn of_hf_name(name: &str) -> Option<WeightDtype> {
        let all = [WeightDtype::F32, WeightDtype::F16, WeightDtype::Bf16];
        all.into_iter().find(|dtype| dtype.hf_name() == name)
    }

    /// A number as it is read back from a file.
    pub fn rounded(self, value: f32) -> f32 {
        match self {
            WeightDtype::F32 => value,
            WeightDtype::F16 => half::f16::from_f32(value).to_f32(),
            WeightDtype::Bf16 => half::bf16::from_f32(value).to_f32(),
        }
    }
}

/// What rounding leaves of what training did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MovedNumbers {
    /// Numbers that differ between the two.
    pub moved: u64,
    /// Of these, how many are the same once both are rounded.
    pub lost: u64,
}

impl Weights {
    /// The same tensors as candle's `VarBuilder` gives them, each once: what was asked for is gone from
    /// here, so that a model is not held twice while it is arranged.
    pub fn into_var_builder(self) -> VarBuilder<'static> {
        let taken = TakenOnce(Mutex::new(self));
        VarBuilder::from_backend(Box::new(taken), DType::F32, Device::Cpu)
    }

    /// Reads `model.safetensors`, or the shards that `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// A missing or broken file, a missing tensor, a wrong shape: each with the path or name.
    pub fn load_folder(folder: &Path, config: &ModelConfig) -> Result<Weights, LmError> {
        let single = folder.join("model.safetensors");
        let weights = if single.exists() {
            Weights::load_file(&single)?
        } else {
            let mut all = BTreeMap::new();
            for shard in shard_names(folder)? {
                all.extend(Weights::load_file(&folder.join(shard))?.0);
            }
            Weights(all)
        };
        weights.checked(config)
    }

    /// Reads one safetensors file, each tensor straight to where it stays, on all threads.
    ///
    /// # Errors
    /// As [`Weights::from_bytes`], with the path.
    pub fn load_file(path: &Path) -> Result<Weights, LmError> {
        let file = File::open(path).map_err(|e| LmError::io(path, e))?;
        let bad = |why: String| LmError::Model(format!("{}: {why}", path.display()));
        let (metadata, head) = read_header(&file, path)?;
        let fill = |(name, info, values): &mut (String, &TensorInfo, Vec<f32>)| {
            let (from, to) = info.data_offsets;
            let at = (head + from) as u64;
            let read =
                |bytes: &mut [u8]| file.read_exact_at(bytes, at).map_err(|e| LmError::io(path, e));
            if info.dtype == Dtype::F32 {
                return read(pulp::bytemuck::cast_slice_mut(values));
            }
            let mut bytes = vec![0u8; to - from];
            read(&mut bytes)?;
            *values = numbers(name, info.dtype, &bytes).map_err(|e| bad(e.to_string()))?;
            Ok(())
        };
        // Set aside on this thread: memory that other threads set aside is not given back to it.
        let room = |info: &TensorInfo| match info.dtype {
            Dtype::F32 => vec![0f32; info.shape.iter().product()],
            _ => Vec::new(),
        };
        let mut tensors: Vec<_> =
            metadata.tensors().into_iter().map(|(name, info)| (name, info, room(info))).collect();
        tensors.par_iter_mut().try_for_each(fill)?;
        let tensor = |(name, info, values): (String, &TensorInfo, Vec<f32>)| {
            Ok((name, Tensor::from_vec(values, info.shape.as_slice(), &Device::Cpu)?))
        };
        Ok(Weights(tensors.into_iter().map(tensor).collect::<Result<_, LmError>>()?))
    }

    /// The shapes of a file's tensors; no number is read.
    ///
    /// # Errors
    /// As [`Weights::load_file`].
    pub fn shapes_in(path: &Path) -> Result<Vec<Vec<usize>>, LmError> {
        let file = File::open(path).map_err(|e| LmError::io(path, e))?;
        let (metadata, _) = read_header(&file, path)?;
        Ok(metadata.tensors().into_values().map(|info| info.shape.clone()).collect())
    }

    /// Parses safetensors bytes. The header is validated before anything is allocated: its length
    /// and its number of tensors are bounded, every range must lie inside the bytes and fit its
    /// shape.
    ///
    /// # Errors
    /// [`LmError::Model`] with the reason; also for a type that is not f32, f16 or bf16.
    pub fn from_bytes(bytes: &[u8]) -> Result<Weights, LmError> {
        check_header(bytes, bytes.len() as u64).map_err(LmError::Model)?;
        let parsed = SafeTensors::deserialize(bytes)
            .map_err(|e| LmError::Model(format!("not a usable safetensors file: {e}")))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in parsed.tensors() {
            let values = numbers(&name, view.dtype(), view.data())?;
            tensors.insert(name, Tensor::from_vec(values, view.shape(), &Device::Cpu)?);
        }
        Ok(Weights(tensors))
    }

    /// Writes safetensors bytes. The same tensors give the same bytes: names are sorted, and the
    /// metadata is `{"format":"pt"}`, without which older transformers refuse the file.
    ///
    /// # Errors
    /// A tensor that cannot be read as f32.
    pub fn to_bytes(&self, dtype: WeightDtype) -> Result<Vec<u8>, LmError> {
        safetensors::serialize(stored(self.0.iter(), dtype)?, Some(metadata()))
            .map_err(|e| LmError::Model(format!("weights cannot be written: {e}")))
    }

    /// Writes a safetensors file, tensor by tensor; the bytes are those of [`Weights::to_bytes`].
    ///
    /// # Errors
    /// The disk refuses.
    pub fn save(&self, path: &Path, dtype: WeightDtype) -> Result<(), LmError> {
        save_some(self.0.iter(), path, dtype)
    }

    /// Writes `model.safetensors` into a folder; where that were more than `bytes_max`, shards of at
    /// most so many bytes (a larger tensor has one of its own) and `model.safetensors.index.json`, as
    /// transformers does.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn save_folder(
        &self,
        folder: &Path,
        dtype: WeightDtype,
        bytes_max: u64,
    ) -> Result<(), LmError> {
        let mut shards: Vec<(u64, Vec<(&String, &Tensor)>)> = Vec::new();
        let mut total = 0;
        for (name, tensor) in &self.0 {
            let bytes = (tensor.elem_count() * dtype.bytes()) as u64;
            total += bytes;
            match shards.last_mut() {
                Some((held, tensors)) if *held + bytes <= bytes_max => {
                    *held += bytes;
                    tensors.push((name, tensor));
                }
                _ => shards.push((bytes, vec![(name, tensor)])),
            }
        }
        if shards.len() < 2 {
            return self.save(&folder.join("model.safetensors"), dtype);
        }
        let (of, mut map) = (shards.len(), serde_json::Map::new());
        for (at, (_, tensors)) in shards.into_iter().enumerate() {
            let file = format!("model-{:05}-of-{of:05}.safetensors", at + 1);
            map.extend(tensors.iter().map(|(name, _)| ((*name).clone(), file.clone().into())));
            save_some(tensors.into_iter(), &folder.join(file), dtype)?;
        }
        let index = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": map });
        let path = folder.join("model.safetensors.index.json");
        std::fs::write(&path, format!("{index:#}\n")).map_err(|e| LmError::io(path, e))
    }

    /// How many of these numbers differ from another model's, and how many of them would not any more
    /// if both were stored so.
    ///
    /// # Errors
    /// A tensor that the other has not, or another shape.
    pub fn moved_from(&self, other: &Weights, dtype: WeightDtype) -> Result<MovedNumbers, LmError> {
        let mut all = MovedNumbers::default();
        for (name, tensor) in &self.0 {
            let before = other.get(name)?;
            if before.dims() != tensor.dims() {
                return Err(LmError::Model(format!("the tensors {name} have different shapes")));
            }
            with_numbers(tensor, |now| {
                with_numbers(before, |before| {
                    for (now, before) in now.iter().zip(before).filter(|(a, b)| a != b) {
                        all.moved += 1;
                        all.lost += u64::from(dtype.rounded(*now) == dtype.rounded(*before));
                    }
                })
            })??;
        }
        Ok(all)
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// [`LmError::Model`] naming what is missing.
    pub fn get(&self, name: &str) -> Result<&Tensor, LmError> {
        self.0.get(name).ok_or_else(|| {
            LmError::Model(format!(
                "the weights have no tensor {name} (they have {})",
                self.0.len()
            ))
        })
    }

    /// Keeps exactly the tensors that the network needs, each with the right shape. A head that is
    /// stored although it is tied is dropped, as are stored rotary tables.
    ///
    /// # Errors
    /// The first tensor that is missing or has another shape.
    pub fn checked(mut self, config: &ModelConfig) -> Result<Weights, LmError> {
        let mut kept = BTreeMap::new();
        for TensorSpec { name, shape, .. } in tensors(config) {
            let Some(tensor) = self.0.remove(&name) else {
                return Err(LmError::Model(format!(
                    "the weights have no tensor {name} {shape:?}, which config.json asks for"
                )));
            };
            if tensor.dims() != shape.as_slice() {
                return Err(LmError::Model(format!(
                    "tensor {name} has shape {:?}, config.json asks for {shape:?}",
                    tensor.dims()
                )));
            }
            kept.insert(name, tensor);
        }
        Ok(Weights(kept))
    }

    /// Refuses weights that hold something which is no finite number: whatever such a network says is
    /// nonsense, and nothing can be trained from it. One pass over all of them.
    ///
    /// # Errors
    /// [`LmError::NotFinite`] naming the first such tensor, and how many of its numbers are wrong.
    pub fn check_finite(&self) -> Result<(), LmError> {
        let wrong = |(name, tensor): (&String, &Tensor)| {
            let bad = with_numbers(tensor, |all| all.iter().filter(|x| !x.is_finite()).count());
            bad.map(|bad| (bad > 0).then(|| (name.clone(), bad, tensor.elem_count())))
        };
        let tensors: Vec<_> = self.0.iter().collect();
        let found: Vec<_> = tensors.into_par_iter().map(wrong).collect::<Result<_, LmError>>()?;
        match found.into_iter().flatten().next() {
            None => Ok(()),
            Some((tensor, bad, of)) => Err(LmError::NotFinite { tensor, bad, of }),
        }
    }

    /// `share` of these and the rest of others, tensor by tensor.
    ///
    /// # Errors
    /// A tensor that one of the two does not have, or shapes that differ.
    pub fn mixed(&self, other: &Weights, share: f64) -> Result<Weights, LmError> {
        let mut mixed = BTreeMap::new();
        if self.0.len() != other.0.len() {
            let (ours, theirs) = (self.0.len(), other.0.len());
            return Err(LmError::Model(format!("{ours} tensors cannot be mixed with {theirs}")));
        }
        for (name, tensor) in &self.0 {
            let sum = ((tensor * share)? + (other.get(name)? * (1.0 - share))?)?;
            mixed.insert(name.clone(), sum);
        }
        Ok(Weights(mixed))
    }
}

/// Weights behind candle's `VarBuilder`, which give every tensor once.
struct TakenOnce(Mutex<Weights>);

impl SimpleBackend for TakenOnce {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, device)?;
        if tensor.shape() != &shape {
            candle_core::bail!(
                "tensor {name} has shape {:?}, the network asks for {:?}",
                tensor.dims(),
                shape.dims()
            );
        }
        Ok(tensor)
    }

    fn get_unchecked(
        &self,
        name: &str,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let mut weights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match weights.0.remove(name) {
            Some(tensor) => tensor.to_device(device)?.to_dtype(dtype),
            None => candle_core::bail!(
                "the weights have no tensor {name} (they have {})",
                weights.0.len()
            ),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.contains_key(name)
    }
}

/// The tensor that a network needs, of whatever the builder reads from.
///
/// # Errors
/// [`LmError::Model`] when it is missing or has another shape.
pub(crate) fn read(from: &VarBuilder<'_>, name: &str, shape: &[usize]) -> Result<Tensor, LmError> {
    from.get(shape, name).map_err(|error| match error {
        candle_core::Error::Msg(said) => LmError::Model(said),
        other => LmError::from(other),
    })
}

fn shard_names(folder: &Path) -> Result<BTreeSet<String>, LmError> {
    let index = folder.join("model.safetensors.index.json");
    if !index.exists() {
        return Err(LmError::Model(format!(
            "{} has neither model.safetensors nor model.safetensors.index.json",
            folder.display()
        )));
    }
    let text = std::fs::read_to_string(&index).map_err(|e| LmError::io(&index, e))?;
    let bad = |why: String| LmError::Model(format!("{}: {why}", index.display()));
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    let map = json.get("weight_map").and_then(|m| m.as_object());
    let map = map.ok_or_else(|| bad("has no weight_map".to_owned()))?;
    let mut names = BTreeSet::new();
    for file in map.values() {
        let file =
            file.as_str().ok_or_else(|| bad("weight_map has a non-text value".to_owned()))?;
        // The index is input: it must not lead out of the folder.
        if file.contains(['/', '\\']) || file.contains("..") {
            return Err(bad(format!("shard name {file:?} leads out of the folder")));
        }
        names.insert(file.to_owned());
    }
    Ok(names)
}

fn numbers(name: &str, dtype: Dtype, bytes: &[u8]) -> Result<Vec<f32>, LmError> {
    let four = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    Ok(match dtype {
        Dtype::F32 => bytes.chunks_exact(4).map(four).collect(),
        Dtype::F16 => {
            bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
        }
        Dtype::BF16 => bytes
            .chunks_exact(2)
            .map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32())
            .collect(),
        other => {
            return Err(LmError::Model(format!(
                "tensor {name} is stored as {other:?}; f32, f16 and bf16 can be read"
            )));
        }
    })
}

fn flat_f32(tensor: &Tensor) -> Result<Tensor, LmError> {
    Ok(tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?)
}

/// Without it older transformers refuse a file.
fn metadata() -> HashMap<String, String> {
    HashMap::from([("format".to_owned(), "pt".to_owned())])
}

fn stored<'a>(
    tensors: impl Iterator<Item = (&'a String, &'a Tensor)>,
    dtype: WeightDtype,
) -> Result<Vec<(&'a str, StoredTensor)>, LmError> {
    let stored = |(name, tensor): (&'a String, &Tensor)| {
        Ok((name.as_str(), StoredTensor { tensor: flat_f32(tensor)?, dtype }))
    };
    tensors.map(stored).collect()
}

fn save_some<'a>(
    tensors: impl Iterator<Item = (&'a String, &'a Tensor)>,
    path: &Path,
    dtype: WeightDtype,
) -> Result<(), LmError> {
    use safetensors::SafeTensorError::IoError;
    let written = safetensors::serialize_to_file(stored(tensors, dtype)?, Some(metadata()), path);
    written.map_err(|error| match error {
        IoError(error) => LmError::io(path, error),
        other => LmError::Model(format!("{}: weights cannot be written: {other}", path.display())),
    })
}

/// A tensor on its way into a file; converted only when its turn comes, so that a model is not
/// held twice.
struct StoredTensor {
    tensor: Tensor,
    dtype: WeightDtype,
}

impl safetensors::View for StoredTensor {
    fn dtype(&self) -> Dtype {
        match self.dtype {
            WeightDtype::F32 => Dtype::F32,
            WeightDtype::F16 => Dtype::F16,
            WeightDtype::Bf16 => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        self.tensor.dims()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.tensor.flatten_all().and_then(|t| t.to_vec1::<f32>());
        #[expect(
            clippy::expect_used,
            reason = "f32 on the CPU by construction (`flat_f32`); a file without its numbers would be worse"
        )]
        let values = values.expect("a tensor of f32 in the machine's memory");
        let mut bytes = Vec::with_capacity(self.data_len());
        for value in values {
            match self.dtype {
                WeightDtype::F32 => bytes.extend_from_slice(&value.to_le_bytes()),
                WeightDtype::F16 => {
                    bytes.extend_from_slice(&half::f16::from_f32(value).to_le_bytes());
                }
                WeightDtype::Bf16 => {
                    bytes.extend_from_slice(&half::bf16::from_f32(value).to_le_bytes());
                }
            }
        }
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.tensor.elem_count() * self.dtype.bytes()
    }
}

/// Longer headers are made to be expensive.
const HEADER_BYTES_MAX: u64 = 8 << 20;
/// More tensors than any network here has.
const TENSORS_MAX: usize = 20_000;

/// How a refusal begins.
const UNUSABLE: &str = "not a usable safetensors file";

/// The header of a file, checked, and the bytes before the first number.
fn read_header(file: &File, path: &Path) -> Result<(Metadata, usize), LmError> {
    let size = file.metadata().map_err(|e| LmError::io(path, e))?.len();
    let bad = |why: String| LmError::Model(format!("{}: {why}", path.display()));
    let mut first = [0u8; 8];
    let length = match file.read_exact_at(&mut first, 0) {
        Ok(()) => header_length(&first, size).map_err(bad)?,
        Err(_) => return Err(bad(format!("{UNUSABLE}: {size} bytes hold no header"))),
    };
    let mut head = vec![0u8; 8 + length];
    file.read_exact_at(&mut head, 0).map_err(|e| LmError::io(path, e))?;
    check_header(&head, size).map_err(bad)?;
    let metadata: Metadata =
        serde_json::from_slice(&head[8..]).map_err(|e| bad(format!("{UNUSABLE}: {e}")))?;
    check_ranges(&metadata, size - head.len() as u64).map_err(bad)?;
    Ok((metadata, head.len()))
}

/// Length of the header of a file of `size` bytes, from its first eight.
fn header_length(first: &[u8; 8], size: u64) -> Result<usize, String> {
    let length = u64::from_le_bytes(*first);
    if length > HEADER_BYTES_MAX || length > size.saturating_sub(8) {
        return Err(format!(
            "{UNUSABLE}: its header would have {length} bytes; the file has {} and \
             {HEADER_BYTES_MAX} are allowed",
            size.saturating_sub(8)
        ));
    }
    Ok(length as usize)
}

/// Bounds on the header at the beginning of `bytes`, of a file of `size`, before its JSON is
/// parsed.
fn check_header(bytes: &[u8], size: u64) -> Result<(), String> {
    let Some(first) = bytes.first_chunk::<8>() else {
        return Err(format!("{UNUSABLE}: {} bytes hold no header", bytes.len()));
    };
    let length = header_length(first, size)?;
    let header = bytes.get(8..8 + length).unwrap_or_default();
    let named = b"\"data_offsets\"";
    let tensors = header.windows(named.len()).filter(|window| window == named).count();
    match tensors <= TENSORS_MAX {
        true => Ok(()),
        false => Err(format!("{UNUSABLE}: it has {tensors} tensors; {TENSORS_MAX} are allowed")),
    }
}

/// Whether the tensors lie one after another, each as long as its shape says, in all `size` bytes
/// after the header.
fn check_ranges(metadata: &Metadata, size: u64) -> Result<(), String> {
    let mut all: Vec<(String, &TensorInfo)> = metadata.tensors().into_iter().collect();
    all.sort_by_key(|(_, info)| info.data_offsets);
    let mut end = 0;
    for (name, info) in all {
        let (from, to) = info.data_offsets;
        let numbers = info.shape.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim));
        let bits = numbers.and_then(|n| n.checked_mul(info.dtype.bitsize()));
        if from != end || bits.is_none_or(|bits| from.checked_add(bits / 8) != Some(to)) {
            return Err(format!("{UNUSABLE}: the range of {name} does not fit its shape or place"));
        }
        end = to;
    }
    match end as u64 == size {
        true => Ok(()),
        false => Err(format!("{UNUSABLE}: {size} bytes of tensors, its header tells of {end}")),
    }
}

/// Runs `f` over the numbers of a tensor, without copying them where they lie as they are to be.
///
/// # Errors
/// When the tensor cannot be read as f32.
pub(crate) fn with_numbers<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R, LmError> {
    let (storage, layout) = tensor.storage_and_layout();
    if let (Storage::Cpu(CpuStorage::F32(values)), Some((from, to))) =
        (&*storage, layout.contiguous_offsets())
    {
        return Ok(f(&values[from..to]));
    }
    drop(storage);
    Ok(f(&flat_f32(tensor)?.flatten_all()?.to_vec1::<f32>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
        Tensor::from_vec(values.to_vec(), shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn a_number_that_is_none_is_found_and_its_tensor_named() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let all = [("a", [1.0, 2.0]), ("b", [0.5, bad]), ("c", [f32::MAX, -1.0])];
            let map = all.map(|(name, values)| (name.to_owned(), tensor(&values, &[2])));
            let mut weights = Weights(BTreeMap::from(map));
            let error = weights.check_finite().unwrap_err().to_string();
            assert!(error.contains("1 of the 2 numbers of tensor b are not finite"), "{error}");
            weights.0.remove("b");
            weights.check_finite().unwrap();
        }
    }

    #[test]
    fn a_file_comes_back_and_its_bytes_are_always_the_same() {
        let names = ["b", "a"];
        let map = names.map(|n| (n.to_owned(), tensor(&[1.5, -2.25, 1e-3, 4.0], &[2, 2])));
        let weights = Weights(BTreeMap::from(map));
        let bytes = weights.to_bytes(WeightDtype::F32).unwrap();
        assert_eq!(bytes, weights.clone().to_bytes(WeightDtype::F32).unwrap());
        let back = Weights::from_bytes(&bytes).unwrap();
        assert_eq!(back.get("a").unwrap().to_vec2::<f32>().unwrap(), [[1.5, -2.25], [1e-3, 4.0]]);
        let header = String::from_utf8_lossy(&bytes[8..160]).into_owned();
        assert!(header.contains(r#""format":"pt""#), "{header}");
        assert!(header.find(r#""a""#) < header.find(r#""b""#), "{header}");
        let half = Weights::from_bytes(&weights.to_bytes(WeightDtype::F16).unwrap()).unwrap();
        let halved = half.get("b").unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(halved[0], [1.5, -2.25]);
        assert!((halved[1][0] - 1e-3).abs() < 1e-6 && halved[1][0] != 1e-3);
    }

    #[test]
    fn bombs_and_torn_files_are_refused() {
        let weights = Weights(BTreeMap::from([("a".to_owned(), tensor(&[1.0; 4], &[4]))]));
        let good = weights.to_bytes(WeightDtype::F32).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.safetensors");
        let refused = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            Weights::from_bytes(bytes).is_err() && Weights::load_file(&file).is_err()
        };
        for cut in [0, 4, 8, 20, good.len() - 1] {
            assert!(refused(&good[..cut]), "cut at {cut}");
        }
        assert!(refused(&[good.as_slice(), &[0]].concat()), "more than its header tells of");
        let mut long_header = good.clone();
        long_header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(refused(&long_header));
        let json = br#"{"a":{"dtype":"F32","shape":[4294967295,4294967295],"data_offsets":[0,4]}}"#;
        let mut bomb = (json.len() as u64).to_le_bytes().to_vec();
        bomb.extend_from_slice(json);
        bomb.extend_from_slice(&[0; 4]);
        assert!(refused(&bomb));
        std::fs::write(&file, &good).unwrap();
        assert_eq!(Weights::load_file(&file).unwrap().to_bytes(WeightDtype::F32).unwrap(), good);
    }

    #[test]
    fn a_lora_adapter_adds_scaled_b_times_a() {
        let base = Weights(BTreeMap::from([(
            "model.x.weight".to_owned(),
            tensor(&[1.0, 0.0, 0.0, 1.0, 2.0, 2.0], &[3, 2]),
        )]));
        let pair = |a: &[f32], b: &[f32]| {
            Weights(BTreeMap::from([
                ("base_model.model.model.x.lora_A.weight".to_owned(), tensor(a, &[1, 2])),
                ("base_model.model.model.x.lora_B.weight".to_owned(), tensor(b, &[3, 1])),
            ]))
        };
        let merged = base.merged(&pair(&[1.0, 2.0], &[1.0, 0.0, -1.0]), 2.0).unwrap();
        assert_eq!(
            merged.get("model.x.weight").unwrap().to_vec2::<f32>().unwrap(),
            [[3.0, 4.0], [0.0, 1.0], [0.0, -2.0]]
        );
        let mut alone = pair(&[1.0, 2.0], &[1.0, 0.0, -1.0]);
        alone.0.remove("base_model.model.model.x.lora_B.weight");
        assert!(base.merged(&alone, 1.0).is_err());
        assert!(base.merged(&Weights(BTreeMap::new()), 1.0).is_err());
    }
}
