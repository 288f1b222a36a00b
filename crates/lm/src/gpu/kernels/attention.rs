//! Attention over lists of keys, and its way back.

use super::launch::{at, f, n, needs, or_null, reaches, start};
use crate::error::LmError;
use crate::gpu::buffer::{DeviceBuffer, Scratch};
use crate::gpu::driver::ElementType;
use crate::ops::AttentionShape;
use gradus_kernels as shapes;

/// Queries, keys and values as attention reads them: rows `stride` apart.
pub(in crate::gpu) struct AttentionInputs<'a> {
    pub heads: AttentionShape,
    pub q: &'a DeviceBuffer,
    pub q_stride: usize,
    pub k: &'a DeviceBuffer,
    pub v: &'a DeviceBuffer,
    pub kv_stride: usize,
}

impl AttentionInputs<'_> {
    fn sizes(&self) -> [u64; 4] {
        let heads = self.heads;
        let scale = 1.0 / (heads.dim as f32).sqrt();
        [n(heads.queries), n(heads.keys), n(heads.dim), f(scale)]
    }

    fn check(&self, rows: usize, key_rows: usize) {
        reaches(self.q, rows, self.heads.query_width(), self.q_stride);
        reaches(self.k, key_rows, self.heads.key_width(), self.kv_stride);
        reaches(self.v, key_rows, self.heads.key_width(), self.kv_stride);
        let kind = self.q.kind();
        assert!(self.k.kind() == kind && self.v.kind() == kind, "attention over different kinds");
    }

    fn is_bf16(&self) -> bool {
        self.q.kind() == ElementType::Bf16
    }

    /// The name of the kernel for heads so wide.
    fn kernel(&self, what: &str) -> String {
        shapes::attention_kernel(what, self.heads.dim as u32, self.is_bf16())
    }
}

/// Query rows in tiles, and what each tile sees. `rows` and `key_rows` bound the row numbers in it;
/// whoever makes it keeps to them.
pub(in crate::gpu) struct QueryTiles {
    /// Four words each: first row, rows, where its keys begin, how many the first row sees.
    pub tiles: DeviceBuffer,
    pub keys: DeviceBuffer,
    pub count: usize,
    /// Rows of queries.
    pub rows: usize,
    /// Rows that keys lie in.
    pub key_rows: usize,
    /// The most keys that a row sees.
    pub seen_max: usize,
}

/// Attention to `y` [rows, heads * D]; `totals` [rows, heads] keeps what the backward pass needs.
/// `space` holds the parts that a few rows with many keys are computed in.
pub(in crate::gpu) fn attention(
    seen: &AttentionInputs<'_>,
    tiles: &QueryTiles,
    (y, totals): (&DeviceBuffer, Option<&DeviceBuffer>),
    space: &mut Scratch,
) -> Result<(), LmError> {
    let heads = seen.heads;
    let (rows, gpu) = (tiles.rows, y.gpu());
    seen.check(rows, tiles.key_rows);
    needs(&tiles.tiles, ElementType::U32, 4 * tiles.count);
    needs(y, seen.q.kind(), rows * heads.query_width());
    if let Some(totals) = totals {
        needs(totals, ElementType::F32, rows * heads.queries);
    }
    let parts = parts_of(tiles, heads);
    let sums = rows * heads.query_width();
    let space = match parts {
        1 => None,
        _ => Some(space.get(gpu, ElementType::F32, parts * (sums + rows * heads.queries))?),
    };
    let split = space.as_ref().map(|space| (space.part(0, parts * sums), space.from(parts * sums)));
    let [queries, keys, dim, scale] = seen.sizes();
    let args = [
        at(seen.q),
        n(seen.q_stride),
        at(seen.k),
        at(seen.v),
        n(seen.kv_stride),
        at(&tiles.tiles),
        at(&tiles.keys),
        at(y),
        n(heads.query_width()),
        or_null(totals),
        or_null(split.as_ref().map(|s| &s.0)),
        or_null(split.as_ref().map(|s| &s.1)),
        queries,
        keys,
        dim,
        scale,
        n(rows),
    ];
    let launch = shapes::attention_launch(
        tiles.count as u32,
        heads.keys as u32,
        parts as u32,
        heads.dim as u32,
        seen.is_bf16(),
    );
    start(gpu, &seen.kernel("attention"), launch, &args)?;
    let Some((part_y, part_totals)) = split else { return Ok(()) };
    let args = [
        at(&part_y),
        at(&part_totals),
        n(parts),
        at(y),
        n(heads.query_width()),
        or_null(totals),
        n(rows),
        queries,
        dim,
    ];
    let launch = shapes::attention_join_launch(rows as u32, heads.queries as u32);
    start(gpu, &format!("attention_join_{}", y.kind().name()), launch, &args)
}

