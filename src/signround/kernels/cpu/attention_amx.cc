// Attention whose products run on the matrix unit of Intel's CPUs (AMX): inputs in bf16, sums in
// f32; softmax and its gradient in f32. All scores are held transposed, keys x rows: a vector is
// then 16 rows of one key, so that maxima, sums and row terms need nothing across lanes.
//   forward   S^T = K Q^T    P^T = exp(S^T - m)    Y^T = V^T P^T / l
//   backward  dP^T = V dY^T    dS^T = P^T (dP^T - row term)
//             dV = P^T dY    dK = dS^T Q    dQ^T = K^T dS^T
// A tile is 16 lines of 64 bytes. The left side of a product is stored by rows, (16, 32 bf16); the
// right side in pairs of rows, (16 pairs, 16 columns x 2 bf16), called "paired" below.
#include <algorithm>
#include <cmath>
#include <vector>

#include "signround/base/parallel.h"
#include "signround/kernels/cpu/attention.h"
#include "signround/kernels/cpu/attention_plan.h"

// GCC's intrinsics and its way to say which instructions a part of a file may use.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#include <cpuid.h>
#include <immintrin.h>

#include "signround/kernels/cpu/amx_tiles.h"

namespace signround::kernels {
namespace {

constexpr int64_t kRows = 32;     // rows of a tile of rows: two matrix tiles
constexpr int64_t kKeyStep = 32;  // keys of one product: a unit is kKeyStep keys x kRows rows
constexpr int64_t kUnit = kKeyStep * kRows;
// Keys whose gradients are made together, at most: for each block of them all rows are read from
// the second or third cache.
constexpr int64_t kKeyBlock = 256;
constexpr int64_t kPanel = 8;  // tiles of rows between two additions to these gradients
constexpr int64_t kMostKeys = 8192, kMostDim = 256;
constexpr float kLog2e = 0x1.715476p0f, kLn2 = 0x1.62e43p-1f;

int64_t up_to(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

struct AmxSplit {
  int64_t items, rows, tiles, parts, slots;
  int64_t key_block;  // backward
  int64_t tasks() const { return items * parts; }
  int64_t first_task(int64_t slot) const { return tasks() * slot / slots; }
  int64_t tiles_of(int64_t part) const { return (tiles - part + parts - 1) / parts; }
};

AmxSplit amx_split(const AttentionShape& shape, int64_t threads) {
  AmxSplit split{shape.batch * shape.kv_heads,
                 shape.q_len * shape.group(),
                 0,
                 1,
                 1,
                 std::min(kKeyBlock, up_to(shape.kv_len, kKeyStep))};
  split.tiles = ceil_div(split.rows, kRows);
  split.parts = pieces_for_balance(split.items, threads, split.tiles);
  split.slots = threads < split.tasks() ? threads : split.tasks();
  return split;
}

// One kv head of one sequence; its tiles of rows part, part + parts, ...
struct AmxTask {
  int64_t sequence, kv_head, part;
};

// Rows of a task one after the other: the query heads of a token, then the next token.
struct RowWalk {
  int64_t i;                        // token of the sequence
  int64_t head, first_head, heads;  // heads: behind the last one of the kv head
  int64_t sequence, q_len, all_heads;

  int64_t token() const { return sequence * q_len + i; }
  int64_t lse() const { return (sequence * all_heads + head) * q_len + i; }
  void next() {
    if (++head == heads) head = first_head, ++i;
  }
};

// Where rows and keys of a task lie, and who sees whom.
struct AmxView {
  AttentionShape shape;
  AmxSplit split;
  AmxTask task;

  int64_t first_row(int64_t tile) const { return (task.part + tile * split.parts) * kRows; }
  int64_t rows_of(int64_t tile) const {
    const int64_t left = split.rows - first_row(tile);
    return left < kRows ? left : kRows;
  }
  RowWalk walk(int64_t tile, int64_t row = 0) const {
    const int64_t group = shape.group(), at = first_row(tile) + row, head = task.kv_head * group;
    return {at / group,    head + at % group, head,       head + group,
            task.sequence, shape.q_len,       shape.heads};
  }
  int64_t first_key(int64_t tile) const { return shape.first_key(first_row(tile) / shape.group()); }
  int64_t end_key(int64_t tile) const {
    return shape.end_key((first_row(tile) + rows_of(tile) - 1) / shape.group());
  }
  int64_t key_at(int64_t key, int64_t stride) const {
    return (task.sequence * shape.kv_len + key) * stride + task.kv_head * shape.head_dim;
  }
};

// Memory of a thread. Of the keys: of all forward, of a block backward.
struct AmxFwdMemory {
  uint16_t *k, *v_across;  // (keys, dim), (dim, padded keys)
  uint16_t *q, *q_across;  // a tile: (32, dim); paired (dim / 2, 32 x 2)
  float *s, *o;            // (keys, 32), (dim, 32)
  uint16_t* p;             // paired (keys / 2, 32 x 2)
};
struct AmxBwdMemory {                                       // K: keys of a block
  uint16_t *k, *v, *k_across;                               // (K, dim) twice, (dim, K)
  uint16_t *q_across, *d_y_across, *q_paired, *d_y_paired;  // of all tiles of rows
  uint16_t* rows;                                           // (32, dim)
  float *lse, *row_term, *d_q;     // of all tiles of rows; d_q (dim, 32) each
  float *s, *d_p;                  // a unit
  uint16_t *p, *d_s, *d_s_paired;  // units, K / 32 x 8 twice and 8 x K / 32, paired
  float *d_k, *d_v;                // (K, dim)
};

uint16_t* halves(Carver& carve, int64_t n) {
  return reinterpret_cast<uint16_t*>(carve.floats(ceil_div(n, 2)));
}

// Keys of a line of V^T: whole steps, and an odd number of cache lines.
int64_t keys_across(int64_t kv_len) { return up_to(kv_len, kKeyStep) / 32 * 32 + 32; }

AmxFwdMemory carve_fwd(Carver& carve, const AttentionShape& shape) {
  const int64_t keys = up_to(shape.kv_len, kKeyStep), dim = shape.head_dim;
  AmxFwdMemory m;
  m.k = halves(carve, keys * dim);
  m.v_across = halves(carve, dim * keys_across(shape.kv_len));
  m.q = halves(carve, kRows * dim);
  m.q_across = halves(carve, kRows * dim);
  m.s = carve.floats(keys * kRows);
  m.o = carve.floats(dim * kRows);
  m.p = halves(carve, keys * kRows);
  return m;
}

AmxBwdMemory carve_bwd(Carver& carve, const AttentionShape& shape, const AmxSplit& split) {
  const int64_t dim = shape.head_dim, rows = split.tiles_of(0) * kRows, keys = split.key_block;
  AmxBwdMemory m;
  for (uint16_t** of_keys : {&m.k, &m.v, &m.k_across}) *of_keys = halves(carve, keys * dim);
  for (uint16_t** all : {&m.q_across, &m.d_y_across, &m.q_paired, &m.d_y_paired})
    *all = halves(carve, rows * dim);
  m.rows = halves(carve, kRows * dim);
  for (float** row : {&m.lse, &m.row_term}) *row = carve.floats(rows);
  m.d_q = carve.floats(rows * dim);
  for (float** scores : {&m.s, &m.d_p}) *scores = carve.floats(2 * kUnit);
  for (uint16_t** panel : {&m.p, &m.d_s, &m.d_s_paired})
    *panel = halves(carve, keys * kPanel * kRows);
  for (float** of_keys : {&m.d_k, &m.d_v}) *of_keys = carve.floats(keys * dim);
  return m;
}

struct AmxFwd {
  RowsAny q, k, v;
  RowsOut y;
  float* lse;
};
struct AmxBwd {
  RowsAny q, k, v, y;
  const float* lse;
  RowsAny d_y;
  RowsOut d_q, d_k, d_v;
};

#pragma GCC push_options
#pragma GCC diagnostic push  // in GCC 12's own intrinsics
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16,fma,prfchw")

// The eight tiles as 16 x 64 bytes while it lives; then what was before: oneDNN has its own.
class TileShapes {
 public:
  TileShapes() {
    _tile_storeconfig(before_);
    alignas(64) unsigned char config[64] = {1};
    for (int tile = 0; tile < 8; ++tile) config[16 + 2 * tile] = 64, config[48 + tile] = 16;
    asm volatile("" ::: "memory");
    _tile_loadconfig(config);
  }
  ~TileShapes() {
    if (before_[0] == 0) {
      _tile_release();
    } else {
      _tile_loadconfig(before_);
    }
  }
  TileShapes(const TileShapes&) = delete;
  TileShapes& operator=(const TileShapes&) = delete;

 private:
  alignas(64) unsigned char before_[64] = {};
};

// c (32, 32) = or += a (32, 32 steps) * b (32 steps, 32), each side two tiles. Offsets in bytes:
// from line to line, to the second tile, to the next 32 of the inner dimension.
struct TileProduct {
  const void* a;
  int64_t a_line, a_second, a_step;
  const void* b;
  int64_t b_line, b_second, b_step;
  float* c;
  int64_t c_line, c_below, c_right;
  int64_t steps;
  bool accumulate;
};

void multiply(const TileProduct& p) {
  const char *a = static_cast<const char*>(p.a), *b = static_cast<const char*>(p.b);
  char* c = reinterpret_cast<char*>(p.c);
  asm volatile("" ::: "memory");  // the tile loads of GCC 12 do not say that they read memory
  if (p.accumulate) {
    _tile_loadd(0, c, p.c_line);
    _tile_loadd(1, c + p.c_right, p.c_line);
    _tile_loadd(2, c + p.c_below, p.c_line);
    _tile_loadd(3, c + p.c_below + p.c_right, p.c_line);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t k = 0; k < p.steps; ++k, a += p.a_step, b += p.b_step) {
    _tile_loadd(4, a, p.a_line);
    _tile_loadd(6, b, p.b_line);
    _tile_loadd(7, b + p.b_second, p.b_line);
    _tile_loadd(5, a + p.a_second, p.a_line);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, p.c_line);
  _tile_stored(1, c + p.c_right, p.c_line);
  _tile_stored(2, c + p.c_below, p.c_line);
  _tile_stored(3, c + p.c_below + p.c_right, p.c_line);
  asm volatile("" ::: "memory");
}

__m512i to_halves(__m512 low, __m512 high) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

// `columns` values of `rows` from value `at` on, a multiple of 32, in bf16.
void pack_row(const RowsAny& rows, int64_t at, int64_t columns, uint16_t* to) {
  if (rows.dtype == DType::kBF16) {
    const auto* from = static_cast<const uint16_t*>(rows.data) + at;
    for (int64_t c = 0; c < columns; c += 32)
      _mm512_storeu_si512(to + c, _mm512_loadu_si512(from + c));
  } else {
    const auto* from = static_cast<const float*>(rows.data) + at;
    for (int64_t c = 0; c < columns; c += 32)
      _mm512_storeu_si512(to + c,
                          to_halves(_mm512_loadu_ps(from + c), _mm512_loadu_ps(from + c + 16)));
  }
}
void zero_row(int64_t columns, uint16_t* to) {
  for (int64_t c = 0; c < columns; c += 32) _mm512_storeu_si512(to + c, _mm512_setzero_si512());
}

// The transpose of 16 x 16 values of 4 bytes, in registers.
void transpose(__m512i (&r)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // r[4 g + j] now holds columns j, 4 + j, 8 + j, 12 + j of the rows 4 g .. 4 g + 3.
  for (int j = 0; j < 4; ++j) {
    const __m512i low01 = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x44);
    const __m512i high01 = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xee);
    const __m512i low23 = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x44);
    const __m512i high23 = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xee);
    t[j] = _mm512_shuffle_i32x4(low01, low23, 0x88);
    t[4 + j] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
    t[8 + j] = _mm512_shuffle_i32x4(high01, high23, 0x88);
    t[12 + j] = _mm512_shuffle_i32x4(high01, high23, 0xdd);
  }
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

