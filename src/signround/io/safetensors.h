// safetensors: 8 bytes of header length (little endian), a JSON header, the tensors' bytes without
// gaps. Format: https://github.com/huggingface/safetensors#format and docs/formats/safetensors.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "signround/io/file.h"
#include "signround/io/mapped_file.h"
#include "signround/tensor/tensor.h"

namespace signround {

using SafetensorsMetadata = std::map<std::string, std::string>;

// Reader. The constructor checks the whole header against the file, so what tensors() says can be
// trusted. Error{kCorruptFile} names file, byte offset and reason; Error{kUnsupported} names a
// dtype that is not known.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  int64_t file_bytes() const { return file_.size(); }
  const SafetensorsMetadata& metadata() const { return metadata_; }
  std::span<const TensorInfo> tensors() const { return tensors_; }  // in the order of their bytes
  std::optional<size_t> find(std::string_view name) const;          // index into tensors()

  std::span<const std::byte> bytes(size_t index) const;  // any alignment: old writers did not pad
  void release(size_t index) const;

 private:
  MappedFile file_;
  SafetensorsMetadata metadata_;
  std::vector<TensorInfo> tensors_;
  std::vector<int64_t> offsets_;  // of each tensor's first byte in the file
  std::unordered_map<std::string, size_t> index_;
};

// Biggest elements first, else in the given order: then every tensor is aligned to its element,
// which loaders that view the file's bytes as typed arrays insist on, and which SafetensorsWriter
// requires.
std::vector<TensorInfo> sorted_for_alignment(std::vector<TensorInfo> tensors);

// What SafetensorsWriter::create will make of them.
int64_t safetensors_file_size(std::span<const TensorInfo> tensors,
                              const SafetensorsMetadata& metadata = {{"format", "pt"}});

// Writer of a file whose layout is known before the first tensor is. Tensors lie in the given
// order; any thread may write any part at any time. The file is `path`.partial until finish().
class SafetensorsWriter {
 public:
  // Creates `path`.partial (one that is there is lost), reserves all of its bytes on disk and
  // writes the header. Error{kIo} if the disk cannot hold it.
  static SafetensorsWriter create(const std::filesystem::path& path,
                                  std::vector<TensorInfo> tensors,
                                  const SafetensorsMetadata& metadata = {{"format", "pt"}});
  // Goes on with the `path`.partial of an earlier process. Error{kBusy} if its header is not the
  // one that create() would write, byte for byte: then it belongs to another run.
  static SafetensorsWriter reopen(const std::filesystem::path& path,
                                  std::vector<TensorInfo> tensors,
                                  const SafetensorsMetadata& metadata = {{"format", "pt"}});

  const std::filesystem::path& partial_path() const {
    return partial_path_;
  }  // SafetensorsFile can read it
  std::span<const TensorInfo> tensors() const { return tensors_; }

  void write(std::string_view name, std::span<const std::byte> bytes);  // all of the tensor
  void write_at(std::string_view name, int64_t offset,
                std::span<const std::byte> bytes);  // from its byte `offset`
  void sync();                                      // what was written so far survives a power cut
  void finish();  // sync, then `path`.partial becomes `path`; nothing can be written any more

 private:
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorInfo> tensors,
                    const SafetensorsMetadata& metadata);

  std::filesystem::path path_, partial_path_;
  std::vector<TensorInfo> tensors_;
  std::vector<int64_t> offsets_;  // in the file
  std::unordered_map<std::string, size_t> index_;
  std::string header_;  // with its length in front
  int64_t file_bytes_ = 0;
  FileDescriptor file_;
};

// model.safetensors.index.json of a checkpoint in several files.
struct SafetensorsShard {
  std::string file_name;
  std::vector<TensorInfo> tensors;
};
nlohmann::json make_index_json(std::span<const SafetensorsShard> shards);

}  // namespace signround
