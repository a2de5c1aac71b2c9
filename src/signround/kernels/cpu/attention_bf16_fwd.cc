#include "signround/kernels/cpu/attention_bf16-inl.h"

#include "signround/kernels/cpu/panels.h"

#ifdef SIGNROUND_ATTENTION_BF16
namespace signround::kernels {
namespace {

// Keys of a line of V^T: whole steps, and an odd number of cache lines.
int64_t keys_across(int64_t kv_len) { return up_to(kv_len, kKeyStep) / 32 * 32 + 32; }

// Memory of a thread; the keys are all of a head.
struct FwdMemory {
  uint16_t *k, *v_across;  // (keys, dim), (dim, padded keys)
  uint16_t *q, *q_across;  // a tile: (32, dim); paired (dim / 2, 32 x 2)
  float *s, *o;            // (keys, 32), (dim, 32)
  uint16_t* p;             // paired (keys / 2, 32 x 2)
};

FwdMemory carve_fwd(Carver& carve, const AttentionShape& shape) {
  const int64_t keys = up_to(shape.kv_len, kKeyStep), dim = shape.head_dim;
  FwdMemory m;
  m.k = halves(carve, keys * dim);
  m.v_across = halves(carve, dim * keys_across(shape.kv_len));
  m.q = halves(carve, kRows * dim);
  m.q_across = halves(carve, kRows * dim);
  m.s = carve.floats(keys * kRows);
  m.o = carve.floats(dim * kRows);
  m.p = halves(carve, keys * kRows);
  return m;
}

struct FwdArgs {
  RowsAny q, k, v;
  RowsOut y;
  float* lse;
};

SIGNROUND_BF16_BEGIN

// The largest score, not yet scaled, of each row of a unit; what a row does not see becomes
// -infinity.
void find_top(const TileMask& mask, int64_t key, float* s, __m512 (&top)[2]) {
  if (mask.sees_all(key, kKeyStep)) {
    for (int64_t at = 0; at < kUnit; at += kRows)
      for (int half = 0; half < 2; ++half)
        top[half] = _mm512_max_ps(top[half], _mm512_load_ps(s + at + half * 16));
    return;
  }
  for (int64_t j = 0; j < kKeyStep; ++j)
    for (int half = 0; half < 2; ++half) {
      float* at = s + j * kRows + half * 16;
      const __m512 seen = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), mask.sees(half, key + j),
                                             _mm512_load_ps(at));
      _mm512_store_ps(at, seen);
      top[half] = _mm512_max_ps(top[half], seen);
    }
}

