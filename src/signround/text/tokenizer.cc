#include "signround/text/tokenizer.h"

#include <algorithm>

#include "signround/base/error.h"
#include "signround/text/added_vocabulary.h"
#include "signround/text/json_field.h"
#include "signround/text/normalizer.h"
#include "signround/text/post_processor.h"
#include "signround/text/pre_tokenizer.h"
#include "signround/text/token_decoder.h"
#include "signround/text/token_model.h"
#include "signround/text/tokenizer_sources.h"
#include "signround/text/unicode.h"

namespace signround {

namespace {

constexpr const char* kWhere = "tokenizer";

AddedToken read_added_token(const nlohmann::json& j, bool special) {
  constexpr const char* where = "tokenizer added_tokens";
  AddedToken token;
  token.content = string_field(j, "content", where);
  token.special = bool_field(j, "special", special, where);
  token.single_word = bool_field(j, "single_word", false, where);
  token.lstrip = bool_field(j, "lstrip", false, where);
  token.rstrip = bool_field(j, "rstrip", false, where);
  token.normalized = bool_field(j, "normalized", !token.special, where);
  return token;
}

// The text of a token named in tokenizer_config.json, as a string or as an object; "" if it is not
// named.
std::string named_token(const nlohmann::json& config, const char* field) {
  const auto* value = find_field(config, field);
  if (!value) return {};
  return value->is_object() ? string_field(*value, "content", "tokenizer_config.json")
                            : string_field(config, field, "tokenizer_config.json");
}

class JsonTokenizer : public Tokenizer {
 public:
  JsonTokenizer(const nlohmann::json& j, const nlohmann::json& config,
                std::vector<std::string> notes);

  std::vector<int32_t> encode(std::string_view text, bool add_special) const override;
  std::string decode(std::span<const int32_t> ids, bool skip_special) const override;

  int32_t vocab_size() const override {
    return std::max(model_->vocab().end_id(), added_.end_id());
  }
  int32_t token_to_id(std::string_view token) const override {
    const int32_t id = added_.find(token);
    return id >= 0 ? id : model_->vocab().find(token);
  }
  std::string id_to_token(int32_t id) const override {
    const AddedToken* token = added_.token(id);
    return token ? token->content : std::string(model_->vocab().token(id));
  }
  bool is_special(int32_t id) const override {
    const AddedToken* token = added_.token(id);
    return token && token->special;
  }
  int32_t bos_id() const override { return bos_; }
  int32_t eos_id() const override { return eos_; }
  int32_t pad_id() const override { return pad_; }
  std::vector<std::string> notes() const override { return notes_; }

 private:
  struct Scratch {
    NormalizedText normalized;
    PieceList list;
    std::vector<AddedVocabulary::Part> parts;
    TokenModel::Scratch model;
  };
  void read_config(const nlohmann::json& config);
  void encode_part(std::string_view text, bool at_origin, Scratch& scratch,
                   std::vector<int32_t>& ids) const;
  void encode_plain(std::string_view text, bool at_origin, Scratch& scratch,
                    std::vector<int32_t>& ids) const;

