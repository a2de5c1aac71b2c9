#include "signround/io/thrift_compact.h"

#include "signround/base/error.h"

namespace signround {
namespace {

constexpr int kDeepest = 32;  // nesting of what is skipped

}  // namespace

void ThriftReader::corrupt(const std::string& what) const {
  fail(ErrorKind::kCorruptFile, "parquet", where_, ", metadata byte ", position_, ": ", what);
}

uint8_t ThriftReader::read_byte() {
  if (position_ >= bytes_.size()) corrupt("ends too early");
  return static_cast<uint8_t>(bytes_[position_++]);
}

uint64_t ThriftReader::read_varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const uint8_t byte = read_byte();
    if (shift == 63 && byte > 1) break;
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (!(byte & 0x80)) return value;
  }
  corrupt("a number has more than 64 bits");
}

int64_t ThriftReader::read_zigzag() {
  const uint64_t value = read_varint();
  return static_cast<int64_t>(value >> 1) ^ -static_cast<int64_t>(value & 1);
}

bool ThriftReader::next_field(Field& field) {
  const uint8_t header = read_byte();
  field.type = header & 15;
  if (field.type == kStop) return false;
  if (header >> 4) {
    field.id = last_id_ + (header >> 4);
  } else {
    const int64_t id = read_zigzag();
    if (id < 0 || id > INT16_MAX) corrupt("field number " + std::to_string(id));
    field.id = static_cast<int>(id);
  }
  if (field.id > INT16_MAX) corrupt("field number " + std::to_string(field.id));
  last_id_ = field.id;
  return true;
}

bool ThriftReader::read_bool(const Field& field) {
  if (field.type != kTrue && field.type != kFalse) corrupt("expected a bool");
  return field.type == kTrue;
}

int64_t ThriftReader::read_int(const Field& field) {
  if (field.type == kByte) return static_cast<int8_t>(read_byte());
  if (field.type < kI16 || field.type > kI64) corrupt("expected an integer");
  return read_zigzag();
}

std::string_view ThriftReader::read_binary(const Field& field) {
  if (field.type != kBinary) corrupt("expected a string");
  return read_element_binary();
}

std::string_view ThriftReader::read_element_binary() {
  const uint64_t size = read_varint();
  if (size > bytes_.size() - position_)
    corrupt("a string of " + std::to_string(size) + " bytes does not fit");
  const auto* data = reinterpret_cast<const char*>(bytes_.data() + position_);
  position_ += size;
  return {data, static_cast<size_t>(size)};
}

int64_t ThriftReader::read_element_int() { return read_zigzag(); }

ThriftReader::List ThriftReader::read_list_header() {
  const uint8_t header = read_byte();
  List list{header >> 4, static_cast<uint8_t>(header & 15)};
  if (list.size == 15) {
    const uint64_t size = read_varint();
    // An element takes a byte at least.
    if (size > bytes_.size() - position_)
      corrupt("a list of " + std::to_string(size) + " does not fit");
    list.size = static_cast<int64_t>(size);
  }
  return list;
}

ThriftReader::List ThriftReader::read_list(const Field& field, uint8_t element_type) {
  if (field.type != kList && field.type != kSet) corrupt("expected a list");
  const List list = read_list_header();
  if (list.size > 0 && list.type != element_type)
    corrupt("a list of type " + std::to_string(list.type));
  return list;
}

int ThriftReader::begin_struct() {
  const int saved = last_id_;
  last_id_ = 0;
  return saved;
}

int ThriftReader::begin_struct(const Field& field) {
  if (field.type != kStruct) corrupt("expected a struct");
  return begin_struct();
}

void ThriftReader::skip_value(uint8_t type, int depth, bool is_field) {
  if (depth > kDeepest) corrupt("nests too deep");
  switch (type) {
    case kTrue:
    case kFalse:
      if (!is_field) read_byte();  // a field's value is its type
      return;
    case kByte:
      read_byte();
      return;
    case kI16:
    case kI32:
    case kI64:
      read_varint();
      return;
    case kDouble:
      for (int i = 0; i < 8; ++i) read_byte();
      return;
    case kBinary:
      read_element_binary();
      return;
    case kList:
    case kSet: {
      const List list = read_list_header();
      for (int64_t i = 0; i < list.size; ++i) skip_value(list.type, depth + 1, false);
      return;
    }
    case kMap: {
      const uint64_t size = read_varint();
      if (size > bytes_.size() - position_)
        corrupt("a map of " + std::to_string(size) + " does not fit");
      const uint8_t types = size ? read_byte() : 0;
      for (uint64_t i = 0; i < size; ++i) {
        skip_value(types >> 4, depth + 1, false);
        skip_value(types & 15, depth + 1, false);
      }
      return;
    }
    case kStruct: {
      const int saved = begin_struct();
      for (Field field; next_field(field);) skip_value(field.type, depth + 1, true);
      end_struct(saved);
      return;
    }
    default:
      corrupt("unknown type " + std::to_string(type));
  }
}

}  // namespace signround
