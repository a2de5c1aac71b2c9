#include "signround/device/emulated/emulator.h"

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <vector>

namespace signround::emulator {

thread_local dim3 thread_index, block_index, block_size, grid_size;

namespace {

// Saves the registers that a call keeps on the stack, and goes on with those of another one.
extern "C" void signround_switch(void** save, void* load);
asm(R"(
.text
.globl signround_switch
.type signround_switch,@function
signround_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size signround_switch,.-signround_switch
)");

constexpr size_t kStack = 96 << 10;

struct Copy {
  void* to;
  const void* from;
  int bytes;
};

struct Fiber {
  std::unique_ptr<char[]> stack;
  void* sp = nullptr;
  enum class State { kReady, kBarrier, kWarp, kDone } state = State::kDone;
  void (*collective)(void**) = nullptr;
  void* payload = nullptr;
  dim3 index;
  std::vector<Copy> open;                 // copies not committed
  std::vector<std::vector<Copy>> groups;  // committed, oldest first
};

struct Scheduler {
  std::vector<std::unique_ptr<Fiber>> fibers;
  Fiber* current = nullptr;
  void* sp = nullptr;
  const std::function<void()>* kernel = nullptr;
  std::vector<uint64_t> shared;
  // The order of warps, and when copies are made: as early or as late as may be. Blocks differ.
  bool backwards = false, early = false;
};
thread_local Scheduler scheduler;

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "emulated kernel: %s (block %u %u %u)\n", what, block_index.x, block_index.y,
               block_index.z);
  std::abort();
}

void run_copies(const std::vector<Copy>& copies) {
  for (const Copy& c : copies) {
    if (c.from != nullptr)
      std::memcpy(c.to, c.from, static_cast<size_t>(c.bytes));
    else
      std::memset(c.to, 0, static_cast<size_t>(c.bytes));
  }
}

void yield(Fiber::State state) {
  Fiber* self = scheduler.current;
  self->state = state;
  signround_switch(&self->sp, scheduler.sp);
}

[[noreturn]] void enter() {
  (*scheduler.kernel)();
  yield(Fiber::State::kDone);
  die("a finished thread went on");
}

void start(Fiber& fiber, dim3 index) {
  if (!fiber.stack) fiber.stack = std::make_unique<char[]>(kStack);
  fiber.index = index;
  fiber.open.clear();
  fiber.groups.clear();
  auto top = reinterpret_cast<uintptr_t>(fiber.stack.get() + kStack) & ~uintptr_t{15};
  void** sp = reinterpret_cast<void**>(top);
  *--sp = nullptr;                                // a return address of nobody: alignment
  *--sp = reinterpret_cast<void*>(&enter);        // of the first switch
  for (int r = 0; r < 6; ++r) *--sp = nullptr;    // registers
  fiber.sp = sp;
  fiber.state = Fiber::State::kReady;
}

// Until all lanes wait at a barrier or are done. False: nothing moved.
bool run_warp(Scheduler& s, size_t warp, size_t count) {
  const size_t lanes = std::min<size_t>(32, count - warp * 32);
  bool moved = false;
  for (;;) {
    void* payloads[32] = {};
    void (*run)(void**) = nullptr;
    bool together = true, any = false;
    for (size_t l = 0; l < lanes; ++l) {
      Fiber& f = *s.fibers[warp * 32 + l];
      if (f.state == Fiber::State::kReady) {
        s.current = &f;
        thread_index = f.index;
        signround_switch(&s.sp, f.sp);
        moved = true;
      }
      if (f.state == Fiber::State::kBarrier) together = false;
      if (f.state != Fiber::State::kWarp) continue;
      if (any && f.collective != run) die("lanes of a warp are at different operations");
      run = f.collective;
      any = true;
      payloads[l] = f.payload;
    }
    if (!together || !any) return moved;
    run(payloads);
    for (size_t l = 0; l < lanes; ++l) {
      Fiber& f = *s.fibers[warp * 32 + l];
      if (f.state == Fiber::State::kWarp) f.state = Fiber::State::kReady;
    }
  }
}

void run_block(dim3 block) {
  Scheduler& s = scheduler;
  const size_t count = size_t{block.x} * block.y * block.z;
  while (s.fibers.size() < count) s.fibers.push_back(std::make_unique<Fiber>());
  for (size_t i = 0; i < count; ++i) {
    const auto n = static_cast<unsigned>(i);
    start(*s.fibers[i], {n % block.x, n / block.x % block.y, n / (block.x * block.y)});
  }
  const size_t warps = (count + 31) / 32;
  for (;;) {
    size_t done = 0, at_barrier = 0;
    bool moved = false;
    // Each warp runs until its next barrier, so that what another one should have waited for shows.
    for (size_t w = 0; w < warps; ++w)
      moved |= run_warp(s, s.backwards ? warps - 1 - w : w, count);
    for (size_t i = 0; i < count; ++i) {
      done += s.fibers[i]->state == Fiber::State::kDone;
      at_barrier += s.fibers[i]->state == Fiber::State::kBarrier;
    }
    if (done == count) return;
    if (at_barrier + done == count) {
      if (done != 0) die("some threads ended, others wait at a barrier");
      for (size_t i = 0; i < count; ++i) s.fibers[i]->state = Fiber::State::kReady;
    } else if (!moved) {
      die("threads wait for each other");
    }
  }
}

}  // namespace

void run_grid(dim3 grid, dim3 block, int64_t shared_bytes, const std::function<void()>& kernel) {
  const int64_t blocks = int64_t{grid.x} * grid.y * grid.z;
#pragma omp parallel for schedule(dynamic)
  for (int64_t b = 0; b < blocks; ++b) {
    Scheduler& s = scheduler;
    s.kernel = &kernel;
    block_size = block;
    grid_size = grid;
    const int64_t x = grid.x, y = grid.y;
    block_index = {static_cast<unsigned>(b % x), static_cast<unsigned>(b / x % y),
                   static_cast<unsigned>(b / (x * y))};
    s.shared.assign(static_cast<size_t>(shared_bytes / 8 + 18), 0xfff7fff7fff7fff7u);
    s.backwards = b % 2 != 0;
    s.early = b / 2 % 2 != 0;
    run_block(block);
  }
}

void barrier() { yield(Fiber::State::kBarrier); }

void collect(void (*run)(void**), void* payload) {
  scheduler.current->collective = run;
  scheduler.current->payload = payload;
  yield(Fiber::State::kWarp);
}

void* dynamic_shared() {
  const auto at = reinterpret_cast<uintptr_t>(scheduler.shared.data());
  return reinterpret_cast<void*>((at + 127) & ~uintptr_t{127});
}

void copy_later(void* to, const void* from, int bytes) {
  if (scheduler.early) return run_copies({{to, from, bytes}});
  scheduler.current->open.push_back({to, from, bytes});
}

void commit_copies() {
  Fiber& f = *scheduler.current;
  f.groups.push_back(std::move(f.open));
  f.open.clear();
}

void wait_copies(int but) {
  Fiber& f = *scheduler.current;
  while (f.groups.size() > static_cast<size_t>(but)) {
    run_copies(f.groups.front());
    f.groups.erase(f.groups.begin());
  }
}

}  // namespace signround::emulator
