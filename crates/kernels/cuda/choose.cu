// Drawing one token of a row of logits; the twin of crates/lm/src/generate/sample.rs, whose
// semantics it has to the last bit of each mass: exp is the same polynomial, rounded the same way.
//
// Nothing is sorted. What a cut keeps is said by a mass and a count: all tokens above the mass, and
// of those at it the first few by id. The mass is found by bisection over the bits of a positive
// f32, which order as the numbers do: seven bounds at a time, three bits a pass over the row. A draw
// among the likeliest first is the same search once more.
//
// Sums are in f64 and in a fixed order; the twin's run in another, so that where a sum and a bound
// agree to about 1e-15 (its short way to the nucleus: 1e-7) they may choose neighbours.

#include "types.cuh"

constexpr u32 CHOOSE_THREADS = 512;
constexpr u32 BITS = 3;
constexpr u32 BOUNDS = (1 << BITS) - 1;
constexpr u32 NOBODY = 0xffffffffu;
constexpr u32 ALL_TIES = 0xffffffffu;

// crates/lm/src/ops/exp.rs, where the constants are explained.
__device__ __forceinline__ float twin_exp(float x) {
  constexpr float ROUND = 12582912.0f;
  x = x < -87.3f ? -87.3f : x;
  x = x > 88.3f ? 88.3f : x;
  float shifted = __fadd_rn(__fmul_rn(x, 1.44269504088896340736f), ROUND);
  float n = __fsub_rn(shifted, ROUND);
  float r = __fadd_rn(__fsub_rn(x, __fmul_rn(n, 0.6933594f)), __fmul_rn(n, 2.1219444e-4f));
  float p = 1.9875691e-4f;
  p = __fadd_rn(__fmul_rn(p, r), 1.3981999e-3f);
  p = __fadd_rn(__fmul_rn(p, r), 8.333452e-3f);
  p = __fadd_rn(__fmul_rn(p, r), 4.1665796e-2f);
  p = __fadd_rn(__fmul_rn(p, r), 0.16666665f);
  p = __fadd_rn(__fmul_rn(p, r), 0.5f);
  float y = __fadd_rn(__fadd_rn(__fmul_rn(__fmul_rn(p, r), r), r), 1.0f);
  u32 exponent = (__float_as_uint(shifted) - __float_as_uint(ROUND) + 127u) << 23;
  return __fmul_rn(y, __uint_as_float(exponent));
}

// A row of logits as masses: the highest stands for 1.
struct Row {
  const float* logits;
  u32 vocab;
  float most, scale;

  // The mass's logarithm, and of that the mass.
  __device__ __forceinline__ float power_of(float logit) const {
    return __fmul_rn(__fsub_rn(logit, most), scale);
  }
  __device__ __forceinline__ float mass_of(float power) const {
    return power > -87.0f ? twin_exp(power) : 0.0f;
  }
  __device__ __forceinline__ float mass(u32 id) const { return mass_of(power_of(logits[id])); }
};

// The block's threads go over the row: f(power).
template <class F>
__device__ __forceinline__ void each_power(const Row& row, F f) {
  each_column(row.vocab, in_fours(row.vocab, row.logits), [&](u32 id, auto count) {
    constexpr int N = decltype(count)::value;
    Few<N> few = load<N>(row.logits + id);
#pragma unroll
    for (int c = 0; c < N; ++c) f(row.power_of(few.x[c]));
  });
}

// Tokens that are left: those above a mass, and the first `ties` by id of those that have it.
struct Cut {
  float mass;
  u32 ties;
};

// What lies above a mass and at it.
struct Around {
  double above;
  u32 ties;
};

// Seven sums of a block, and what the threads agree on.
struct ChooseSpace {
  double sums[BOUNDS][CHOOSE_THREADS / 32];
  u32 counts[CHOOSE_THREADS / 32];
  double masses[CHOOSE_THREADS / 32];
  u32 found;
};
static __device__ ChooseSpace* choose_space() {
  __shared__ ChooseSpace space;
  return &space;
}

