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

template <bool kSoftcap>
HWY_INLINE void gradient_row(const GradientRow& row, float scale, float softcap) {
  const DF d;
  const VF lse = set(row.lse), row_term = set(row.row_term);
  const VF factor = set(kSoftcap ? scale / softcap : scale * kLog2e);
  for_seen(row.first, row.end, [&](int64_t j, auto seen) SIGNROUND_LAMBDA {
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
    const VF p = exp2_nonpositive(at_most(0, log_p));
    hn::Store(seen.or_else(p, 0), d, row.p + j);
    hn::Store(seen.or_else(hn::Mul(p, d_s), 0), d, row.d_s + j);
  });
}

HWY_INLINE void gradient_tile(const AttentionShape& shape, const Visible& see, float* p, float* d_s,
                              int64_t lds, const float* lse, const float* row_term) {
  for (int64_t r = 0; r < see.rows; ++r, p += lds, d_s += lds) {
    const GradientRow row{p, d_s, see.first[r], see.end[r], lse[r], row_term[r]};
    zero_unseen(see, r, p);
    zero_unseen(see, r, d_s);
    if (row.first >= row.end) continue;
    if (shape.softcap > 0) {
      gradient_row<true>(row, shape.scale, shape.softcap);
    } else {
      gradient_row<false>(row, shape.scale, 0);
    }
  }
}

// Gathers a tile of rows and its row terms.
void start_tile(const AttentionBwd& a, const AttentionTask& task, int64_t tile,
                const BwdTiles& tiles) {
  const int64_t dim = a.shape.head_dim, ld = padded(dim),
                rows = a.split.rows_of_tile(task.part, tile);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t r = tile * kTileRows + i;
    const RowPlace at = row_place(a.shape, task, a.split.first_row(task.part, tile) + i);
    copy_row(head_of(a.q, at, dim), dim, tiles.q + r * ld);
    const float* d_y = tiles.d_y + r * ld;
    copy_row(head_of(a.d_y, at, dim), dim, tiles.d_y + r * ld);
    const InRow y = row_of(a.y, at.token);
    tiles.row_term[r] = sum_vectors(dim, [&](int64_t c, auto io) SIGNROUND_LAMBDA {
      return hn::Mul(io.load(d_y, c), load(io, y, at.head * dim + c));
    });
    tiles.lse[r] = a.lse[at.lse] * kLog2e;
  }
}

void finish_tile(const AttentionBwd& a, const AttentionTask& task, int64_t tile,
                 const BwdTiles& tiles) {
  const int64_t dim = a.shape.head_dim;
  for (int64_t i = 0; a.d_q && i < a.split.rows_of_tile(task.part, tile); ++i) {
    const RowPlace at = row_place(a.shape, task, a.split.first_row(task.part, tile) + i);
    write_row(tiles.d_q + (tile * kTileRows + i) * padded(dim), a.shape.scale, dim,
              head_of(a.d_q, at, dim));
  }
}

// The rows from `row` of the part against the packed keys, whose gradients are started by the first
// such rows.
void attention_bwd_tile(const AttentionBwd& a, const Visible& see, int64_t row, bool first_rows,
                        const BwdTiles& tiles) {
  const int64_t dim = a.shape.head_dim, ld = padded(dim), lds = padded(kBwdKeys);
  const float *q = tiles.q + row * ld, *d_y = tiles.d_y + row * ld;
  multiply_visible(see, q, ld, tiles.k_t, lds, dim, tiles.p, lds);
  multiply_visible(see, d_y, ld, tiles.v_t, lds, dim, tiles.d_s, lds);
  gradient_tile(a.shape, see, tiles.p, tiles.d_s, lds, tiles.lse + row, tiles.row_term + row);
  if (a.d_v) weigh_rows(see, tiles.p, lds, d_y, ld, dim, tiles.d_v, ld, !first_rows);
  if (a.d_k) weigh_rows(see, tiles.d_s, lds, q, ld, dim, tiles.d_k, ld, !first_rows);
  if (a.d_q)
    weigh_keys(see, tiles.d_s, lds, tiles.k, ld, dim, tiles.d_q + row * ld, ld, !see.starts);
}

void pack_keys(const AttentionBwd& a, const AttentionTask& task, int64_t key, int64_t keys,
               const BwdTiles& tiles) {
  const int64_t dim = a.shape.head_dim, ld = padded(dim), lds = padded(kBwdKeys);
  const RowPlace at{task.sequence * a.shape.kv_len + key, task.kv_head, 0};
  const InRow k = head_of(a.k, at, dim), v = head_of(a.v, at, dim);
  transpose_rows(k, a.k.stride, keys, dim, tiles.k_t, lds);
  transpose_rows(v, a.v.stride, keys, dim, tiles.v_t, lds);
  for (int64_t j = 0; j < keys; ++j) copy_row(at_value(k, j * a.k.stride), dim, tiles.k + j * ld);
}

// d_k and d_v of a tile of keys: out, or to where the parts of the item are added up.
void finish_keys(const AttentionBwd& a, const AttentionTask& task, int64_t key, int64_t keys,
                 const BwdTiles& tiles, const BwdShare& share) {
  const int64_t dim = a.shape.head_dim, ld = padded(dim);
  if (a.split.parts > 1) {
    std::copy_n(tiles.d_k, keys * ld, share.d_k + key * ld);
    std::copy_n(tiles.d_v, keys * ld, share.d_v + key * ld);
    return;
  }
  for (int64_t j = 0; j < keys; ++j) {
    const RowPlace at{task.sequence * a.shape.kv_len + key + j, task.kv_head, 0};
    if (a.d_k) write_row(tiles.d_k + j * ld, a.shape.scale, dim, head_of(a.d_k, at, dim));
    if (a.d_v) write_row(tiles.d_v + j * ld, 1, dim, head_of(a.d_v, at, dim));
  }
}

// A tile of rows is loaded when its first keys come and stored after its last ones, so that memory
// works while products are made.
void attention_bwd_task(const AttentionBwd& a, const AttentionTask& task, const BwdTiles& tiles,
                        const BwdShare& share) {
  for (int64_t key = 0; key < a.shape.kv_len; key += kBwdKeys) {
    const int64_t keys = std::min(kBwdKeys, a.shape.kv_len - key);
    bool first_rows = true;
    for (int64_t t = 0; t < a.split.tiles_of(task.part); ++t) {
      const Visible see(a.shape, a.split.first_row(task.part, t),
                        a.split.rows_of_tile(task.part, t), key, keys);
      if (!see.any) continue;
      if (first_rows) pack_keys(a, task, key, keys, tiles);
      if (see.starts) start_tile(a, task, t, tiles);
      attention_bwd_tile(a, see, t * kTileRows, first_rows, tiles);
      if (see.ends) finish_tile(a, task, t, tiles);
      first_rows = false;
    }
    if (first_rows) {  // nobody saw these keys
      std::fill_n(tiles.d_k, keys * padded(a.shape.head_dim), 0.0f);
      std::fill_n(tiles.d_v, keys * padded(a.shape.head_dim), 0.0f);
    }
    finish_keys(a, task, key, keys, tiles, share);
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
      for (float** scores : {&t.p, &t.d_s}) *scores = carve.floats(kTileRows * lds);
      for (float** of_part : {&t.q, &t.d_y, &t.d_q}) *of_part = carve.floats(rows * ld);
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

void attention_bwd_hwy(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsAny y,
                       const float* lse, RowsAny d_y, RowsOut d_q, RowsOut d_k, RowsOut d_v,
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
