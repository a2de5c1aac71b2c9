// A reader of Thrift's compact protocol, as far as Parquet's metadata needs it.
// https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace signround {

// Walks over bytes that may be hostile: anything that does not fit is Error{kCorruptFile} naming
// `where` and the position. Usage: for (Field f; reader.next_field(f);) { if (f.id == 3) x =
// reader.read_int(f); else reader.skip(f); } inside enter_struct() and leave_struct().
class ThriftReader {
 public:
  enum Type : uint8_t {
    kStop = 0,
    kTrue = 1,
    kFalse = 2,
    kByte = 3,
    kI16 = 4,
    kI32 = 5,
    kI64 = 6,
    kDouble = 7,
    kBinary = 8,
    kList = 9,
    kSet = 10,
    kMap = 11,
    kStruct = 12,
  };
  struct Field {
    int id = 0;
    uint8_t type = kStop;
  };
  struct List {
    int64_t size = 0;
    uint8_t type = kStop;  // of the elements
  };

  ThriftReader(std::span<const std::byte> bytes, std::string where)
      : bytes_(bytes), where_(std::move(where)) {}

  bool next_field(Field& field);  // false at the end of the struct
  bool read_bool(const Field& field);
  int64_t read_int(const Field& field);  // of any of the integer types
  std::string_view read_binary(const Field& field);
  List read_list(const Field& field,
                 uint8_t element_type);  // REQUIRES that type of its elements, or none of them
  int64_t read_element_int();
  std::string_view read_element_binary();
  void skip(const Field& field) { skip_value(field.type, 0, true); }

  // A nested struct counts its field ids from zero: save before, restore behind.
  int begin_struct();
  void end_struct(int saved) { last_id_ = saved; }
  int begin_struct(const Field& field);

  size_t position() const { return position_; }
  [[noreturn]] void corrupt(const std::string& what) const;

 private:
  uint8_t read_byte();
  uint64_t read_varint();
  int64_t read_zigzag();
  void skip_value(uint8_t type, int depth, bool is_field);
  List read_list_header();

  std::span<const std::byte> bytes_;
  std::string where_;
  size_t position_ = 0;
  int last_id_ = 0;
};

}  // namespace signround
