// Backward attention in tiles (Dao et al., arXiv 2205.14135): keys outside, rows inside.
//   P_ij = exp(s_ij - lse_i), computed again    dP_ij = d_y_i . v_j
//   dS_ij = P_ij (dP_ij - row_term_i), row_term_i = sum_j P_ij dP_ij = d_y_i . y_i
//   d_v_j = sum_i P_ij d_y_i    d_k_j = scale sum_i dS_ij q_i    d_q_i = scale sum_j dS_ij k_j
#include "signround/base/parallel.h"
#include "signround/kernels/cpu/attention.h"

// Arrays of vectors need vectors of a known size; such CPUs run the NEON code.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "signround/kernels/cpu/attention_bwd.cc"
#include <hwy/foreach_target.h>  // first: compiles this file once per instruction set

#include <hwy/contrib/math/math-inl.h>

#include <vector>

#include "signround/kernels/cpu/attention_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

struct GradientRow {
  float *p, *d_s;  // hold q.k and dP
  int64_t first, end;
  float lse, row_term;  // lse in base 2
};

template <bool kPartial, bool kSoftcap>
HWY_INLINE void gradient_row(const GradientRow& row, float scale, float softcap) {
  const DF d;
  const VF lse = set(row.lse), row_term = set(row.row_term);
  const VF factor = set(kSoftcap ? scale / softcap : scale * kLog2e);
  for (int64_t j = row.first / kLanes * kLanes; j < row.end; j += kLanes) {
    const VF dot = hn::Load(d, row.p + j);
    VF log_p, d_s = hn::Sub(hn::Load(d, row.d_s + j), row_term);
    if constexpr (kSoftcap) {
      const VF bent = hn::Tanh(d, hn::Mul(factor, dot));
      log_p = hn::Sub(hn::Mul(set(softcap * kLog2e), bent), lse);
      d_s = hn::Mul(d_s, hn::NegMulAdd(bent, bent, set(1)));
    } else {
      log_p = hn::MulSub(factor, dot, lse);
    }
    // At most 1, even where lse is so large that its rounding matters.
    VF p = exp2_nonpositive(at_most(0, log_p));
    d_s = hn::Mul(p, d_s);
    if constexpr (kPartial) {
      const auto seen = lanes_between(j, row.first, row.end);
      p = hn::IfThenElseZero(seen, p);
      d_s = hn::IfThenElseZero(seen, d_s);
    }
    hn::Store(p, d, row.p + j);
    hn::Store(d_s, d, row.d_s + j);
  }
}

HWY_INLINE void gradient_tile(const AttentionShape& shape, const Visible& see, float* p, float* d_s,
                              int64_t lds, const float* lse, const float* row_term) {
  for (int64_t r = 0; r < see.rows; ++r, p += lds, d_s += lds) {
    const GradientRow row{p, d_s, see.first[r], see.end[r], lse[r], row_term[r]};
    zero_unseen(p, row.first, row.end, see.keys);
    zero_unseen(d_s, row.first, row.end, see.keys);
    if (row.first >= row.end) continue;
    if (shape.softcap > 0) {
      gradient_row<true, true>(row, shape.scale, shape.softcap);
    } else if (row.first % kLanes != 0 || row.end % kLanes != 0) {
      gradient_row<true, false>(row, shape.scale, 0);
    } else {
      gradient_row<false, false>(row, shape.scale, 0);
    }
  }
}

void prepare_rows(const AttentionBwd& a, const AttentionTask& task, const BwdTiles& tiles) {
  const int64_t dim = a.shape.head_dim;
  for (int64_t r = 0; r < a.split.rows_of(task.part); ++r) {
    const int64_t row = a.split.first_row(task.part, r / kTileRows) + r % kTileRows;
    const RowPlace at = row_place(a.shape, task, row);
    const float* d_y = head_of(a.d_y, at, dim);
    const InRow y = row_of(a.y, at.token);
    tiles.lse[r] = a.lse[at.lse] * kLog2e;
    tiles.row_term[r] = sum_vectors(dim, [&](int64_t c, auto io) SIGNROUND_LAMBDA {
      return hn::Mul(io.load(d_y, c), load(io, y, at.head * dim + c));
    });
  }
  if (a.d_q) std::fill_n(tiles.d_q, a.split.rows_of(task.part) * padded(dim), 0.0f);
}

