// Attention backward: the gradient of queries by tiles of queries, those of keys and values by tiles
// of keys, so that no two blocks add to the same place. The weights are computed again from the
// logarithms that the forward pass kept:
//
//   p = exp(scale * q.k - lse)    s = p * (dy.v - delta)    delta = y.dy
//   dq = scale * sum of s k       dk = scale * sum of s q   dv = sum of p dy
//
// Weights and slopes of a warp's 16 rows stay its own: it writes them to shared memory in T, as the
// next product wants them, and meets nobody.

#include "queries.cuh"

// Keys, or queries, at a time; `step` in src/launch.rs has the same.
template <class T, u32 D>
constexpr u32 STEP = sizeof(T) == 2 ? 64 : D == 256 ? 8 : 32;

// Of them, what a warp holds the products of at a time, in registers.
template <class T, u32 D>
constexpr u32 PIECE = STEP<T, D> < 32 ? STEP<T, D> : 32;

// What the backward pass is given beside q, k and v.
template <class T>
struct Slopes {
  const T* dy;
  u32 stride;
  const float *lse, *delta;
  u32 query_heads;
};

template <class T, u32 D>
__device__ void backward_q_tile(const Queries& queries, const T* q, u32 q_stride,
                                const Keys<T>& keys, const Slopes<T>& given, float scale, T* dq,
                                u32 dq_stride) {
  constexpr u32 KEYS = STEP<T, D>, PITCH = KEYS + 8, ROW = ROW_PITCH<T, D>, N = PIECE<T, D>;
  DYNAMIC_SHARED(shared);
  Space space{shared};
  T* q_rows = space.take<T>(TILE * ROW);
  T* dy_rows = space.take<T>(TILE * ROW);
  T* k_rows = space.take<T>(KEYS * ROW);
  T* v_rows = space.take<T>(KEYS * ROW);
  T* slopes = space.take<T>(TILE * PITCH);
  float* lse = space.take<float>(TILE);
  float* delta = space.take<float>(TILE);
  u32* seen = space.take<u32>(TILE);

  u32 dim = queries.dim, first = warp_id() * WARP_ROWS;
  load_rows<T, D>(q_rows, TILE, dim, in_chunks<T>(q_stride | dim, q),
                  [&](u32 m) { return queries.at(q, q_stride, m); });
  load_rows<T, D>(dy_rows, TILE, dim, in_chunks<T>(given.stride | dim, given.dy),
                  [&](u32 m) { return queries.at(given.dy, given.stride, m); });
  for (u32 m = threadIdx.x; m < TILE; m += ATTENTION_THREADS) {
    bool is_there = m < queries.count();
    size_t at = queries.number(m, given.query_heads);
    lse[m] = is_there ? given.lse[at] * LOG2_E : 0.0f;
    delta[m] = is_there ? given.delta[at] : 0.0f;
    seen[m] = queries.seen(m);
  }
  T* q_own = q_rows + first * ROW;
  const T* dy_own = dy_rows + first * ROW;
  slopes += first * PITCH;
  Places<T> places(reinterpret_cast<float*>(slopes));
  bool wide = in_chunks<T>(keys.stride | dim, keys.k, keys.v);
  Sums<T, D> sums;
  sums.clear();
  for (u32 key = 0; key < queries.keys(); key += KEYS) {
    // The last keys have been used.
    __syncthreads();
    keys.template load<D>(k_rows, v_rows, KEYS, key, queries.keys(), dim, wide);
    __syncthreads();
    if (key >= queries.seen_by_warp()) continue;
#pragma unroll 1
    for (u32 piece = 0; piece < KEYS; piece += N) {
      Sums<T, N> scores, products;
      scores.clear();
      scores.template add_transposed<D>(q_own, ROW, k_rows + piece * ROW, ROW);
      products.clear();
      products.template add_transposed<D>(dy_own, ROW, v_rows + piece * ROW, ROW);
      scores.each_with(places, products, [&](u32 row) {
        u32 sees = seen[first + row], at = key + piece;
        float total = lse[first + row], mean = delta[first + row];
        T* to = slopes + row * PITCH + piece;
        return [=](u32 column, float score, float product) {
          float p = at + column < sees ? exp2f(score * scale * LOG2_E - total) : 0.0f;
          to[column] = from_f32<T>(p * (product - mean));
        };
      });
    }
    __syncwarp();
    sums.template add<KEYS>(slopes, PITCH, k_rows, ROW);
  }
  write_sums(sums, places, [&](u32) { return scale; }, q_own, dim,
             in_chunks<T>(dq_stride | dim, dq),
             [&](u32 row) { return queries.at(dq, dq_stride, first + row); });
}

