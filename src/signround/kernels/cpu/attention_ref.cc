#include "signround/kernels/cpu/attention_ref.h"

#include "signround/kernels/cpu/attention.h"
#include "signround/kernels/cpu/ref.h"

namespace signround::kernels {
namespace {

// A dense copy of rows in double, so that the reference's own rounding never matters.
struct Wide {
  Wide(int64_t tokens, int64_t heads, int64_t head_dim)
      : values(size_t(tokens * heads * head_dim)),
        rows(tokens),
        cols(heads * head_dim),
        dim(head_dim) {}
  Wide(RowsAny in, int64_t tokens, int64_t heads, int64_t head_dim)
      : Wide(tokens, heads, head_dim) {
    for (int64_t t = 0; t < rows; ++t)
      std::copy_n(WidenedRow(in, t, cols).data(), cols, values.begin() + t * cols);
  }
  void store(RowsOut out) const {
    if (!out) return;
    for (int64_t t = 0; t < rows; ++t) {
      for (int64_t c = 0; c < cols; ++c) {
        const float value = float(values[size_t(t * cols + c)]);
        if (out.dtype == DType::kBF16)
          static_cast<BF16*>(out.data)[t * out.stride + c] = to_bf16(value);
        else
          static_cast<float*>(out.data)[t * out.stride + c] = value;
      }
    }
  }
  HeadRows<const double> in() const { return {values.data(), cols, dim}; }
  HeadRows<double> out() { return {values.data(), cols, dim}; }

  std::vector<double> values;
  int64_t rows, cols, dim;
};

Wide wide_q(const AttentionShape& s, RowsAny in) {
  return Wide(in, s.batch * s.q_len, s.heads, s.head_dim);
}
Wide wide_kv(const AttentionShape& s, RowsAny in) {
  return Wide(in, s.batch * s.kv_len, s.kv_heads, s.head_dim);
}

}  // namespace

void attention_fwd_ref(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsOut y,
                       float* lse, void*) {
  Wide wide_y(shape.batch * shape.q_len, shape.heads, shape.head_dim);
  std::vector<double> wide_lse(size_t(shape.batch * shape.heads * shape.q_len));
  attention_fwd_ref<double>(shape, wide_q(shape, q).in(), wide_kv(shape, k).in(),
                            wide_kv(shape, v).in(), wide_y.out(), wide_lse.data());
  wide_y.store(y);
  if (lse != nullptr) std::copy(wide_lse.begin(), wide_lse.end(), lse);
}

void attention_bwd_ref(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsAny,
                       const float* lse, RowsAny d_y, RowsOut d_q, RowsOut d_k, RowsOut d_v,
                       void*) {
  const std::vector<double> wide_lse(lse, lse + shape.batch * shape.heads * shape.q_len);
  Wide wide_d_q(shape.batch * shape.q_len, shape.heads, shape.head_dim);
  Wide wide_d_k(shape.batch * shape.kv_len, shape.kv_heads, shape.head_dim), wide_d_v = wide_d_k;
  attention_bwd_ref<double>(shape, wide_q(shape, q).in(), wide_kv(shape, k).in(),
                            wide_kv(shape, v).in(), wide_lse.data(), wide_q(shape, d_y).in(),
                            wide_d_q.out(), wide_d_k.out(), wide_d_v.out());
  wide_d_q.store(d_q);
  wide_d_k.store(d_k);
  wide_d_v.store(d_v);
}

}  // namespace signround::kernels