// Scores (keys, 32) become the paired weights of the keys, 2^(factor score - top); sum: of each
// row.
void weigh(float factor, const __m512 (&top)[2], int64_t keys, const float* s, uint16_t* p,
           __m512 (&sum)[2]) {
  const __m512 scale = _mm512_set1_ps(factor), tops[2] = {top[0], top[1]};
  __m512 sums[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  for (int64_t j = 0; j < keys; j += 2) {
    __m512 weight[2][2];
    for (int odd = 0; odd < 2; ++odd)
      for (int half = 0; half < 2; ++half) {
        const __m512 t = _mm512_mul_ps(scale, _mm512_load_ps(s + (j + odd) * kRows + half * 16));
        weight[odd][half] = exp2_nonpositive(_mm512_sub_ps(t, tops[half]));
        sums[half] = _mm512_add_ps(sums[half], weight[odd][half]);
      }
    const Paired both =
        pair_rows(to_halves(weight[0][0], weight[0][1]), to_halves(weight[1][0], weight[1][1]));
    _mm512_store_si512(p + j * kRows, both.left);
    _mm512_store_si512(p + j * kRows + 32, both.right);
  }
  sum[0] = sums[0];
  sum[1] = sums[1];
}

template <PanelUnit kProducts>
void fwd_tile(const View& view, const FwdArgs& a, int64_t tile, const FwdMemory& mem) {
  const int64_t dim = view.shape.head_dim, across = keys_across(view.shape.kv_len);
  load_tile(view, tile, a.q, mem.q);
  if (tile + 1 < view.split.tiles_of(view.task.part)) fetch_tile(view, tile + 1, a.q);
  fetch_tile(view, tile, a.y);
  pack_across(mem.q, dim, mem.q_across);
  const TileMask mask(view, tile);
  const int64_t begin = view.first_key(tile) / kKeyStep * kKeyStep;
  const int64_t end = up_to(view.end_key(tile), kKeyStep);
  __m512 top[2] = {_mm512_set1_ps(-INFINITY), _mm512_set1_ps(-INFINITY)}, sum[2];
  // A unit is read when the next one is on its way: what tiles store cannot be read at once.
  for (int64_t key = begin; key < end; key += kKeyStep) {
    float* s = mem.s + (key - begin) * kRows;
    Products<kProducts>::multiply({mem.k + key * dim, dim * 2, 16 * dim * 2, 64, mem.q_across, 128,
                                   64, 2048, s, 128, 2048, dim / 32, false});
    if (key > begin) find_top(mask, key - kKeyStep, s - kUnit, top);
  }
  find_top(mask, end - kKeyStep, mem.s + (end - begin) * kRows - kUnit, top);
  const float factor = view.shape.scale * kLog2e;
  for (__m512& t : top)  // at least -3e38, for rows that see nothing
    t = _mm512_max_ps(_mm512_mul_ps(_mm512_set1_ps(factor), t), _mm512_set1_ps(-3e38f));
  weigh(factor, top, end - begin, mem.s, mem.p, sum);
  for (int64_t c = 0; c < dim; c += 32)
    Products<kProducts>::multiply({mem.v_across + c * across + begin, across * 2, 16 * across * 2,
                                   64, mem.p, 128, 64, 2048, mem.o + c * kRows, 128, 2048,
                                   (end - begin) / kKeyStep, false});
  alignas(64) float m[kRows], l[kRows], inverse[kRows];
  for (int half = 0; half < 2; ++half) {
    _mm512_store_ps(m + half * 16, top[half]);
    _mm512_store_ps(l + half * 16, sum[half]);
    _mm512_store_ps(inverse + half * 16, _mm512_div_ps(_mm512_set1_ps(1), sum[half]));
  }
  store_across(view, tile, mem.o, inverse, a.y);
  if (a.lse == nullptr) return;
  RowWalk row = view.walk(tile);
  for (int64_t r = 0; r < view.rows_of(tile); ++r, row.next())
    a.lse[row.lse()] = (m[r] + std::log2(l[r])) * kLn2;
}

template <PanelUnit kProducts>
void fwd_task(const View& view, const FwdArgs& a, const FwdMemory& mem) {
  const int64_t dim = view.shape.head_dim, keys = up_to(view.shape.kv_len, kKeyStep);
  const int64_t across = keys_across(view.shape.kv_len);
  load_keys(view, a.v, 0, keys, mem.k);
  for (int64_t key = 0; key < keys; key += 32)
    pack_columns(mem.k + key * dim, dim, mem.v_across + key, across * 2);
  load_keys(view, a.k, 0, keys, mem.k);
  for (int64_t tile = 0; tile < view.split.tiles_of(view.task.part); ++tile)
    fwd_tile<kProducts>(view, a, tile, mem);
}

template <PanelUnit kProducts>
void run_fwd_tasks(const AttentionShape& shape, const Split& split, const FwdArgs& args,
                   const FwdMemory& memory, int64_t begin, int64_t end) {
  [[maybe_unused]] const typename Products<kProducts>::Scope scope;
  for (int64_t t = begin; t < end; ++t) {
    const int64_t item = t / split.parts;
    fwd_task<kProducts>(
        {shape, split, {item / shape.kv_heads, item % shape.kv_heads, t % split.parts}}, args,
        memory);
  }
}

SIGNROUND_BF16_END

// What this code needs beside panels.
bool cpu_has_more() { return __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma"); }

}  // namespace

const char* attention_bf16_why_not(PanelUnit unit) {
  const auto& products = unit == PanelUnit::kAmx ? panels::kAmx : panels::kAvx512;
  if (const char* reason = products.why_not()) return reason;
  static const bool has = cpu_has_more();
  return has ? nullptr : "the CPU has no AVX-512 DQ";
}

bool attention_bf16_fits(const AttentionShape& shape) {
  return shape.head_dim % 32 == 0 && shape.head_dim <= kMostDim && shape.softcap == 0 &&
         shape.kv_len <= kMostKeys && shape.q_len * shape.group() >= kRows;
}

int64_t attention_bf16_fwd_scratch_bytes(const AttentionShape& shape) {
  Carver carve(nullptr);
  for (int64_t n = split_of(shape, num_threads()).slots; n > 0; --n) carve_fwd(carve, shape);
  return carve.used();
}

template <PanelUnit kProducts>
void attention_fwd_bf16(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsOut y,
                        float* lse, void* scratch) {
  const Split split = split_of(shape, num_threads());
  const FwdArgs args{q, k, v, y, lse};
  Carver carve(scratch);
  std::vector<FwdMemory> memory;
  for (int64_t n = split.slots; n > 0; --n) memory.push_back(carve_fwd(carve, shape));
  parallel_for(split.slots, 1, [&](int64_t begin, int64_t end) {
    for (int64_t slot = begin; slot < end; ++slot)
      run_fwd_tasks<kProducts>(shape, split, args, memory[size_t(slot)], split.first_task(slot),
                               split.first_task(slot + 1));
  });
}

}  // namespace signround::kernels

#else

#include "signround/kernels/cpu/attention.h"

namespace signround::kernels {

const char* attention_bf16_why_not(PanelUnit) { return "built by another compiler than GCC"; }
bool attention_bf16_fits(const AttentionShape&) { return false; }
int64_t attention_bf16_fwd_scratch_bytes(const AttentionShape&) { return 0; }
template <PanelUnit>
void attention_fwd_bf16(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsOut y,
                        float* lse, void*) {
  attention_fwd_ref(shape, q, k, v, y, lse, nullptr);
}

}  // namespace signround::kernels
#endif

namespace signround::kernels {
template void attention_fwd_bf16<PanelUnit::kAmx>(const AttentionShape&, RowsAny, RowsAny, RowsAny,
                                                  RowsOut, float*, void*);
template void attention_fwd_bf16<PanelUnit::kAvx512>(const AttentionShape&, RowsAny, RowsAny,
                                                     RowsAny, RowsOut, float*, void*);
}  // namespace signround::kernels
