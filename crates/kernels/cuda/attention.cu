// Attention forward, by tiles of queries: one block for a tile, a key head and a part of the keys.
// Scores of 64 queries and some keys live in shared memory; maximum, sum and output of each query
// are carried from keys to keys (the online softmax). The twin is crates/lm/src/ops/attention.rs.
//
// exp and log are taken to the base 2, which is what a GPU has.

#include "queries.cuh"

// Keys at a time.
template <class T>
constexpr u32 FORWARD_KEYS = sizeof(T) == 2 ? 64 : 32;

// Scores of one row and the next lie this far apart; so do the weights that become of them.
template <class T>
constexpr u32 FORWARD_PITCH = FORWARD_KEYS<T> + 8;

// Of the rows lane / 8 + 4 i of a warp: the largest score, and the sum of the powers beside it.
// Eight lanes hold the same.
struct Running {
  float most[4], sum[4];
  u32 seen[4];
};

// Scores of a warp's 16 rows become weights, up to a factor that a row keeps to its end; `factors`
// gets what the row's output so far must be multiplied by.
template <class T>
__device__ __forceinline__ void soften(const float* scores, T* weights, float* factors,
                                       Running& running, u32 first_key, float scale) {
  constexpr u32 PAIRS = FORWARD_KEYS<T> / 16;
#pragma unroll
  for (u32 i = 0; i < 4; ++i) {
    u32 row = lane_id() / 8 + 4 * i, column = 2 * (lane_id() % 8);
    Few<2> x[PAIRS];
    float most = running.most[i], sum = 0.0f;
#pragma unroll
    for (u32 j = 0; j < PAIRS; ++j) {
      x[j] = load<2>(scores + row * FORWARD_PITCH<T> + column + 16 * j);
#pragma unroll
      for (u32 c = 0; c < 2; ++c) {
        bool seen = first_key + column + 16 * j + c < running.seen[i];
        x[j].x[c] = seen ? x[j].x[c] * scale : -INFINITY;
        most = fmaxf(most, x[j].x[c]);
      }
    }
    most = warp_fold(most, Most{}, 8);
    // Where nothing has been seen: powers of -inf, not of -inf - -inf.
    float base = most == -INFINITY ? 0.0f : most;
#pragma unroll
    for (u32 j = 0; j < PAIRS; ++j) {
#pragma unroll
      for (u32 c = 0; c < 2; ++c) {
        x[j].x[c] = exp2f(x[j].x[c] - base);
        sum += x[j].x[c];
      }
      store(weights + row * FORWARD_PITCH<T> + column + 16 * j, x[j]);
    }
    float factor = exp2f(running.most[i] - base);
    running.sum[i] = running.sum[i] * factor + warp_fold(sum, Sum{}, 8);
    running.most[i] = most;
    if (lane_id() % 8 == 0) factors[row] = factor;
  }
}

// Where a tile's results go.
template <class T>
struct Results {
  T* y;
  u32 y_stride;
  float *lse, *part_y, *part_lse;
  u32 query_heads, total_rows;
};

// The end of a warp's rows: `factors` becomes what the output is divided by, and the logarithms are
// written.
template <class T>
__device__ __forceinline__ void finish(const Queries& queries, const Running& running,
                                       float* factors, const Results<T>& to) {
  if (lane_id() % 8 != 0) return;
#pragma unroll
  for (u32 i = 0; i < 4; ++i) {
    u32 row = lane_id() / 8 + 4 * i, m = warp_id() * WARP_ROWS + row;
    float sum = running.sum[i];
    factors[row] = sum == 0.0f ? 0.0f : 1.0f / sum;
    if (m >= queries.count()) continue;
    float lse = sum == 0.0f ? -INFINITY : (running.most[i] + log2f(sum)) * LN_2;
    size_t at = queries.number(m, to.query_heads);
    if (gridDim.z > 1) {
      to.part_lse[size_t(blockIdx.z) * to.total_rows * to.query_heads + at] = lse;
    } else if (to.lse) {
      to.lse[at] = lse;
    }
  }
}

