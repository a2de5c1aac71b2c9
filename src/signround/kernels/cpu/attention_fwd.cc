// Forward attention in tiles with a running softmax (Milakov and Gimelshein, arXiv 1805.02867; Dao
// et al., arXiv 2205.14135): scores in base 2, O = sum_j 2^(t_ij - m_i) v_j, m_i the largest t_ij
// so far, l_i the sum of the weights; y_i = O_i / l_i.
#include "signround/base/parallel.h"
#include "signround/kernels/cpu/attention.h"

// Arrays of vectors need vectors of a known size; such CPUs run the NEON code.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "signround/kernels/cpu/attention_fwd.cc"
#include <hwy/foreach_target.h>  // first: compiles this file once per instruction set

#include <hwy/contrib/math/math-inl.h>

#include <cmath>
#include <limits>
#include <vector>

#include "signround/kernels/cpu/attention_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

constexpr float kNothing = std::numeric_limits<float>::lowest();  // m of a row that saw no key yet

// One row of scores becomes the weights of its keys; m and l (one value and kLanes values) and the
// row's output follow.
struct SoftmaxRow {
  float* s;
  int64_t first, end;
  float *m, *l, *o;
  int64_t ldo;
};

template <bool kSoftcap>
HWY_INLINE void softmax_row(const SoftmaxRow& row, float scale, float softcap) {
  const DF d;
  const VF factor = set(kSoftcap ? scale / softcap : scale * kLog2e);
  VF top = set(kNothing);
  for_seen(row.first, row.end, [&](int64_t j, auto seen) SIGNROUND_LAMBDA {
    VF t = hn::Mul(factor, hn::Load(d, row.s + j));
    if constexpr (kSoftcap) {
      t = hn::Mul(set(softcap * kLog2e), hn::Tanh(d, t));
      hn::Store(t, d, row.s + j);
    }
    top = hn::Max(top, seen.or_else(t, kNothing));
  });
  const float old_m = *row.m, new_m = std::max(old_m, hn::GetLane(hn::MaxOfLanes(d, top)));
  VF l = hn::Load(d, row.l);
  if (new_m != old_m) {
    if (old_m != kNothing) {
      const VF shrink = exp2_nonpositive(set(old_m - new_m));
      l = hn::Mul(l, shrink);
      for (int64_t c = 0; c < row.ldo; c += kLanes)
        hn::Store(hn::Mul(shrink, hn::Load(d, row.o + c)), d, row.o + c);
    }
    *row.m = new_m;
  }
  const VF m = set(new_m);
  for_seen(row.first, row.end, [&](int64_t j, auto seen) SIGNROUND_LAMBDA {
    VF t = hn::Load(d, row.s + j);
    if constexpr (!kSoftcap) t = hn::Mul(factor, t);
    const VF p = seen.or_else(exp2_nonpositive(hn::Sub(t, m)), 0);
    hn::Store(p, d, row.s + j);
    l = hn::Add(l, p);
  });
  hn::Store(l, d, row.l);
}

HWY_INLINE void softmax_tile(const AttentionShape& shape, const Visible& see, float* s, int64_t lds,
                             float* m, float* l, float* o, int64_t ldo) {
  for (int64_t r = 0; r < see.rows; ++r, s += lds, ++m, l += kLanes, o += ldo) {
    const SoftmaxRow row{s, see.first[r], see.end[r], m, l, o, whole_vectors(shape.head_dim)};
    zero_unseen(see, r, s);
    if (row.first >= row.end) continue;
    if (shape.softcap > 0) {
      softmax_row<true>(row, shape.scale, shape.softcap);
    } else {
      softmax_row<false>(row, shape.scale, 0);
    }
  }
}

void start_tile(const AttentionFwd& a, const AttentionTask& task, int64_t tile,
                const FwdTiles& tiles, const FwdState& state) {
  const int64_t dim = a.shape.head_dim, ld = padded(dim),
                rows = a.split.rows_of_tile(task.part, tile);
  const int64_t first = tile * kTileRows;
  for (int64_t r = 0; r < rows; ++r) {
    const RowPlace at = row_place(a.shape, task, a.split.first_row(task.part, tile) + r);
    copy_row(head_of(a.q, at, dim), dim, tiles.q + (first + r) * ld);
  }
  std::fill_n(state.m + first, rows, kNothing);
  std::fill_n(state.l + first * kLanes, rows * kLanes, 0.0f);
}

// Adds the chunks of one part, one state each, to the first one.
void join_chunks(int64_t chunks, int64_t dim, int64_t r, const FwdState* states) {
  const int64_t ld = padded(dim);
  float m = kNothing;
  for (int64_t c = 0; c < chunks; ++c) m = std::max(m, states[c].m[r]);
  VF l = set(0);
  float* o = states[0].o + r * ld;
  bool any = false;
  for (int64_t c = 0; c < chunks; ++c) {
    if (states[c].m[r] == kNothing) continue;  // no key of this chunk is seen
    const VF shrink = exp2_nonpositive(set(states[c].m[r] - m));
    l = hn::MulAdd(shrink, hn::Load(DF(), states[c].l + r * kLanes), l);
    for (int64_t j = 0; j < dim; j += kLanes) {
      const VF own = hn::Mul(shrink, hn::Load(DF(), states[c].o + r * ld + j));
      hn::Store(any ? hn::Add(own, hn::Load(DF(), o + j)) : own, DF(), o + j);
    }
    any = true;
  }
  states[0].m[r] = m;
  hn::Store(l, DF(), states[0].l + r * kLanes);
}

