// A driver and its libraries for a GPU that is this machine's CPU: what gradus calls of CUDA's driver,
// cuBLAS and cuRAND, over the emulator. With it in the place of libcuda.so.1 everything that gradus does
// with a GPU can be tried where there is none, calls and all: scripts/emulated-driver builds it.
//
// It is stricter than a GPU where that shows mistakes:
//
// - nothing happens before somebody waits: launches, copies and products are queued by stream, and done
//   when the stream, an event or a copy to the host is waited for; so a host that reads too early reads
//   rubbish, and memory that is freed too early is gone;
// - memory is full of NaN when it is given out and when it comes back, and has a fence on both sides,
//   which is looked at when it comes back;
// - calls need a context that is current on their thread; copies and fills must lie in one allocation;
// - a launch needs a kernel that the module has, and shared memory that was asked for before;
// - what a kernel does wrong (emulate.h) ends the process's use of the GPU, as on a GPU, and is printed.
//
// Of CUDA's functions here are those that gradus, candle and cudarc call; the rest are not there, which
// crates/cuda-lazy answers with CUDA_ERROR_NO_DEVICE.
//
// EMULATED_GPU_BYTES: its memory (2 GiB). EMULATED_GPU_IDLE: it computes next to nothing, so that what
// takes time is the host.

#include "../cuda/emulate.cpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <sys/mman.h>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

// CUresult.
enum Result {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  INVALID_HANDLE = 400,
  NOT_FOUND = 500,
  NOT_READY = 600,
  LAUNCH_FAILED = 719,
};

constexpr size_t FENCE = 256;
constexpr unsigned char RUBBISH_BYTE = 0xff, FENCE_BYTE = 0xa5;
// Bytes and multiplications that an idle GPU does not shy away from: gradus tries whether it computes.
constexpr size_t IDLE_MOST = 4096;
// Memory that it has zeroed: that of answers.
constexpr size_t IDLE_ZEROED = 1 << 20;
// What a kernel may have of shared memory: unasked, and at the most (H100).
constexpr uint32_t SHARED_UNASKED = 48 << 10, SHARED_AT_MOST = 227 << 10;

// A kernel of candle's, which is done here: its arguments, and what it does with them.
struct Native {
  const char* name;
  size_t arguments;
  void (*call)(const std::vector<uint64_t>&);
};

// One of ours or one of candle's; the other is null.
struct Function {
  const emulate::Kernel* ours;
  const Native* theirs;
  uint32_t shared_bytes = SHARED_UNASKED;
};

// A stream's work that nobody has waited for yet.
struct Stream {
  std::deque<std::function<void()>> waiting;
};

// Stands behind all that its stream has, and perhaps more.
struct Event {
  Stream* stream = nullptr;
};

struct Driver {
  std::recursive_mutex lock;
  std::map<uintptr_t, size_t> allocations;
  size_t used = 0, reserved = 0, total = size_t(2) << 30;
  std::multimap<size_t, unsigned char*> kept;
  bool idle = std::getenv("EMULATED_GPU_IDLE") != nullptr;
  std::map<std::string, std::unique_ptr<Function>> functions;
  std::map<Stream*, std::unique_ptr<Stream>> streams;
  Result broken = SUCCESS;
  int context = 0, module = 0;
};

Driver& driver() {
  static Driver* one = [] {
    Driver* made = new Driver;
    if (const char* bytes = std::getenv("EMULATED_GPU_BYTES"))
      made->total = std::strtoull(bytes, nullptr, 10);
    made->streams[nullptr] = std::make_unique<Stream>();
    return made;
  }();
  return *one;
}

thread_local void* current = nullptr;

void broke(const char* what) {
  std::fprintf(stderr, "emulated GPU: %s\n", what);
  driver().broken = LAUNCH_FAILED;
}

// Taken by every call. `state` says why the call cannot be answered.
struct Call {
  std::lock_guard<std::recursive_mutex> guard{driver().lock};
  Result state;
  Call() : state(!current ? INVALID_CONTEXT : driver().broken) {}
};

#define ENTER                                 \
  Call call;                                  \
  if (call.state != SUCCESS) return call.state

Stream* stream_of(void* handle) {
  auto found = driver().streams.find(static_cast<Stream*>(handle));
  return found == driver().streams.end() ? nullptr : found->second.get();
}

void finish(Stream& stream) {
  while (!stream.waiting.empty()) {
    auto work = std::move(stream.waiting.front());
    stream.waiting.pop_front();
    if (driver().broken == SUCCESS) work();
  }
}

