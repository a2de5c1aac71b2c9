#include "signround/text/token_model.h"

#include "signround/base/error.h"
#include "signround/text/bpe.h"
#include "signround/text/json_field.h"
#include "signround/text/unicode.h"
#include "signround/text/unigram.h"

namespace signround {

namespace {

constexpr const char* kWhere = "tokenizer model";

// The longest token that starts the piece, then the longest that continues it, and so on; all or
// nothing.
class WordPiece : public TokenModel {
 public:
  explicit WordPiece(const nlohmann::json& j)
      : unknown_token_(string_field(j, "unk_token", "[UNK]", kWhere)),
        prefix_(string_field(j, "continuing_subword_prefix", "##", kWhere)),
        max_characters_(int_field(j, "max_input_chars_per_word", 100, kWhere)) {
    const auto* vocab = find_field(j, "vocab");
    if (!vocab) fail(ErrorKind::kCorruptFile, kWhere, "WordPiece has no vocab");
    read_vocab(*vocab, kWhere, vocab_);
  }

  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const override {
    const size_t start = ids.size();
    if (static_cast<int64_t>(unicode::count(piece)) > max_characters_) return add_unknown(ids);
    for (size_t begin = 0; begin < piece.size();) {
      scratch.text.assign(begin > 0 ? prefix_ : std::string());
      const size_t affix = scratch.text.size();
      // No longer try than the longest token, or a long word would cost its length squared.
      const size_t room = vocab_.longest() > affix ? vocab_.longest() - affix : 0;
      scratch.text += piece.substr(begin, room);
      int32_t id = -1;
      size_t length = scratch.text.size() - affix;
      for (; length > 0; --length) {
        const bool boundary = begin + length == piece.size() ||
                              (static_cast<unsigned char>(piece[begin + length]) & 0xC0) != 0x80;
        if (boundary) id = vocab_.find(std::string_view(scratch.text).substr(0, affix + length));
        if (id >= 0) break;
      }
      if (id < 0) {
        ids.resize(start);
        return add_unknown(ids);
      }
      ids.push_back(id);
      begin += length;
    }
  }

 private:
  void add_unknown(std::vector<int32_t>& ids) const {
    const int32_t id = vocab_.find(unknown_token_);
    if (id < 0)
      fail(ErrorKind::kCorruptFile, kWhere, "the unknown token \"", unknown_token_,
           "\" is not in the vocabulary");
    ids.push_back(id);
  }
  std::string unknown_token_, prefix_;
  int64_t max_characters_;
};

class WordLevel : public TokenModel {
 public:
  explicit WordLevel(const nlohmann::json& j)
      : unknown_token_(string_field(j, "unk_token", "<unk>", kWhere)) {
    const auto* vocab = find_field(j, "vocab");
    if (!vocab) fail(ErrorKind::kCorruptFile, kWhere, "WordLevel has no vocab");
    read_vocab(*vocab, kWhere, vocab_);
  }

  void encode(std::string_view piece, Scratch&, std::vector<int32_t>& ids) const override {
    int32_t id = vocab_.find(piece);
    if (id < 0) id = vocab_.find(unknown_token_);
    if (id < 0)
      fail(ErrorKind::kCorruptFile, kWhere, "the unknown token \"", unknown_token_,
           "\" is not in the vocabulary");
    ids.push_back(id);
  }

 private:
  std::string unknown_token_;
};

// Files of before 2020 have no "type": a model is known by its fields.
std::string model_type(const nlohmann::json& j) {
  if (find_field(j, "type")) return string_field(j, "type", kWhere);
  if (find_field(j, "merges")) return "BPE";
  const auto* vocab = find_field(j, "vocab");
  if (vocab && vocab->is_array()) return "Unigram";
  return find_field(j, "continuing_subword_prefix") ? "WordPiece" : "WordLevel";
}

}  // namespace

void read_vocab(const nlohmann::json& config, const char* where, Vocab& vocab) {
  if (!config.is_object())
    fail(ErrorKind::kCorruptFile, where, "vocab is ", config.type_name(), ", expected an object");
  for (const auto& [token, id] : config.items()) {
    if (!id.is_number_integer())
      fail(ErrorKind::kCorruptFile, where, "the id of token \"", excerpt(token), "\" is ",
           id.type_name());
    vocab.add(token, id.get<int64_t>());
  }
}

std::vector<int32_t> byte_fallback_ids(const Vocab& vocab) {
  std::vector<int32_t> ids;
  for (unsigned b = 0; b < 256; ++b) {
    static constexpr char kHex[] = "0123456789ABCDEF";
    const char name[] = {'<', '0', 'x', kHex[b >> 4], kHex[b & 15], '>'};
    ids.push_back(vocab.find({name, 6}));
    if (ids.back() < 0) return {};
  }
  return ids;
}

std::unique_ptr<TokenModel> make_token_model(const nlohmann::json& config,
                                             std::vector<std::string>& notes) {
  const std::string type = model_type(config);
  if (type == "BPE") return std::make_unique<Bpe>(config, notes);
  if (type == "Unigram") return std::make_unique<Unigram>(config);
  if (type == "WordPiece") return std::make_unique<WordPiece>(config);
  if (type == "WordLevel") return std::make_unique<WordLevel>(config);
  fail(ErrorKind::kUnsupported, kWhere, "type \"", type,
       "\" is not known, expected BPE, Unigram, WordPiece or WordLevel");
}

}  // namespace signround
