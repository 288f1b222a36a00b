// RMSNorm of rows [rows, width] and its gradients; the twin of crates/lm/src/ops/norm.rs.

#include "common.cuh"

template <class X, class Y>
__device__ __forceinline__ void scale_row(const X* x, const float* w, float inverse, Y* y,
                                          u32 width) {
  each_column(width, in_fours(width, x, w, y), [&](u32 i, auto count) {
    constexpr int N = decltype(count)::value;
    Few<N> few = load<N>(x + i), weights = load<N>(w + i);
    for (int c = 0; c < N; ++c) few.x[c] = few.x[c] * inverse * weights.x[c];
    store(y + i, few);
  });
}

template <class X, class Y>
__device__ void rms_norm(const X* x, const float* w, Y* y, float* inverses, u32 rows, u32 width,
                         float eps) {
  u32 row = blockIdx.x;
  if (row >= rows) return;
  x += size_t(row) * width;
  float squares = 0.0f;
  each_column(width, in_fours(width, x), [&](u32 i, auto count) {
    constexpr int N = decltype(count)::value;
    Few<N> few = load<N>(x + i);
    for (int c = 0; c < N; ++c) squares += few.x[c] * few.x[c];
  });
  squares = block_fold(squares, Sum{});
  float inverse = 1.0f / sqrtf(squares / float(width) + eps);
  if (threadIdx.x == 0) inverses[row] = inverse;
  scale_row(x, w, inverse, y + size_t(row) * width, width);
}

template <class X, class Y>
__device__ void scale_rows(const X* x, const float* w, const float* inverses, Y* y, u32 rows,
                           u32 width) {
  u32 row = blockIdx.x;
  if (row >= rows) return;
  scale_row(x + size_t(row) * width, w, inverses[row], y + size_t(row) * width, width);
}

// Adds a row's gradient to dx, and to `sums` [width] what the row gives to the gradient of w; a
// column of `sums` belongs to one thread.
template <class D>
__device__ __forceinline__ void norm_row_backward(const float* x, const float* w, float inverse,
                                                  const D* dy, float* dx, float* sums, u32 width) {
  bool fours = in_fours(width, x, w, dy, dx);
  float pull = 0.0f;
  each_column(width, fours, [&](u32 i, auto count) {
    constexpr int N = decltype(count)::value;
    Few<N> a = load<N>(x + i), b = load<N>(w + i), g = load<N>(dy + i);
    for (int c = 0; c < N; ++c) pull += g.x[c] * b.x[c] * a.x[c];
  });
  pull = block_fold(pull, Sum{}) * inverse * inverse * inverse / float(width);
  each_column(width, fours, [&](u32 i, auto count) {
    constexpr int N = decltype(count)::value;
    Few<N> a = load<N>(x + i), b = load<N>(w + i), g = load<N>(dy + i), d = load<N>(dx + i);
    for (int c = 0; c < N; ++c) {
      d.x[c] += g.x[c] * b.x[c] * inverse - a.x[c] * pull;
      if (sums) sums[i + c] += g.x[c] * a.x[c] * inverse;
    }
    store(dx + i, d);
  });
}

// dx [rows, width] += the gradient of x, dy being that of y. Where `partial` [blocks, width] is not
// null it gets each block's share of the gradient of w.
template <class D>
__device__ void rms_norm_backward(const float* x, const float* w, const float* inverses,
                                  const D* dy, float* dx, float* partial, u32 rows, u32 width) {
  DYNAMIC_SHARED(space);
  float* sums = partial ? reinterpret_cast<float*>(space) : nullptr;
  Run run = run_of_block(rows);
  // Here columns are dealt out one by one, in the rows perhaps in fours: hence the barriers.
  if (sums) {
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) sums[i] = 0.0f;
    __syncthreads();
  }
  for (u64 row = run.from; row < run.to; ++row) {
    size_t at = size_t(row) * width;
    norm_row_backward(x + at, w, inverses[row], dy + at, dx + at, sums, width);
  }
  if (sums) {
    __syncthreads();
    for (u32 i = threadIdx.x; i < width; i += blockDim.x)
      partial[size_t(blockIdx.x) * width + i] = sums[i];
  }
}

#define NORMS(Y, y_name)                                                                      \
  KERNEL(rms_norm_f32_##y_name)(const float* x, const float* w, Y* y, float* inverses,        \
                                u32 rows, u32 width, float eps) {                             \
    rms_norm(x, w, y, inverses, rows, width, eps);                                            \
  }                                                                                           \
  REGISTER(rms_norm_f32_##y_name)                                                             \
  KERNEL(scale_rows_f32_##y_name)(const float* x, const float* w, const float* inverses, Y* y, \
                                  u32 rows, u32 width) {                                      \
    scale_rows(x, w, inverses, y, rows, width);                                               \
  }                                                                                           \
  REGISTER(scale_rows_f32_##y_name)                                                           \
  KERNEL(rms_norm_backward_##y_name)(const float* x, const float* w, const float* inverses,   \
                                     const Y* dy, float* dx, float* partial, u32 rows,        \
                                     u32 width) {                                             \
    rms_norm_backward(x, w, inverses, dy, dx, partial, rows, width);                          \
  }                                                                                           \
  REGISTER(rms_norm_backward_##y_name)

NORMS(float, f32)
NORMS(bf16, bf16)
#undef NORMS