void finish_all() {
  for (auto& stream : driver().streams) finish(*stream.second);
}

Result queue(void* handle, std::function<void()> work) {
  Stream* stream = stream_of(handle);
  if (!stream) return INVALID_HANDLE;
  stream->waiting.push_back(std::move(work));
  return SUCCESS;
}

// Whether so many bytes lie in one allocation.
bool is_ours(uintptr_t at, size_t bytes) {
  auto after = driver().allocations.upper_bound(at);
  if (after == driver().allocations.begin()) return false;
  auto it = std::prev(after);
  return at - it->first <= it->second && bytes <= it->second - (at - it->first);
}

size_t whole_of(size_t bytes) { return (bytes + 2 * FENCE + 255) / 256 * 256; }

// A block of an idle GPU, which never goes back to the system: what that takes is not the host's cost on
// a GPU, whose driver keeps a pool. Of what nobody touches the system makes nothing.
unsigned char* idle_block(size_t whole) {
  auto& kept = driver().kept;
  auto found = kept.find(whole);
  if (found != kept.end()) {
    unsigned char* block = found->second;
    kept.erase(found);
    return block;
  }
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* block = mmap(nullptr, whole, PROT_READ | PROT_WRITE, flags, -1, 0);
  return block == MAP_FAILED ? nullptr : static_cast<unsigned char*>(block);
}

Result allocate(uintptr_t* to, size_t bytes) {
  Driver& d = driver();
  if (bytes == 0) return INVALID_VALUE;
  if (d.used + bytes > d.total) return OUT_OF_MEMORY;
  size_t whole = whole_of(bytes);
  auto* block =
      d.idle ? idle_block(whole) : static_cast<unsigned char*>(std::aligned_alloc(256, whole));
  if (!block) return OUT_OF_MEMORY;
  if (!d.idle) {
    std::memset(block, FENCE_BYTE, whole);
    std::memset(block + FENCE, RUBBISH_BYTE, bytes);
  } else if (whole <= IDLE_ZEROED) {
    std::memset(block, 0, whole);
  }
  d.used += bytes;
  d.reserved = std::max(d.reserved, d.used);
  *to = uintptr_t(block) + FENCE;
  d.allocations[*to] = bytes;
  return SUCCESS;
}

void release(uintptr_t at, size_t bytes) {
  auto* block = reinterpret_cast<unsigned char*>(at) - FENCE;
  if (driver().idle) {
    driver().kept.emplace(whole_of(bytes), block);
    return;
  }
  for (size_t i = 0; i < FENCE; ++i)
    if (block[i] != FENCE_BYTE || block[FENCE + bytes + i] != FENCE_BYTE) {
      broke("memory beside an allocation was written");
      break;
    }
  std::memset(block, RUBBISH_BYTE, bytes + 2 * FENCE);
  std::free(block);
}

// The memory counts as free at once, and is gone when the stream comes so far.
Result give_back(uintptr_t at, void* stream) {
  Driver& d = driver();
  if (at == 0) return SUCCESS;
  auto found = d.allocations.find(at);
  if (found == d.allocations.end()) return INVALID_VALUE;
  size_t bytes = found->second;
  d.allocations.erase(found);
  d.used -= bytes;
  return queue(stream, [=] { release(at, bytes); });
}

// candle's kernels that gradus uses, by their names: numbers of one kind as another.
template <class From, class To>
void cast(const std::vector<uint64_t>& args) {
  // numel, num_dims, info, in, out; only whole tensors, one number after another.
  if (args[2] != 0) {
    // Sizes, then strides; what is contiguous has a last stride of 1.
    auto* info = reinterpret_cast<const size_t*>(args[2]);
    size_t expected = 1;
    for (size_t dim = args[1]; dim-- > 0; expected *= info[dim])
      if (info[args[1] + dim] != expected && info[dim] != 1) return broke("a cast of a view");
  }
  auto* from = reinterpret_cast<const From*>(args[3]);
  auto* to = reinterpret_cast<To*>(args[4]);
  for (size_t i = 0; i < args[0]; ++i) {
    if constexpr (std::is_same_v<To, __nv_bfloat16>) {
      to[i] = __float2bfloat16_rn(float(from[i]));
    } else {
      to[i] = To(from[i]);
    }
  }
}

