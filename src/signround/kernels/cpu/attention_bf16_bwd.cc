#include "signround/kernels/cpu/attention_bf16-inl.h"

#ifdef SIGNROUND_ATTENTION_BF16
namespace signround::kernels {
namespace {

constexpr int64_t kTilesAtOnce = 8;  // of rows, between two additions to the gradients of keys

// Memory of a thread; K: keys of a block.
struct BwdMemory {                                          // K: keys of a block
  uint16_t *k, *v, *k_across;                               // (K, dim) twice, (dim, K)
  uint16_t *q_across, *d_y_across, *q_paired, *d_y_paired;  // of all tiles of rows
  uint16_t* rows;                                           // (32, dim)
  float *lse, *row_term, *d_q;     // of all tiles of rows; d_q (dim, 32) each
  float *s, *d_p;                  // a unit
  uint16_t *p, *d_s, *d_s_paired;  // units, K / 32 x 8 twice and 8 x K / 32, paired
  float *d_k, *d_v;                // (K, dim)
};

BwdMemory carve_bwd(Carver& carve, const AttentionShape& shape, const Split& split) {
  const int64_t dim = shape.head_dim, rows = split.tiles_of(0) * kRows, keys = split.key_block;
  BwdMemory m;
  for (uint16_t** of_keys : {&m.k, &m.v, &m.k_across}) *of_keys = halves(carve, keys * dim);
  for (uint16_t** all : {&m.q_across, &m.d_y_across, &m.q_paired, &m.d_y_paired})
    *all = halves(carve, rows * dim);
  m.rows = halves(carve, kRows * dim);
  for (float** row : {&m.lse, &m.row_term}) *row = carve.floats(rows);
  m.d_q = carve.floats(rows * dim);
  for (float** scores : {&m.s, &m.d_p}) *scores = carve.floats(2 * kUnit);
  for (uint16_t** panel : {&m.p, &m.d_s, &m.d_s_paired})
    *panel = halves(carve, keys * kTilesAtOnce * kRows);
  for (float** of_keys : {&m.d_k, &m.d_v}) *of_keys = carve.floats(keys * dim);
  return m;
}

struct BwdArgs {
  RowsAny q, k, v, y;
  const float* lse;
  RowsAny d_y;
  RowsOut d_q, d_k, d_v;
};

SIGNROUND_BF16_BEGIN

// rows (2 n, dim) -> paired right side of a product over the rows: (n, dim x 2).
void pack_paired(const uint16_t* rows, int64_t pairs, int64_t dim, uint16_t* to) {
  for (int64_t p = 0; p < pairs; ++p)
    for (int64_t c = 0; c < dim; c += 32) {
      const uint16_t* even = rows + 2 * p * dim + c;
      const Paired both = pair_rows(_mm512_loadu_si512(even), _mm512_loadu_si512(even + dim));
      _mm512_storeu_si512(to + 2 * (p * dim + c), both.left);
      _mm512_storeu_si512(to + 2 * (p * dim + c) + 32, both.right);
    }
}

__m512 load_values(const RowsAny& rows, int64_t at) {
  if (rows.dtype == DType::kF32) return _mm512_loadu_ps(static_cast<const float*>(rows.data) + at);
  const auto* halves =
      reinterpret_cast<const __m256i*>(static_cast<const uint16_t*>(rows.data) + at);
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(halves)), 16));
}

float row_term(const BwdArgs& a, const RowWalk& row, int64_t dim) {
  const int64_t y = row.token() * a.y.stride + row.head * dim,
                d_y = row.token() * a.d_y.stride + row.head * dim;
  __m512 sum = _mm512_setzero_ps();
  for (int64_t c = 0; c < dim; c += 16)
    sum = _mm512_fmadd_ps(load_values(a.y, y + c), load_values(a.d_y, d_y + c), sum);
  return _mm512_reduce_add_ps(sum);
}

void start_tile(const View& view, const BwdArgs& a, int64_t tile, const BwdMemory& mem) {
  const int64_t dim = view.shape.head_dim, at = tile * kRows * dim;
  load_tile(view, tile, a.q, mem.rows);
  pack_across(mem.rows, dim, mem.q_across + at);
  pack_paired(mem.rows, kRows / 2, dim, mem.q_paired + at);
  load_tile(view, tile, a.d_y, mem.rows);
  pack_across(mem.rows, dim, mem.d_y_across + at);
  pack_paired(mem.rows, kRows / 2, dim, mem.d_y_paired + at);
  RowWalk row = view.walk(tile);
  for (int64_t r = 0; r < kRows; ++r, row.next()) {
    const bool exists = r < view.rows_of(tile);
    mem.lse[tile * kRows + r] = exists ? a.lse[row.lse()] * kLog2e : 0;
    mem.row_term[tile * kRows + r] = exists ? row_term(a, row, dim) : 0;
  }
}