// (16, 16) of 4 bytes, lines `from_line` bytes apart, transposed.
void transpose_tile(const void* from, int64_t from_line, void* to, int64_t to_line) {
  __m512i r[16];
  for (int i = 0; i < 16; ++i)
    r[i] = _mm512_loadu_si512(static_cast<const char*>(from) + i * from_line);
  transpose(r);
  for (int i = 0; i < 16; ++i) _mm512_storeu_si512(static_cast<char*>(to) + i * to_line, r[i]);
}

// rows (32, dim) -> paired right side of a product over dim: (dim / 2, 32 x 2).
void pack_across(const uint16_t* rows, int64_t dim, uint16_t* to) {
  for (int64_t c = 0; c < dim; c += 32)
    for (int64_t half = 0; half < 2; ++half)
      transpose_tile(rows + half * 16 * dim + c, dim * 2, to + c * kRows + half * 32, kRows * 4);
}

struct Paired {
  __m512i left, right;  // columns 0 .. 15 and 16 .. 31 of two rows
};
Paired pair_rows(__m512i even, __m512i odd) {
  alignas(64) static constexpr uint16_t kLeft[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,
                                                     37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
                                                     11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i left = _mm512_load_si512(kLeft);
  const __m512i right = _mm512_add_epi16(left, _mm512_set1_epi16(16));
  return {_mm512_permutex2var_epi16(even, left, odd), _mm512_permutex2var_epi16(even, right, odd)};
}

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

// rows (32, dim) -> columns [0, dim) as lines of 32 rows, `line` bytes apart.
void pack_columns(const uint16_t* rows, int64_t dim, uint16_t* to, int64_t line) {
  for (int64_t c = 0; c < dim; c += 32) {
    alignas(64) uint16_t paired[16][64];  // of 16 pairs of rows
    for (int64_t p = 0; p < 16; ++p) {
      const uint16_t* even = rows + 2 * p * dim + c;
      const Paired both = pair_rows(_mm512_loadu_si512(even), _mm512_loadu_si512(even + dim));
      _mm512_store_si512(paired[p], both.left);
      _mm512_store_si512(paired[p] + 32, both.right);
    }
    for (int64_t half = 0; half < 2; ++half)
      transpose_tile(paired[0] + half * 32, 128,
                     reinterpret_cast<char*>(to) + (c + half * 16) * line, line);
  }
}

// 2^x for x <= 0, off by less than 2^-18, where what it becomes keeps 2^-9; 0 below -126, NaN for
// NaN. 2^x = 2^floor(x) 2^f with f in [0, 1), and our own minimax fit of 2^f whose value at 0 is 1.
// The lanes below -126 are left out: results below normal numbers take 100 times as long.
__m512 exp2_nonpositive(__m512 x) {
  const __mmask16 normal = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-126), _CMP_NLT_UQ);
  const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  __m512 p = _mm512_set1_ps(0x1.b7f734p-7f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.abf868p-5f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.ee2452p-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.62d6c6p-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return _mm512_maskz_scalef_ps(normal, p, x);
}

