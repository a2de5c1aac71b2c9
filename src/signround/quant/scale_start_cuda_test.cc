#include "signround/quant/scale_start_cuda.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "signround/quant/rtn.h"
#include "signround/quant/scale_start.h"
#include "signround/quant/signround_cuda.h"
#include "signround/tensor/buffer.h"
#include "signround/testing/random.h"

namespace signround {
namespace {

template <class T>
Buffer on_device(const std::vector<T>& values) {
  Buffer buffer(static_cast<int64_t>(values.size() * sizeof(T)), current_device());
  copy_to_device(buffer.data(), values.data(), buffer.bytes());
  return buffer;
}

std::vector<float> as(const std::vector<float>& values, float) { return values; }
std::vector<BF16> as(const std::vector<float>& values, BF16) {
  std::vector<BF16> result;
  for (float v : values) result.push_back(to_bf16(v));
  return result;
}
DType dtype_of(float) { return DType::kF32; }
DType dtype_of(BF16) { return DType::kBF16; }

struct Found {
  std::vector<float> scales, zeros;
};

// given: as search_start takes it; rows are `gap` elements further apart than they are long.
template <class W>
Found search(const std::vector<W>& w, int64_t out, int64_t in, const QuantScheme& scheme,
             const float* given, int64_t gap = 0) {
  const DeviceScope scope({Device::Kind::kCuda, 0});
  const int64_t stride = in + gap, groups = out * scheme.groups(in);
  std::vector<W> rows(static_cast<size_t>(out * stride));
  for (int64_t o = 0; o < out; ++o) std::copy_n(w.begin() + o * in, in, rows.begin() + o * stride);
  const Buffer weights = on_device(rows), importance = on_device(channel_importance(given, in));
  Buffer grid(8 * groups, current_device());
  auto* scale = grid.as<float>();
  search_start_cuda({weights.data(), dtype_of(W{}), stride}, out, in, scheme,
                    given == nullptr ? nullptr : importance.as<float>(), scale, scale + groups);
  Found found{std::vector<float>(static_cast<size_t>(groups)),
              std::vector<float>(static_cast<size_t>(groups))};
  copy_to_host(found.scales.data(), scale, 4 * groups);
  copy_to_host(found.zeros.data(), scale + groups, 4 * groups);
  return found;
}

// Sums keep their order, so that not even ties are decided otherwise.
template <class W>
void expect_same(const std::vector<float>& values, int64_t out, int64_t in,
                 const QuantScheme& scheme, const float* given, int64_t gap = 0) {
  SCOPED_TRACE(::testing::Message() << describe(scheme) << ", " << out << " x " << in << ", "
                                    << sizeof(W) << " bytes, importance " << (given != nullptr));
  const auto w = as(values, W{});
  const QuantizedLinear want = search_start(w.data(), out, in, scheme, given);
  const Found found = search(w, out, in, scheme, given, gap);
  EXPECT_EQ(found.scales, want.scales);
  EXPECT_EQ(found.zeros, std::vector<float>(want.zeros.begin(), want.zeros.end()));
}

QuantScheme scheme_of(int bits, int64_t group, Symmetry symmetry, DType scale_dtype = DType::kF16) {
  QuantScheme scheme;
  scheme.bits = bits;
  scheme.group_size = group;
  scheme.symmetry = symmetry;
  scheme.scale_dtype = scale_dtype;
  return scheme;
}

std::vector<float> importance_of(int64_t in) {
  auto importance = testing::random_normal(in, 2);
  for (float& v : importance) v = v * v;
  return importance;
}

constexpr Symmetry kSymmetries[] = {Symmetry::kFullRange, Symmetry::kAsym, Symmetry::kClassic};

TEST(ScaleStartCuda, FindsWhatTheHostFinds) {
  if (why_no_cuda() != nullptr) GTEST_SKIP() << why_no_cuda();
  struct Size {
    int64_t group, out, in;
  };
  // Whole rows that fit in registers and that do not; short last groups; an odd number of groups.
  for (const Size& s : std::vector<Size>{
           {32, 3, 77}, {64, 3, 192}, {128, 3, 330}, {256, 2, 520}, {-1, 3, 130}, {-1, 3, 333}}) {
    const auto w = testing::random_normal(s.out * s.in, 3, 0.05);
    const auto importance = importance_of(s.in);
    for (const Symmetry symmetry : kSymmetries) {
      for (const int bits : {2, 3, 4, 8}) {
        const QuantScheme scheme = scheme_of(bits, s.group, symmetry);
        expect_same<float>(w, s.out, s.in, scheme, importance.data());
        expect_same<BF16>(w, s.out, s.in, scheme, importance.data(), bits);
        if (bits % 2 == 0) expect_same<BF16>(w, s.out, s.in, scheme, nullptr);
      }
    }
  }
}

TEST(ScaleStartCuda, FindsTheSameWhereScalesAreHeldOtherwise) {
  if (why_no_cuda() != nullptr) GTEST_SKIP() << why_no_cuda();
  const auto w = testing::random_normal(4 * 64, 5, 0.05);
  for (const Symmetry symmetry : kSymmetries)
    for (const DType dtype : {DType::kF32, DType::kBF16})
      expect_same<float>(w, 4, 64, scheme_of(4, 32, symmetry, dtype), nullptr);
}

// Groups of zeros, of one sign, of tiny and of huge weights, and of weights that lie on a grid.
TEST(ScaleStartCuda, FindsTheSameForExtremeGroups) {
  if (why_no_cuda() != nullptr) GTEST_SKIP() << why_no_cuda();
  const int64_t out = 8, in = 32;
  auto w = testing::random_normal(out * in, 7);
  for (int64_t i = 0; i < in; ++i) {
    const auto at = [&](int64_t row) -> float& { return w[static_cast<size_t>(row * in + i)]; };
    at(0) = 0;
    at(1) = std::fabs(at(1));
    at(2) = -std::fabs(at(2));
    at(3) *= 1e-7f;
    at(4) *= 1e6f;
    at(5) = 0.125f * std::nearbyint(3 * at(5));
    at(6) = i == 9 ? 30.0f : 0.001f * at(6);
  }
  for (const Symmetry symmetry : kSymmetries)
    for (const int bits : {2, 4, 8})
      expect_same<float>(w, out, in, scheme_of(bits, 32, symmetry), nullptr);
}

TEST(ScaleStartCuda, SlotStartsThere) {
  if (why_no_cuda() != nullptr) GTEST_SKIP() << why_no_cuda();
  const int64_t out = 3, in = 96;
  const QuantScheme scheme = scheme_of(3, 32, Symmetry::kAsym);
  const SignRoundOptions options{.iters = 20, .scales = ScaleTuning::kFree};
  const auto w = testing::random_normal(out * in, 9, 0.05);
  const QuantizedLinear want = search_start(w.data(), out, in, scheme, nullptr);
  const Found found = search(w, out, in, scheme, nullptr);
  const DeviceScope scope({Device::Kind::kCuda, 0});
  const Buffer weights = on_device(w), scale = on_device(found.scales),
               zero = on_device(found.zeros);
  const SignRoundCudaSlot slot({weights.data(), DType::kF32, in}, out, in, scheme, options,
                               DeviceStart{scale.as<float>(), zero.as<float>()});
  const QuantizedLinear start = slot.finish();
  EXPECT_EQ(start.scales, want.scales);
  EXPECT_EQ(start.zeros, want.zeros);
  EXPECT_EQ(start.codes, want.codes);
}

}  // namespace
}  // namespace signround
