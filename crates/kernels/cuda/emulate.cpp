// Runs kernels on a CPU: threads as fibers, their meetings, and what is said when one goes wrong.
// emulate.h has what a kernel sees of it.
//
// A fiber runs until it meets others or ends; then the next one that can run does, of its own warp
// first. When none can and some have not ended, they wait for one that will not come: the launch ends
// there. One launch at a time, on one thread: the caller sees to it (src/emulator.rs).

#define GRADUS_EMULATE
#include "emulate.h"

#include "all.cu"
#include "emulate_faults.cu"

#include <cstdio>
#include <memory>
#include <vector>
#if defined(__x86_64__) && !defined(GRADUS_UCONTEXT)
#define GRADUS_SWITCH
#else
#include <ucontext.h>
#endif

emulate::Dim threadIdx, blockIdx, blockDim, gridDim;

// Where the linker has put what `__shared__` names.
extern "C" unsigned char __start_gradus_shared[], __stop_gradus_shared[];

// What is kept of a stack that does not run. On x86-64 they are changed by hand: swapcontext asks the
// system for the signal mask each time, which takes a hundred times as long as the rest.
#ifdef GRADUS_SWITCH
using Context = void*;
extern "C" void gradus_switch(Context* from, Context to);
// Keeps the registers that a function must keep on the stack that is left, and takes them from the
// other. The rounding mode is the same everywhere.
__asm__(
    ".text\n"
    ".local gradus_switch\n"
    ".type gradus_switch, @function\n"
    "gradus_switch:\n"
    " pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
    " movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
    " popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n"
    " ret\n"
    ".size gradus_switch, .-gradus_switch\n");
#else
using Context = ucontext_t;
#endif

