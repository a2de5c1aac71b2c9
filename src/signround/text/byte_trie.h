// A static set of byte strings with values, asked for all of its members that start at a place in a
// text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace signround {

class ByteTrie {
 public:
  ByteTrie() = default;
  // Of equal strings the last one counts. Empty strings are ignored. Fails for a string longer than
  // kMaxLength.
  explicit ByteTrie(std::vector<std::pair<std::string, int32_t>> entries);

  // Longer strings than any real token would make matching quadratic.
  static constexpr size_t kMaxLength = 4096;

  bool empty() const { return nodes_.empty(); }
  bool may_start(char c) const { return root_[static_cast<unsigned char>(c)] != 0; }

  // Calls found(length, value) for every member that is a prefix of `text`, shortest first.
  template <class Found>
  void prefixes(std::string_view text, Found&& found) const {
    if (text.empty()) return;
    uint32_t node = root_[static_cast<unsigned char>(text[0])];
    for (size_t i = 1; node != 0; ++i) {
      if (nodes_[node].value >= 0) found(i, nodes_[node].value);
      if (i == text.size()) return;
      node = child(nodes_[node], static_cast<unsigned char>(text[i]));
    }
  }

 private:
  struct Node {
    uint32_t first_child = 0;
    int32_t value = -1;
    uint16_t children = 0;
    uint8_t label = 0;
  };
  uint32_t child(const Node& node, unsigned char c) const {
    uint32_t low = node.first_child, high = low + node.children;
    while (high - low > 8) {
      const uint32_t mid = (low + high) / 2;
      (nodes_[mid].label <= c ? low : high) = mid;
    }
    for (; low < high; ++low)
      if (nodes_[low].label == c) return low;
    return 0;
  }

  std::vector<Node>
      nodes_;  // children of a node are contiguous and sorted by label; node 0 is the root
  uint32_t root_[256] = {};
};

}  // namespace signround