template <class T, u32 D>
__device__ void backward_kv_tile(const KeyTile& tile, const Queries& queries, const T* q,
                                 u32 q_stride, const T* k, const T* v, u32 kv_stride,
                                 const Slopes<T>& given, float scale, T* dk, T* dv,
                                 u32 dkv_stride) {
  constexpr u32 QUERIES = STEP<T, D>, PITCH = QUERIES + 8, ROW = ROW_PITCH<T, D>, N = PIECE<T, D>;
  DYNAMIC_SHARED(shared);
  Space space{shared};
  T* k_rows = space.take<T>(TILE * ROW);
  T* v_rows = space.take<T>(TILE * ROW);
  T* q_rows = space.take<T>(QUERIES * ROW);
  T* dy_rows = space.take<T>(QUERIES * ROW);
  T* weights = space.take<T>(TILE * PITCH);
  T* slopes = space.take<T>(TILE * PITCH);
  float* lse = space.take<float>(QUERIES);
  float* delta = space.take<float>(QUERIES);
  // Of the keys below this one a query sees all that the tile has.
  u32* sees = space.take<u32>(QUERIES);

  u32 dim = queries.dim, first = warp_id() * WARP_ROWS, at = queries.key_head * dim;
  auto key_row = [&](auto* rows, u32 stride, u32 r) {
    return r < tile.rows ? rows + size_t(tile.row + r) * stride + at : nullptr;
  };
  bool wide = in_chunks<T>(kv_stride | dim, k, v);
  load_rows<T, D>(k_rows, TILE, dim, wide, [&](u32 r) { return key_row(k, kv_stride, r); });
  load_rows<T, D>(v_rows, TILE, dim, wide, [&](u32 r) { return key_row(v, kv_stride, r); });
  T* k_own = k_rows + first * ROW;
  T* v_own = v_rows + first * ROW;
  weights += first * PITCH;
  slopes += first * PITCH;
  Places<T> places(reinterpret_cast<float*>(slopes));
  bool q_wide = in_chunks<T>(q_stride | dim, q), dy_wide = in_chunks<T>(given.stride | dim, given.dy);
  Sums<T, D> k_sums, v_sums;
  k_sums.clear();
  v_sums.clear();
  for (u32 from = 0; from < queries.count(); from += QUERIES) {
    // The last queries have been used.
    __syncthreads();
    load_rows<T, D>(q_rows, QUERIES, dim, q_wide,
                    [&](u32 m) { return queries.at(q, q_stride, from + m); });
    load_rows<T, D>(dy_rows, QUERIES, dim, dy_wide,
                    [&](u32 m) { return queries.at(given.dy, given.stride, from + m); });
    for (u32 m = threadIdx.x; m < QUERIES; m += ATTENTION_THREADS) {
      bool is_there = from + m < queries.count();
      size_t number = queries.number(from + m, given.query_heads);
      lse[m] = is_there ? given.lse[number] * LOG2_E : 0.0f;
      delta[m] = is_there ? given.delta[number] : 0.0f;
      sees[m] = is_there ? queries.row(from + m) + 1 : 0;
    }
    __syncthreads();
    // A warp without keys, or whose keys are all behind these queries.
    if (first >= tile.rows || tile.row + first > queries.row(from + QUERIES - 1)) continue;
#pragma unroll 1
    for (u32 piece = 0; piece < QUERIES; piece += N) {
      Sums<T, N> scores, products;
      scores.clear();
      scores.template add_transposed<D>(k_own, ROW, q_rows + piece * ROW, ROW);
      products.clear();
      products.template add_transposed<D>(v_own, ROW, dy_rows + piece * ROW, ROW);
      scores.each_with(places, products, [&](u32 row) {
        u32 key = tile.row + first + row, at = row * PITCH;
        return [=](u32 column, float score, float product) {
          u32 m = piece + column;
          float p = key < sees[m] ? exp2f(score * scale * LOG2_E - lse[m]) : 0.0f;
          weights[at + m] = from_f32<T>(p);
          slopes[at + m] = from_f32<T>(p * (product - delta[m]));
        };
      });
    }
    __syncwarp();
    v_sums.template add<QUERIES>(weights, PITCH, dy_rows, ROW);
    k_sums.template add<QUERIES>(slopes, PITCH, q_rows, ROW);
  }
  bool d_wide = in_chunks<T>(dkv_stride | dim, dk, dv);
  write_sums(k_sums, places, [&](u32) { return scale; }, k_own, dim, d_wide,
             [&](u32 row) { return key_row(dk, dkv_stride, first + row); });
  write_sums(v_sums, places, [](u32) { return 1.0f; }, v_own, dim, d_wide,
             [&](u32 row) { return key_row(dv, dkv_stride, first + row); });
}

