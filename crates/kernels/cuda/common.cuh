// What all kernels share: names of types, how a kernel is declared, loads of several numbers at a
// time, and sums over warps and blocks.
//
// Sums over threads are folded in a fixed order, and nothing is added atomically: the same launch
// gives the same bits.
#pragma once

#ifdef GRADUS_EMULATE
#include "emulate.h"
#else
#include <cuda_bf16.h>
#include <mma.h>
// The emulator's list of kernels; a GPU finds them by name.
#define REGISTER(name)
#define DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
#endif

#define KERNEL(name) extern "C" __global__ void name

using u32 = unsigned int;
using u64 = unsigned long long;
using bf16 = __nv_bfloat16;

constexpr u32 ALL_LANES = 0xffffffffu;

__device__ __forceinline__ float to_f32(float x) { return x; }
__device__ __forceinline__ float to_f32(bf16 x) { return __bfloat162float(x); }

template <class T>
__device__ __forceinline__ T from_f32(float x);
template <>
__device__ __forceinline__ float from_f32<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ bf16 from_f32<bf16>(float x) {
  return __float2bfloat16_rn(x);
}

// Numbers that lie together and are read and written in one access.
template <class T, int N>
struct alignas(N * sizeof(T)) Pack {
  T x[N];
};

// As many numbers, as f32.
template <int N>
struct Few {
  float x[N];
};

template <int N, class T>
__device__ __forceinline__ Few<N> load(const T* from) {
  Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(from);
  Few<N> few;
#pragma unroll
  for (int i = 0; i < N; ++i) few.x[i] = to_f32(pack.x[i]);
  return few;
}

template <int N, class T>
__device__ __forceinline__ void store(T* to, const Few<N>& few) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) pack.x[i] = from_f32<T>(few.x[i]);
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

template <class T>
__device__ __forceinline__ bool aligned(const T* at, size_t bytes) {
  return reinterpret_cast<size_t>(at) % bytes == 0;
}

// Whether rows of `width` numbers, beginning at these places, can be taken four at a time.
template <class... T>
__device__ __forceinline__ bool in_fours(u64 width, const T*... at) {
  return width % 4 == 0 && (aligned(at, 4 * sizeof(T)) && ...);
}

// How many numbers a call of a loop's body takes: its type says so.
template <int N>
struct Count {
  static constexpr int value = N;
};

// The block's threads go over the columns 0..width, four at a time where `fours`:
// f(column, Count<4>) or f(column, Count<1>).
template <class F>
__device__ __forceinline__ void each_column(u32 width, bool fours, F f) {
  if (fours) {
    for (u32 i = 4 * threadIdx.x; i < width; i += 4 * blockDim.x) f(i, Count<4>{});
  } else {
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) f(i, Count<1>{});
  }
}

// All threads of the grid go over 0..n, likewise; what is over after the fours comes one by one.
template <class F>
__device__ __forceinline__ void each_of(u64 n, bool fours, F f) {
  u64 thread = u64(blockIdx.x) * blockDim.x + threadIdx.x, threads = u64(gridDim.x) * blockDim.x;
  u64 whole = fours ? n / 4 * 4 : 0;
  for (u64 i = 4 * thread; i < whole; i += 4 * threads) f(i, Count<4>{});
  for (u64 i = whole + thread; i < n; i += threads) f(i, Count<1>{});
}

struct Sum {
  template <class V>
  __device__ __forceinline__ V operator()(V a, V b) const {
    return a + b;
  }
};

// The larger; what is not a number loses.
struct Most {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

struct Or {
  __device__ __forceinline__ u32 operator()(u32 a, u32 b) const { return a | b; }
};

// All lanes' values folded, `width` neighbouring lanes at a time; every lane gets the result.
template <class V, class Op>
__device__ __forceinline__ V warp_fold(V value, Op op, int width = 32) {
  for (int with = width / 2; with > 0; with /= 2)
    value = op(value, __shfl_xor_sync(ALL_LANES, value, with));
  return value;
}

// A place for each warp of a block. Not of a template: see emulate.h.
static __device__ double* warp_places() {
  __shared__ double places[32];
  return places;
}

// All threads' values folded; every thread gets the result. All threads of the block must call it.
template <class V, class Op>
__device__ __forceinline__ V block_fold(V value, Op op) {
  V* places = reinterpret_cast<V*>(warp_places());
  value = warp_fold(value, op);
  // The last fold's places have been read.
  __syncthreads();
  if (threadIdx.x % 32 == 0) places[threadIdx.x / 32] = value;
  __syncthreads();
  value = places[0];
  for (u32 warp = 1; warp < blockDim.x / 32; ++warp) value = op(value, places[warp]);
  return value;
}

// Rows of this block when `rows` are dealt out in contiguous runs.
struct Run {
  u64 from, to;
};
__device__ __forceinline__ Run run_of_block(u64 rows) {
  u64 each = (rows + gridDim.x - 1) / gridDim.x;
  u64 from = blockIdx.x * each;
  return {from < rows ? from : rows, from + each < rows ? from + each : rows};
}
