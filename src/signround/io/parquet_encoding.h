// The encodings of values inside a Parquet page.
// https://github.com/apache/parquet-format/blob/master/Encodings.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "signround/io/parquet_metadata.h"

namespace signround::parquet {

// A position in a page's bytes; reading beyond the end is Error{kCorruptFile} with `place`.
class PageBytes {
 public:
  PageBytes(std::span<const std::byte> bytes, const std::string& place)
      : bytes_(bytes), place_(&place) {}
  std::span<const std::byte> take(uint64_t size);
  std::span<const std::byte> rest() const { return bytes_; }
  uint64_t take_little_endian(int bytes);
  uint64_t take_varint();
  [[noreturn]] void corrupt(const std::string& what) const;

 private:
  std::span<const std::byte> bytes_;
  const std::string* place_;
};

// The hybrid of runs and bit-packed groups of 8, for levels and dictionary indices of `width` bits
// (0 to 32).
class RleReader {
 public:
  RleReader(PageBytes bytes, int width) : bytes_(bytes), width_(width) {}
  uint32_t next();

 private:
  void start_run();

  PageBytes bytes_;
  int width_;
  uint64_t left_ = 0;  // values of the current run
  bool packed_ = false;
  uint32_t value_ = 0;  // of a run
  uint64_t bits_ = 0;   // of a packed group: not yet handed out
  int bit_count_ = 0;
};

// DELTA_BINARY_PACKED integers, all at once. At most `most` of them, else kCorruptFile. Takes them
// off `bytes`.
std::vector<int64_t> read_delta_packed(PageBytes& bytes, int64_t most);

// Hands out a page's strings one after the other. A view is valid until the next call of next().
class StringReader {
 public:
  virtual ~StringReader() = default;
  virtual std::string_view next() = 0;
};

// `values`: how many there may be at most. `dictionary` outlives the reader.
std::unique_ptr<StringReader> make_string_reader(Encoding encoding, PageBytes bytes, int64_t values,
                                                 const std::vector<std::string_view>* dictionary);

}  // namespace signround::parquet
