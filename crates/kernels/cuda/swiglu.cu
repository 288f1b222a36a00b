// The gate of the MLP: silu(gate) * up; the twin of crates/lm/src/ops/swiglu.rs. Rows of gate_up
// [rows, 2 * inner] have the gate first.

#include "common.cuh"

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <class T>
__device__ void swiglu(const T* gate_up, T* out, u32 rows, u32 inner) {
  u32 row = blockIdx.x;
  if (row >= rows) return;
  const T* gate = gate_up + size_t(row) * 2 * inner;
  const T* up = gate + inner;
  out += size_t(row) * inner;
  each_column(inner, in_fours(inner, gate, up, out), [&](u32 i, auto count) {
    constexpr int N = decltype(count)::value;
    Few<N> g = load<N>(gate + i), u = load<N>(up + i);
    for (int c = 0; c < N; ++c) g.x[c] = g.x[c] * sigmoid(g.x[c]) * u.x[c];
    store(out + i, g);
  });
}

// `gated` [rows, inner] holds the gradient of the product at first, the product itself in the end;
// gate and up become their gradients.
template <class T>
__device__ void swiglu_backward(T* gate_up, T* gated, u32 rows, u32 inner) {
  u32 row = blockIdx.x;
  if (row >= rows) return;
  T* gate = gate_up + size_t(row) * 2 * inner;
  T* up = gate + inner;
  gated += size_t(row) * inner;
  each_column(inner, in_fours(inner, gate, up, gated), [&](u32 i, auto count) {
    constexpr int N = decltype(count)::value;
    Few<N> gates = load<N>(gate + i), ups = load<N>(up + i), slopes = load<N>(gated + i);
    for (int c = 0; c < N; ++c) {
      float g = gates.x[c], u = ups.x[c], d = slopes.x[c], s = sigmoid(g);
      gates.x[c] = d * u * s * (1.0f + g * (1.0f - s));
      ups.x[c] = d * g * s;
      slopes.x[c] = g * s * u;
    }
    store(gate + i, gates);
    store(up + i, ups);
    store(gated + i, slopes);
  });
}

#define SWIGLU(T, t_name)                                                                   \
  KERNEL(swiglu_##t_name)(const T* gate_up, T* out, u32 rows, u32 inner) {                  \
    swiglu(gate_up, out, rows, inner);                                                      \
  }                                                                                         \
  REGISTER(swiglu_##t_name)                                                                 \
  KERNEL(swiglu_backward_##t_name)(T* gate_up, T* gated, u32 rows, u32 inner) {             \
    swiglu_backward(gate_up, gated, rows, inner);                                           \
  }                                                                                         \
  REGISTER(swiglu_backward_##t_name)

SWIGLU(float, f32)
SWIGLU(bf16, bf16)
#undef SWIGLU
