//! Attention forward and backward against loops in f64 over what each row sees.

use crate::args;
use crate::gpu::{
    Arg, Bf16, Buffer, Element, NULL, Number, Stream, close, gpu, noise, rounded, run, try_run,
};
use gradus_kernels::{
    Emulator, KEY_TILE, KeyTile, TILE_QUERIES, Tile, attention_backward_kv_launch,
    attention_backward_q_launch, attention_delta_launch, attention_join_launch, attention_kernel,
    attention_launch,
};

impl Element for Tile {
    const RUBBISH: Tile = Tile { row: u32::MAX, rows: 0, keys_at: 0, seen: 0 };
}
impl Element for KeyTile {
    const RUBBISH: KeyTile = KeyTile { row: u32::MAX, rows: 0, until: 0, pad: 0 };
}

/// Heads of queries, of keys, and their width.
#[derive(Clone, Copy, Debug)]
struct Heads {
    queries: usize,
    keys: usize,
    dim: usize,
}

impl Heads {
    fn group(self) -> usize {
        self.queries / self.keys
    }
    fn scale(self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }
}

/// Rows of queries and of keys, what sees what, and the same as the kernels take it.
struct Rows {
    queries: usize,
    keys: usize,
    /// Of each query row the key rows it sees.
    sees: Vec<Vec<usize>>,
    tiles: Vec<Tile>,
    list: Vec<u32>,
    key_tiles: Vec<KeyTile>,
}

impl Rows {
    /// Families, each a prefix and the branches that see it: keys are the queries' own rows.
    fn families(families: &[(usize, &[usize])], group: usize) -> Rows {
        let mut all = Rows::none();
        for (prefix, branches) in families {
            let start = all.queries;
            let end = start + prefix + branches.iter().sum::<usize>();
            all.sequence(start..start, *prefix, end, group);
            for branch in *branches {
                let until = all.queries + branch;
                all.sequence(start..start + prefix, *branch, until, group);
            }
        }
        all.keys = all.queries;
        all
    }

    fn none() -> Rows {
        Rows { queries: 0, keys: 0, sees: vec![], tiles: vec![], list: vec![], key_tiles: vec![] }
    }

    /// `rows` more rows, which see `before`, and themselves as far as they have come; rows up to
    /// `until` see them.
    fn sequence(
        &mut self,
        before: std::ops::Range<usize>,
        rows: usize,
        until: usize,
        group: usize,
    ) {
        let first = self.queries;
        let keys_at = self.list.len() as u32;
        self.list.extend(before.clone().chain(first..first + rows).map(|key| key as u32));
        let each = (TILE_QUERIES as usize / group).max(1);
        for at in (0..rows).step_by(each) {
            self.tiles.push(Tile {
                row: (first + at) as u32,
                rows: each.min(rows - at) as u32,
                keys_at,
                seen: (before.len() + at + 1) as u32,
            });
        }
        for at in (0..rows).step_by(KEY_TILE as usize) {
            self.key_tiles.push(KeyTile {
                row: (first + at) as u32,
                rows: KEY_TILE.min((rows - at) as u32),
                until: until as u32,
                pad: 0,
            });
        }
        self.sees
            .extend((first..first + rows).map(|row| before.clone().chain(first..=row).collect()));
        self.queries += rows;
    }

    /// Single rows over a cache of `keys` rows: query row r sees `seen[r]` of them, anywhere.
    fn drawing(seen: &[usize], keys: usize) -> Rows {
        let mut all = Rows { keys, ..Rows::none() };
        let mut stream = Stream(11);
        for seen in seen {
            let list: Vec<usize> = (0..*seen).map(|_| stream.below(keys)).collect();
            let keys_at = all.list.len() as u32;
            all.tiles.push(Tile { row: all.queries as u32, rows: 1, keys_at, seen: *seen as u32 });
            all.list.extend(list.iter().map(|key| *key as u32));
            all.sees.push(list);
            all.queries += 1;
        }
        all
    }
}

/// Inputs, in f32 before rounding: rows [q | something], rows [k | v].
struct Case {
    heads: Heads,
    rows: Rows,
    q: Vec<f32>,
    kv: Vec<f32>,
    dy: Vec<f32>,
    q_stride: usize,
    kv_stride: usize,
    y_stride: usize,
}

