#include "signround/graph/arena.h"

#include <gtest/gtest.h>

#include "signround/base/random.h"

namespace signround {
namespace {

TEST(Arena, SharesMemoryOfBuffersThatAreNotAliveTogether) {
  Arena arena;
  const int a = arena.add(1000), b = arena.add(1000), c = arena.add(500);
  arena.touch(a, 0), arena.touch(a, 1);
  arena.touch(b, 2), arena.touch(b, 3);
  arena.touch(c, 1), arena.touch(c, 2);
  EXPECT_EQ(arena.place(), 1024 + 512);
  arena.allocate();
  EXPECT_EQ(arena.at(a), arena.at(b));
}

TEST(Arena, NeverOverlapsBuffersThatAreAliveTogether) {
  PythonRandom random(7);
  for (int round = 0; round < 50; ++round) {
    Arena arena;
    struct Life {
      int buffer, first, last;
      int64_t bytes;
    };
    std::vector<Life> lives;
    for (int i = 0; i < 30; ++i) {
      const int first = static_cast<int>(random.below(40)),
                last = first + static_cast<int>(random.below(10));
      const auto bytes = static_cast<int64_t>(1 + random.below(5000));
      const int buffer = arena.add(bytes);
      arena.touch(buffer, last), arena.touch(buffer, first);
      lives.push_back({buffer, first, last, bytes});
    }
    EXPECT_LE(arena.place(), arena.bytes_without_reuse());
    arena.allocate();
    for (const Life& x : lives)
      for (const Life& y : lives) {
        if (x.buffer >= y.buffer || x.last < y.first || y.last < x.first) continue;
        const char *px = static_cast<char*>(arena.at(x.buffer)),
                   *py = static_cast<char*>(arena.at(y.buffer));
        EXPECT_TRUE(px + x.bytes <= py || py + y.bytes <= px) << "round " << round;
      }
  }
}

}  // namespace
}  // namespace signround
