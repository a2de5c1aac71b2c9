#include "signround/io/parquet.h"

#include <zlib.h>

#include <bit>
#include <optional>

#include "signround/base/error.h"
#include "signround/io/parquet_codec.h"
#include "signround/io/parquet_encoding.h"

namespace signround {
namespace parquet {
namespace {

constexpr const char* kWhere = "parquet";
// Levels cost nothing in the file where all are equal, so these bound the work instead of the
// file's size.
constexpr int64_t kMostPageValues = int64_t{1} << 24;
constexpr int64_t kMostChunkValues = int64_t{1} << 26;
constexpr int64_t kMostRows = int64_t{1} << 28;
constexpr int64_t kMostRowBytes = int64_t{1} << 30;
constexpr size_t kMostRowStrings = size_t{1} << 20;

// One column chunk: its pages one after the other, values with their levels one after the other.
class ChunkReader {
 public:
  ChunkReader(std::span<const std::byte> bytes, const Leaf& leaf, const ColumnChunk& chunk,
              std::string place)
      : bytes_(bytes),
        leaf_(leaf),
        codec_(chunk.codec),
        left_(chunk.values),
        place_(std::move(place)) {}

  struct Value {
    bool begins_row = false;
    bool is_there = false;  // else a null or an empty list
    std::string_view text;
  };
  // False at the end of the chunk.
  bool next(Value& value) {
    if (left_ == 0) return false;
    while (page_left_ == 0) read_page();
    --left_, --page_left_;
    value.begins_row = !repetition_ || repetition_->next() == 0;
    value.is_there =
        !definition_ || definition_->next() == static_cast<uint32_t>(leaf_.max_definition);
    if (value.is_there) value.text = strings_->next();
    return true;
  }

 private:
  [[noreturn]] void corrupt(const std::string& what) const {
    fail(ErrorKind::kCorruptFile, kWhere, place_, ": ", what);
  }

  void read_page() {
    if (bytes_.empty()) corrupt("pages end " + std::to_string(left_) + " values too early");
    const PageHeader header = read_page_header(bytes_, place_);
    bytes_ = bytes_.subspan(static_cast<size_t>(header.header_size));
    if (header.compressed_size > static_cast<int64_t>(bytes_.size()))
      corrupt("a page of " + std::to_string(header.compressed_size) + " bytes, " +
              std::to_string(bytes_.size()) + " are left");
    const auto body = bytes_.first(static_cast<size_t>(header.compressed_size));
    bytes_ = bytes_.subspan(body.size());
    if (header.crc && *header.crc != crc32(0, reinterpret_cast<const Bytef*>(body.data()),
                                           static_cast<uInt>(body.size())))
      corrupt("a page's checksum is wrong");
    switch (header.type) {
      case PageType::kDictionary:
        return read_dictionary(header, body);
      case PageType::kData:
        return begin_page(header, PageBytes(plain_body(header, body, page_), place_));
      case PageType::kDataV2:
        return begin_page_v2(header, body);
      default:
        return;  // an index page holds no values
    }
  }

  // The page's bytes uncompressed, in `storage` unless the file holds them so.
  std::span<const std::byte> plain_body(const PageHeader& header, std::span<const std::byte> body,
                                        std::vector<std::byte>& storage) {
    if (codec_ == Codec::kUncompressed) return body;
    return unpack(header.uncompressed_size, body, storage);
  }

  std::span<const std::byte> unpack(int64_t size, std::span<const std::byte> body,
                                    std::vector<std::byte>& storage) {
    if (size > most_decompressed(codec_, static_cast<int64_t>(body.size())))
      corrupt("a page of " + std::to_string(body.size()) + " bytes claims to hold " +
              std::to_string(size));
    storage.resize(static_cast<size_t>(size));
    decompress(codec_, body, storage, place_);
    return storage;
  }

  void read_dictionary(const PageHeader& header, std::span<const std::byte> body) {
    PageBytes bytes(plain_body(header, body, dictionary_bytes_), place_);
    if (header.values > static_cast<int64_t>(bytes.rest().size() / 4))
      corrupt("a dictionary of " + std::to_string(header.values) + " strings in " +
              std::to_string(bytes.rest().size()) + " bytes");
    if (header.encoding != Encoding::kPlain && header.encoding != Encoding::kPlainDictionary)
      corrupt("a dictionary in encoding " + std::to_string(static_cast<int>(header.encoding)));
    const auto reader = make_string_reader(Encoding::kPlain, bytes, header.values, nullptr);
    dictionary_.clear();
    for (int64_t i = 0; i < header.values; ++i) dictionary_.push_back(reader->next());
    has_dictionary_ = true;
  }

  void check_values(const PageHeader& header) {
    if (header.values > left_ || header.values > kMostPageValues)
      corrupt("a page of " + std::to_string(header.values) + " values, " + std::to_string(left_) +
              " are left");
    page_left_ = header.values;
  }

  // Version 1: each kind of levels is preceded by its size in bytes.
  void begin_page(const PageHeader& header, PageBytes bytes) {
    check_values(header);
    const auto levels = [&](std::optional<RleReader>& out, int most) {
      out.reset();
      if (most == 0) return;
      const uint64_t size = bytes.take_little_endian(4);
      out.emplace(PageBytes(bytes.take(size), place_), std::bit_width(static_cast<unsigned>(most)));
    };
    levels(repetition_, leaf_.max_repetition);
    levels(definition_, leaf_.max_definition);
    begin_strings(header, bytes);
  }

