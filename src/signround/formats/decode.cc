#include "signround/formats/decode.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/formats/decode_bnb.h"

namespace signround {
namespace {

constexpr const char* kWhere = "decode";

constexpr int64_t kMaxSide = 1 << 28;  // keeps every product of sides and bits far from overflow

// Rows that are worth a thread of their own.
int64_t grain(int64_t in) { return (1 << 16) / std::max<int64_t>(in, 1) + 1; }

template <class... Parts>
[[noreturn]] void corrupt(const Parts&... parts) {
  fail(ErrorKind::kCorruptFile, kWhere, parts...);
}

std::string label(const RawTensor& t) {
  return t.info.name + " " + std::string(name_of(t.info.dtype)) + " " + shape_text(t.info.shape);
}

void check_tensor(const RawLayer& layer, const RawTensor& t, const char* suffix, size_t rank,
                  bool integer) {
  if (!t.present()) corrupt(layer.name, ": there is no ", layer.name, suffix);
  if (t.info.shape.size() != rank) corrupt(label(t), ", expected ", rank, " dimensions");
  const bool int32 = t.info.dtype == DType::kI32 || t.info.dtype == DType::kU32;
  const bool real =
      t.info.dtype == DType::kF16 || t.info.dtype == DType::kBF16 || t.info.dtype == DType::kF32;
  if (integer && !int32) corrupt(label(t), ", expected I32");
  if (!integer && !real) corrupt(label(t), ", expected F16, BF16 or F32");
  for (int64_t side : t.info.shape) {
    if (side <= 0) corrupt(label(t), ", expected no empty side");
    if (side > kMaxSide) corrupt(label(t), ", expected sides of at most ", kMaxSide);
  }
}

void check_shape(const RawTensor& t, int64_t rows, int64_t columns, const std::string& reason) {
  if (t.info.shape[0] != rows || t.info.shape[1] != columns) {
    corrupt(label(t), ", expected [", rows, ", ", columns, "] for ", reason);
  }
}

void check_bytes(const RawTensor& t) {
  if (t.present() && static_cast<int64_t>(t.bytes.size()) != t.info.nbytes()) {
    corrupt(label(t), " has ", t.bytes.size(), " bytes, expected ", t.info.nbytes());
  }
}

// Element k of a tensor of 32-bit words. The bytes need not be aligned.
uint32_t word(const RawTensor& t, int64_t k) {
  uint32_t w;
  std::memcpy(&w, t.bytes.data() + 4 * k, 4);
  return w;
}

float real(const RawTensor& t, int64_t k) {
  if (t.info.dtype == DType::kF32) {
    float v;
    std::memcpy(&v, t.bytes.data() + 4 * k, 4);
    return v;
  }
  uint16_t bits;
  std::memcpy(&bits, t.bytes.data() + 2 * k, 2);
  return t.info.dtype == DType::kF16 ? to_f32(F16{bits}) : to_f32(BF16{bits});
}

// Field f of the stream whose word w is at(w): the bits f*b .. f*b+b-1, which may lie in two words.
template <class At>
uint32_t field(int64_t f, int bits, const At& at) {
  const int64_t first = f * bits;
  const int shift = static_cast<int>(first % 32);
  uint32_t v = at(first / 32) >> shift;
  if (shift + bits > 32) v |= at(first / 32 + 1) << (32 - shift);
  return v & ((1u << bits) - 1);
}

// Rows of codes from columns of words, 64 rows at a time: 64 words of a line are four cache lines.
void decode_gptq_codes(const RawLayer& layer, int bits, const PackedShape& shape, int64_t row,
                       QuantizedLinear& to) {
  const int64_t words = shape.in * bits / 32;
  parallel_for((to.out + 63) / 64, grain(64 * shape.in), [&](int64_t begin, int64_t end) {
    std::vector<uint32_t> column(static_cast<size_t>(words));
    std::vector<uint32_t> tile(static_cast<size_t>(words) * 64);
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = 64 * block, rows = std::min<int64_t>(64, to.out - first);
      for (int64_t w = 0; w < words; ++w) {
        std::memcpy(tile.data() + w * 64,
                    layer.qweight.bytes.data() + 4 * (w * shape.out + row + first),
                    static_cast<size_t>(rows) * 4);
      }
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t w = 0; w < words; ++w) column[w] = tile[w * 64 + r];
        uint8_t* codes = to.codes.data() + (first + r) * shape.in;
        if (bits == 3) {
          for (int64_t i = 0; i < shape.in; ++i)
            codes[i] = field(i, bits, [&](int64_t w) { return column[w]; });
          continue;
        }
        const int per_word = 32 / bits;
        for (int64_t w = 0; w < words; ++w) {
          for (int k = 0; k < per_word; ++k)
            codes[w * per_word + k] = column[w] >> (k * bits) & ((1u << bits) - 1);
        }
      }
    }
  });
}

