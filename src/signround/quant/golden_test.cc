// Against auto-round 0.16.1: values stored by scripts/peers/grid_goldens.py.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "signround/kernels/cpu/fake_quant.h"
#include "signround/quant/grid.h"
#include "signround/quant/opt_rtn.h"
#include "signround/quant/rtn.h"
#include "signround/quant/signround.h"
#include "signround/testing/testdata.h"

namespace signround {
namespace {

struct Case {
  std::string text;  // what identifies it in a failure
  nlohmann::json record;
  QuantScheme scheme;
  int64_t out, in;
  std::map<std::string, std::vector<float>> arrays;

  const std::vector<float>& operator[](const std::string& name) const { return arrays.at(name); }
};

std::vector<Case> cases_of(const std::string& kind) {
  const std::string stem = testing::testdata().string() + "/quant/auto_round";
  std::ifstream json(stem + ".json"), bin(stem + ".bin", std::ios::binary);
  const nlohmann::json file = nlohmann::json::parse(json);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(bin)), {});
  std::vector<Case> cases;
  for (const auto& record : file.at("cases")) {
    if (record.at("kind") != kind) continue;
    Case c{record.dump(), record, {}, record.at("out"), record.at("columns"), {}};
    c.text = c.text.substr(0, 300);
    const std::string symmetry = record.at("symmetry");
    c.scheme.bits = record.at("bits");
    c.scheme.group_size = record.at("group_size");
    c.scheme.symmetry = symmetry == "full_range" ? Symmetry::kFullRange
                        : symmetry == "asym"     ? Symmetry::kAsym
                                                 : Symmetry::kClassic;
    c.scheme.scale_dtype = *dtype_from_name(record.at("scale_dtype").get<std::string>());
    for (const auto& [name, value] : record.items()) {
      if (!value.is_array()) continue;
      const size_t offset = value[0], count = value[1];
      std::vector<float> array(count);
      std::memcpy(array.data(), bytes.data() + 4 * offset, 4 * count);
      c.arrays[name] = array;
    }
    cases.push_back(std::move(c));
  }
  return cases;
}

// A group of a case, and where its parts lie.
struct Group {
  size_t k, at;
  int64_t n;
};
std::vector<Group> groups_of(const Case& c) {
  std::vector<Group> groups;
  for (int64_t row = 0; row < c.out; ++row)
    for (int64_t g = 0; g < c.scheme.groups(c.in); ++g) {
      const int64_t column = g * c.scheme.group(c.in);
      groups.push_back({groups.size(), static_cast<size_t>(row * c.in + column),
                        std::min(c.scheme.group(c.in), c.in - column)});
    }
  return groups;
}

