// Kernels that break the rules, each in its way: what the emulator says of them is tested
// (tests/it/emulator.rs). A GPU never sees this file.

#include "common.cuh"

KERNEL(fault_half_barrier)(u32 threads) {
  if (threadIdx.x < threads) __syncthreads();
}
REGISTER(fault_half_barrier)

KERNEL(fault_half_shuffle)(u32* out) {
  if (threadIdx.x % 32 != 7) out[threadIdx.x] = __shfl_xor_sync(ALL_LANES, threadIdx.x, 1);
}
REGISTER(fault_half_shuffle)

// Lanes of one warp at different kinds of meeting.
KERNEL(fault_other_meeting)(u32* out) {
  if (threadIdx.x == 3) __syncthreads();
  out[threadIdx.x] = __shfl_sync(ALL_LANES, threadIdx.x, 0);
}
REGISTER(fault_other_meeting)

// Fills `bytes` bytes of the block's dynamic shared memory.
KERNEL(fault_shared)(u32 bytes) {
  DYNAMIC_SHARED(space);
  for (u32 i = threadIdx.x; i < bytes; i += blockDim.x) space[i] = 1;
}
REGISTER(fault_shared)

static __device__ float* unwritten() {
  __shared__ float numbers[4];
  return numbers;
}

// What shared memory and a fragment hold before anything is written: first number of each.
KERNEL(fault_unwritten)(float* out) {
  DYNAMIC_SHARED(space);
  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> sums;
  if (threadIdx.x == 0) {
    out[0] = reinterpret_cast<float*>(space)[0];
    out[1] = unwritten()[0];
    out[2] = sums.x[0];
    // The next block must not find this.
    reinterpret_cast<float*>(space)[0] = unwritten()[0] = 1.0f;
  }
}
REGISTER(fault_unwritten)

// Reads what the neighbour has written without waiting for it.
KERNEL(fault_race)(u32* out) {
  DYNAMIC_SHARED(space);
  u32* numbers = reinterpret_cast<u32*>(space);
  numbers[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = numbers[threadIdx.x ^ 1];
}
REGISTER(fault_race)

// The order in which blocks ran: out[0] counts.
KERNEL(fault_block_order)(u32* out) {
  if (threadIdx.x == 0) out[1 + out[0]++] = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
}
REGISTER(fault_block_order)

// The product of two tiles that begin `shift` numbers into their buffers.
KERNEL(fault_product)(const bf16* a, const bf16* b, float* out, u32 shift) {
  using namespace nvcuda::wmma;
  fragment<matrix_a, 16, 16, 16, bf16, row_major> left;
  fragment<matrix_b, 16, 16, 16, bf16, col_major> right;
  fragment<accumulator, 16, 16, 16, float> sums;
  fill_fragment(sums, 0.0f);
  load_matrix_sync(left, a + shift, 16);
  load_matrix_sync(right, b + shift, 16);
  mma_sync(sums, left, right, sums);
  store_matrix_sync(out, sums, 16, mem_row_major);
}
REGISTER(fault_product)

// Every kind of exchange between lanes, each result in a row of its own of out [6, 32].
KERNEL(fault_lanes)(double* out) {
  u32 lane = threadIdx.x;
  out[lane] = __shfl_sync(ALL_LANES, double(lane), 5);
  out[32 + lane] = __shfl_xor_sync(ALL_LANES, double(lane), 3);
  out[64 + lane] = __shfl_down_sync(ALL_LANES, double(lane), 4);
  out[96 + lane] = __shfl_up_sync(ALL_LANES, double(lane), 4);
  out[128 + lane] = __ballot_sync(ALL_LANES, lane % 3 == 0);
  out[160 + lane] = __bfloat162float(__float2bfloat16_rn(1.0f + float(lane) / 512.0f));
}
REGISTER(fault_lanes)
