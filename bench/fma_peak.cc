#include "bench/fma_peak.h"

#include <algorithm>
#include <chrono>

#include "signround/base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/fma_peak.cc"
#include <hwy/foreach_target.h>  // first: compiles this file once per instruction set
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace signround::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Operations done. Ten chains: two units with a latency of up to five cycles.
double multiply_adds(int64_t rounds) {
  const hn::ScalableTag<float> d;
  const auto factor = hn::Set(d, 0.999f), offset = hn::Set(d, 0.001f);
  auto a = hn::Set(d, 1), b = hn::Set(d, 2), c = hn::Set(d, 3), e = hn::Set(d, 4);
  auto f = hn::Set(d, 5), g = hn::Set(d, 6), h = hn::Set(d, 7), i = hn::Set(d, 8);
  auto j = hn::Set(d, 9), k = hn::Set(d, 10);
  for (int64_t n = 0; n < rounds; ++n) {
    a = hn::MulAdd(a, factor, offset), b = hn::MulAdd(b, factor, offset);
    c = hn::MulAdd(c, factor, offset), e = hn::MulAdd(e, factor, offset);
    f = hn::MulAdd(f, factor, offset), g = hn::MulAdd(g, factor, offset);
    h = hn::MulAdd(h, factor, offset), i = hn::MulAdd(i, factor, offset);
    j = hn::MulAdd(j, factor, offset), k = hn::MulAdd(k, factor, offset);
  }
  const auto sum = hn::Add(hn::Add(hn::Add(a, b), hn::Add(c, e)),
                           hn::Add(hn::Add(hn::Add(f, g), hn::Add(h, i)), hn::Add(j, k)));
  volatile float keep = hn::GetLane(sum);
  (void)keep;
  return 20.0 * static_cast<double>(rounds) * static_cast<double>(hn::Lanes(d));
}

}  // namespace signround::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace signround {

HWY_EXPORT(multiply_adds);

double fma_peak() {
  constexpr int64_t kRounds = 1000000;
  double best = 0;
  for (int repeat = 0; repeat < 20; ++repeat) {
    const int64_t threads = num_threads();
    const auto start = std::chrono::steady_clock::now();
    parallel_for(threads, 1, [](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) HWY_DYNAMIC_DISPATCH(multiply_adds)(kRounds);
    });
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    const double lanes_ops = HWY_DYNAMIC_DISPATCH(multiply_adds)(1);
    best = std::max(best, lanes_ops * kRounds * static_cast<double>(threads) / time.count());
  }
  return best;
}

}  // namespace signround
#endif
