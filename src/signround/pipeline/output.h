// One output folder: its files laid out in advance, its tensors written as they come, and read
// back.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "signround/formats/decode.h"
#include "signround/io/safetensors.h"
#include "signround/pipeline/plan.h"

namespace signround {

class OutputFolder {
 public:
  static constexpr int64_t kPiece = int64_t{16} << 20;  // bytes of a tensor that are copied at once
  // Lays out the shards of `plan` (resume: goes on with those that an earlier run laid out).
  // `unfinished` is where the partial shards lie until the end.
  OutputFolder(const FormatPlan& plan, bool resume);

  struct Written {
    uint64_t hash = 0;             // of the packed bytes
    int64_t rewritten_groups = 0;  // that the format holds in another, equal form
  };
  // Packs and writes a layer, decodes it again from the file by the independent reader, and
  // compares every integer, scale and zero point: Error{kInternal} names layer, row and column of
  // the first difference.
  Written write_layer(const FormatLayer& layer, QuantizedLinear linear);
  Written write_layer(const FormatLayer& layer, const Nf4Linear& linear);
  // Hash of what the file holds for the layer.
  uint64_t hash_of(const FormatLayer& layer);
  // The weight that the file holds for a quantized layer, (out, in) f32.
  void read_weight(const FormatLayer& layer, float* weight);
  // The integers, scales and zero points that the file holds for it. REQUIRES: a packed format.
  QuantizedLinear read_linear(const FormatLayer& layer);
  void copy(const Checkpoint& source, const TensorInfo& tensor);
  void sync();

  // Ledger: every tensor that was planned must have been written. Error{kInternal} names the first
  // that was not.
  void check_complete() const;
  // By the run that is being continued; `hash` is hash_of(layer).
  void mark_layer_written(const FormatLayer& layer, uint64_t hash);
  // Of all tensors that were written, quantized and copied.
  uint64_t checksum() const;
  // Renames the shards and writes the index, the extra files and, last of all, config.json.
  void finish(const Checkpoint& source, const std::vector<ExtraFile>& reports);
  const FormatPlan& plan() const { return plan_; }

 private:
  size_t shard_of(const std::string& tensor) const;
  SafetensorsFile& reader(size_t shard);
  std::filesystem::path shard_path(size_t shard) const;
  RawLayer raw_layer(const FormatLayer& layer);
  void release(const FormatLayer& layer);
  // Writes what a layer became, and returns its hash.
  uint64_t write_packed(const FormatLayer& layer, const std::vector<PackedTensor>& packed);
  void compare(const FormatLayer& layer, const QuantizedLinear& linear);
  void compare(const FormatLayer& layer, const Nf4Linear& linear);
  template <class Linear>
  void compare_weights(const FormatLayer& layer, const Linear& linear);
  // Error{kInternal} for the first value that is not what was tuned; `cols` values make a row.
  template <class Values>
  void compare_values(const FormatLayer& layer, const Values& found, const Values& tuned,
                      int64_t cols, const char* what) const;

  FormatPlan plan_;
  std::filesystem::path folder_;
  std::vector<SafetensorsWriter> shards_;
  std::vector<std::unique_ptr<SafetensorsFile>> readers_;
  std::unordered_map<std::string, size_t> shard_of_;
  std::set<std::string> written_;
  std::map<std::string, uint64_t> hashes_;  // of quantized layers and of copied tensors, by name
};

// The checksum of what a finished folder holds now. Error{kCorruptFile} if a file or a tensor of
// `plan` is not there or has another shape.
uint64_t checksum_of_finished(const FormatPlan& plan);

}  // namespace signround