// The highest logit, of equals the one with the lowest id.
struct Peak {
  float logit;
  u32 id;
};
struct Higher {
  __device__ __forceinline__ Peak operator()(Peak a, Peak b) const {
    if (a.logit != b.logit) return a.logit > b.logit ? a : b;
    return a.id < b.id ? a : b;
  }
};
struct Least {
  __device__ __forceinline__ u32 operator()(u32 a, u32 b) const { return a < b ? a : b; }
};

// Of all threads' peaks the highest. A warp shuffles numbers: the logit is found before its lowest id.
__device__ __forceinline__ Peak block_peak(Peak peak) {
  float most = block_fold(peak.logit, Most{});
  return {most, block_fold(peak.logit == most ? peak.id : NOBODY, Least{})};
}

// The sums of f(mass) at or above each of the bounds that split `bits`.. into 2^BITS parts of `part`.
template <class F>
__device__ __forceinline__ void sums_above(const Row& row, u32 bits, u32 part, F f,
                                           double (&sums)[BOUNDS]) {
#pragma unroll
  for (u32 b = 0; b < BOUNDS; ++b) sums[b] = 0.0;
  // Most tokens are far below the lowest bound, and their masses need not be known: after the first
  // pass these are all below 2^-15, as a rule. The margin is a thousand times exp's error.
  float least = logf(__uint_as_float(bits + part)) - 1e-3f;
  each_power(row, [&](float power) {
    if (power < least) return;
    float mass = row.mass_of(power);
    u32 at = __float_as_uint(mass);
#pragma unroll
    for (u32 b = 0; b < BOUNDS; ++b)
      if (at >= bits + (b + 1) * part) sums[b] += f(mass);
  });
  ChooseSpace* space = choose_space();
  // The last sums have been read.
  __syncthreads();
#pragma unroll
  for (u32 b = 0; b < BOUNDS; ++b) {
    double sum = warp_fold(sums[b], Sum{});
    if (threadIdx.x % 32 == 0) space->sums[b][threadIdx.x / 32] = sum;
  }
  __syncthreads();
#pragma unroll
  for (u32 b = 0; b < BOUNDS; ++b) {
    sums[b] = 0.0;
    for (u32 warp = 0; warp < CHOOSE_THREADS / 32; ++warp) sums[b] += space->sums[b][warp];
  }
}

// The largest number from `from` to 1 at which enough(sum of f over the masses at or above it); it
// is enough at `from`.
template <class F, class E>
__device__ __forceinline__ float threshold(const Row& row, float from, F f, E enough) {
  u32 low = __float_as_uint(from);
  // 1 has 30 bits: ten passes over three. What begins higher has fewer numbers above it.
  u32 high = __float_as_uint(1.0f) + 1, part = 1u << 27;
  while (part > 1 && part >= high - low) part >>= BITS;
  for (; part > 0; part >>= BITS) {
    double sums[BOUNDS];
    sums_above(row, low, part, f, sums);
    u32 steps = 0;
#pragma unroll
    for (u32 b = 0; b < BOUNDS; ++b) {
      if (low + (b + 1) * part < high && enough(sums[b])) steps = b + 1;
    }
    low += steps * part;
  }
  return __uint_as_float(low);
}

__device__ __forceinline__ Around around(const Row& row, float mass) {
  double above = 0.0;
  u32 ties = 0;
  each_power(row, [&](float power) {
    float other = row.mass_of(power);
    if (other > mass) above += double(other);
    ties += other == mass;
  });
  above = block_fold(above, Sum{});
  return {above, block_fold(ties, Sum{})};
}