// The bit at which output j of eight starts in a word of AWQ's order.
constexpr int kAwqShift[8] = {0, 16, 4, 20, 8, 24, 12, 28};

uint8_t awq_field(const RawTensor& t, int64_t line, int64_t out, int64_t o) {
  return word(t, line * (out / 8) + o / 8) >> kAwqShift[o % 8] & 15;
}

// 64 inputs at a time: the words of eight outputs are read once and their cache lines serve the
// next eight.
void decode_awq_codes(const RawLayer& layer, const PackedShape& shape, int64_t row,
                      QuantizedLinear& to) {
  constexpr int64_t kInputs = 64;
  const int64_t columns = shape.out / 8, last = row + to.out;
  parallel_for((shape.in + kInputs - 1) / kInputs, grain(kInputs * to.out),
               [&](int64_t begin, int64_t end) {
                 for (int64_t tile = begin; tile < end; ++tile) {
                   const int64_t stop = std::min(shape.in, (tile + 1) * kInputs);
                   for (int64_t w = row / 8; w * 8 < last; ++w) {
                     const int64_t first_output = std::max(row, 8 * w),
                                   end_output = std::min(last, 8 * w + 8);
                     for (int64_t i = tile * kInputs; i < stop; ++i) {
                       const uint32_t eight = word(layer.qweight, i * columns + w);
                       for (int64_t o = first_output; o < end_output; ++o) {
                         to.codes[(o - row) * shape.in + i] = eight >> kAwqShift[o - 8 * w] & 15;
                       }
                     }
                   }
                 }
               });
}

// Zero points of one group for the outputs [row, row + rows), and how many wrapped round in v1.
struct GroupZeros {
  std::vector<uint8_t> zeros;
  int64_t wrapped = 0;
};

GroupZeros gptq_zeros(const RawTensor& qzeros, int bits, int64_t group, int64_t row, int64_t rows,
                      bool v1) {
  const int64_t words = qzeros.info.shape[1];
  const uint32_t max = (1u << bits) - 1;
  uint32_t ones = 0;  // 1 in every field
  for (int k = 0; k < 32 && 32 % bits == 0; k += bits) ones |= 1u << k;
  const auto stored = [&](int64_t w) { return word(qzeros, group * words + w); };
  const auto counted = [&](int64_t w) { return stored(w) + (v1 ? ones : 0); };
  GroupZeros result;
  result.zeros.resize(static_cast<size_t>(rows));
  for (int64_t o = 0; o < rows; ++o) {
    const uint32_t raw = field(row + o, bits, stored);
    if (v1 && raw == max) ++result.wrapped;
    const uint32_t zero = v1 && bits == 3 ? (raw + 1) & max : field(row + o, bits, counted);
    result.zeros[o] = static_cast<uint8_t>(zero);
  }
  return result;
}

