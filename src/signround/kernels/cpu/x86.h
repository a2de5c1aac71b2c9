// What an x86 CPU can do and the system lets processes use. For x86-64 only.
#pragma once

#include <cpuid.h>

namespace signround::kernels::x86 {

struct Registers {
  unsigned a = 0, b = 0, c = 0, d = 0;
};
// CPUID; zeros for a leaf that the CPU does not have.
inline Registers cpuid(unsigned leaf, unsigned sub_leaf = 0) {
  Registers r;
  __get_cpuid_count(leaf, sub_leaf, &r.a, &r.b, &r.c, &r.d);
  return r;
}
inline bool has_bit(unsigned bits, int bit) { return (bits >> bit & 1) != 0; }

// Registers that the system saves when it switches threads (XCR0).
constexpr unsigned kAvx512State = 0xe6, kTileState = 0x60000;
inline bool system_saves(unsigned state) {
  if (!has_bit(cpuid(1).c, 27)) return false;
  unsigned low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & state) == state;
}

}  // namespace signround::kernels::x86