// Which keys the 32 rows of a tile see: [first, end) of each; rows that do not exist see none.
struct TileMask {
  __m512i first[2], end[2];
  int64_t all_first, all_end;  // every row sees these

  TileMask(const AmxView& view, int64_t tile) : all_first(0), all_end(view.shape.kv_len) {
    alignas(64) int32_t firsts[kRows], ends[kRows];
    const int64_t rows = view.rows_of(tile);
    RowWalk row = view.walk(tile);
    for (int64_t r = 0; r < kRows; ++r, row.next()) {
      const int64_t f = r < rows ? view.shape.first_key(row.i) : 0;
      const int64_t e = r < rows ? view.shape.end_key(row.i) : 0;
      firsts[r] = int32_t(f);
      ends[r] = int32_t(e);
      all_first = all_first < f ? f : all_first;
      all_end = all_end < e ? all_end : e;
    }
    for (int half = 0; half < 2; ++half) {
      first[half] = _mm512_load_si512(firsts + 16 * half);
      end[half] = _mm512_load_si512(ends + 16 * half);
    }
  }
  bool sees_all(int64_t key, int64_t keys) const {
    return key >= all_first && key + keys <= all_end;
  }
  __mmask16 sees(int half, int64_t key) const {
    const __m512i k = _mm512_set1_epi32(int32_t(key));
    return _mm512_cmpge_epi32_mask(k, first[half]) & _mm512_cmplt_epi32_mask(k, end[half]);
  }
};

