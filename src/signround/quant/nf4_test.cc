// Against bitsandbytes 0.50.2: values stored by scripts/peers/nf4_goldens.py. All of them are equal
// bit for bit.
#include "signround/quant/nf4.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "signround/base/parallel.h"
#include "signround/testing/expect_error.h"
#include "signround/testing/random.h"
#include "signround/testing/tensor_file.h"
#include "signround/testing/testdata.h"

namespace signround {
namespace {

using testing::expect_error;
using testing::TensorFile;

constexpr QuantScheme nf4_scheme(bool double_quant, int64_t block = kNf4Block) {
  return {4, block, Symmetry::kClassic, DType::kF32, Levels::kNf4, double_quant};
}

TensorFile goldens() { return TensorFile(testing::testdata() / "quant/nf4.safetensors"); }

constexpr const char* kCases[] = {"f32",    "bf16",    "f16",      "block128", "short",
                                  "across", "special", "constant", "zero_tail"};

// Equal as bits, so that -0 is not 0.
void expect_same_bits(const std::vector<float>& got, const std::vector<float>& want,
                      const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i)
    ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(want[i]))
        << what << " " << i << ": " << got[i] << ", bitsandbytes has " << want[i];
}

TEST(Nf4, TablesAreThoseOfBitsandbytes) {
  const TensorFile file = goldens();
  expect_same_bits({kNf4Levels.begin(), kNf4Levels.end()}, file.values<float>("levels"), "level");
  expect_same_bits({dynamic_map().begin(), dynamic_map().end()}, file.values<float>("dynamic_map"),
                   "entry of the map");
}

TEST(Nf4, MeanIsTorchs) {
  const TensorFile file = goldens();
  const auto sizes = file.values<int64_t>("mean.sizes");
  const auto means = file.values<float>("mean.values");
  std::vector<float> values;
  int other_than_plain = 0;
  for (size_t c = 0; c < sizes.size(); ++c) {
    for (auto k = static_cast<uint64_t>(values.size()); std::ssize(values) < sizes[c]; ++k)
      values.push_back(static_cast<float>((k * 2654435761u) % (uint64_t{1} << 32) / 256) *
                       0x1p-24f);
    EXPECT_EQ(torch_mean(values), means[c]) << sizes[c] << " values";
    float plain = 0;
    for (const float v : values) plain += v;
    other_than_plain += plain / static_cast<float>(values.size()) != means[c];
  }
  EXPECT_GT(other_than_plain, 8) << "the order of the sum would not matter here";
}

TEST(Nf4, CodesMagnitudesAndWeightsAreThoseOfBitsandbytes) {
  const TensorFile file = goldens();
  for (const char* name : kCases) {
    for (const bool nested : {false, true}) {
      const std::string of = std::string(name) + (nested ? ".double" : ".single");
      SCOPED_TRACE(of);
      const auto state = nlohmann::json::parse(file.text(of + ".quant_state"));
      const TensorInfo& info = file.info(std::string(name) + ".weight");
      const int64_t out = info.shape[0], in = info.shape[1];
      const QuantScheme scheme = nf4_scheme(nested, state["blocksize"]);
      const std::vector<float> w = file.floats(std::string(name) + ".weight");
      const Nf4Linear q = nf4(w.data(), out, in, scheme);

      const auto packed = file.values<uint8_t>(of + ".packed");
      ASSERT_EQ(packed.size(), (q.codes.size() + 1) / 2);
      for (size_t k = 0; k < q.codes.size(); ++k)
        ASSERT_EQ(q.codes[k], k % 2 == 0 ? packed[k / 2] >> 4 : packed[k / 2] & 15)
            << "code " << k << " of weight " << w[k];
      ASSERT_EQ(q.nested.has_value(), nested);
      if (nested) {
        EXPECT_EQ(q.nested->codes, file.values<uint8_t>(of + ".absmax"));
        expect_same_bits(q.nested->scales, file.values<float>(of + ".nested_absmax"), "scale");
        EXPECT_EQ(q.nested->offset, state["nested_offset"].get<double>());
      } else {
        expect_same_bits(q.magnitudes, file.values<float>(of + ".absmax"), "magnitude");
      }
      std::vector<float> weights(w.size());
      dequantize(q, weights.data());
      expect_same_bits(weights, file.values<float>(of + ".dequantized"), "weight");

      if (info.dtype == DType::kBF16) {
        const auto stored = file.values<BF16>(std::string(name) + ".weight");
        const Nf4Linear from_bf16 = nf4(stored.data(), out, in, scheme);
        EXPECT_EQ(from_bf16.codes, q.codes);
        EXPECT_EQ(from_bf16.magnitudes, q.magnitudes);
      }
    }
  }
}

// Far more values than the goldens have, by the definition: no level is nearer than the chosen one.
TEST(Nf4, NoOtherLevelIsNearer) {
  const int64_t out = 64, in = 4096;
  const std::vector<float> w = testing::random_normal(out * in, 7);
  const Nf4Linear q = nf4(w.data(), out, in, nf4_scheme(false));
  for (size_t k = 0; k < w.size(); ++k) {
    const float scale = q.magnitudes[k / kNf4Block];
    // The division by the magnitude rounds twice, and middles once: three half units in the last
    // place of values of at most 1, and as many of the distances that are compared.
    const float slack = 4 * std::numeric_limits<float>::epsilon() * scale;
    const float error = std::abs(w[k] - kNf4Levels[q.codes[k]] * scale);
    for (const float level : kNf4Levels)
      ASSERT_LE(error, std::abs(w[k] - level * scale) + slack) << "weight " << k;
  }
}

TEST(Nf4, ThreadsChangeNothing) {
  const std::vector<float> w = testing::random_normal(300 * 1000, 8);
  set_num_threads(1);
  const Nf4Linear one = nf4(w.data(), 300, 1000, nf4_scheme(true));
  set_num_threads(3);
  const Nf4Linear three = nf4(w.data(), 300, 1000, nf4_scheme(true));
  set_num_threads(0);
  EXPECT_EQ(one.codes, three.codes);
  EXPECT_EQ(one.nested, three.nested);
}

TEST(Nf4, WeightsThatAreNotFiniteAreReplacedAndCounted) {
  std::vector<float> w(256, 0.5f);
  w[70] = std::numeric_limits<float>::quiet_NaN();
  w[200] = -std::numeric_limits<float>::infinity();
  NonFinite found;
  const Nf4Linear q = nf4(w.data(), 4, 64, nf4_scheme(false), &found);
  EXPECT_EQ(found.count, 2);
  EXPECT_EQ(found.first, 70);
  EXPECT_EQ(q.codes[70], 7);   // 0
  EXPECT_EQ(q.codes[200], 0);  // the largest magnitude that is finite, negative
  EXPECT_EQ(q.magnitudes, std::vector<float>(4, 0.5f));
}

TEST(Nf4, RefusesWhatIsNotNf4) {
  const std::vector<float> w(64, 1.0f);
  expect_error(ErrorKind::kInvalidArgument, "expected NF4", [&] { nf4(w.data(), 1, 64, {}); });
  expect_error(ErrorKind::kInvalidArgument, "power of 2 from 32",
               [&] { nf4(w.data(), 1, 64, nf4_scheme(false, 48)); });
  expect_error(ErrorKind::kInvalidArgument, "at least 1 x 1",
               [&] { nf4(w.data(), 0, 64, nf4_scheme(false)); });
}

}  // namespace
}  // namespace signround