// Scores and dP of one unit become P and dS (keys, rows), and dS paired.
void gradients(const TileMask& mask, float factor, int64_t key, const float* s, const float* d_p,
               const float* lse, const float* row_term, uint16_t* p, uint16_t* d_s,
               uint16_t* d_s_paired) {
  const __m512 scale = _mm512_set1_ps(factor), zero = _mm512_setzero_ps();
  const __m512 lses[2] = {_mm512_loadu_ps(lse), _mm512_loadu_ps(lse + 16)};
  const __m512 terms[2] = {_mm512_loadu_ps(row_term), _mm512_loadu_ps(row_term + 16)};
  const bool all = mask.sees_all(key, kKeyStep);
  for (int64_t j = 0; j < kKeyStep; j += 2) {
    __m512i d_s_halves[2];
    for (int odd = 0; odd < 2; ++odd) {
      __m512 weight[2], d_score[2];
      for (int half = 0; half < 2; ++half) {
        const int64_t at = (j + odd) * kRows + half * 16;
        const __m512 log_p = _mm512_fmsub_ps(scale, _mm512_load_ps(s + at), lses[half]);
        // At most 1, even where lse is so large that its rounding matters.
        weight[half] = exp2_nonpositive(_mm512_min_ps(zero, log_p));
        d_score[half] =
            _mm512_mul_ps(weight[half], _mm512_sub_ps(_mm512_load_ps(d_p + at), terms[half]));
        if (!all) {
          const __mmask16 seen = mask.sees(half, key + j + odd);
          weight[half] = _mm512_maskz_mov_ps(seen, weight[half]);
          d_score[half] = _mm512_maskz_mov_ps(seen, d_score[half]);
        }
      }
      const int64_t at = (j + odd) * kRows;
      d_s_halves[odd] = to_halves(d_score[0], d_score[1]);
      _mm512_store_si512(p + at, to_halves(weight[0], weight[1]));
      _mm512_store_si512(d_s + at, d_s_halves[odd]);
    }
    const Paired both = pair_rows(d_s_halves[0], d_s_halves[1]);
    _mm512_store_si512(d_s_paired + j * kRows, both.left);
    _mm512_store_si512(d_s_paired + j * kRows + 32, both.right);
  }
}

// Units of a block of keys: [begin, end).
struct UnitRange {
  int64_t begin = 0, end = 0;
};

// Those of the block from `key` on that rows of a tile see.
UnitRange units_seen(const View& view, int64_t tile, int64_t key) {
  const int64_t first = view.first_key(tile) - key, last = view.end_key(tile) - key;
  return {first > 0 ? first / kKeyStep : 0,
          ceil_div(std::min(last, view.split.key_block), kKeyStep)};
}

// `count` tiles of rows from `tile` on against a block of keys. summed[u]: d_k and d_v of unit u
// hold a sum.
template <PanelUnit kProducts>
void bwd_panel(const View& view, const BwdArgs& a, int64_t key, int64_t tile, int64_t count,
               bool* summed, const BwdMemory& mem) {
  const int64_t dim = view.shape.head_dim, keys = view.split.key_block, units = keys / kKeyStep;
  UnitRange seen[kTilesAtOnce];
  for (int64_t n = 0; n < count; ++n) seen[n] = units_seen(view, tile + n, key);
  const auto scores = [&](int64_t n, int64_t u) {
    const int64_t keys_at = u * kKeyStep * dim, at = (tile + n) * kRows * dim,
                  buffer = u % 2 * kUnit;
    Products<kProducts>::multiply({mem.k + keys_at, dim * 2, 16 * dim * 2, 64, mem.q_across + at,
                                   128, 64, 2048, mem.s + buffer, 128, 2048, dim / 32, false});
    Products<kProducts>::multiply({mem.v + keys_at, dim * 2, 16 * dim * 2, 64, mem.d_y_across + at,
                                   128, 64, 2048, mem.d_p + buffer, 128, 2048, dim / 32, false});
  };
  for (int64_t n = 0; n < count; ++n) {
    const int64_t t = tile + n, at = t * kRows * dim;
    const TileMask mask(view, t);
    uint16_t* paired = mem.d_s_paired + n * units * kUnit;
    const int64_t first = seen[n].begin, end = seen[n].end;
    scores(n, first);
    for (int64_t u = first; u < end; ++u) {
      const int64_t unit = (u * kTilesAtOnce + n) * kUnit, buffer = u % 2 * kUnit;
      if (u + 1 < end) scores(n, u + 1);
      gradients(mask, view.shape.scale * kLog2e, key + u * kKeyStep, mem.s + buffer,
                mem.d_p + buffer, mem.lse + t * kRows, mem.row_term + t * kRows, mem.p + unit,
                mem.d_s + unit, paired + u * kUnit);
    }
    for (int64_t c = 0; a.d_q && c < dim; c += 32)
      Products<kProducts>::multiply({mem.k_across + c * keys + first * kKeyStep, keys * 2,
                                     16 * keys * 2, 64, paired + first * kUnit, 128, 64, 2048,
                                     mem.d_q + at + c * kRows, 128, 2048, end - first,
                                     view.first_key(t) < key});
  }
  for (int64_t u = 0; u < units; ++u) {
    int64_t n = 0, end = count;  // the tiles that see it
    while (n < end && seen[n].end <= u) ++n;
    while (end > n && seen[end - 1].begin > u) --end;
    if (n == end) continue;
    const int64_t at = (tile + n) * kRows * dim, unit = (u * kTilesAtOnce + n) * kUnit;
    for (int64_t c = 0; c < dim; c += 32) {
      const int64_t sum = u * kKeyStep * dim + c;
      if (a.d_v)
        Products<kProducts>::multiply({mem.p + unit, 64, 1024, 2048, mem.d_y_paired + at + 2 * c,
                                       dim * 4, 64, 16 * dim * 4, mem.d_v + sum, dim * 4,
                                       16 * dim * 4, end - n, summed[u]});
      if (a.d_k)
        Products<kProducts>::multiply({mem.d_s + unit, 64, 1024, 2048, mem.q_paired + at + 2 * c,
                                       dim * 4, 64, 16 * dim * 4, mem.d_k + sum, dim * 4,
                                       16 * dim * 4, end - n, summed[u]});
    }
    summed[u] = true;
  }
}