// A warp's output, divided: to y by way of the rows of its queries, or to the block's part by way of
// the block's key and value rows, which have room for 64 rows of f32.
template <class T, u32 D>
__device__ __forceinline__ void write_output(const Queries& queries, Sums<T, D>& sums,
                                             const Places<T>& places, const float* factors,
                                             T* q_own, T* k_rows, const Results<T>& to) {
  u32 first = warp_id() * WARP_ROWS, dim = queries.dim;
  auto factor = [&](u32 row) { return factors[row]; };
  if (gridDim.z == 1) {
    write_sums(sums, places, factor, q_own, dim, in_chunks<T>(to.y_stride | dim, to.y),
               [&](u32 row) { return queries.at(to.y, to.y_stride, first + row); });
    return;
  }
  float* own = reinterpret_cast<float*>(k_rows) + first * ROW_PITCH<float, D>;
  float* part = to.part_y + size_t(blockIdx.z) * to.total_rows * to.query_heads * dim;
  // All warps have used the keys and values.
  __syncthreads();
  write_sums(sums, places, factor, own, dim, in_chunks<float>(dim, part), [&](u32 row) {
    return queries.at(part, to.query_heads * dim, first + row);
  });
}

template <class T, u32 D>
__device__ void attention_tile(const Queries& queries, const T* q, u32 q_stride,
                               const Keys<T>& keys, float scale, const Results<T>& to) {
  constexpr u32 KEYS = FORWARD_KEYS<T>, PITCH = FORWARD_PITCH<T>, ROW = ROW_PITCH<T, D>;
  DYNAMIC_SHARED(shared);
  Space space{shared};
  T* q_rows = space.take<T>(TILE * ROW);
  T* k_rows = space.take<T>(KEYS * ROW);
  T* v_rows = space.take<T>(KEYS * ROW);
  float* scores = space.take<float>(TILE * PITCH);
  // f32 weights take the place of the scores; a lane writes what it has read.
  T* weights = sizeof(T) == 4 ? reinterpret_cast<T*>(scores) : space.take<T>(TILE * PITCH);
  float* factors = space.take<float>(TILE);
  // From here on what is the warp's own.
  u32 first = warp_id() * WARP_ROWS;
  T* q_own = q_rows + first * ROW;
  scores += first * PITCH;
  weights += first * PITCH;
  factors += first;

  u32 dim = queries.dim, begin = u32(u64(queries.keys()) * blockIdx.z / gridDim.z);
  u32 end = u32(u64(queries.keys()) * (blockIdx.z + 1) / gridDim.z);
  load_rows<T, D>(q_rows, TILE, dim, in_chunks<T>(q_stride | dim, q),
                  [&](u32 m) { return queries.at(q, q_stride, m); });
  bool wide = in_chunks<T>(keys.stride | dim, keys.k, keys.v);
  Places<T> places(scores);
  Running running;
#pragma unroll
  for (u32 i = 0; i < 4; ++i) {
    u32 seen = queries.seen(first + lane_id() / 8 + 4 * i);
    running.seen[i] = seen < end ? seen : end;
    running.most[i] = -INFINITY;
    running.sum[i] = 0.0f;
  }
  Sums<T, D> sums;
  sums.clear();
  for (u32 key = begin; key < end; key += KEYS) {
    // The last keys have been used.
    __syncthreads();
    keys.template load<D>(k_rows, v_rows, KEYS, key, end, dim, wide);
    __syncthreads();
    if (key >= queries.seen_by_warp()) continue;
    Sums<T, KEYS> products;
    products.clear();
    products.template add_transposed<D>(q_own, ROW, k_rows, ROW);
    products.store(scores, PITCH);
    __syncwarp();
    soften(scores, weights, factors, running, key, scale * LOG2_E);
    __syncwarp();
    sums.each(places, [&](u32 row) {
      return [factor = factors[row]](u32, float& number) { number *= factor; };
    });
    sums.template add<KEYS>(weights, PITCH, v_rows, ROW);
  }
  __syncwarp();
  finish(queries, running, factors, to);
  __syncwarp();
  write_output<T, D>(queries, sums, places, factors, q_own, k_rows, to);
}

