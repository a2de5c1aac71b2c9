// Time of products with packed weights on a GPU (kernels/packed_matmul.h), for the layers of
// Llama 3 8B, beside bf16's: what a token costs. Weights come from memory, not from the caches: the
// products of a measurement go through copies of 150 MB together. Usage:
//   bench_decode [--plans [BITS]]   --plans: every way to split the work, for BITS, groups of 128
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "signround/base/error.h"
#include "signround/device/device.h"
#include "signround/kernels/cuda.h"
#include "signround/kernels/packed_matmul.h"
#include "signround/tensor/buffer.h"

namespace signround {
namespace {

using kernels::PackedPlan;
using kernels::PackedSpec;
using kernels::PackedWeight;

const Device kGpu{Device::Kind::kCuda, 0};

struct Shape {
  const char* name;
  int64_t out, in;
};
constexpr Shape kShapes[] = {
    {"qkv", 6144, 4096}, {"o", 4096, 4096}, {"gate_up", 28672, 4096}, {"down", 4096, 14336}};
constexpr Shape kHead = {"head", 128256, 4096};
constexpr int kBlocks = 32;

struct Variant {
  int bits;
  int64_t group;
};
constexpr Variant kVariants[] = {{4, 128}, {4, 32}, {3, 128}, {2, 128}, {8, 128}};
constexpr int64_t kRows[] = {1, 16, 64};
constexpr int64_t kMostRows = 64;

uint64_t state = 0x9e3779b97f4a7c15u;
uint64_t next() {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state;
}

struct Settings {
  bool emulated = false;
  int64_t cold_bytes = 150 << 20;  // three times the L2 of an H100
  int products = 24, repetitions = 7;
};
Settings settings;

int64_t shrunk(int64_t v) { return settings.emulated ? std::max<int64_t>(128, v / 32) : v; }

// bf16, about uniform in (-1, 1) times `scale`.
std::vector<uint16_t> random_bf16(int64_t n, float scale) {
  std::vector<uint16_t> values(static_cast<size_t>(n));
  for (auto& v : values)
    v = to_bf16(static_cast<float>(static_cast<int32_t>(next() >> 32)) * 0x1p-31f * scale).bits;
  return values;
}

Buffer on_device(const void* data, int64_t bytes) {
  Buffer buffer(bytes, kGpu);
  copy_to_device(buffer.data(), data, bytes);
  synchronize();
  return buffer;
}

// Seconds of one of the products that `run(i)` queues, i = 0, 1, ...: the median of graphs of many.
template <class Run>
double seconds_of(Run&& run) {
  for (int i = 0; i < 2; ++i) run(i);
  synchronize();
  DeviceGraph graph;
  graph.record([&] {
    for (int i = 0; i < settings.products; ++i) run(i);
  });
  graph.launch();
  std::vector<double> times;
  DeviceTimer timer;
  for (int r = 0; r < settings.repetitions; ++r) {
    timer.start();
    graph.launch();
    times.push_back(timer.stop() / settings.products);
  }
  std::nth_element(times.begin(), times.begin() + settings.repetitions / 2, times.end());
  return times[static_cast<size_t>(settings.repetitions / 2)];
}

double copy_rate() {
  const int64_t bytes = settings.emulated ? 1 << 20 : 512 << 20;
  const std::vector<uint16_t> values = random_bf16(1 << 19, 1.0f);
  Buffer from(bytes, kGpu), to(bytes, kGpu);
  for (int64_t at = 0; at < bytes; at += 1 << 20)
    copy_to_device(from.as<char>() + at, values.data(), 1 << 20);
  synchronize();
  std::vector<double> times;
  DeviceTimer timer;
  for (int r = 0; r < 9; ++r) {
    timer.start();
    copy_on_device(to.data(), from.data(), bytes);
    times.push_back(timer.stop());
  }
  std::nth_element(times.begin(), times.begin() + 4, times.end());
  return 2.0 * double(bytes) / times[4];
}

int copies_of(int64_t bytes) {
  return static_cast<int>(std::clamp<int64_t>(settings.cold_bytes / bytes + 1, 2, 64));
}

double seconds_of_bf16(const Shape& shape, int64_t n, const std::vector<Buffer>& weights,
                       const Buffer& x, Buffer& y) {
  const kernels::MatmulSpec spec{.m = n,
                                 .n = shape.out,
                                 .k = shape.in,
                                 .in = DType::kBF16,
                                 .out = DType::kBF16,
                                 .trans_b = true,
                                 .lda = shape.in,
                                 .ldb = shape.in,
                                 .ldc = shape.out,
                                 .device = kGpu};
  const auto plan = kernels::cuda::matmul(spec);
  return seconds_of([&](int i) {
    plan->run(x.data(), weights[static_cast<size_t>(i) % weights.size()].data(), nullptr, y.data());
  });
}

std::vector<Buffer> bf16_weights(const Shape& shape) {
  const int64_t bytes = shape.out * shape.in * 2;
  std::vector<Buffer> weights;
  const std::vector<uint16_t> part = random_bf16(shape.in * 128, 0.05f);
  weights.emplace_back(bytes, kGpu);
  const int64_t part_bytes = shape.in * 256;
  for (int64_t at = 0; at < bytes; at += part_bytes)
    copy_to_device(weights[0].as<char>() + at, part.data(), std::min(part_bytes, bytes - at));
  for (int i = 1; i < copies_of(bytes) && bytes < settings.cold_bytes * 4; ++i) {
    weights.emplace_back(bytes, kGpu);
    copy_on_device(weights.back().data(), weights[0].data(), bytes);
  }
  synchronize();
  return weights;
}

struct Packed {
  std::vector<uint8_t> codes, zeros;
  std::vector<float> scales;
  PackedSpec spec;
  std::vector<PackedWeight> copies;
};

Packed packed_weights(const Shape& shape, const Variant& variant) {
  Packed p;
  p.spec = {.out = shape.out, .in = shape.in, .bits = variant.bits, .group = variant.group};
  p.codes.resize(static_cast<size_t>(shape.out * shape.in));
  const uint64_t mask = 0x0101010101010101u * ((1u << variant.bits) - 1);
  for (size_t i = 0; i + 8 <= p.codes.size(); i += 8) {
    const uint64_t eight = next() & mask;
    std::memcpy(p.codes.data() + i, &eight, 8);
  }
  const auto count = static_cast<size_t>(shape.out * p.spec.groups());
  p.zeros.assign(count, static_cast<uint8_t>(1 << (variant.bits - 1)));
  p.scales.resize(count);
  for (float& s : p.scales)
    s = round_to_f16(0.05f / static_cast<float>(1 << variant.bits) *
                     (1.0f + static_cast<float>(next() >> 40) * 0x1p-24f));
  p.copies.emplace_back(p.spec, p.codes.data(), p.scales.data(), p.zeros.data());
  const int copies = copies_of(p.copies[0].bytes());
  for (int i = 1; i < copies; ++i) p.copies.push_back(p.copies[0].copy());
  synchronize();
  return p;
}

// 64 values of y against sums in double: a time of wrong results is none.
void check(const Packed& p, int64_t n, const std::vector<uint16_t>& x, const Buffer& y) {
  const PackedSpec& s = p.spec;
  std::vector<uint16_t> got(static_cast<size_t>(n * s.out));
  copy_to_host(got.data(), y.data(), n * s.out * 2);
  for (int c = 0; c < 64; ++c) {
    const int64_t row = static_cast<int64_t>(next() >> 1) % n;
    const int64_t o = static_cast<int64_t>(next() >> 1) % s.out;
    double want = 0, sum = 0;
    for (int64_t k = 0; k < s.in; ++k) {
      const auto group = static_cast<size_t>(o * s.groups() + k / s.weights_per_scale());
      const double v = double(p.scales[group]) *
                       (int(p.codes[static_cast<size_t>(o * s.in + k)]) - int(p.zeros[group])) *
                       double(to_f32(BF16{x[static_cast<size_t>(row * s.in + k)]}));
      want += v, sum += std::abs(v);
    }
    const double value = double(to_f32(BF16{got[static_cast<size_t>(row * s.out + o)]}));
    const double tolerance =
        std::ldexp(sum * double(s.in + 16), -23) + std::ldexp(std::abs(want), -8);
    if (!(std::abs(value - want) <= tolerance))
      fail(ErrorKind::kInternal, "bench_decode", "output ", o, " of row ", row, " is ", value,
           ", expected ", want);
  }
}

std::string describe(const PackedPlan& plan) {
  return plan.kernel == PackedPlan::Kernel::kDecode
             ? fmt::format("decode {} rows, {} splits, {} blocks", plan.rows, plan.splits,
                           plan.blocks)
             : fmt::format("batch {} rows, {} splits, {} stages", plan.rows, plan.splits,
                           plan.stages);
}

double seconds_of_packed(const Packed& p, const PackedPlan& plan, int64_t n, const Buffer& x,
                         const std::vector<uint16_t>& host_x, Buffer& y) {
  Buffer scratch(packed_matmul_scratch_bytes(p.copies[0], plan, n) + 16, kGpu);
  const double seconds = seconds_of([&](int i) {
    packed_matmul(p.copies[static_cast<size_t>(i) % p.copies.size()], plan, n,
                  {x.data(), DType::kBF16, p.spec.in}, {y.data(), DType::kBF16, p.spec.out},
                  scratch.data());
  });
  check(p, n, host_x, y);
  return seconds;
}

// Of every plan, the ten fastest.
void print_plans(const Packed& p, int64_t n, const Buffer& x, const std::vector<uint16_t>& host_x,
                 Buffer& y) {
  std::vector<std::pair<double, PackedPlan>> all;
  for (const PackedPlan& plan : packed_matmul_plans(p.copies[0], n))
    all.emplace_back(seconds_of_packed(p, plan, n, x, host_x, y), plan);
  std::stable_sort(all.begin(), all.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  const PackedPlan chosen = plan_packed_matmul(p.copies[0], n);
  fmt::print("  chosen      {}\n", describe(chosen));
  for (size_t i = 0; i < std::min<size_t>(10, all.size()); ++i)
    fmt::print("  {:8.2f} us {}\n", all[i].first * 1e6, describe(all[i].second));
}

int run(int argc, char** argv) {
  bool plans = false;
  int plan_bits = 4;
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--plans")
      plans = true;
    else
      plan_bits = std::atoi(argv[i]);
  }
  if (why_no_cuda() != nullptr) {
    fmt::print(stderr, "bench_decode: {}\n", why_no_cuda());
    return 2;
  }
  const DeviceScope scope(kGpu);
  const DeviceFacts facts = device_facts(kGpu);
  settings.emulated = facts.name == "emulated";
  if (settings.emulated) settings.cold_bytes = 1, settings.products = 1, settings.repetitions = 1;
  const double rate = copy_rate();
  fmt::print("{}, {} multiprocessors; a copy on the device: {:.0f} GB/s read and written\n",
             facts.name, facts.multiprocessors, rate / 1e9);
  fmt::print("weights cold, x and y bf16, median of {} graphs of {} products\n\n",
             settings.repetitions, settings.products);
  fmt::print("{:8} {:>6} {:>6} {:>4} {:>6} {:>3} {:>9} {:>7} {:>6} {:>9} {:>6}  {}\n", "layer",
             "out", "in", "bits", "group", "n", "us", "GB/s", "share", "bf16 us", "times", "plan");

  double bf16_block = 0;
  std::vector<double> block(std::size(kVariants));
  for (const Shape& full : kShapes) {
    const Shape shape{full.name, shrunk(full.out), shrunk(full.in)};
    const std::vector<uint16_t> host_x = random_bf16(kMostRows * shape.in, 1.0f);
    const Buffer x = on_device(host_x.data(), kMostRows * shape.in * 2);
    Buffer y(kMostRows * shape.out * 2, kGpu);
    double bf16[std::size(kRows)] = {};
    {
      const std::vector<Buffer> weights = bf16_weights(shape);
      for (size_t i = 0; i < std::size(kRows); ++i) {
        bf16[i] = seconds_of_bf16(shape, kRows[i], weights, x, y);
        const double bytes = double(shape.out * shape.in * 2);
        fmt::print("{:8} {:6} {:6} {:4} {:6} {:3} {:9.2f} {:7.0f} {:5.0f}%\n", shape.name,
                   shape.out, shape.in, 16, "-", kRows[i], bf16[i] * 1e6, bytes / bf16[i] / 1e9,
                   100 * bytes / bf16[i] / rate);
      }
    }
    bf16_block += bf16[0];
    for (size_t v = 0; v < std::size(kVariants); ++v) {
      const Variant& variant = kVariants[v];
      if (plans && (variant.bits != plan_bits || variant.group != 128)) continue;
      const Packed p = packed_weights(shape, variant);
      for (size_t i = 0; i < std::size(kRows); ++i) {
        const PackedPlan plan = plan_packed_matmul(p.copies[0], kRows[i]);
        const double seconds = seconds_of_packed(p, plan, kRows[i], x, host_x, y);
        if (kRows[i] == 1) block[v] += seconds;
        const double bytes = double(p.copies[0].bytes());
        fmt::print("{:8} {:6} {:6} {:4} {:6} {:3} {:9.2f} {:7.0f} {:5.0f}% {:9.2f} {:6.2f}  {}\n",
                   shape.name, shape.out, shape.in, variant.bits, variant.group, kRows[i],
                   seconds * 1e6, bytes / seconds / 1e9, 100 * bytes / seconds / rate,
                   bf16[i] * 1e6, bf16[i] / seconds, describe(plan));
        if (plans) print_plans(p, kRows[i], x, host_x, y);
      }
    }
  }

  const Shape head{kHead.name, shrunk(kHead.out), shrunk(kHead.in)};
  const std::vector<uint16_t> host_x = random_bf16(head.in, 1.0f);
  const Buffer x = on_device(host_x.data(), head.in * 2);
  Buffer y(head.out * 2, kGpu);
  const double head_seconds = seconds_of_bf16(head, 1, bf16_weights(head), x, y);
  const double bf16_token = kBlocks * bf16_block + head_seconds;
  fmt::print("\nproducts of a token (32 blocks, and a head of {:.1f} us that stays bf16):\n",
             head_seconds * 1e6);
  for (size_t v = 0; v < std::size(kVariants); ++v) {
    if (block[v] == 0) continue;
    const double token = kBlocks * block[v] + head_seconds;
    fmt::print("  {} bits, groups of {:3}: {:6.0f} tokens/s, bf16 {:6.0f}: {:.2f} times\n",
               kVariants[v].bits, kVariants[v].group, 1 / token, 1 / bf16_token,
               bf16_token / token);
  }
  return 0;
}

}  // namespace
}  // namespace signround

int main(int argc, char** argv) {
  try {
    return signround::run(argc, argv);
  } catch (const signround::Error& error) {
    fmt::print(stderr, "bench_decode: {}\n", error.what());
    return 1;
  }
}