// d_k or d_v of the keys from `key` on: the sum over `parts` shares, `apart` values apart.
void store_keys(const View& view, int64_t key, int64_t keys, const float* from, int64_t parts,
                int64_t apart, float scale, const RowsOut& out) {
  const int64_t dim = view.shape.head_dim;
  const __m512 factor = _mm512_set1_ps(scale);
  for (int64_t j = 0; j < keys; ++j) {
    const int64_t start = view.key_at(key + j, out.stride);
    for (int64_t c = 0; c < dim; c += 16) {
      __m512 sum = _mm512_loadu_ps(from + j * dim + c);
      for (int64_t part = 1; part < parts; ++part)
        sum = _mm512_add_ps(sum, _mm512_loadu_ps(from + part * apart + j * dim + c));
      store_values(out, start + c, _mm512_mul_ps(factor, sum));
    }
  }
}

// share: d_k and d_v, (kv_len, dim) each, of this part where an item has several; else null.
template <PanelUnit kProducts>
void bwd_task(const View& view, const BwdArgs& a, const BwdMemory& mem, float* share) {
  const AttentionShape& shape = view.shape;
  const int64_t dim = shape.head_dim, tiles = view.split.tiles_of(view.task.part),
                block = view.split.key_block;
  int64_t started = 0;
  for (int64_t key = 0; key < shape.kv_len; key += block) {
    const int64_t keys = shape.kv_len - key < block ? shape.kv_len - key : block;
    int64_t tile = 0, end = tiles;
    while (tile < end && view.end_key(tile) <= key) ++tile;
    while (end > tile && view.first_key(end - 1) >= key + keys) --end;
    if (tile < end) {
      load_keys(view, a.k, key, block, mem.k);
      for (int64_t j = 0; j < block; j += 32)
        pack_columns(mem.k + j * dim, dim, mem.k_across + j, block * 2);
      load_keys(view, a.v, key, block, mem.v);
    }
    bool summed[kKeyBlock / kKeyStep] = {};
    for (int64_t first = tile; first < end; first += kTilesAtOnce) {
      const int64_t count = std::min(end - first, kTilesAtOnce);
      for (; started < first + count; ++started) {
        if (started + 1 < tiles) fetch_tile(view, started + 1, a.q, a.d_y, a.y);
        start_tile(view, a, started, mem);
      }
      bwd_panel<kProducts>(view, a, key, first, count, summed, mem);
    }
    for (int64_t u = 0; u < block / kKeyStep; ++u) {
      if (summed[u]) continue;  // else nobody sees these keys
      std::fill_n(mem.d_k + u * kKeyStep * dim, kKeyStep * dim, 0.0f);
      std::fill_n(mem.d_v + u * kKeyStep * dim, kKeyStep * dim, 0.0f);
    }
    for (int64_t n = 0; share != nullptr && n < keys * dim; ++n) {
      share[key * dim + n] = mem.d_k[n];
      share[(shape.kv_len + key) * dim + n] = mem.d_v[n];
    }
    if (share == nullptr && a.d_k) store_keys(view, key, keys, mem.d_k, 1, 0, shape.scale, a.d_k);
    if (share == nullptr && a.d_v) store_keys(view, key, keys, mem.d_v, 1, 0, 1, a.d_v);
  }
  alignas(64) float scales[kRows];
  for (float& scale : scales) scale = shape.scale;
  for (int64_t tile = 0; a.d_q && tile < tiles; ++tile)
    store_across(view, tile, mem.d_q + tile * kRows * dim, scales, a.d_q);
}