// One tile of rows against the packed keys.
void attention_bwd_tile(const AttentionBwd& a, const AttentionTask& task, int64_t tile,
                        const Visible& see, const BwdTiles& tiles) {
  const int64_t dim = a.shape.head_dim, ld = padded(dim), lds = padded(kBwdKeys);
  for (int64_t r = 0; r < see.rows; ++r) {
    const RowPlace at = row_place(a.shape, task, a.split.first_row(task.part, tile) + r);
    copy_row(head_of(a.q, at, dim), dim, tiles.q + r * ld);
    copy_row(head_of(a.d_y, at, dim), dim, tiles.d_y + r * ld);
  }
  multiply_visible(see, tiles.q, ld, tiles.k_t, lds, dim, tiles.p, lds);
  multiply_visible(see, tiles.d_y, ld, tiles.v_t, lds, dim, tiles.d_s, lds);
  gradient_tile(a.shape, see, tiles.p, tiles.d_s, lds, tiles.lse + tile * kTileRows,
                tiles.row_term + tile * kTileRows);
  if (a.d_v) add_weighted_rows(see, tiles.p, lds, tiles.d_y, ld, dim, tiles.d_v, ld);
  if (a.d_k) add_weighted_rows(see, tiles.d_s, lds, tiles.q, ld, dim, tiles.d_k, ld);
  if (a.d_q) {
    add_weighted_keys(see, tiles.d_s, lds, tiles.k, ld, dim, tiles.d_q + tile * kTileRows * ld, ld);
  }
}

void attention_bwd_task(const AttentionBwd& a, const AttentionTask& task, const BwdTiles& tiles,
                        const BwdShare& share) {
  const AttentionShape& shape = a.shape;
  const int64_t dim = shape.head_dim, ld = padded(dim), lds = padded(kBwdKeys);
  prepare_rows(a, task, tiles);
  for (int64_t key = 0; key < shape.kv_len; key += kBwdKeys) {
    const int64_t keys = std::min(kBwdKeys, shape.kv_len - key);
    const int64_t kv_row = task.sequence * shape.kv_len + key, column = task.kv_head * dim;
    std::fill_n(tiles.d_k, keys * ld, 0.0f);
    std::fill_n(tiles.d_v, keys * ld, 0.0f);
    bool packed = false;
    for (int64_t t = 0; t < a.split.tiles_of(task.part); ++t) {
      const Visible see(shape, a.split.first_row(task.part, t), a.split.rows_of_tile(task.part, t),
                        key, keys);
      if (!see.any) continue;
      if (!packed) {
        transpose_rows(row_of(a.k, kv_row) + column, a.k.stride, keys, dim, tiles.k_t, lds);
        transpose_rows(row_of(a.v, kv_row) + column, a.v.stride, keys, dim, tiles.v_t, lds);
        for (int64_t j = 0; j < keys; ++j)
          copy_row(row_of(a.k, kv_row + j) + column, dim, tiles.k + j * ld);
        packed = true;
      }
      attention_bwd_tile(a, task, t, see, tiles);
    }
    if (a.split.parts > 1) {
      std::copy_n(tiles.d_k, keys * ld, share.d_k + key * ld);
      std::copy_n(tiles.d_v, keys * ld, share.d_v + key * ld);
      continue;
    }
    for (int64_t j = 0; j < keys; ++j) {
      const RowPlace at{kv_row + j, task.kv_head, 0};
      if (a.d_k) write_row(tiles.d_k + j * ld, shape.scale, dim, head_of(a.d_k, at, dim));
      if (a.d_v) write_row(tiles.d_v + j * ld, 1, dim, head_of(a.d_v, at, dim));
    }
  }
  for (int64_t r = 0; a.d_q && r < a.split.rows_of(task.part); ++r) {
    const int64_t row = a.split.first_row(task.part, r / kTileRows) + r % kTileRows;
    const RowPlace at = row_place(shape, task, row);
    write_row(tiles.d_q + r * ld, shape.scale, dim, head_of(a.d_q, at, dim));
  }
}

