// SentencePiece's model file, a protobuf message, read as far as a tokenizer needs it.
// Fields: github.com/google/sentencepiece, src/sentencepiece_model.proto.
#include <algorithm>
#include <cstring>
#include <tuple>

#include "signround/base/error.h"
#include "signround/text/json_field.h"
#include "signround/text/tokenizer_sources.h"
#include "signround/text/unicode.h"
#include "signround/text/vocab.h"

namespace signround {

namespace {

using nlohmann::json;
constexpr const char* kWhere = "SentencePiece model";

// Walks the fields of one protobuf message.
class Message {
 public:
  explicit Message(std::string_view bytes) : bytes_(bytes) {}

  // The next field; false at the end. Its value is then number() or bytes(), by its wire type.
  bool next() {
    if (at_ == bytes_.size()) return false;
    const uint64_t key = varint();
    field_ = key >> 3;
    value_ = {};
    number_ = 0;
    switch (key & 7) {
      case 0:
        number_ = varint();
        return true;
      case 1:
        value_ = take(8);
        return true;
      case 2:
        value_ = take(varint());
        return true;
      case 5:
        value_ = take(4);
        return true;
      default:
        fail(ErrorKind::kCorruptFile, kWhere, "byte ", at_, ": wire type ", key & 7,
             ", expected 0, 1, 2 or 5");
    }
  }
  uint64_t field() const { return field_; }
  uint64_t number() const { return number_; }
  std::string_view bytes() const { return value_; }
  float real() const {
    if (value_.size() != 4)
      fail(ErrorKind::kCorruptFile, kWhere, "field ", field_, " is no 32-bit float");
    float f;
    std::memcpy(&f, value_.data(), 4);
    return f;
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (at_ == bytes_.size()) break;
      const auto byte = static_cast<unsigned char>(bytes_[at_++]);
      value |= uint64_t{byte & 127u} << shift;
      if (byte < 128) return value;
    }
    fail(ErrorKind::kCorruptFile, kWhere, "a number does not end within ", bytes_.size(), " bytes");
  }
  std::string_view take(uint64_t size) {
    if (size > bytes_.size() - at_)
      fail(ErrorKind::kCorruptFile, kWhere, "field ", field_, " at byte ", at_, " has ", size,
           " bytes, ", bytes_.size() - at_, " are left");
    at_ += static_cast<size_t>(size);
    return bytes_.substr(at_ - static_cast<size_t>(size), static_cast<size_t>(size));
  }

  std::string_view bytes_, value_;
  size_t at_ = 0;
  uint64_t field_ = 0, number_ = 0;
};

enum PieceType {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

struct ModelFile {
  struct Token {
    std::string text;
    float score = 0;
    uint64_t type = kNormal;
  };
  std::vector<Token> tokens;
  uint64_t model_type = 1;  // 1 Unigram, 2 BPE
  bool byte_fallback = false, add_dummy_prefix = true;
  int64_t unknown = 0, bos = 1, eos = 2, pad = -1;
  std::string charsmap;
};

int64_t signed_id(uint64_t number) { return static_cast<int32_t>(static_cast<uint32_t>(number)); }

void read_trainer(std::string_view bytes, ModelFile& file) {
  for (Message m(bytes); m.next();) {
    if (m.field() == 3) file.model_type = m.number();
    if (m.field() == 35) file.byte_fallback = m.number() != 0;
    if (m.field() == 40) file.unknown = signed_id(m.number());
    if (m.field() == 41) file.bos = signed_id(m.number());
    if (m.field() == 42) file.eos = signed_id(m.number());
    if (m.field() == 43) file.pad = signed_id(m.number());
  }
}

ModelFile read_model(std::string_view bytes) {
  ModelFile file;
  for (Message m(bytes); m.next();) {
    if (m.field() == 1) {
      ModelFile::Token token;
      for (Message p(m.bytes()); p.next();) {
        if (p.field() == 1) token.text = p.bytes();
        if (p.field() == 2) token.score = p.real();
        if (p.field() == 3) token.type = p.number();
      }
      if (unicode::valid_prefix(token.text) != token.text.size())
        fail(ErrorKind::kCorruptFile, kWhere, "token ", file.tokens.size(), " is not valid UTF-8");
      file.tokens.push_back(std::move(token));
    } else if (m.field() == 2) {
      read_trainer(m.bytes(), file);
    } else if (m.field() == 3) {
      for (Message n(m.bytes()); n.next();) {
        if (n.field() == 2) file.charsmap = n.bytes();
        if (n.field() == 3) file.add_dummy_prefix = n.number() != 0;
      }
    }
  }
  if (file.tokens.empty()) fail(ErrorKind::kCorruptFile, kWhere, "it has no tokens");
  return file;
}

std::string base64_encode(std::string_view bytes) {
  static constexpr char kAlphabet[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k)
      group = group << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k)
      out += i + k <= bytes.size() ? kAlphabet[group >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

// SentencePiece has no list of merges: any two tokens merge if their text joined is a token, the
// one of the lowest id first. This is the list in which every such pair stands, in that order.
json merges_of(const ModelFile& file) {
  Vocab vocab;
  for (size_t i = 0; i < file.tokens.size(); ++i)
    vocab.add(file.tokens[i].text, static_cast<int64_t>(i));
  struct Merge {
    int32_t whole;
    size_t left_characters, right_characters;
    int32_t left, right;
  };
  std::vector<Merge> merges;
  for (size_t i = 0; i < file.tokens.size(); ++i) {
    const std::string_view text = file.tokens[i].text;
    if (vocab.find(text) != static_cast<int32_t>(i)) continue;  // a later token has the same text
    if (text.size() > 4096)
      fail(ErrorKind::kUnsupported, kWhere, "token ", i, " has ", text.size(),
           " bytes, expected at most 4096");
    const size_t characters = unicode::count(text);
    size_t left_characters = 0;
    for (size_t k = 0; k < text.size();
         k += unicode::sequence_length(static_cast<unsigned char>(text[k])), ++left_characters) {
      if (k == 0) continue;
      const int32_t left = vocab.find(text.substr(0, k)), right = vocab.find(text.substr(k));
      if (left < 0 || right < 0) continue;
      merges.push_back(
          {static_cast<int32_t>(i), left_characters, characters - left_characters, left, right});
    }
  }
  std::sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    return std::tie(a.whole, a.left_characters) < std::tie(b.whole, b.left_characters);
  });
  json list = json::array();
  for (const Merge& m : merges)
    list.push_back({std::string(vocab.token(m.left)), std::string(vocab.token(m.right))});
  return list;
}

json decoder_of(const ModelFile& file, bool prefix) {
  json steps = json::array();
  steps.push_back({{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}});
  if (file.byte_fallback) steps.push_back({{"type", "ByteFallback"}});
  steps.push_back({{"type", "Fuse"}});
  if (prefix) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", steps}};
}

}  // namespace

