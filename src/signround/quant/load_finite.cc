#include "signround/quant/load_finite.h"

#include <mutex>

#include "signround/base/parallel.h"
#include "signround/model/load.h"

namespace signround {

std::map<std::string, NonFinite> load_finite_weights(const Checkpoint& checkpoint,
                                                     const Graph& graph, BlockWeights& weights) {
  load_weights(checkpoint, graph, weights);
  std::map<std::string, NonFinite> all;
  for (const auto& param : graph.linear_params()) {
    const WeightView place = weights.weight(param.name);
    std::mutex mutex;
    NonFinite& found = all[param.name];
    parallel_for(param.out, 16, [&](int64_t begin, int64_t end) {
      NonFinite mine;
      for (int64_t r = begin; r < end; ++r) {
        if (place.dtype == DType::kBF16)
          mine.merge(replace_non_finite(static_cast<BF16*>(place.data) + r * place.stride, param.in,
                                        r * param.in));
        else
          mine.merge(replace_non_finite(static_cast<float*>(place.data) + r * place.stride,
                                        param.in, r * param.in));
      }
      std::lock_guard lock(mutex);
      found.merge(mine);
    });
  }
  return all;
}

}  // namespace signround
