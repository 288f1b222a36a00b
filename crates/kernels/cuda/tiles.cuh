// Products of small matrices in shared memory, for attention. A warp owns 16 rows of the result and
// keeps them in registers; bf16 goes through the tensor cores, f32 through plain multiply-adds.
//
// In shared memory consecutive rows lie ROW_PITCH numbers apart: 16 bytes more than their width, so
// that the same column of eight consecutive rows lies in different banks. Rows begin at multiples of
// 16 bytes, and every 16th at a multiple of 256, as the tensor cores' loads ask for.
#pragma once

#include "types.cuh"

// Threads of a block: four warps of 16 rows make a tile of 64.
constexpr u32 ATTENTION_THREADS = 128;
constexpr u32 WARP_ROWS = 16;
// Blocks that a processor is to hold at once, which bounds a thread's registers: as many as an H100's
// 227 KiB of shared memory have room for. tests/it/names.rs holds that nothing spills with it.
template <class T, u32 D>
constexpr u32 ATTENTION_BLOCKS = D > 128             ? 1
                                 : sizeof(T) == 4    ? 2
                                 : D > 96            ? 2
                                 : D > 64            ? 3
                                                     : 4;

// A kernel for heads that are padded to D numbers; `attention_width` in src/launch.rs says which.
#define ATTENTION_KERNEL(T, D, name) \
  extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, ATTENTION_BLOCKS<T, D>) name

// KERNEL(T, name of T, D) for each width. The driver, or the compiler, has to work on every one of
// them: f32, which is for checks, has fewer.
#define EACH_WIDTH(KERNEL) \
  KERNEL(float, f32, 32)   \
  KERNEL(float, f32, 64)   \
  KERNEL(float, f32, 128)  \
  KERNEL(float, f32, 256)  \
  KERNEL(bf16, bf16, 32)   \
  KERNEL(bf16, bf16, 64)   \
  KERNEL(bf16, bf16, 96)   \
  KERNEL(bf16, bf16, 128)  \
  KERNEL(bf16, bf16, 256)

__device__ __forceinline__ u32 lane_id() { return threadIdx.x % 32; }
__device__ __forceinline__ u32 warp_id() { return threadIdx.x / 32; }

// Numbers of 16 bytes.
template <class T>
constexpr u32 CHUNK = 16 / sizeof(T);

template <class T, u32 D>
constexpr u32 ROW_PITCH = D + CHUNK<T>;

// Hands out a block's shared memory.
struct Space {
  unsigned char* at;
  template <class T>
  __device__ __forceinline__ T* take(u32 count) {
    T* taken = reinterpret_cast<T*>(at);
    at += count * sizeof(T);
    return taken;
  }
};

// Fills `rows` rows of D numbers: row r from row_at(r), zeros where that is null and behind `dim`.
// `wide`: all rows may be read 16 bytes at a time. Followed by a barrier of the caller's.
template <class T, u32 D, class F>
__device__ __forceinline__ void load_rows(T* to, u32 rows, u32 dim, bool wide, F row_at) {
  constexpr u32 chunks = D / CHUNK<T>;
  for (u32 i = threadIdx.x; i < rows * chunks; i += ATTENTION_THREADS) {
    u32 row = i / chunks, column = i % chunks * CHUNK<T>;
    const T* from = row_at(row);
    Pack<T, CHUNK<T>> pack;
    if (from && wide && column < dim) {
      pack = *reinterpret_cast<const Pack<T, CHUNK<T>>*>(from + column);
    } else {
#pragma unroll
      for (u32 c = 0; c < CHUNK<T>; ++c)
        pack.x[c] = from && column + c < dim ? from[column + c] : from_f32<T>(0.0f);
    }
    *reinterpret_cast<Pack<T, CHUNK<T>>*>(to + row * ROW_PITCH<T, D> + column) = pack;
  }
}

