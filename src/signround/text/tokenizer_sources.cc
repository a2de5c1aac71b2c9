#include "signround/text/tokenizer_sources.h"

#include <algorithm>
#include <charconv>
#include <tuple>
#include <unordered_map>

#include "signround/base/error.h"
#include "signround/text/byte_level.h"
#include "signround/text/charsmap.h"
#include "signround/text/json_field.h"
#include "signround/text/pattern_scan.h"
#include "signround/text/vocab.h"

namespace signround {

namespace {

using nlohmann::json;

json split_and_bytes(std::string_view pattern) {
  return {{"type", "Sequence"},
          {"pretokenizers",
           {{{"type", "Split"},
             {"pattern", {{"Regex", std::string(pattern)}}},
             {"behavior", "Isolated"},
             {"invert", false}},
            {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
}

// The class without "Fast": Qwen2TokenizerFast is the same tokenizer as Qwen2Tokenizer.
std::string tokenizer_class(const json& config) {
  std::string name = string_field(config, "tokenizer_class", "", "tokenizer_config.json");
  if (name.size() > 4 && name.compare(name.size() - 4, 4, "Fast") == 0)
    name.resize(name.size() - 4);
  return name;
}

json template_of(const std::vector<std::pair<std::string, int64_t>>& before,
                 const std::vector<std::pair<std::string, int64_t>>& after) {
  json single = json::array(), tokens = json::object();
  const auto add = [&](const auto& list) {
    for (const auto& [name, id] : list) {
      single.push_back({{"SpecialToken", {{"id", name}, {"type_id", 0}}}});
      tokens[name] = {{"id", name}, {"ids", {id}}, {"tokens", {name}}};
    }
  };
  add(before);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  add(after);
  return {{"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", tokens}};
}

}  // namespace

TokenizerSource vocab_and_merges(const json& vocab, std::string_view merges, json config) {
  TokenizerSource s;
  json list = json::array();
  while (!merges.empty()) {
    const size_t end = std::min(merges.find('\n'), merges.size());
    std::string_view line = merges.substr(0, end);
    merges.remove_prefix(std::min(end + 1, merges.size()));
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (!line.empty() && line.substr(0, 8) != "#version") list.push_back(std::string(line));
  }
  s.tokenizer["model"] = {{"type", "BPE"}, {"vocab", vocab}, {"merges", std::move(list)}};
  s.tokenizer["decoder"] = {{"type", "ByteLevel"}};
  const std::string name = tokenizer_class(config);
  if (name == "Qwen2Tokenizer") {
    s.tokenizer["normalizer"] = {{"type", "NFC"}};
    s.tokenizer["pre_tokenizer"] = split_and_bytes(pattern_text(KnownPattern::kQwen2));
  } else {
    const bool prefix = bool_field(config, "add_prefix_space", false, "tokenizer_config.json");
    s.tokenizer["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", prefix}};
    if (name != "GPT2Tokenizer" && name != "CodeGenTokenizer")
      s.notes.push_back("there is no tokenizer.json, and tokenizer class \"" + name +
                        "\" is taken for GPT-2's");
  }
  // These classes name their special tokens by default.
  if (config.is_null()) config = json::object();
  const char* end_of_text = "<|endoftext|>";
  const bool qwen = name == "Qwen2Tokenizer";
  if (qwen || vocab.contains(end_of_text))
    for (const char* field : {"eos_token", "unk_token", qwen ? "pad_token" : "bos_token"})
      if (config.is_object() && !config.contains(field)) config[field] = end_of_text;
  s.config = std::move(config);
  return s;
}

bool is_tiktoken(std::string_view file) {
  const std::string_view line = file.substr(0, std::min(file.find('\n'), size_t{4096}));
  const size_t space = line.find(' ');
  if (space == std::string_view::npos || space == 0 || space + 1 == line.size()) return false;
  const auto digit = [](char c) { return (c >= '0' && c <= '9') || c == '\r'; };
  const auto base64 = [digit](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || digit(c) || c == '+' || c == '/' ||
           c == '=';
  };
  return std::all_of(line.begin(), line.begin() + static_cast<int64_t>(space), base64) &&
         std::all_of(line.begin() + static_cast<int64_t>(space) + 1, line.end(), digit);
}

TokenizerSource tiktoken_model(std::string_view file, json config) {
  constexpr const char* where = "tiktoken file";
  Vocab ranks;  // by bytes
  std::vector<std::pair<std::string, int64_t>> tokens;
  for (size_t line_number = 1; !file.empty(); ++line_number) {
    const size_t end = std::min(file.find('\n'), file.size());
    std::string_view line = file.substr(0, end);
    file.remove_prefix(std::min(end + 1, file.size()));
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty()) continue;
    const size_t space = line.find(' ');
    int64_t rank = -1;
    const char* number = line.data() + std::min(space + 1, line.size());
    if (space == std::string_view::npos ||
        std::from_chars(number, line.data() + line.size(), rank).ptr != line.data() + line.size())
      fail(ErrorKind::kCorruptFile, where, "line ", line_number, " is \"", excerpt(line),
           "\", expected base64, a space, a rank");
    tokens.emplace_back(base64_decode(line.substr(0, space), where), rank);
    ranks.add(tokens.back().first, rank);
  }
  TokenizerSource s;
  json vocab = json::object();
  std::vector<std::tuple<int64_t, int32_t, int32_t>>
      merges;  // rank of the result, ranks of the parts
  for (const auto& [bytes, rank] : tokens) {
    std::string name;
    append_byte_chars(name, bytes);
    vocab[name] = rank;
    const std::string_view all = bytes;
    if (all.size() > 4096)
      fail(ErrorKind::kUnsupported, where, "a token has ", all.size(),
           " bytes, expected at most 4096");
    for (size_t i = 1; i < all.size(); ++i) {
      const int32_t left = ranks.find(all.substr(0, i)), right = ranks.find(all.substr(i));
      if (left >= 0 && right >= 0) merges.emplace_back(rank, left, right);
    }
  }
  std::sort(merges.begin(), merges.end());
  json list = json::array();
  for (const auto& [rank, left, right] : merges) {
    std::string a, b;
    append_byte_chars(a, ranks.token(left));
    append_byte_chars(b, ranks.token(right));
    list.push_back({std::move(a), std::move(b)});
  }
  s.tokenizer["model"] = {{"type", "BPE"},
                          {"vocab", std::move(vocab)},
                          {"merges", std::move(list)},
                          {"ignore_merges", true}};
  s.tokenizer["decoder"] = {{"type", "ByteLevel"}};
  const std::string name = tokenizer_class(config);
  const bool qwen = name == "QWenTokenizer";
  s.tokenizer["pre_tokenizer"] =
      split_and_bytes(pattern_text(qwen ? KnownPattern::kQwen2 : KnownPattern::kLlama3));
  // Special tokens: those that the config lists, the gaps between them filled; Qwen's code has its
  // own list.
  int64_t next = ranks.end_id();
  json added = json::array();
  const auto add = [&](const std::string& content) {
    added.push_back(
        {{"id", next++}, {"content", content}, {"special", true}, {"normalized", false}});
  };
  if (qwen) {
    s.tokenizer["normalizer"] = {{"type", "NFC"}};
    for (const char* content : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) add(content);
    for (int i = 0; i < 205; ++i) add("<|extra_" + std::to_string(i) + "|>");
  }
  if (const auto* decoder = find_field(config, "added_tokens_decoder");
      decoder && decoder->is_object()) {
    std::unordered_map<int64_t, std::string> by_id;
    int64_t last = -1;
    for (const auto& [id, token] : decoder->items()) {
      const int64_t number = std::strtoll(id.c_str(), nullptr, 10);
      if (number > kMaxTokenId)
        fail(ErrorKind::kCorruptFile, "tokenizer_config.json", "an added token has id ", id);
      by_id[number] = string_field(token, "content", "tokenizer_config.json");
      last = std::max(last, number);
    }
    while (next <= last) {
      const auto it = by_id.find(next);
      add(it != by_id.end() ? it->second : "<|reserved_token_" + std::to_string(next) + "|>");
    }
  }
  if (name == "ChatGLM4Tokenizer") {  // every text starts with these two
    std::vector<std::pair<std::string, int64_t>> prefix;
    for (const auto& token : added)
      for (const char* content : {"[gMASK]", "<sop>"})
        if (token["content"] == content) prefix.emplace_back(content, token["id"].get<int64_t>());
    s.tokenizer["post_processor"] = template_of(prefix, {});
  }
  s.tokenizer["added_tokens"] = std::move(added);
  s.config = std::move(config);
  return s;
}

}  // namespace signround
