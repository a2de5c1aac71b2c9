// Attention whose products take inputs in bf16 and give sums in f32, by the matrix unit of Intel's
// CPUs (AMX) or the vectors of AVX-512; softmax and its gradient in f32. All scores are held
// transposed, keys x rows: a vector is then 16 rows of one key, so that maxima, sums and row terms
// need nothing across lanes.
//   forward   S^T = K Q^T    P^T = exp(S^T - m)    Y^T = V^T P^T / l
//   backward  dP^T = V dY^T    dS^T = P^T (dP^T - row term)
//             dV = P^T dY    dK = dS^T Q    dQ^T = K^T dS^T
// A tile is 16 lines of 64 bytes. The left side of a product is stored by rows, (16, 32 bf16); the
// right side in pairs of rows, (16 pairs, 16 columns x 2 bf16), called "paired" below.
// Included by the two passes only. GCC's intrinsics, and its way to say which instructions a part
// of a file may use.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define SIGNROUND_ATTENTION_BF16 1
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "signround/base/parallel.h"
#include "signround/kernels/cpu/attention.h"
#include "signround/kernels/cpu/attention_plan.h"
#include "signround/kernels/cpu/avx512_dots-inl.h"
#include "signround/kernels/cpu/panels_pack-inl.h"

// Around all that uses such instructions. The warnings are about GCC 12's own intrinsics. Not
// formatted: the string would be cut.
// clang-format off
#define SIGNROUND_BF16_BEGIN                                    \
  _Pragma("GCC push_options") _Pragma("GCC diagnostic push")    \
  _Pragma("GCC diagnostic ignored \"-Wuninitialized\"")         \
  _Pragma("GCC diagnostic ignored \"-Wmaybe-uninitialized\"")   \
  _Pragma("GCC target(\"avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16,fma,prfchw\")")
// clang-format on
#define SIGNROUND_BF16_END _Pragma("GCC diagnostic pop") _Pragma("GCC pop_options")

