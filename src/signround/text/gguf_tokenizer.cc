#include "signround/text/gguf_tokenizer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <optional>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
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

// tokenizer.ggml.model. Of llama.cpp's others (bert, t5, rwkv, plamo2, hybriddna) none is a
// language model's that this program quantizes.
constexpr std::string_view kModels[] = {"gpt2", "llama", "gemma4", "whitespace"};

struct Vocabulary {
  std::span<const std::string_view> tokens;
  std::vector<int64_t> types;  // one per token, as llama.cpp corrects them
  std::vector<float> scores;   // one per token, or none
  std::string_view model;
  const GgufPreTokenizer* pre = nullptr;  // null: model llama, which cuts nothing
  std::optional<int64_t> bos, eos, unk, pad;
  bool add_bos = false, add_eos = false;

  int64_t type(size_t i) const { return types[i]; }
  bool is_added(size_t i) const {
    return types[i] == kControl || types[i] == kUnknown || types[i] == kUserDefined;
  }
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

const GgufPreTokenizer* pre_of(const GgufFile& file, const Vocabulary& v) {
  if (v.model == "llama") return nullptr;
  std::string_view pre = file.text("tokenizer.ggml.pre").value_or("");
  if (v.model == "gemma4") pre = "gemma4";  // such files need not say it
  if (v.model == "whitespace" && pre != "whitespace")
    fail(ErrorKind::kUnsupported, kWhere, file.path().string(),
         ": tokenizer.ggml.model is whitespace and tokenizer.ggml.pre '", excerpt(pre, 32),
         "', expected whitespace");
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
         excerpt(pre, 32), "; known are ", gguf_pre_tokenizer_names());
  return known;
}

// Tokens with these names are special whatever type the file gives them (llama.cpp,
// llama-vocab.cpp: what ends a turn or a generation, or a piece of code to fill in). With `key`:
// only where the file does not name the token's id.
struct SpecialNames {
  std::array<const char*, 2> keys;
  std::vector<std::string_view> names;
};