constexpr Native NATIVE[] = {
    {"cast_f32_f64", 5, cast<float, double>},
    {"cast_f32_bf16", 5, cast<float, __nv_bfloat16>},
};

const Native* native(const std::string& name) {
  for (const Native& one : NATIVE)
    if (name == one.name) return &one;
  return nullptr;
}

// cudaDataType.
constexpr int F32 = 0, BF16 = 14;
bool is_known(int kind) { return kind == F32 || kind == BF16; }

float number(const void* at, int kind, size_t index) {
  if (kind == BF16) return __bfloat162float(static_cast<const __nv_bfloat16*>(at)[index]);
  return static_cast<const float*>(at)[index];
}

struct Matrix {
  const void* at;
  int kind;
  bool turned;
  int64_t pitch;
  // As f32, [rows, columns] column by column.
  std::vector<float> plain(int64_t rows, int64_t columns) const {
    std::vector<float> all(size_t(rows) * columns);
    for (int64_t c = 0; c < columns; ++c)
      for (int64_t r = 0; r < rows; ++r)
        all[c * rows + r] = number(at, kind, turned ? r * pitch + c : c * pitch + r);
    return all;
  }
  size_t bytes(int64_t rows, int64_t columns) const {
    if (turned) std::swap(rows, columns);
    return (size_t(columns - 1) * pitch + rows) * (kind == BF16 ? 2 : 4);
  }
};

// c [m, n] = alpha a [m, k] b [k, n] + beta c, column by column, sums in f32.
void multiply(Matrix a, Matrix b, void* c, int c_kind, int64_t pitch, int64_t m, int64_t n, int64_t k,
              float alpha, float beta) {
  std::vector<float> left = a.plain(m, k), right = b.plain(k, n), sums(m);
  for (int64_t column = 0; column < n; ++column) {
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (int64_t i = 0; i < k; ++i) {
      float factor = right[column * k + i];
      for (int64_t row = 0; row < m; ++row) sums[row] += left[i * m + row] * factor;
    }
    for (int64_t row = 0; row < m; ++row) {
      size_t at = column * pitch + row;
      float sum = alpha * sums[row] + (beta == 0.0f ? 0.0f : beta * number(c, c_kind, at));
      if (c_kind == BF16)
        static_cast<__nv_bfloat16*>(c)[at] = __float2bfloat16_rn(sum);
      else
        static_cast<float*>(c)[at] = sum;
    }
  }
}

}  // namespace

// What a device is.

EXPORT int cuInit(unsigned) { return SUCCESS; }
EXPORT int cuDriverGetVersion(int* version) {
  *version = 13000;
  return SUCCESS;
}
EXPORT int cuDeviceGetCount(int* count) {
  *count = 1;
  return SUCCESS;
}
EXPORT int cuDeviceGet(int* device, int index) {
  *device = 0;
  return index == 0 ? SUCCESS : INVALID_DEVICE;
}
EXPORT int cuDeviceGetName(char* name, int length, int) {
  std::snprintf(name, size_t(length), "emulated GPU");
  return SUCCESS;
}
EXPORT int cuDeviceTotalMem_v2(size_t* bytes, int) {
  *bytes = driver().total;
  return SUCCESS;
}
EXPORT int cuDeviceGetAttribute(int* value, int attribute, int) {
  switch (attribute) {
    case 16: *value = 132; return SUCCESS;              // multiprocessors
    case 75: *value = 9; return SUCCESS;                // compute capability 9.0
    case 76: *value = 0; return SUCCESS;
    case 97: *value = SHARED_AT_MOST; return SUCCESS;   // shared memory a block may ask for
    case 115: *value = 1; return SUCCESS;               // memory pools
    default: return INVALID_VALUE;
  }
}
EXPORT int cuGetErrorName(int error, const char** text) {
  *text = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "an error of the emulated GPU";
  return SUCCESS;
}
EXPORT int cuGetErrorString(int error, const char** text) {
  *text = error == OUT_OF_MEMORY ? "out of memory" : "see what the emulated GPU has printed";
  return SUCCESS;
}

// Contexts, streams, events.

