#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "signround/base/error.h"
#include "signround/io/safetensors.h"

namespace signround {
namespace {

constexpr const char* kWhere = "safetensors";

// {"__metadata__":{...},"name":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},...}, padded
// with spaces so that the data begins at a multiple of 8, with its length in front.
std::string make_header(std::span<const TensorInfo> tensors, const SafetensorsMetadata& metadata) {
  std::string json = "{";
  try {
    if (!metadata.empty()) json += "\"__metadata__\":" + nlohmann::json(metadata).dump();
    int64_t offset = 0;
    for (const TensorInfo& t : tensors) {
      if (json.size() > 1) json += ',';
      const int64_t end = offset + t.nbytes();
      json += nlohmann::json(t.name).dump() + ":{\"dtype\":\"" + std::string(name_of(t.dtype)) +
              "\",\"shape\":" + nlohmann::json(t.shape).dump() + ",\"data_offsets\":[" +
              std::to_string(offset) + ',' + std::to_string(end) + "]}";
      offset = end;
    }
  } catch (const nlohmann::json::exception& error) {  // a name or a value that is not UTF-8
    fail(ErrorKind::kInvalidArgument, kWhere, "the header cannot be written: ", error.what());
  }
  json += '}';
  json.resize((json.size() + 7) / 8 * 8, ' ');
  std::string header(8, '\0');
  for (size_t i = 0; i < 8; ++i) header[i] = static_cast<char>(json.size() >> (8 * i) & 255);
  return header + json;
}

std::vector<int64_t> checked_offsets(std::span<const TensorInfo> tensors) {
  std::vector<int64_t> offsets;
  int64_t offset = 0;
  for (const TensorInfo& t : tensors) {
    int64_t bytes = size_of(t.dtype);
    for (int64_t dim : t.shape)
      require(dim >= 0 && !__builtin_mul_overflow(bytes, dim, &bytes), kWhere, "tensor ", t.name,
              " has the impossible shape ", shape_text(t.shape));
    require(t.name != "__metadata__", kWhere, "a tensor cannot be called __metadata__");
    require(offset % size_of(t.dtype) == 0, kWhere, "tensor ", t.name, " of ", name_of(t.dtype),
            " would begin at byte ", offset,
            " of the data, which is not aligned: use sorted_for_alignment");
    offsets.push_back(offset);
    require(!__builtin_add_overflow(offset, bytes, &offset), kWhere,
            "the tensors' sizes overflow 63 bits");
  }
  offsets.push_back(offset);
  return offsets;
}

}  // namespace

std::vector<TensorInfo> sorted_for_alignment(std::vector<TensorInfo> tensors) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return size_of(a.dtype) > size_of(b.dtype);
  });
  return tensors;
}

int64_t safetensors_file_size(std::span<const TensorInfo> tensors,
                              const SafetensorsMetadata& metadata) {
  const int64_t data = checked_offsets(tensors).back();
  return static_cast<int64_t>(make_header(tensors, metadata).size()) + data;
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     std::vector<TensorInfo> tensors,
                                     const SafetensorsMetadata& metadata)
    : path_(path),
      partial_path_(path),
      tensors_(std::move(tensors)),
      offsets_(checked_offsets(tensors_)) {
  partial_path_ += ".partial";
  header_ = make_header(tensors_, metadata);
  for (int64_t& offset : offsets_) offset += static_cast<int64_t>(header_.size());
  file_bytes_ = offsets_.back();
  for (size_t i = 0; i < tensors_.size(); ++i)
    require(index_.emplace(tensors_[i].name, i).second, kWhere, "tensor ", tensors_[i].name,
            " comes twice");
}