  std::vector<std::string> notes_;
  std::unique_ptr<TokenModel> model_;
  std::unique_ptr<Normalizer> normalizer_;
  std::unique_ptr<PreTokenizer> pre_tokenizer_;
  std::unique_ptr<PostProcessor> post_processor_;
  std::unique_ptr<TokenDecoder> decoder_;
  AddedVocabulary added_;
  bool clean_up_ = false;
  int32_t bos_ = -1, eos_ = -1, pad_ = -1;
};

JsonTokenizer::JsonTokenizer(const nlohmann::json& j, const nlohmann::json& config,
                             std::vector<std::string> notes)
    : notes_(std::move(notes)) {
  if (!j.is_object())
    fail(ErrorKind::kCorruptFile, kWhere, "tokenizer.json is ", j.type_name(),
         ", expected an object");
  const auto section = [&j](const char* name) {
    return j.contains(name) ? j[name] : nlohmann::json();
  };
  if (!find_field(j, "model")) fail(ErrorKind::kCorruptFile, kWhere, "tokenizer.json has no model");
  if (find_field(j, "truncation"))
    notes_.push_back("the tokenizer's truncation is ignored: texts are encoded whole");
  if (find_field(j, "padding"))
    notes_.push_back("the tokenizer's padding is ignored: ids are not padded");
  model_ = make_token_model(j["model"], notes_);
  normalizer_ = make_normalizer(section("normalizer"));
  pre_tokenizer_ = make_pre_tokenizer(section("pre_tokenizer"));
  post_processor_ = make_post_processor(section("post_processor"));
  decoder_ = make_token_decoder(section("decoder"));
  if (pre_tokenizer_ && model_->can_use_bytes() && pre_tokenizer_->keep_bytes())
    model_->use_bytes();
  if (const auto* added = find_field(j, "added_tokens")) {
    if (!added->is_array())
      fail(ErrorKind::kCorruptFile, kWhere, "added_tokens is ", added->type_name(),
           ", expected a list");
    for (const auto& token : *added)
      added_.add(read_added_token(token, false), model_->vocab(), normalizer_.get());
  }
  if (!config.is_null()) read_config(config);
  added_.build();
}

// What transformers takes from tokenizer_config.json on top of tokenizer.json: further added
// tokens, new flags of old ones, the special tokens' names, and whether BOS and EOS are added.
void JsonTokenizer::read_config(const nlohmann::json& config) {
  std::vector<std::string> special;
  for (const char* field :
       {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"})
    if (std::string name = named_token(config, field); !name.empty())
      special.push_back(std::move(name));
  for (const char* field : {"additional_special_tokens", "extra_special_tokens"}) {
    const auto* list = find_field(config, field);
    if (!list || !(list->is_array() || list->is_object())) continue;
    for (const auto& item : *list)
      special.push_back(item.is_object()   ? string_field(item, "content", "tokenizer_config.json")
                        : item.is_string() ? item.get<std::string>()
                                           : "");
  }
  if (const auto* decoder = find_field(config, "added_tokens_decoder");
      decoder && decoder->is_object()) {
    std::vector<std::pair<int64_t, AddedToken>> tokens;
    for (const auto& [id, token] : decoder->items())
      tokens.emplace_back(std::strtoll(id.c_str(), nullptr, 10), read_added_token(token, false));
    std::stable_sort(tokens.begin(), tokens.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    for (auto& [id, token] : tokens) {
      token.special = token.special ||
                      std::find(special.begin(), special.end(), token.content) != special.end();
      added_.add(token, model_->vocab(), normalizer_.get());
    }
  }
  for (const std::string& name : special) {
    if (name.empty() || added_.find(name) >= 0) continue;
    AddedToken token;
    token.content = name;
    token.special = true;
    token.normalized = false;
    added_.add(token, model_->vocab(), normalizer_.get());
  }
  const auto id_of = [&](const char* field) { return token_to_id(named_token(config, field)); };
  bos_ = id_of("bos_token");
  eos_ = id_of("eos_token");
  pad_ = id_of("pad_token");
  // transformers cleans up behind WordPiece and the like, never behind BPE, whose tokens hold their
  // own spaces.
  clean_up_ = !model_->keeps_spaces() &&
              bool_field(config, "clean_up_tokenization_spaces", false, "tokenizer_config.json");
  if (!config.is_object() ||
      (!config.contains("add_bos_token") && !config.contains("add_eos_token")))
    return;
  const bool bos = bool_field(config, "add_bos_token", false, "tokenizer_config.json") && bos_ >= 0;
  const bool eos = bool_field(config, "add_eos_token", false, "tokenizer_config.json") && eos_ >= 0;
  post_processor_ = make_bos_eos_processor(bos ? bos_ : -1, eos ? eos_ : -1);
}

std::vector<int32_t> JsonTokenizer::encode(std::string_view text, bool add_special) const {
  std::string repaired;
  if (unicode::valid_prefix(text) != text.size()) {
    repaired = unicode::to_valid(text);
    text = repaired;
  }
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  Scratch scratch;
  std::vector<AddedVocabulary::Part> parts;
  added_.split(text, false, parts);
  for (const auto& part : parts) {
    if (part.id >= 0)
      ids.push_back(part.id);
    else
      encode_part(text.substr(part.begin, part.end - part.begin), part.begin == 0, scratch, ids);
  }
  if (post_processor_) post_processor_->apply(ids, add_special);
  return ids;
}

// A part without added tokens of the raw text: normalize, then cut at the added tokens of the
// normalized text.
void JsonTokenizer::encode_part(std::string_view text, bool at_origin, Scratch& scratch,
                                std::vector<int32_t>& ids) const {
  if (normalizer_) {
    scratch.normalized.text.assign(text);
    scratch.normalized.at_origin = at_origin;
    normalizer_->apply(scratch.normalized);
    text = scratch.normalized.text;
    at_origin = scratch.normalized.at_origin;
  }
  added_.split(text, true, scratch.parts);
  for (const auto& part : scratch.parts) {
    if (part.id >= 0)
      ids.push_back(part.id);
    else
      encode_plain(text.substr(part.begin, part.end - part.begin), at_origin && part.begin == 0,
                   scratch, ids);
  }
}

void JsonTokenizer::encode_plain(std::string_view text, bool at_origin, Scratch& scratch,
                                 std::vector<int32_t>& ids) const {
  if (text.empty()) return;
  if (!pre_tokenizer_) return model_->encode(text, scratch.model, ids);
  PieceList& list = scratch.list;
  list.text.assign(text);
  list.pieces.assign(1, {0, text.size()});
  list.at_origin = at_origin;
  pre_tokenizer_->apply(list);
  for (const Piece& piece : list.pieces) model_->encode(list.view(piece), scratch.model, ids);
}

std::string JsonTokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    const std::string* added = added_.decoded(id);
    if (!added && !model_->vocab().has(id)) continue;
    std::string token = added ? *added : std::string(model_->vocab().token(id));
    if (skip_special && added_.is_special_content(token)) continue;
    tokens.push_back(std::move(token));
  }
  if (decoder_ && !tokens.empty()) decoder_->apply(tokens);
  std::string text;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (!decoder_ && i > 0) text += ' ';
    text += tokens[i];
  }
  if (clean_up_) {
    static constexpr std::pair<const char*, const char*> kRules[] = {
        {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
        {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (const auto& [from, to] : kRules) replace_all(text, from, to);
  }
  return text;
}

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::from_json(std::string_view tokenizer_json,
                                                const nlohmann::json& config) {
  nlohmann::json j;
  try {
    j = nlohmann::json::parse(tokenizer_json.begin(), tokenizer_json.end());
  } catch (const nlohmann::json::exception& e) {
    fail(ErrorKind::kCorruptFile, kWhere, "tokenizer.json (", tokenizer_json.size(),
         " bytes): ", excerpt(e.what(), 300));
  }
  return std::make_unique<JsonTokenizer>(j, config, std::vector<std::string>());
}

std::unique_ptr<Tokenizer> make_tokenizer(TokenizerSource source) {
  return std::make_unique<JsonTokenizer>(source.tokenizer, source.config, std::move(source.notes));
}

std::string StreamDecoder::push(int32_t id) {
  if (skip_special_ && tokenizer_.is_special(id) && tokenizer_.decode({&id, 1}, true).empty())
    return {};
  window_.push_back(id);
  return emit(false);
}

std::string StreamDecoder::flush() {
  return context_ < window_.size() ? emit(true) : std::string();
}

// U+FFFD at the end may be the first bytes of a character: the text before it is given out, and the
// window grows until its text ends well.
std::string StreamDecoder::emit(bool all) {
  constexpr size_t kMaxHeld = 64;
  constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
  const std::string text = tokenizer_.decode(window_, skip_special_);
  size_t end = text.size();
  const bool final = all || window_.size() - context_ >= kMaxHeld ||
                     !std::string_view(text).ends_with(kReplacement);
  while (!final && std::string_view(text).substr(0, end).ends_with(kReplacement))
    end -= kReplacement.size();
  while (emitted_ < end && (static_cast<unsigned char>(text[emitted_]) & 0xC0) == 0x80) ++emitted_;
  std::string out;
  if (end > emitted_) {
    out = text.substr(emitted_, end - emitted_);
    emitted_ = end;
  }
  if (final) {
    window_.erase(window_.begin(), window_.begin() + static_cast<int64_t>(context_));
    context_ = window_.size();
    emitted_ = tokenizer_.decode(window_, skip_special_).size();
  }
  return out;
}

}  // namespace signround
