//! The tensors of a checkpoint folder, under the names they have there: safetensors through a memory map, in one file or
//! in shards; PyTorch's pickle only where there is nothing else. Believes no offset, size or file name unchecked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Component, Path, PathBuf},
};

use candle_core::{DType, Device, Tensor, pickle::PthTensors};
use memmap2::Mmap;
use safetensors::{
    Dtype, SafeTensors,
    tensor::{Metadata, TensorInfo},
};

use crate::{Error, Result};

/// An open checkpoint.
pub(crate) struct Weights {
    /// The file that a message about the whole should name.
    pub(crate) path: PathBuf,
    files: Files,
}

/// A tensor that is there; its values are read only when asked for.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    file: usize,
}

enum Files {
    Mapped(Vec<Mapped>),
    Pickle(PthTensors),
}

struct Mapped {
    path: PathBuf,
    map: Mmap,
    data_start: usize,
    metadata: Metadata,
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Index {
    fn shards(&self) -> BTreeSet<&String> {
        self.weight_map.values().collect()
    }
}

const WHOLE: &str = "model.safetensors";
/// Of weights in shards: which tensor is in which file.
pub const WEIGHTS_INDEX: &str = "model.safetensors.index.json";
const PICKLE: &str = "pytorch_model.bin";

/// Whether a folder holds weights in any of the forms that are read.
pub fn has_weights(dir: &Path) -> bool {
    form(dir).is_some()
}

/// What transformers would open: the single file, else the shards, else the pickle.
fn form(dir: &Path) -> Option<&'static str> {
    [WHOLE, WEIGHTS_INDEX, PICKLE].into_iter().find(|name| dir.join(name).exists())
}

/// The names of the files that the weights of a folder are read from; of shards the index first.
///
/// # Errors
/// [`Error::NoWeights`]; of shards those of [`shard_names`].
pub fn weight_files(dir: &Path) -> Result<Vec<String>> {
    let form = form(dir).ok_or_else(|| Error::NoWeights { dir: dir.into() })?;
    let mut names = vec![form.to_string()];
    if form == WEIGHTS_INDEX {
        names.extend(shard_names(&dir.join(form))?);
    }
    Ok(names)
}

/// The files that an index says the tensors are in, in the order of their names. They may have any name.
///
/// # Errors
/// [`Error::Read`] and [`Error::Json`] of the index; [`Error::ShardName`] where one would lead out of its folder.
pub fn shard_names(index_path: &Path) -> Result<Vec<String>> {
    Ok(read_index(index_path)?.shards().into_iter().cloned().collect())
}

impl Weights {
    /// Opens the best form there is.
    pub(crate) fn open(dir: &Path) -> Result<Weights> {
        let form = form(dir).ok_or_else(|| Error::NoWeights { dir: dir.into() })?;
        let path = dir.join(form);
        let files = match form {
            WHOLE => return Weights::open_file(&path),
            WEIGHTS_INDEX => Files::Mapped(open_shards(dir, &path)?),
            _ => Files::Pickle(open_pickle(&path)?),
        };
        Ok(Weights { path, files })
    }

    /// Opens one safetensors file.
    pub(crate) fn open_file(path: &Path) -> Result<Weights> {
        Ok(Weights { path: path.into(), files: Files::Mapped(vec![Mapped::open(path)?]) })
    }

    /// All tensors, in name order within a file.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = match &self.files {
            Files::Mapped(files) => {
                files.iter().enumerate().flat_map(|(i, f)| f.entries(i)).collect()
            }
            Files::Pickle(file) => {
                let infos = file.tensor_infos().values();
                let entry = |name: &String, shape: &[usize]| Entry {
                    name: name.clone(),
                    shape: shape.into(),
                    file: 0,
                };
                infos.map(|info| entry(&info.name, info.layout.dims())).collect()
            }
        };
        entries.sort_by(|a, b| (a.file, &a.name).cmp(&(b.file, &b.name)));
        entries
    }

    /// The values in f32. Straight out of the map where they are that: a tensor on the way would be one more copy of a table of
    /// words.
    pub(crate) fn read(&self, entry: &Entry) -> Result<Vec<f32>> {
        let tensor = match &self.files {
            Files::Mapped(files) => {
                let (bytes, info) = files[entry.file].find(&entry.name)?;
                if info.dtype == Dtype::F32 {
                    return Ok(bytes
                        .as_chunks()
                        .0
                        .iter()
                        .map(|b| f32::from_le_bytes(*b))
                        .collect());
                }
                let dtype = DType::try_from(info.dtype);
                let not_float = |_| not_float(&self.path, &entry.name, info.dtype.to_string());
                Tensor::from_raw_buffer(
                    bytes,
                    dtype.map_err(not_float)?,
                    &info.shape,
                    &Device::Cpu,
                )?
            }
            Files::Pickle(file) => {
                let found = file.get(&entry.name).map_err(|e| pickle_error(&self.path, &e))?;
                let lost = || pickle_error(&self.path, &format!("{} is gone", entry.name));
                found.ok_or_else(lost)?
            }
        };
        match tensor.dtype() {
            DType::F32 | DType::F16 | DType::BF16 | DType::F64 => {
                Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
            }
            other => Err(not_float(&self.path, &entry.name, format!("{other:?}"))),
        }
    }
}