SafetensorsWriter SafetensorsWriter::create(const std::filesystem::path& path,
                                            std::vector<TensorInfo> tensors,
                                            const SafetensorsMetadata& metadata) {
  SafetensorsWriter writer(path, std::move(tensors), metadata);
  const auto& partial = writer.partial_path_;
  writer.file_ =
      FileDescriptor(::open(partial.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (!writer.file_.is_open())
    fail_io(kWhere, "create a file of " + std::to_string(writer.file_bytes_) + " bytes at", partial,
            errno);
  try {
    reserve_space(kWhere, writer.file_, partial, writer.file_bytes_);
    write_fully(kWhere, writer.file_, partial, std::as_bytes(std::span(writer.header_)), 0);
    sync_folder_of(kWhere, partial);
  } catch (...) {
    ::unlink(partial.c_str());  // give back what could be reserved of a disk that is too small
    throw;
  }
  return writer;
}

SafetensorsWriter SafetensorsWriter::reopen(const std::filesystem::path& path,
                                            std::vector<TensorInfo> tensors,
                                            const SafetensorsMetadata& metadata) {
  SafetensorsWriter writer(path, std::move(tensors), metadata);
  const auto& partial = writer.partial_path_;
  writer.file_ = FileDescriptor(::open(partial.c_str(), O_RDWR | O_CLOEXEC));
  if (!writer.file_.is_open()) fail_io(kWhere, "open", partial, errno);
  const int64_t size = size_of_file(kWhere, writer.file_, partial);
  std::string found(writer.header_.size(), '\0');
  const bool same = size == writer.file_bytes_ &&
                    pread(writer.file_.get(), found.data(), found.size(), 0) ==
                        static_cast<ssize_t>(found.size()) &&
                    found == writer.header_;
  if (!same)
    fail(ErrorKind::kBusy, kWhere, partial.string(), " (", size,
         " bytes) was begun with other tensors or settings, expected ", writer.file_bytes_,
         " bytes and the same header: remove it or choose another folder");
  return writer;
}

void SafetensorsWriter::write(std::string_view name, std::span<const std::byte> bytes) {
  const auto found = index_.find(std::string(name));
  require(found == index_.end() ||
              static_cast<int64_t>(bytes.size()) == tensors_[found->second].nbytes(),
          kWhere, "tensor ", name, " was given ", bytes.size(), " bytes, other than its size, for ",
          path_.string());
  write_at(name, 0, bytes);
}

void SafetensorsWriter::write_at(std::string_view name, int64_t offset,
                                 std::span<const std::byte> bytes) {
  require(file_.is_open(), kWhere, path_.string(), " is finished, nothing can be written to it");
  const auto found = index_.find(std::string(name));
  require(found != index_.end(), kWhere, "tensor ", name, " is not in the layout of ",
          path_.string());
  const int64_t size = tensors_[found->second].nbytes(), count = static_cast<int64_t>(bytes.size());
  require(offset >= 0 && count <= size && offset <= size - count, kWhere, count, " bytes at ",
          offset, " of tensor ", name, " of ", path_.string(), ", which has ", size);
  write_fully(kWhere, file_, partial_path_, bytes, offsets_[found->second] + offset);
}

void SafetensorsWriter::sync() { sync_file(kWhere, file_, partial_path_); }

void SafetensorsWriter::finish() {
  require(file_.is_open(), kWhere, path_.string(), " is finished already");
  sync();
  if (std::rename(partial_path_.c_str(), path_.c_str()) != 0)
    fail_io(kWhere, "rename " + partial_path_.string() + " to", path_, errno);
  file_.close();
  sync_folder_of(kWhere, path_);
}

nlohmann::json make_index_json(std::span<const SafetensorsShard> shards) {
  int64_t total = 0;
  nlohmann::json map = nlohmann::json::object();
  for (const SafetensorsShard& shard : shards)
    for (const TensorInfo& t : shard.tensors) {
      total += t.nbytes();
      require(map.emplace(t.name, shard.file_name).second, kWhere, "tensor ", t.name,
              " is in two shards");
    }
  return {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(map)}};
}

}  // namespace signround