void bwd_join(const View& view, const BwdArgs& a, int64_t key, const float* shares) {
  const int64_t size = view.shape.kv_len * view.shape.head_dim, at = key * view.shape.head_dim;
  if (a.d_k)
    store_keys(view, key, 1, shares + at, view.split.parts, 2 * size, view.shape.scale, a.d_k);
  if (a.d_v) store_keys(view, key, 1, shares + size + at, view.split.parts, 2 * size, 1, a.d_v);
}

template <PanelUnit kProducts>
void run_bwd_tasks(const AttentionShape& shape, const Split& split, const BwdArgs& args,
                   const BwdMemory& memory, float* shares, int64_t begin, int64_t end) {
  [[maybe_unused]] const typename Products<kProducts>::Scope scope;
  for (int64_t t = begin; t < end; ++t) {
    const int64_t item = t / split.parts;
    bwd_task<kProducts>(
        {shape, split, {item / shape.kv_heads, item % shape.kv_heads, t % split.parts}}, args,
        memory, shares == nullptr ? nullptr : shares + t * 2 * shape.kv_len * shape.head_dim);
  }
}

SIGNROUND_BF16_END

}  // namespace

int64_t attention_bf16_bwd_scratch_bytes(const AttentionShape& shape) {
  const Split split = split_of(shape, num_threads());
  Carver carve(nullptr);
  for (int64_t n = split.slots; n > 0; --n) carve_bwd(carve, shape, split);
  if (split.parts > 1) carve.floats(split.tasks() * 2 * shape.kv_len * shape.head_dim);
  return carve.used();
}

template <PanelUnit kProducts>
void attention_bwd_bf16(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsAny y,
                        const float* lse, RowsAny d_y, RowsOut d_q, RowsOut d_k, RowsOut d_v,
                        void* scratch) {
  const Split split = split_of(shape, num_threads());
  const BwdArgs args{q, k, v, y, lse, d_y, d_q, d_k, d_v};
  Carver carve(scratch);
  std::vector<BwdMemory> memory;
  for (int64_t n = split.slots; n > 0; --n) memory.push_back(carve_bwd(carve, shape, split));
  const int64_t share = 2 * shape.kv_len * shape.head_dim;
  float* shares = split.parts > 1 ? carve.floats(split.tasks() * share) : nullptr;
  parallel_for(split.slots, 1, [&](int64_t begin, int64_t end) {
    for (int64_t slot = begin; slot < end; ++slot)
      run_bwd_tasks<kProducts>(shape, split, args, memory[size_t(slot)], shares,
                               split.first_task(slot), split.first_task(slot + 1));
  });
  if (shares == nullptr) return;
  parallel_for(split.items * shape.kv_len, 64, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const int64_t item = n / shape.kv_len;
      bwd_join({shape, split, {item / shape.kv_heads, item % shape.kv_heads, 0}}, args,
               n % shape.kv_len, shares + item * split.parts * share);
    }
  });
}

}  // namespace signround::kernels

#else

#include "signround/kernels/cpu/attention.h"

namespace signround::kernels {

int64_t attention_bf16_bwd_scratch_bytes(const AttentionShape&) { return 0; }
template <PanelUnit>
void attention_bwd_bf16(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsAny y,
                        const float* lse, RowsAny d_y, RowsOut d_q, RowsOut d_k, RowsOut d_v,
                        void*) {
  attention_bwd_ref(shape, q, k, v, y, lse, d_y, d_q, d_k, d_v, nullptr);
}

}  // namespace signround::kernels
#endif

namespace signround::kernels {
template void attention_bwd_bf16<PanelUnit::kAmx>(const AttentionShape&, RowsAny, RowsAny, RowsAny,
                                                  RowsAny, const float*, RowsAny, RowsOut, RowsOut,
                                                  RowsOut, void*);
template void attention_bwd_bf16<PanelUnit::kAvx512>(const AttentionShape&, RowsAny, RowsAny,
                                                     RowsAny, RowsAny, const float*, RowsAny,
                                                     RowsOut, RowsOut, RowsOut, void*);
}  // namespace signround::kernels