impl Case {
    /// `gap`: numbers between rows, so that strides are not widths.
    fn new(heads: Heads, rows: Rows, gap: usize) -> Case {
        let width = heads.queries * heads.dim;
        let (q_stride, y_stride) = (width + gap, width + 2 * gap);
        let kv_stride = 2 * heads.keys * heads.dim + gap;
        Case {
            q: noise(rows.queries * q_stride, 1),
            kv: noise(rows.keys * kv_stride, 2),
            dy: noise(rows.queries * y_stride, 3),
            heads,
            rows,
            q_stride,
            kv_stride,
            y_stride,
        }
    }

    fn v_at(&self) -> usize {
        self.heads.keys * self.heads.dim
    }

    fn sizes(&self) -> Vec<Arg> {
        let Heads { queries, keys, dim } = self.heads;
        args![queries, keys, dim, self.heads.scale()].to_vec()
    }
}

/// What the formulas give.
struct Exact {
    y: Vec<f64>,
    lse: Vec<f64>,
    delta: Vec<f64>,
    dq: Vec<f64>,
    dk: Vec<f64>,
    dv: Vec<f64>,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Outputs and gradients, without gaps: dq [rows, heads * dim], dk and dv [rows, keys * dim].
fn exact<T: Number>(case: &Case) -> Exact {
    let Heads { queries, keys, dim } = case.heads;
    let (q, kv, dy) = (rounded::<T>(&case.q), rounded::<T>(&case.kv), rounded::<T>(&case.dy));
    let scale = f64::from(case.heads.scale());
    let (n, width) = (case.rows.queries, keys * dim);
    let mut out = Exact {
        y: vec![0.0; n * queries * dim],
        lse: vec![0.0; n * queries],
        delta: vec![0.0; n * queries],
        dq: vec![0.0; n * queries * dim],
        dk: vec![0.0; case.rows.keys * width],
        dv: vec![0.0; case.rows.keys * width],
    };
    for (row, head) in (0..n).flat_map(|row| (0..queries).map(move |head| (row, head))) {
        let at = head / case.heads.group() * dim;
        let q = &q[row * case.q_stride + head * dim..][..dim];
        let dy = &dy[row * case.y_stride + head * dim..][..dim];
        let k = |key: usize| &kv[key * case.kv_stride + at..][..dim];
        let v = |key: usize| &kv[key * case.kv_stride + case.v_at() + at..][..dim];
        let sees = &case.rows.sees[row];
        let scores: Vec<f64> = sees.iter().map(|key| scale * dot(q, k(*key))).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|score| (score - most).exp()).sum();
        let lse = if sees.is_empty() { f64::NEG_INFINITY } else { most + sum.ln() };
        let p: Vec<f64> = scores.iter().map(|score| (score - lse).exp()).collect();
        let range = (row * queries + head) * dim..(row * queries + head + 1) * dim;
        for (key, p) in sees.iter().zip(&p) {
            out.y[range.clone()].iter_mut().zip(v(*key)).for_each(|(y, v)| *y += p * v);
        }
        let delta = dot(&out.y[range.clone()], dy);
        (out.lse[row * queries + head], out.delta[row * queries + head]) = (lse, delta);
        for (key, p) in sees.iter().zip(&p) {
            let slope = scale * p * (dot(dy, v(*key)) - delta);
            for i in 0..dim {
                out.dq[range.start + i] += slope * k(*key)[i];
                out.dk[key * width + at + i] += slope * q[i];
                out.dv[key * width + at + i] += p * dy[i];
            }
        }
    }
    out
}

/// What the kernels work on.
struct Memory<T> {
    q: Buffer<T>,
    kv: Buffer<T>,
    dy: Buffer<T>,
    tiles: Buffer<Tile>,
    list: Buffer<u32>,
    key_tiles: Buffer<KeyTile>,
}

impl<T: Number> Memory<T> {
    fn new(case: &Case) -> Memory<T> {
        Memory {
            q: Buffer::of(&case.q),
            kv: Buffer::of(&case.kv),
            dy: Buffer::of(&case.dy),
            tiles: Buffer::new(&case.rows.tiles),
            list: Buffer::new(&case.rows.list),
            key_tiles: Buffer::new(&case.rows.key_tiles),
        }
    }

    fn qkv(&self, case: &Case) -> Vec<Arg> {
        let (q_stride, kv_stride) = (case.q_stride, case.kv_stride);
        let (k, v) = (self.kv.read(), self.kv.read_at(case.v_at()));
        args![self.q.read(), q_stride, k, v, kv_stride].to_vec()
    }
}