#define BACKWARD(T, t_name, D)                                                                   \
  /* Grid (tiles, key_heads). */                                                                 \
  ATTENTION_KERNEL(T, D, attention_backward_q_##t_name##_##D)                                    \
  (const T* q, u32 q_stride, const T* k, const T* v, u32 kv_stride, const Tile* tiles,           \
   const u32* keys, const T* dy, u32 y_stride, const float* lse, const float* delta, T* dq,      \
   u32 dq_stride, u32 query_heads, u32 key_heads, u32 dim, float scale) {                        \
    Queries queries{tiles[blockIdx.x], blockIdx.y, query_heads / key_heads, dim};                \
    Keys<T> rows(k, v, kv_stride, keys, queries);                                                \
    Slopes<T> given{dy, y_stride, lse, delta, query_heads};                                      \
    backward_q_tile<T, D>(queries, q, q_stride, rows, given, scale, dq, dq_stride);              \
  }                                                                                              \
  REGISTER(attention_backward_q_##t_name##_##D)                                                  \
  /* Grid (key_tiles, key_heads); sums over all query heads of the group. */                     \
  ATTENTION_KERNEL(T, D, attention_backward_kv_##t_name##_##D)                                   \
  (const T* q, u32 q_stride, const T* k, const T* v, u32 kv_stride, const KeyTile* key_tiles,    \
   const T* dy, u32 y_stride, const float* lse, const float* delta, T* dk, T* dv,                \
   u32 dkv_stride, u32 query_heads, u32 key_heads, u32 dim, float scale) {                       \
    KeyTile tile = key_tiles[blockIdx.x];                                                        \
    /* The rows that see one of the keys. */                                                     \
    u32 rows = tile.until > tile.row ? tile.until - tile.row : 0;                                \
    Queries queries{{tile.row, rows, 0, 0}, blockIdx.y, query_heads / key_heads, dim};           \
    Slopes<T> given{dy, y_stride, lse, delta, query_heads};                                      \
    backward_kv_tile<T, D>(tile, queries, q, q_stride, k, v, kv_stride, given, scale, dk, dv,    \
                           dkv_stride);                                                          \
  }                                                                                              \
  REGISTER(attention_backward_kv_##t_name##_##D)

EACH_WIDTH(BACKWARD)
#undef BACKWARD