EXPORT int cuDevicePrimaryCtxRetain(void** context, int) {
  *context = &driver().context;
  return SUCCESS;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
EXPORT int cuCtxGetCurrent(void** context) {
  *context = current;
  return SUCCESS;
}
EXPORT int cuCtxSetCurrent(void* context) {
  current = context;
  return SUCCESS;
}
EXPORT int cuCtxSynchronize() {
  ENTER;
  finish_all();
  return driver().broken;
}
EXPORT int cuStreamCreate(void** stream, unsigned) {
  ENTER;
  auto made = std::make_unique<Stream>();
  *stream = made.get();
  driver().streams[made.get()] = std::move(made);
  return SUCCESS;
}
EXPORT int cuStreamDestroy_v2(void* stream) {
  ENTER;
  Stream* known = stream ? stream_of(stream) : nullptr;
  if (!known) return INVALID_HANDLE;
  finish(*known);
  driver().streams.erase(known);
  return SUCCESS;
}
EXPORT int cuStreamSynchronize(void* stream) {
  ENTER;
  Stream* known = stream_of(stream);
  if (!known) return INVALID_HANDLE;
  finish(*known);
  return driver().broken;
}
EXPORT int cuStreamIsCapturing(void*, int* status) {
  *status = 0;
  return SUCCESS;
}
EXPORT int cuStreamWaitEvent(void*, void* event, unsigned) {
  ENTER;
  if (auto* known = static_cast<Event*>(event); known->stream) finish(*known->stream);
  return SUCCESS;
}
EXPORT int cuEventCreate(void** event, unsigned) {
  *event = new Event;
  return SUCCESS;
}
EXPORT int cuEventDestroy_v2(void* event) {
  delete static_cast<Event*>(event);
  return SUCCESS;
}
EXPORT int cuEventRecord(void* event, void* stream) {
  ENTER;
  Stream* known = stream_of(stream);
  if (!known) return INVALID_HANDLE;
  static_cast<Event*>(event)->stream = known;
  return SUCCESS;
}
EXPORT int cuEventSynchronize(void* event) {
  ENTER;
  if (auto* known = static_cast<Event*>(event); known->stream) finish(*known->stream);
  return driver().broken;
}
EXPORT int cuEventQuery(void* event) {
  ENTER;
  auto* known = static_cast<Event*>(event);
  return known->stream && !known->stream->waiting.empty() ? NOT_READY : SUCCESS;
}

// Memory.

EXPORT int cuMemAllocAsync(uintptr_t* to, size_t bytes, void* stream) {
  ENTER;
  return stream_of(stream) ? allocate(to, bytes) : INVALID_HANDLE;
}
EXPORT int cuMemAlloc_v2(uintptr_t* to, size_t bytes) {
  ENTER;
  return allocate(to, bytes);
}
EXPORT int cuMemFreeAsync(uintptr_t at, void* stream) {
  ENTER;
  return give_back(at, stream);
}
EXPORT int cuMemFree_v2(uintptr_t at) {
  ENTER;
  finish_all();
  Result done = give_back(at, nullptr);
  finish_all();
  return done;
}
EXPORT int cuMemGetInfo_v2(size_t* free, size_t* total) {
  ENTER;
  *total = driver().total;
  // A pool that never gives back holds the most that ever was.
  *free = driver().total - driver().reserved;
  return SUCCESS;
}
EXPORT int cuDeviceGetDefaultMemPool(void** pool, int) {
  *pool = &driver().used;
  return SUCCESS;
}
EXPORT int cuMemPoolSetAttribute(void* pool, int, void*) {
  return pool == &driver().used ? SUCCESS : INVALID_VALUE;
}
EXPORT int cuMemPoolGetAttribute(void* pool, int attribute, void* value) {
  ENTER;
  if (pool != &driver().used) return INVALID_VALUE;
  switch (attribute) {
    case 5: *static_cast<uint64_t*>(value) = driver().reserved; return SUCCESS;
    case 7: *static_cast<uint64_t*>(value) = driver().used; return SUCCESS;
    default: return INVALID_VALUE;
  }
}
// The host's memory is pageable: it has been read, or written, when the call returns.
EXPORT int cuMemcpyHtoDAsync_v2(uintptr_t to, const void* from, size_t bytes, void* stream) {
  ENTER;
  if (!is_ours(to, bytes)) return INVALID_VALUE;
  auto* first = static_cast<const unsigned char*>(from);
  std::vector<unsigned char> held(first, first + bytes);
  return queue(stream, [to, held = std::move(held)] {
    std::memcpy(reinterpret_cast<void*>(to), held.data(), held.size());
  });
}
EXPORT int cuMemcpyDtoHAsync_v2(void* to, uintptr_t from, size_t bytes, void* stream) {
  ENTER;
  Stream* known = stream_of(stream);
  if (!known || !is_ours(from, bytes)) return INVALID_VALUE;
  finish(*known);
  std::memcpy(to, reinterpret_cast<void*>(from), bytes);
  return driver().broken;
}
EXPORT int cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t bytes, void* stream) {
  ENTER;
  if (!is_ours(to, bytes) || !is_ours(from, bytes)) return INVALID_VALUE;
  if (to < from + bytes && from < to + bytes && bytes > 0) return INVALID_VALUE;
  if (driver().idle && bytes > IDLE_MOST) return SUCCESS;
  return queue(stream, [=] {
    std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
  });
}
EXPORT int cuMemsetD8Async(uintptr_t at, unsigned char value, size_t bytes, void* stream) {
  ENTER;
  if (!is_ours(at, bytes)) return INVALID_VALUE;
  if (driver().idle && bytes > IDLE_MOST) return SUCCESS;
  return queue(stream, [=] { std::memset(reinterpret_cast<void*>(at), value, bytes); });
}