// d_k and d_v of one key of one item from the shares of all parts, in their order.
void attention_bwd_join(const AttentionBwd& a, const AttentionTask& task, const BwdShare* shares,
                        int64_t key) {
  const int64_t dim = a.shape.head_dim, at_key = key * padded(dim);
  const RowPlace at{task.sequence * a.shape.kv_len + key, task.kv_head, 0};
  const auto join = [&](float* BwdShare::*share, float scale, const RowsOut& out) SIGNROUND_LAMBDA {
    float* sum = shares[0].*share + at_key;
    for (int64_t part = 1; part < a.split.parts; ++part)
      for (int64_t c = 0; c < dim; c += kLanes)
        hn::Store(
            hn::Add(hn::Load(DF(), sum + c), hn::Load(DF(), shares[part].*share + at_key + c)),
            DF(), sum + c);
    write_row(sum, scale, dim, head_of(out, at, dim));
  };
  if (a.d_k) join(&BwdShare::d_k, a.shape.scale, a.d_k);
  if (a.d_v) join(&BwdShare::d_v, 1, a.d_v);
}

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace signround::kernels {
namespace {

HWY_EXPORT(attention_bwd_task);
HWY_EXPORT(attention_bwd_join);

struct Scratch {
  std::vector<BwdTiles> tiles;   // of each slot
  std::vector<BwdShare> shares;  // of each task, where an item has several parts
  int64_t bytes;

  Scratch(const AttentionShape& shape, const AttentionSplit& split, void* base) {
    Carver carve(base);
    const int64_t dim = shape.head_dim, ld = padded(dim), lds = padded(kBwdKeys);
    const int64_t rows = ceil_div(split.tiles, split.parts) * kTileRows;
    for (int64_t slot = 0; slot < split.slots; ++slot) {
      BwdTiles t;
      for (float** keys_across : {&t.k_t, &t.v_t}) *keys_across = carve.floats(dim * lds);
      for (float** keys : {&t.k, &t.d_k, &t.d_v}) *keys = carve.floats(kBwdKeys * ld);
      for (float** tile_rows : {&t.q, &t.d_y}) *tile_rows = carve.floats(kTileRows * ld);
      for (float** scores : {&t.p, &t.d_s}) *scores = carve.floats(kTileRows * lds);
      t.d_q = carve.floats(rows * ld);
      for (float** per_row : {&t.lse, &t.row_term}) *per_row = carve.floats(rows);
      tiles.push_back(t);
    }
    for (int64_t n = split.parts > 1 ? split.tasks() : 0; n > 0; --n)
      shares.push_back({carve.floats(shape.kv_len * ld), carve.floats(shape.kv_len * ld)});
    bytes = carve.used();
  }
};

}  // namespace

int64_t attention_bwd_scratch_bytes(const AttentionShape& shape) {
  return Scratch(shape, attention_split(shape, num_threads(), true), nullptr).bytes;
}

void attention_bwd_hwy(const AttentionShape& shape, RowsIn q, RowsIn k, RowsIn v, RowsAny y,
                       const float* lse, RowsIn d_y, RowsOut d_q, RowsOut d_k, RowsOut d_v,
                       void* scratch) {
  const AttentionSplit split = attention_split(shape, num_threads(), true);
  const AttentionBwd args{shape, split, q, k, v, y, lse, d_y, d_q, d_k, d_v};
  const Scratch memory(shape, split, scratch);
  const auto run_task = HWY_DYNAMIC_DISPATCH(attention_bwd_task);
  const auto join = HWY_DYNAMIC_DISPATCH(attention_bwd_join);
  parallel_for(split.slots, 1, [&](int64_t begin, int64_t end) {
    for (int64_t slot = begin; slot < end; ++slot)
      for (int64_t t = split.first_task(slot); t < split.first_task(slot + 1); ++t)
        run_task(args, attention_task(shape, split, t), memory.tiles[size_t(slot)],
                 split.parts > 1 ? memory.shares[size_t(t)] : BwdShare{});
  });
  if (split.parts == 1) return;
  parallel_for(split.items * shape.kv_len, 64, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const int64_t first = n / shape.kv_len * split.parts;
      join(args, attention_task(shape, split, first), &memory.shares[size_t(first)],
           n % shape.kv_len);
    }
  });
}

}  // namespace signround::kernels
#endif
