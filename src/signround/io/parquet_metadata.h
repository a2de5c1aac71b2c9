// What a Parquet file says about itself: its footer and the headers of its pages.
// https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace signround::parquet {

enum class Type {
  kBoolean,
  kInt32,
  kInt64,
  kInt96,
  kFloat,
  kDouble,
  kByteArray,
  kFixedLenByteArray
};
enum class Codec { kUncompressed, kSnappy, kGzip, kLzo, kBrotli, kLz4, kZstd, kLz4Raw };
enum class Encoding {
  kPlain = 0,
  kPlainDictionary = 2,
  kRle = 3,
  kBitPacked = 4,
  kDeltaBinaryPacked = 5,
  kDeltaLengthByteArray = 6,
  kDeltaByteArray = 7,
  kRleDictionary = 8,
  kByteStreamSplit = 9,
};
enum class PageType { kData, kIndex, kDictionary, kDataV2 };

// A leaf of the schema. A value of definition level max_definition is there; a lower level is a
// null (or an empty list); repetition level 0 begins a row.
struct Leaf {
  std::string path;  // "text", "messages.list.element.content"
  Type type = Type::kByteArray;
  int max_definition = 0;
  int max_repetition = 0;
};

struct ColumnChunk {
  Codec codec = Codec::kUncompressed;
  int64_t values = 0;  // levels, nulls included
  int64_t offset = 0;  // of the first page
  int64_t size = 0;    // of all pages
};

struct RowGroup {
  int64_t rows = 0;
  std::vector<ColumnChunk> columns;  // one per leaf
};

struct Footer {
  int64_t rows = 0;
  std::vector<Leaf> leaves;
  std::vector<RowGroup> groups;
};

struct PageHeader {
  PageType type = PageType::kData;
  int64_t header_size = 0;
  int64_t uncompressed_size = 0, compressed_size = 0;
  std::optional<uint32_t> crc;
  int64_t values = 0;
  Encoding encoding = Encoding::kPlain;
  int64_t definition_bytes = 0, repetition_bytes = 0;  // version 2
  bool is_compressed = true;                           // version 2
};

// The whole file's bytes in. Error{kCorruptFile} for what breaks the format, kUnsupported for
// encryption.
Footer read_footer(std::span<const std::byte> file, const std::string& source);
// The header at the start of `bytes`, which end where the column chunk ends.
PageHeader read_page_header(std::span<const std::byte> bytes, const std::string& place);

}  // namespace signround::parquet