// Modules and launches.

EXPORT int cuModuleLoadData(void** module, const void* image) {
  ENTER;
  // A fat binary's first word, or PTX.
  uint32_t first;
  std::memcpy(&first, image, 4);
  if (first != 0xba55ed50 && !std::strstr(static_cast<const char*>(image), ".version"))
    return INVALID_IMAGE;
  *module = &driver().module;
  return SUCCESS;
}
EXPORT int cuModuleUnload(void*) { return SUCCESS; }
EXPORT int cuModuleGetFunction(void** function, void* module, const char* name) {
  ENTER;
  if (module != &driver().module) return INVALID_HANDLE;
  Function found{emulate::named(name), native(name)};
  if (!found.ours && !found.theirs) {
    std::fprintf(stderr, "emulated GPU: there is no kernel %s\n", name);
    return NOT_FOUND;
  }
  auto& known = driver().functions[name];
  if (!known) known = std::make_unique<Function>(found);
  *function = known.get();
  return SUCCESS;
}
EXPORT int cuFuncSetAttribute(void* function, int attribute, int value) {
  ENTER;
  if (attribute != 8 || value < 0 || uint32_t(value) > SHARED_AT_MOST) return INVALID_VALUE;
  static_cast<Function*>(function)->shared_bytes = uint32_t(value);
  return SUCCESS;
}
EXPORT int cuLaunchKernel(void* handle, unsigned x, unsigned y, unsigned z, unsigned block,
                          unsigned block_y, unsigned block_z, unsigned shared_bytes, void* stream,
                          void** given, void** extra) {
  ENTER;
  auto* function = static_cast<Function*>(handle);
  if (x == 0 || y == 0 || z == 0 || y > 65535 || z > 65535 || x > INT32_MAX || block == 0 ||
      block > 1024 || block_y != 1 || block_z != 1 || extra || shared_bytes > function->shared_bytes)
    return INVALID_VALUE;
  const emulate::Kernel* ours = function->ours;
  const Native* theirs = function->theirs;
  if (driver().idle && ours) return SUCCESS;
  size_t count = ours ? ours->arguments : theirs->arguments;
  // Arguments are read when the call is made. Each has at most eight bytes.
  std::vector<uint64_t> args(count);
  for (size_t i = 0; i < count; ++i) std::memcpy(&args[i], given[i], 8);
  if (!ours) return queue(stream, [call = theirs->call, args] { call(args); });
  std::array<uint32_t, 5> shape = {x, y, z, block, shared_bytes};
  return queue(stream, [name = ours->name, args, shape] {
    std::vector<const void*> places;
    for (const uint64_t& arg : args) places.push_back(&arg);
    char said[512];
    if (!gradus_emulator_launch(name, shape.data(), 0, places.data(), args.size(), said, sizeof said))
      broke((std::string(name) + ": " + said).c_str());
  });
}

// cuBLAS: products of f32 and bf16, sums in f32.

namespace {
struct Blas {
  void* stream = nullptr;
};
// cublasStatus_t.
constexpr int BLAS_SUCCESS = 0, BLAS_INVALID_VALUE = 7, BLAS_EXECUTION_FAILED = 13;
}  // namespace