// One row of an output, 16 values from column c on.
void store_values(const RowsOut& rows, int64_t at, __m512 values) {
  if (rows.dtype == DType::kF32) {
    _mm512_storeu_ps(static_cast<float*>(rows.data) + at, values);
  } else {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(static_cast<uint16_t*>(rows.data) + at),
                        reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(values)));
  }
}

// values (dim, 32) of a tile of rows, times factor of each row, into the rows of `out`.
void store_across(const AmxView& view, int64_t tile, const float* values, const float* factors,
                  const RowsOut& out) {
  const int64_t dim = view.shape.head_dim, rows = view.rows_of(tile);
  for (int64_t half = 0; half < 2 && half * 16 < rows; ++half) {
    const __m512 factor = _mm512_loadu_ps(factors + half * 16);
    int64_t starts[16];
    const int64_t count = rows - half * 16 < 16 ? rows - half * 16 : 16;
    RowWalk row = view.walk(tile, half * 16);
    for (int64_t r = 0; r < count; ++r, row.next())
      starts[r] = row.token() * out.stride + row.head * dim;
    for (int64_t c = 0; c < dim; c += 16) {
      __m512i r[16];
      for (int i = 0; i < 16; ++i)
        r[i] = _mm512_castps_si512(
            _mm512_mul_ps(factor, _mm512_loadu_ps(values + (c + i) * kRows + half * 16)));
      transpose(r);
      for (int i = 0; i < 16; ++i)
        if (i < count) store_values(out, starts[i] + c, _mm512_castsi512_ps(r[i]));
    }
  }
}

