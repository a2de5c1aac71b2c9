// Bytes that auto-round 0.16.1 and gptqmodel 7.7.0 wrote for the same integers;
// scripts/peers/format_goldens.py.
#include <gtest/gtest.h>

#include <cstring>

#include "signround/formats/decode.h"
#include "signround/formats/format.h"
#include "signround/io/safetensors.h"
#include "signround/testing/testdata.h"

namespace signround {
namespace {

constexpr int64_t kOut = 32, kIn = 96;

struct Variant {
  const char* format;
  const char* qweight;
  const char* qzeros;
  bool symmetric_only;
};
constexpr Variant kVariants[] = {
    {"auto_round", ".qweight", ".qzeros_v1", true},
    {"gptq_v1", ".qweight", ".qzeros_v1", false},
    {"gptq_v2", ".qweight", ".qzeros_v2", false},
    {"awq", ".awq_qweight", ".awq_qzeros", false},
};

class PeerFile {
 public:
  PeerFile() : file_(testing::testdata() / "formats/packed.safetensors") {}
  bool has(const std::string& name) const { return file_.find(name).has_value(); }
  std::vector<std::byte> bytes(const std::string& name) const {
    const auto span = file_.bytes(file_.find(name).value());
    return {span.begin(), span.end()};
  }
  std::vector<uint8_t> codes(const std::string& name) const {
    const auto span = file_.bytes(file_.find(name).value());
    const auto* first = reinterpret_cast<const uint8_t*>(span.data());
    return {first, first + span.size()};
  }

 private:
  SafetensorsFile file_;
};

// The integers that the peers were given, in our order of scales: (out, groups).
QuantizedLinear given_to_peers(const PeerFile& file, const std::string& name,
                               const QuantScheme& scheme) {
  QuantizedLinear linear{
      scheme, kOut, kIn, file.codes(name + ".codes"), {}, file.codes(name + ".zeros")};
  const auto scales = file.bytes(name + ".scales");  // (groups, out)
  const int64_t groups = linear.groups();
  for (int64_t o = 0; o < kOut; ++o) {
    for (int64_t g = 0; g < groups; ++g) {
      F16 h;
      std::memcpy(&h, scales.data() + 2 * (g * kOut + o), 2);
      linear.scales.push_back(to_f32(h));
    }
  }
  return linear;
}

TEST(PeerGoldens, PackingWritesThePeersBytesAndDecodingReadsThem) {
  const PeerFile file;
  int compared = 0;
  for (int bits : {2, 3, 4, 8}) {
    for (bool sym : {true, false}) {
      for (int64_t group : {32, 64, -1}) {
        const QuantScheme scheme{bits, group, sym ? Symmetry::kFullRange : Symmetry::kAsym,
                                 DType::kF16};
        const std::string name =
            std::to_string(bits) + (sym ? ".sym." : ".asym.") + std::to_string(group);
        const QuantizedLinear linear = given_to_peers(file, name, scheme);
        const FormatLayer layer{"l", scheme, kOut, kIn};
        for (const Variant& variant : kVariants) {
          if ((variant.symmetric_only && !sym) || !file.has(name + variant.qweight)) continue;
          const std::string what = name + " as " + variant.format;
          const auto format = make_format(variant.format, {scheme, {layer}, {}, {}});
          const auto tensors = format->pack(layer, linear);
          EXPECT_EQ(tensors[0].bytes, file.bytes(name + variant.qweight)) << what;
          EXPECT_EQ(tensors[1].bytes, file.bytes(name + variant.qzeros)) << what;
          EXPECT_EQ(tensors[2].bytes, file.bytes(name + ".scales")) << what;
          if (tensors.size() > 3) {
            EXPECT_EQ(tensors[3].bytes, file.bytes(name + ".g_idx")) << what;
          }

          const auto qweight = file.bytes(name + variant.qweight),
                     qzeros = file.bytes(name + variant.qzeros),
                     scales = file.bytes(name + ".scales");
          const RawLayer raw{"l",
                             {tensors[0].info, qweight},
                             {tensors[1].info, qzeros},
                             {tensors[2].info, scales},
                             {}};
          const QuantizedLinear decoded = decode_linear(format->packing(), scheme, raw).linear;
          EXPECT_EQ(decoded.codes, linear.codes) << what;
          EXPECT_EQ(decoded.zeros, linear.zeros) << what;
          EXPECT_EQ(decoded.scales, linear.scales) << what;
          ++compared;
        }
      }
    }
  }
  // auto_round: 12 symmetric cases; GPTQ: 24 each; AWQ: 4 bits, both symmetries, groups of 32 and
  // whole rows.
  EXPECT_EQ(compared, 12 + 24 + 24 + 4);
}

}  // namespace
}  // namespace signround
