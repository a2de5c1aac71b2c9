#include "signround/text/normalizer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "signround/base/error.h"
#include "signround/text/byte_level.h"
#include "signround/text/charsmap.h"
#include "signround/text/json_field.h"
#include "signround/text/normal_form.h"
#include "signround/text/regex.h"
#include "signround/text/unicode.h"

namespace signround {

namespace {

constexpr const char* kWhere = "tokenizer normalizer";
// A hostile Prepend or Replace may blow a text up; nothing real comes near this.
constexpr size_t kMaxGrowth = 64, kFreeSize = 16 << 20;

// Writes change(code point, classes, out) of every character into a new text.
template <class Change>
void rewrite(NormalizedText& t, Change&& change) {
  const uint16_t* table = unicode::class_table();
  const std::string& text = t.text;
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const uint32_t cp = unicode::decode(text.data() + i);
    change(cp, table[cp], out);
    if (i == 0 && out.empty()) t.at_origin = false;
    i += unicode::sequence_length(static_cast<unsigned char>(text[i]));
  }
  t.text.swap(out);
}

void lowercase(NormalizedText& t) {
  rewrite(t, [](uint32_t cp, uint16_t, std::string& out) {
    if (cp < 0x80)
      out += static_cast<char>(cp >= 'A' && cp <= 'Z' ? cp + 32 : cp);
    else if (cp == 0x130)  // the only character whose lower case is two
      out += "i\xCC\x87";
    else
      unicode::append(out, unicode::lower(cp));
  });
}

class Form : public Normalizer {
 public:
  explicit Form(NormalForm form) : form_(form) {}
  void apply(NormalizedText& t) const override { to_normal_form(form_, t.text); }

 private:
  NormalForm form_;
};

class Lowercase : public Normalizer {
 public:
  void apply(NormalizedText& t) const override { lowercase(t); }
};

class StripAccents : public Normalizer {
 public:
  void apply(NormalizedText& t) const override {
    rewrite(t, [](uint32_t cp, uint16_t c, std::string& out) {
      if (!(c & unicode::kMark)) unicode::append(out, cp);
    });
  }
};

class Strip : public Normalizer {
 public:
  explicit Strip(const nlohmann::json& j)
      : left_(bool_field(j, "strip_left", true, kWhere)),
        right_(bool_field(j, "strip_right", true, kWhere)) {}
  void apply(NormalizedText& t) const override {
    std::string& s = t.text;
    size_t begin = 0, end = s.size();
    while (left_ && begin < end &&
           unicode::classes(unicode::decode(s.data() + begin)) & unicode::kSpace)
      begin += unicode::sequence_length(static_cast<unsigned char>(s[begin]));
    while (right_ && end > begin) {
      const char* last = unicode::previous(s.data() + end);
      if (!(unicode::classes(unicode::decode(last)) & unicode::kSpace)) break;
      end = static_cast<size_t>(last - s.data());
    }
    if (begin > 0) t.at_origin = false;
    s.resize(end);
    s.erase(0, begin);
  }

 private:
  bool left_, right_;
};

class Affix : public Normalizer {
 public:
  Affix(std::string affix, bool front) : affix_(std::move(affix)), front_(front) {}
  void apply(NormalizedText& t) const override {
    if (!t.text.empty()) t.text.insert(front_ ? 0 : t.text.size(), affix_);
  }

 private:
  std::string affix_;
  bool front_;
};

class Replace : public Normalizer {
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

  void apply(NormalizedText& t) const override {
    const std::string_view text = t.text;
    std::string out;
    size_t last = 0;
    const auto put = [&](size_t begin, size_t end) {
      if (begin == 0 && last == 0 && content_.empty() && end > 0) t.at_origin = false;
      out.append(text, last, begin - last);
      out += content_;
      last = end;
      if (out.size() > kFreeSize && out.size() / kMaxGrowth > text.size())
        fail(ErrorKind::kUnsupported, kWhere, "Replace makes more than ", kMaxGrowth,
             " bytes of each byte of the text");
    };
    if (regex_) {
      regex_->for_each(text, put);
    } else {
      for (size_t at = text.find(literal_); at != std::string_view::npos;
           at = text.find(literal_, at + literal_.size()))
        put(at, at + literal_.size());
    }
    if (last == 0 && out.empty()) return;
    out.append(text, last);
    t.text.swap(out);
  }

 private:
  std::string literal_;
  std::unique_ptr<Regex> regex_;
  std::string content_;
};

class Precompiled : public Normalizer {
 public:
  explicit Precompiled(const nlohmann::json& j)
      : map_(base64_decode(string_field(j, "precompiled_charsmap", "", kWhere), kWhere)) {}
  void apply(NormalizedText& t) const override {
    if (map_.removes_first(t.text)) t.at_origin = false;
    map_.apply(t.text);
  }

