//! How each kernel is started. The figures here and the constants of the same names in `cuda/` are
//! one contract: the kernels take the number of blocks as they find it, but not the number of
//! threads and bytes.

/// How a kernel is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block; above 48 KiB the function's attribute must be raised first.
    pub shared_bytes: u32,
}

/// Blocks of a kernel that leaves a partial result for each: four on every processor of the largest
/// GPUs, and few enough that adding them up costs nothing.
const PARTIALS: u32 = 512;

/// Numbers that a thread takes at a time where rows allow it.
const FEW: u32 = 4;

fn flat(blocks: u32, block: u32) -> Launch {
    Launch { grid: [blocks.max(1), 1, 1], block, shared_bytes: 0 }
}

/// Threads for a row.
fn row_block(width: u32) -> u32 {
    width.div_ceil(FEW).next_multiple_of(32).clamp(32, 512)
}

/// `items` in blocks of `each`, but no more than `most` blocks.
fn blocks(items: u64, each: u64, most: u32) -> u32 {
    u32::try_from(items.div_ceil(each)).unwrap_or(most).clamp(1, most)
}

/// `convert_f32_bf16`, `fill_f32`: any number of threads goes over all.
pub fn each_launch(n: u64) -> Launch {
    flat(blocks(n, u64::from(256 * FEW), 4096), 256)
}

/// A block for each row: `rms_norm_*`, `scale_rows_*`, `add_bias_*`, `swiglu_*` and
/// `swiglu_backward_*` (`width` is `inner`), `token_logps_backward_*` (`width` is `vocab`),
/// `gather_rows_*`, `add_rows_*` (`rows` is `targets_count`), `store_rows_*`.
pub fn rows_launch(rows: u32, width: u32) -> Launch {
    flat(rows, row_block(width))
}

/// `rms_norm_backward_*`; `partial` has `grid[0]` rows.
pub fn rms_norm_backward_launch(rows: u32, width: u32) -> Launch {
    Launch { shared_bytes: 4 * width, ..flat(rows.min(PARTIALS), row_block(width)) }
}

/// `partial_columns_*`; `partial` has `grid[0]` rows.
pub fn partial_columns_launch(rows: u32, width: u32) -> Launch {
    let grid = [blocks(u64::from(rows), 16, PARTIALS), width.div_ceil(128).max(1), 1];
    Launch { grid, block: 128, shared_bytes: 0 }
}

/// `column_sums`. Few threads a block: a row may be narrow, and each thread waits for memory.
pub fn column_sums_launch(width: u32) -> Launch {
    flat(width.div_ceil(64), 64)
}

/// Blocks of four warps, a warp for each row and head.
fn warps(rows: u32, heads: u32) -> Launch {
    flat(blocks(u64::from(rows) * u64::from(heads), 4, i32::MAX as u32), 128)
}

/// `heads_*`.
pub fn heads_launch(rows: u32, heads: u32) -> Launch {
    warps(rows, heads)
}

/// `heads_backward_*`; `partial` has `grid[0]` rows.
pub fn heads_backward_launch(rows: u32, heads: u32, dim: u32) -> Launch {
    const WARPS: u32 = 8;
    let items = u64::from(rows) * u64::from(heads);
    let blocks = blocks(items, u64::from(WARPS), PARTIALS);
    Launch { shared_bytes: 4 * WARPS * dim, ..flat(blocks, 32 * WARPS) }
}

/// Rows of a tile, of queries or of keys.
const TILE: u32 = crate::TILE_QUERIES;

/// Bytes of a number.
fn bytes(bf16: bool) -> u32 {
    if bf16 { 2 } else { 4 }
}

/// The width that a head of `dim` numbers is padded to: those of `EACH_WIDTH` in `cuda/tiles.cuh`.
#[allow(clippy::panic, reason = "a model with wider heads is refused before any launch")]
fn padded(dim: u32, bf16: bool) -> u32 {
    let widths = [32, 64, if bf16 { 96 } else { 128 }, 128, 256];
    let Some(width) = widths.into_iter().find(|width| *width >= dim) else {
        panic!("heads of {dim} numbers: the attention kernels go up to 256")
    };
    width
}

