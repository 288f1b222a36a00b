//! Weights on a device: those that are shared and never move, adapters over them, and those that
//! move with their gradients and moments.

use super::buffer::DeviceBuffer;
use super::context::Gpu;
use super::driver::ElementType;
use super::layout::{Layout, Region, Trainable};
use crate::config::ModelConfig;
use crate::decoder::{Net, NetBuilder, Parameter, ParameterId};
use crate::error::LmError;
use crate::lora::Lora;
use crate::tensors::TensorSpec;
use crate::weights::{Weights, read, with_numbers};
use half::bf16;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Weights that no one moves: one copy for the policy that draws, the one that judges, the
/// reference, and the trainer of an adapter.
pub struct Base {
    matrices: DeviceBuffer,
    vectors: DeviceBuffer,
}

/// Adapters, and whether they move.
pub(crate) struct AdapterUse<'a> {
    pub lora: &'a Lora,
    pub moves: Trainable,
}

/// What moves.
pub(super) struct TrainedBuffers {
    /// Master weights, f32.
    pub x: DeviceBuffer,
    /// Their gradients, f32.
    pub g: DeviceBuffer,
    /// Moments, f32, once a step was taken.
    pub moments: Option<(DeviceBuffer, DeviceBuffer)>,
    /// What products read, where that is not the master weights.
    pub work: Option<DeviceBuffer>,
}

/// A network's parameters on a device.
pub(crate) struct WeightStore {
    pub(super) gpu: Gpu,
    pub(super) config: ModelConfig,
    pub(super) net: Net,
    pub(super) parameters: Vec<Parameter<()>>,
    pub(super) scale: f32,
    layout: Layout,
    base: Option<Arc<Base>>,
    adapters: Option<DeviceBuffer>,
    pub(super) moving: Option<TrainedBuffers>,
}

/// Writes numbers to a stretch of either kind.
fn write(to: &DeviceBuffer, values: &[f32]) -> Result<(), LmError> {
    match to.kind() {
        ElementType::Bf16 => {
            to.write(&values.iter().map(|v| bf16::from_f32(*v)).collect::<Vec<bf16>>())
        }
        _ => to.write(values),
    }
}

fn made_up_std(config: &ModelConfig) -> f32 {
    (config.hidden_size as f32).powf(-0.5)
}

fn network(
    config: &ModelConfig,
    lora: Option<&Lora>,
) -> Result<(Net, Vec<Parameter<()>>), LmError> {
    config.validate()?;
    let mut take = |_: &TensorSpec| Ok(());
    let mut builder = NetBuilder::new(config, lora, &mut take, |_| Ok(()));
    Ok((builder.net()?, builder.parameters))
}

impl Base {
    /// Room for the weights of a network of this shape, all 0.
    fn empty(gpu: &Gpu, layout: &Layout) -> Result<Base, LmError> {
        Ok(Base {
            matrices: DeviceBuffer::zeros(gpu, gpu.work(), layout.length(Region::Matrices))?,
            vectors: DeviceBuffer::zeros(gpu, ElementType::F32, layout.length(Region::Vectors))?,
        })
    }

    /// Weights (Hugging Face names), copied to the device.
    ///
    /// # Errors
    /// A tensor is missing or has the wrong shape; [`LmError::DeviceMemory`].
    pub fn new(gpu: &Gpu, config: &ModelConfig, weights: Weights) -> Result<Arc<Base>, LmError> {
        let (net, parameters) = network(config, None)?;
        let layout = Layout::new(&net, &parameters, Trainable::Nothing);
        let base = Base::empty(gpu, &layout)?;
        let weights = weights.into_var_builder();
        for (parameter, place) in parameters.iter().zip(&layout.places) {
            let tensor = read(&weights, &parameter.name, &parameter.shape)?;
            let to = match place.area {
                Region::Vectors => &base.vectors,
                _ => &base.matrices,
            };
            with_numbers(&tensor, |values| write(&to.part(place.at, place.len), values))??;
        }
        Ok(Arc::new(base))
    }

    /// Weights of this shape, made up on the device: normal with deviation H^-0.5, norms 1. For
    /// benchmarks of shapes whose weights are not at hand.
    ///
    /// # Errors
    /// [`LmError::DeviceMemory`], or what the device says.
    pub fn made_up(gpu: &Gpu, config: &ModelConfig) -> Result<Arc<Base>, LmError> {
        let (net, parameters) = network(config, None)?;
        let base = Base::empty(gpu, &Layout::new(&net, &parameters, Trainable::Nothing))?;
        super::kernels::fill(&base.vectors, 1.0)?;
        base.matrices.make_up(made_up_std(config))?;
        Ok(Arc::new(base))
    }
}

