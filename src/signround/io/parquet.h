// The text columns of Parquet files, which is how the Hub stores most data sets.
//
// Why our own reader: Debian 12 has no Arrow C++ and no other C++ Parquet library, and Arrow would
// be by far the largest dependency of the program for what are strings out of one column. Read are
// BYTE_ARRAY columns, flat or one list deep: pages of version 1 and 2; plain, dictionary and the
// three delta encodings; uncompressed, Snappy, gzip, zstd, LZ4_RAW; page checksums are verified.
// Brotli, LZO, the old LZ4 framing and encryption are kUnsupported. Hostile files are refused
// (kCorruptFile) before memory is taken for what they claim.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "signround/io/parquet_metadata.h"

namespace signround {

class ParquetFile {
 public:
  // `bytes` is the whole file and must outlive this; `source` is for messages.
  ParquetFile(std::span<const std::byte> bytes, std::string source);

  int64_t row_count() const { return footer_.rows; }
  std::span<const parquet::Leaf> columns() const { return footer_.leaves; }
  // The column at this path: "text", or "messages.list.element.content" inside a list. nullptr:
  // there is none.
  const parquet::Leaf* find(std::string_view path) const;

  // Calls `row` for every row in order with the strings that are in it: none or one of a flat
  // column, any number of a list; nulls are left out. The strings may be moved from. Stops when
  // `row` returns false. Error{kUnsupported} for a column that does not hold strings or is more
  // than one list deep.
  void read_strings(const parquet::Leaf& column,
                    const std::function<bool(std::vector<std::string>&)>& row) const;

 private:
  std::span<const std::byte> bytes_;
  std::string source_;
  parquet::Footer footer_;
};

}  // namespace signround