impl Mapped {
    #[expect(unsafe_code, reason = "a memory map of a checkpoint")]
    fn open(path: &Path) -> Result<Mapped> {
        let read_error = |source| Error::Read { path: path.into(), source };
        let file = File::open(path).map_err(read_error)?;
        // SAFETY: the bytes are only read, as plain numbers for which each pattern is valid, and are copied out before the
        // map goes. Files are replaced by rename here, never written in place; another program that cuts this one short
        // while it is being read would end the process, as it would for any reader of a map.
        let map = unsafe { Mmap::map(&file) }.map_err(read_error)?;
        let sound = SafeTensors::read_metadata(&map);
        let (header, metadata) =
            sound.map_err(|source| Error::Safetensors { path: path.into(), source })?;
        Ok(Mapped { path: path.into(), map, data_start: header + 8, metadata })
    }

    fn entries(&self, file: usize) -> Vec<Entry> {
        let infos = self.metadata.tensors().into_iter();
        infos.map(|(name, info)| Entry { name, shape: info.shape.clone(), file }).collect()
    }

    fn find(&self, name: &str) -> Result<(&[u8], &TensorInfo)> {
        let unsound = |source| Error::Safetensors { path: self.path.clone(), source };
        let lost = || safetensors::SafeTensorError::TensorNotFound(name.into());
        let info = self.metadata.info(name).ok_or_else(lost).map_err(unsound)?;
        let (start, end) =
            (info.data_offsets.0 + self.data_start, info.data_offsets.1 + self.data_start);
        let bytes = self.map.get(start..end).ok_or_else(lost).map_err(unsound)?;
        Ok((bytes, info))
    }
}

/// An index whose shards all lie in its folder.
fn read_index(path: &Path) -> Result<Index> {
    let text = fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
    let index: Index = serde_json::from_slice(&text)
        .map_err(|source| Error::Json { path: path.into(), source })?;
    if let Some(shard) = index.shards().into_iter().find(|shard| !is_plain_file_name(shard)) {
        return Err(Error::ShardName { path: path.into(), shard: shard.clone() });
    }
    Ok(index)
}

fn open_shards(dir: &Path, index_path: &Path) -> Result<Vec<Mapped>> {
    let index = read_index(index_path)?;
    let open = |shard: &String| Ok((shard.clone(), Mapped::open(&dir.join(shard))?));
    let files =
        index.shards().into_iter().map(open).collect::<Result<BTreeMap<String, Mapped>>>()?;
    for (tensor, shard) in &index.weight_map {
        if files.get(shard).is_none_or(|file| file.metadata.info(tensor).is_none()) {
            let (path, tensor, shard) = (index_path.into(), tensor.clone(), shard.clone());
            return Err(Error::ShardContent { path, tensor, shard });
        }
    }
    Ok(files.into_values().collect())
}

/// Whether a name from a file stays in its folder.
fn is_plain_file_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let one_part = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    one_part && !name.contains(['/', '\\', '\0'])
}

fn open_pickle(path: &Path) -> Result<PthTensors> {
    let file_size =
        fs::metadata(path).map_err(|source| Error::Read { path: path.into(), source })?.len();
    // candle takes arguments out of the file's tuples without asking how long they are.
    let opened = std::panic::catch_unwind(|| PthTensors::new(path, None));
    let opened = opened.map_err(|_| pickle_error(path, &"a tensor in it is described wrongly"))?;
    let tensors = opened.map_err(|e| pickle_error(path, &e))?;
    for (name, info) in tensors.tensor_infos() {
        let n_bytes = (info.layout.dims().iter())
            .try_fold(info.dtype.size_in_bytes(), |n, &dim| n.checked_mul(dim));
        // A stored archive: no tensor is larger than its file. Without this a lying shape would allocate without end.
        if n_bytes.is_none_or(|n| n as u64 > file_size) {
            return Err(pickle_error(
                path,
                &format!("{name} says that it is larger than the file"),
            ));
        }
        // candle skips that many bytes where it should skip that many numbers.
        if info.layout.start_offset() != 0 {
            return Err(pickle_error(
                path,
                &format!("{name} starts within another tensor's storage"),
            ));
        }
    }
    Ok(tensors)
}

fn pickle_error(path: &Path, reason: &dyn std::fmt::Display) -> Error {
    Error::Pickle { path: path.into(), reason: reason.to_string() }
}

fn not_float(path: &Path, name: &str, dtype: String) -> Error {
    Error::Dtype { path: path.into(), name: name.into(), dtype }
}