impl WeightStore {
    /// Weights that are read, and an adapter over them that is read or moves.
    ///
    /// # Errors
    /// An adapter that does not fit; [`LmError::DeviceMemory`].
    pub fn over(
        gpu: &Gpu,
        config: &ModelConfig,
        base: Arc<Base>,
        adapters: Option<&AdapterUse<'_>>,
    ) -> Result<WeightStore, LmError> {
        let (net, parameters) = network(config, adapters.map(|a| a.lora))?;
        let moves = adapters.map_or(Trainable::Nothing, |a| a.moves);
        let mut store = WeightStore::allocated(gpu, config, (net, parameters), moves)?;
        store.base = Some(base);
        if let Some(adapters) = adapters {
            store.scale = adapters.lora.scale() as f32;
            for (id, parameter) in store.parameters.iter().enumerate().filter(|(_, p)| p.low_rank) {
                let tensor = adapters.lora.tensor(&parameter.name)?;
                with_numbers(tensor, |values| store.fill(id, values))??;
            }
        }
        Ok(store)
    }

    /// Weights that all move.
    ///
    /// # Errors
    /// As [`Base::new`].
    pub fn moving(
        gpu: &Gpu,
        config: &ModelConfig,
        weights: Weights,
    ) -> Result<WeightStore, LmError> {
        let store = WeightStore::allocated(gpu, config, network(config, None)?, Trainable::All)?;
        let weights = weights.into_var_builder();
        for (id, parameter) in store.parameters.iter().enumerate() {
            let tensor = read(&weights, &parameter.name, &parameter.shape)?;
            with_numbers(&tensor, |values| store.fill(id, values))??;
        }
        Ok(store)
    }

    /// As [`Base::made_up`], of weights that all move.
    ///
    /// # Errors
    /// As [`Base::made_up`].
    pub fn moving_made_up(gpu: &Gpu, config: &ModelConfig) -> Result<WeightStore, LmError> {
        let store = WeightStore::allocated(gpu, config, network(config, None)?, Trainable::All)?;
        if let Some(moving) = &store.moving {
            moving.x.make_up(made_up_std(config))?;
        }
        for (id, _) in store.parameters.iter().enumerate().filter(|(_, p)| p.shape.len() == 1) {
            store.fill(id, &vec![1.0; store.layout.places[id].len])?;
        }
        store.refresh()?;
        Ok(store)
    }

    fn allocated(
        gpu: &Gpu,
        config: &ModelConfig,
        (net, parameters): (Net, Vec<Parameter<()>>),
        moves: Trainable,
    ) -> Result<WeightStore, LmError> {
        let layout = Layout::new(&net, &parameters, moves);
        let zeros = |kind: ElementType, len: usize| DeviceBuffer::zeros(gpu, kind, len);
        let (len, work) = (layout.length(Region::Trained), gpu.work());
        let moving = match len {
            0 => None,
            len => Some(TrainedBuffers {
                x: zeros(ElementType::F32, len)?,
                g: zeros(ElementType::F32, len)?,
                moments: None,
                work: (work != ElementType::F32).then(|| zeros(work, len)).transpose()?,
            }),
        };
        let adapters = match layout.length(Region::Adapters) {
            0 => None,
            len => Some(zeros(work, len)?),
        };
        Ok(WeightStore {
            gpu: gpu.clone(),
            config: config.clone(),
            net,
            parameters,
            scale: 1.0,
            layout,
            base: None,
            adapters,
            moving,
        })
    }

    /// Writes a parameter that is this store's own.
    fn fill(&self, id: ParameterId, values: &[f32]) -> Result<(), LmError> {
        let place = self.layout.places[id];
        let part = |buffer: &DeviceBuffer| write(&buffer.part(place.at, place.len), values);
        match (place.area, &self.moving, &self.adapters) {
            (Region::Trained, Some(moving), _) => {
                part(&moving.x)?;
                moving.work.as_ref().map_or(Ok(()), part)
            }
            (Region::Adapters, _, Some(adapters)) => part(adapters),
            _ => Ok(()),
        }
    }