// Rows of a head are short and lie apart: the CPU does not find them by itself.
template <class Rows>
void fetch(const Rows& rows, int64_t at, int64_t dim) {
  const int64_t size = rows.dtype == DType::kF32 ? 4 : 2;
  const char* from = static_cast<const char*>(rows.data) + at * size;
  for (int64_t b = 0; b < dim * size; b += 64) {
    if constexpr (std::is_same_v<Rows, RowsOut>)
      __builtin_prefetch(from + b, 1);
    else
      __builtin_prefetch(from + b);
  }
}
template <class... Rows>
void fetch_tile(const AmxView& view, int64_t tile, const Rows&... rows) {
  RowWalk row = view.walk(tile);
  for (int64_t r = view.rows_of(tile); r > 0; --r, row.next())
    (fetch(rows, row.token() * rows.stride + row.head * view.shape.head_dim, view.shape.head_dim),
     ...);
}

// The rows of a tile in bf16; zeros where there are none.
void load_tile(const AmxView& view, int64_t tile, const RowsAny& from, uint16_t* to) {
  const int64_t dim = view.shape.head_dim, rows = view.rows_of(tile);
  RowWalk row = view.walk(tile);
  for (int64_t r = 0; r < rows; ++r, row.next())
    pack_row(from, row.token() * from.stride + row.head * dim, dim, to + r * dim);
  for (int64_t r = rows; r < kRows; ++r) zero_row(dim, to + r * dim);
}

// Keys [key, key + n) in bf16; zeros from kv_len on.
void load_keys(const AmxView& view, const RowsAny& from, int64_t key, int64_t n, uint16_t* to) {
  const int64_t dim = view.shape.head_dim;
  constexpr int64_t kAhead = 16;
  for (int64_t j = 0; j < n; ++j) {
    if (key + j + kAhead < view.shape.kv_len)
      fetch(from, view.key_at(key + j + kAhead, from.stride), dim);
    if (key + j < view.shape.kv_len)
      pack_row(from, view.key_at(key + j, from.stride), dim, to + j * dim);
    else
      zero_row(dim, to + j * dim);
  }
}

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

