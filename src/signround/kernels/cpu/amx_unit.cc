// Products of panels by the tile registers (AMX).
#include "signround/kernels/cpu/int8_panels.h"
#include "signround/kernels/cpu/panels.h"

#if defined(__x86_64__)

#include <sys/syscall.h>
#include <unistd.h>

#include "signround/kernels/cpu/panel_plan.h"
#include "signround/kernels/cpu/panels_pack-inl.h"
#include "signround/kernels/cpu/x86.h"

#define SIGNROUND_AMX __attribute__((target("amx-tile,amx-bf16")))
#define SIGNROUND_AMX_INT8 __attribute__((target("amx-tile,amx-int8")))

namespace signround::kernels::panels {
namespace {

const char* find_why_not() noexcept {
  const unsigned features = x86::cpuid(7).d;
  if (!x86::has_bit(features, 24) || !x86::has_bit(features, 22))
    return "the CPU has no AMX tiles for bf16";
  if (const char* reason = why_no_avx512_bf16()) return reason;
  if (!x86::system_saves(x86::kTileState)) return "the system saves no tile registers";
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0)
    return "the system does not let this process use tile registers";
  return nullptr;
}

const char* why_not() noexcept {
  static const char* const reason = find_why_not();
  return reason;
}

const char* why_not_int8() noexcept {
  if (const char* reason = why_not()) return reason;
  return x86::has_bit(x86::cpuid(7).d, 25) ? nullptr
                                           : "the CPU has no AMX tiles for 8-bit integers";
}

SIGNROUND_AMX void start() noexcept {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  asm volatile("" : : "r"(&config) : "memory");
  _tile_loadconfig(&config);
}

SIGNROUND_AMX void stop() noexcept {
  _mm_sfence();
  _tile_release();
}

// Tiles 0 to 3 are C, 4 and 5 the halves of A, 6 and 7 those of B.
template <bool kFetches>
SIGNROUND_AMX inline __attribute__((always_inline)) void multiply_steps(const Tile& tile) {
  const bool packed = tile.a_stride == 0;
  const int64_t a_row = packed ? 64 : tile.a_stride * 2, a_step = packed ? kStep : kDepth,
                a_half = packed ? kStep / 2 : 16 * tile.a_stride;
  const BF16 *a = tile.a, *b = tile.b;
  const auto *ahead_a = static_cast<const char*>(tile.ahead_a.line),
             *ahead_b = static_cast<const char*>(tile.ahead_b.line);
  for (int64_t step = 0; step < tile.depth; ++step, a += a_step, b += kStep) {
    const BF16* ahead = step + kAhead < tile.depth
                            ? b + kAhead * kStep
                            : tile.next_b + (step + kAhead - tile.depth) * kStep;
    _tile_loadd(6, b, 64);
    fetch_quarter(ahead, 0);
    _tile_loadd(4, a, a_row);
    fetch_quarter(ahead, 1);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + kStep / 2, 64);
    fetch_quarter(ahead, 2);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + a_half, a_row);
    fetch_quarter(ahead, 3);
    if constexpr (kFetches) {
      fetch_lines(ahead_a, tile.ahead_a.row);
      ahead_a += tile.ahead_a.step;
    }
    _tile_dpbf16ps(2, 5, 6);
    if constexpr (kFetches) {
      fetch_lines(ahead_b, tile.ahead_b.row);
      ahead_b += tile.ahead_b.step;
    }
    _tile_dpbf16ps(3, 5, 7);
  }
}

SIGNROUND_AMX void multiply(const Tile& tile) noexcept {
  asm volatile("" : : : "memory");  // what others packed and wrote is in memory
  if (tile.from) {
    const float *from = tile.from, *low = from + 16 * tile.from_stride;
    const int64_t row = tile.from_stride * 4;
    _tile_loadd(0, from, row);
    _tile_loadd(1, from + 16, row);
    _tile_loadd(2, low, row);
    _tile_loadd(3, low + 16, row);
  } else if (tile.bias) {
    _tile_loadd(0, tile.bias, 0);
    _tile_loadd(1, tile.bias + 16, 0);
    _tile_loadd(2, tile.bias, 0);
    _tile_loadd(3, tile.bias + 16, 0);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  tile.ahead_a.line ? multiply_steps<true>(tile) : multiply_steps<false>(tile);
  float *c = tile.c, *low = c + 16 * tile.stride;
  const int64_t row = tile.stride * 4;
  _tile_stored(0, c, row);
  _tile_stored(1, c + 16, row);
  _tile_stored(2, low, row);
  _tile_stored(3, low + 16, row);
}

// Tiles 0 to 3 are C, 4 and 5 the halves of A, 6 and 7 those of B.
SIGNROUND_AMX_INT8 void multiply(const Int8Tile& tile) noexcept {
  asm volatile("" : : : "memory");  // what others packed and wrote is in memory
  constexpr int64_t kRow = kPanel * int64_t{sizeof(int32_t)}, kLow = 16 * kPanel;
  if (tile.from) {
    _tile_loadd(0, tile.from, kRow);
    _tile_loadd(1, tile.from + 16, kRow);
    _tile_loadd(2, tile.from + kLow, kRow);
    _tile_loadd(3, tile.from + kLow + 16, kRow);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const int8_t *a = tile.a, *b = tile.b;
  const auto *ahead_a = static_cast<const char*>(tile.ahead_a.line),
             *ahead_b = static_cast<const char*>(tile.ahead_b.line);
  for (int64_t step = 0; step < tile.depth; ++step, a += kInt8Step, b += kInt8Step) {
    const int8_t* ahead = step + kAhead < tile.depth
                              ? b + kAhead * kInt8Step
                              : tile.next_b + (step + kAhead - tile.depth) * kInt8Step;
    _tile_loadd(6, b, 64);
    fetch_quarter(ahead, 0);
    _tile_loadd(4, a, 64);
    fetch_quarter(ahead, 1);
    _tile_dpbssd(0, 4, 6);
    _tile_loadd(7, b + kInt8Step / 2, 64);
    fetch_quarter(ahead, 2);
    _tile_dpbssd(1, 4, 7);
    _tile_loadd(5, a + kInt8Step / 2, 64);
    fetch_quarter(ahead, 3);
    fetch_lines(ahead_a, tile.ahead_a.row);
    ahead_a += tile.ahead_a.step;
    _tile_dpbssd(2, 5, 6);
    fetch_lines(ahead_b, tile.ahead_b.row);
    ahead_b += tile.ahead_b.step;
    _tile_dpbssd(3, 5, 7);
  }
  _tile_stored(0, tile.sums, kRow);
  _tile_stored(1, tile.sums + 16, kRow);
  _tile_stored(2, tile.sums + kLow, kRow);
  _tile_stored(3, tile.sums + kLow + 16, kRow);
  asm volatile("" : : : "memory");
}

}  // namespace

const Unit kAmx{why_not, start, stop, multiply};
const Int8Unit kAmxInt8{why_not_int8, start, stop, multiply, Codes::kSigned};

}  // namespace signround::kernels::panels

#else

namespace signround::kernels::panels {
namespace {
const char* why_not() noexcept { return "the CPU is not an x86-64"; }
void nothing() noexcept {}
void multiply(const Tile&) noexcept {}
void multiply(const Int8Tile&) noexcept {}
}  // namespace
const Unit kAmx{why_not, nothing, nothing, multiply};
const Int8Unit kAmxInt8{why_not, nothing, nothing, multiply, Codes::kSigned};
}  // namespace signround::kernels::panels

#endif