// y and lse of a tile of rows from the sums over its keys, one state for each chunk of them.
void attention_fwd_finish(const AttentionFwd& a, const AttentionTask& task, int64_t tile,
                          const FwdState* states) {
  const int64_t dim = a.shape.head_dim;
  for (int64_t i = 0; i < a.split.rows_of_tile(task.part, tile); ++i) {
    const int64_t r = tile * kTileRows + i;
    if (a.split.chunks > 1) join_chunks(a.split.chunks, dim, r, states);
    const float sum = sum_lanes(hn::Load(DF(), states[0].l + r * kLanes));
    const RowPlace at = row_place(a.shape, task, a.split.first_row(task.part, tile) + i);
    write_row(states[0].o + r * padded(dim), 1 / sum, dim, head_of(a.y, at, dim));
    if (a.lse != nullptr) a.lse[at.lse] = (states[0].m[r] + std::log2(sum)) * kLn2;
  }
}

// The rows of one part of an item against one chunk of its keys. A tile of rows is loaded when its
// first keys come and stored after its last ones, so that memory works while products are made.
void attention_fwd_task(const AttentionFwd& a, const AttentionTask& task, const FwdTiles& tiles,
                        const FwdState& state) {
  const AttentionShape& shape = a.shape;
  const int64_t dim = shape.head_dim, ld = padded(dim), lds = padded(kFwdKeys);
  // A single tile of rows reads the values once only: where they are whole f32 vectors, in place.
  const bool copy_values =
      a.split.tiles_of(task.part) > 1 || dim % 16 != 0 || a.v.dtype != DType::kF32;
  const int64_t begin = task.chunk * a.split.chunk_keys;
  const int64_t end = std::min(shape.kv_len, begin + a.split.chunk_keys);
  if (a.split.chunks > 1) std::fill_n(state.m, kTileRows, kNothing);
  for (int64_t key = begin; key < end; key += kFwdKeys) {
    const int64_t keys = std::min(kFwdKeys, end - key);
    const RowPlace first{task.sequence * shape.kv_len + key, task.kv_head, 0};
    const InRow v = head_of(a.v, first, dim);
    bool packed = false;
    for (int64_t t = 0; t < a.split.tiles_of(task.part); ++t) {
      const Visible see(shape, a.split.first_row(task.part, t), a.split.rows_of_tile(task.part, t),
                        key, keys);
      if (!see.any) continue;
      if (!packed) {
        transpose_rows(head_of(a.k, first, dim), a.k.stride, keys, dim, tiles.k, lds);
        for (int64_t j = 0; j < keys && copy_values; ++j)
          copy_row(at_value(v, j * a.v.stride), dim, tiles.v + j * ld);
        packed = true;
      }
      const bool starts = see.starts || key == begin;
      if (starts) start_tile(a, task, t, tiles, state);
      const int64_t r = t * kTileRows;
      float* o = state.o + r * ld;
      multiply_visible(see, tiles.q + r * ld, ld, tiles.k, lds, dim, tiles.s, lds);
      softmax_tile(shape, see, tiles.s, lds, state.m + r, state.l + r * kLanes, o, ld);
      weigh_keys(see, tiles.s, lds, copy_values ? tiles.v : static_cast<const float*>(v.data),
                 copy_values ? ld : a.v.stride, dim, o, ld, !starts);
      if (see.ends && a.split.chunks == 1) attention_fwd_finish(a, task, t, &state);
    }
  }
}

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace signround::kernels {
namespace {

HWY_EXPORT(attention_fwd_task);
HWY_EXPORT(attention_fwd_finish);

struct Scratch {
  std::vector<FwdTiles> tiles;   // of each slot
  std::vector<FwdState> states;  // of each slot, or of each task where keys are cut into chunks
  int64_t bytes;

  Scratch(const AttentionShape& shape, const AttentionSplit& split, void* base) {
    Carver carve(base);
    const int64_t rows = ceil_div(split.tiles, split.parts) * kTileRows,
                  ld = padded(shape.head_dim);
    for (int64_t slot = 0; slot < split.slots; ++slot)
      tiles.push_back({carve.floats(rows * ld), carve.floats(shape.head_dim * padded(kFwdKeys)),
                       carve.floats(kFwdKeys * ld), carve.floats(kTileRows * padded(kFwdKeys))});
    for (int64_t n = split.chunks > 1 ? split.tasks() : split.slots; n > 0; --n)
      states.push_back({carve.floats(rows), carve.floats(rows * 16), carve.floats(rows * ld)});
    bytes = carve.used();
  }
};

}  // namespace

int64_t attention_fwd_scratch_bytes(const AttentionShape& shape) {
  return Scratch(shape, attention_split(shape, num_threads(), false), nullptr).bytes;
}

void attention_fwd_hwy(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsOut y,
                       float* lse, void* scratch) {
  const AttentionSplit split = attention_split(shape, num_threads(), false);
  const AttentionFwd args{shape, split, q, k, v, y, lse};
  const Scratch memory(shape, split, scratch);
  const auto run_task = HWY_DYNAMIC_DISPATCH(attention_fwd_task);
  const auto finish = HWY_DYNAMIC_DISPATCH(attention_fwd_finish);
  parallel_for(split.slots, 1, [&](int64_t begin, int64_t end) {
    for (int64_t slot = begin; slot < end; ++slot) {
      for (int64_t t = split.first_task(slot); t < split.first_task(slot + 1); ++t) {
        const AttentionTask task = attention_task(shape, split, t);
        const FwdState* state = &memory.states[size_t(split.chunks > 1 ? t : slot)];
        run_task(args, task, memory.tiles[size_t(slot)], *state);
      }
    }
  });
  if (split.chunks == 1) return;
  parallel_for(split.items, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item)
      finish(args, attention_task(shape, split, item * split.chunks), 0,
             &memory.states[size_t(item * split.chunks)]);
  });
}

}  // namespace signround::kernels
#endif
