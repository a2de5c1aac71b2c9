// Writes GGUF files piece by piece, sound ones and broken ones.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace signround::testing {

class GgufBuilder {
 public:
  template <class T>
  static std::string raw(T value) {
    std::string bytes(sizeof(T), '\0');
    std::memcpy(bytes.data(), &value, sizeof(T));
    return bytes;
  }
  static std::string raw_string(std::string_view text) {
    return raw<uint64_t>(text.size()) + std::string(text);
  }
  // The type number that GGUF gives to T.
  template <class T>
  static constexpr uint32_t type_of() {
    if (std::is_same_v<T, uint8_t>) return 0;
    if (std::is_same_v<T, int8_t>) return 1;
    if (std::is_same_v<T, uint16_t>) return 2;
    if (std::is_same_v<T, int16_t>) return 3;
    if (std::is_same_v<T, uint32_t>) return 4;
    if (std::is_same_v<T, int32_t>) return 5;
    if (std::is_same_v<T, float>) return 6;
    if (std::is_same_v<T, bool>) return 7;
    if (std::is_same_v<T, uint64_t>) return 10;
    if (std::is_same_v<T, int64_t>) return 11;
    return 12;
  }

  template <class T>
  GgufBuilder& value(const std::string& key, T v) {
    return raw_value(key, type_of<T>(), raw(v));
  }
  GgufBuilder& text(const std::string& key, std::string_view v) {
    return raw_value(key, 8, raw_string(v));
  }
  template <class T>
  GgufBuilder& array(const std::string& key, const std::vector<T>& v) {
    std::string bytes = raw(type_of<T>()) + raw<uint64_t>(v.size());
    for (T x : v) bytes += raw(x);
    return raw_value(key, 9, bytes);
  }
  GgufBuilder& strings(const std::string& key, const std::vector<std::string>& v) {
    std::string bytes = raw<uint32_t>(8) + raw<uint64_t>(v.size());
    for (const std::string& s : v) bytes += raw_string(s);
    return raw_value(key, 9, bytes);
  }
  GgufBuilder& raw_value(const std::string& key, uint32_t type, const std::string& bytes) {
    metadata_ += raw_string(key) + raw(type) + bytes;
    ++values;
    return *this;
  }
  // `dims` in the file's order: the fastest first.
  GgufBuilder& tensor(const std::string& name, std::vector<uint64_t> dims, uint32_t type,
                      const std::string& bytes) {
    return raw_tensor(name, dims, type, data_.size(), bytes);
  }
  GgufBuilder& raw_tensor(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type,
                          uint64_t offset, const std::string& bytes) {
    table_ += raw_string(name) + raw(static_cast<uint32_t>(dims.size()));
    for (uint64_t d : dims) table_ += raw(d);
    table_ += raw(type) + raw(offset);
    data_ += bytes;
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
    ++tensors;
    return *this;
  }

  std::string bytes() const {
    std::string out = "GGUF" + raw(version) + raw(tensors) + raw(values) + metadata_ + table_;
    out.resize((out.size() + alignment - 1) / alignment * alignment);
    return out + data_;
  }

  uint32_t version = 3;
  uint64_t tensors = 0, values = 0;  // as the header will say; may be set to lie
  size_t alignment = 32;

 private:
  std::string metadata_, table_, data_;
};

}  // namespace signround::testing