// The warp writes its 16 rows: row r to row_at(r), unless that is null. After a meeting of the warp.
template <class T, u32 D, class F>
__device__ __forceinline__ void store_rows_of_warp(const T* from, u32 dim, bool wide, F row_at) {
  constexpr u32 chunks = D / CHUNK<T>;
  for (u32 i = lane_id(); i < WARP_ROWS * chunks; i += 32) {
    u32 row = i / chunks, column = i % chunks * CHUNK<T>;
    T* to = row_at(row);
    if (!to || column >= dim) continue;
    const T* at = from + row * ROW_PITCH<T, D> + column;
    if (wide) {
      *reinterpret_cast<Pack<T, CHUNK<T>>*>(to + column) =
          *reinterpret_cast<const Pack<T, CHUNK<T>>*>(at);
    } else {
      for (u32 c = 0; c < CHUNK<T> && column + c < dim; ++c) to[column + c] = at[c];
    }
  }
}

// Whether rows of `dim` numbers, that far apart and beginning at these places, can be read and
// written 16 bytes at a time.
template <class T, class... P>
__device__ __forceinline__ bool in_chunks(u32 strides_and_dim, const P*... at) {
  return strides_and_dim % CHUNK<T> == 0 && (aligned(at, 16) && ...);
}

// 16 x N sums of a warp, and where in them a lane's numbers are.
template <class T, u32 N>
struct Sums;
template <class T>
struct Places;

// f32: a lane has the rows lane / 8 + 4 i and the columns lane % 8 + 8 j.
template <>
struct Places<float> {
  __device__ __forceinline__ explicit Places(float*) {}
};

template <u32 N>
struct Sums<float, N> {
  static constexpr u32 COLUMNS = N / 8;
  float x[4][COLUMNS];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (u32 i = 0; i < 4; ++i)
#pragma unroll
      for (u32 j = 0; j < COLUMNS; ++j) x[i][j] = 0.0f;
  }

  // Adds a [16, K] times b [K, N].
  template <u32 K>
  __device__ __forceinline__ void add(const float* a, u32 a_pitch, const float* b, u32 b_pitch) {
    a += lane_id() / 8 * a_pitch;
    b += lane_id() % 8;
#pragma unroll 1
    for (u32 k = 0; k < K; ++k) {
      float left[4];
#pragma unroll
      for (u32 i = 0; i < 4; ++i) left[i] = a[4 * i * a_pitch + k];
#pragma unroll
      for (u32 j = 0; j < COLUMNS; ++j) {
        float right = b[k * b_pitch + 8 * j];
#pragma unroll
        for (u32 i = 0; i < 4; ++i) x[i][j] += left[i] * right;
      }
    }
  }

  // Adds a [16, K] times the transposed b [N, K].
  template <u32 K>
  __device__ __forceinline__ void add_transposed(const float* a, u32 a_pitch, const float* b,
                                                 u32 b_pitch) {
    a += lane_id() / 8 * a_pitch;
    b += lane_id() % 8 * b_pitch;
#pragma unroll 1
    for (u32 k = 0; k < K; k += 4) {
      Few<4> left[4];
#pragma unroll
      for (u32 i = 0; i < 4; ++i) left[i] = load<4>(a + 4 * i * a_pitch + k);
#pragma unroll
      for (u32 j = 0; j < COLUMNS; ++j) {
        Few<4> right = load<4>(b + 8 * j * b_pitch + k);
#pragma unroll
        for (u32 i = 0; i < 4; ++i)
#pragma unroll
          for (u32 c = 0; c < 4; ++c) x[i][j] += left[i].x[c] * right.x[c];
      }
    }
  }

  // f(row) gives what is called with the columns and numbers of that row.
  template <class F>
  __device__ __forceinline__ void each(const Places<float>&, F f) {
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
      auto one = f(lane_id() / 8 + 4 * i);
#pragma unroll
      for (u32 j = 0; j < COLUMNS; ++j) one(lane_id() % 8 + 8 * j, x[i][j]);
    }
  }

  // Likewise, with the other sums' numbers at the same places.
  template <class F>
  __device__ __forceinline__ void each_with(const Places<float>&, const Sums& other, F f) {
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
      auto one = f(lane_id() / 8 + 4 * i);
#pragma unroll
      for (u32 j = 0; j < COLUMNS; ++j) one(lane_id() % 8 + 8 * j, x[i][j], other.x[i][j]);
    }
  }

  __device__ __forceinline__ void store(float* to, u32 to_pitch) {
    each(Places<float>(nullptr), [&](u32 row) {
      return [=](u32 column, float number) { to[row * to_pitch + column] = number; };
    });
  }
};

// bf16: the tensor cores' fragments. Which numbers of a tile a lane has is not documented, so it is
// asked: a tile in which every number is its own place is loaded once.
using Fragment = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float>;

