#include "signround/ops/rope.h"

#include <cmath>

#include "signround/base/parallel.h"
#include "signround/kernels/cuda.h"
#include "signround/kernels/dispatch.h"
#include "signround/ops/row_checks.h"

namespace signround {
namespace {

using namespace detail;

struct RopeKernel {
  std::string_view name;
  const char* (*why_not)();
  void (*run)(const kernels::Rope&, int64_t, int64_t) noexcept;
};
constexpr RopeKernel kKernels[] = {{"hwy", runs_always, kernels::rope_hwy},
                                   {"ref", runs_always, kernels::rope_ref}};

void rotate(const char* op, HeadShape shape, RowsAny x, const RopeTable& table,
            const RopeOptions& o, RowsOut y, bool inverse, bool accumulate) {
  check_shape(op, shape);
  check_in(op, "x", x, shape);
  check_grad(op, "y", y, shape, accumulate);
  require(table.rot_dim() <= shape.dim, op, "the table turns ", table.rot_dim(),
          " dimensions, a head has ", shape.dim);
  require(o.seq_len > 0 && o.offset >= 0, op, "seq_len is ", o.seq_len, " and offset ", o.offset,
          ", expected a positive seq_len and no negative offset");
  const int64_t last = o.offset + (shape.tokens < o.seq_len ? shape.tokens : o.seq_len);
  require(last <= table.positions(), op, "positions up to ", last, " are needed, the table has ",
          table.positions());
  const kernels::Rope args{shape,
                           table.rot_dim(),
                           o.style,
                           table.cos.view().data,
                           table.sin.view().data,
                           o.offset,
                           o.seq_len,
                           x,
                           y,
                           inverse,
                           accumulate};
  if (on_cuda()) return kernels::cuda::rope(args);
  const auto& kernel = pick_kernel(op, kKernels);
  parallel_for(shape.tokens, row_grain(shape.cols()),
               [&](int64_t begin, int64_t end) { kernel.run(args, begin, end); });
}

}  // namespace

RopeTable rope_table(std::span<const float> inv_freq, double attention_factor, int64_t positions) {
  require(positions >= 0, "rope", "a table of ", positions, " positions was asked for");
  const int64_t half = static_cast<int64_t>(inv_freq.size());
  RopeTable table{MatBuffer<float>(positions, half), MatBuffer<float>(positions, half)};
  for (int64_t t = 0; t < positions; ++t) {
    for (int64_t p = 0; p < half; ++p) {
      const float angle = static_cast<float>(t) * inv_freq[static_cast<size_t>(p)];
      table.cos.view().row(t)[p] =
          static_cast<float>(std::cos(static_cast<double>(angle)) * attention_factor);
      table.sin.view().row(t)[p] =
          static_cast<float>(std::sin(static_cast<double>(angle)) * attention_factor);
    }
  }
  if (on_cuda()) {
    RopeTable there{MatBuffer<float>(positions, half, current_device()),
                    MatBuffer<float>(positions, half, current_device())};
    copy_to_device(there.cos.view().data, table.cos.view().data, positions * half * 4);
    copy_to_device(there.sin.view().data, table.sin.view().data, positions * half * 4);
    synchronize();
    return there;
  }
  return table;
}

void rope_fwd(HeadShape shape, RowsAny x, const RopeTable& table, const RopeOptions& options,
              RowsOut y) {
  rotate("rope", shape, x, table, options, y, false, false);
}

void rope_bwd(HeadShape shape, RowsAny d_y, const RopeTable& table, const RopeOptions& options,
              RowsOut d_x, bool accumulate) {
  rotate("rope_bwd", shape, d_y, table, options, d_x, true, accumulate);
}

}  // namespace signround