    /// What products read becomes what the master weights are.
    pub(super) fn refresh(&self) -> Result<(), LmError> {
        match &self.moving {
            Some(TrainedBuffers { x, work: Some(work), .. }) => super::kernels::narrowed(x, work),
            _ => Ok(()),
        }
    }

    /// `x` [T, H] f32 becomes the rows of the embedding for these ids, which were checked.
    pub(super) fn embed(&self, ids: &DeviceBuffer, x: &DeviceBuffer) -> Result<(), LmError> {
        let table = self.matrix(self.net.embedding, self.len(self.net.embedding))?;
        super::kernels::gather_rows(&table, ids, x, self.config.hidden_size)
    }

    /// `len` numbers from the beginning of a matrix: its own, and those beside it.
    pub(super) fn matrix(&self, id: ParameterId, len: usize) -> Result<DeviceBuffer, LmError> {
        let place = self.layout.places[id];
        let area = match place.area {
            Region::Trained => self.moving.as_ref().map(|m| m.work.as_ref().unwrap_or(&m.x)),
            Region::Adapters => self.adapters.as_ref(),
            _ => self.base.as_ref().map(|base| &base.matrices),
        };
        self.found(id, area.map(|area| area.part(place.at, len)))
    }

    /// As [`WeightStore::matrix`], of a norm or bias, f32.
    pub(super) fn vector(&self, id: ParameterId, len: usize) -> Result<DeviceBuffer, LmError> {
        let place = self.layout.places[id];
        let area = match place.area {
            Region::Trained => self.moving.as_ref().map(|m| &m.x),
            _ => self.base.as_ref().map(|base| &base.vectors),
        };
        self.found(id, area.map(|area| area.part(place.at, len)))
    }

    fn found(
        &self,
        id: ParameterId,
        buffer: Option<DeviceBuffer>,
    ) -> Result<DeviceBuffer, LmError> {
        buffer.ok_or_else(|| {
            let name = &self.parameters[id].name;
            LmError::Training(format!("{name} was asked for before there were weights"))
        })
    }

    /// Where the gradient of a parameter and of those beside it is added up, where it moves.
    pub(super) fn gradient(&self, id: ParameterId, len: usize) -> Option<DeviceBuffer> {
        let place = self.layout.places[id];
        let moving = self.moving.as_ref().filter(|_| place.area == Region::Trained)?;
        Some(moving.g.part(place.at, len))
    }

    /// Numbers of a parameter.
    pub(super) fn len(&self, id: ParameterId) -> usize {
        self.layout.places[id].len
    }

    /// Named parts of a stretch that lies as what moves does.
    pub(super) fn named(
        &self,
        moving: &DeviceBuffer,
    ) -> Result<BTreeMap<String, Vec<f32>>, LmError> {
        let places = self.parameters.iter().zip(&self.layout.places);
        let own = places.filter(|(_, place)| place.area == Region::Trained);
        own.map(|(p, place)| Ok((p.name.clone(), moving.part(place.at, place.len).read()?)))
            .collect()
    }

    /// Writes named parts of a stretch that lies as what moves does; every part must be there.
    ///
    /// # Errors
    /// [`LmError::Training`] naming what is missing or has another length.
    pub(super) fn write_named(
        &self,
        moving: &DeviceBuffer,
        part: impl Fn(&str) -> Option<Vec<f32>>,
    ) -> Result<(), LmError> {
        let places = self.parameters.iter().zip(&self.layout.places);
        for (parameter, place) in places.filter(|(_, place)| place.area == Region::Trained) {
            let name = &parameter.name;
            let values = part(name).filter(|values| values.len() == place.len);
            let values = values.ok_or_else(|| {
                LmError::Training(format!("optimiser state: {name} is missing or does not fit"))
            })?;
            moving.part(place.at, place.len).write(&values)?;
        }
        Ok(())
    }

    /// Numbers of a parameter, on the host.
    pub(super) fn value(&self, id: ParameterId) -> Result<Vec<f32>, LmError> {
        let place = self.layout.places[id];
        let buffer = match (place.area, &self.moving) {
            (Region::Trained, Some(moving)) => moving.x.part(place.at, place.len),
            (Region::Vectors, _) => self.vector(id, place.len)?,
            _ => self.matrix(id, place.len)?,
        };
        match buffer.kind() {
            ElementType::Bf16 => Ok(buffer.read::<bf16>()?.into_iter().map(bf16::to_f32).collect()),
            _ => buffer.read(),
        }
    }
}