 private:
  CharsMap map_;
};

// What SentencePiece's nmt rules do before anything else: some controls go, others and odd spaces
// become a space.
class Nmt : public Normalizer {
 public:
  void apply(NormalizedText& t) const override {
    rewrite(t, [](uint32_t cp, uint16_t, std::string& out) {
      if ((cp >= 1 && cp <= 8) || cp == 0xB || (cp >= 0xE && cp <= 0x1F) || cp == 0x7F ||
          cp == 0x8F || cp == 0x9F)
        return;
      const bool space = cp == 9 || cp == 0xA || cp == 0xC || cp == 0xD || cp == 0x1680 ||
                         (cp >= 0x200B && cp <= 0x200F) || cp == 0x2028 || cp == 0x2029 ||
                         cp == 0x2581 || cp == 0xFEFF || cp == 0xFFFD;
      unicode::append(out, space ? ' ' : cp);
    });
  }
};

class ByteLevel : public Normalizer {
 public:
  void apply(NormalizedText& t) const override {
    std::string out;
    out.reserve(t.text.size() * 2);
    append_byte_chars(out, t.text);
    t.text.swap(out);
  }
};

class Bert : public Normalizer {
 public:
  explicit Bert(const nlohmann::json& j)
      : clean_(bool_field(j, "clean_text", true, kWhere)),
        chinese_(bool_field(j, "handle_chinese_chars", true, kWhere)),
        lowercase_(bool_field(j, "lowercase", true, kWhere)),
        strip_accents_(bool_field(j, "strip_accents", lowercase_, kWhere)) {}

  void apply(NormalizedText& t) const override {
    if (clean_) {
      rewrite(t, [](uint32_t cp, uint16_t c, std::string& out) {
        if (cp == 0xFFFD || c & unicode::kControl) return;
        unicode::append(out, c & unicode::kSpace ? ' ' : cp);
      });
    }
    if (chinese_) {
      rewrite(t, [](uint32_t cp, uint16_t, std::string& out) {
        if (is_chinese(cp)) out += ' ';
        unicode::append(out, cp);
        if (is_chinese(cp)) out += ' ';
      });
    }
    if (strip_accents_) {
      to_normal_form(NormalForm::kNfd, t.text);
      rewrite(t, [](uint32_t cp, uint16_t c, std::string& out) {
        if (!(c & unicode::kNonspacing)) unicode::append(out, cp);
      });
    }
    if (lowercase_) lowercase(t);
  }

 private:
  // The blocks of CJK ideographs as BERT lists them.
  static bool is_chinese(uint32_t cp) {
    return (cp >= 0x4E00 && cp <= 0x9FFF) || (cp >= 0x3400 && cp <= 0x4DBF) ||
           (cp >= 0x20000 && cp <= 0x2A6DF) || (cp >= 0x2A700 && cp <= 0x2B81F) ||
           (cp >= 0x2B920 && cp <= 0x2CEAF) || (cp >= 0xF900 && cp <= 0xFAFF) ||
           (cp >= 0x2F800 && cp <= 0x2FA1F);
  }
  bool clean_, chinese_, lowercase_, strip_accents_;
};

class Sequence : public Normalizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<Normalizer>> steps) : steps_(std::move(steps)) {}
  void apply(NormalizedText& t) const override {
    const size_t before = t.text.size();
    for (const auto& step : steps_) {
      step->apply(t);
      if (t.text.size() > kFreeSize && t.text.size() / kMaxGrowth > before)
        fail(ErrorKind::kUnsupported, kWhere, "it makes more than ", kMaxGrowth,
             " bytes of each byte of the text");
    }
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> steps_;
};

std::unique_ptr<Normalizer> make(const nlohmann::json& j, int depth) {
  if (depth > 16) fail(ErrorKind::kCorruptFile, kWhere, "sequences are nested deeper than 16");
  const std::string type = string_field(j, "type", kWhere);
  if (type == "Sequence") {
    const auto* list = find_field(j, "normalizers");
    if (!list || !list->is_array())
      fail(ErrorKind::kCorruptFile, kWhere, "Sequence has no list \"normalizers\"");
    std::vector<std::unique_ptr<Normalizer>> steps;
    for (const auto& step : *list) steps.push_back(make(step, depth + 1));
    return std::make_unique<Sequence>(std::move(steps));
  }
  if (type == "NFC") return std::make_unique<Form>(NormalForm::kNfc);
  if (type == "NFD") return std::make_unique<Form>(NormalForm::kNfd);
  if (type == "NFKC") return std::make_unique<Form>(NormalForm::kNfkc);
  if (type == "NFKD") return std::make_unique<Form>(NormalForm::kNfkd);
  if (type == "Lowercase") return std::make_unique<Lowercase>();
  if (type == "StripAccents") return std::make_unique<StripAccents>();
  if (type == "Strip") return std::make_unique<Strip>(j);
  if (type == "Prepend") return std::make_unique<Affix>(string_field(j, "prepend", kWhere), true);
  if (type == "Append") return std::make_unique<Affix>(string_field(j, "append", kWhere), false);
  if (type == "Replace") return std::make_unique<Replace>(j);
  if (type == "Precompiled") return std::make_unique<Precompiled>(j);
  if (type == "Nmt") return std::make_unique<Nmt>();
  if (type == "ByteLevel") return std::make_unique<ByteLevel>();
  if (type == "BertNormalizer") return std::make_unique<Bert>(j);
  fail(ErrorKind::kUnsupported, kWhere, "type \"", type, "\" is not known");
}

}  // namespace

std::unique_ptr<Normalizer> make_normalizer(const nlohmann::json& config) {
  return config.is_null() ? nullptr : make(config, 0);
}

}  // namespace signround