const std::vector<SpecialNames>& special_names() {
  static const std::vector<SpecialNames> kNames = {
      {{},
       {"<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "</s>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "<eos>",
        "<turn|>",
        "<|tool_response>",
        "<｜end▁of▁sentence｜>",
        "[e~["}},
      {{"fim_pre", "prefix"},
       {"<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
        "<|code_prefix|>", "<|prefix|>"}},
      {{"fim_suf", "suffix"},
       {"<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
        "<|code_suffix|>", "<|suffix|>"}},
      {{"fim_mid", "middle"},
       {"<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>",
        "<|code_middle|>", "<|middle|>"}},
      {{"fim_pad", nullptr}, {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"}},
      {{"fim_rep", nullptr},
       {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"}},
      {{"fim_sep", nullptr}, {"<|file_sep|>"}}};
  return kNames;
}

void correct_types(const GgufFile& file, Vocabulary& v) {
  v.types.resize(v.tokens.size(), kNormal);
  std::unordered_set<std::string_view> special;
  for (const auto& [keys, names] : special_names()) {
    bool given = false;
    for (const char* key : keys)
      given = given ||
              (key && file.find("tokenizer.ggml." + std::string(key) + "_token_id") != nullptr);
    if (!given) special.insert(names.begin(), names.end());
  }
  // Gemma 4's vocabulary has HTML's "</s>".
  if (std::find(v.tokens.begin(), v.tokens.end(), "<|tool_response>") != v.tokens.end())
    special.erase("</s>");
  for (size_t i = 0; i < v.tokens.size(); ++i)
    if (!v.is_added(i) && special.contains(v.tokens[i])) v.types[i] = kControl;
}

Vocabulary read_vocabulary(const GgufFile& file) {
  Vocabulary v;
  v.model = file.text("tokenizer.ggml.model").value_or("");
  if (std::find(std::begin(kModels), std::end(kModels), v.model) == std::end(kModels))
    fail(ErrorKind::kUnsupported, kWhere, file.path().string(), ": tokenizer.ggml.model is '",
         excerpt(v.model, 32), "'; gpt2, llama, gemma4 and whitespace are read");
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
  correct_types(file, v);
  v.pre = pre_of(file, v);

  const bool spm = v.pre == nullptr;  // SentencePiece's own ids hold where the file names none
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
  v.add_bos = v.bos && ((v.pre && v.pre->always_bos) ||
                        file.flag("tokenizer.ggml.add_bos_token").value_or(spm || v.pre->add_bos));
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

bool only_newlines(std::string_view token) {
  return !token.empty() && token.find_first_not_of('\n') == std::string_view::npos;
}

// Whether the file's merges make every run of line ends that is a token that token. Of Gemma's
// files they do.
bool merges_make_newline_runs(const GgufFile& file, const Vocabulary& v) {
  constexpr size_t kLongest = 64;  // Gemma: 31
  std::map<std::pair<size_t, size_t>, size_t> ranks;
  for (const std::string_view merge : file.strings("tokenizer.ggml.merges")) {
    const size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos || !only_newlines(merge.substr(0, space)) ||
        !only_newlines(merge.substr(space + 1)))
      continue;
    ranks.emplace(std::pair(space, merge.size() - space - 1), ranks.size());
  }
  for (const std::string_view token : v.tokens) {
    if (!only_newlines(token)) continue;
    if (token.size() > kLongest) return false;
    std::vector<size_t> parts(token.size(), 1);
    while (parts.size() > 1) {  // the merge of lowest rank, of equal ones the first
      size_t best = SIZE_MAX, at = 0;
      for (size_t i = 0; i + 1 < parts.size(); ++i) {
        const auto found = ranks.find({parts[i], parts[i + 1]});
        if (found != ranks.end() && found->second < best) best = found->second, at = i;
      }
      if (best == SIZE_MAX) return false;
      parts[at] += parts[at + 1];
      parts.erase(parts.begin() + static_cast<int64_t>(at) + 1);
    }
  }
  return true;
}

// Which of the added tokens take white space along: what llama.cpp knows by the model's name, since
// the file does not say it.
class Strips {
 public:
  Strips(const GgufFile& file, const Vocabulary& v) : v_(v) {
    std::string name(file.text("general.name").value_or(""));
    for (char& c : name)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    const auto named = [&](const char* part) { return name.find(part) != std::string::npos; };
    if (v.pre && v.pre->mask_strips)
      left_ = "<mask>";
    else if (named("phi-3") || named("phi3"))
      right_ = true;
    else if (named("modern-bert"))
      left_ = "[MASK]";
  }
  bool left(size_t i) const { return !left_.empty() && v_.tokens[i] == left_; }
  bool right(size_t i) const {
    const std::string_view token = v_.tokens[i];
    return right_ && token != "<unk>" && token != "<s>" && token != "<|endoftext|>";
  }

 private:
  const Vocabulary& v_;
  std::string_view left_;
  bool right_ = false;
};

std::string added_tokens_json(const GgufFile& file, const Vocabulary& v,
                              const std::unordered_map<std::string_view, int64_t>& ids) {
  // Where the merges do not make them, runs of line ends are added tokens: cut before all else.
  const bool add_newlines = v.pre && v.pre->newline_runs && !merges_make_newline_runs(file, v);
  const Strips strips(file, v);
  const auto yes_no = [](bool b) { return b ? "true" : "false"; };
  std::string out = "[";
  for (size_t i = 0; i < v.tokens.size(); ++i) {
    const bool special = v.type(i) == kControl || v.type(i) == kUnknown;
    if (!(v.is_added(i) || (add_newlines && only_newlines(v.tokens[i]))) || v.tokens[i].empty() ||
        ids.at(v.tokens[i]) != static_cast<int64_t>(i))
      continue;
    if (out.size() > 1) out += ',';
    out += "{\"id\":" + std::to_string(i) + ",\"content\":" + quoted(file, v.tokens[i]) +
           ",\"single_word\":false,\"lstrip\":" + yes_no(strips.left(i)) +
           ",\"rstrip\":" + yes_no(strips.right(i)) +
           ",\"normalized\":false,\"special\":" + yes_no(special) + '}';
  }
  return out + ']';
}

// The merges stand in the file: "left right", split at the first space behind the first byte.
std::string merges_json(const GgufFile& file, const Vocabulary& v,
                        const std::unordered_map<std::string_view, int64_t>& ids) {
  constexpr const char* kWrittenSpace = "\xc4\xa0";  // U+0120
  std::string out = "[";
  for (std::string_view merge : file.strings("tokenizer.ggml.merges")) {
    const size_t space = merge.find(' ', 1);
    const auto refuse = [&](const char* why) {
      fail(ErrorKind::kCorruptFile, kWhere, file.path().string(), ": the merge '",
           excerpt(merge, 64), "' ", why);
    };
    if (space == std::string_view::npos) refuse("has no space");
    const std::string left(merge.substr(0, space)), right(merge.substr(space + 1));
    // Converters write a space in a merge as U+0120. A plain vocabulary never sees one in a text.
    if (v.pre->plain && !(ids.contains(left) && ids.contains(right)) &&
        merge.find(kWrittenSpace) != std::string_view::npos)
      continue;
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

ordered_json bpe_json(const ordered_json& unk, bool fuse_unk, bool byte_fallback,
                      bool ignore_merges) {
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", unk},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", fuse_unk},
          {"byte_fallback", byte_fallback},
          {"ignore_merges", ignore_merges}};
}

Steps byte_level_steps(const Vocabulary& v) {
  const GgufPreTokenizer& pre = *v.pre;
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
  s.model = bpe_json(nullptr, false, false, pre.ignore_merges);
  return s;
}

ordered_json replace(const char* from, const char* to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

// Merges over tokens that are written as they are. A character that is no token and whose bytes are
// none leaves nothing, as in llama.cpp.
Steps plain_steps(const GgufFile& file, const Vocabulary& v,
                  const std::unordered_map<std::string_view, int64_t>& ids) {
  const GgufPreTokenizer& pre = *v.pre;
  const ordered_json bytes = {{"type", "ByteFallback"}}, fuse = {{"type", "Fuse"}};
  Steps s;
  ordered_json normalizers = ordered_json::array(), pre_tokenizers = ordered_json::array();
  if (v.model == "whitespace") {
    if (file.flag("tokenizer.ggml.normalizer.lowercase").value_or(false))
      normalizers.push_back({{"type", "Lowercase"}});
    pre_tokenizers.push_back({{"type", "WhitespaceSplit"}});  // drops the white space
  }
  if (pre.visible_spaces) normalizers.push_back(replace(" ", kSpace));
  for (const char* pattern : pre.patterns) pre_tokenizers.push_back(split(pattern));
  const auto one_or_all = [](const char* key, const ordered_json& steps) -> ordered_json {
    if (steps.empty()) return nullptr;
    if (steps.size() == 1) return steps[0];
    return {{"type", "Sequence"}, {key, steps}};
  };
  s.normalizer = one_or_all("normalizers", normalizers);
  s.pre_tokenizer = one_or_all("pretokenizers", pre_tokenizers);
  s.post_processor = template_json(v);
  s.decoder = pre.visible_spaces ? sequence("decoders", {replace(kSpace, " "), bytes, fuse})
                                 : sequence("decoders", {bytes, fuse});
  s.model = bpe_json(nullptr, false, ids.contains("<0x00>"), false);
  return s;
}

Steps sentencepiece_steps(const GgufFile& file, const Vocabulary& v) {
  const bool prefix = file.flag("tokenizer.ggml.add_space_prefix").value_or(true);
  const ordered_json to_visible = replace(" ", kSpace), to_space = replace(kSpace, " ");
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
  s.model = bpe_json(unk, true, fallback, false);
  return s;
}

}  // namespace

std::string tokenizer_json_from_gguf(const GgufFile& file) {
  const Vocabulary v = read_vocabulary(file);
  std::unordered_map<std::string_view, int64_t> ids;
  const std::string vocab = vocab_json(file, v, ids);  // checks that all tokens are UTF-8
  const Steps steps = !v.pre         ? sentencepiece_steps(file, v)
                      : v.pre->plain ? plain_steps(file, v, ids)
                                     : byte_level_steps(v);
  std::string model = steps.model.dump();
  model.pop_back();
  return "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":" +
         added_tokens_json(file, v, ids) + ",\"normalizer\":" + steps.normalizer.dump() +
         ",\"pre_tokenizer\":" + steps.pre_tokenizer.dump() +
         ",\"post_processor\":" + steps.post_processor.dump() +
         ",\"decoder\":" + steps.decoder.dump() + ",\"model\":" + model + ",\"vocab\":" + vocab +
         ",\"merges\":" + (v.pre ? merges_json(file, v, ids) : merges_from_scores(file, v, ids)) +
         "}}\n";
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
  const auto chat = file.text("tokenizer.chat_template");
  const auto names = file.strings("tokenizer.chat_templates");
  if (chat && names.empty()) add("chat_template", *chat);
  if (!names.empty()) {  // several, each under a key of its own; the unnamed one is the default
    json list = json::array();
    const auto add_template = [&](std::string_view name, std::string_view text) {
      list.push_back({{"name", json::parse(quoted(file, name))},
                      {"template", json::parse(quoted(file, text))}});
    };
    if (chat) add_template("default", *chat);
    for (const std::string_view name : names) {
      const auto text = file.text("tokenizer.chat_template." + std::string(name));
      if (!text)
        fail(ErrorKind::kCorruptFile, kWhere, file.path().string(),
             ": tokenizer.chat_templates names '", excerpt(name, 32),
             "', and there is no tokenizer.chat_template of this name");
      add_template(name, *text);
    }
    config["chat_template"] = list;
  }
  return config;
}

}  // namespace signround
