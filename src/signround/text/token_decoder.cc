#include "signround/text/token_decoder.h"

#include <utility>

#include "signround/base/error.h"
#include "signround/text/byte_level.h"
#include "signround/text/json_field.h"
#include "signround/text/regex.h"
#include "signround/text/unicode.h"

namespace signround {

namespace {

constexpr const char* kWhere = "tokenizer decoder";

uint32_t character_field(const nlohmann::json& j, const char* field, const char* fallback) {
  const std::string text = string_field(j, field, fallback, kWhere);
  if (unicode::count(text) != 1)
    fail(ErrorKind::kCorruptFile, kWhere, field, " is \"", text, "\", expected one character");
  return unicode::decode(text.data());
}

std::string join(const std::vector<std::string>& tokens) {
  std::string text;
  for (const std::string& t : tokens) text += t;
  return text;
}

// Spaces that tokenization put before punctuation and contractions.
void clean_up(std::string& text) {
  static constexpr std::pair<const char*, const char*> kRules[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules) replace_all(text, from, to);
}

class ByteLevel : public TokenDecoder {
 public:
  void apply(std::vector<std::string>& tokens) const override {
    std::string bytes;
    for (const std::string& t : tokens)
      if (!append_char_bytes(bytes, t)) bytes += t;
    tokens.assign(1, unicode::to_valid(bytes));
  }
};

class Metaspace : public TokenDecoder {
 public:
  explicit Metaspace(const nlohmann::json& j)
      : replacement_(unicode::encode(character_field(j, "replacement", "\xE2\x96\x81"))) {
    drop_first_ = string_field(j, "prepend_scheme", "always", kWhere) != "never" &&
                  bool_field(j, "add_prefix_space", true, kWhere);
  }
  void apply(std::vector<std::string>& tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i)
      replace_all(tokens[i], replacement_, i == 0 && drop_first_ ? "" : " ");
  }

 private:
  std::string replacement_;
  bool drop_first_;
};

// "<0x41>" is the byte 0x41; a run of bytes that is not UTF-8 becomes one U+FFFD a byte.
class ByteFallback : public TokenDecoder {
 public:
  void apply(std::vector<std::string>& tokens) const override {
    std::vector<std::string> out;
    std::string bytes;
    const auto flush = [&] {
      if (unicode::valid_prefix(bytes) == bytes.size()) {
        if (!bytes.empty()) out.push_back(bytes);
      } else {
        for (size_t i = 0; i < bytes.size(); ++i) out.emplace_back("\xEF\xBF\xBD");
      }
      bytes.clear();
    };
    for (std::string& t : tokens) {
      const int byte = byte_of(t);
      if (byte >= 0) {
        bytes += static_cast<char>(byte);
      } else {
        flush();
        out.push_back(std::move(t));
      }
    }
    flush();
    tokens.swap(out);
  }

 private:
  static int byte_of(const std::string& t) {
    if (t.size() != 6 || t.compare(0, 3, "<0x") != 0 || t[5] != '>') return -1;
    int value = 0;
    for (int i = 3; i < 5; ++i) {
      const char c = t[static_cast<size_t>(i)];
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                               : -1;
      if (digit < 0) return -1;
      value = value * 16 + digit;
    }
    return value;
  }
};

class Fuse : public TokenDecoder {
 public:
  void apply(std::vector<std::string>& tokens) const override { tokens.assign(1, join(tokens)); }
};

class Strip : public TokenDecoder {
 public:
  explicit Strip(const nlohmann::json& j)
      : content_(unicode::encode(character_field(j, "content", " "))),
        start_(int_field(j, "start", 0, kWhere)),
        stop_(int_field(j, "stop", 0, kWhere)) {}
  void apply(std::vector<std::string>& tokens) const override {
    for (std::string& t : tokens) {
      size_t begin = 0, end = t.size();
      for (int64_t i = 0; i < start_ && t.compare(begin, content_.size(), content_) == 0; ++i)
        begin += content_.size();
      for (int64_t i = 0; i < stop_ && end >= begin + content_.size() &&
                          t.compare(end - content_.size(), content_.size(), content_) == 0;
           ++i)
        end -= content_.size();
      t = t.substr(begin, end - begin);
    }
  }

 private:
  std::string content_;
  int64_t start_, stop_;
};

class Replace : public TokenDecoder {
 public:
  explicit Replace(const nlohmann::json& j) : content_(string_field(j, "content", kWhere)) {
    const auto* pattern = find_field(j, "pattern");
    if (!pattern)
      fail(ErrorKind::kCorruptFile, kWhere,
           "Replace has no pattern, expected {\"Regex\": ...} or {\"String\": ...}");
    if (find_field(*pattern, "String"))
      literal_ = string_field(*pattern, "String", kWhere);
    else
      regex_ = std::make_unique<Regex>(string_field(*pattern, "Regex", kWhere));
    if (!regex_ && literal_.empty()) regex_ = std::make_unique<Regex>("");
  }
  void apply(std::vector<std::string>& tokens) const override {
    for (std::string& t : tokens) {
      if (!regex_) {
        replace_all(t, literal_, content_);
        continue;
      }
      std::string out;
      size_t last = 0;
      regex_->for_each(t, [&](size_t begin, size_t end) {
        out.append(t, last, begin - last);
        out += content_;
        last = end;
      });
      out.append(t, last);
      t.swap(out);
    }
  }

