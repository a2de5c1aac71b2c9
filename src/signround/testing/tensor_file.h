// Golden values in a safetensors file, copied out by name.
#pragma once

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "signround/io/safetensors.h"

namespace signround::testing {

class TensorFile {
 public:
  explicit TensorFile(const std::filesystem::path& path) : file_(path) {}

  const TensorInfo& info(const std::string& name) const {
    return file_.tensors()[file_.find(name).value()];
  }
  template <class T>
  std::vector<T> values(const std::string& name) const {
    const auto bytes = file_.bytes(file_.find(name).value());
    std::vector<T> values(bytes.size() / sizeof(T));
    std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
    return values;
  }
  // A matrix of any float dtype.
  std::vector<float> floats(const std::string& name) const {
    std::vector<float> f;
    if (info(name).dtype == DType::kF32) return values<float>(name);
    if (info(name).dtype == DType::kF16)
      for (const F16 v : values<F16>(name)) f.push_back(to_f32(v));
    if (info(name).dtype == DType::kBF16)
      for (const BF16 v : values<BF16>(name)) f.push_back(to_f32(v));
    return f;
  }
  // A tensor of bytes that is a text.
  std::string text(const std::string& name) const {
    const auto bytes = file_.bytes(file_.find(name).value());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

 private:
  SafetensorsFile file_;
};

}  // namespace signround::testing
