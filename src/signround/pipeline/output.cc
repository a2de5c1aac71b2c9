#include "signround/pipeline/output.h"

#include <algorithm>

#include "signround/base/error.h"
#include "signround/base/hash.h"
#include "signround/formats/decode_bnb.h"
#include "signround/io/atomic_file.h"
#include "signround/ops/convert.h"
#include "signround/quant/rtn.h"

namespace signround {

namespace fs = std::filesystem;

namespace {

// Calls use(offset, piece) for each piece of kPiece bytes; returns the hash of all hashes.
template <class Use>
uint64_t for_each_piece(std::span<const std::byte> bytes, Use&& use) {
  constexpr auto kPiece = static_cast<size_t>(OutputFolder::kPiece);
  std::string hashes;
  for (size_t done = 0; done < bytes.size(); done += kPiece) {
    const auto piece = bytes.subspan(done, std::min(kPiece, bytes.size() - done));
    hashes += hex(xxh3(piece));
    use(static_cast<int64_t>(done), piece);
  }
  return xxh3(hashes);
}

uint64_t checksum_of(const std::map<std::string, uint64_t>& hashes) {
  std::string text;
  for (const auto& [name, hash] : hashes) text += name + " " + hex(hash) + "\n";
  return xxh3(text);
}

}  // namespace

OutputFolder::OutputFolder(const FormatPlan& plan, bool resume)
    : plan_(plan), folder_(plan.folder), readers_(plan.shards.size()) {
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error)
    fail(ErrorKind::kIo, "output", "cannot create ", folder_.string(), ": ", error.message());
  for (size_t i = 0; i < plan_.shards.size(); ++i) {
    // A kill between the renames of finish() leaves finished names: they are taken back.
    const fs::path partial = shard_path(i).string() + ".partial";
    if (resume && i == 0)
      fs::remove(folder_ / "config.json", error);  // it would make the folder look whole
    if (resume && !fs::exists(partial, error) && fs::exists(shard_path(i), error))
      fs::rename(shard_path(i), partial, error);
    shards_.push_back(resume ? SafetensorsWriter::reopen(shard_path(i), plan_.shards[i])
                             : SafetensorsWriter::create(shard_path(i), plan_.shards[i]));
    for (const auto& t : plan_.shards[i]) shard_of_[t.name] = i;
  }
}

fs::path OutputFolder::shard_path(size_t shard) const { return plan_.shard_path(shard); }

size_t OutputFolder::shard_of(const std::string& tensor) const {
  const auto found = shard_of_.find(tensor);
  if (found == shard_of_.end())
    fail(ErrorKind::kInternal, "output", tensor, " was not planned for ", folder_.string());
  return found->second;
}

SafetensorsFile& OutputFolder::reader(size_t shard) {
  if (!readers_[shard])
    readers_[shard] = std::make_unique<SafetensorsFile>(shards_[shard].partial_path());
  return *readers_[shard];
}

OutputFolder::Written OutputFolder::write_layer(const FormatLayer& layer, QuantizedLinear linear) {
  Written result;
  result.rewritten_groups = plan_.format->prepare(linear);
  result.hash = write_packed(layer, plan_.format->pack(layer, linear));
  compare(layer, linear);
  mark_layer_written(layer, result.hash);
  return result;
}

OutputFolder::Written OutputFolder::write_layer(const FormatLayer& layer, const Nf4Linear& linear) {
  Written result;
  result.hash = write_packed(layer, plan_.format->pack_nf4(layer, linear));
  compare(layer, linear);
  mark_layer_written(layer, result.hash);
  return result;
}

uint64_t OutputFolder::write_packed(const FormatLayer& layer,
                                    const std::vector<PackedTensor>& packed) {
  require(!packed.empty(), "output", "internal: nothing was packed of ", layer.name);
  std::string hashes;
  for (const PackedTensor& tensor : packed) {
    shards_[shard_of(tensor.info.name)].write(tensor.info.name, tensor.bytes);
    hashes += hex(xxh3(tensor.bytes));
  }
  return xxh3(hashes);
}

void OutputFolder::mark_layer_written(const FormatLayer& layer, uint64_t hash) {
  for (const auto& info : plan_.format->tensors(layer)) written_.insert(info.name);
  hashes_[layer.name] = hash;
}

uint64_t OutputFolder::checksum() const { return checksum_of(hashes_); }

