#include "signround/text/gguf_tokenizer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "signround/base/error.h"
#include "signround/base/log.h"
#include "signround/text/gguf_pre_tokenizer.h"

namespace signround {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kWhere = "gguf";
constexpr const char* kSpace = "\xe2\x96\x81";  // U+2581, SentencePiece's visible space
constexpr size_t kMaxPiece = 1024;  // bytes; deriving merges tries all ways to cut a piece in two

enum TokenType : int64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

struct Vocabulary {
  std::span<const std::string_view> tokens;
  std::vector<int64_t> types;   // one per token, or none
  std::vector<float> scores;    // so here
  std::string_view model, pre;  // pre: "" where the file does not say
  std::optional<int64_t> bos, eos, unk, pad;
  bool add_bos = false, add_eos = false;

  bool is_byte_level() const { return model == "gpt2"; }
  int64_t type(size_t i) const { return types.empty() ? kNormal : types[i]; }
  // A row of the embedding without a token: the converter invents a name.
  bool is_filler(size_t i) const {
    return type(i) == kUnused && tokens[i] == "[PAD" + std::to_string(i) + "]";
  }
};

std::string quoted(const GgufFile& file, std::string_view text) {
  try {
    return json(text).dump();
  } catch (const json::exception&) {
    fail(ErrorKind::kCorruptFile, kWhere, file.path().string(),
         ": a token or template is not UTF-8");
  }
}

const GgufPreTokenizer& pre_of(const GgufFile& file, const Vocabulary& v) {
  std::string_view pre = v.pre;
  if (pre.empty()) {  // files from before the key existed: the architecture tells which tokenizer
                      // it must be
    const auto architecture = file.text("general.architecture").value_or("");
    pre = architecture.starts_with("qwen")                       ? "qwen2"
          : architecture == "llama" && v.tokens.size() == 128256 ? "llama-bpe"
                                                                 : "default";
  }
  const GgufPreTokenizer* known = find_gguf_pre_tokenizer(pre);
  if (known == nullptr)
    fail(ErrorKind::kUnsupported, kWhere, file.path().string(), ": tokenizer.ggml.pre is ",
         pre.substr(0, 32), "; known are ", gguf_pre_tokenizer_names());
  return *known;
}

Vocabulary read_vocabulary(const GgufFile& file) {
  Vocabulary v;
  v.model = file.text("tokenizer.ggml.model").value_or("");
  if (v.model != "gpt2" && v.model != "llama")
    fail(ErrorKind::kUnsupported, kWhere, file.path().string(), ": tokenizer.ggml.model is '",
         v.model.substr(0, 32), "'; gpt2 and llama are read");
  v.pre = file.text("tokenizer.ggml.pre").value_or("");
  v.tokens = file.strings("tokenizer.ggml.tokens");
  v.types = file.integers("tokenizer.ggml.token_type");
  v.scores = file.floats("tokenizer.ggml.scores");
  const auto check_length = [&](size_t found, const char* what) {
    if (found != 0 && found != v.tokens.size())
      fail(ErrorKind::kCorruptFile, kWhere, file.path().string(), ": ", found, " ", what, " for ",
           v.tokens.size(), " tokens");
  };
  if (v.tokens.empty())
    fail(ErrorKind::kCorruptFile, kWhere, file.path().string(), " has no tokenizer.ggml.tokens");
  check_length(v.types.size(), "token types");
  check_length(v.scores.size(), "scores");

  const bool spm = v.model == "llama";  // SentencePiece's own ids hold where the file names none
  const auto special = [&](const char* key,
                           std::optional<int64_t> fallback) -> std::optional<int64_t> {
    const auto given = file.integer(key);
    const auto id = given ? given : fallback;
    if (!id || (*id >= 0 && *id < static_cast<int64_t>(v.tokens.size()))) return id;
    if (!given || *id == -1 || *id == UINT32_MAX) return std::nullopt;  // two ways to write "none"
    fail(ErrorKind::kCorruptFile, kWhere, file.path().string(), ": ", key, " is ", *id,
         ", but there are ", v.tokens.size(), " tokens");
  };
  v.bos = special("tokenizer.ggml.bos_token_id", spm ? std::optional<int64_t>(1) : std::nullopt);
  v.eos = special("tokenizer.ggml.eos_token_id", spm ? std::optional<int64_t>(2) : std::nullopt);
  v.unk =
      special("tokenizer.ggml.unknown_token_id", spm ? std::optional<int64_t>(0) : std::nullopt);
  v.pad = special("tokenizer.ggml.padding_token_id", std::nullopt);
  v.add_bos =
      file.flag("tokenizer.ggml.add_bos_token").value_or(spm || pre_of(file, v).add_bos) && v.bos;
  v.add_eos = file.flag("tokenizer.ggml.add_eos_token").value_or(false) && v.eos;
  return v;
}

// {"token":id,...} in the order of ids, and each token's id. Of equal tokens the first one counts,
// as in llama.cpp.
std::string vocab_json(const GgufFile& file, const Vocabulary& v,
                       std::unordered_map<std::string_view, int64_t>& ids) {
  std::string out = "{";
  size_t repeated = 0;
  for (size_t i = 0; i < v.tokens.size(); ++i) {
    if (v.is_filler(i)) continue;
    if (!ids.emplace(v.tokens[i], static_cast<int64_t>(i)).second) {
      ++repeated;
      continue;
    }
    if (out.size() > 1) out += ',';
    out += quoted(file, v.tokens[i]) + ':' + std::to_string(i);
  }
  if (repeated != 0)
    log_warn(file.path().string() + ": " + std::to_string(repeated) +
             " tokens come twice; the first of each is kept");
  return out + '}';
}

std::string added_tokens_json(const GgufFile& file, const Vocabulary& v,
                              const std::unordered_map<std::string_view, int64_t>& ids) {
  std::string out = "[";
  for (size_t i = 0; i < v.tokens.size(); ++i) {
    const int64_t type = v.type(i);
    const bool special = type == kControl || type == kUnknown;
    if ((!special && type != kUserDefined) || v.tokens[i].empty() ||
        ids.at(v.tokens[i]) != static_cast<int64_t>(i))
      continue;
    if (out.size() > 1) out += ',';
    out += "{\"id\":" + std::to_string(i) + ",\"content\":" + quoted(file, v.tokens[i]) +
           ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,"
           "\"special\":" +
           (special ? "true}" : "false}");
  }
  return out + ']';
}

// The merges of a byte-level vocabulary stand in the file: "left right", split at the first space
// behind the first byte.
std::string merges_json(const GgufFile& file,
                        const std::unordered_map<std::string_view, int64_t>& ids) {
  std::string out = "[";
  for (std::string_view merge : file.strings("tokenizer.ggml.merges")) {
    const size_t space = merge.find(' ', 1);
    const auto refuse = [&](const char* why) {
      fail(ErrorKind::kCorruptFile, kWhere, file.path().string(), ": the merge '",
           merge.substr(0, 64), "' ", why);
    };
    if (space == std::string_view::npos) refuse("has no space");
    const std::string left(merge.substr(0, space)), right(merge.substr(space + 1));
    if (!ids.contains(left) || !ids.contains(right) || !ids.contains(left + right))
      refuse("has a side or a result that is not a token");
    if (out.size() > 1) out += ',';
    out += '[' + quoted(file, left) + ',' + quoted(file, right) + ']';
  }
  return out + ']';
}

size_t count_characters(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

// SentencePiece joins the pair whose result has the highest score. As a list of merges: every way
// to make a piece of two others, best score first; between equal scores longer left sides, then
// longer right sides, first, else by ids. This is the order of transformers'
// convert_slow_tokenizer.
std::string merges_from_scores(const GgufFile& file, const Vocabulary& v,
                               const std::unordered_map<std::string_view, int64_t>& ids) {
  struct Merge {
    std::string_view left, right;
    float score;
    size_t left_length, right_length;
  };
  if (v.scores.empty())
    fail(ErrorKind::kCorruptFile, kWhere, file.path().string(), " has no tokenizer.ggml.scores");
  const auto find = [&](std::string_view piece) -> int64_t {
    const auto found = ids.find(piece);
    return found == ids.end() || v.type(static_cast<size_t>(found->second)) != kNormal
               ? -1
               : found->second;
  };
  std::vector<Merge> merges;
  for (size_t i = 0; i < v.tokens.size(); ++i) {
    const std::string_view piece = v.tokens[i];
    if (v.type(i) != kNormal || ids.at(piece) != static_cast<int64_t>(i)) continue;
    if (piece.size() > kMaxPiece || !std::isfinite(v.scores[i]))
      fail(ErrorKind::kCorruptFile, kWhere, file.path().string(), ": token ", i, " has ",
           piece.size(), " bytes and the score ", v.scores[i], ", expected at most ", kMaxPiece,
           " bytes and a finite score");
    std::vector<std::tuple<int64_t, int64_t, size_t>> cuts;
    for (size_t cut = 1; cut < piece.size(); ++cut) {
      if ((piece[cut] & 0xc0) == 0x80) continue;  // inside a character
      const int64_t left = find(piece.substr(0, cut)),
                    right = left < 0 ? -1 : find(piece.substr(cut));
      if (right >= 0) cuts.emplace_back(left, right, cut);
    }
    std::sort(cuts.begin(), cuts.end());
    for (const auto& [left, right, cut] : cuts)
      merges.push_back({piece.substr(0, cut), piece.substr(cut), v.scores[i],
                        count_characters(piece.substr(0, cut)),
                        count_characters(piece.substr(cut))});
  }
  std::stable_sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    return std::tie(a.score, a.left_length, a.right_length) >
           std::tie(b.score, b.left_length, b.right_length);
  });
  std::string out = "[";
  for (const Merge& m : merges) {
    if (out.size() > 1) out += ',';
    out += '[' + quoted(file, m.left) + ',' + quoted(file, m.right) + ']';
  }
  return out + ']';
}

