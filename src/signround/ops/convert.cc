#include "signround/ops/convert.h"

#include "signround/base/parallel.h"
#include "signround/kernels/cpu/convert.h"
#include "signround/kernels/cuda.h"
#include "signround/kernels/dispatch.h"
#include "signround/ops/row_checks.h"

namespace signround {
namespace {

using namespace detail;

struct ConvertKernel {
  std::string_view name;
  const char* (*why_not)();
  void (*run)(const kernels::Convert&, int64_t, int64_t) noexcept;
};
constexpr ConvertKernel kKernels[] = {{"hwy", runs_always, kernels::convert_hwy},
                                      {"ref", runs_always, kernels::convert_ref}};

void run(const char* op, int64_t n, const kernels::Convert& args) {
  const HeadShape shape{n, 1, args.cols};
  check_out(op, "y", args.y, shape, true);
  if (on_cuda()) return kernels::cuda::convert(args, n);
  const auto& kernel = pick_kernel(op, kKernels);
  parallel_for(n, row_grain(args.cols),
               [&](int64_t begin, int64_t end) { kernel.run(args, begin, end); });
}

}  // namespace

void convert(int64_t n, int64_t d, RowsAny x, RowsOut y) {
  check_shape("convert", {n, 1, d});
  check_in("convert", "x", x, {n, 1, d});
  run("convert", n, {d, x, nullptr, 1.0f, y});
}

void embedding(std::span<const int32_t> ids, int64_t vocab, int64_t d, RowsAny table, float scale,
               RowsOut y) {
  const char* op = "embedding";
  const int64_t n = static_cast<int64_t>(ids.size());
  check_shape(op, {vocab, 1, d});
  check_in(op, "the table", table, {vocab, 1, d});
  for (size_t i = 0; i < ids.size() && !on_cuda(); ++i)  // a GPU's lie there
    require(ids[i] >= 0 && ids[i] < vocab, op, "token ", i, " has the id ", ids[i],
            ", the table has ", vocab, " rows");
  run(op, n, {d, table, ids.data(), scale, y});
}

}  // namespace signround