void decode_groups(Packing packing, const RawLayer& layer, const PackedShape& shape, int64_t row,
                   DecodedLinear& to) {
  QuantizedLinear& linear = to.linear;
  const int bits = linear.scheme.bits;
  const int middle = 1 << (bits - 1);
  bool all_one_high = linear.scheme.symmetry != Symmetry::kAsym && packing == Packing::kGptqV1;
  for (int64_t g = 0; g < shape.groups; ++g) {
    GroupZeros zeros;
    if (packing != Packing::kAwq) {
      zeros = gptq_zeros(layer.qzeros, bits, g, row, linear.out, packing == Packing::kGptqV1);
    }
    to.wrapped_zeros += zeros.wrapped;
    for (int64_t o = 0; o < linear.out; ++o) {
      const int64_t k = o * shape.groups + g;
      linear.zeros[k] = packing == Packing::kAwq ? awq_field(layer.qzeros, g, shape.out, row + o)
                                                 : zeros.zeros[o];
      all_one_high = all_one_high && linear.zeros[k] == middle + 1;
      linear.scales[k] = real(layer.scales, g * shape.out + row + o);
      if (!std::isfinite(linear.scales[k])) {
        corrupt(label(layer.scales), ": the scale of group ", g, ", output ", row + o, " is ",
                linear.scales[k]);
      }
    }
  }
  if (!all_one_high) return;
  to.mislabelled_v2 = true;
  to.wrapped_zeros = 0;
  std::fill(linear.zeros.begin(), linear.zeros.end(), static_cast<uint8_t>(middle));
}

std::vector<int32_t> decode_g_idx(const RawLayer& layer, const PackedShape& shape, int64_t group) {
  std::vector<int32_t> group_of(static_cast<size_t>(shape.in));
  bool in_order = true;
  for (int64_t i = 0; i < shape.in; ++i) {
    const auto g = static_cast<int32_t>(word(layer.g_idx, i));
    if (g < 0 || g >= shape.groups) {
      corrupt(label(layer.g_idx), ": entry ", i, " is ", g, ", expected 0 to ", shape.groups - 1);
    }
    group_of[i] = g;
    in_order = in_order && g == i / group;
  }
  if (in_order) group_of.clear();
  return group_of;
}

}  // namespace

std::span<const Part> parts_of(Packing packing) {
  static constexpr Part kIntegers[] = {{".qweight", &RawLayer::qweight},
                                       {".qzeros", &RawLayer::qzeros},
                                       {".scales", &RawLayer::scales},
                                       {".g_idx", &RawLayer::g_idx}};
  static constexpr Part kBnb[] = {{".weight.quant_state.bitsandbytes__nf4", &RawLayer::quant_state},
                                  {".weight", &RawLayer::qweight},
                                  {".weight.absmax", &RawLayer::scales},
                                  {".weight.quant_map", &RawLayer::quant_map},
                                  {".weight.nested_absmax", &RawLayer::nested_absmax},
                                  {".weight.nested_quant_map", &RawLayer::nested_quant_map}};
  if (packing == Packing::kNone) return {};
  if (packing == Packing::kBnb) return kBnb;
  return kIntegers;
}

PackedShape check_packed_shape(Packing packing, const QuantScheme& scheme, const RawLayer& layer) {
  const int bits = scheme.bits;
  if (bits != 2 && bits != 3 && bits != 4 && bits != 8)
    corrupt(layer.name, ": ", bits, " bits, expected 2, 3, 4 or 8");
  if (scheme.group_size == 0 || scheme.group_size < -1) {
    corrupt(layer.name, ": group size ", scheme.group_size, ", expected -1 or a positive number");
  }
  check_tensor(layer, layer.qweight, ".qweight", 2, true);
  check_tensor(layer, layer.qzeros, ".qzeros", 2, true);
  check_tensor(layer, layer.scales, ".scales", 2, false);
  PackedShape shape;
  const std::vector<int64_t>& q = layer.qweight.info.shape;
  const bool awq = packing == Packing::kAwq;
  if (awq && bits != 4) corrupt(layer.name, ": ", bits, " bits in the AWQ layout, expected 4");
  shape.out = awq ? q[1] * 8 : q[1];
  shape.in = awq ? q[0] : q[0] * 32 / bits;
  if (!awq && q[0] * 32 % bits != 0) {
    corrupt(label(layer.qweight), ": ", q[0], " words per column do not hold whole fields of ",
            bits, " bits");
  }
  if (!awq && shape.out * bits % 32 != 0) {
    corrupt(label(layer.qweight), ": ", shape.out, " outputs of ", bits,
            " bits do not fill words of qzeros");
  }
  shape.groups = scheme.groups(shape.in);
  const std::string reason = "in " + std::to_string(shape.in) + ", out " +
                             std::to_string(shape.out) + " (from " + label(layer.qweight) + "), " +
                             std::to_string(bits) + " bits, group size " +
                             std::to_string(scheme.group_size);
  check_shape(layer.qzeros, shape.groups, shape.out * bits / 32, reason);
  check_shape(layer.scales, shape.groups, shape.out, reason);
  if (layer.g_idx.present()) {
    check_tensor(layer, layer.g_idx, ".g_idx", 1, true);
    if (layer.g_idx.info.shape[0] != shape.in)
      corrupt(label(layer.g_idx), ", expected [", shape.in, "] for ", reason);
  }
  return shape;
}

