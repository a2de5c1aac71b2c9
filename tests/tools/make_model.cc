// make_model MODEL OUT [changes]: a copy of a checkpoint, changed.
//   --set TENSOR INDEX VALUE   one element (nan, inf and -inf are values)
//   --drop TENSOR              leaves a tensor out
//   --reshape TENSOR AxBx...   another shape of as many elements
//   --dtype NAME               converts all tensors to F32 or BF16
//   --shards N                 several files and an index
#include <cstring>
#include <filesystem>
#include <iostream>
#include <map>
#include <set>

#include "signround/base/error.h"
#include "signround/io/atomic_file.h"
#include "signround/io/checkpoint.h"
#include "signround/io/safetensors.h"

namespace signround {
namespace {

namespace fs = std::filesystem;

struct Changes {
  std::map<std::string, std::map<int64_t, float>> values;
  std::set<std::string> dropped;
  std::map<std::string, std::vector<int64_t>> shapes;
  DType dtype = DType::kF32;
  size_t shards = 1;
};

std::vector<int64_t> parse_shape(const std::string& text) {
  std::vector<int64_t> shape;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('x', at), text.size());
    shape.push_back(std::stoll(text.substr(at, end - at)));
    at = end + 1;
  }
  return shape;
}

Changes parse_changes(std::vector<std::string> words) {
  Changes changes;
  size_t at = 0;
  const auto next = [&]() -> const std::string& {
    require(at < words.size(), "make_model", "a value is missing behind ", words.back());
    return words[at++];
  };
  while (at < words.size()) {
    const std::string flag = next();
    if (flag == "--set") {
      const std::string tensor = next();
      const int64_t index = std::stoll(next());
      changes.values[tensor][index] = std::stof(next());
    } else if (flag == "--drop") {
      changes.dropped.insert(next());
    } else if (flag == "--reshape") {
      const std::string tensor = next();
      changes.shapes[tensor] = parse_shape(next());
    } else if (flag == "--dtype") {
      changes.dtype = next() == "BF16" ? DType::kBF16 : DType::kF32;
    } else if (flag == "--shards") {
      changes.shards = std::stoul(next());
    } else {
      fail(ErrorKind::kInvalidArgument, "make_model", "unknown flag ", flag);
    }
  }
  return changes;
}

std::vector<std::byte> changed_bytes(const Checkpoint& source, const TensorInfo& info,
                                     const Changes& changes) {
  const int64_t rows = info.shape.empty() ? 1 : info.shape[0];
  std::vector<float> values(static_cast<size_t>(info.numel()));
  source.read_f32(info.name, 0, rows, values.data());
  if (const auto found = changes.values.find(info.name); found != changes.values.end())
    for (const auto& [index, value] : found->second) values.at(static_cast<size_t>(index)) = value;
  std::vector<std::byte> bytes(values.size() * static_cast<size_t>(size_of(changes.dtype)));
  for (size_t i = 0; i < values.size(); ++i) {
    uint32_t bits;
    std::memcpy(&bits, &values[i], 4);
    const uint16_t upper = static_cast<uint16_t>(bits >> 16);  // bf16, cut off
    if (changes.dtype == DType::kBF16)
      std::memcpy(bytes.data() + 2 * i, &upper, 2);
    else
      std::memcpy(bytes.data() + 4 * i, &bits, 4);
  }
  return bytes;
}

void make_model(const fs::path& from, const fs::path& out, const Changes& changes) {
  const auto source = open_hf_checkpoint(from);
  fs::create_directories(out);
  for (const auto& file : source->extra_files())
    fs::copy_file(file.path, out / file.name, fs::copy_options::overwrite_existing);
  fs::copy_file(from / "config.json", out / "config.json", fs::copy_options::overwrite_existing);

  std::vector<SafetensorsShard> shards(changes.shards);
  size_t count = 0;
  for (TensorInfo info : source->tensors()) {
    if (changes.dropped.count(info.name)) continue;
    info.dtype = changes.dtype;
    if (const auto shape = changes.shapes.find(info.name); shape != changes.shapes.end())
      info.shape = shape->second;
    shards[count++ % shards.size()].tensors.push_back(info);
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    auto& shard = shards[i];
    shard.file_name = shards.size() == 1 ? "model.safetensors"
                                         : "model-0000" + std::to_string(i + 1) + "-of-0000" +
                                               std::to_string(shards.size()) + ".safetensors";
    auto writer = SafetensorsWriter::create(out / shard.file_name, shard.tensors);
    for (const TensorInfo& info : shard.tensors)
      writer.write(info.name, changed_bytes(*source, source->at(info.name), changes));
    writer.finish();
  }
  if (shards.size() > 1)
    write_file_atomically(out / "model.safetensors.index.json",
                          make_index_json(shards).dump(1) + "\n");
}

}  // namespace
}  // namespace signround

int main(int argc, char** argv) {
  try {
    const std::vector<std::string> words(argv + 1, argv + argc);
    if (words.size() < 2) return std::cerr << "usage: make_model MODEL OUT [changes]\n", 2;
    signround::make_model(words[0], words[1],
                          signround::parse_changes({words.begin() + 2, words.end()}));
  } catch (const std::exception& error) {
    std::cerr << "make_model: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