uint64_t OutputFolder::hash_of(const FormatLayer& layer) {
  std::string hashes;
  for (const auto& info : plan_.format->tensors(layer)) {
    SafetensorsFile& file = reader(shard_of(info.name));
    const size_t index = *file.find(info.name);
    hashes += hex(xxh3(file.bytes(index)));
    file.release(index);
  }
  return xxh3(hashes);
}

namespace {

RawTensor raw_tensor(SafetensorsFile& file, const std::string& name) {
  const auto index = file.find(name);
  if (!index) return {};
  return {file.tensors()[*index], file.bytes(*index)};
}

}  // namespace

RawLayer OutputFolder::raw_layer(const FormatLayer& layer) {
  RawLayer raw;
  raw.name = layer.name;
  const auto parts = parts_of(plan_.format->packing());
  for (const auto& info : plan_.format->tensors(layer))
    for (const Part& part : parts)
      if (info.name == layer.name + std::string(part.suffix))
        raw.*part.tensor = raw_tensor(reader(shard_of(info.name)), info.name);
  return raw;
}

void OutputFolder::release(const FormatLayer& layer) {
  for (const auto& info : plan_.format->tensors(layer)) {
    SafetensorsFile& file = reader(shard_of(info.name));
    file.release(*file.find(info.name));
  }
}

void OutputFolder::read_weight(const FormatLayer& layer, float* weight) {
  const size_t first_shard = shard_of(plan_.format->tensors(layer)[0].name);
  if (plan_.format->packing() == Packing::kNone) {
    SafetensorsFile& file = reader(first_shard);
    const RawTensor raw = raw_tensor(file, layer.name + ".weight");
    std::vector<std::byte> aligned(raw.bytes.begin(), raw.bytes.end());
    convert(layer.out, layer.in, {aligned.data(), layer.dtype, layer.in},
            {weight, DType::kF32, layer.in});
    release(layer);
    return;
  }
  dequantize_rows(plan_.format->packing(), layer.scheme, raw_layer(layer), 0, layer.out, weight);
  release(layer);
}

QuantizedLinear OutputFolder::read_linear(const FormatLayer& layer) {
  require(plan_.format->packing() != Packing::kNone && plan_.format->packing() != Packing::kBnb,
          "output", "internal: ", plan_.format->name(), " holds no integers");
  QuantizedLinear linear =
      decode_linear(plan_.format->packing(), layer.scheme, raw_layer(layer)).linear;
  release(layer);
  return linear;
}

template <class Values>
void OutputFolder::compare_values(const FormatLayer& layer, const Values& found,
                                  const Values& tuned, int64_t cols, const char* what) const {
  if (found == tuned) return;
  const auto differ = [&](int64_t row, int64_t col, double got, double expected,
                          const char* of_what) {
    fail(ErrorKind::kInternal, "read back", layer.name, " in ", folder_.string(), ": ", of_what,
         " of row ", row, ", column ", col, " is ", got, ", ", expected, " was tuned");
  };
  if (found.size() != tuned.size())
    differ(0, 0, double(found.size()), double(tuned.size()), "the number of values");
  const auto at = std::mismatch(found.begin(), found.end(), tuned.begin()).first - found.begin();
  differ(at / cols, at % cols, found[static_cast<size_t>(at)], tuned[static_cast<size_t>(at)],
         what);
}

// Of the format that holds weights, not codes.
template <class Linear>
void OutputFolder::compare_weights(const FormatLayer& layer, const Linear& linear) {
  std::vector<float> found(static_cast<size_t>(layer.out * layer.in)), tuned(found.size());
  read_weight(layer, found.data());
  dequantize(linear, tuned.data());
  for (float& w : tuned)
    w = layer.dtype == DType::kBF16  ? round_to_bf16(w)
        : layer.dtype == DType::kF16 ? round_to_f16(w)
                                     : w;
  compare_values(layer, found, tuned, layer.in, "the weight");
}

void OutputFolder::compare(const FormatLayer& layer, const QuantizedLinear& linear) {
  if (plan_.format->packing() == Packing::kNone) return compare_weights(layer, linear);
  const QuantizedLinear found = read_linear(layer);
  const int64_t groups = linear.groups();
  compare_values(layer, found.codes, linear.codes, layer.in, "the code");
  compare_values(layer, found.scales, linear.scales, groups, "the group's scale");
  compare_values(layer, found.zeros, linear.zeros, groups, "the group's zero point");
}

