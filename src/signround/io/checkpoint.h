// A model's checkpoint as the rest of the program sees it: named tensors, a config, and the files beside them,
// whether it lies in a Hugging Face folder (safetensors) or in a GGUF file.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "signround/tensor/tensor.h"

namespace signround {

// A file that travels with the weights: copied from `path`, or written from `content` where path is empty.
struct ExtraFile {
  std::string name;
  std::filesystem::path path;
  std::string content;
};

// Read-only and thread-safe. Tensors are memory-mapped: reading touches only the pages of what is read.
class Checkpoint {
 public:
  virtual ~Checkpoint() = default;

  const std::string& source() const { return source_; }           // path, for messages
  const nlohmann::json& config() const { return config_; }        // config.json, or its equivalent
  std::span<const TensorInfo> tensors() const { return tensors_; }  // in file order; names as Hugging Face's
  const TensorInfo* find(std::string_view name) const;            // nullptr: there is none
  const TensorInfo& at(std::string_view name) const;              // Error{kCorruptFile} naming the tensor and the source

  // The tensor's bytes in the dtype that tensors() says. Points into the mapped file where the file holds them
  // so; else they are produced in `scratch`.
  virtual std::span<const std::byte> bytes(std::string_view name, std::vector<std::byte>& scratch) const = 0;
  // Rows [row, row + rows) of the tensor seen as (shape[0], product of the rest), as f32. Any float dtype.
  virtual void read_f32(std::string_view name, int64_t row, int64_t rows, float* out) const = 0;
  // Tells the system that the tensor's pages will not be needed again soon.
  virtual void release(std::string_view name) const = 0;
  // Everything that is neither weights nor config.json: tokenizer, generation config, licence, code, ...; names with
  // a '/' lie in a folder. Models of their own in such a folder are left out.
  virtual std::vector<ExtraFile> extra_files() const = 0;
  // Bytes of the weight files on disk.
  virtual int64_t bytes_on_disk() const = 0;

  std::vector<float> read_all_f32(std::string_view name) const;

 protected:
  void set_tensors(std::vector<TensorInfo> tensors);  // fills the index; a name that comes twice is kCorruptFile
  std::string source_;
  nlohmann::json config_;

 private:
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string, size_t> index_;
};

// A folder with config.json and model.safetensors, or shards named by model.safetensors.index.json (checked: every
// shard and every tensor that the index names must exist; a tensor in two shards is an error).
std::unique_ptr<Checkpoint> open_hf_checkpoint(const std::filesystem::path& folder);

}  // namespace signround