TEST(AutoRound, GridsHaveTheSameScalesZerosWeightsAndGradients) {
  const auto cases = cases_of("grid");
  ASSERT_EQ(cases.size(), 24u);
  int clamped = 0;
  for (const Case& c : cases) {
    SCOPED_TRACE(c.text);
    const bool bf16 = c.record.at("w_dtype") == "BF16";
    for (const kernels::FakeQuantKernel& kernel : kernels::fake_quant_kernels()) {
      constexpr float kUnit = 0x1p-15f;  // what the offsets of the golden are multiples of
      const std::vector<float>& values = c["v"];
      std::vector<int16_t> v;
      for (float value : values) v.push_back(static_cast<int16_t>(value / kUnit));
      for (const Group& g : groups_of(c)) {
        SCOPED_TRACE(::testing::Message() << kernel.name << " group " << g.k);
        const float* w = c["w"].data() + g.at;
        const kernels::Extent extent = kernel.f32().extent(w, g.n);
        const GroupRange<float> range{extent.min, extent.max};
        const float alpha = c["alpha"][g.k], beta = c["beta"][g.k];
        const auto grid = group_grid_fwd<float>(c.scheme, range, alpha, beta);
        ASSERT_EQ(grid.scale, c["scale"][g.k]);
        ASSERT_EQ(grid.zero, c["zero"][g.k]);

        const kernels::CodeGrid codes = code_grid(grid, c.scheme.max_code());
        std::vector<float> y(static_cast<size_t>(g.n));
        kernel.f32().write_f32(w, {v.data() + g.at, kUnit}, g.n, codes, y.data());
        for (size_t i = 0; i < y.size(); ++i)
          ASSERT_EQ(bf16 ? round_to_bf16(y[i]) : y[i], c["y"][g.at + i]) << i;

        // d_v: a product of two f32, so bit for bit; but what matters is its sign, which moves v.
        std::vector<int16_t> next(static_cast<size_t>(g.n));
        const auto grad = kernel.f32().descend_f32(w, c["d_y"].data() + g.at, g.n, codes,
                                                   {.v = {v.data() + g.at, kUnit},
                                                    .step = {.units = 5, .momentum = 0},
                                                    .next = next.data(),
                                                    .buffer = nullptr});
        double size = 0;
        for (size_t i = 0; i < next.size(); ++i) {
          const float d_v = c["d_v"][g.at + i], d_y = c["d_y"][g.at + i];
          const auto d = fake_quant_bwd(w[i], values[g.at + i], grid, c.scheme.max_code(), d_y);
          ASSERT_EQ(d.v, d_v) << i;
          ASSERT_EQ(next[i], v[g.at + i] - (d_v > 0 ? 5 : d_v < 0 ? -5 : 0)) << i;
          clamped += d.clamped != 0;
          const float q = y[i] / grid.scale, x = w[i] / grid.scale;
          size += std::fabs(d_y) * (std::fabs(q) + (d.clamped != 0 ? 0 : std::fabs(x)) +
                                    std::fabs(range.min * alpha / grid.scale));
        }
        // Both sides sum n terms of this size in f32 (n + 8 roundings each). With F16 or BF16
        // scales torch keeps the gradient of the scale in that type: its parts, at most three, and
        // their sums are rounded to 2^-11 or 2^-8.
        const double coarse = c.scheme.scale_dtype == DType::kF16    ? 0x1p-11
                              : c.scheme.scale_dtype == DType::kBF16 ? 0x1p-8
                                                                     : 0;
        const double eps = 2 * static_cast<double>(g.n + 8) * 0x1p-24 + 6 * coarse;
        const double per_scale = c.scheme.symmetry == Symmetry::kFullRange
                                     ? 1.0 / (1 << (c.scheme.bits - 1))
                                     : 2.0 / c.scheme.max_code();
        double direct = 0;  // asymmetric: clamped weights move with lo
        for (size_t i = 0; i < next.size(); ++i) direct += std::fabs(c["d_y"][g.at + i]);
        const double bound = eps * (size * per_scale + direct);
        const auto d =
            group_grid_bwd<float>(c.scheme, range, alpha, beta, grid, grad.scale, grad.clamped);
        EXPECT_NEAR(d.alpha, c["d_alpha"][g.k], bound * std::fabs(range.min) + 1e-30);
        EXPECT_NEAR(d.beta, c["d_beta"][g.k], bound * std::fabs(range.max) + 1e-30);
      }
    }
  }
  EXPECT_GT(clamped, 500);
}

TEST(AutoRound, OptRtnFindsTheSameScalesAndCodes) {
  const auto cases = cases_of("opt_rtn");
  ASSERT_EQ(cases.size(), 19u);
  int same = 0, all = 0;
  for (const Case& c : cases) {
    SCOPED_TRACE(c.text);
    const bool weighted = c.arrays.count("importance") != 0;
    const QuantizedLinear q =
        opt_rtn(c["w"].data(), c.out, c.in, c.scheme, weighted ? c["importance"].data() : nullptr);
    std::vector<float> y(c["w"].size());
    dequantize(q, y.data());
    for (const Group& g : groups_of(c)) {
      ++all;
      same += q.scales[g.k] == c["scale"][g.k];
      if (q.scales[g.k] != c["scale"][g.k])
        ADD_FAILURE() << g.k << " " << q.scales[g.k] << " " << c["scale"][g.k];
      for (size_t i = g.at; i < g.at + static_cast<size_t>(g.n); ++i)
        ASSERT_EQ(y[i], c["y"][i]) << i;
    }
  }
  EXPECT_EQ(same, all);
}

TEST(AutoRound, SignDescentTakesTheSamePath) {
  const auto cases = cases_of("trajectory");
  ASSERT_EQ(cases.size(), 6u);
  for (const Case& c : cases) {
    SCOPED_TRACE(c.text);
    const int steps = c.record.at("steps");
    SignRoundSlot slot(c["w"].data(), c.out, c.in, c.scheme,
                       {.iters = steps, .momentum = c.record.at("momentum")});
    std::vector<float> weight(c["w"].size());
    for (int i = 0; i < steps; ++i)
      slot.step({c["d_y"].data() + i * c.out * c.in, DType::kF32, c.in},
                1.0 - static_cast<double>(i) / steps, weight.data(), DType::kF32, c.in);
    // The schedule multiplies its rate down from step to step, here it is computed anew: a rounding
    // per step.
    const double bound = steps * steps * 0x1p-24;
    const std::vector<float> v = slot.v();
    for (size_t i = 0; i < weight.size(); ++i) EXPECT_NEAR(v[i], c["v"][i], bound) << i;
    for (size_t k = 0; k < c["alpha"].size(); ++k) {
      EXPECT_NEAR(slot.alpha()[k], c["alpha"][k], bound) << k;
      EXPECT_NEAR(slot.beta()[k], c["beta"][k], bound) << k;
    }
  }
}

}  // namespace
}  // namespace signround