void amx_fwd_tile(const AmxView& view, const AmxFwd& a, int64_t tile, const AmxFwdMemory& mem) {
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
    multiply({mem.k + key * dim, dim * 2, 16 * dim * 2, 64, mem.q_across, 128, 64, 2048, s, 128,
              2048, 64, dim / 32, false});
    if (key > begin) find_top(mask, key - kKeyStep, s - kUnit, top);
  }
  find_top(mask, end - kKeyStep, mem.s + (end - begin) * kRows - kUnit, top);
  const float factor = view.shape.scale * kLog2e;
  for (__m512& t : top)  // at least -3e38, for rows that see nothing
    t = _mm512_max_ps(_mm512_mul_ps(_mm512_set1_ps(factor), t), _mm512_set1_ps(-3e38f));
  weigh(factor, top, end - begin, mem.s, mem.p, sum);
  for (int64_t c = 0; c < dim; c += 32)
    multiply({mem.v_across + c * across + begin, across * 2, 16 * across * 2, 64, mem.p, 128, 64,
              2048, mem.o + c * kRows, 128, 2048, 64, (end - begin) / kKeyStep, false});
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

void amx_fwd_task(const AmxView& view, const AmxFwd& a, const AmxFwdMemory& mem) {
  const int64_t dim = view.shape.head_dim, keys = up_to(view.shape.kv_len, kKeyStep);
  const int64_t across = keys_across(view.shape.kv_len);
  load_keys(view, a.v, 0, keys, mem.k);
  for (int64_t key = 0; key < keys; key += 32)
    pack_columns(mem.k + key * dim, dim, mem.v_across + key, across * 2);
  load_keys(view, a.k, 0, keys, mem.k);
  for (int64_t tile = 0; tile < view.split.tiles_of(view.task.part); ++tile)
    amx_fwd_tile(view, a, tile, mem);
}

// ---- backward ----

__m512 load_values(const RowsAny& rows, int64_t at) {
  if (rows.dtype == DType::kF32) return _mm512_loadu_ps(static_cast<const float*>(rows.data) + at);
  const auto* halves =
      reinterpret_cast<const __m256i*>(static_cast<const uint16_t*>(rows.data) + at);
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(halves)), 16));
}

float row_term(const AmxBwd& a, const RowWalk& row, int64_t dim) {
  const int64_t y = row.token() * a.y.stride + row.head * dim,
                d_y = row.token() * a.d_y.stride + row.head * dim;
  __m512 sum = _mm512_setzero_ps();
  for (int64_t c = 0; c < dim; c += 16)
    sum = _mm512_fmadd_ps(load_values(a.y, y + c), load_values(a.d_y, d_y + c), sum);
  return _mm512_reduce_add_ps(sum);
}

