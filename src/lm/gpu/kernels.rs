//! Every kernel and product, called with numbers instead of addresses: who may be given what, and
//! how long it must be. A kernel that is given too little would read or write somebody else's
//! memory, so that is checked here, always; it is a mistake of ours and panics.
//!
//! What each computes is said in `crates/kernels`; shapes are those of [`super`].

use super::numbers::{Numbers, Room};
use super::{Driver, Gpu, Kind};
use crate::lm::error::LmError;
use crate::lm::ops::Heads;
use crate::lm::optimizer::StepNumbers;
use gradus_kernels as shapes;
pub(super) use gradus_kernels::Launch;

/// One side of a product.
pub(super) struct Side {
    /// Row-major, as it lies.
    pub numbers: Numbers,
    /// Numbers from one row to the next.
    pub stride: usize,
    /// It is used transposed.
    pub transposed: bool,
}

impl Side {
    /// As it lies.
    pub fn plain(numbers: &Numbers, stride: usize) -> Side {
        Side { numbers: numbers.clone(), stride, transposed: false }
    }

    /// Transposed.
    pub fn turned(numbers: &Numbers, stride: usize) -> Side {
        Side { numbers: numbers.clone(), stride, transposed: true }
    }

    fn check(&self, rows: usize, columns: usize) {
        let (rows, columns) = if self.transposed { (columns, rows) } else { (rows, columns) };
        reaches(&self.numbers, rows, columns, self.stride);
    }
}

/// `c` [rows, columns] = scale a [rows, inner] b [inner, columns], or that added to it.
pub(super) struct Product<'a> {
    pub a: Side,
    pub b: Side,
    pub c: &'a Numbers,
    pub c_stride: usize,
    pub rows: usize,
    pub columns: usize,
    pub inner: usize,
    pub add: bool,
    pub scale: f32,
}

/// A strided matrix must end within its numbers.
fn reaches(numbers: &Numbers, rows: usize, columns: usize, stride: usize) {
    let end = rows.saturating_sub(1) * stride + columns;
    assert!(
        columns <= stride && end <= numbers.len(),
        "{rows} rows of {columns}, {stride} apart, are not in {} numbers",
        numbers.len()
    );
}

fn needs(numbers: &Numbers, kind: Kind, len: usize) {
    assert!(
        numbers.kind() == kind && numbers.len() >= len,
        "{} numbers of {:?} where {len} of {kind:?} are needed",
        numbers.len(),
        numbers.kind()
    );
}

fn at(numbers: &Numbers) -> u64 {
    numbers.address()
}

fn or_null(numbers: Option<&Numbers>) -> u64 {
    numbers.map_or(0, Numbers::address)
}

fn n(count: usize) -> u64 {
    count as u32 as u64
}

fn f(value: f32) -> u64 {
    u64::from(value.to_bits())
}

fn start(gpu: &Gpu, name: &str, launch: Launch, args: &[u64]) -> Result<(), LmError> {
    match &gpu.0.driver {
        #[cfg(feature = "cuda")]
        Driver::Cuda(cuda) => cuda.launch(name, launch, args),
        Driver::Emulated(emulated) => emulated.launch(name, launch, args),
    }
}

/// The product; nothing where it has no rows or columns.
pub(super) fn product(p: &Product<'_>) -> Result<(), LmError> {
    if p.rows == 0 || p.columns == 0 {
        return Ok(());
    }
    p.a.check(p.rows, p.inner);
    p.b.check(p.inner, p.columns);
    reaches(p.c, p.rows, p.columns, p.c_stride);
    assert!(p.a.numbers.kind() == p.b.numbers.kind(), "sides of different kinds");
    match &p.c.gpu().0.driver {
        #[cfg(feature = "cuda")]
        Driver::Cuda(cuda) => cuda.product(p),
        Driver::Emulated(emulated) => emulated.product(p),
    }
}

/// y of x [rows, width] f32, and each row's factor.
pub(super) fn rms_norm(
    (x, w): (&Numbers, &Numbers),
    (y, inverses): (&Numbers, &Numbers),
    eps: f32,
) -> Result<(), LmError> {
    let width = w.len();
    let rows = x.len() / width;
    needs(x, Kind::F32, rows * width);
    needs(w, Kind::F32, width);
    needs(y, y.kind(), rows * width);
    needs(inverses, Kind::F32, rows);
    let name = format!("rms_norm_f32_{}", y.kind().name());
    let args = [at(x), at(w), at(y), at(inverses), n(rows), n(width), f(eps)];
    start(x.gpu(), &name, shapes::rows_launch(rows as u32, width as u32), &args)
}

