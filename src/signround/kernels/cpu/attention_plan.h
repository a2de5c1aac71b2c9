// How an attention is cut into tiles, and tasks for threads; where they keep what they compute.
//
// A row is a query token under one head. The query heads of one kv head share its keys, so their
// rows are worked on together, ordered by token: row r is token r / group under head r % group.
// An item is one kv head of one sequence: `rows()` rows against kv_len keys. Its rows are cut into
// tiles of kTileRows; where there are fewer items than threads want, into parts (tile t belongs
// to part t % parts, which balances a causal mask), or for generation into chunks of keys.
#pragma once

#include <algorithm>
#include <cstdint>

#include "signround/kernels/attention_shape.h"
#include "signround/tensor/rows.h"

namespace signround::kernels {

// Tiles that keep one operand of each small product in a 32 KB L1, everything else in L2.
constexpr int64_t kTileRows = 48;  // a multiple of the 4 or 6 rows of a register block
constexpr int64_t kFwdKeys = 128;  // fewer: more row maxima per key; more: K and V leave L2
constexpr int64_t kBwdKeys = 64;

// Values from one row to the next in scratch memory: whole vectors, and an odd number of cache
// lines, so that the rows of a tile spread over all cache sets.
inline int64_t padded(int64_t n) { return ((n + 15) / 16 | 1) * 16; }
inline int64_t whole_vectors(int64_t n) { return (n + 15) / 16 * 16; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct AttentionSplit {
  int64_t items = 0, rows = 0, tiles = 0;  // rows and tiles are those of one item
  int64_t parts = 1, chunks = 1, slots = 1;
  int64_t chunk_keys = 0;

  int64_t tasks() const { return items * parts * chunks; }
  int64_t first_task(int64_t slot) const { return tasks() * slot / slots; }
  int64_t tiles_of(int64_t part) const { return ceil_div(tiles - part, parts); }
  int64_t first_row(int64_t part, int64_t tile) const { return (part + tile * parts) * kTileRows; }
  int64_t rows_of_tile(int64_t part, int64_t tile) const {
    return std::min(kTileRows, rows - first_row(part, tile));
  }
};

// Pieces per item, at most `most`, for which the slowest of `threads` threads ends first. One more
// piece packs the keys once more: counted as 3%.
inline int64_t pieces_for_balance(int64_t items, int64_t threads, int64_t most) {
  int64_t best = 1;
  double best_time = 0;
  for (int64_t pieces = 1; pieces <= std::min(most, 2 * threads); ++pieces) {
    const double rounds = double(ceil_div(items * pieces, threads));
    const double time = rounds / double(pieces) * (1 + 0.03 * double(pieces - 1));
    if (pieces == 1 || time < best_time) best = pieces, best_time = time;
  }
  return best;
}

inline AttentionSplit attention_split(const AttentionShape& shape, int64_t threads, bool backward) {
  AttentionSplit split;
  split.items = shape.batch * shape.kv_heads;
  split.rows = shape.q_len * shape.group();
  split.tiles = ceil_div(split.rows, kTileRows);
  split.chunk_keys = shape.kv_len;
  if (!backward && split.tiles == 1) {
    const int64_t blocks = ceil_div(shape.kv_len, 2 * kFwdKeys);
    split.chunks = pieces_for_balance(split.items, threads, blocks);
    split.chunk_keys = ceil_div(blocks, split.chunks) * 2 * kFwdKeys;
    split.chunks = ceil_div(shape.kv_len, split.chunk_keys);
  } else {
    split.parts = pieces_for_balance(split.items, threads, split.tiles);
    // The forward pass holds the outputs of a part: they should stay in L2.
    constexpr int64_t kMostTiles = 24;
    if (!backward) split.parts = std::max(split.parts, ceil_div(split.tiles, kMostTiles));
  }
  split.slots = std::min(threads, split.tasks());
  return split;
}

// Part of one item; `chunk` of its keys.
struct AttentionTask {
  int64_t sequence, kv_head, part, chunk;
};

inline AttentionTask attention_task(const AttentionShape& shape, const AttentionSplit& split,
                                    int64_t index) {
  const int64_t item = index / (split.parts * split.chunks);
  return {item / shape.kv_heads, item % shape.kv_heads, index / split.chunks % split.parts,
          index % split.chunks};
}

// Where a row of a task stands in q, y and lse.
struct RowPlace {
  int64_t token, head, lse;
};

inline RowPlace row_place(const AttentionShape& shape, const AttentionTask& task, int64_t row) {
  const int64_t i = row / shape.group(), head = task.kv_head * shape.group() + row % shape.group();
  return {task.sequence * shape.q_len + i, head,
          (task.sequence * shape.heads + head) * shape.q_len + i};
}

struct AttentionFwd {
  AttentionShape shape;
  AttentionSplit split;
  RowsAny q, k, v;
  RowsOut y;
  float* lse;
};
// Scratch of a thread, and the running softmax of a part's rows: 16 sums per row in l.
struct FwdTiles {
  float *q, *k, *v, *s;
};
struct FwdState {
  float *m, *l, *o;
};

struct AttentionBwd {
  AttentionShape shape;
  AttentionSplit split;
  RowsAny q, k, v;
  RowsAny y;
  const float* lse;
  RowsAny d_y;
  RowsOut d_q, d_k, d_v;
};
// Scratch of a thread: a tile of keys, of their scores, and the rows of a part.
struct BwdTiles {
  float *k_t, *v_t, *k, *d_k, *d_v;
  float *p, *d_s;
  float *q, *d_y, *d_q, *lse, *row_term;
};
// d_k and d_v of one part, where an item has several: to be added up.
struct BwdShare {
  float *d_k, *d_v;
};

// Hands out pieces of scratch memory, each on a cache line; without memory it only counts.
class Carver {
 public:
  explicit Carver(void* base) : base_(static_cast<char*>(base)) {}
  float* floats(int64_t n) {
    char* at = base_ == nullptr ? nullptr : base_ + used_;
    used_ += ceil_div(n * int64_t{sizeof(float)}, 64) * 64;
    return reinterpret_cast<float*>(at);
  }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

}  // namespace signround::kernels