DecodedLinear decode_rows(Packing packing, const QuantScheme& scheme, const RawLayer& layer,
                          int64_t row, int64_t rows) {
  const PackedShape shape = check_packed_shape(packing, scheme, layer);
  for (const RawTensor* t : {&layer.qweight, &layer.qzeros, &layer.scales, &layer.g_idx})
    check_bytes(*t);
  require(row >= 0 && rows >= 0 && row <= shape.out && rows <= shape.out - row, kWhere, layer.name,
          ": rows ", row, " to ", row + rows, " of ", shape.out);
  DecodedLinear decoded;
  QuantizedLinear& linear = decoded.linear;
  linear.scheme = scheme;
  linear.scheme.scale_dtype = layer.scales.info.dtype;
  linear.out = rows;
  linear.in = shape.in;
  linear.codes.resize(static_cast<size_t>(rows * shape.in));
  linear.scales.resize(static_cast<size_t>(rows * shape.groups));
  linear.zeros.resize(static_cast<size_t>(rows * shape.groups));
  if (packing == Packing::kAwq) {
    decode_awq_codes(layer, shape, row, linear);
  } else {
    decode_gptq_codes(layer, scheme.bits, shape, row, linear);
  }
  decode_groups(packing, layer, shape, row, decoded);
  if (layer.g_idx.present()) decoded.group_of = decode_g_idx(layer, shape, scheme.group(shape.in));
  return decoded;
}

DecodedLinear decode_linear(Packing packing, const QuantScheme& scheme, const RawLayer& layer) {
  return decode_rows(packing, scheme, layer, 0, check_packed_shape(packing, scheme, layer).out);
}

void dequantize_rows(Packing packing, const QuantScheme& scheme, const RawLayer& layer, int64_t row,
                     int64_t rows, float* weight) {
  if (packing == Packing::kBnb) return dequantize_bnb_rows(layer, row, rows, weight);
  dequantize(decode_rows(packing, scheme, layer, row, rows), weight);
}

void dequantize(const DecodedLinear& decoded, float* weight) {
  const QuantizedLinear& linear = decoded.linear;
  const int64_t groups = linear.groups(), group = linear.scheme.group(linear.in), in = linear.in;
  parallel_for(linear.out, grain(in), [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      const uint8_t* codes = linear.codes.data() + o * in;
      const uint8_t* zeros = linear.zeros.data() + o * groups;
      const float* scales = linear.scales.data() + o * groups;
      float* row = weight + o * in;
      if (!decoded.group_of.empty()) {
        for (int64_t i = 0; i < in; ++i) {
          const int32_t g = decoded.group_of[i];
          row[i] = scales[g] * static_cast<float>(codes[i] - zeros[g]);
        }
        continue;
      }
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t last = std::min(in, (g + 1) * group);
        for (int64_t i = g * group; i < last; ++i)
          row[i] = scales[g] * static_cast<float>(codes[i] - zeros[g]);
      }
    }
  });
}

}  // namespace signround
