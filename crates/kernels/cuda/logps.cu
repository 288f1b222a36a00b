// Log-probability of one token per row, and its gradient; the twin of crates/lm/src/ops/logps.rs.

#include "common.cuh"

// logps[r] = log-probability of targets[r] under row r of logits [rows, vocab]; totals[r] =
// log(sum(exp(row))). Four exponentials at a time go into a sum in f64: of 152,000 nothing is lost.
KERNEL(token_logps)(const float* logits, const u32* targets, float* logps, float* totals, u32 rows,
                    u32 vocab) {
  u32 row = blockIdx.x;
  if (row >= rows) return;
  logits += size_t(row) * vocab;
  bool fours = in_fours(vocab, logits);
  float most = -INFINITY;
  each_column(vocab, fours, [&](u32 i, auto count) {
    constexpr int N = decltype(count)::value;
    Few<N> few = load<N>(logits + i);
    for (int c = 0; c < N; ++c) most = fmaxf(most, few.x[c]);
  });
  most = block_fold(most, Most{});
  double sum = 0.0;
  each_column(vocab, fours, [&](u32 i, auto count) {
    constexpr int N = decltype(count)::value;
    Few<N> few = load<N>(logits + i);
    float part = 0.0f;
    for (int c = 0; c < N; ++c) part += expf(few.x[c] - most);
    sum += double(part);
  });
  sum = block_fold(sum, Sum{});
  if (threadIdx.x == 0) {
    double total = double(most) + log(sum);
    logps[row] = float(double(logits[targets[row]]) - total);
    totals[row] = float(total);
  }
}
REGISTER(token_logps)

// out = slopes[r] * ((column is the target) - exp(logit - totals[r])): the logits' gradients.
// `logits` and `out` may be the same.
template <class T>
__device__ void token_logps_backward(const float* logits, const u32* targets, const float* totals,
                                     const float* slopes, T* out, u32 rows, u32 vocab) {
  u32 row = blockIdx.x;
  if (row >= rows) return;
  size_t at = size_t(row) * vocab;
  u32 target = targets[row];
  float total = totals[row], slope = slopes[row];
  each_column(vocab, in_fours(vocab, logits + at, out + at), [&](u32 i, auto count) {
    constexpr int N = decltype(count)::value;
    Few<N> few = load<N>(logits + at + i);
    for (int c = 0; c < N; ++c) {
      float own = i + c == target ? slope : 0.0f;
      few.x[c] = own - slope * expf(few.x[c] - total);
    }
    store(out + at + i, few);
  });
}

#define LOGPS(T, t_name)                                                                        \
  KERNEL(token_logps_backward_##t_name)(const float* logits, const u32* targets,                \
                                        const float* totals, const float* slopes, T* out,       \
                                        u32 rows, u32 vocab) {                                  \
    token_logps_backward(logits, targets, totals, slopes, out, rows, vocab);                    \
  }                                                                                             \
  REGISTER(token_logps_backward_##t_name)

LOGPS(float, f32)
LOGPS(bf16, bf16)
#undef LOGPS
