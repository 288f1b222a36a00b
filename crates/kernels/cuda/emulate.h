// In the place of CUDA's headers: what makes the kernels' sources C++ for a CPU.
//
// A kernel is called once for each thread of a block, each call on a stack of its own; where CUDA's
// threads meet, these meet too (emulate.cpp). What a GPU leaves undefined is made to show:
//
// - shared memory, fragments and the stacks are full of NaN before each block;
// - blocks run one after another in a shuffled order, a warp as far ahead of the others as barriers
//   let it, its lanes now from the first to the last, now the other way round;
// - a meeting that not all come to, an access of a fragment that is not aligned, and a write behind
//   the shared memory that was asked for end the launch with a sentence.
//
// Here is only what the kernels use. Blocks have one dimension; all 32 lanes take part in what a
// warp does. `__shared__` arrays of functions stand in functions that are no templates (compilers
// forget the section otherwise); dynamic shared memory is named with DYNAMIC_SHARED.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("gradus_shared")))
#define DYNAMIC_SHARED(name) unsigned char* name = emulate::dynamic_shared()

namespace emulate {

struct Dim {
  unsigned x, y, z;
};

// What lanes of a warp meet for. Lanes that come for different things do not meet.
enum class Meeting : int { none, block, warp, shuffle, ballot, product };
constexpr int MEETINGS = 6;

// Waits until all threads of the block, or all lanes of the warp, are here.
void meet(Meeting meeting);
// Ends the launch.
[[noreturn]] void fail(const char* what);
unsigned char* dynamic_shared();

// What the lanes of a warp show each other: 32 places of 64 bytes, two sets in turn, so that a lane
// may put down the next before the others have looked at the last.
constexpr int PLACE = 64;
unsigned char* next_places();
int lane();

template <class T>
T shuffled(unsigned mask, T value, int from) {
  static_assert(std::is_trivially_copyable<T>::value && sizeof(T) <= PLACE);
  if (mask != 0xffffffffu) fail("a shuffle of some lanes only: it is not emulated");
  unsigned char* places = next_places();
  std::memcpy(places + lane() * PLACE, &value, sizeof(T));
  meet(Meeting::shuffle);
  std::memcpy(&value, places + (from & 31) * PLACE, sizeof(T));
  return value;
}

// A kernel by its name, and how to call it with pointers to its arguments.
struct Kernel {
  const char* name;
  size_t arguments;
  void (*call)(const void* const* args);
  const Kernel* next;
  static const Kernel* first;
  Kernel(const char* name, size_t arguments, void (*call)(const void* const* args))
      : name(name), arguments(arguments), call(call), next(first) {
    first = this;
  }
};

template <auto kernel>
struct Caller;
template <class... A, void (*kernel)(A...)>
struct Caller<kernel> {
  static constexpr size_t arguments = sizeof...(A);
  template <size_t... at>
  static void each(const void* const* args, std::index_sequence<at...>) {
    kernel(*static_cast<const A*>(args[at])...);
  }
  static void call(const void* const* args) { each(args, std::index_sequence_for<A...>()); }
};

}  // namespace emulate

#define REGISTER(name)                                                                \
  static const emulate::Kernel name##_registered(#name, emulate::Caller<name>::arguments, \
                                                 emulate::Caller<name>::call);

extern emulate::Dim threadIdx, blockIdx, blockDim, gridDim;

// Meetings.

inline void __syncthreads() { emulate::meet(emulate::Meeting::block); }
inline void __syncwarp() { emulate::meet(emulate::Meeting::warp); }

template <class T>
T __shfl_sync(unsigned mask, T value, int from) {
  return emulate::shuffled(mask, value, from);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int with) {
  return emulate::shuffled(mask, value, emulate::lane() ^ with);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int by) {
  int from = emulate::lane() + by;
  return emulate::shuffled(mask, value, from < 32 ? from : emulate::lane());
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, int by) {
  int from = emulate::lane() - by;
  return emulate::shuffled(mask, value, from >= 0 ? from : emulate::lane());
}
unsigned __ballot_sync(unsigned mask, bool here);

// Arithmetic. std's functions for f32 have CUDA's names.

