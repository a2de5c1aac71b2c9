#include "signround/graph/timings.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

#include "signround/base/parallel.h"
#include "signround/ops/matmul.h"
#include "signround/tensor/buffer.h"

namespace signround {

void Timings::add(std::string_view name, double seconds, double flops, double bytes,
                  int64_t calls) {
  auto found =
      std::find_if(all_.begin(), all_.end(), [&](const OpTiming& t) { return t.name == name; });
  if (found == all_.end()) {
    all_.push_back({.name = std::string(name)});
    found = all_.end() - 1;
  }
  found->seconds += seconds, found->flops += flops, found->bytes += bytes, found->calls += calls;
}

void Timings::add(const std::vector<OpTiming>& timings) {
  for (const OpTiming& t : timings) add(t.name, t.seconds, t.flops, t.bytes, t.calls);
}

double Timings::seconds() const {
  double sum = 0;
  for (const OpTiming& t : all_) sum += t.seconds;
  return sum;
}

namespace {

double copy_rate() {
  constexpr int64_t kBytes = int64_t{1} << 27, kPiece = int64_t{1} << 20;
  Buffer from(kBytes), to(kBytes);
  double best = 0;
  for (int turn = 0; turn < 4; ++turn) {  // the first one touches the pages
    const auto start = std::chrono::steady_clock::now();
    parallel_for(kBytes / kPiece, 1, [&](int64_t begin, int64_t end) {
      std::memcpy(to.as<char>() + begin * kPiece, from.as<char>() + begin * kPiece,
                  static_cast<size_t>((end - begin) * kPiece));
    });
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, 2 * static_cast<double>(kBytes) / seconds);
  }
  return best;
}

std::string line(const std::string& name, double seconds, double whole, double rate,
                 const char* unit, double of) {
  std::string text = fmt::format("  {:<28} {:>9.3f} s {:>6.1f}%", name, seconds,
                                 whole > 0 ? 100 * seconds / whole : 0);
  if (rate > 0)
    text += fmt::format(" {:>9.1f} {:<7} {:>5.1f}% of {:.1f}", rate / 1e9, unit,
                        of > 0 ? 100 * rate / of : 0, of / 1e9);
  return text + "\n";
}

}  // namespace

namespace {

// Of a product of 8192 x 4096 by 4096 x 8192 random values on the current device, a GPU, and of a
// copy there.
double gpu_product_rate(DType compute) {
  // Large enough for the GPU; one that is emulated is small.
  const Device device = current_device();
  const int64_t m = device_facts(device).multiprocessors < 16 ? 64 : 8192, k = m / 2;
  const int64_t size = size_of(compute);
  std::vector<uint32_t> random(static_cast<size_t>(m * k * size / 4));
  uint32_t state = 1;
  for (uint32_t& word : random) {
    state = state * 1664525u + 1013904223u;
    word = (state & 0x807f807fu) | 0x3f003f00u;  // magnitudes from 1/2 to 1, of either sign
  }
  Buffer a(m * k * size, device), b(m * k * size, device), c(m * m * size, device);
  copy_to_device(a.data(), random.data(), a.bytes());
  copy_to_device(b.data(), random.data(), b.bytes());
  const auto product = make_matmul({.m = m,
                                    .n = m,
                                    .k = k,
                                    .in = compute,
                                    .out = compute,
                                    .trans_b = true,
                                    .lda = k,
                                    .ldb = k,
                                    .ldc = m,
                                    .device = device});
  DeviceTimer timer;
  double best = 0;
  const int repeats = compute == DType::kBF16 ? 20 : 2;
  for (int turn = 0; turn < 3; ++turn) {
    timer.start();
    for (int i = 0; i < repeats; ++i) product->run(a.data(), b.data(), nullptr, c.data());
    best = std::max(best, repeats * 2.0 * double(m) * double(m) * double(k) / timer.stop());
  }
  return best;
}

double gpu_copy_rate() {
  const int64_t bytes = device_facts(current_device()).total_bytes >> 7;
  Buffer from(bytes, current_device()), to(bytes, current_device());
  DeviceTimer timer;
  double best = 0;
  for (int turn = 0; turn < 4; ++turn) {
    timer.start();
    copy_on_device(to.data(), from.data(), bytes);
    best = std::max(best, 2 * static_cast<double>(bytes) / timer.stop());
  }
  return best;
}

}  // namespace

double product_rate(DType compute, Device device) {
  if (!device.is_cuda())
    return compute == DType::kBF16 ? compute_rates().bf16 : compute_rates().f32;
  const DeviceScope scope(device);
  static std::map<std::pair<int, DType>, double> measured;
  double& rate = measured[{device.index, compute}];
  if (rate == 0) rate = gpu_product_rate(compute);
  return rate;
}

MachineRates machine_rates(DType compute, Device device) {
  const double flops = product_rate(compute, device);
  if (device.is_cuda()) {
    const DeviceScope scope(device);
    static std::map<int, double> measured;
    double& rate = measured[device.index];
    if (rate == 0) rate = gpu_copy_rate();
    return {.flops = flops, .bytes = rate};
  }
  static const double copy = copy_rate();
  return {.flops = flops, .bytes = copy};
}

std::string describe(const Timings& timings, double whole, const MachineRates& rates) {
  std::string text;
  for (const OpTiming& t : timings.all()) {
    const bool counts_flops = t.flops > 0;
    const double work = counts_flops ? t.flops : t.bytes;
    text += line(t.name, t.seconds, whole, t.seconds > 0 ? work / t.seconds : 0,
                 counts_flops ? "GFLOP/s" : "GB/s", counts_flops ? rates.flops : rates.bytes);
  }
  return text + line("other", whole - timings.seconds(), whole, 0, "", 0) +
         line("whole", whole, whole, 0, "", 0);
}

}  // namespace signround
