#include "signround/ops/add.h"

#include "signround/base/parallel.h"
#include "signround/kernels/cpu/add.h"
#include "signround/kernels/cuda.h"
#include "signround/kernels/dispatch.h"
#include "signround/ops/row_checks.h"

namespace signround {
namespace {

struct AddKernel {
  std::string_view name;
  const char* (*why_not)();
  void (*run)(const kernels::Add&, int64_t, int64_t) noexcept;
};
constexpr AddKernel kKernels[] = {{"hwy", runs_always, kernels::add_hwy},
                                  {"ref", runs_always, kernels::add_ref}};

}  // namespace

void add(int64_t n, int64_t d, RowsIn x, RowsIn y, RowsOut z) {
  const HeadShape shape{n, 1, d};
  detail::check_shape("add", shape);
  detail::check_in("add", "x", x, shape);
  detail::check_in("add", "y", y, shape);
  detail::check_out("add", "z", z, shape);
  const kernels::Add args{d, x, y, z};
  if (on_cuda()) return kernels::cuda::add(args, n);
  const auto& kernel = pick_kernel("add", kKernels);
  parallel_for(n, detail::row_grain(d),
               [&](int64_t begin, int64_t end) { kernel.run(args, begin, end); });
}

}  // namespace signround
