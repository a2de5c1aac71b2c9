#include "signround/text/byte_trie.h"

#include <algorithm>

#include "signround/base/error.h"

namespace signround {

ByteTrie::ByteTrie(std::vector<std::pair<std::string, int32_t>> entries) {
  std::stable_sort(entries.begin(), entries.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  // Breadth first: a task is a node, the range of entries below it, and the depth.
  struct Task {
    uint32_t node;
    size_t begin, end, depth;
  };
  size_t begin = 0;
  while (begin < entries.size() && entries[begin].first.empty()) ++begin;
  if (begin == entries.size()) return;
  for (const auto& e : entries)
    if (e.first.size() > kMaxLength)
      fail(ErrorKind::kUnsupported, "vocab", "a token has ", e.first.size(),
           " bytes, expected at most ", kMaxLength);
  nodes_.emplace_back();
  std::vector<Task> tasks{{0, begin, entries.size(), 0}};
  for (size_t t = 0; t < tasks.size(); ++t) {
    Task task = tasks[t];
    while (task.begin < task.end && entries[task.begin].first.size() == task.depth)
      nodes_[task.node].value = entries[task.begin++].second;
    nodes_[task.node].first_child = static_cast<uint32_t>(nodes_.size());
    for (size_t i = task.begin; i < task.end;) {
      const char label = entries[i].first[task.depth];
      size_t j = i;
      while (j < task.end && entries[j].first[task.depth] == label) ++j;
      const auto node = static_cast<uint32_t>(nodes_.size());
      nodes_.push_back({0, -1, 0, static_cast<uint8_t>(label)});
      ++nodes_[task.node].children;
      if (task.node == 0) root_[static_cast<unsigned char>(label)] = node;
      tasks.push_back({node, i, j, task.depth + 1});
      i = j;
    }
  }
}

}  // namespace signround