/// y again, from the factors that [`rms_norm`] kept.
pub(super) fn scale_rows(
    (x, w, inverses): (&Numbers, &Numbers, &Numbers),
    y: &Numbers,
) -> Result<(), LmError> {
    let width = w.len();
    let rows = x.len() / width;
    needs(w, Kind::F32, width);
    needs(inverses, Kind::F32, rows);
    needs(x, Kind::F32, rows * width);
    needs(y, y.kind(), rows * width);
    let name = format!("scale_rows_f32_{}", y.kind().name());
    let args = [at(x), at(w), at(inverses), at(y), n(rows), n(width)];
    start(x.gpu(), &name, shapes::rows_launch(rows as u32, width as u32), &args)
}

/// Where a sum over rows is added: each block's is kept apart first, and they are added in order.
pub(super) struct Sum<'a> {
    pub to: Numbers,
    pub room: &'a mut Room,
}

impl Sum<'_> {
    /// A row for each block of this launch.
    fn partial(&mut self, launch: Launch) -> Result<Numbers, LmError> {
        needs(&self.to, Kind::F32, self.to.len());
        let len = launch.grid[0] as usize * self.to.len();
        self.room.get(self.to.gpu(), Kind::F32, len)
    }

    fn add(&self, partial: &Numbers) -> Result<(), LmError> {
        let width = self.to.len();
        let args = [at(partial), at(&self.to), n(partial.len() / width), n(width), 1];
        start(self.to.gpu(), "column_sums", shapes::column_sums_launch(width as u32), &args)
    }
}

/// Adds the gradient of x to `dx`, and that of w to `dw` where it is wanted.
pub(super) fn rms_norm_backward(
    (x, w, inverses): (&Numbers, &Numbers, &Numbers),
    dy: &Numbers,
    dx: &Numbers,
    mut dw: Option<Sum<'_>>,
) -> Result<(), LmError> {
    let width = w.len();
    let rows = x.len() / width;
    for (numbers, len) in [(x, rows * width), (w, width), (inverses, rows), (dx, rows * width)] {
        needs(numbers, Kind::F32, len);
    }
    needs(dy, dy.kind(), rows * width);
    let launch = shapes::rms_norm_backward_launch(rows as u32, width as u32);
    let partial = dw.as_mut().map(|dw| dw.partial(launch)).transpose()?;
    let sums = or_null(partial.as_ref());
    let name = format!("rms_norm_backward_{}", dy.kind().name());
    let args = [at(x), at(w), at(inverses), at(dy), at(dx), sums, n(rows), n(width)];
    start(x.gpu(), &name, launch, &args)?;
    added(dw, partial)
}

fn added(sum: Option<Sum<'_>>, partial: Option<Numbers>) -> Result<(), LmError> {
    match (sum, partial) {
        (Some(sum), Some(partial)) => sum.add(&partial),
        _ => Ok(()),
    }
}

/// Adds the rows of `from` [rows, width of the sum].
pub(super) fn add_columns(from: &Numbers, rows: usize, mut sum: Sum<'_>) -> Result<(), LmError> {
    let width = sum.to.len();
    reaches(from, rows, width, width);
    let launch = shapes::partial_columns_launch(rows as u32, width as u32);
    let partial = sum.partial(launch)?;
    let name = format!("partial_columns_{}", from.kind().name());
    let args = [at(from), n(width), at(&partial), n(rows), n(width)];
    start(from.gpu(), &name, launch, &args)?;
    sum.add(&partial)
}

/// Adds `bias` to every row of `y`.
pub(super) fn add_bias(y: &Numbers, rows: usize, bias: &Numbers) -> Result<(), LmError> {
    let width = bias.len();
    reaches(y, rows, width, width);
    needs(bias, Kind::F32, width);
    let name = format!("add_bias_{}", y.kind().name());
    let args = [at(y), n(width), at(bias), n(rows), n(width)];
    start(y.gpu(), &name, shapes::rows_launch(rows as u32, width as u32), &args)
}

/// Cosines and sines, a row for each row that is turned [rows, D/2].
#[derive(Clone)]
pub(super) struct Angles {
    pub cos: Numbers,
    pub sin: Numbers,
}