 private:
  std::string literal_, content_;
  std::unique_ptr<Regex> regex_;
};

class WordPiece : public TokenDecoder {
 public:
  explicit WordPiece(const nlohmann::json& j)
      : prefix_(string_field(j, "prefix", "##", kWhere)),
        cleanup_(bool_field(j, "cleanup", true, kWhere)) {}
  void apply(std::vector<std::string>& tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      std::string& t = tokens[i];
      if (i > 0) {
        if (t.compare(0, prefix_.size(), prefix_) == 0)
          t.erase(0, prefix_.size());
        else
          t.insert(0, " ");
      }
      if (cleanup_) clean_up(t);
    }
  }

 private:
  std::string prefix_;
  bool cleanup_;
};

class BpeSuffix : public TokenDecoder {
 public:
  explicit BpeSuffix(const nlohmann::json& j)
      : suffix_(string_field(j, "suffix", "</w>", kWhere)) {}
  void apply(std::vector<std::string>& tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i)
      replace_all(tokens[i], suffix_, i + 1 == tokens.size() ? "" : " ");
  }

 private:
  std::string suffix_;
};

// Connectionist temporal classification: repeats and padding go, the delimiter is a space.
class Ctc : public TokenDecoder {
 public:
  explicit Ctc(const nlohmann::json& j)
      : pad_(string_field(j, "pad_token", "<pad>", kWhere)),
        delimiter_(string_field(j, "word_delimiter_token", "|", kWhere)),
        cleanup_(bool_field(j, "cleanup", true, kWhere)) {}
  void apply(std::vector<std::string>& tokens) const override {
    std::vector<std::string> out;
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0 && tokens[i] == tokens[i - 1]) continue;
      std::string t = tokens[i];
      replace_all(t, pad_, "");
      if (cleanup_) {
        clean_up(t);
        replace_all(t, delimiter_, " ");
      }
      if (!t.empty()) out.push_back(std::move(t));
    }
    tokens.swap(out);
  }

 private:
  std::string pad_, delimiter_;
  bool cleanup_;
};

class Sequence : public TokenDecoder {
 public:
  explicit Sequence(std::vector<std::unique_ptr<TokenDecoder>> steps) : steps_(std::move(steps)) {}
  void apply(std::vector<std::string>& tokens) const override {
    for (const auto& step : steps_) step->apply(tokens);
  }

 private:
  std::vector<std::unique_ptr<TokenDecoder>> steps_;
};

std::unique_ptr<TokenDecoder> make(const nlohmann::json& j, int depth) {
  if (depth > 16) fail(ErrorKind::kCorruptFile, kWhere, "sequences are nested deeper than 16");
  const std::string type = string_field(j, "type", kWhere);
  if (type == "Sequence") {
    const auto* list = find_field(j, "decoders");
    if (!list || !list->is_array())
      fail(ErrorKind::kCorruptFile, kWhere, "Sequence has no list \"decoders\"");
    std::vector<std::unique_ptr<TokenDecoder>> steps;
    for (const auto& step : *list) steps.push_back(make(step, depth + 1));
    return std::make_unique<Sequence>(std::move(steps));
  }
  if (type == "ByteLevel") return std::make_unique<ByteLevel>();
  if (type == "Metaspace") return std::make_unique<Metaspace>(j);
  if (type == "ByteFallback") return std::make_unique<ByteFallback>();
  if (type == "Fuse") return std::make_unique<Fuse>();
  if (type == "Strip") return std::make_unique<Strip>(j);
  if (type == "Replace") return std::make_unique<Replace>(j);
  if (type == "WordPiece") return std::make_unique<WordPiece>(j);
  if (type == "BPEDecoder") return std::make_unique<BpeSuffix>(j);
  if (type == "CTC") return std::make_unique<Ctc>(j);
  fail(ErrorKind::kUnsupported, kWhere, "type \"", type, "\" is not known");
}

}  // namespace

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty()) return;
  size_t at = text.find(from);
  if (at == std::string::npos) return;
  std::string out;
  size_t last = 0;
  for (; at != std::string::npos; at = text.find(from, last)) {
    out.append(text, last, at - last);
    out += to;
    last = at + from.size();
  }
  out.append(text, last);
  text.swap(out);
}

std::unique_ptr<TokenDecoder> make_token_decoder(const nlohmann::json& config) {
  return config.is_null() ? nullptr : make(config, 0);
}

}  // namespace signround
