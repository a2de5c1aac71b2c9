#include "signround/ops/xent.h"

#include "signround/base/parallel.h"
#include "signround/kernels/cuda.h"
#include "signround/kernels/dispatch.h"
#include "signround/ops/row_checks.h"

namespace signround {
namespace {

using namespace detail;

struct XentKernel {
  std::string_view name;
  const char* (*why_not)();
  void (*fwd)(const kernels::Xent&, int64_t, int64_t) noexcept;
  void (*kl_fwd)(const kernels::Kl&, int64_t, int64_t) noexcept;
  void (*kl_bwd)(const kernels::KlBwd&, int64_t, int64_t) noexcept;
};
constexpr XentKernel kKernels[] = {
    {"hwy", runs_always, kernels::xent_fwd_hwy, kernels::kl_fwd_hwy, kernels::kl_bwd_hwy},
    {"ref", runs_always, kernels::xent_fwd_ref, kernels::kl_fwd_ref, kernels::kl_bwd_ref}};

void check(const char* op, int64_t n, int64_t vocab, RowsIn logits, size_t rows) {
  check_shape(op, {n, 1, vocab});
  require(vocab > 0 && vocab <= INT32_MAX, op, "the vocabulary has ", vocab,
          " tokens, expected 1 to 2^31 - 1");
  check_in(op, "logits", logits, {n, 1, vocab});
  check_size(op, "rows", rows, n);
}

const int32_t* checked_targets(const char* op, int64_t n, int64_t vocab,
                               std::span<const int32_t> targets) {
  check_size(op, "targets", targets.size(), n, true);
  for (size_t i = 0; i < targets.size() && !on_cuda(); ++i)  // a GPU's lie there
    require(targets[i] < vocab, op, "target ", i, " is ", targets[i], ", the vocabulary has ",
            vocab, " tokens");
  return targets.empty() ? nullptr : targets.data();
}

}  // namespace

void xent_fwd(int64_t n, int64_t vocab, RowsIn logits, std::span<const int32_t> targets,
              std::span<XentRow> rows) {
  check("xent", n, vocab, logits, rows.size());
  const kernels::Xent args{vocab, logits, checked_targets("xent", n, vocab, targets), rows.data()};
  if (on_cuda()) return kernels::cuda::xent_fwd(args, n);
  const auto& kernel = pick_kernel("xent", kKernels);
  parallel_for(n, row_grain(vocab),
               [&](int64_t begin, int64_t end) { kernel.fwd(args, begin, end); });
}

void kl_fwd(int64_t n, int64_t vocab, RowsIn logits, RowsIn ref, std::span<const int32_t> targets,
            std::span<KlRow> rows) {
  check("kl", n, vocab, logits, rows.size());
  check_in("kl", "ref", ref, {n, 1, vocab});
  const kernels::Kl args{vocab, logits, ref, checked_targets("kl", n, vocab, targets), rows.data()};
  if (on_cuda()) return kernels::cuda::kl_fwd(args, n);
  const auto& kernel = pick_kernel("kl", kKernels);
  parallel_for(n, row_grain(vocab),
               [&](int64_t begin, int64_t end) { kernel.kl_fwd(args, begin, end); });
}

void kl_bwd(int64_t n, int64_t vocab, RowsIn logits, RowsIn ref, std::span<const KlRow> rows,
            std::span<const uint8_t> mask, float scale, RowsOut d_logits) {
  const char* op = "kl_bwd";
  check(op, n, vocab, logits, rows.size());
  check_in(op, "ref", ref, {n, 1, vocab});
  check_out(op, "d_logits", d_logits, {n, 1, vocab});
  check_size(op, "mask", mask.size(), n, true);
  const kernels::KlBwd args{vocab, logits,  ref, rows.data(), mask.empty() ? nullptr : mask.data(),
                            scale, d_logits};
  if (on_cuda()) return kernels::cuda::kl_bwd(args, n);
  const auto& kernel = pick_kernel(op, kKernels);
  parallel_for(n, row_grain(vocab),
               [&](int64_t begin, int64_t end) { kernel.kl_bwd(args, begin, end); });
}

}  // namespace signround