/// Some heads of every row: rows `stride` apart, `heads` of `dim` numbers from the beginning of each.
#[derive(Clone, Copy)]
pub(super) struct HeadRows {
    pub rows: usize,
    pub heads: usize,
    pub dim: usize,
    pub stride: usize,
}

impl HeadRows {
    fn check(&self, numbers: &Numbers, angles: &Angles) {
        reaches(numbers, self.rows, self.heads * self.dim, self.stride);
        needs(&angles.cos, Kind::F32, self.rows * self.dim / 2);
        needs(&angles.sin, Kind::F32, self.rows * self.dim / 2);
    }

    fn launch(&self) -> Launch {
        shapes::heads_launch(self.rows as u32, self.heads as u32)
    }
}

/// Heads normed where there is a norm, and turned: from `from` to `to`, which may be the same.
pub(super) fn heads(
    shape: HeadRows,
    (from, to): (&Numbers, &Numbers),
    norm: Option<(&Numbers, &Numbers)>,
    eps: f32,
    angles: &Angles,
) -> Result<(), LmError> {
    shape.check(from, angles);
    shape.check(to, angles);
    if let Some((weight, inverses)) = norm {
        needs(weight, Kind::F32, shape.dim);
        needs(inverses, Kind::F32, shape.rows * shape.heads);
    }
    let name = format!("heads_{}", from.kind().name());
    let HeadRows { rows, heads, dim, stride } = shape;
    let (weight, inverses) = (norm.map(|n| n.0), norm.map(|n| n.1));
    let args = [
        at(from),
        n(stride),
        at(to),
        n(stride),
        n(rows),
        n(heads),
        n(dim),
        or_null(weight),
        or_null(inverses),
        f(eps),
        at(&angles.cos),
        at(&angles.sin),
    ];
    start(from.gpu(), &name, shape.launch(), &args)
}

/// What [`heads_backward`] needs of a norm: what was normed, by what, the factors, and where the
/// weight's gradient goes, where it is wanted.
pub(super) struct HeadNorm<'a> {
    pub raw: Numbers,
    pub weight: Numbers,
    pub inverses: Numbers,
    pub dw: Option<Sum<'a>>,
}

/// The gradient of turned heads becomes that of heads before their norm.
pub(super) fn heads_backward(
    shape: HeadRows,
    d: &Numbers,
    angles: &Angles,
    mut norm: Option<HeadNorm<'_>>,
) -> Result<(), LmError> {
    shape.check(d, angles);
    let HeadRows { rows, heads, dim, stride } = shape;
    if let Some(norm) = &norm {
        reaches(&norm.raw, rows, heads * dim, stride);
        needs(&norm.weight, Kind::F32, dim);
        needs(&norm.inverses, Kind::F32, rows * heads);
    }
    let launch = shapes::heads_backward_launch(rows as u32, heads as u32, dim as u32);
    let dw = norm.as_mut().and_then(|norm| norm.dw.as_mut());
    let partial = dw.map(|dw| dw.partial(launch)).transpose()?;
    let name = format!("heads_backward_{}", d.kind().name());
    let args = [
        at(d),
        n(stride),
        n(rows),
        n(heads),
        n(dim),
        at(&angles.cos),
        at(&angles.sin),
        or_null(norm.as_ref().map(|n| &n.raw)),
        n(stride),
        or_null(norm.as_ref().map(|n| &n.weight)),
        or_null(norm.as_ref().map(|n| &n.inverses)),
        or_null(partial.as_ref()),
    ];
    start(d.gpu(), &name, launch, &args)?;
    added(norm.and_then(|norm| norm.dw), partial)
}

/// `out` [rows, inner] of gate and up side by side [rows, 2 inner].
pub(super) fn swiglu(gate_up: &Numbers, out: &Numbers, inner: usize) -> Result<(), LmError> {
    let rows = out.len() / inner;
    needs(gate_up, out.kind(), rows * 2 * inner);
    let name = format!("swiglu_{}", out.kind().name());
    let args = [at(gate_up), at(out), n(rows), n(inner)];
    start(out.gpu(), &name, shapes::rows_launch(rows as u32, inner as u32), &args)
}