// y = softmax(scale * q k') v for the tiles' query rows; grid (tiles, key_heads, parts). With more
// than one part each takes an even share of a tile's keys, and writes its own normalised output to
// part_y [parts, total_rows, query_heads, dim] and its logarithm to part_lse [parts, total_rows,
// query_heads]: attention_join_* makes y of them.
#define ATTENTION(T, t_name, D)                                                                  \
  ATTENTION_KERNEL(T, D, attention_##t_name##_##D)                                               \
  (const T* q, u32 q_stride, const T* k, const T* v, u32 kv_stride, const Tile* tiles,           \
   const u32* keys, T* y, u32 y_stride, float* lse, float* part_y, float* part_lse,              \
   u32 query_heads, u32 key_heads, u32 dim, float scale, u32 total_rows) {                       \
    Queries queries{tiles[blockIdx.x], blockIdx.y, query_heads / key_heads, dim};                \
    Keys<T> rows(k, v, kv_stride, keys, queries);                                                \
    Results<T> to{y, y_stride, lse, part_y, part_lse, query_heads, total_rows};                  \
    attention_tile<T, D>(queries, q, q_stride, rows, scale, to);                                 \
  }                                                                                              \
  REGISTER(attention_##t_name##_##D)

EACH_WIDTH(ATTENTION)
#undef ATTENTION

// The row and head of this warp, when warps are dealt out row after row.
struct RowHead {
  u64 number;
  bool is_there;
};
__device__ __forceinline__ RowHead row_head_of_warp(u32 rows, u32 heads) {
  u64 number = u64(blockIdx.x) * (blockDim.x / 32) + warp_id();
  return {number, number < u64(rows) * heads};
}

// y of the parts: each weighs what its logarithm says. A row that no part has seen becomes 0.
template <class T>
__device__ void attention_join(const float* part_y, const float* part_lse, u32 parts, T* y,
                               u32 y_stride, float* lse, u32 rows, u32 heads, u32 dim) {
  RowHead at = row_head_of_warp(rows, heads);
  if (!at.is_there) return;
  size_t all = size_t(rows) * heads;
  float most = -INFINITY, sum = 0.0f;
  for (u32 part = 0; part < parts; ++part) most = fmaxf(most, part_lse[part * all + at.number]);
  float base = most == -INFINITY ? 0.0f : most;
  for (u32 part = 0; part < parts; ++part) sum += expf(part_lse[part * all + at.number] - base);
  float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
  T* to = y + at.number / heads * y_stride + at.number % heads * dim;
  for (u32 i = lane_id(); i < dim; i += 32) {
    float mixed = 0.0f;
    for (u32 part = 0; part < parts; ++part) {
      size_t from = part * all + at.number;
      mixed += expf(part_lse[from] - base) * inverse * part_y[from * dim + i];
    }
    to[i] = from_f32<T>(mixed);
  }
  if (lse && lane_id() == 0) lse[at.number] = sum == 0.0f ? -INFINITY : base + logf(sum);
}

// delta[row, head] = y . dy, rows `stride` apart.
template <class T>
__device__ void attention_delta(const T* y, const T* dy, u32 stride, float* delta, u32 rows,
                                u32 heads, u32 dim) {
  RowHead at = row_head_of_warp(rows, heads);
  if (!at.is_there) return;
  size_t from = at.number / heads * stride + at.number % heads * dim;
  float sum = 0.0f;
  for (u32 i = lane_id(); i < dim; i += 32) sum += to_f32(y[from + i]) * to_f32(dy[from + i]);
  sum = warp_fold(sum, Sum{});
  if (lane_id() == 0) delta[at.number] = sum;
}

#define BESIDE(T, t_name)                                                                       \
  KERNEL(attention_join_##t_name)(const float* part_y, const float* part_lse, u32 parts, T* y,  \
                                  u32 y_stride, float* lse, u32 rows, u32 heads, u32 dim) {     \
    attention_join(part_y, part_lse, parts, y, y_stride, lse, rows, heads, dim);                \
  }                                                                                             \
  REGISTER(attention_join_##t_name)                                                             \
  KERNEL(attention_delta_##t_name)(const T* y, const T* dy, u32 stride, float* delta, u32 rows, \
                                   u32 heads, u32 dim) {                                        \
    attention_delta(y, dy, stride, delta, rows, heads, dim);                                    \
  }                                                                                             \
  REGISTER(attention_delta_##t_name)

BESIDE(float, f32)
BESIDE(bf16, bf16)
#undef BESIDE
