// Where the time of a run goes, by kind of work.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "signround/graph/program.h"

namespace signround {

// Sums by name, in the order in which the names first came. Not thread-safe: spans are those of the
// thread that runs the blocks, so that they do not overlap and can be summed.
class Timings {
 public:
  void add(std::string_view name, double seconds, double flops = 0, double bytes = 0,
           int64_t calls = 1);
  void add(const std::vector<OpTiming>& timings);
  const std::vector<OpTiming>& all() const { return all_; }
  double seconds() const;  // of all

  // Calls f and adds its time; bytes: what it reads and writes at least.
  template <class F>
  decltype(auto) timed(std::string_view name, double bytes, F&& f) {
    const Span span{*this, name, bytes};
    return std::forward<F>(f)();
  }

 private:
  using Clock = std::chrono::steady_clock;
  struct Span {
    Timings& timings;
    std::string_view name;
    double bytes;
    Clock::time_point start = Clock::now();
    ~Span() {
      timings.add(name, std::chrono::duration<double>(Clock::now() - start).count(), 0, bytes);
    }
  };
  std::vector<OpTiming> all_;
};

// What this machine was measured to do.
struct MachineRates {
  double flops = 0;  // of the products' precision, per second
  double bytes = 0;  // read and written by a copy, per second
};
MachineRates machine_rates(DType compute, Device device = {});  // measures at the first call, in about 0.2 s
double product_rate(DType compute, Device device = {});  // the first of the two alone

// A table: part, seconds, share of `whole` seconds, rate, and the rate's share of the machine's.
// What the parts leave of the whole is its last line, "other".
std::string describe(const Timings& timings, double whole, const MachineRates& rates);

}  // namespace signround
