// A Hugging Face folder: config.json, model.safetensors or shards with an index, and what else lies
// there.
#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "signround/base/error.h"
#include "signround/io/checkpoint.h"
#include "signround/io/convert.h"
#include "signround/io/file.h"
#include "signround/io/safetensors.h"

namespace signround {
namespace {

namespace fs = std::filesystem;

constexpr const char* kWhere = "checkpoint";
constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr int64_t kMaxConfig = 16 << 20, kMaxIndex = 256 << 20;

nlohmann::json read_json_object(const fs::path& path, int64_t max_bytes) {
  const std::string text = read_text_file(kWhere, path, max_bytes);
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(text);
  } catch (
      const nlohmann::json::exception& error) {  // its text has line, column and what was expected
    fail(ErrorKind::kCorruptFile, kWhere, path.string(),
         " is not valid JSON: ", excerpt(error.what(), 300));
  }
  if (!json.is_object())
    fail(ErrorKind::kCorruptFile, kWhere, path.string(), " is not a JSON object");
  return json;
}

bool is_weight_file(const std::string& name) {
  constexpr std::array<std::string_view, 8> kEndings = {".safetensors", ".bin",  ".pt", ".pth",
                                                        ".gguf",        ".onnx", ".h5", ".msgpack"};
  return name.ends_with(".index.json") ||
         std::any_of(kEndings.begin(), kEndings.end(),
                     [&](std::string_view e) { return name.ends_with(e); });
}

// config.json is written anew; the others belong to an earlier quantization or to an earlier run of
// this program.
bool is_not_carried_over(const std::string& name) {
  constexpr std::array<std::string_view, 5> kNames = {"config.json", "quantize_config.json",
                                                      "quantization_config.json", "signround.json",
                                                      "signround.md"};
  return name.starts_with('.') || std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

std::vector<std::string> regular_files(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;  // a dangling link is no file
    if (it->is_regular_file(ignored)) names.push_back(it->path().filename().string());
  }
  if (error) fail_io(kWhere, "list", folder, error.value());
  std::sort(names.begin(), names.end());
  return names;
}

// A folder below the model's that is a model of its own, or a result of this program.
bool is_another_model(const fs::path& folder) {
  std::error_code error;
  if (fs::exists(folder / ".signround", error) || fs::exists(folder / "signround.json", error))
    return true;
  return fs::exists(folder / "config.json", error) &&
         (fs::exists(folder / kSingleFile, error) || fs::exists(folder / kIndexFile, error));
}

// Files of `folder` that are carried over, with `prefix` in front of their names, and those in its
// folders.
void add_extra_files(const fs::path& folder, const std::string& prefix, int depth,
                     std::vector<ExtraFile>& extra) {
  for (const std::string& name : regular_files(folder))
    if (!is_weight_file(name) && !(prefix.empty() && is_not_carried_over(name)) &&
        !name.starts_with('.'))
      extra.push_back({prefix + name, folder / name, ""});
  if (depth == 0) return;
  std::vector<std::string> folders;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    std::error_code ignored;
    if (it->is_directory(ignored) && !it->is_symlink(ignored) && !name.starts_with('.') &&
        !is_another_model(it->path()))
      folders.push_back(name);
  }
  if (error) fail_io(kWhere, "list", folder, error.value());
  std::sort(folders.begin(), folders.end());
  for (const std::string& name : folders)
    add_extra_files(folder / name, prefix + name + "/", depth - 1, extra);
}

[[noreturn]] void fail_without_safetensors(const fs::path& folder) {
  std::string shard, other;
  for (const std::string& name : regular_files(folder)) {
    if (name.ends_with(".safetensors")) shard = name;
    if (name.ends_with(".bin") || name.ends_with(".pth") || name.ends_with(".pt")) other = name;
    if (name.ends_with(".gguf"))
      fail(ErrorKind::kUnsupported, kWhere, folder.string(),
           " has no safetensors weights; to read ", name,
           " give the file itself instead of its folder");
  }
  if (!shard.empty())
    fail(ErrorKind::kCorruptFile, kWhere, folder.string(), " has ", shard, " but neither ",
         kSingleFile, " nor ", kIndexFile, ": the index is missing, download it as well");
  if (!other.empty())
    fail(ErrorKind::kUnsupported, kWhere, folder.string(), " has its weights in ", other,
         ", a pickle, which this program does not read; convert it: load the model with "
         "transformers and "
         "save_pretrained(folder, safe_serialization=True)");
  fail(ErrorKind::kInvalidArgument, kWhere, folder.string(), " has no weights: neither ",
       kSingleFile, " nor ", kIndexFile);
}

// Tensor name -> shard, as the index says it.
std::map<std::string, std::string> read_weight_map(const fs::path& path) {
  const nlohmann::json index = read_json_object(path, kMaxIndex);
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object() || map->empty())
    fail(ErrorKind::kCorruptFile, kWhere, path.string(), " has no weight_map");
  std::map<std::string, std::string> shards;
  for (const auto& [tensor, value] : map->items()) {
    const std::string shard = value.is_string() ? value.get<std::string>() : std::string();
    if (shard.empty() || shard.find('/') != std::string::npos ||
        shard.find('\\') != std::string::npos || shard.find('\0') != std::string::npos ||
        shard.find("..") != std::string::npos)
      fail(ErrorKind::kCorruptFile, kWhere, path.string(), " says that tensor ", tensor, " is in ",
           value.dump(), ", expected the name of a file in the same folder");
    shards.emplace(tensor, shard);
  }
  return shards;
}