ordered_json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

ordered_json split(const char* pattern) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", pattern}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

ordered_json sequence(const char* key, std::initializer_list<ordered_json> steps) {
  ordered_json list = ordered_json::array();
  for (const ordered_json& step : steps) list.push_back(step);
  return {{"type", "Sequence"}, {key, list}};
}

ordered_json pre_tokenizer_json(const GgufPreTokenizer& pre) {
  ordered_json steps = ordered_json::array();
  if (pre.digits_alone) steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
  for (const char* pattern : pre.patterns) steps.push_back(split(pattern));
  steps.push_back(byte_level(pre.gpt2));
  if (steps.size() == 1) return steps[0];
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

// Puts BOS in front and EOS behind, where asked for.
ordered_json template_json(const Vocabulary& v) {
  const auto special = [&](int64_t id, int type) -> ordered_json {
    return {{"SpecialToken", {{"id", v.tokens[static_cast<size_t>(id)]}, {"type_id", type}}}};
  };
  ordered_json single = ordered_json::array(), pair = ordered_json::array(),
               tokens = ordered_json::object();
  for (int part = 0; part < 2; ++part) {
    const ordered_json text = {{"Sequence", {{"id", part == 0 ? "A" : "B"}, {"type_id", part}}}};
    if (v.add_bos) pair.push_back(special(*v.bos, part));
    pair.push_back(text);
    if (v.add_eos) pair.push_back(special(*v.eos, part));
    if (part == 0) single = pair;
  }
  for (const auto& [wanted, id] : {std::pair{v.add_bos, v.bos}, std::pair{v.add_eos, v.eos}}) {
    if (!wanted) continue;
    const std::string_view token = v.tokens[static_cast<size_t>(*id)];
    tokens[std::string(token)] = {{"id", token}, {"ids", {*id}}, {"tokens", {token}}};
  }
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", tokens}};
}

struct Steps {
  ordered_json normalizer, pre_tokenizer, post_processor, decoder, model;
};

Steps byte_level_steps(const GgufFile& file, const Vocabulary& v) {
  const GgufPreTokenizer& pre = pre_of(file, v);
  Steps s;
  if (pre.nfc) s.normalizer = {{"type", "NFC"}};
  s.pre_tokenizer = pre_tokenizer_json(pre);
  s.post_processor = {{"type", "ByteLevel"},
                      {"add_prefix_space", true},
                      {"trim_offsets", false},
                      {"use_regex", true}};
  if (v.add_bos || v.add_eos)
    s.post_processor = sequence("processors", {s.post_processor, template_json(v)});
  s.decoder = {{"type", "ByteLevel"},
               {"add_prefix_space", true},
               {"trim_offsets", true},
               {"use_regex", true}};
  s.model = {{"type", "BPE"},
             {"dropout", nullptr},
             {"unk_token", nullptr},
             {"continuing_subword_prefix", nullptr},
             {"end_of_word_suffix", nullptr},
             {"fuse_unk", false},
             {"byte_fallback", false},
             {"ignore_merges", pre.ignore_merges}};
  return s;
}

Steps sentencepiece_steps(const GgufFile& file, const Vocabulary& v) {
  const bool prefix = file.flag("tokenizer.ggml.add_space_prefix").value_or(true);
  const ordered_json to_visible = {
      {"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpace}};
  const ordered_json to_space = {
      {"type", "Replace"}, {"pattern", {{"String", kSpace}}}, {"content", " "}};
  const ordered_json bytes = {{"type", "ByteFallback"}}, fuse = {{"type", "Fuse"}};
  Steps s;
  if (prefix) {
    s.normalizer =
        sequence("normalizers", {{{"type", "Prepend"}, {"prepend", kSpace}}, to_visible});
    s.decoder = sequence(
        "decoders",
        {to_space, bytes, fuse, {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}});
  } else {
    s.normalizer = to_visible;
    s.decoder = sequence("decoders", {to_space, bytes, fuse});
  }
  s.post_processor = template_json(v);
  const bool fallback = std::find(v.types.begin(), v.types.end(), kByte) != v.types.end();
  ordered_json unk;
  if (v.unk) unk = v.tokens[static_cast<size_t>(*v.unk)];
  s.model = {{"type", "BPE"},
             {"dropout", nullptr},
             {"unk_token", unk},
             {"continuing_subword_prefix", nullptr},
             {"end_of_word_suffix", nullptr},
             {"fuse_unk", true},
             {"byte_fallback", fallback},
             {"ignore_merges", false}};
  return s;
}

}  // namespace

std::string tokenizer_json_from_gguf(const GgufFile& file) {
  const Vocabulary v = read_vocabulary(file);
  std::unordered_map<std::string_view, int64_t> ids;
  const std::string vocab = vocab_json(file, v, ids);  // checks that all tokens are UTF-8
  const Steps steps = v.is_byte_level() ? byte_level_steps(file, v) : sentencepiece_steps(file, v);
  std::string model = steps.model.dump();
  model.pop_back();
  return "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":" +
         added_tokens_json(file, v, ids) + ",\"normalizer\":" + steps.normalizer.dump() +
         ",\"pre_tokenizer\":" + steps.pre_tokenizer.dump() +
         ",\"post_processor\":" + steps.post_processor.dump() +
         ",\"decoder\":" + steps.decoder.dump() + ",\"model\":" + model + ",\"vocab\":" + vocab +
         ",\"merges\":" +
         (v.is_byte_level() ? merges_json(file, ids) : merges_from_scores(file, v, ids)) + "}}\n";
}

json tokenizer_config_from_gguf(const GgufFile& file) {
  const Vocabulary v = read_vocabulary(file);
  json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"clean_up_tokenization_spaces", false},
                 {"add_bos_token", v.add_bos},
                 {"add_eos_token", v.add_eos}};
  const auto add = [&](const char* key, std::string_view text) {
    config[key] = json::parse(quoted(file, text));
  };
  const std::pair<const char*, std::optional<int64_t>> specials[] = {
      {"bos_token", v.bos}, {"eos_token", v.eos}, {"unk_token", v.unk}, {"pad_token", v.pad}};
  for (const auto& [key, id] : specials)
    if (id) add(key, v.tokens[static_cast<size_t>(*id)]);
  if (const auto architecture = file.text("general.architecture"))
    if (const auto context = file.integer(std::string(*architecture) + ".context_length"))
      config["model_max_length"] = *context;
  if (const auto chat = file.text("tokenizer.chat_template")) add("chat_template", *chat);
  return config;
}

}  // namespace signround
