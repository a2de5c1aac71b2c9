#include "signround/text/post_processor.h"

#include <utility>

#include "signround/base/error.h"
#include "signround/text/json_field.h"
#include "signround/text/vocab.h"

namespace signround {

namespace {

constexpr const char* kWhere = "tokenizer post_processor";

int32_t checked_id(const nlohmann::json& j) {
  if (!j.is_number_integer() || j.get<int64_t>() < 0 || j.get<int64_t>() > kMaxTokenId)
    fail(ErrorKind::kCorruptFile, kWhere, "a special token has id ", j.dump(), ", expected 0 to ",
         kMaxTokenId);
  return j.get<int32_t>();
}

// Special tokens and the text itself, in a fixed order.
class Template : public PostProcessor {
 public:
  explicit Template(const nlohmann::json& j) {
    const auto* single = find_field(j, "single");
    if (!single || !single->is_array())
      fail(ErrorKind::kCorruptFile, kWhere, "TemplateProcessing has no list \"single\"");
    const auto* tokens = find_field(j, "special_tokens");
    for (const auto& piece : *single) {
      if (const auto* sequence = find_field(piece, "Sequence")) {
        if (string_field(*sequence, "id", kWhere) != "A")
          fail(ErrorKind::kUnsupported, kWhere,
               "the template of a single text contains another sequence than A");
        if (++sequences_ > 4)
          fail(ErrorKind::kUnsupported, kWhere, "the template repeats the text more than 4 times");
        items_.push_back({true, {}});
        continue;
      }
      const auto* special = find_field(piece, "SpecialToken");
      if (!special)
        fail(ErrorKind::kCorruptFile, kWhere,
             "a piece of the template is neither Sequence nor SpecialToken");
      const std::string name = string_field(*special, "id", kWhere);
      const auto* token = tokens ? find_field(*tokens, name.c_str()) : nullptr;
      const auto* ids = token ? find_field(*token, "ids") : nullptr;
      if (!ids || !ids->is_array())
        fail(ErrorKind::kCorruptFile, kWhere, "the template uses \"", name,
             "\", which special_tokens does not list");
      items_.push_back({false, {}});
      for (const auto& id : *ids) items_.back().ids.push_back(checked_id(id));
    }
  }

  void apply(std::vector<int32_t>& ids, bool add_special) const override {
    std::vector<int32_t> out;
    out.reserve(ids.size() + items_.size());
    for (const Item& item : items_) {
      if (item.sequence)
        out.insert(out.end(), ids.begin(), ids.end());
      else if (add_special)
        out.insert(out.end(), item.ids.begin(), item.ids.end());
    }
    ids.swap(out);
  }

 private:
  struct Item {
    bool sequence;
    std::vector<int32_t> ids;
  };
  std::vector<Item> items_;
  int sequences_ = 0;
};

// [CLS] text [SEP], as BERT and RoBERTa have it; BOS and EOS.
class Enclosing : public PostProcessor {
 public:
  explicit Enclosing(const nlohmann::json& j) : first_(id_of(j, "cls")), last_(id_of(j, "sep")) {}
  Enclosing(int32_t first, int32_t last) : first_(first), last_(last) {}
  void apply(std::vector<int32_t>& ids, bool add_special) const override {
    if (!add_special) return;
    if (first_ >= 0) ids.insert(ids.begin(), first_);
    if (last_ >= 0) ids.push_back(last_);
  }

 private:
  static int32_t id_of(const nlohmann::json& j, const char* field) {
    const auto* pair = find_field(j, field);
    if (!pair || !pair->is_array() || pair->size() != 2)
      fail(ErrorKind::kCorruptFile, kWhere, "field \"", field, "\" is not [token, id]");
    return checked_id((*pair)[1]);
  }
  int32_t first_, last_;
};

class Nothing : public PostProcessor {
 public:
  void apply(std::vector<int32_t>&, bool) const override {}
};

class Sequence : public PostProcessor {
 public:
  explicit Sequence(std::vector<std::unique_ptr<PostProcessor>> steps) : steps_(std::move(steps)) {}
  void apply(std::vector<int32_t>& ids, bool add_special) const override {
    for (const auto& step : steps_) step->apply(ids, add_special);
  }

 private:
  std::vector<std::unique_ptr<PostProcessor>> steps_;
};

std::unique_ptr<PostProcessor> make(const nlohmann::json& j, int depth) {
  if (depth > 4) fail(ErrorKind::kCorruptFile, kWhere, "sequences are nested deeper than 4");
  const std::string type = string_field(j, "type", kWhere);
  if (type == "Sequence") {
    const auto* list = find_field(j, "processors");
    if (!list || !list->is_array() || list->size() > 16)
      fail(ErrorKind::kCorruptFile, kWhere, "Sequence has no list \"processors\" of at most 16");
    std::vector<std::unique_ptr<PostProcessor>> steps;
    for (const auto& step : *list) steps.push_back(make(step, depth + 1));
    return std::make_unique<Sequence>(std::move(steps));
  }
  if (type == "TemplateProcessing") return std::make_unique<Template>(j);
  if (type == "BertProcessing" || type == "RobertaProcessing")
    return std::make_unique<Enclosing>(j);
  if (type == "ByteLevel") return std::make_unique<Nothing>();  // moves offsets only
  fail(ErrorKind::kUnsupported, kWhere, "type \"", type, "\" is not known");
}

}  // namespace

std::unique_ptr<PostProcessor> make_bos_eos_processor(int32_t bos, int32_t eos) {
  return std::make_unique<Enclosing>(bos, eos);
}

std::unique_ptr<PostProcessor> make_post_processor(const nlohmann::json& config) {
  return config.is_null() ? nullptr : make(config, 0);
}

}  // namespace signround
