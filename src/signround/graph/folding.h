// Where a factor on the inputs of linear layers can be taken out again in front of them, so that the
// block computes the same: W x = (W diag(s)) (x / s), and x / s is what the producer of x gives once
// its own weight is divided by s.
#pragma once

#include <string>
#include <vector>

#include "signround/graph/graph.h"

namespace signround {

// Of the layers of one LinearsOp, which read the same x.
struct Folding {
  std::vector<std::string> readers;  // the layers, without ".weight"
  int64_t in = 0;
  // What makes x. A norm's weight, by its full name: x[c] scales with weight[c] + offset. Or a
  // linear layer, without ".weight": x[c] scales with row channel[c] of its weight and bias.
  std::string producer;
  bool is_norm = false, has_bias = false;
  float offset = 0;
  int64_t channels = 0;          // of the producer
  std::vector<int64_t> channel;  // (in): attention repeats a value head for several query heads
  std::string why_not;           // not empty: nothing in front of these layers can take the factor
};

// One for each LinearsOp, in the order of recording.
std::vector<Folding> foldings(const Graph& graph);

}  // namespace signround