EXPORT int cublasCreate_v2(void** handle) {
  Call call;
  if (call.state != SUCCESS) return BLAS_EXECUTION_FAILED;
  *handle = new Blas;
  return BLAS_SUCCESS;
}
EXPORT int cublasDestroy_v2(void* handle) {
  delete static_cast<Blas*>(handle);
  return BLAS_SUCCESS;
}
EXPORT int cublasSetStream_v2(void* handle, void* stream) {
  static_cast<Blas*>(handle)->stream = stream;
  return BLAS_SUCCESS;
}
EXPORT int cublasGemmStridedBatchedEx(void* handle, int a_turn, int b_turn, int m, int n, int k,
                                      const void* alpha, const void* a, int a_kind, int a_pitch,
                                      long long a_stride, const void* b, int b_kind, int b_pitch,
                                      long long b_stride, const void* beta, void* c, int c_kind,
                                      int c_pitch, long long c_stride, int batches, int, int) {
  Call call;
  if (call.state != SUCCESS) return BLAS_EXECUTION_FAILED;
  Matrix left{a, a_kind, a_turn != 0, a_pitch}, right{b, b_kind, b_turn != 0, b_pitch};
  Matrix out{c, c_kind, false, c_pitch};
  bool fits = m > 0 && n > 0 && k > 0 && a_pitch >= (a_turn ? k : m) && b_pitch >= (b_turn ? n : k) &&
              c_pitch >= m && is_known(a_kind) && a_kind == b_kind && is_known(c_kind) &&
              (batches == 1 || (a_kind == F32 && c_kind == F32)) &&
              is_ours(uintptr_t(a), left.bytes(m, k)) && is_ours(uintptr_t(b), right.bytes(k, n)) &&
              is_ours(uintptr_t(c), out.bytes(m, n));
  if (!fits) return BLAS_INVALID_VALUE;
  if (driver().idle && size_t(m) * size_t(n) * size_t(k) > IDLE_MOST) return BLAS_SUCCESS;
  // Pointers to the host's numbers: read when the call is made.
  float scale = *static_cast<const float*>(alpha), keep = *static_cast<const float*>(beta);
  Result done = queue(static_cast<Blas*>(handle)->stream, [=] {
    for (int i = 0; i < batches; ++i) {
      Matrix first = left, second = right;
      first.at = static_cast<const float*>(a) + i * a_stride;
      second.at = static_cast<const float*>(b) + i * b_stride;
      multiply(first, second, static_cast<float*>(c) + i * c_stride, c_kind, c_pitch, m, n, k, scale,
               keep);
    }
  });
  return done == SUCCESS ? BLAS_SUCCESS : BLAS_EXECUTION_FAILED;
}
EXPORT int cublasGemmEx(void* handle, int a_turn, int b_turn, int m, int n, int k, const void* alpha,
                        const void* a, int a_kind, int a_pitch, const void* b, int b_kind,
                        int b_pitch, const void* beta, void* c, int c_kind, int c_pitch, int compute,
                        int algorithm) {
  return cublasGemmStridedBatchedEx(handle, a_turn, b_turn, m, n, k, alpha, a, a_kind, a_pitch, 0, b,
                                    b_kind, b_pitch, 0, beta, c, c_kind, c_pitch, 0, 1, compute,
                                    algorithm);
}

// cuRAND: normal numbers.

namespace {
struct Random {
  std::mt19937_64 engine;
  void* stream = nullptr;
};
}  // namespace

EXPORT int curandCreateGenerator(void** generator, int) {
  *generator = new ::Random;
  return 0;
}
EXPORT int curandDestroyGenerator(void* generator) {
  delete static_cast<::Random*>(generator);
  return 0;
}
EXPORT int curandSetPseudoRandomGeneratorSeed(void* generator, unsigned long long seed) {
  static_cast<::Random*>(generator)->engine.seed(seed);
  return 0;
}
EXPORT int curandSetStream(void* generator, void* stream) {
  static_cast<::Random*>(generator)->stream = stream;
  return 0;
}
EXPORT int curandGenerateNormal(void* generator, float* to, size_t count, float mean, float deviation) {
  Call call;
  // Pairs, as cuRAND has it: CURAND_STATUS_LENGTH_NOT_MULTIPLE.
  if (count % 2 != 0) return 105;
  if (call.state != SUCCESS || !is_ours(uintptr_t(to), count * 4)) return 201;
  if (driver().idle) return 0;
  auto* random = static_cast<::Random*>(generator);
  Result done = queue(random->stream, [=] {
    std::normal_distribution<float> normal(mean, deviation);
    for (size_t i = 0; i < count; ++i) to[i] = normal(random->engine);
  });
  return done == SUCCESS ? 0 : 201;
}
