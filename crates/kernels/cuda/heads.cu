// What happens to the heads of queries and keys between their product and attention: an RMSNorm of
// each head (Qwen3's), where there is one, and the rotary embedding; and the way back. A warp takes
// a row and head, a lane every 32nd pair (i, i + dim/2) of it. The twins are norm.rs and rotary.rs
// in crates/lm/src/ops.

#include "common.cuh"

// Pairs of a lane: heads have up to 256 numbers.
constexpr int PAIRS = 4;

struct Pairs {
  float low[PAIRS], high[PAIRS];
};

// f(pair, column of its lower number) for the pairs of this lane.
template <class F>
__device__ __forceinline__ void each_pair(u32 half, F f) {
#pragma unroll
  for (int j = 0; j < PAIRS; ++j) {
    u32 i = threadIdx.x % 32 + 32 * j;
    if (i < half) f(j, i);
  }
}

template <class T>
__device__ __forceinline__ Pairs load_head(const T* from, u32 half) {
  Pairs pairs = {};
  each_pair(half, [&](int j, u32 i) {
    pairs.low[j] = to_f32(from[i]);
    pairs.high[j] = to_f32(from[i + half]);
  });
  return pairs;
}

template <class T>
__device__ __forceinline__ void store_head(T* to, const Pairs& pairs, u32 half) {
  each_pair(half, [&](int j, u32 i) {
    to[i] = from_f32<T>(pairs.low[j]);
    to[i + half] = from_f32<T>(pairs.high[j]);
  });
}

// Turns each pair by its angle; `sign` -1 turns back.
__device__ __forceinline__ void turn(Pairs& pairs, const float* cos, const float* sin, float sign,
                                     u32 half) {
  each_pair(half, [&](int j, u32 i) {
    float a = pairs.low[j], b = pairs.high[j], c = cos[i], s = sign * sin[i];
    pairs.low[j] = a * c - b * s;
    pairs.high[j] = b * c + a * s;
  });
}

// in, out: rows of `heads` heads, `*_stride` numbers apart; they may be the same. Where `weight`
// [dim] is not null each head is normed first, and its factor kept in inverses [rows, heads]. Then
// it turns by the row of cos, sin [rows, dim/2].
template <class T>
__device__ void turn_heads(const T* in, u32 in_stride, T* out, u32 out_stride, u32 rows, u32 heads,
                           u32 dim, const float* weight, float* inverses, float eps,
                           const float* cos, const float* sin) {
  u64 item = u64(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (item >= u64(rows) * heads) return;
  u32 row = u32(item / heads), head = u32(item % heads), half = dim / 2;
  Pairs pairs = load_head(in + size_t(row) * in_stride + size_t(head) * dim, half);
  if (weight) {
    float squares = 0.0f;
#pragma unroll
    for (int j = 0; j < PAIRS; ++j)
      squares += pairs.low[j] * pairs.low[j] + pairs.high[j] * pairs.high[j];
    squares = warp_fold(squares, Sum{});
    float inverse = 1.0f / sqrtf(squares / float(dim) + eps);
    if (inverses && threadIdx.x % 32 == 0) inverses[item] = inverse;
    each_pair(half, [&](int j, u32 i) {
      pairs.low[j] = pairs.low[j] * inverse * weight[i];
      pairs.high[j] = pairs.high[j] * inverse * weight[i + half];
    });
  }
  turn(pairs, cos + size_t(row) * half, sin + size_t(row) * half, 1.0f, half);
  store_head(out + size_t(row) * out_stride + size_t(head) * dim, pairs, half);
}

// d, the gradient of a normed head, becomes that of the head before; `sums` takes what the weight
// gets.
__device__ __forceinline__ void norm_head_backward(Pairs& d, const Pairs& raw, const float* weight,
                                                   float inverse, Pairs& sums, u32 half) {
  float pull = 0.0f;
  each_pair(half, [&](int j, u32 i) {
    sums.low[j] += d.low[j] * raw.low[j] * inverse;
    sums.high[j] += d.high[j] * raw.high[j] * inverse;
    d.low[j] *= weight[i];
    d.high[j] *= weight[i + half];
    pull += d.low[j] * raw.low[j] + d.high[j] * raw.high[j];
  });
  pull = warp_fold(pull, Sum{}) * inverse * inverse * inverse / float(2 * half);
#pragma unroll
  for (int j = 0; j < PAIRS; ++j) {
    d.low[j] = d.low[j] * inverse - raw.low[j] * pull;
    d.high[j] = d.high[j] * inverse - raw.high[j] * pull;
  }
}

// The warps' sums [dim] added up, in their order.
__device__ __forceinline__ void join_warps(const Pairs& sums, float* partial, u32 dim) {
  DYNAMIC_SHARED(space);
  float* all = reinterpret_cast<float*>(space);
  store_head(all + size_t(threadIdx.x / 32) * dim, sums, dim / 2);
  __syncthreads();
  for (u32 i = threadIdx.x; i < dim; i += blockDim.x) {
    float sum = 0.0f;
    for (u32 warp = 0; warp < blockDim.x / 32; ++warp) sum += all[size_t(warp) * dim + i];
    partial[size_t(blockIdx.x) * dim + i] = sum;
  }
}

// d, the gradient of what turn_heads gave, becomes that of what it took, in place. Where `weight` is
// not null `raw` is what it took, and partial [blocks, dim], where not null, gets each block's share
// of the gradient of the weight.
template <class T>
__device__ void heads_backward(T* d, u32 stride, u32 rows, u32 heads, u32 dim, const float* cos,
                               const float* sin, const T* raw, u32 raw_stride, const float* weight,
                               const float* inverses, float* partial) {
  u32 half = dim / 2;
  Run run = run_of_block(u64(rows) * heads);
  Pairs sums = {};
  for (u64 item = run.from + threadIdx.x / 32; item < run.to; item += blockDim.x / 32) {
    u32 row = u32(item / heads), head = u32(item % heads);
    T* at = d + size_t(row) * stride + size_t(head) * dim;
    Pairs pairs = load_head(at, half);
    turn(pairs, cos + size_t(row) * half, sin + size_t(row) * half, -1.0f, half);
    if (weight) {
      Pairs before = load_head(raw + size_t(row) * raw_stride + size_t(head) * dim, half);
      norm_head_backward(pairs, before, weight, inverses[item], sums, half);
    }
    store_head(at, pairs, half);
  }
  if (partial) join_warps(sums, partial, dim);
}

#define HEADS(T, t_name)                                                                       \
  KERNEL(heads_##t_name)(const T* in, u32 in_stride, T* out, u32 out_stride, u32 rows,         \
                         u32 heads, u32 dim, const float* weight, float* inverses, float eps,  \
                         const float* cos, const float* sin) {                                 \
    turn_heads(in, in_stride, out, out_stride, rows, heads, dim, weight, inverses, eps, cos,   \
               sin);                                                                           \
  }                                                                                            \
  REGISTER(heads_##t_name)                                                                     \
  KERNEL(heads_backward_##t_name)(T* d, u32 stride, u32 rows, u32 heads, u32 dim,              \
                                  const float* cos, const float* sin, const T* raw,            \
                                  u32 raw_stride, const float* weight, const float* inverses,  \
                                  float* partial) {                                            \
    heads_backward(d, stride, rows, heads, dim, cos, sin, raw, raw_stride, weight, inverses,   \
                   partial);                                                                   \
  }                                                                                            \
  REGISTER(heads_backward_##t_name)

HEADS(float, f32)
HEADS(bf16, bf16)
#undef HEADS