TokenizerSource sentencepiece_model(std::string_view bytes, json config) {
  const ModelFile file = read_model(bytes);
  TokenizerSource s;
  const auto count = static_cast<int64_t>(file.tokens.size());
  const auto text_of = [&](int64_t id) {
    return id >= 0 && id < count ? file.tokens[static_cast<size_t>(id)].text : std::string();
  };
  const bool prefix =
      bool_field(config, "add_prefix_space", file.add_dummy_prefix, "tokenizer_config.json");
  json normalizers = json::array();
  if (!file.charsmap.empty())
    normalizers.push_back(
        {{"type", "Precompiled"}, {"precompiled_charsmap", base64_encode(file.charsmap)}});
  if (file.model_type == 2) {
    json vocab = json::object();
    for (int64_t i = 0; i < count; ++i) vocab[text_of(i)] = i;
    s.tokenizer["model"] = {{"type", "BPE"},
                            {"vocab", std::move(vocab)},
                            {"merges", merges_of(file)},
                            {"fuse_unk", true},
                            {"byte_fallback", file.byte_fallback}};
    if (!text_of(file.unknown).empty()) s.tokenizer["model"]["unk_token"] = text_of(file.unknown);
    s.tokenizer["pre_tokenizer"] = {{"type", "Metaspace"},
                                    {"replacement", "▁"},
                                    {"prepend_scheme", prefix ? "first" : "never"},
                                    {"split", false}};
    s.tokenizer["decoder"] = decoder_of(file, prefix);
  } else if (file.model_type == 1) {
    json vocab = json::array();
    for (const auto& token : file.tokens) vocab.push_back({token.text, token.score});
    s.tokenizer["model"] = {
        {"type", "Unigram"}, {"vocab", std::move(vocab)}, {"byte_fallback", file.byte_fallback}};
    if (file.unknown >= 0) s.tokenizer["model"]["unk_id"] = file.unknown;
    normalizers.push_back({{"type", "Strip"}, {"strip_left", false}, {"strip_right", true}});
    normalizers.push_back(
        {{"type", "Replace"}, {"pattern", {{"Regex", " {2,}"}}}, {"content", "▁"}});
    s.tokenizer["pre_tokenizer"] = {{"type", "Metaspace"},
                                    {"replacement", "▁"},
                                    {"prepend_scheme", prefix ? "always" : "never"}};
    s.tokenizer["decoder"] = file.byte_fallback
                                 ? decoder_of(file, prefix)
                                 : json{{"type", "Metaspace"},
                                        {"replacement", "▁"},
                                        {"prepend_scheme", prefix ? "always" : "never"}};
  } else {
    fail(ErrorKind::kUnsupported, kWhere, "model type ", file.model_type,
         ", expected 1 (Unigram) or 2 (BPE)");
  }
  if (!normalizers.empty())
    s.tokenizer["normalizer"] = {{"type", "Sequence"}, {"normalizers", normalizers}};
  json added = json::array();
  for (int64_t i = 0; i < count; ++i) {
    const auto& token = file.tokens[static_cast<size_t>(i)];
    if (token.type == kControl || token.type == kUserDefined)
      added.push_back({{"id", i},
                       {"content", token.text},
                       {"special", token.type == kControl},
                       {"normalized", false}});
  }
  s.tokenizer["added_tokens"] = std::move(added);
  if (config.is_null()) config = json::object();
  const auto name = [&](const char* field, int64_t id) {
    if (!find_field(config, field) && !text_of(id).empty()) config[field] = text_of(id);
  };
  name("bos_token", file.bos);
  name("eos_token", file.eos);
  name("unk_token", file.unknown);
  name("pad_token", file.pad);
  const std::string tokenizer_class =
      string_field(config, "tokenizer_class", "", "tokenizer_config.json");
  if (!config.contains("add_bos_token") && !config.contains("add_eos_token")) {
    const bool t5 = tokenizer_class.rfind("T5Tokenizer", 0) == 0;
    config["add_bos_token"] = !t5 && file.model_type == 2;
    config["add_eos_token"] = t5;
    if (file.model_type == 2)
      s.notes.push_back(
          "tokenizer_config.json does not say whether BOS is added (add_bos_token): it is, as "
          "Llama does");
  }
  s.config = std::move(config);
  return s;
}

}  // namespace signround
