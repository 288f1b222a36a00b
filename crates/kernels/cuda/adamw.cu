// The optimiser: the twin of crates/lm/src/optimizer.rs, bit for bit. A step is bounded by memory,
// so each product and sum may be rounded by itself (__fmul_rn, __fadd_rn), where the compiler would
// otherwise make one rounding of two; then a step on the GPU is the step on the CPU.

#include "common.cuh"

// partial[block] = the sum of squares of the block's share, in f64.
KERNEL(square_sums)(const float* from, u64 n, double* partial) {
  double sum = 0.0;
  each_of(n, in_fours(0, from), [&](u64 i, auto count) {
    constexpr int N = decltype(count)::value;
    Few<N> few = load<N>(from + i);
    for (int c = 0; c < N; ++c) sum += double(few.x[c]) * double(few.x[c]);
  });
  sum = block_fold(sum, Sum{});
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}
REGISTER(square_sums)

// The numbers of a step, as `Step` has them.
struct Step {
  float clip, b1, b2, c1, c2, keep, size, second, eps;
};

// One element becomes what it is after the step.
__device__ __forceinline__ void move_one(const Step& step, float& x, float g, float& m, float& v) {
  g = __fmul_rn(g, step.clip);
  m = __fadd_rn(__fmul_rn(step.b1, m), __fmul_rn(step.c1, g));
  v = __fadd_rn(__fmul_rn(step.b2, v), __fmul_rn(__fmul_rn(step.c2, g), g));
  float root = __fadd_rn(__fdiv_rn(__fsqrt_rn(v), step.second), step.eps);
  x = __fsub_rn(__fmul_rn(x, step.keep), __fdiv_rn(__fmul_rn(step.size, m), root));
}

template <int N>
__device__ __forceinline__ void move_few(const Step& step, Few<N>& x, const Few<N>& g, Few<N>& m,
                                         Few<N>& v) {
#pragma unroll
  for (int c = 0; c < N; ++c) move_one(step, x.x[c], g.x[c], m.x[c], v.x[c]);
}

// Moves x and its moments by the gradient g; `work`, where not null, gets x in its own type;
// most[block] the largest magnitude that the block has written.
template <class W>
__device__ void adamw(float* x, float* m, float* v, const float* g, W* work, u64 n, Step step,
                      float* most) {
  float largest = 0.0f;
  each_of(n, in_fours(0, x, m, v, g, work), [&](u64 i, auto count) {
    constexpr int N = decltype(count)::value;
    Few<N> values = load<N>(x + i), first = load<N>(m + i), second = load<N>(v + i);
    move_few(step, values, load<N>(g + i), first, second);
    store(x + i, values);
    store(m + i, first);
    store(v + i, second);
    if (work) store(work + i, values);
    for (int c = 0; c < N; ++c) {
      float moments = fmaxf(fabsf(first.x[c]), fabsf(second.x[c]));
      largest = fmaxf(largest, fmaxf(fabsf(values.x[c]), moments));
    }
  });
  largest = block_fold(largest, Most{});
  if (threadIdx.x == 0) most[blockIdx.x] = largest;
}

#define ADAMW(W, w_name)                                                                       \
  KERNEL(adamw_##w_name)(float* x, float* m, float* v, const float* g, W* work, u64 n,         \
                         float clip, float b1, float b2, float c1, float c2, float keep,       \
                         float size, float second, float eps, float* most) {                   \
    adamw(x, m, v, g, work, n, Step{clip, b1, b2, c1, c2, keep, size, second, eps}, most);     \
  }                                                                                            \
  REGISTER(adamw_##w_name)

ADAMW(float, f32)
ADAMW(bf16, bf16)
#undef ADAMW

// What the step would do: flags[block] has bit 0 where a moment of the block's share would not be
// finite, bit 1 where a value would not be. Moves nothing.
KERNEL(adamw_check)(const float* x, const float* m, const float* v, const float* g, u64 n,
                    float clip, float b1, float b2, float c1, float c2, float keep, float size,
                    float second, float eps, u32* flags) {
  Step step = {clip, b1, b2, c1, c2, keep, size, second, eps};
  u32 flag = 0;
  each_of(n, in_fours(0, x, m, v, g), [&](u64 i, auto count) {
    constexpr int N = decltype(count)::value;
    Few<N> values = load<N>(x + i), first = load<N>(m + i), squares = load<N>(v + i);
    move_few(step, values, load<N>(g + i), first, squares);
    for (int c = 0; c < N; ++c) {
      if (!(isfinite(first.x[c]) && isfinite(squares.x[c]))) flag |= 1;
      if (!isfinite(values.x[c])) flag |= 2;
    }
  });
  flag = block_fold(flag, Or{});
  if (threadIdx.x == 0) flags[blockIdx.x] = flag;
}
REGISTER(adamw_check)
