#include <algorithm>
#include <map>
#include <vector>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/kernels/cpu/int8_rows.h"
#include "signround/kernels/cpu/int8_step.h"
#include "signround/kernels/cpu/kept.h"
#include "signround/kernels/cpu/matmul.h"
#include "signround/kernels/cpu/onednn.h"

namespace signround::kernels {
namespace {

using dnnl::memory;

// Operands are rounded where they would be read, in the order in which they lie; oneDNN multiplies
// them to whole numbers, for as many rows of C at a time as these have room.
constexpr int64_t kSumsBytes = int64_t{8} << 20;

// Kept by the calling thread.
struct Workspace {
  Buffer a, b, steps, sums;
};
Workspace& workspace() {
  thread_local Workspace mine;
  return mine;
}

class Int8Plan : public MatmulPlan {
 public:
  explicit Int8Plan(const MatmulSpec& s)
      : s_(s), rows_(std::clamp(kSumsBytes / (s.n * 4), int64_t{1}, s.m)) {
    for (int64_t k = 0; k < s.k; k += kInt8StepValues)
      for (int64_t m = 0; m < s.m; m += rows_)
        make(std::min(rows_, s.m - m), std::min(kInt8StepValues, s.k - k));
  }

  int64_t workspace_bytes() const {
    const int64_t k = std::min(s_.k, kInt8StepValues);
    return (s_.m + s_.n) * (k + int64_t{sizeof(float)}) + rows_ * s_.n * int64_t{sizeof(int32_t)};
  }

  void run(const void* a, const void* b, const float*, void* c, const float* from) const override {
    if (s_.accumulate && from == nullptr) from = static_cast<const float*>(c);
    if (!s_.accumulate) from = nullptr;
    for (int64_t k = 0; k < s_.k; k += kInt8StepValues) {
      add_piece(a, b, k, c, from);
      from = static_cast<const float*>(c);
    }
  }

 private:
  struct Product {
    memory::desc a, b, c;
    dnnl::matmul primitive;
  };

  // The product of the codes of so many rows of A and values of k.
  void make(int64_t rows, int64_t k) {
    Product& p = products_[{rows, k}];
    using Type = memory::data_type;
    p.a = {{rows, k}, Type::s8, s_.trans_a ? memory::dims{1, s_.m} : memory::dims{k, 1}};
    p.b = {{k, s_.n}, Type::s8, s_.trans_b ? memory::dims{1, k} : memory::dims{s_.n, 1}};
    p.c = {{rows, s_.n}, Type::s32, memory::dims{s_.n, 1}};
#if DNNL_VERSION_MAJOR >= 3
    p.primitive = dnnl::matmul({cpu_engine(), p.a, p.b, p.c});
#else
    p.primitive = dnnl::matmul({{p.a, p.b, p.c}, cpu_engine()});
#endif
  }

  void add_piece(const void* a, const void* b, int64_t k0, void* c, const float* from) const {
    const int64_t k = std::min(kInt8StepValues, s_.k - k0);
    Workspace& w = workspace();
    auto* codes_a = room<int8_t>(w.a, s_.m * k);
    auto* codes_b = room<int8_t>(w.b, s_.n * k);
    auto* steps_a = room<float>(w.steps, s_.m + s_.n);
    auto* sums = room<int32_t>(w.sums, rows_ * s_.n);
    float* steps_b = steps_a + s_.m;
    round({operand(a, s_.lda, k0, s_.trans_a), s_.m, k, s_.trans_a}, codes_a, steps_a);
    round({operand(b, s_.ldb, k0, !s_.trans_b), s_.n, k, !s_.trans_b}, codes_b, steps_b);
    dnnl::stream stream(cpu_engine());
    for (int64_t m = 0; m < s_.m; m += rows_) {
      const int64_t rows = std::min(rows_, s_.m - m);
      const Product& p = products_.at({rows, k});
      const auto& engine = cpu_engine();
      p.primitive.execute(stream,
                          {{DNNL_ARG_SRC, memory(p.a, engine, codes_a + m * (s_.trans_a ? 1 : k))},
                           {DNNL_ARG_WEIGHTS, memory(p.b, engine, codes_b)},
                           {DNNL_ARG_DST, memory(p.c, engine, sums)}});
      stream.wait();
      parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t at = (m + i) * s_.ldc;
          add_int8_sums(sums + i * s_.n, s_.n, steps_a[m + i], steps_b, from ? from + at : nullptr,
                        static_cast<char*>(c) + at * size_of(s_.out), s_.out);
        }
      });
    }
  }

  // From value k0 of k on.
  RowsAny operand(const void* x, int64_t stride, int64_t k0, bool k_major) const {
    const int64_t skipped = (k_major ? k0 * stride : k0) * size_of(s_.in);
    return {static_cast<const char*>(x) + skipped, s_.in, stride};
  }

  static void round(const Int8Operand& x, int8_t* codes, float* steps) {
    parallel_for(x.outer, 64,
                 [&](int64_t begin, int64_t end) { round_to_int8(x, begin, end, codes, steps); });
  }

  MatmulSpec s_;
  int64_t rows_;                                             // of C at a time
  std::map<std::pair<int64_t, int64_t>, Product> products_;  // by rows and values of k
};

}  // namespace

const char* why_not_matmul_onednn_int8() {
  // Without these instructions oneDNN adds pairs of products in 16 bits, which do not hold all.
  constexpr int kNeeded = dnnl_cpu_isa_avx512_core_vnni;
  const bool has = (static_cast<int>(dnnl::get_effective_cpu_isa()) & kNeeded) == kNeeded;
  return has ? nullptr : "the CPU has no products of 8-bit integers (AMX or AVX-512 VNNI)";
}

int64_t matmul_onednn_int8_workspace_bytes(const MatmulSpec& spec) {
  return Int8Plan(spec).workspace_bytes();
}

std::unique_ptr<MatmulPlan> matmul_onednn_int8(const MatmulSpec& spec) {
  require(spec.int8 && !spec.bias, "matmul", "products of rounded operands have no bias");
  if (const char* reason = why_not_matmul_onednn_int8())
    fail(ErrorKind::kUnsupported, "matmul", reason);
  try {
    return std::make_unique<Int8Plan>(spec);
  } catch (const dnnl::error& error) {
    fail(ErrorKind::kInternal, "matmul", "oneDNN refused ", spec.m, "x", spec.k, " by ", spec.k,
         "x", spec.n, " in 8 bits: ", error.what());
  }
}

}  // namespace signround::kernels
