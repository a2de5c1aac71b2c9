// Random numbers that are the same with every compiler and library, and the same as the peers'.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <utility>
#include <vector>

namespace signround {

// Python's `random.Random(seed)`: MT19937 seeded by init_by_array, with Python's own `shuffle` and
// `_randbelow`.
class PythonRandom {
 public:
  explicit PythonRandom(uint64_t seed);

  uint32_t next_u32() { return static_cast<uint32_t>(engine_()); }
  double uniform();            // random.random(): 53 bits in [0, 1)
  uint64_t below(uint64_t n);  // random._randbelow(n); REQUIRES: n > 0
  template <class T>
  void shuffle(std::vector<T>& items) {  // random.shuffle(items)
    for (size_t i = items.size(); i-- > 1;) std::swap(items[i], items[below(i + 1)]);
  }

 private:
  std::mt19937 engine_;
};

// numpy's `default_rng(seed)`: PCG64 (XSL-RR 128/64) seeded by SeedSequence (O'Neill's seed_seq,
// pool of 4 words).
class NumpyRandom {
 public:
  explicit NumpyRandom(uint64_t seed);

  uint64_t next_u64();
  uint32_t next_u32();         // halves of next_u64, the low one first
  uint64_t below(uint64_t n);  // Generator.integers(n): Lemire's method; REQUIRES: n > 0
  std::vector<int64_t> permutation(int64_t n);  // Generator.permutation(n); REQUIRES: n >= 0

 private:
  unsigned __int128 state_ = 0, increment_ = 0;
  uint32_t spare_ = 0;
  bool has_spare_ = false;
};

// A normal variate by Box-Muller from two uniforms; for tests and synthetic checkpoints.
double normal(PythonRandom& random);

}  // namespace signround