/// The kernel `what` (`attention`, `attention_backward_q`, `attention_backward_kv`) for heads of `dim`
/// numbers: each width that heads are padded to has its own, `attention_bf16_64`.
///
/// # Panics
/// Where a head is wider than 256.
pub fn attention_kernel(what: &str, dim: u32, bf16: bool) -> String {
    format!("{what}_{}_{}", if bf16 { "bf16" } else { "f32" }, padded(dim, bf16))
}

/// Bytes of `rows` rows of `width` numbers in shared memory: 16 bytes more each, so that the same
/// place of consecutive rows lies in different banks.
fn rows_bytes(rows: u32, width: u32, bf16: bool) -> u32 {
    rows * (width * bytes(bf16) + 16)
}

/// `attention_*_WIDTH`: the tiles' number, key heads, parts (1 writes `y`, more write `part_y`), width of
/// a head.
///
/// # Panics
/// Where a head is wider than 256.
pub fn attention_launch(tiles: u32, key_heads: u32, parts: u32, dim: u32, bf16: bool) -> Launch {
    let (width, keys) = (padded(dim, bf16), if bf16 { 64 } else { 32 });
    let scores = 4 * TILE * (keys + 8);
    let weights = if bf16 { rows_bytes(TILE, keys, true) } else { 0 };
    let queries = rows_bytes(TILE, width, bf16);
    let shared_bytes = queries + 2 * rows_bytes(keys, width, bf16) + scores + weights + 4 * TILE;
    Launch { grid: [tiles.max(1), key_heads, parts], block: 128, shared_bytes }
}

/// Keys, or queries, that the backward kernels take at a time.
fn step(width: u32, bf16: bool) -> u32 {
    match (bf16, width) {
        (true, _) => 64,
        (false, 256) => 8,
        (false, _) => 32,
    }
}

/// `attention_join_*`.
pub fn attention_join_launch(rows: u32, heads: u32) -> Launch {
    warps(rows, heads)
}

/// `attention_delta_*`.
pub fn attention_delta_launch(rows: u32, heads: u32) -> Launch {
    warps(rows, heads)
}

/// Bytes of slopes [64, step] of scores.
fn slopes_bytes(step: u32, bf16: bool) -> u32 {
    TILE * bytes(bf16) * (step + 8)
}

/// `attention_backward_q_*_WIDTH`.
///
/// # Panics
/// Where a head is wider than 256.
pub fn attention_backward_q_launch(tiles: u32, key_heads: u32, dim: u32, bf16: bool) -> Launch {
    let width = padded(dim, bf16);
    let step = step(width, bf16);
    let rows = 2 * rows_bytes(TILE, width, bf16) + 2 * rows_bytes(step, width, bf16);
    let shared_bytes = rows + slopes_bytes(step, bf16) + 3 * 4 * TILE;
    Launch { grid: [tiles.max(1), key_heads, 1], block: 128, shared_bytes }
}

/// `attention_backward_kv_*_WIDTH`.
///
/// # Panics
/// Where a head is wider than 256.
pub fn attention_backward_kv_launch(
    key_tiles: u32,
    key_heads: u32,
    dim: u32,
    bf16: bool,
) -> Launch {
    let width = padded(dim, bf16);
    let step = step(width, bf16);
    let rows = 2 * rows_bytes(TILE, width, bf16) + 2 * rows_bytes(step, width, bf16);
    let shared_bytes = rows + 2 * slopes_bytes(step, bf16) + 3 * 4 * step;
    Launch { grid: [key_tiles.max(1), key_heads, 1], block: 128, shared_bytes }
}

/// `token_logps`.
pub fn token_logps_launch(rows: u32) -> Launch {
    flat(rows, 512)
}

/// `square_sums`; `partial` has `grid[0]` numbers.
pub fn square_sums_launch(n: u64) -> Launch {
    flat(blocks(n, 4096, PARTIALS), 256)
}

/// `adamw_*`, `adamw_check`; `most` and `flags` have `grid[0]` numbers.
pub fn adamw_launch(n: u64) -> Launch {
    flat(blocks(n, u64::from(256 * FEW), 2048), 256)
}

/// `choose`.
pub fn choose_launch(rows: u32) -> Launch {
    flat(rows, 512)
}