  // Version 2: levels come first, uncompressed, their sizes are in the header.
  void begin_page_v2(const PageHeader& header, std::span<const std::byte> body) {
    check_values(header);
    PageBytes bytes(body, place_);
    const auto levels = [&](std::optional<RleReader>& out, int most, int64_t size) {
      const auto part = bytes.take(static_cast<uint64_t>(size));
      out.reset();
      if (most > 0)
        out.emplace(PageBytes(part, place_), std::bit_width(static_cast<unsigned>(most)));
    };
    levels(repetition_, leaf_.max_repetition, header.repetition_bytes);
    levels(definition_, leaf_.max_definition, header.definition_bytes);
    auto values = bytes.rest();
    const int64_t size =
        header.uncompressed_size - header.definition_bytes - header.repetition_bytes;
    if (size < 0) corrupt("a page smaller than its levels");
    if (codec_ != Codec::kUncompressed && header.is_compressed && !(values.empty() && size == 0))
      values = unpack(size, values, page_);
    begin_strings(header, PageBytes(values, place_));
  }

  void begin_strings(const PageHeader& header, PageBytes bytes) {
    // A page of nulls may leave its values out altogether.
    const bool is_delta = header.encoding == Encoding::kDeltaByteArray ||
                          header.encoding == Encoding::kDeltaLengthByteArray;
    const Encoding encoding = is_delta && bytes.rest().empty() ? Encoding::kPlain : header.encoding;
    strings_ = make_string_reader(encoding, bytes, header.values,
                                  has_dictionary_ ? &dictionary_ : nullptr);
  }

  std::span<const std::byte> bytes_;  // pages to come
  const Leaf& leaf_;
  Codec codec_;
  int64_t left_;  // values of the chunk
  int64_t page_left_ = 0;
  std::string place_;
  std::vector<std::byte> page_, dictionary_bytes_;
  std::vector<std::string_view> dictionary_;
  bool has_dictionary_ = false;
  std::optional<RleReader> repetition_, definition_;
  std::unique_ptr<StringReader> strings_;
};

}  // namespace
}  // namespace parquet

ParquetFile::ParquetFile(std::span<const std::byte> bytes, std::string source)
    : bytes_(bytes), source_(std::move(source)), footer_(parquet::read_footer(bytes, source_)) {
  if (footer_.rows > parquet::kMostRows)
    fail(ErrorKind::kUnsupported, parquet::kWhere, source_, ": ", footer_.rows, " rows, at most ",
         parquet::kMostRows);
}

const parquet::Leaf* ParquetFile::find(std::string_view path) const {
  for (const parquet::Leaf& leaf : footer_.leaves)
    if (leaf.path == path) return &leaf;
  return nullptr;
}

void ParquetFile::read_strings(const parquet::Leaf& column,
                               const std::function<bool(std::vector<std::string>&)>& row) const {
  using namespace parquet;
  const auto index = static_cast<size_t>(&column - footer_.leaves.data());
  if (column.type != Type::kByteArray || column.max_repetition > 1)
    fail(ErrorKind::kUnsupported, kWhere, source_, ": column '", column.path,
         "' does not hold strings or lists of them");
  std::vector<std::string> strings;
  for (size_t g = 0; g < footer_.groups.size(); ++g) {
    const RowGroup& group = footer_.groups[g];
    const ColumnChunk& chunk = group.columns[index];
    const std::string place =
        source_ + ", row group " + std::to_string(g) + ", column '" + column.path + "'";
    if (chunk.values > kMostChunkValues ||
        (column.max_repetition == 0 && chunk.values != group.rows))
      fail(ErrorKind::kCorruptFile, kWhere, place, ": ", chunk.values, " values in ", group.rows,
           " rows");
    ChunkReader reader(
        bytes_.subspan(static_cast<size_t>(chunk.offset), static_cast<size_t>(chunk.size)), column,
        chunk, place);
    int64_t rows = 0, bytes = 0;
    for (ChunkReader::Value value; reader.next(value);) {
      if (value.begins_row) {
        if (rows > 0 && !row(strings)) return;
        if (++rows > group.rows)
          fail(ErrorKind::kCorruptFile, kWhere, place, ": more than ", group.rows, " rows");
        strings.clear();
        bytes = 0;
      } else if (rows == 0) {
        fail(ErrorKind::kCorruptFile, kWhere, place, ": begins inside a row");
      }
      if (!value.is_there) continue;
      bytes += static_cast<int64_t>(value.text.size());
      if (bytes > kMostRowBytes || strings.size() >= kMostRowStrings)
        fail(ErrorKind::kCorruptFile, kWhere, place, ", row ", rows, ": more than ", kMostRowBytes,
             " bytes or ", kMostRowStrings, " strings");
      strings.emplace_back(value.text);
    }
    if (rows != group.rows)
      fail(ErrorKind::kCorruptFile, kWhere, place, ": ", rows, " rows, the row group says ",
           group.rows);
    if (rows > 0 && !row(strings)) return;
    strings.clear();
  }
}

}  // namespace signround
