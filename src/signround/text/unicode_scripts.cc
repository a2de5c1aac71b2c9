#include "signround/text/unicode_scripts.h"

#include <algorithm>
#include <iterator>

namespace signround {

namespace {

struct ScriptRange {
  uint32_t first, last;
  int script;
};
constexpr ScriptRange kRanges[] = {
#include "signround/text/unicode_scripts.inc"
};

}  // namespace

int unicode_script_of_pre_tokenizer(uint32_t cp) {
  const auto* it =
      std::upper_bound(std::begin(kRanges), std::end(kRanges), cp,
                       [](uint32_t value, const ScriptRange& r) { return value < r.first; });
  if (it == std::begin(kRanges) || cp > (it - 1)->last) return kScriptAny;
  return (it - 1)->script;
}

}  // namespace signround
