#include "signround/graph/timings.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

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

MachineRates machine_rates(DType compute) {
  static const double copy = copy_rate();
  const ComputeRates& products = compute_rates();
  return {.flops = compute == DType::kBF16 ? products.bf16 : products.f32, .bytes = copy};
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
