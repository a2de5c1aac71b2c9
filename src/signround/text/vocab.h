// Token strings and their ids: one arena of bytes and an open-addressing hash table over it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace signround {

// Ids beyond this are taken for a broken file: tables are indexed by id.
inline constexpr int64_t kMaxTokenId = (int64_t{1} << 23) - 1;

class Vocab {
 public:
  // A later id of the same token replaces the earlier one. Fails for an id outside [0,
  // kMaxTokenId].
  void add(std::string_view token, int64_t id);
  int32_t find(std::string_view token) const;  // -1: not there
  bool has(int32_t id) const {
    return id >= 0 && id < end_id() && spans_[static_cast<size_t>(id)].length >= 0;
  }
  std::string_view token(int32_t id) const;                               // "" if there is none
  int32_t end_id() const { return static_cast<int32_t>(spans_.size()); }  // highest id + 1
  int64_t size() const { return count_; }                                 // distinct tokens
  size_t longest() const { return longest_; }  // bytes of the longest token

 private:
  struct Slot {
    uint32_t hash = 0;
    int32_t id = -1;
    int64_t offset = 0;
    int64_t length = 0;
  };
  struct Span {
    int64_t offset = 0;
    int32_t length = -1;
  };
  const Slot* slot_of(std::string_view token, uint32_t hash) const;
  void grow();

  std::string arena_;
  std::vector<Slot> slots_;
  std::vector<Span> spans_;
  int64_t count_ = 0;
  size_t longest_ = 0;
};

// A good 64-bit hash of short strings, inlined: eight bytes a step, one multiplication each.
inline uint64_t short_hash(std::string_view s) {
  uint64_t h = 0x9E3779B97F4A7C15ull ^ s.size();
  const char* p = s.data();
  size_t n = s.size();
  const auto mix = [&h](uint64_t v) {
    h = (h ^ v) * 0xD6E8FEB86659FD93ull;
    h ^= h >> 32;
  };
  for (; n >= 8; p += 8, n -= 8) {
    uint64_t v;
    __builtin_memcpy(&v, p, 8);
    mix(v);
  }
  uint64_t tail = 0;
  for (size_t i = 0; i < n; ++i) tail |= uint64_t{static_cast<unsigned char>(p[i])} << (8 * i);
  mix(tail);
  return h;
}

}  // namespace signround