void OutputFolder::compare(const FormatLayer& layer, const Nf4Linear& linear) {
  if (plan_.format->packing() == Packing::kNone) return compare_weights(layer, linear);
  const Nf4Linear found = decode_bnb(raw_layer(layer));
  release(layer);
  const int64_t all = linear.blocks();  // blocks know no rows
  compare_values(layer, found.codes, linear.codes, layer.in, "the code");
  compare_values(layer, found.magnitudes, linear.magnitudes, all, "the block's magnitude");
  if (!linear.nested && !found.nested) return;
  require(linear.nested && found.nested, "read back", "internal: ", layer.name, " in ",
          folder_.string(), " was written with and read without nested scales, or the other way");
  compare_values(layer, found.nested->codes, linear.nested->codes, all, "the magnitude's code");
  compare_values(layer, found.nested->scales, linear.nested->scales, all, "the nested scale");
  compare_values(layer, std::vector{found.nested->offset}, std::vector{linear.nested->offset}, 1,
                 "the nested offset");
}

void OutputFolder::copy(const Checkpoint& source, const TensorInfo& tensor) {
  std::vector<std::byte> scratch;
  const auto bytes = source.bytes(tensor.name, scratch);
  SafetensorsWriter& shard = shards_[shard_of(tensor.name)];
  hashes_[tensor.name] =
      for_each_piece(bytes, [&](int64_t offset, std::span<const std::byte> piece) {
        shard.write_at(tensor.name, offset, piece);
        source.release(tensor.name);
      });
  source.release(tensor.name);
  written_.insert(tensor.name);
}

uint64_t checksum_of_finished(const FormatPlan& plan) {
  std::set<std::string> of_layers;  // names of the packed tensors
  for (const auto& layer : plan.model.layers)
    if (layer.scheme.bits < 16)
      for (const auto& info : plan.format->tensors(layer)) of_layers.insert(info.name);
  std::map<std::string, uint64_t> hashes;
  std::unordered_map<std::string, uint64_t> packed;
  for (size_t i = 0; i < plan.shards.size(); ++i) {
    const SafetensorsFile file(plan.shard_path(i));
    for (const TensorInfo& expected : plan.shards[i]) {
      const auto index = file.find(expected.name);
      if (!index || !(file.tensors()[*index] == expected))
        fail(ErrorKind::kCorruptFile, "output", file.path().string(), " does not hold ",
             expected.name, " as it was written");
      const auto bytes = file.bytes(*index);
      if (of_layers.count(expected.name))
        packed[expected.name] = xxh3(bytes);
      else
        hashes[expected.name] = for_each_piece(bytes, [&](auto&&...) { file.release(*index); });
      file.release(*index);
    }
  }
  for (const auto& layer : plan.model.layers) {
    if (layer.scheme.bits >= 16) continue;
    std::string all;
    for (const auto& info : plan.format->tensors(layer)) all += hex(packed.at(info.name));
    hashes[layer.name] = xxh3(all);
  }
  return checksum_of(hashes);
}

void OutputFolder::sync() {
  for (auto& shard : shards_) shard.sync();
}

void OutputFolder::check_complete() const {
  for (const auto& shard : plan_.shards)
    for (const auto& t : shard)
      if (!written_.count(t.name))
        fail(ErrorKind::kInternal, "ledger", t.name, " was planned for ", folder_.string(),
             " and never written");
}

void OutputFolder::finish(const Checkpoint& source, const std::vector<ExtraFile>& reports) {
  check_complete();
  readers_.clear();
  for (auto& shard : shards_) shard.finish();
  if (shards_.size() > 1) {
    std::vector<SafetensorsShard> index;
    for (size_t i = 0; i < shards_.size(); ++i)
      index.push_back({shard_path(i).filename().string(), plan_.shards[i]});
    write_file_atomically(folder_ / "model.safetensors.index.json",
                          make_index_json(index).dump(2) + "\n");
  }
  const auto write = [&](const ExtraFile& file) {
    const fs::path path = folder_ / file.name;
    std::error_code error;
    if (path.parent_path() != folder_) fs::create_directories(path.parent_path(), error);
    if (error)
      fail(ErrorKind::kIo, "output", "cannot create ", path.parent_path().string(), ": ",
           error.message());
    if (file.path.empty())
      write_file_atomically(path, file.content);
    else
      copy_file_atomically(file.path, path);
  };
  for (const auto& file : source.extra_files()) write(file);
  for (const auto& file : plan_.format->extra_files(plan_.quantization_config)) write(file);
  for (const auto& file : reports) write(file);
  nlohmann::json config = source.config();
  config.erase("quantization_config");
  if (!plan_.quantization_config.is_null())
    config["quantization_config"] = plan_.quantization_config;
  write_file_atomically(folder_ / "config.json", config.dump(2) + "\n");
}

}  // namespace signround