template <>
struct Places<bf16> {
  u32 place[Fragment::num_elements];

  // `space`: 256 numbers of the warp's own.
  __device__ __forceinline__ explicit Places(float* space) {
    for (u32 i = lane_id(); i < 256; i += 32) space[i] = float(i);
    __syncwarp();
    Fragment tile;
    nvcuda::wmma::load_matrix_sync(tile, space, 16, nvcuda::wmma::mem_row_major);
    __syncwarp();
#pragma unroll
    for (int e = 0; e < Fragment::num_elements; ++e) place[e] = u32(tile.x[e]);
  }
};

template <u32 N>
struct Sums<bf16, N> {
  static constexpr u32 TILES = N / 16;
  Fragment x[TILES];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (u32 j = 0; j < TILES; ++j) nvcuda::wmma::fill_fragment(x[j], 0.0f);
  }

  // Adds a [16, K] times b, a tile of 16 x 16 of which begins at tile_at(k, j).
  template <u32 K, class Layout, class F>
  __device__ __forceinline__ void add_tiles(const bf16* a, u32 a_pitch, u32 b_pitch, F tile_at) {
    using namespace nvcuda::wmma;
#pragma unroll 1
    for (u32 k = 0; k < K; k += 16) {
      fragment<matrix_a, 16, 16, 16, bf16, row_major> left;
      load_matrix_sync(left, a + k, a_pitch);
#pragma unroll
      for (u32 j = 0; j < TILES; ++j) {
        fragment<matrix_b, 16, 16, 16, bf16, Layout> right;
        load_matrix_sync(right, tile_at(k, j), b_pitch);
        mma_sync(x[j], left, right, x[j]);
      }
    }
  }

  template <u32 K>
  __device__ __forceinline__ void add(const bf16* a, u32 a_pitch, const bf16* b, u32 b_pitch) {
    add_tiles<K, nvcuda::wmma::row_major>(
        a, a_pitch, b_pitch, [=](u32 k, u32 j) { return b + k * b_pitch + 16 * j; });
  }

  template <u32 K>
  __device__ __forceinline__ void add_transposed(const bf16* a, u32 a_pitch, const bf16* b,
                                                 u32 b_pitch) {
    add_tiles<K, nvcuda::wmma::col_major>(
        a, a_pitch, b_pitch, [=](u32 k, u32 j) { return b + 16 * j * b_pitch + k; });
  }

  template <class F>
  __device__ __forceinline__ void each(const Places<bf16>& places, F f) {
#pragma unroll
    for (int e = 0; e < Fragment::num_elements; ++e) {
      auto one = f(places.place[e] / 16);
#pragma unroll
      for (u32 j = 0; j < TILES; ++j) one(16 * j + places.place[e] % 16, x[j].x[e]);
    }
  }

  template <class F>
  __device__ __forceinline__ void each_with(const Places<bf16>& places, const Sums& other, F f) {
#pragma unroll
    for (int e = 0; e < Fragment::num_elements; ++e) {
      auto one = f(places.place[e] / 16);
#pragma unroll
      for (u32 j = 0; j < TILES; ++j)
        one(16 * j + places.place[e] % 16, x[j].x[e], other.x[j].x[e]);
    }
  }

  __device__ __forceinline__ void store(float* to, u32 to_pitch) {
#pragma unroll
    for (u32 j = 0; j < TILES; ++j)
      nvcuda::wmma::store_matrix_sync(to + 16 * j, x[j], to_pitch, nvcuda::wmma::mem_row_major);
  }
};

// A warp's sums, row r times factor_of(r), to memory by way of `space`, where the warp has 16 rows of
// its own: row r to row_at(r), unless that is null.
template <class Out, class T, u32 D, class G, class F>
__device__ __forceinline__ void write_sums(Sums<T, D>& sums, const Places<T>& places, G factor_of,
                                           Out* space, u32 dim, bool wide, F row_at) {
  __syncwarp();
  sums.each(places, [&](u32 row) {
    Out* to = space + row * ROW_PITCH<Out, D>;
    float factor = factor_of(row);
    return [=](u32 column, float number) { to[column] = from_f32<Out>(number * factor); };
  });
  __syncwarp();
  store_rows_of_warp<Out, D>(space, dim, wide, row_at);
}
