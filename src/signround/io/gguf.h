// GGUF: magic, version, counts, metadata, tensor table, then the tensors' bytes, each at a multiple
// of the alignment. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and
// docs/formats/gguf.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "signround/io/gguf_blocks.h"
#include "signround/io/mapped_file.h"

namespace signround {

enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// A metadata value; views point into the mapped file. A scalar is a sequence of one.
struct GgufValue {
  GgufType type = GgufType::kU8;  // of the elements
  bool is_array = false;
  int64_t count = 1;
  std::span<const std::byte> numbers;  // count elements of any alignment; empty for strings
  std::vector<std::string_view>
      strings;  // count of them where type is kString; bytes, not checked to be UTF-8
};

struct GgufTensor {
  std::string name;
  GgmlType type = GgmlType::kF32;
  std::vector<int64_t> shape;  // row-major: the reverse of the order in the file
  int64_t offset = 0;          // in the file
  int64_t bytes = 0;

  int64_t columns() const { return shape.empty() ? 1 : shape.back(); }
  int64_t rows() const;  // all other dimensions together
};

// Reader of versions 2 and 3, little endian. Everything is checked against the file before it is
// trusted: Error{kCorruptFile} with file, byte offset and reason; Error{kUnsupported} for versions,
// types and parts of split files that this program does not read.
class GgufFile {
 public:
  explicit GgufFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  int64_t file_bytes() const { return file_.size(); }
  uint32_t version() const { return version_; }

  // nullptr or nullopt: there is no such key. A value of another type than asked for is
  // Error{kCorruptFile}.
  const GgufValue* find(std::string_view key) const;
  std::optional<int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;  // a float, or an integer
  std::optional<bool> flag(std::string_view key) const;
  std::optional<std::string_view> text(std::string_view key) const;
  std::span<const std::string_view> strings(
      std::string_view key) const;                             // empty if there is no such key
  std::vector<int64_t> integers(std::string_view key) const;   // so here
  std::vector<float> floats(std::string_view key) const;       // and here
  std::span<const std::string> keys() const { return keys_; }  // in file order

  std::span<const GgufTensor> tensors() const { return tensors_; }  // in file order
  const GgufTensor* find_tensor(std::string_view name) const;
  std::span<const std::byte> bytes(const GgufTensor& tensor) const {
    return file_.bytes().subspan(static_cast<size_t>(tensor.offset),
                                 static_cast<size_t>(tensor.bytes));
  }
  void release(const GgufTensor& tensor) const { file_.release(tensor.offset, tensor.bytes); }

 private:
  class Cursor;
  void read_metadata(Cursor& cursor, int64_t count);
  void read_tensors(Cursor& cursor, int64_t count);
  void place_tensors(int64_t table_end);
  void check_overlaps() const;

  MappedFile file_;
  uint32_t version_ = 0;
  std::vector<std::string> keys_;
  std::unordered_map<std::string, GgufValue> values_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string, size_t> index_;
};

}  // namespace signround