/// Gate and up become their gradients, and the gradient of the product the product.
pub(super) fn swiglu_backward(
    gate_up: &Numbers,
    gated: &Numbers,
    inner: usize,
) -> Result<(), LmError> {
    let rows = gated.len() / inner;
    needs(gate_up, gated.kind(), rows * 2 * inner);
    let name = format!("swiglu_backward_{}", gated.kind().name());
    let args = [at(gate_up), at(gated), n(rows), n(inner)];
    start(gated.gpu(), &name, shapes::rows_launch(rows as u32, inner as u32), &args)
}

/// Queries, keys and values as attention reads them: rows `stride` apart.
pub(super) struct Seen<'a> {
    pub heads: Heads,
    pub q: &'a Numbers,
    pub q_stride: usize,
    pub k: &'a Numbers,
    pub v: &'a Numbers,
    pub kv_stride: usize,
}

impl Seen<'_> {
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
        self.q.kind() == Kind::Bf16
    }
}

/// Query rows in tiles, and what each tile sees. `rows` and `key_rows` bound the row numbers in it;
/// whoever makes it keeps to them.
pub(super) struct Tiles {
    /// Four words each: first row, rows, where its keys begin, how many the first row sees.
    pub tiles: Numbers,
    pub keys: Numbers,
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
pub(super) fn attention(
    seen: &Seen<'_>,
    tiles: &Tiles,
    (y, totals): (&Numbers, Option<&Numbers>),
    space: &mut Room,
) -> Result<(), LmError> {
    let heads = seen.heads;
    let (rows, gpu) = (tiles.rows, y.gpu());
    seen.check(rows, tiles.key_rows);
    needs(&tiles.tiles, Kind::U32, 4 * tiles.count);
    needs(y, seen.q.kind(), rows * heads.query_width());
    if let Some(totals) = totals {
        needs(totals, Kind::F32, rows * heads.queries);
    }
    let parts = parts_of(tiles, heads);
    let sums = rows * heads.query_width();
    let space = match parts {
        1 => None,
        _ => Some(space.get(gpu, Kind::F32, parts * (sums + rows * heads.queries))?),
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
    start(gpu, &format!("attention_{}", y.kind().name()), launch, &args)?;
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

/// Keys below which a part is not worth its joining.
const PART_KEYS_MIN: usize = 128;

/// Parts that keys are cut into, so that a few rows keep the whole device busy.
fn parts_of(tiles: &Tiles, heads: Heads) -> usize {
    let wanted = (2 * super::MULTIPROCESSORS).div_ceil((tiles.count * heads.keys).max(1));
    wanted.min(tiles.seen_max / PART_KEYS_MIN).clamp(1, 32)
}

/// What the backward pass of attention is given: y [rows, heads * D], its gradient, the totals.
pub(super) struct Mixed<'a> {
    pub y: &'a Numbers,
    pub dy: &'a Numbers,
    pub totals: &'a Numbers,
    /// Room for a number per row and head.
    pub delta: &'a Numbers,
}

/// Key rows in tiles of four words: first row, rows, the first query row that does not see them.
pub(super) struct KeyTiles {
    pub tiles: Numbers,
    pub count: usize,
}

/// Gradients of queries, keys and values, which lie as those do in `seen`.
pub(super) fn attention_backward(
    seen: &Seen<'_>,
    (tiles, key_tiles): (&Tiles, &KeyTiles),
    mixed: &Mixed<'_>,
    (dq, dk, dv): (&Numbers, &Numbers, &Numbers),
) -> Result<(), LmError> {
    let heads = seen.heads;
    let (rows, gpu, kind) = (tiles.rows, dq.gpu(), seen.q.kind());
    let width = heads.query_width();
    seen.check(rows, tiles.key_rows);
    needs(mixed.y, kind, rows * width);
    needs(mixed.dy, kind, rows * width);
    needs(mixed.totals, Kind::F32, rows * heads.queries);
    needs(mixed.delta, Kind::F32, rows * heads.queries);
    reaches(dq, rows, width, seen.q_stride);
    reaches(dk, tiles.key_rows, heads.key_width(), seen.kv_stride);
    reaches(dv, tiles.key_rows, heads.key_width(), seen.kv_stride);
    let name = |what: &str| format!("attention_{what}_{}", kind.name());
    let [queries, keys, dim, scale] = seen.sizes();
    let args = [at(mixed.y), at(mixed.dy), n(width), at(mixed.delta), n(rows), queries, dim];
    let launch = shapes::attention_delta_launch(rows as u32, heads.queries as u32);
    start(gpu, &name("delta"), launch, &args)?;
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
    start(gpu, &name("backward_q"), launch, &args)?;
    let args =
        [&read[..], &[at(&key_tiles.tiles)], &given, &[at(dk), at(dv), n(seen.kv_stride)], &sizes]
            .concat();
    let launch =
        shapes::attention_backward_kv_launch(key_tiles.count as u32, key_heads, width, is_bf16);
    start(gpu, &name("backward_kv"), launch, &args)
}

/// Log-probabilities of targets, and the logarithms of what they are divided by.
pub(super) fn token_logps(
    logits: &Numbers,
    targets: &Numbers,
    (logps, totals): (&Numbers, &Numbers),
) -> Result<(), LmError> {
    let rows = targets.len();
    let vocab = logits.len() / rows.max(1);
    needs(logits, Kind::F32, rows * vocab);
    needs(logps, Kind::F32, rows);
    needs(totals, Kind::F32, rows);
    let args = [at(logits), at(targets), at(logps), at(totals), n(rows), n(vocab)];
    start(logits.gpu(), "token_logps", shapes::token_logps_launch(rows as u32), &args)
}

/// Gradients of logits, to `out`, which may be the logits.
pub(super) fn token_logps_backward(
    logits: &Numbers,
    (targets, totals, slopes): (&Numbers, &Numbers, &Numbers),
    out: &Numbers,
) -> Result<(), LmError> {
    let rows = targets.len();
    let vocab = logits.len() / rows.max(1);
    needs(logits, Kind::F32, rows * vocab);
    needs(out, out.kind(), rows * vocab);
    needs(totals, Kind::F32, rows);
    needs(slopes, Kind::F32, rows);
    let name = format!("token_logps_backward_{}", out.kind().name());
    let args = [at(logits), at(targets), at(totals), at(slopes), at(out), n(rows), n(vocab)];
    start(out.gpu(), &name, shapes::rows_launch(rows as u32, vocab as u32), &args)
}

/// Row i of `to` becomes row `index[i]` of `from`, whose numbers of rows the caller has checked.
pub(super) fn gather_rows(
    from: &Numbers,
    index: &Numbers,
    to: &Numbers,
    width: usize,
) -> Result<(), LmError> {
    let rows = index.len();
    needs(index, Kind::U32, rows);
    needs(to, to.kind(), rows * width);
    let name = format!("gather_rows_{}_{}", from.kind().name(), to.kind().name());
    let args = [at(from), at(index), at(to), n(rows), n(width)];
    start(to.gpu(), &name, shapes::rows_launch(rows as u32, width as u32), &args)
}

/// Which rows are added to which, every target once: `offsets` cut `sources`.
pub(super) struct Additions {
    pub targets: Numbers,
    pub offsets: Numbers,
    pub sources: Numbers,
}

/// Adds rows of `from` to rows of `to`, each target's in order.
pub(super) fn add_rows(
    from: &Numbers,
    additions: &Additions,
    to: &Numbers,
    width: usize,
) -> Result<(), LmError> {
    let targets = additions.targets.len();
    needs(&additions.offsets, Kind::U32, targets + 1);
    needs(from, from.kind(), additions.sources.len() * width);
    needs(to, Kind::F32, width);
    let name = format!("add_rows_{}", from.kind().name());
    let args = [
        at(from),
        at(&additions.targets),
        at(&additions.offsets),
        at(&additions.sources),
        at(to),
        n(targets),
        n(width),
    ];
    start(to.gpu(), &name, shapes::rows_launch(targets as u32, width as u32), &args)
}

/// Keys and values of rows `stride` apart, to their places in the caches.
pub(super) fn store_rows(
    (k, v, stride): (&Numbers, &Numbers, usize),
    slots: &Numbers,
    (k_to, v_to): (&Numbers, &Numbers),
    width: usize,
) -> Result<(), LmError> {
    let rows = slots.len();
    reaches(k, rows, width, stride);
    reaches(v, rows, width, stride);
    let name = format!("store_rows_{}", k.kind().name());
    let args = [at(k), at(v), n(stride), at(slots), at(k_to), at(v_to), n(rows), n(width)];
    start(k.gpu(), &name, shapes::rows_launch(rows as u32, width as u32), &args)
}

/// The same numbers in 2 bytes.
pub(super) fn narrowed(from: &Numbers, to: &Numbers) -> Result<(), LmError> {
    needs(from, Kind::F32, to.len());
    needs(to, Kind::Bf16, to.len());
    let args = [at(from), at(to), to.len() as u64];
    start(to.gpu(), "convert_f32_bf16", shapes::each_launch(to.len() as u64), &args)
}

/// All become `value`.
pub(super) fn fill(to: &Numbers, value: f32) -> Result<(), LmError> {
    needs(to, Kind::F32, to.len());
    let args = [at(to), f(value), to.len() as u64];
    start(to.gpu(), "fill_f32", shapes::each_launch(to.len() as u64), &args)
}

/// The sum of all squares.
pub(super) fn square_sum(from: &Numbers) -> Result<f64, LmError> {
    needs(from, Kind::F32, from.len());
    let launch = shapes::square_sums_launch(from.len() as u64);
    let partial = Numbers::zeros(from.gpu(), Kind::F64, launch.grid[0] as usize)?;
    start(from.gpu(), "square_sums", launch, &[at(from), from.len() as u64, at(&partial)])?;
    Ok(partial.read::<f64>()?.into_iter().sum())
}

/// Weights, their moments and gradients, all as long; and the copy that products read.
pub(super) struct Moving<'a> {
    pub x: &'a Numbers,
    pub m: &'a Numbers,
    pub v: &'a Numbers,
    pub g: &'a Numbers,
    pub work: Option<&'a Numbers>,
}

impl Moving<'_> {
    fn check(&self) -> usize {
        let len = self.x.len();
        for numbers in [self.x, self.m, self.v, self.g] {
            needs(numbers, Kind::F32, len);
        }
        if let Some(work) = self.work {
            needs(work, work.kind(), len);
        }
        len
    }

