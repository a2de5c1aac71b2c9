// The post_processor section of tokenizer.json: which special tokens the reference's default call
// puts around a text.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

namespace signround {

class PostProcessor {
 public:
  virtual ~PostProcessor() = default;
  virtual void apply(std::vector<int32_t>& ids, bool add_special) const = 0;
};

// From the JSON of a post_processor; null for null.
std::unique_ptr<PostProcessor> make_post_processor(const nlohmann::json& config);
// One that puts these ids before and after a text; -1 for none.
std::unique_ptr<PostProcessor> make_bos_eos_processor(int32_t bos, int32_t eos);

}  // namespace signround