/// Without what lies between rows, which must be as it was.
fn packed<T: Number>(buffer: &Buffer<T>, stride: usize, width: usize) -> Vec<f64> {
    let data = buffer.get();
    for row in data.chunks(stride) {
        let gap = format!("{:?}", &row[width..]);
        assert_eq!(
            gap,
            format!("{:?}", vec![T::RUBBISH; row.len() - width]),
            "written beside a row"
        );
    }
    data.chunks(stride).flat_map(|row| row[..width].iter().map(|x| x.wide())).collect()
}

/// The kernel for heads so wide.
fn kernel<T: Number>(what: &str, dim: usize) -> String {
    attention_kernel(what, dim as u32, T::BF16)
}

/// y without gaps, and the logarithms.
fn forward<T: Number>(gpu: Emulator, case: &Case, parts: usize) -> (Vec<f64>, Vec<f64>) {
    let Heads { queries, keys, dim } = case.heads;
    let memory = Memory::<T>::new(case);
    let n = case.rows.queries;
    let mut y = Buffer::<T>::blank(n * case.y_stride);
    let mut lse = Buffer::<f32>::blank(n * queries);
    let (mut part_y, mut part_lse) = (
        Buffer::<f32>::blank(parts * n * queries * dim),
        Buffer::<f32>::blank(parts * n * queries),
    );
    let launch = attention_launch(
        case.rows.tiles.len() as u32,
        keys as u32,
        parts as u32,
        dim as u32,
        T::BF16,
    );
    let outputs = match parts {
        1 => args![y.write(), case.y_stride, lse.write(), NULL, NULL].to_vec(),
        _ => args![NULL, 0u32, NULL, part_y.write(), part_lse.write()].to_vec(),
    };
    let what = [memory.tiles.read(), memory.list.read()];
    let args = [&memory.qkv(case)[..], &what, &outputs, &case.sizes(), &[n.into()]].concat();
    run(gpu, &kernel::<T>("attention", dim), launch, &args);
    if parts > 1 {
        let launch = attention_join_launch(n as u32, queries as u32);
        let to =
            args![part_y.read(), part_lse.read(), parts, y.write(), case.y_stride, lse.write()];
        let args = [&to[..], args![n, queries, dim]].concat();
        run(gpu, &format!("attention_join_{}", T::NAME), launch, &args);
    }
    (packed(&y, case.y_stride, queries * dim), lse.wide())
}

/// Errors that are left: f32 sums; of bf16 the rounding of weights, slopes and results.
fn error<T: Number>() -> f64 {
    if T::BF16 { 3.0 * T::EPSILON } else { 2e-5 }
}

fn check_forward<T: Number>(gpu: Emulator, case: &Case, parts: usize) {
    let exact = exact::<T>(case);
    let (y, lse) = forward::<T>(gpu, case, parts);
    let what = format!("{} {:?}, {parts} parts", T::NAME, case.heads);
    close(&format!("logarithms of {what}"), &lse, &exact.lse, 1e-5);
    close(&format!("outputs of {what}"), &y, &exact.y, error::<T>());
}

