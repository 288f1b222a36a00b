// Rows and columns: sums over rows, biases, gathering and scattering, and whole arrays.

#include "common.cuh"

// to[i] = the sum of column i of partial [rows, width], row after row; added to it where `add`.
KERNEL(column_sums)(const float* partial, float* to, u32 rows, u32 width, u32 add) {
  u32 column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= width) return;
  float sum = add ? to[column] : 0.0f;
  // The loads do not wait for the sum.
#pragma unroll 8
  for (u32 row = 0; row < rows; ++row) sum += partial[size_t(row) * width + column];
  to[column] = sum;
}
REGISTER(column_sums)

// partial[block, i] = the sum of column i over the block's rows of `from`, `stride` apart.
template <class T>
__device__ void partial_columns(const T* from, u32 stride, float* partial, u32 rows, u32 width) {
  u32 column = blockIdx.y * blockDim.x + threadIdx.x;
  if (column >= width) return;
  Run run = run_of_block(rows);
  float sum = 0.0f;
#pragma unroll 4
  for (u64 row = run.from; row < run.to; ++row) sum += to_f32(from[size_t(row) * stride + column]);
  partial[size_t(blockIdx.x) * width + column] = sum;
}

// Rows of y, `stride` apart, get `bias` [width] added.
template <class T>
__device__ void add_bias(T* y, u32 stride, const float* bias, u32 rows, u32 width) {
  u32 row = blockIdx.x;
  if (row >= rows) return;
  y += size_t(row) * stride;
  each_column(width, in_fours(width, y, bias), [&](u32 i, auto count) {
    constexpr int N = decltype(count)::value;
    Few<N> few = load<N>(y + i), more = load<N>(bias + i);
    for (int c = 0; c < N; ++c) few.x[c] += more.x[c];
    store(y + i, few);
  });
}

template <class X, class Y>
__device__ __forceinline__ void copy_row(const X* from, Y* to, u32 width) {
  each_column(width, in_fours(width, from, to), [&](u32 i, auto count) {
    constexpr int N = decltype(count)::value;
    store(to + i, load<N>(from + i));
  });
}

// Row r of `to` [rows, width] is row index[r] of `from`.
template <class X, class Y>
__device__ void gather_rows(const X* from, const u32* index, Y* to, u32 rows, u32 width) {
  u32 row = blockIdx.x;
  if (row >= rows) return;
  copy_row(from + size_t(index[row]) * width, to + size_t(row) * width, width);
}

// Row targets[t] of `to` gets the sum of the rows sources[offsets[t]..offsets[t + 1]] of `from`, in
// that order. No two targets are the same row.
template <class X>
__device__ void add_rows(const X* from, const u32* targets, const u32* offsets, const u32* sources,
                         float* to, u32 targets_count, u32 width) {
  u32 target = blockIdx.x;
  if (target >= targets_count) return;
  u32 begin = offsets[target], end = offsets[target + 1];
  to += size_t(targets[target]) * width;
  each_column(width, in_fours(width, from, to), [&](u32 i, auto count) {
    constexpr int N = decltype(count)::value;
    Few<N> sum = {};
    for (u32 s = begin; s < end; ++s) {
      Few<N> more = load<N>(from + size_t(sources[s]) * width + i);
      for (int c = 0; c < N; ++c) sum.x[c] += more.x[c];
    }
    Few<N> few = load<N>(to + i);
    for (int c = 0; c < N; ++c) few.x[c] += sum.x[c];
    store(to + i, few);
  });
}

// Row r of k and v, `stride` apart, goes to row slots[r] of k_to and v_to.
template <class T>
__device__ void store_rows(const T* k, const T* v, u32 stride, const u32* slots, T* k_to, T* v_to,
                           u32 rows, u32 width) {
  u32 row = blockIdx.x;
  if (row >= rows) return;
  size_t from = size_t(row) * stride, to = size_t(slots[row]) * width;
  copy_row(k + from, k_to + to, width);
  copy_row(v + from, v_to + to, width);
}

#define ROWS(T, t_name)                                                                        \
  KERNEL(partial_columns_##t_name)(const T* from, u32 stride, float* partial, u32 rows,        \
                                   u32 width) {                                                \
    partial_columns(from, stride, partial, rows, width);                                       \
  }                                                                                            \
  REGISTER(partial_columns_##t_name)                                                           \
  KERNEL(add_bias_##t_name)(T* y, u32 stride, const float* bias, u32 rows, u32 width) {        \
    add_bias(y, stride, bias, rows, width);                                                    \
  }                                                                                            \
  REGISTER(add_bias_##t_name)                                                                  \
  KERNEL(add_rows_##t_name)(const T* from, const u32* targets, const u32* offsets,             \
                            const u32* sources, float* to, u32 targets_count, u32 width) {     \
    add_rows(from, targets, offsets, sources, to, targets_count, width);                       \
  }                                                                                            \
  REGISTER(add_rows_##t_name)                                                                  \
  KERNEL(store_rows_##t_name)(const T* k, const T* v, u32 stride, const u32* slots, T* k_to,   \
                              T* v_to, u32 rows, u32 width) {                                  \
    store_rows(k, v, stride, slots, k_to, v_to, rows, width);                                  \
  }                                                                                            \
  REGISTER(store_rows_##t_name)

ROWS(float, f32)
ROWS(bf16, bf16)
#undef ROWS

#define GATHER(X, x_name, Y, y_name)                                                       \
  KERNEL(gather_rows_##x_name##_##y_name)(const X* from, const u32* index, Y* to, u32 rows, \
                                          u32 width) {                                     \
    gather_rows(from, index, to, rows, width);                                             \
  }                                                                                        \
  REGISTER(gather_rows_##x_name##_##y_name)

GATHER(float, f32, float, f32)
GATHER(bf16, bf16, bf16, bf16)
GATHER(bf16, bf16, float, f32)
#undef GATHER

KERNEL(convert_f32_bf16)(const float* from, bf16* to, u64 n) {
  each_of(n, in_fours(0, from, to), [&](u64 i, auto count) {
    constexpr int N = decltype(count)::value;
    store(to + i, load<N>(from + i));
  });
}
REGISTER(convert_f32_bf16)

KERNEL(fill_f32)(float* to, float value, u64 n) {
  each_of(n, in_fours(0, to), [&](u64 i, auto count) {
    constexpr int N = decltype(count)::value;
    Few<N> few;
    for (int c = 0; c < N; ++c) few.x[c] = value;
    store(to + i, few);
  });
}
REGISTER(fill_f32)
