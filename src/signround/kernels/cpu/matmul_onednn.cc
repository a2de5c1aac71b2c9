#include "signround/base/error.h"
#include "signround/kernels/cpu/matmul.h"
#include "signround/kernels/cpu/matmul_start.h"
#include "signround/kernels/cpu/onednn.h"

namespace signround::kernels {
namespace {

using dnnl::memory;

memory::desc desc_of(int64_t rows, int64_t cols, DType dtype, bool transposed, int64_t stride) {
  const auto type = dtype == DType::kBF16 ? memory::data_type::bf16 : memory::data_type::f32;
  return {{rows, cols}, type, transposed ? memory::dims{1, stride} : memory::dims{stride, 1}};
}

class OnednnPlan : public MatmulPlan {
 public:
  explicit OnednnPlan(const MatmulSpec& s)
      : s_(s),
        a_(desc_of(s.m, s.k, s.in, s.trans_a, s.lda)),
        b_(desc_of(s.k, s.n, s.in, s.trans_b, s.ldb)),
        c_(desc_of(s.m, s.n, s.out, false, s.ldc)),
        bias_({1, s.n}, memory::data_type::f32, memory::format_tag::ab),
        has_bias_(s.bias) {
    dnnl::primitive_attr attr;
    if (s.accumulate) {
      dnnl::post_ops ops;
      ops.append_sum(1.0f);
      attr.set_post_ops(ops);
    }
    primitive_ = dnnl::matmul(descriptor(attr));
  }

  void run(const void* a, const void* b, const float* bias, void* c,
           const float* from) const override {
    start_from(s_, from, c);
    const auto& engine = cpu_engine();
    dnnl::stream stream(engine);
    std::unordered_map<int, memory> args{
        {DNNL_ARG_SRC, memory(a_, engine, const_cast<void*>(a))},
        {DNNL_ARG_WEIGHTS, memory(b_, engine, const_cast<void*>(b))},
        {DNNL_ARG_DST, memory(c_, engine, c)}};
    if (has_bias_) args.insert({DNNL_ARG_BIAS, memory(bias_, engine, const_cast<float*>(bias))});
    primitive_.execute(stream, args);
    stream.wait();
  }

 private:
  dnnl::matmul::primitive_desc descriptor(const dnnl::primitive_attr& attr) const {
#if DNNL_VERSION_MAJOR >= 3
    if (has_bias_) return {cpu_engine(), a_, b_, bias_, c_, attr};
    return {cpu_engine(), a_, b_, c_, attr};
#else
    const auto desc =
        has_bias_ ? dnnl::matmul::desc(a_, b_, bias_, c_) : dnnl::matmul::desc(a_, b_, c_);
    return {desc, attr, cpu_engine()};
#endif
  }

  MatmulSpec s_;
  memory::desc a_, b_, c_, bias_;
  bool has_bias_;
  dnnl::matmul primitive_;
};

}  // namespace

std::unique_ptr<MatmulPlan> matmul_onednn(const MatmulSpec& spec) {
  try {
    return std::make_unique<OnednnPlan>(spec);
  } catch (const dnnl::error& error) {
    fail(ErrorKind::kInternal, "matmul", "oneDNN refused ", spec.m, "x", spec.k, " by ", spec.k,
         "x", spec.n, ": ", error.what());
  }
}

}  // namespace signround::kernels