/// Multiprocessors that a launch should keep busy. An H100 or H200 has 132; a smaller GPU is kept
/// busy by as many blocks as well.
const MULTIPROCESSORS: usize = 132;

/// Keys below which a part is not worth its joining.
const PART_KEYS_MIN: usize = 128;

/// Parts that keys are cut into, so that a few rows keep the whole device busy.
fn parts_of(tiles: &QueryTiles, heads: AttentionShape) -> usize {
    let wanted = (2 * MULTIPROCESSORS).div_ceil((tiles.count * heads.keys).max(1));
    wanted.min(tiles.seen_max / PART_KEYS_MIN).clamp(1, 32)
}

/// What the backward pass of attention is given: y [rows, heads * D], its gradient, the totals.
pub(in crate::gpu) struct AttentionGradients<'a> {
    pub y: &'a DeviceBuffer,
    pub dy: &'a DeviceBuffer,
    pub totals: &'a DeviceBuffer,
    /// Room for a number per row and head.
    pub delta: &'a DeviceBuffer,
}

/// Key rows in tiles of four words: first row, rows, the first query row that does not see them.
pub(in crate::gpu) struct KeyTiles {
    pub tiles: DeviceBuffer,
    pub count: usize,
}

/// Gradients of queries, keys and values, which lie as those do in `seen`.
pub(in crate::gpu) fn attention_backward(
    seen: &AttentionInputs<'_>,
    (tiles, key_tiles): (&QueryTiles, &KeyTiles),
    mixed: &AttentionGradients<'_>,
    (dq, dk, dv): (&DeviceBuffer, &DeviceBuffer, &DeviceBuffer),
) -> Result<(), LmError> {
    let heads = seen.heads;
    let (rows, gpu, kind) = (tiles.rows, dq.gpu(), seen.q.kind());
    let width = heads.query_width();
    seen.check(rows, tiles.key_rows);
    needs(mixed.y, kind, rows * width);
    needs(mixed.dy, kind, rows * width);
    needs(mixed.totals, ElementType::F32, rows * heads.queries);
    needs(mixed.delta, ElementType::F32, rows * heads.queries);
    reaches(dq, rows, width, seen.q_stride);
    reaches(dk, tiles.key_rows, heads.key_width(), seen.kv_stride);
    reaches(dv, tiles.key_rows, heads.key_width(), seen.kv_stride);
    let [queries, keys, dim, scale] = seen.sizes();
    let args = [at(mixed.y), at(mixed.dy), n(width), at(mixed.delta), n(rows), queries, dim];
    let launch = shapes::attention_delta_launch(rows as u32, heads.queries as u32);
    start(gpu, &format!("attention_delta_{}", kind.name()), launch, &args)?;
    let read = [at(seen.q), n(seen.q_stride), at(seen.k), at(seen.v), n(seen.kv_stride)];
    let given = [at(mixed.dy), n(width), at(mixed.totals), at(mixed.delta)];
    let sizes = [queries, keys, dim, scale];
    let args = [
        &read[..],
        &[at(&tiles.tiles), at(&tiles.keys)],
        &given,
        &[at(dq), n(seen.q_stride)],
        &sizes,
    ]
    .concat();
    let (key_heads, width, is_bf16) = (heads.keys as u32, heads.dim as u32, seen.is_bf16());
    let launch = shapes::attention_backward_q_launch(tiles.count as u32, key_heads, width, is_bf16);
    start(gpu, &seen.kernel("attention_backward_q"), launch, &args)?;
    let args =
        [&read[..], &[at(&key_tiles.tiles)], &given, &[at(dk), at(dv), n(seen.kv_stride)], &sizes]
            .concat();
    let launch =
        shapes::attention_backward_kv_launch(key_tiles.count as u32, key_heads, width, is_bf16);
    start(gpu, &seen.kernel("attention_backward_kv"), launch, &args)
}
