#include "signround/base/random.h"

#include <array>
#include <bit>
#include <cmath>
#include <numeric>
#include <sstream>

#include "signround/base/error.h"

namespace signround {
namespace {

// MT19937's init_by_array (Matsumoto and Nishimura's mt19937ar.c), which CPython uses for integer
// seeds.
std::mt19937 seeded_by_array(std::span<const uint32_t> key) {
  constexpr int n = 624;
  uint32_t mt[n];
  mt[0] = 19650218u;
  for (uint32_t i = 1; i < n; ++i) mt[i] = 1812433253u * (mt[i - 1] ^ (mt[i - 1] >> 30)) + i;
  size_t i = 1, j = 0;
  for (size_t k = std::max<size_t>(n, key.size()); k > 0; --k) {
    mt[i] =
        (mt[i] ^ ((mt[i - 1] ^ (mt[i - 1] >> 30)) * 1664525u)) + key[j] + static_cast<uint32_t>(j);
    if (++i >= n) mt[0] = mt[n - 1], i = 1;
    if (++j >= key.size()) j = 0;
  }
  for (size_t k = n - 1; k > 0; --k) {
    mt[i] = (mt[i] ^ ((mt[i - 1] ^ (mt[i - 1] >> 30)) * 1566083941u)) - static_cast<uint32_t>(i);
    if (++i >= n) mt[0] = mt[n - 1], i = 1;
  }
  mt[0] = 0x80000000u;
  // The standard fixes the text form of the engine's state (n words, then the position), so this is
  // portable.
  std::stringstream state;
  for (uint32_t word : mt) state << word << ' ';
  state << n;
  std::mt19937 engine;
  state >> engine;
  return engine;
}

// SeedSequence.generate_state(8) of an integer seed, as 4 words of 64 bits. The constants are
// numpy's.
std::array<uint64_t, 4> seed_sequence(uint64_t seed) {
  constexpr uint32_t kInitA = 0x43b0d7e5, kMultA = 0x931e8875, kInitB = 0x8b51f9dd,
                     kMultB = 0x58f38ded;
  constexpr uint32_t kMixLeft = 0xca01f9dd, kMixRight = 0x4973f715;
  uint32_t hash = kInitA;
  auto hashed = [&hash](uint32_t value) {
    value ^= hash;
    hash *= kMultA;
    value *= hash;
    return value ^ (value >> 16);
  };
  uint32_t pool[4];
  const uint32_t entropy[4] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32), 0,
                               0};
  for (int i = 0; i < 4; ++i) pool[i] = hashed(entropy[i]);
  for (int from = 0; from < 4; ++from) {
    for (int to = 0; to < 4; ++to) {
      if (from == to) continue;
      const uint32_t mixed = kMixLeft * pool[to] - kMixRight * hashed(pool[from]);
      pool[to] = mixed ^ (mixed >> 16);
    }
  }
  std::array<uint64_t, 4> out{};
  hash = kInitB;
  for (int i = 0; i < 8; ++i) {
    uint32_t word = pool[i % 4] ^ hash;
    hash *= kMultB;
    word *= hash;
    word ^= word >> 16;
    out[i / 2] |= static_cast<uint64_t>(word) << (32 * (i % 2));
  }
  return out;
}

constexpr unsigned __int128 kPcgMultiplier =
    (static_cast<unsigned __int128>(2549297995355413924u) << 64) + 4865540595714422341u;

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
  for (;;) {  // getrandbits(bits): words of 32 bits, least significant first, the last one cut from
              // the top
    uint64_t value = 0;
    for (int done = 0; done < bits; done += 32) {
      uint32_t word = next_u32();
      if (bits - done < 32) word >>= 32 - (bits - done);
      value |= static_cast<uint64_t>(word) << done;
    }
    if (value < n) return value;
  }
}

NumpyRandom::NumpyRandom(uint64_t seed) {
  const auto words = seed_sequence(seed);
  const auto wide = [](uint64_t high, uint64_t low) {
    return static_cast<unsigned __int128>(high) << 64 | low;
  };
  increment_ = wide(words[2], words[3]) << 1 | 1;
  state_ = (increment_ + wide(words[0], words[1])) * kPcgMultiplier + increment_;
}

uint64_t NumpyRandom::next_u64() {
  state_ = state_ * kPcgMultiplier + increment_;
  const uint64_t folded = static_cast<uint64_t>(state_ >> 64) ^ static_cast<uint64_t>(state_);
  return std::rotr(folded, static_cast<int>(state_ >> 122));
}

uint32_t NumpyRandom::next_u32() {
  if (has_spare_) {
    has_spare_ = false;
    return spare_;
  }
  const uint64_t both = next_u64();
  spare_ = static_cast<uint32_t>(both >> 32);
  has_spare_ = true;
  return static_cast<uint32_t>(both);
}

// Lemire, "Fast random integer generation in an interval" (2019): the high half of random * n,
// redrawn while the low half falls below 2^w mod n. numpy draws words of 32 bits while n fits in
// them.
uint64_t NumpyRandom::below(uint64_t n) {
  require(n > 0, "random", "below(0) has no value to draw");
  if (n == 1) return 0;
  if (n <= uint64_t{1} << 32) {
    if (n == uint64_t{1} << 32) return next_u32();
    const uint32_t n32 = static_cast<uint32_t>(n), threshold = -n32 % n32;
    for (;;) {
      const uint64_t product = n * next_u32();
      if (static_cast<uint32_t>(product) >= threshold) return product >> 32;
    }
  }
  const uint64_t threshold = -n % n;
  for (;;) {
    const auto product = static_cast<unsigned __int128>(n) * next_u64();
    if (static_cast<uint64_t>(product) >= threshold) return static_cast<uint64_t>(product >> 64);
  }
}

std::vector<int64_t> NumpyRandom::permutation(int64_t n) {
  require(n >= 0, "random", "a permutation of ", n, " items was asked for");
  std::vector<int64_t> items(static_cast<size_t>(n));
  std::iota(items.begin(), items.end(), 0);
  // Unlike integers(), numpy's shuffle draws by masking: bits of as many as i has, redrawn while
  // above i.
  for (uint64_t i = items.size(); i-- > 1;) {
    const uint64_t mask = ~uint64_t{0} >> std::countl_zero(i);
    uint64_t j;
    do j = (i >> 32 ? next_u64() : next_u32()) & mask;
    while (j > i);
    std::swap(items[i], items[j]);
  }
  return items;
}

double normal(PythonRandom& random) {
  const double u = 1.0 - random.uniform(), v = random.uniform();
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * 3.14159265358979323846 * v);
}

}  // namespace signround