class HfCheckpoint : public Checkpoint {
 public:
  explicit HfCheckpoint(const fs::path& folder) : folder_(folder) {
    source_ = folder.string();
    std::error_code ignored;
    require(fs::is_directory(folder, ignored), kWhere, source_,
            " is not a folder, expected one with config.json and ", kSingleFile);
    require(fs::exists(folder / "config.json", ignored), kWhere, source_,
            " has no config.json: not a Hugging Face model folder");
    config_ = read_json_object(folder / "config.json", kMaxConfig);
    if (fs::exists(folder / kSingleFile, ignored)) {
      files_.push_back(std::make_unique<SafetensorsFile>(folder / kSingleFile));
    } else if (fs::exists(folder / kIndexFile, ignored)) {
      open_shards();
    } else {
      fail_without_safetensors(folder);
    }
    fill_tensors();
  }

  std::span<const std::byte> bytes(std::string_view name, std::vector<std::byte>&) const override {
    const auto [file, index] = place(name);
    return file->bytes(index);
  }

  void read_f32(std::string_view name, int64_t row, int64_t rows, float* out) const override {
    const auto [file, index] = place(name);
    const TensorInfo& info = file->tensors()[index];
    const int64_t total = info.shape.empty() ? 1 : info.shape[0];
    require(row >= 0 && rows >= 0 && row <= total && rows <= total - row, kWhere, "rows ", row,
            " to ", row + rows, " of tensor ", name, " were asked for, it has ", total);
    if (rows == 0) return;
    const int64_t columns = info.numel() / total;
    convert_to_f32(info.dtype, file->bytes(index).data() + row * columns * size_of(info.dtype),
                   rows * columns, out);
  }

  void release(std::string_view name) const override {
    const auto [file, index] = place(name);
    file->release(index);
  }

  std::vector<ExtraFile> extra_files() const override {
    constexpr int kDepth = 3;
    std::vector<ExtraFile> extra;
    add_extra_files(folder_, "", kDepth, extra);
    return extra;
  }

  int64_t bytes_on_disk() const override {
    int64_t sum = 0;
    for (const auto& file : files_) sum += file->file_bytes();
    return sum;
  }

 private:
  struct Place {
    const SafetensorsFile* file;
    size_t index;
  };

  void open_shards() {
    const std::map<std::string, std::string> weight_map = read_weight_map(folder_ / kIndexFile);
    std::set<std::string> shards;
    for (const auto& [tensor, shard] : weight_map) {
      std::error_code ignored;
      if (shards.insert(shard).second && !fs::exists(folder_ / shard, ignored))
        fail(ErrorKind::kCorruptFile, kWhere, source_, " lacks the shard ", shard, ", in which ",
             kIndexFile, " puts tensor ", tensor);
    }
    for (const std::string& shard : shards) {
      files_.push_back(std::make_unique<SafetensorsFile>(folder_ / shard));
      check_shard(shard, *files_.back(), weight_map);
    }
    // check_shard saw no stranger, so a tensor that is missing is missing in its own shard.
    std::map<std::string, const SafetensorsFile*> by_name;
    for (const auto& file : files_) by_name[file->path().filename().string()] = file.get();
    for (const auto& [tensor, shard] : weight_map)
      if (!by_name.at(shard)->find(tensor))
        fail(ErrorKind::kCorruptFile, kWhere, source_, ": ", kIndexFile, " puts tensor ", tensor,
             " in ", shard, ", which does not have it");
  }

  void check_shard(const std::string& shard, const SafetensorsFile& file,
                   const std::map<std::string, std::string>& weight_map) const {
    for (const TensorInfo& t : file.tensors()) {
      const auto found = weight_map.find(t.name);
      if (found == weight_map.end())
        fail(ErrorKind::kCorruptFile, kWhere, source_, ": ", shard, " has tensor ", t.name,
             ", which ", kIndexFile, " does not know");
      if (found->second != shard)
        fail(ErrorKind::kCorruptFile, kWhere, source_, ": tensor ", t.name, " is in ", shard,
             ", but ", kIndexFile, " puts it in ", found->second);
    }
  }

  void fill_tensors() {
    std::vector<TensorInfo> tensors;
    for (const auto& file : files_)
      for (size_t i = 0; i < file->tensors().size(); ++i) {
        tensors.push_back(file->tensors()[i]);
        places_.push_back({file.get(), i});
      }
    if (tensors.empty())
      fail(ErrorKind::kCorruptFile, kWhere, source_, " has no tensor in its weight files");
    set_tensors(std::move(tensors));
  }

  Place place(std::string_view name) const {
    return places_[static_cast<size_t>(&at(name) - this->tensors().data())];
  }

  fs::path folder_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::vector<Place> places_;  // of tensors(), in the same order
};

}  // namespace

std::unique_ptr<Checkpoint> open_hf_checkpoint(const fs::path& folder) {
  return std::make_unique<HfCheckpoint>(folder);
}

}  // namespace signround