// How many of `ties` equal masses it takes on top of `above` until enough(sum); all, where all are
// not enough.
template <class E>
__device__ __forceinline__ u32 ties_needed(double above, double mass, u32 ties, E enough) {
  u32 low = 1, high = ties;
  while (low < high) {
    u32 middle = low + (high - low) / 2;
    if (enough(above + double(middle) * mass)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

__device__ __forceinline__ double held(const Around& at, const Cut& cut) {
  u32 ties = at.ties < cut.ties ? at.ties : cut.ties;
  return at.above + double(ties) * double(cut.mass);
}

// Keeps the likeliest `k`.
__device__ __forceinline__ Cut cut_top_k(const Row& row, u32 k) {
  auto one = [](float) { return 1.0; };
  float mass = threshold(row, 0.0f, one, [&](double count) { return count >= double(k); });
  u32 above = 0;
  each_power(row, [&](float power) { above += row.mass_of(power) > mass; });
  return {mass, k - block_fold(above, Sum{})};
}

// Of what `cut` keeps the fewest likeliest that hold the share `p`.
__device__ __forceinline__ Cut cut_top_p(const Row& row, const Cut& cut, float p) {
  double need = double(p) * held(around(row, cut.mass), cut);
  auto enough = [&](double sum) { return sum >= need; };
  float mass = threshold(row, cut.mass, [](float mass) { return double(mass); }, enough);
  Around at = around(row, mass);
  u32 ties = mass == cut.mass && cut.ties < at.ties ? cut.ties : at.ties;
  return {mass, ties_needed(at.above, double(mass), ties, enough)};
}

// A warp's share of the ids when they are dealt out in contiguous runs, in whole lines.
struct Share {
  u32 from, to;
};
__device__ __forceinline__ Share share_of_warp(u32 vocab) {
  u32 lines = (vocab + 31) / 32, warps = CHOOSE_THREADS / 32;
  u32 each = (lines + warps - 1) / warps * 32, from = threadIdx.x / 32 * each;
  u32 to = from + each;
  return {from < vocab ? from : vocab, to < vocab ? to : vocab};
}

// The id of the token that has `mass` and `before` such tokens with lower ids.
__device__ __forceinline__ u32 nth_tie(const Row& row, float mass, u32 before) {
  ChooseSpace* space = choose_space();
  u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  Share share = share_of_warp(row.vocab);
  u32 count = 0;
  for (u32 id = share.from + lane; id < share.to; id += 32) count += row.mass(id) == mass;
  count = warp_fold(count, Sum{});
  if (lane == 0) space->counts[warp] = count;
  if (threadIdx.x == 0) space->found = NOBODY;
  __syncthreads();
  u32 sum = 0;
  for (u32 other = 0; other < warp; ++other) sum += space->counts[other];
  // One warp has it; it goes through its share line by line.
  if (sum <= before && before < sum + count) {
    for (u32 line = share.from; line < share.to; line += 32) {
      u32 id = line + lane;
      u32 here = __ballot_sync(ALL_LANES, id < share.to && row.mass(id) == mass);
      u32 lower = sum + __popc(here & ((1u << lane) - 1));
      if (here >> lane & 1 && lower == before) space->found = id;
      sum += __popc(here);
    }
  }
  __syncthreads();
  return space->found;
}

// The draw among the likeliest first, equals by id.
__device__ __forceinline__ u32 draw_by_mass(const Row& row, const Cut& cut, double unit) {
  double target = unit * held(around(row, cut.mass), cut);
  auto beyond = [&](double sum) { return sum > target; };
  float mass = threshold(row, cut.mass, [](float mass) { return double(mass); }, beyond);
  Around at = around(row, mass);
  u32 ties = mass == cut.mass && cut.ties < at.ties ? cut.ties : at.ties;
  return nth_tie(row, mass, ties_needed(at.above, double(mass), ties, beyond) - 1);
}

// The draw by id among the tokens of at least `least`.
__device__ __forceinline__ u32 draw_by_id(const Row& row, float least, double unit) {
  ChooseSpace* space = choose_space();
  u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  Share share = share_of_warp(row.vocab);
  auto kept = [&](u32 id) {
    float mass = id < share.to ? row.mass(id) : 0.0f;
    return mass >= least ? double(mass) : 0.0;
  };
  double own = 0.0;
  for (u32 id = share.from + lane; id < share.to; id += 32) own += kept(id);
  own = warp_fold(own, Sum{});
  if (lane == 0) space->masses[warp] = own;
  if (threadIdx.x == 0) space->found = NOBODY;
  __syncthreads();
  double total = 0.0, below = 0.0;
  u32 chosen = 0;
  for (u32 other = 0; other < CHOOSE_THREADS / 32; ++other) total += space->masses[other];
  double target = unit * total;
  // The first warp whose masses reach beyond the target; rounding can leave it behind them all: then
  // the last that has any.
  double sum = 0.0;
  for (u32 other = 0; other < CHOOSE_THREADS / 32; ++other) {
    if (space->masses[other] == 0.0) continue;
    chosen = other;
    below = sum;
    sum += space->masses[other];
    if (target < sum) break;
  }
  if (warp == chosen) {
    u32 found = NOBODY;
    for (u32 line = share.from; line < share.to && found == NOBODY; line += 32) {
      double mass = kept(line + lane), upto = mass;
      for (u32 by = 1; by < 32; by *= 2) {
        double lower = __shfl_up_sync(ALL_LANES, upto, by);
        if (lane >= by) upto += lower;
      }
      u32 hits = __ballot_sync(ALL_LANES, mass > 0.0 && target < below + upto);
      u32 any = __ballot_sync(ALL_LANES, mass > 0.0);
      if (hits) found = line + __ffs(int(hits)) - 1;
      // The last token that has a mass, for when rounding leaves the target behind it.
      if (any && lane == 0) space->found = line + 31 - __clz(int(any));
      below += __shfl_sync(ALL_LANES, upto, 31);
    }
    if (found != NOBODY && lane == 0) space->found = found;
  }
  __syncthreads();
  return space->found;
}

__device__ __forceinline__ u32 draw(const float* logits, u32 vocab, const Peak& peak,
                                    const Choice& choice) {
  if (choice.temperature == 0.0f) return peak.id;
  Row row = {logits, vocab, peak.logit, __fdiv_rn(1.0f, choice.temperature)};
  Cut cut = {0.0f, ALL_TIES};
  bool top_k = choice.top_k > 0 && choice.top_k < vocab, top_p = choice.top_p < 1.0f;
  if (top_k) cut = cut_top_k(row, choice.top_k);
  if (top_p) cut = cut_top_p(row, cut, choice.top_p);
  if (choice.min_p > cut.mass) cut = {choice.min_p, ALL_TIES};
  u32 id = top_k || top_p ? draw_by_mass(row, cut, choice.unit)
                          : draw_by_id(row, cut.mass, choice.unit);
  // Masses that are all 0, as an infinite logit makes them.
  return id == NOBODY ? peak.id : id;
}

// log(sum(exp(row))).
__device__ __forceinline__ double log_sum_exp(const float* logits, u32 vocab, float most) {
  double sum = 0.0;
  for (u32 id = threadIdx.x; id < vocab; id += CHOOSE_THREADS)
    sum += double(twin_exp(__fsub_rn(logits[id], most)));
  return double(most) + log(block_fold(sum, Sum{}));
}

// out[r] = the token of row r of logits [rows, vocab], as choices[r] says.
extern "C" __global__ void __launch_bounds__(CHOOSE_THREADS)
    choose(const float* logits, u32 vocab, const Choice* choices, Chosen* out, u32 rows) {
  if (blockIdx.x >= rows) return;
  logits += size_t(blockIdx.x) * vocab;
  Peak peak = {-INFINITY, NOBODY};
  u32 broken = NOBODY;
  for (u32 id = threadIdx.x; id < vocab; id += CHOOSE_THREADS) {
    float logit = logits[id];
    if (isnan(logit) && id < broken) broken = id;
    peak = Higher{}(peak, Peak{logit, id});
  }
  broken = block_fold(broken, Least{});
  if (broken != NOBODY) {
    if (threadIdx.x == 0) out[blockIdx.x] = {double(NAN), 0, broken + 1};
    return;
  }
  peak = block_peak(peak);
  u32 id = draw(logits, vocab, peak, choices[blockIdx.x]);
  double total = log_sum_exp(logits, vocab, peak.logit);
  if (threadIdx.x == 0) out[blockIdx.x] = {double(logits[id]) - total, id, 0};
}
REGISTER(choose)
