// For the tests of row operations: rows between guard values, all kernels in turn.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "signround/base/parallel.h"
#include "signround/kernels/dispatch.h"
#include "signround/tensor/rows.h"
#include "signround/testing/random.h"

namespace signround::testing {

constexpr double kUlp = 0x1p-24;    // half a unit in the last place of f32, relative
constexpr double kTiny = 0x1p-126;  // below this f32 has no relative precision

// For kernels that treat aligned rows in another way: all GuardedRows made from now on begin at
// multiples of 16 bytes.
inline bool align_guarded_rows = false;

// n rows of d values, `gap` values apart and `shift` values off any alignment; everything else
// holds a guard value.
template <class T>
class GuardedRows {
 public:
  GuardedRows(int64_t n, int64_t d, int64_t gap = 3, int64_t shift = 1)
      : n_(n),
        d_(d),
        stride_(align_guarded_rows ? (d + 15) / 8 * 8 : d + gap),
        shift_(align_guarded_rows ? 8 : shift),
        values_(static_cast<size_t>(shift_ + n * stride_ + 1)) {
    for (T& v : values_) v = guard();
  }
  static GuardedRows random(int64_t n, int64_t d, uint64_t seed, double sigma = 1.0) {
    GuardedRows rows(n, d);
    const auto values = random_normal(n * d, seed, sigma);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < d; ++j) rows.put(i, j, values[static_cast<size_t>(i * d + j)]);
    return rows;
  }

  T* data() { return values_.data() + shift_; }
  T* row(int64_t i) { return data() + i * stride_; }
  T& at(int64_t i, int64_t j) { return row(i)[j]; }
  RowsIn in() { return {reinterpret_cast<const float*>(data()), stride_}; }
  RowsAny any() { return {data(), dtype(), stride_}; }
  RowsOut out() { return {data(), dtype(), stride_}; }
  bool guards_intact() {
    std::vector<bool> inside(values_.size());
    for (int64_t i = 0; i < n_; ++i)
      for (int64_t j = 0; j < d_; ++j) inside[static_cast<size_t>(shift_ + i * stride_ + j)] = true;
    for (size_t k = 0; k < values_.size(); ++k)
      if (!inside[k] && bits(values_[k]) != bits(guard())) return false;
    return true;
  }

  static constexpr DType dtype() {
    if constexpr (std::is_same_v<T, float>) return DType::kF32;
    if constexpr (std::is_same_v<T, BF16>) return DType::kBF16;
    return DType::kF16;
  }

 private:
  void put(int64_t i, int64_t j, float v) {
    if constexpr (std::is_same_v<T, float>) at(i, j) = v;
    if constexpr (std::is_same_v<T, BF16>) at(i, j) = to_bf16(v);
    if constexpr (std::is_same_v<T, F16>) at(i, j) = to_f16(v);
  }
  static T guard() {
    if constexpr (std::is_same_v<T, float>)
      return -77.25f;
    else
      return T{0x1234};
  }
  static uint32_t bits(float v) { return std::bit_cast<uint32_t>(v); }
  static uint32_t bits(BF16 v) { return v.bits; }
  static uint32_t bits(F16 v) { return v.bits; }

  int64_t n_, d_, stride_, shift_;
  std::vector<T> values_;
};

// The bf16 rows are the f32 rows rounded.
inline void expect_rounded(GuardedRows<BF16>& narrow, GuardedRows<float>& wide, int64_t n,
                           int64_t d) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < d; ++j)
      ASSERT_EQ(narrow.at(i, j).bits, to_bf16(wide.at(i, j)).bits)
          << "row " << i << " column " << j;
}

class ForceKernel {
 public:
  explicit ForceKernel(const char* name) {
    if (const char* old = std::getenv("SIGNROUND_FORCE_KERNEL")) old_ = old;
    setenv("SIGNROUND_FORCE_KERNEL", name, 1);
  }
  ~ForceKernel() {
    old_.empty() ? unsetenv("SIGNROUND_FORCE_KERNEL")
                 : setenv("SIGNROUND_FORCE_KERNEL", old_.c_str(), 1);
  }

 private:
  std::string old_;
};

// body() on a GPU, where there is one (or one is emulated), which then reads the host's memory:
// with rows of any alignment, then with aligned ones.
template <class Body>
void for_cuda(Body&& body) {
  if (why_no_cuda() != nullptr) return;
  const DeviceScope scope({Device::Kind::kCuda, 0});
  set_blocking_launches(true);
  {
    SCOPED_TRACE("kernel cuda");
    body();
  }
  SCOPED_TRACE("kernel cuda, aligned rows");
  align_guarded_rows = true;
  body();
  align_guarded_rows = false;
}

// body() under the reference and under Highway for every instruction set of this CPU.
template <class Body>
void for_each_cpu_kernel(Body&& body) {
  {
    ForceKernel force("ref");
    SCOPED_TRACE("kernel ref");
    body();
  }
  ForceKernel force("hwy");
  for_each_hwy_target([&](const char* target) {
    SCOPED_TRACE(std::string("kernel hwy ") + target);
    body();
  });
}

// And on a GPU.
template <class Body>
void for_each_kernel(Body&& body) {
  for_each_cpu_kernel(body);
  for_cuda(body);
}

// 0 to two vectors and one of the widest instruction set, then sizes that reach the unrolled loops
// and their ends.
inline std::vector<int64_t> row_lengths() {
  std::vector<int64_t> lengths;
  for (int64_t d = 0; d <= 33; ++d) lengths.push_back(d);
  for (int64_t d : {47, 64, 65, 127, 128, 200, 1103}) lengths.push_back(d);
  if (on_cuda())  // more than the threads of a block take at once
    for (int64_t d : {520, 4616}) lengths.push_back(d);
  return lengths;
}

template <class T>
std::vector<T> to(const float* p, int64_t n) {
  return std::vector<T>(p, p + n);
}

}  // namespace signround::testing
