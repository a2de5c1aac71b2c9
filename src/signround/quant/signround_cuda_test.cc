#include "signround/quant/signround_cuda.h"

#include <gtest/gtest.h>

#include <cmath>

#include "signround/quant/rtn.h"
#include "signround/quant/scale_start.h"
#include "signround/testing/random.h"

namespace signround {
namespace {

struct Case {
  int bits;
  int64_t group, out, in;
  Symmetry symmetry;
  ScaleTuning scales;
  double momentum = 0;
};

// A copy of host values on the GPU, and back.
template <class T>
struct OnDevice {
  Buffer buffer;
  explicit OnDevice(const std::vector<T>& values)
      : buffer(static_cast<int64_t>(values.size() * sizeof(T)), current_device()) {
    copy_to_device(buffer.data(), values.data(), buffer.bytes());
  }
  std::vector<T> read() const {
    std::vector<T> values(static_cast<size_t>(buffer.bytes()) / sizeof(T));
    copy_to_host(values.data(), buffer.data(), buffer.bytes());
    return values;
  }
};

template <class T>
std::vector<T> as(const std::vector<float>& values) {
  std::vector<T> result;
  for (float v : values) {
    if constexpr (sizeof(T) == 4)
      result.push_back(v);
    else
      result.push_back(to_bf16(v));
  }
  return result;
}
float value(float v) { return v; }
float value(BF16 v) { return to_f32(v); }
DType dtype_of(float) { return DType::kF32; }
DType dtype_of(BF16) { return DType::kBF16; }

// Both slots take the same steps; W is the type of weights, D that of gradients and of the weight
// that is written.
template <class W, class D>
void compare(const Case& c) {
  SCOPED_TRACE(::testing::Message() << c.bits << " bits, groups of " << c.group << ", " << c.out
                                    << " x " << c.in << ", symmetry " << int(c.symmetry)
                                    << ", scales " << int(c.scales) << ", momentum " << c.momentum
                                    << ", " << sizeof(W) << " and " << sizeof(D) << " bytes");
  QuantScheme scheme;
  scheme.bits = c.bits;
  scheme.group_size = c.group;
  scheme.symmetry = c.symmetry;
  const SignRoundOptions options{.iters = 20, .scales = c.scales, .momentum = c.momentum};
  const auto w = as<W>(testing::random_normal(c.out * c.in, 3, 0.05));
  const bool free = c.scales == ScaleTuning::kFree;
  const QuantizedLinear start = search_start(w.data(), c.out, c.in, scheme, nullptr);
  SignRoundSlot host(w.data(), c.out, c.in, scheme, options, free ? &start : nullptr);

  const DeviceScope scope({Device::Kind::kCuda, 0});
  const OnDevice<W> w_there(w);
  SignRoundCudaSlot device({w_there.buffer.data(), dtype_of(W{}), c.in}, c.out, c.in, scheme,
                           options, free ? &start : nullptr);
  std::vector<D> out_host(w.size());
  OnDevice<D> out_device(out_host);
  const auto expect_same = [&](const char* when) {
    const auto found = out_device.read();
    size_t different = 0;
    for (size_t i = 0; i < found.size(); ++i)
      different += value(found[i]) != value(out_host[i]);
    // exp of a free scale has other last bits in either: a rounding of it to F16 may flip.
    EXPECT_LE(different, free ? found.size() / 50 : 0u) << when;
  };
  host.write_weight(out_host.data(), dtype_of(D{}), c.in);
  device.write_weight(out_device.buffer.data(), dtype_of(D{}), c.in);
  expect_same("at the start");
  for (int i = 0; i < 6; ++i) {
    const auto d_w = as<D>(testing::random_normal(c.out * c.in, 100 + uint64_t(i)));
    const OnDevice<D> d_there(d_w);
    const RowsAny d_host{d_w.data(), dtype_of(D{}), c.in},
        d_device{d_there.buffer.data(), dtype_of(D{}), c.in};
    const double decay = 1 - i / 20.0;
    host.step(d_host, decay, out_host.data(), dtype_of(D{}), c.in);
    device.step(d_device, decay, out_device.buffer.data(), dtype_of(D{}), c.in);
    expect_same("after a step");
    if (i == 2) host.keep_best(), device.keep_best();
    if (i == 4) {  // the best stays what it was
      host.restart(), device.restart();
      host.write_weight(out_host.data(), dtype_of(D{}), c.in);
      device.write_weight(out_device.buffer.data(), dtype_of(D{}), c.in);
      expect_same("after a restart");
    }
  }
  const QuantizedLinear a = host.finish(), b = device.finish();
  size_t codes = 0;
  for (size_t i = 0; i < a.codes.size(); ++i) codes += a.codes[i] != b.codes[i];
  EXPECT_LE(codes, free ? a.codes.size() / 50 : 0u);
  EXPECT_EQ(a.zeros, b.zeros);
  for (size_t k = 0; k < a.scales.size(); ++k)
    ASSERT_LE(std::abs(a.scales[k] - b.scales[k]), free ? std::abs(a.scales[k]) * 0x1p-10f : 0.0f);

  // What write_best writes is what finish gives.
  std::vector<float> want(a.codes.size());
  dequantize(b, want.data());
  OnDevice<float> best(want);
  device.write_best(best.buffer.data(), DType::kF32, c.in);
  EXPECT_EQ(best.read(), want);
}

TEST(SignRoundCudaSlot, StepsAsTheHostsDoes) {
  if (why_no_cuda() != nullptr) GTEST_SKIP() << why_no_cuda();
  using enum Symmetry;
  using enum ScaleTuning;
  for (const Case& c : std::vector<Case>{{4, 32, 6, 96, kFullRange, kRangeFactors},
                                         {4, 128, 3, 256, kFullRange, kFree},
                                         {2, 64, 4, 128, kAsym, kRangeFactors},
                                         {3, 128, 3, 320, kClassic, kRangeFactors},
                                         {2, 32, 5, 64, kAsym, kFree},
                                         {8, -1, 3, 520, kAsym, kRangeFactors},
                                         {4, 32, 3, 77, kAsym, kRangeFactors},
                                         {4, 32, 3, 77, kFullRange, kFree},
                                         {4, 64, 3, 192, kFullRange, kRangeFactors, 0.9}}) {
    compare<BF16, BF16>(c);
    compare<float, float>(c);
    compare<BF16, float>(c);
  }
}

}  // namespace
}  // namespace signround