fn check_backward<T: Number>(gpu: Emulator, case: &Case) {
    let Heads { queries, keys, dim } = case.heads;
    let (exact, memory) = (exact::<T>(case), Memory::<T>::new(case));
    let n = case.rows.queries;
    let narrow = |data: &[f64]| data.iter().map(|x| *x as f32).collect::<Vec<f32>>();
    let (lse, delta) = (Buffer::new(&narrow(&exact.lse)), Buffer::new(&narrow(&exact.delta)));
    let given = args![memory.dy.read(), case.y_stride, lse.read(), delta.read()];
    let what = format!("{} {:?}", T::NAME, case.heads);

    let mut dq = Buffer::<T>::blank(n * case.q_stride);
    let tiles = case.rows.tiles.len() as u32;
    let launch = attention_backward_q_launch(tiles, keys as u32, dim as u32, T::BF16);
    let places = [memory.tiles.read(), memory.list.read()];
    let to = args![dq.write(), case.q_stride];
    let args = [&memory.qkv(case)[..], &places, given, to, &case.sizes()].concat();
    run(gpu, &kernel::<T>("attention_backward_q", dim), launch, &args);
    let found = packed(&dq, case.q_stride, queries * dim);
    close(&format!("dq of {what}"), &found, &exact.dq, 2.0 * error::<T>());

    let mut dkv = Buffer::<T>::blank(case.rows.keys * case.kv_stride);
    let tiles = case.rows.key_tiles.len() as u32;
    let launch = attention_backward_kv_launch(tiles, keys as u32, dim as u32, T::BF16);
    let to = args![dkv.write(), dkv.write_at(case.v_at()), case.kv_stride];
    let args =
        [&memory.qkv(case)[..], &[memory.key_tiles.read()], given, to, &case.sizes()].concat();
    run(gpu, &kernel::<T>("attention_backward_kv", dim), launch, &args);
    let found = packed(&dkv, case.kv_stride, 2 * keys * dim);
    let half = |which: usize| -> Vec<f64> {
        let rows = found.chunks(2 * keys * dim);
        rows.flat_map(|row| row[which * keys * dim..][..keys * dim].to_vec()).collect()
    };
    close(&format!("dk of {what}"), &half(0), &exact.dk, 2.0 * error::<T>());
    close(&format!("dv of {what}"), &half(1), &exact.dv, 2.0 * error::<T>());
}

/// Widths of heads and sizes of groups; some rows can be read 16 bytes at a time and some cannot.
fn cases() -> Vec<Case> {
    let shapes = [
        (1, 1, 2, 0),
        (3, 1, 4, 1),
        (4, 2, 16, 0),
        (9, 3, 64, 8),
        (7, 1, 64, 3),
        (4, 4, 80, 16),
        (14, 2, 128, 0),
        (3, 3, 36, 2),
        (17, 1, 4, 0),
        (1, 1, 256, 8),
    ];
    let case = |(queries, keys, dim, gap)| {
        let heads = Heads { queries, keys, dim };
        let families: &[(usize, &[usize])] = match dim {
            // Several tiles of queries and of keys, a prefix that ends within one, a single row.
            16 | 64 => &[(70, &[]), (21, &[66, 5, 1]), (1, &[])],
            // Queries of one row fill a good part of a tile.
            4 => &[(52, &[])],
            _ => &[(9, &[]), (13, &[20, 1])],
        };
        Case::new(heads, Rows::families(families, heads.group()), gap)
    };
    shapes.into_iter().map(case).collect()
}

#[test]
fn forward_in_f32() {
    let Some(gpu) = gpu() else { return };
    cases().iter().for_each(|case| check_forward::<f32>(gpu, case, 1));
}

#[test]
fn forward_in_bf16() {
    let Some(gpu) = gpu() else { return };
    cases().iter().for_each(|case| check_forward::<Bf16>(gpu, case, 1));
}

#[test]
fn backward_in_f32() {
    let Some(gpu) = gpu() else { return };
    cases().iter().for_each(|case| check_backward::<f32>(gpu, case));
}

#[test]
fn backward_in_bf16() {
    let Some(gpu) = gpu() else { return };
    cases().iter().for_each(|case| check_backward::<Bf16>(gpu, case));
}

/// Rows that see keys all over a cache, none, or fewer than there are parts.
#[test]
fn drawing_over_a_cache_in_parts() {
    let Some(gpu) = gpu() else { return };
    for (queries, keys, dim) in [(3, 1, 64), (14, 2, 16), (4, 1, 80), (2, 2, 128)] {
        for parts in [1, 2, 5] {
            let rows = Rows::drawing(&[1, 200, 0, 3, 64, 65], 230);
            let case = Case::new(Heads { queries, keys, dim }, rows, 0);
            check_forward::<f32>(gpu, &case, parts);
            check_forward::<Bf16>(gpu, &case, parts);
        }
    }
}

/// Scores far from 0: without the running maximum they would be infinite.
#[test]
fn large_scores_stay_finite() {
    let Some(gpu) = gpu() else { return };
    let heads = Heads { queries: 2, keys: 1, dim: 16 };
    let mut case = Case::new(heads, Rows::families(&[(80, &[])], 2), 0);
    case.q.iter_mut().for_each(|x| *x *= 400.0);
    let (y, lse) = forward::<Bf16>(gpu, &case, 1);
    assert!(y.iter().chain(&lse).all(|x| x.is_finite()));
    assert!(lse.iter().any(|x| *x > 100.0), "scores are not large");
    close("logarithms", &lse, &exact::<Bf16>(&case).lse, 1e-4);
}

