#include "signround/base/random.h"

#include <bit>
#include <cmath>

#include "signround/base/error.h"

namespace signround {
namespace {

// MT19937's init_by_array (Matsumoto and Nishimura's mt19937ar.c), which CPython uses for integer seeds.
std::mt19937 seeded_by_array(std::span<const uint32_t> key) {
  constexpr int n = 624;
  uint32_t mt[n];
  mt[0] = 19650218u;
  for (uint32_t i = 1; i < n; ++i) mt[i] = 1812433253u * (mt[i - 1] ^ (mt[i - 1] >> 30)) + i;
  size_t i = 1, j = 0;
  for (size_t k = std::max<size_t>(n, key.size()); k > 0; --k) {
    mt[i] = (mt[i] ^ ((mt[i - 1] ^ (mt[i - 1] >> 30)) * 1664525u)) + key[j] + static_cast<uint32_t>(j);
    if (++i >= n) mt[0] = mt[n - 1], i = 1;
    if (++j >= key.size()) j = 0;
  }
  for (size_t k = n - 1; k > 0; --k) {
    mt[i] = (mt[i] ^ ((mt[i - 1] ^ (mt[i - 1] >> 30)) * 1566083941u)) - static_cast<uint32_t>(i);
    if (++i >= n) mt[0] = mt[n - 1], i = 1;
  }
  mt[0] = 0x80000000u;
  // The standard fixes the text form of the engine's state (n words, then the position), so this is portable.
  std::stringstream state;
  for (uint32_t word : mt) state << word << ' ';
  state << n;
  std::mt19937 engine;
  state >> engine;
  return engine;
}

}  // namespace

PythonRandom::PythonRandom(uint64_t seed) {
  const uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  engine_ = seeded_by_array(std::span(key, key[1] ? 2 : 1));
}

double PythonRandom::uniform() {
  const uint32_t a = next_u32() >> 5, b = next_u32() >> 6;
  return (a * 67108864.0 + b) * (1.0 / 9007199254740992.0);
}

uint64_t PythonRandom::below(uint64_t n) {
  require(n > 0, "random", "below(0) has no value to draw");
  const int bits = std::bit_width(n);
  for (;;) {  // getrandbits(bits): words of 32 bits, least significant first, the last one cut from the top
    uint64_t value = 0;
    for (int done = 0; done < bits; done += 32) {
      uint32_t word = next_u32();
      if (bits - done < 32) word >>= 32 - (bits - done);
      value |= static_cast<uint64_t>(word) << done;
    }
    if (value < n) return value;
  }
}

double normal(PythonRandom& random) {
  const double u = 1.0 - random.uniform(), v = random.uniform();
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * 3.14159265358979323846 * v);
}

}  // namespace signround