void start_tile(const AmxView& view, const AmxBwd& a, int64_t tile, const AmxBwdMemory& mem) {
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
UnitRange units_seen(const AmxView& view, int64_t tile, int64_t key) {
  const int64_t first = view.first_key(tile) - key, last = view.end_key(tile) - key;
  return {first > 0 ? first / kKeyStep : 0,
          ceil_div(std::min(last, view.split.key_block), kKeyStep)};
}

// `count` tiles of rows from `tile` on against a block of keys. summed[u]: d_k and d_v of unit u
// hold a sum.
void amx_bwd_panel(const AmxView& view, const AmxBwd& a, int64_t key, int64_t tile, int64_t count,
                   bool* summed, const AmxBwdMemory& mem) {
  const int64_t dim = view.shape.head_dim, keys = view.split.key_block, units = keys / kKeyStep;
  UnitRange seen[kPanel];
  for (int64_t n = 0; n < count; ++n) seen[n] = units_seen(view, tile + n, key);
  const auto scores = [&](int64_t n, int64_t u) {
    const int64_t keys_at = u * kKeyStep * dim, at = (tile + n) * kRows * dim,
                  buffer = u % 2 * kUnit;
    multiply({mem.k + keys_at, dim * 2, 16 * dim * 2, 64, mem.q_across + at, 128, 64, 2048,
              mem.s + buffer, 128, 2048, 64, dim / 32, false});
    multiply({mem.v + keys_at, dim * 2, 16 * dim * 2, 64, mem.d_y_across + at, 128, 64, 2048,
              mem.d_p + buffer, 128, 2048, 64, dim / 32, false});
  };
  for (int64_t n = 0; n < count; ++n) {
    const int64_t t = tile + n, at = t * kRows * dim;
    const TileMask mask(view, t);
    uint16_t* paired = mem.d_s_paired + n * units * kUnit;
    const int64_t first = seen[n].begin, end = seen[n].end;
    scores(n, first);
    for (int64_t u = first; u < end; ++u) {
      const int64_t unit = (u * kPanel + n) * kUnit, buffer = u % 2 * kUnit;
      if (u + 1 < end) scores(n, u + 1);
      gradients(mask, view.shape.scale * kLog2e, key + u * kKeyStep, mem.s + buffer,
                mem.d_p + buffer, mem.lse + t * kRows, mem.row_term + t * kRows, mem.p + unit,
                mem.d_s + unit, paired + u * kUnit);
    }
    for (int64_t c = 0; a.d_q && c < dim; c += 32)
      multiply({mem.k_across + c * keys + first * kKeyStep, keys * 2, 16 * keys * 2, 64,
                paired + first * kUnit, 128, 64, 2048, mem.d_q + at + c * kRows, 128, 2048, 64,
                end - first, view.first_key(t) < key});
  }
  for (int64_t u = 0; u < units; ++u) {
    int64_t n = 0, end = count;  // the tiles that see it
    while (n < end && seen[n].end <= u) ++n;
    while (end > n && seen[end - 1].begin > u) --end;
    if (n == end) continue;
    const int64_t at = (tile + n) * kRows * dim, unit = (u * kPanel + n) * kUnit;
    for (int64_t c = 0; c < dim; c += 32) {
      const int64_t sum = u * kKeyStep * dim + c;
      if (a.d_v)
        multiply({mem.p + unit, 64, 1024, 2048, mem.d_y_paired + at + 2 * c, dim * 4, 64,
                  16 * dim * 4, mem.d_v + sum, dim * 4, 16 * dim * 4, 64, end - n, summed[u]});
      if (a.d_k)
        multiply({mem.d_s + unit, 64, 1024, 2048, mem.q_paired + at + 2 * c, dim * 4, 64,
                  16 * dim * 4, mem.d_k + sum, dim * 4, 16 * dim * 4, 64, end - n, summed[u]});
    }
    summed[u] = true;
  }
}

// d_k or d_v of the keys from `key` on: the sum over `parts` shares, `apart` values apart.
void store_keys(const AmxView& view, int64_t key, int64_t keys, const float* from, int64_t parts,
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
void amx_bwd_task(const AmxView& view, const AmxBwd& a, const AmxBwdMemory& mem, float* share) {
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
    for (int64_t first = tile; first < end; first += kPanel) {
      const int64_t count = std::min(end - first, kPanel);
      for (; started < first + count; ++started) {
        if (started + 1 < tiles) fetch_tile(view, started + 1, a.q, a.d_y, a.y);
        start_tile(view, a, started, mem);
      }
      amx_bwd_panel(view, a, key, first, count, summed, mem);
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

void amx_bwd_join(const AmxView& view, const AmxBwd& a, int64_t key, const float* shares) {
  const int64_t size = view.shape.kv_len * view.shape.head_dim, at = key * view.shape.head_dim;
  if (a.d_k)
    store_keys(view, key, 1, shares + at, view.split.parts, 2 * size, view.shape.scale, a.d_k);
  if (a.d_v) store_keys(view, key, 1, shares + size + at, view.split.parts, 2 * size, 1, a.d_v);
}

void run_fwd_tasks(const AttentionShape& shape, const AmxSplit& split, const AmxFwd& args,
                   const AmxFwdMemory& memory, int64_t begin, int64_t end) {
  const TileShapes shapes;
  for (int64_t t = begin; t < end; ++t) {
    const int64_t item = t / split.parts;
    amx_fwd_task({shape, split, {item / shape.kv_heads, item % shape.kv_heads, t % split.parts}},
                 args, memory);
  }
}

void run_bwd_tasks(const AttentionShape& shape, const AmxSplit& split, const AmxBwd& args,
                   const AmxBwdMemory& memory, float* shares, int64_t begin, int64_t end) {
  const TileShapes shapes;
  for (int64_t t = begin; t < end; ++t) {
    const int64_t item = t / split.parts;
    amx_bwd_task({shape, split, {item / shape.kv_heads, item % shape.kv_heads, t % split.parts}},
                 args, memory,
                 shares == nullptr ? nullptr : shares + t * 2 * shape.kv_len * shape.head_dim);
  }
}

#pragma GCC diagnostic pop
#pragma GCC pop_options

// What this file's code needs beside tiles.
bool cpu_has_avx512() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma") &&
         __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 5 & 1) != 0;
}

}  // namespace

const char* attention_amx_why_not() {
  if (const char* reason = amx::why_not()) return reason;
  static const bool has = cpu_has_avx512();
  return has ? nullptr : "the CPU has no AVX-512 DQ and BF16";
}

bool attention_amx_fits(const AttentionShape& shape) {
  return shape.head_dim % 32 == 0 && shape.head_dim <= kMostDim && shape.softcap == 0 &&
         shape.kv_len <= kMostKeys && shape.q_len * shape.group() >= kRows;
}

int64_t attention_amx_fwd_scratch_bytes(const AttentionShape& shape) {
  Carver carve(nullptr);
  for (int64_t n = amx_split(shape, num_threads()).slots; n > 0; --n) carve_fwd(carve, shape);
  return carve.used();
}

int64_t attention_amx_bwd_scratch_bytes(const AttentionShape& shape) {
  const AmxSplit split = amx_split(shape, num_threads());
  Carver carve(nullptr);
  for (int64_t n = split.slots; n > 0; --n) carve_bwd(carve, shape, split);
  if (split.parts > 1) carve.floats(split.tasks() * 2 * shape.kv_len * shape.head_dim);
  return carve.used();
}

void attention_fwd_amx(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsOut y,
                       float* lse, void* scratch) {
  const AmxSplit split = amx_split(shape, num_threads());
  const AmxFwd args{q, k, v, y, lse};
  Carver carve(scratch);
  std::vector<AmxFwdMemory> memory;
  for (int64_t n = split.slots; n > 0; --n) memory.push_back(carve_fwd(carve, shape));
  parallel_for(split.slots, 1, [&](int64_t begin, int64_t end) {
    for (int64_t slot = begin; slot < end; ++slot)
      run_fwd_tasks(shape, split, args, memory[size_t(slot)], split.first_task(slot),
                    split.first_task(slot + 1));
  });
}

void attention_bwd_amx(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsAny y,
                       const float* lse, RowsAny d_y, RowsOut d_q, RowsOut d_k, RowsOut d_v,
                       void* scratch) {
  const AmxSplit split = amx_split(shape, num_threads());
  const AmxBwd args{q, k, v, y, lse, d_y, d_q, d_k, d_v};
  Carver carve(scratch);
  std::vector<AmxBwdMemory> memory;
  for (int64_t n = split.slots; n > 0; --n) memory.push_back(carve_bwd(carve, shape, split));
  const int64_t share = 2 * shape.kv_len * shape.head_dim;
  float* shares = split.parts > 1 ? carve.floats(split.tasks() * share) : nullptr;
  parallel_for(split.slots, 1, [&](int64_t begin, int64_t end) {
    for (int64_t slot = begin; slot < end; ++slot)
      run_bwd_tasks(shape, split, args, memory[size_t(slot)], shares, split.first_task(slot),
                    split.first_task(slot + 1));
  });
  if (shares == nullptr) return;
  parallel_for(split.items * shape.kv_len, 64, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const int64_t item = n / shape.kv_len;
      amx_bwd_join({shape, split, {item / shape.kv_heads, item % shape.kv_heads, 0}}, args,
                   n % shape.kv_len, shares + item * split.parts * share);
    }
  });
}

}  // namespace signround::kernels

#else

namespace signround::kernels {

const char* attention_amx_why_not() { return "built without AMX"; }
bool attention_amx_fits(const AttentionShape&) { return false; }
int64_t attention_amx_fwd_scratch_bytes(const AttentionShape&) { return 0; }
int64_t attention_amx_bwd_scratch_bytes(const AttentionShape&) { return 0; }
void attention_fwd_amx(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsOut y,
                       float* lse, void*) {
  attention_fwd_ref(shape, q, k, v, y, lse, nullptr);
}
void attention_bwd_amx(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsAny y,
                       const float* lse, RowsAny d_y, RowsOut d_q, RowsOut d_k, RowsOut d_v,
                       void*) {
  attention_bwd_ref(shape, q, k, v, y, lse, d_y, d_q, d_k, d_v, nullptr);
}

}  // namespace signround::kernels
#endif
