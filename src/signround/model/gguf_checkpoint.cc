#include "signround/model/gguf_checkpoint.h"

#include <algorithm>
#include <cstring>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/io/gguf.h"
#include "signround/model/gguf_config.h"
#include "signround/text/gguf_tokenizer.h"

namespace signround {
namespace {

namespace fs = std::filesystem;

constexpr const char* kWhere = "gguf";
constexpr std::string_view kRopeFactors = "rope_freqs.weight";  // becomes part of config.json

DType presented_dtype(const GgufFile& file) {
  bool only_f32 = true, only_f16 = true;
  for (const GgufTensor& t : file.tensors()) {
    only_f32 &= t.type == GgmlType::kF32;
    only_f16 &= t.type == GgmlType::kF32 || t.type == GgmlType::kF16;
  }
  return only_f32 ? DType::kF32 : only_f16 ? DType::kF16 : DType::kBF16;
}

void round_to(DType dtype, float* values, int64_t n) {
  if (dtype == DType::kBF16)
    for (int64_t i = 0; i < n; ++i) values[i] = round_to_bf16(values[i]);
  if (dtype == DType::kF16)
    for (int64_t i = 0; i < n; ++i) values[i] = round_to_f16(values[i]);
}

void store_as(DType dtype, const float* values, int64_t n, std::byte* out) {
  for (int64_t i = 0; i < n; ++i) {
    if (dtype == DType::kF32) std::memcpy(out + 4 * i, values + i, 4);
    const uint16_t half = dtype == DType::kF16 ? to_f16(values[i]).bits : to_bf16(values[i]).bits;
    if (dtype != DType::kF32) std::memcpy(out + 2 * i, &half, 2);
  }
}

class GgufCheckpoint : public Checkpoint {
 public:
  explicit GgufCheckpoint(const fs::path& path) : file_(path), dtype_(presented_dtype(file_)) {
    source_ = path.string();
    GgufModel model = read_gguf_model(file_, dtype_);
    config_ = std::move(model.config);
    std::vector<TensorInfo> tensors;
    for (const GgufTensor& t : file_.tensors()) {
      if (t.name == kRopeFactors) continue;
      tensors.push_back(translate(t, model));
      items_.push_back({&t, heads_to_reorder(t, model)});
    }
    set_tensors(std::move(tensors));
  }

  std::span<const std::byte> bytes(std::string_view name,
                                   std::vector<std::byte>& scratch) const override {
    const Item& item = item_of(name);
    const bool as_stored = (dtype_ == DType::kF32 && item.tensor->type == GgmlType::kF32) ||
                           (dtype_ == DType::kF16 && item.tensor->type == GgmlType::kF16) ||
                           (dtype_ == DType::kBF16 && item.tensor->type == GgmlType::kBF16);
    if (as_stored && item.heads == 0) return file_.bytes(*item.tensor);
    const int64_t columns = row_length(item), size = size_of(dtype_);
    scratch.resize(static_cast<size_t>(row_count(item) * columns * size));
    for_rows(item, 0, row_count(item), [&](int64_t row, const float* values) {
      store_as(dtype_, values, columns, scratch.data() + row * columns * size);
    });
    return scratch;
  }

  void read_f32(std::string_view name, int64_t row, int64_t rows, float* out) const override {
    const Item& item = item_of(name);
    const int64_t total = row_count(item), columns = row_length(item);
    require(row >= 0 && rows >= 0 && row <= total && rows <= total - row, kWhere, "rows ", row,
            " to ", row + rows, " of tensor ", name, " were asked for, it has ", total);
    for_rows(item, row, rows, [&](int64_t r, const float* values) {
      std::memcpy(out + r * columns, values, static_cast<size_t>(columns) * sizeof(float));
      round_to(dtype_, out + r * columns, columns);
    });
  }

  void release(std::string_view name) const override { file_.release(*item_of(name).tensor); }
  int64_t bytes_on_disk() const override { return file_.file_bytes(); }

  std::vector<ExtraFile> extra_files() const override {
    std::vector<ExtraFile> files = {
        {"generation_config.json", {}, generation_config_from_gguf(file_).dump(2) + "\n"}};
    if (!file_.find("tokenizer.ggml.model")) return files;
    const nlohmann::json config = tokenizer_config_from_gguf(file_);
    files.push_back({"tokenizer.json", {}, tokenizer_json_from_gguf(file_)});
    files.push_back({"tokenizer_config.json", {}, config.dump(2) + "\n"});
    nlohmann::json special = nlohmann::json::object();
    for (const char* key : {"bos_token", "eos_token", "unk_token", "pad_token"})
      if (config.contains(key)) special[key] = config[key];
    files.push_back({"special_tokens_map.json", {}, special.dump(2) + "\n"});
    return files;
  }