#[test]
fn delta_is_the_product_of_rows() {
    let Some(gpu) = gpu() else { return };
    fn check<T: Number>(gpu: Emulator) {
        for (rows, heads, dim) in [(1, 1, 2), (5, 3, 80), (3, 7, 64)] {
            let stride = heads * dim + 5;
            let (y, dy) = (noise(rows * stride, 1), noise(rows * stride, 2));
            let (y_at, dy_at) = (Buffer::<T>::of(&y), Buffer::<T>::of(&dy));
            let mut delta = Buffer::<f32>::blank(rows * heads);
            let launch = attention_delta_launch(rows as u32, heads as u32);
            let places = args![y_at.read(), dy_at.read(), stride, delta.write()];
            let args = [&places[..], args![rows, heads, dim]].concat();
            run(gpu, &format!("attention_delta_{}", T::NAME), launch, &args);
            let (y, dy) = (rounded::<T>(&y), rounded::<T>(&dy));
            let one = |i: usize| {
                let at = i / heads * stride + i % heads * dim;
                dot(&y[at..at + dim], &dy[at..at + dim])
            };
            let expected: Vec<f64> = (0..rows * heads).map(one).collect();
            close("delta", &delta.wide(), &expected, 1e-5);
        }
    }
    check::<f32>(gpu);
    check::<Bf16>(gpu);
}

/// Blocks and threads in another order: the same bits.
#[test]
fn the_order_of_blocks_does_not_matter() {
    let Some(gpu) = gpu() else { return };
    let heads = Heads { queries: 6, keys: 2, dim: 32 };
    let case = Case::new(heads, Rows::families(&[(50, &[30, 7])], 3), 0);
    let one = forward::<Bf16>(gpu, &case, 3);
    for seed in 1..4 {
        assert!(forward::<Bf16>(gpu.with_seed(seed), &case, 3) == one, "seed {seed}");
    }
}

/// The figures of launches are exact: with four bytes less each kernel writes where it may not.
#[test]
fn launches_ask_for_the_shared_memory_that_is_used() {
    let Some(gpu) = gpu() else { return };
    fn check<T: Number>(gpu: Emulator, dim: usize) {
        let case = Case::new(Heads { queries: 1, keys: 1, dim }, Rows::families(&[(3, &[])], 1), 0);
        let memory = Memory::<T>::new(&case);
        let mut out = Buffer::<T>::blank(case.rows.queries * case.kv_stride);
        let number = Buffer::<f32>::new(&[0.0; 3]);
        let stride = case.kv_stride;
        let given = args![memory.dy.read(), case.y_stride, number.read(), number.read()];
        let tiles = [memory.tiles.read(), memory.list.read()];
        let results = args![out.write(), stride, NULL, NULL, NULL];
        let (qkv, sizes, wide) = (memory.qkv(&case), case.sizes(), dim as u32);
        let runs = [
            (
                "attention",
                attention_launch(1, 1, 1, wide, T::BF16),
                [&qkv[..], &tiles, results, &sizes, args![3u32]].concat(),
            ),
            (
                "attention_backward_q",
                attention_backward_q_launch(1, 1, wide, T::BF16),
                [&qkv[..], &tiles, given, args![out.write(), stride], &sizes].concat(),
            ),
            (
                "attention_backward_kv",
                attention_backward_kv_launch(1, 1, wide, T::BF16),
                [
                    &qkv[..],
                    &[memory.key_tiles.read()],
                    given,
                    args![out.write(), out.write_at(case.v_at()), stride],
                    &sizes,
                ]
                .concat(),
            ),
        ];
        for (name, launch, args) in runs {
            let name = kernel::<T>(name, dim);
            assert!(launch.shared_bytes <= 160 * 1024, "{name} of {dim}: {launch:?}");
            assert!(dim > 64 || launch.shared_bytes < 100 * 1024, "{name} of {dim}: {launch:?}");
            run(gpu, &name, launch, &args);
            let mut less = launch;
            less.shared_bytes -= 4;
            let said = try_run(gpu, &name, less, &args).expect_err("four bytes are not used");
            assert!(said.contains("behind"), "{said}");
        }
    }
    for dim in [8, 64, 80, 128, 256] {
        check::<f32>(gpu, dim);
        check::<Bf16>(gpu, dim);
    }
}