namespace emulate {

const Kernel* Kernel::first = nullptr;

namespace {

constexpr size_t THREADS_MOST = 1024;
// No multiple of a page, so that the tops of a thousand stacks are not all in one set of the cache.
constexpr size_t STACK = 64 * 1024 + 320;
// As much of a stack as is overwritten before a thread begins.
constexpr size_t STACK_SOILED = 2 * 1024;
// Shared memory that a block may ask for, and what lies behind it to see that no more is used.
constexpr size_t SHARED_MOST = 160 * 1024;
constexpr size_t SHARED_FENCE = 16 * 1024;
constexpr unsigned char RUBBISH = 0xff;

// Order of blocks and threads (splitmix64).
struct Random {
  uint64_t state;
  uint64_t next() {
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
};

struct Fiber {
  Context context;
  Meeting waits = Meeting::none;
  bool ended = false;
};

struct Free {
  void operator()(unsigned char* at) const { ::operator delete[](at, std::align_val_t(128)); }
};
using Bytes = std::unique_ptr<unsigned char[], Free>;
Bytes bytes(size_t count) {
  return Bytes(static_cast<unsigned char*>(::operator new[](count, std::align_val_t(128))));
}

// What the lanes of a warp show each other, which of the two sets each lane takes next, and how many
// lanes wait for each kind of meeting.
struct Warp {
  alignas(64) unsigned char places[2][32 * PLACE];
  unsigned char turn[32];
  unsigned here[MEETINGS];
};

struct Machine {
  Bytes shared = bytes(SHARED_MOST + SHARED_FENCE);
  Bytes stacks = bytes(THREADS_MOST * STACK);
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  Context scheduler;
  unsigned current = 0;
  // Threads that wait for the whole block.
  unsigned here = 0;
  const Kernel* kernel = nullptr;
  const void* const* args = nullptr;
  // What went wrong; empty while nothing has.
  char said[400] = "";
};

Machine& machine() {
  static Machine machine;
  return machine;
}

const char* name(Meeting meeting) {
  switch (meeting) {
    case Meeting::block: return "__syncthreads";
    case Meeting::warp: return "__syncwarp";
    case Meeting::shuffle: return "a shuffle";
    case Meeting::ballot: return "__ballot_sync";
    case Meeting::product: return "mma_sync";
    case Meeting::none: break;
  }
  return "nothing";
}

void run_thread() {
  Machine& m = machine();
  m.kernel->call(m.args);
  m.fibers[m.current].ended = true;
}

#ifdef GRADUS_SWITCH
void change(Context& from, Context& to) { gradus_switch(&from, to); }

[[noreturn]] void begin() {
  run_thread();
  Machine& m = machine();
  change(m.fibers[m.current].context, m.scheduler);
  __builtin_trap();
}

void prepare(Context& context, unsigned char* stack) {
  // Six registers, then where to go; a function begins with its stack 8 above a multiple of 16.
  void** top = reinterpret_cast<void**>(stack + STACK) - 8;
  std::memset(top, 0, 8 * sizeof(void*));
  top[6] = reinterpret_cast<void*>(&begin);
  context = top;
}
#else
void change(Context& from, Context& to) { swapcontext(&from, &to); }

void begin() {
  run_thread();
  Machine& m = machine();
  change(m.fibers[m.current].context, m.scheduler);
}

void prepare(Context& context, unsigned char* stack) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = STACK;
  context.uc_link = nullptr;
  makecontext(&context, begin, 0);
}
#endif

void leave() {
  Machine& m = machine();
  change(m.fibers[m.current].context, m.scheduler);
}

void soil(size_t shared_bytes) {
  Machine& m = machine();
  std::memset(m.shared.get(), RUBBISH, shared_bytes + SHARED_FENCE);
  std::memset(__start_gradus_shared, RUBBISH, size_t(__stop_gradus_shared - __start_gradus_shared));
  for (unsigned i = 0; i < blockDim.x; ++i) {
    unsigned char* stack = m.stacks.get() + i * STACK;
    std::memset(stack + STACK - STACK_SOILED, RUBBISH, STACK_SOILED);
    m.fibers[i].waits = Meeting::none;
    m.fibers[i].ended = false;
    prepare(m.fibers[i].context, stack);
  }
  for (Warp& warp : m.warps) std::memset(&warp, 0, sizeof warp);
  m.here = 0;
}

// Says which thread waits, and what is the matter with those that it waits for.
void say_stuck() {
  Machine& m = machine();
  for (unsigned i = 0; i < blockDim.x; ++i) {
    Meeting meeting = m.fibers[i].waits;
    if (meeting == Meeting::none) continue;
    bool all = meeting == Meeting::block;
    unsigned from = all ? 0 : i / 32 * 32, to = all ? blockDim.x : from + 32;
    for (unsigned other = from; other < to; ++other) {
      const Fiber& missed = m.fibers[other];
      if (missed.waits == meeting) continue;
      std::snprintf(m.said, sizeof m.said, "thread %u waits at %s for thread %u, which %s%s", i,
                    name(meeting), other, missed.ended ? "has ended" : "waits at ",
                    missed.ended ? "" : name(missed.waits));
      return;
    }
  }
}

// Lets each thread of a warp that can run do so until it meets others; whether there was one.
bool run_lanes(unsigned warp, bool down) {
  Machine& m = machine();
  bool ran = false;
  for (unsigned i = 0; i < 32; ++i) {
    unsigned at = warp * 32 + (down ? 31 - i : i);
    if (m.fibers[at].ended || m.fibers[at].waits != Meeting::none) continue;
    ran = true;
    m.current = at;
    threadIdx = {at, 0, 0};
    change(m.scheduler, m.fibers[at].context);
    if (m.said[0] != 0) break;
  }
  return ran;
}

// One block from its beginning to its end; false when something went wrong. A warp runs for as long
// as it can, so that it is ahead of others as far as the barriers between them allow.
bool run_block(Random& random, size_t shared_bytes) {
  Machine& m = machine();
  soil(shared_bytes);
  unsigned warps = blockDim.x / 32;
  for (bool ran = true; ran;) {
    ran = false;
    bool down = random.next() & 1;
    for (unsigned i = 0; i < warps; ++i) {
      while (run_lanes(down ? warps - 1 - i : i, random.next() & 1)) {
        ran = true;
        if (m.said[0] != 0) return false;
      }
    }
  }
  for (const Fiber& fiber : m.fibers) {
    if (!fiber.ended) {
      say_stuck();
      return false;
    }
  }
  for (size_t i = 0; i < SHARED_FENCE; ++i) {
    if (m.shared[shared_bytes + i] != RUBBISH) {
      std::snprintf(m.said, sizeof m.said,
                    "wrote %zu bytes behind the %zu bytes of shared memory that were asked for", i,
                    shared_bytes);
      return false;
    }
  }
  return true;
}

bool refuse(const char* what) {
  std::snprintf(machine().said, sizeof machine().said, "%s", what);
  return false;
}

// The kernel of this name; null where there is none.
const Kernel* named(const char* name) {
  const Kernel* kernel = Kernel::first;
  while (kernel && std::strcmp(kernel->name, name) != 0) kernel = kernel->next;
  return kernel;
}

bool run(const char* kernel, const uint32_t* shape, uint64_t seed, const void* const* args,
         size_t args_len) {
  Machine& m = machine();
  m.said[0] = 0;
  m.kernel = named(kernel);
  if (!m.kernel) return refuse("there is no such kernel");
  if (m.kernel->arguments != args_len) return refuse("takes another number of arguments");
  gridDim = {shape[0], shape[1], shape[2]};
  blockDim = {shape[3], 1, 1};
  size_t shared_bytes = shape[4];
  if (blockDim.x == 0 || blockDim.x > THREADS_MOST || blockDim.x % 32 != 0)
    return refuse("blocks have 32 to 1024 threads, in whole warps");
  if (gridDim.x == 0 || gridDim.y == 0 || gridDim.z == 0 || gridDim.x > INT32_MAX ||
      gridDim.y > 65535 || gridDim.z > 65535)
    return refuse("no such grid");
  if (shared_bytes > SHARED_MOST) return refuse("more shared memory than a block may have");
  m.args = args;
  m.fibers.resize(blockDim.x);
  m.warps.resize(blockDim.x / 32);
  size_t blocks = size_t(gridDim.x) * gridDim.y * gridDim.z;
  std::vector<uint32_t> order(blocks);
  Random random{seed};
  for (size_t i = 0; i < blocks; ++i) {
    size_t other = random.next() % (i + 1);
    order[i] = order[other];
    order[other] = uint32_t(i);
  }
  for (uint32_t at : order) {
    blockIdx = {at % gridDim.x, at / gridDim.x % gridDim.y, at / gridDim.x / gridDim.y};
    if (!run_block(random, shared_bytes)) return false;
  }
  return true;
}

}  // namespace

void meet(Meeting meeting) {
  Machine& m = machine();
  bool all = meeting == Meeting::block;
  unsigned first = all ? 0 : m.current / 32 * 32, count = all ? blockDim.x : 32;
  unsigned& here = all ? m.here : m.warps[first / 32].here[int(meeting)];
  m.fibers[m.current].waits = meeting;
  if (++here < count) return leave();
  // The last to come lets all go.
  here = 0;
  for (unsigned i = first; i < first + count; ++i) m.fibers[i].waits = Meeting::none;
}

void fail(const char* what) {
  std::snprintf(machine().said, sizeof machine().said, "%s", what);
  leave();
  __builtin_unreachable();
}

unsigned char* dynamic_shared() { return machine().shared.get(); }

int lane() { return int(threadIdx.x % 32); }

unsigned char* next_places() {
  Warp& warp = machine().warps[threadIdx.x / 32];
  return warp.places[warp.turn[lane()]++ & 1];
}

}  // namespace emulate

unsigned __ballot_sync(unsigned mask, bool here) {
  if (mask != 0xffffffffu) emulate::fail("a ballot of some lanes only: it is not emulated");
  unsigned char* places = emulate::next_places();
  places[emulate::lane() * emulate::PLACE] = here;
  emulate::meet(emulate::Meeting::ballot);
  unsigned votes = 0;
  for (int i = 0; i < 32; ++i) votes |= unsigned(places[i * emulate::PLACE]) << i;
  return votes;
}

extern "C" const char* gradus_emulator_kernel(size_t at) {
  const emulate::Kernel* kernel = emulate::Kernel::first;
  for (; kernel && at > 0; --at) kernel = kernel->next;
  return kernel ? kernel->name : nullptr;
}

extern "C" bool gradus_emulator_launch(const char* kernel, const uint32_t* shape, uint64_t seed,
                                       const void* const* args, size_t args_len, char* said,
                                       size_t said_len) {
  bool well = emulate::run(kernel, shape, seed, args, args_len);
  if (!well) {
    const emulate::Machine& m = emulate::machine();
    std::snprintf(said, said_len, "block (%u, %u, %u): %s", blockIdx.x, blockIdx.y, blockIdx.z,
                  m.said);
  }
  return well;
}