    fn addresses(&self) -> [u64; 4] {
        [at(self.x), at(self.m), at(self.v), at(self.g)]
    }
}

fn step_args(step: &StepNumbers) -> [u64; 9] {
    let s = step;
    [s.clip, s.b1, s.b2, s.c1, s.c2, s.keep, s.size, s.second, s.eps].map(f)
}

/// One step of all of them; gives the largest of what they have become.
pub(super) fn adamw(moving: &Moving<'_>, step: &StepNumbers) -> Result<f32, LmError> {
    let len = moving.check();
    let launch = shapes::adamw_launch(len as u64);
    let gpu = moving.x.gpu();
    let most = Numbers::zeros(gpu, Kind::F32, launch.grid[0] as usize)?;
    let kind = moving.work.map_or(Kind::F32, Numbers::kind);
    let args = [
        &moving.addresses()[..],
        &[or_null(moving.work), len as u64],
        &step_args(step),
        &[at(&most)],
    ]
    .concat();
    start(gpu, &format!("adamw_{}", kind.name()), launch, &args)?;
    Ok(most.read::<f32>()?.into_iter().fold(0.0, f32::max))
}

/// Whether a step would leave all finite: of the moments, of the values.
pub(super) fn adamw_finite(
    moving: &Moving<'_>,
    step: &StepNumbers,
) -> Result<(bool, bool), LmError> {
    let len = moving.check();
    let launch = shapes::adamw_launch(len as u64);
    let flags = Numbers::zeros(moving.x.gpu(), Kind::U32, launch.grid[0] as usize)?;
    let args = [&moving.addresses()[..], &[len as u64], &step_args(step), &[at(&flags)]].concat();
    start(moving.x.gpu(), "adamw_check", launch, &args)?;
    let flags = flags.read::<u32>()?.into_iter().fold(0, |all, flags| all | flags);
    Ok((flags & 1 == 0, flags & 2 == 0))
}

/// Words of a choice that is asked for, and of one that was made.
pub(super) const ASKED_WORDS: usize = 6;
/// As [`ASKED_WORDS`].
pub(super) const CHOSEN_WORDS: usize = 4;

/// One token for every row of `logits` [rows, vocab].
pub(super) fn choose(
    logits: &Numbers,
    asked: &Numbers,
    chosen: &Numbers,
    vocab: usize,
) -> Result<(), LmError> {
    let rows = asked.len() / ASKED_WORDS;
    needs(asked, Kind::U32, rows * ASKED_WORDS);
    needs(chosen, Kind::U32, rows * CHOSEN_WORDS);
    needs(logits, Kind::F32, rows * vocab);
    let args = [at(logits), n(vocab), at(asked), at(chosen), n(rows)];
    start(logits.gpu(), "choose", shapes::choose_launch(rows as u32), &args)
}