using std::isfinite;
using std::isnan;
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __expf(float x) { return std::exp(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

struct __nv_bfloat16 {
  uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 x) { return __uint_as_float(unsigned(x.bits) << 16); }
// To the nearest, of two equally near ones to the even one.
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  unsigned bits = __float_as_uint(x);
  if (isnan(x)) return {0x7fff};
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

// Tensor cores: products of tiles of 16 x 16.
namespace nvcuda {
namespace wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

// Which number of the tile a lane's element is. A GPU's answer is not documented; this one is such
// that code which believes to know it comes out wrong.
inline int place_of(int element) { return (emulate::lane() * 8 + element) * 77 % 256; }

template <class Use, int m, int n, int k, class T, class Layout = void>
struct fragment {
  static_assert(m == 16 && n == 16 && k == 16, "only tiles of 16 are emulated");
  static constexpr int num_elements = 8;
  T x[8];
  // Registers hold rubbish at first.
  fragment() { std::memset(x, 0xff, sizeof x); }
};

template <class T>
void check_access(const T* at, unsigned stride) {
  // 256 bits, and rows at multiples of 128: what the instruction asks for.
  if (reinterpret_cast<uintptr_t>(at) % 32 != 0 || stride * sizeof(T) % 16 != 0)
    emulate::fail("a tile of a tensor core's product is not aligned");
}

template <class Use, class T, class Layout>
void load_matrix_sync(fragment<Use, 16, 16, 16, T, Layout>& to, const T* from, unsigned stride) {
  check_access(from, stride);
  for (int e = 0; e < 8; ++e) {
    int row = place_of(e) / 16, column = place_of(e) % 16;
    to.x[e] = std::is_same<Layout, row_major>::value ? from[size_t(row) * stride + column]
                                                     : from[size_t(column) * stride + row];
  }
}

template <class T>
void load_matrix_sync(fragment<accumulator, 16, 16, 16, T>& to, const T* from, unsigned stride,
                      layout_t layout) {
  check_access(from, stride);
  for (int e = 0; e < 8; ++e) {
    int row = place_of(e) / 16, column = place_of(e) % 16;
    to.x[e] = layout == mem_row_major ? from[size_t(row) * stride + column]
                                      : from[size_t(column) * stride + row];
  }
}

template <class T>
void store_matrix_sync(T* to, const fragment<accumulator, 16, 16, 16, T>& from, unsigned stride,
                       layout_t layout) {
  check_access(to, stride);
  for (int e = 0; e < 8; ++e) {
    int row = place_of(e) / 16, column = place_of(e) % 16;
    (layout == mem_row_major ? to[size_t(row) * stride + column]
                             : to[size_t(column) * stride + row]) = from.x[e];
  }
}

template <class T>
void fill_fragment(fragment<accumulator, 16, 16, 16, T>& to, T value) {
  for (T& x : to.x) x = value;
}

template <class LayoutA, class LayoutB>
void mma_sync(fragment<accumulator, 16, 16, 16, float>& to,
              const fragment<matrix_a, 16, 16, 16, __nv_bfloat16, LayoutA>& a,
              const fragment<matrix_b, 16, 16, 16, __nv_bfloat16, LayoutB>& b,
              const fragment<accumulator, 16, 16, 16, float>& c) {
  // A lane's place holds its eight elements of a, then those of b.
  unsigned char* places = emulate::next_places();
  std::memcpy(places + emulate::lane() * emulate::PLACE, a.x, 16);
  std::memcpy(places + emulate::lane() * emulate::PLACE + 16, b.x, 16);
  emulate::meet(emulate::Meeting::product);
  auto number = [&](int at, int which) {
    // 77 * 133 = 1 modulo 256: the inverse of place_of.
    int spot = at * 133 % 256;
    __nv_bfloat16 x;
    std::memcpy(&x, places + spot / 8 * emulate::PLACE + which * 16 + spot % 8 * 2, 2);
    return __bfloat162float(x);
  };
  for (int e = 0; e < 8; ++e) {
    int row = place_of(e) / 16, column = place_of(e) % 16;
    float sum = c.x[e];
    for (int k = 0; k < 16; ++k) sum += number(row * 16 + k, 0) * number(k * 16 + column, 1);
    to.x[e] = sum;
  }
}

}  // namespace wmma
}  // namespace nvcuda