 private:
  struct Item {
    const GgufTensor* tensor;
    int64_t heads;  // > 0: rows are reordered within each of so many heads
  };

  TensorInfo translate(const GgufTensor& t, const GgufModel& model) const {
    int64_t block = -1;
    const auto name = hugging_face_name(t.name, block);
    if (!name || t.shape.empty() || t.shape.size() > 2)
      fail(ErrorKind::kUnsupported, kWhere, source_, ": tensor ", t.name, " of shape ",
           shape_text(t.shape), " has no counterpart in ",
           config_["architectures"][0].get<std::string>());
    if (block >= model.blocks)
      fail(ErrorKind::kCorruptFile, kWhere, source_, ": tensor ", t.name,
           " belongs to a block that is not there; the file says that it has ", model.blocks);
    return {*name, dtype_, t.shape};
  }

  // llama.cpp rotates neighbours (2i, 2i + 1), Hugging Face the halves of a head (i, i + d/2); the
  // converter reorders the rows of q and k so that both compute the same.
  int64_t heads_to_reorder(const GgufTensor& t, const GgufModel& model) const {
    if (!model.interleaved_rope) return 0;
    const bool q = t.name.find(".attn_q.") != std::string::npos,
               k = t.name.find(".attn_k.") != std::string::npos;
    if (!q && !k) return 0;
    const int64_t heads = q ? model.heads : model.kv_heads;
    if (t.shape[0] != heads * model.head_dim)
      fail(ErrorKind::kCorruptFile, kWhere, source_, ": tensor ", t.name, " has ", t.shape[0],
           " rows, expected ", heads, " heads of ", model.head_dim);
    return heads;
  }

  const Item& item_of(std::string_view name) const {
    return items_[static_cast<size_t>(&at(name) - tensors().data())];
  }

  static int64_t row_count(const Item& item) { return item.tensor->shape[0]; }
  static int64_t row_length(const Item& item) {
    return item.tensor->shape.size() == 2 ? item.tensor->shape[1] : 1;
  }

  // Row in the file of row `row` in Hugging Face's order: (head, half, i) there is (head, i, half)
  // here.
  static int64_t stored_row(const Item& item, int64_t row) {
    if (item.heads == 0) return row;
    const int64_t head_dim = row_count(item) / item.heads, half = head_dim / 2;
    const int64_t head = row / head_dim, in_head = row % head_dim;
    return head * head_dim + in_head % half * 2 + in_head / half;
  }

  // visit(r, f32 values of row `row` + r) for r in [0, rows), on several threads.
  template <class Visit>
  void for_rows(const Item& item, int64_t row, int64_t rows, Visit&& visit) const {
    const GgufTensor& t = *item.tensor;
    const auto bytes = file_.bytes(t);
    if (t.shape.size() == 1) {  // blocks may span many elements of a vector: decode all of it
      std::vector<float> all(static_cast<size_t>(t.shape[0]));
      dequantize(t.type, bytes.data(), t.shape[0], all.data());
      for (int64_t r = 0; r < rows; ++r)
        visit(r, &all[static_cast<size_t>(stored_row(item, row + r))]);
      return;
    }
    const int64_t columns = t.columns(), row_bytes = t.bytes / t.shape[0];
    parallel_for(rows, std::max<int64_t>(1, (1 << 15) / columns), [&](int64_t begin, int64_t end) {
      std::vector<float> values(static_cast<size_t>(columns));
      for (int64_t r = begin; r < end; ++r) {
        dequantize(t.type, bytes.data() + stored_row(item, row + r) * row_bytes, columns,
                   values.data());
        visit(r, values.data());
      }
    });
  }

  GgufFile file_;
  DType dtype_;
  std::vector<Item> items_;  // of tensors(), in the same order
};

}  // namespace

std::unique_ptr<Checkpoint> open_gguf_checkpoint(const fs::path& path) {
  return std::make_unique<GgufCheckpoint>(path);
}

std::unique_ptr<Checkpoint> open_checkpoint(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_regular_file(path, ignored)) return open_gguf_checkpoint(path);
  return open_hf_checkpoint(path);
}

}  // namespace signround
