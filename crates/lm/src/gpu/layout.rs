//! Where each parameter lies in the device's few long stretches of numbers. Matrices that are
//! multiplied with the same rows lie side by side, so that one product takes them together; whatever
//! moves lies in one stretch, so that the optimiser takes it in one go.

use crate::decoder::{Layer, Linear, Net, Parameter, ParameterId};

/// Groups begin at multiples of this: 16 bytes, in numbers of 2.
const ALIGNED: usize = 8;

/// One of the stretches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Region {
    /// Matrices that do not move.
    Matrices,
    /// Norms and biases that do not move.
    Vectors,
    /// Adapters that do not move.
    Adapters,
    /// All that moves.
    Trained,
}

/// Where a parameter lies: numbers from the beginning of its area, and how many it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub area: Region,
    pub at: usize,
    pub len: usize,
}

/// What moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trainable {
    /// Nothing.
    Nothing,
    /// Adapters.
    Adapters,
    /// Everything.
    All,
}

/// All places, and how long each area is.
pub(super) struct Layout {
    pub places: Vec<Placement>,
    lengths: [usize; 4],
}

impl Layout {
    /// Places every parameter of the network. What does not move lies where it lies in every other
    /// layout of the same network.
    pub fn new(net: &Net, parameters: &[Parameter<()>], moves: Trainable) -> Layout {
        let nowhere = Placement { area: Region::Matrices, at: 0, len: 0 };
        let mut layout = Layout { places: vec![nowhere; parameters.len()], lengths: [0; 4] };
        for group in groups(net) {
            let areas = group.iter().map(|id| area(&parameters[*id], moves));
            for area in areas {
                let length = &mut layout.lengths[area as usize];
                *length = length.next_multiple_of(ALIGNED);
            }
            for id in group {
                let (parameter, area) = (&parameters[id], area(&parameters[id], moves));
                let len = parameter.shape.iter().product();
                let at = layout.lengths[area as usize];
                layout.places[id] = Placement { area, at, len };
                layout.lengths[area as usize] += len;
            }
        }
        layout
    }

    /// Numbers of an area.
    pub fn length(&self, area: Region) -> usize {
        self.lengths[area as usize]
    }
}

fn area(parameter: &Parameter<()>, moves: Trainable) -> Region {
    match (moves, parameter.low_rank) {
        (Trainable::All, _) | (Trainable::Adapters, true) => Region::Trained,
        (_, true) => Region::Adapters,
        _ if parameter.shape.len() == 1 => Region::Vectors,
        _ => Region::Matrices,
    }
}

/// Queries, keys and values: one product.
pub(super) fn qkv(layer: &Layer) -> [&Linear; 3] {
    [&layer.q, &layer.k, &layer.v]
}

/// Gate and up: one product.
pub(super) fn gate_up(layer: &Layer) -> [&Linear; 2] {
    [&layer.gate, &layer.up]
}

/// Parameters that must lie side by side, in this order.
fn groups(net: &Net) -> Vec<Vec<ParameterId>> {
    let mut groups = vec![vec![net.embedding]];
    if net.head != net.embedding {
        groups.push(vec![net.head]);
    }
    let linears = |groups: &mut Vec<Vec<ParameterId>>, parts: &[&Linear]| {
        groups.push(parts.iter().map(|part| part.weight).collect());
        groups.push(parts.iter().filter_map(|part| part.bias).collect());
        groups.extend(parts.iter().filter_map(|part| part.adapter.map(|(a, b)| vec![a, b])));
    };
    for layer in &net.layers {
        groups.push(vec![layer.attention_norm]);
        linears(&mut groups, &qkv(layer));
        groups.extend(layer.head_norms.map(|(q, k)| vec![q, k]));
        linears(&mut groups, &[&layer.o]);
        groups.push(vec![layer.mlp_norm]);
        linears(&mut groups, &gate_up(layer));
        linears(&mut groups, &[&layer.down]);
    }
    groups.push(vec![net.norm]);
    groups
}
