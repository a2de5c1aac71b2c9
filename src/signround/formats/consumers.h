// Who can load a checkpoint, said before it is made. One dated table of what each engine accepts,
// and the rules that need the shapes of all layers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "signround/formats/format.h"

namespace signround {

// When the table was last compared with the engines' sources, documents and behaviour.
inline constexpr std::string_view kConsumersAsOf = "2026-11";

struct ConsumerVerdict {
  enum class Level : uint8_t {
    kLoads,
    kWithCare,  // loads, but read the reasons
    kRefuses,
  };
  std::string consumer;
  Level level = Level::kLoads;
  std::vector<std::string>
      reasons;  // why it refuses; else what to know. Names the first layer concerned.
  // Largest power of two up to 64 over which the layers' shapes can be split. 0: the engine does
  // not split, or refuses. The number of attention heads may allow less.
  int tensor_parallel = 0;
};

// One verdict per consumer, in the order of the table. `format` as in make_format. Layers of 16 bit
// count only where fused siblings must agree.
std::vector<ConsumerVerdict> verdicts(std::string_view format, const FormatModel& model);

// The same, one line each: "vLLM: loads (tensor parallel up to 4); ...".
std::vector<std::string> describe_verdicts(std::string_view format, const FormatModel& model);

// "" if some consumer loads the checkpoint; else why transformers, the least demanding one, does
// not.
std::string why_nobody_loads(std::string_view format, const FormatModel& model);

}  // namespace signround