namespace signround::kernels {
namespace {

constexpr int64_t kRows = 32;     // rows of a tile of rows: two matrix tiles
constexpr int64_t kKeyStep = 32;  // keys of one product: a unit is kKeyStep keys x kRows rows
constexpr int64_t kUnit = kKeyStep * kRows;
// Keys whose gradients are made together, at most: for each block of them all rows are read from
// the second or third cache.
constexpr int64_t kKeyBlock = 256;
constexpr int64_t kMostKeys = 8192, kMostDim = 256;
constexpr float kLog2e = 0x1.715476p0f, kLn2 = 0x1.62e43p-1f;

int64_t up_to(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

struct Split {
  int64_t items, rows, tiles, parts, slots;
  int64_t key_block;  // backward
  int64_t tasks() const { return items * parts; }
  int64_t first_task(int64_t slot) const { return tasks() * slot / slots; }
  int64_t tiles_of(int64_t part) const { return (tiles - part + parts - 1) / parts; }
};

Split split_of(const AttentionShape& shape, int64_t threads) {
  Split split{shape.batch * shape.kv_heads,
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
struct Task {
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
struct View {
  AttentionShape shape;
  Split split;
  Task task;

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

uint16_t* halves(Carver& carve, int64_t n) {
  return reinterpret_cast<uint16_t*>(carve.floats(ceil_div(n, 2)));
}

SIGNROUND_BF16_BEGIN

// What multiplies; the products of a thread run while a Scope lives.
template <PanelUnit kUnit>
struct Products;

// c (32, 32) = or += a (32, 32 steps) * b (32 steps, 32), each side two tiles. Offsets in bytes:
// from line to line, to the second tile, to the next 32 of the inner dimension.
struct TileProduct {
  const void* a;
  int64_t a_line, a_second, a_step;
  const void* b;
  int64_t b_line, b_second, b_step;
  float* c;
  int64_t c_line, c_below;
  int64_t steps;
  bool accumulate;
};

template <>
struct Products<PanelUnit::kAmx> {
  // The eight tiles as 16 x 64 bytes while it lives; then what was before: oneDNN has its own.
  class Scope {
   public:
    Scope() {
      _tile_storeconfig(before_);
      alignas(64) unsigned char config[64] = {1};
      for (int tile = 0; tile < 8; ++tile) config[16 + 2 * tile] = 64, config[48 + tile] = 16;
      asm volatile("" ::: "memory");
      _tile_loadconfig(config);
    }
    ~Scope() {
      if (before_[0] == 0) {
        _tile_release();
      } else {
        _tile_loadconfig(before_);
      }
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    alignas(64) unsigned char before_[64] = {};
  };

  static void multiply(const TileProduct& p) {
    const char *a = static_cast<const char*>(p.a), *b = static_cast<const char*>(p.b);
    char* c = reinterpret_cast<char*>(p.c);
    asm volatile("" ::: "memory");  // the tile loads of GCC 12 do not say that they read memory
    if (p.accumulate) {
      _tile_loadd(0, c, p.c_line);
      _tile_loadd(1, c + 64, p.c_line);
      _tile_loadd(2, c + p.c_below, p.c_line);
      _tile_loadd(3, c + p.c_below + 64, p.c_line);
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
    _tile_stored(1, c + 64, p.c_line);
    _tile_stored(2, c + p.c_below, p.c_line);
    _tile_stored(3, c + p.c_below + 64, p.c_line);
    asm volatile("" ::: "memory");
  }
};

template <>
struct Products<PanelUnit::kAvx512> {
  struct Scope {};

  static void multiply(const TileProduct& p) {
    const auto* a = static_cast<const char*>(p.a);
    auto* c = reinterpret_cast<char*>(p.c);
    for (int64_t below = 0; below < 2; ++below, a += p.a_second, c += p.c_below)
      for (int64_t row = 0; row < 16; row += dots::kRows)
        multiply_rows(p, a + row * p.a_line, reinterpret_cast<float*>(c + row * p.c_line));
  }

 private:
  static void multiply_rows(const TileProduct& p, const char* first_row, float* c) {
    dots::Sums sums;
    dots::start(sums);
    dots::Pairs a = dots::pairs_from(first_row, p.a_line);
    const int64_t b_jump = p.b_step - 16 * p.b_line, stride = p.c_line / 4;
    const char *left = static_cast<const char*>(p.b), *right = left + p.b_second;
    for (int64_t k = p.steps; k > 0; --k) {
      for (const char* end = a.top + 64; a.top < end; a.step()) {
        dots::add(sums, a, left, right);
        left += p.b_line;
        right += p.b_line;
      }
      a.jump(p.a_step - 64);
      left += b_jump;
      right += b_jump;
    }
    dots::store(sums, c, stride, p.accumulate ? c : nullptr, stride);
  }
};

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

using panels::transpose;

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

  TileMask(const View& view, int64_t tile) : all_first(0), all_end(view.shape.kv_len) {
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
void store_across(const View& view, int64_t tile, const float* values, const float* factors,
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
void fetch_tile(const View& view, int64_t tile, const Rows&... rows) {
  RowWalk row = view.walk(tile);
  for (int64_t r = view.rows_of(tile); r > 0; --r, row.next())
    (fetch(rows, row.token() * rows.stride + row.head * view.shape.head_dim, view.shape.head_dim),
     ...);
}

// The rows of a tile in bf16; zeros where there are none.
void load_tile(const View& view, int64_t tile, const RowsAny& from, uint16_t* to) {
  const int64_t dim = view.shape.head_dim, rows = view.rows_of(tile);
  RowWalk row = view.walk(tile);
  for (int64_t r = 0; r < rows; ++r, row.next())
    pack_row(from, row.token() * from.stride + row.head * dim, dim, to + r * dim);
  for (int64_t r = rows; r < kRows; ++r) zero_row(dim, to + r * dim);
}

// Keys [key, key + n) in bf16; zeros from kv_len on.
void load_keys(const View& view, const RowsAny& from, int64_t key, int64_t n, uint16_t* to) {
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

SIGNROUND_BF16_END

}  // namespace
}  // namespace signround::kernels
#endif
