#include "signround/text/pre_tokenizer.h"

#include <string>
#include <utility>

#include "signround/base/error.h"
#include "signround/text/byte_level.h"
#include "signround/text/json_field.h"
#include "signround/text/pattern_scan.h"
#include "signround/text/regex.h"
#include "signround/text/unicode.h"
#include "signround/text/unicode_scripts.h"

namespace signround {

namespace {

constexpr const char* kWhere = "tokenizer pre_tokenizer";

// What becomes of the matches of a pattern (delimiters, say) when a text is cut at them.
enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

Behavior parse_behavior(const std::string& name) {
  static constexpr std::pair<const char*, Behavior> kNames[] = {
      {"Removed", Behavior::kRemoved},
      {"Isolated", Behavior::kIsolated},
      {"MergedWithPrevious", Behavior::kMergedWithPrevious},
      {"MergedWithNext", Behavior::kMergedWithNext},
      {"Contiguous", Behavior::kContiguous}};
  for (const auto& [text, behavior] : kNames)
    if (name == text) return behavior;
  fail(ErrorKind::kCorruptFile, kWhere, "behavior is \"", name,
       "\", expected Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

struct Segment {
  Piece piece;
  bool match;
};

void push(std::vector<Piece>& out, const Piece& p) {
  if (p.begin < p.end) out.push_back(p);
}

// Neighbouring segments joined or dropped as `behavior` says, appended to `out`.
void join_segments(const std::vector<Segment>& segments, Behavior behavior,
                   std::vector<Piece>& out) {
  const size_t start = out.size();
  bool previous = false;
  switch (behavior) {
    case Behavior::kRemoved:
      for (const Segment& s : segments)
        if (!s.match) push(out, s.piece);
      return;
    case Behavior::kIsolated:
      for (const Segment& s : segments) push(out, s.piece);
      return;
    case Behavior::kContiguous:
    case Behavior::kMergedWithPrevious:
      for (const Segment& s : segments) {
        const bool join =
            behavior == Behavior::kContiguous ? s.match == previous : s.match && !previous;
        if (join && out.size() > start)
          out.back().end = s.piece.end;
        else
          push(out, s.piece);
        previous = s.match;
      }
      return;
    case Behavior::kMergedWithNext:
      for (size_t i = 0; i < segments.size(); ++i) {
        const bool join =
            i > 0 && segments[i - 1].match && !segments[i].match && out.size() > start;
        if (join)
          out.back().end = segments[i].piece.end;
        else
          push(out, segments[i].piece);
      }
      return;
  }
}

// Cuts every piece at the matches that find(view, emit) emits as emit(begin, end), positions in the
// view.
template <class Find>
void split_pieces(PieceList& list, Behavior behavior, bool invert, Find&& find) {
  std::vector<Piece> out;
  std::vector<Segment> segments;
  for (const Piece& piece : list.pieces) {
    segments.clear();
    size_t last = piece.begin;
    find(list.view(piece), [&](size_t begin, size_t end) {
      begin += piece.begin;
      end += piece.begin;
      if (last < begin) segments.push_back({{last, begin}, invert});
      segments.push_back({{begin, end}, !invert});
      last = end;
    });
    if (last < piece.end) segments.push_back({{last, piece.end}, invert});
    join_segments(segments, behavior, out);
  }
  list.pieces.swap(out);
}

// A `find` that emits every single character for which is_match(code point, classes) holds.
template <class IsMatch>
auto each_character(IsMatch is_match) {
  return [is_match](std::string_view view, auto&& emit) {
    const uint16_t* table = unicode::class_table();
    for (size_t i = 0; i < view.size();) {
      const size_t n = unicode::sequence_length(static_cast<unsigned char>(view[i]));
      const uint32_t cp = unicode::decode(view.data() + i);
      if (is_match(cp, table[cp])) emit(i, i + n);
      i += n;
    }
  };
}

bool is_space(uint32_t, uint16_t c) { return c & unicode::kSpace; }
bool is_number(uint32_t, uint16_t c) { return c & unicode::kNumeric; }
bool is_punctuation(uint32_t cp, uint16_t c) {
  return c & unicode::kPunctuation || unicode::is_ascii_punctuation(cp);
}

class ByteLevel : public PreTokenizer {
 public:
  explicit ByteLevel(const nlohmann::json& j)
      : add_prefix_space_(bool_field(j, "add_prefix_space", true, kWhere)),
        use_regex_(bool_field(j, "use_regex", true, kWhere)) {}

  void apply(PieceList& list) const override {
    if (add_prefix_space_) prefix_spaces(list);
    if (use_regex_) {
      std::vector<Piece> out;
      for (const Piece& p : list.pieces)
        scan_pattern(KnownPattern::kGpt2, list.text, p.begin, p.end, out);
      list.pieces.swap(out);
    }
    if (map_bytes_) map_bytes(list);
  }

  bool keep_bytes() override {
    map_bytes_ = false;
    return true;
  }

 private:
  static void prefix_spaces(PieceList& list) {
    std::string text;
    text.reserve(list.text.size() + list.pieces.size());
    list.at_origin = list.at_origin && !list.pieces.empty() && list.pieces[0].begin == 0;
    for (Piece& p : list.pieces) {
      const size_t begin = text.size();
      if (list.text[p.begin] != ' ') text += ' ';
      text += list.view(p);
      p = {begin, text.size()};
    }
    list.text.swap(text);
  }

  static void map_bytes(PieceList& list) {
    std::string text;
    text.reserve(list.text.size() * 2);
    list.at_origin = list.at_origin && !list.pieces.empty() && list.pieces[0].begin == 0;
    for (Piece& p : list.pieces) {
      const size_t begin = text.size();
      append_byte_chars(text, list.view(p));
      p = {begin, text.size()};
    }
    list.text.swap(text);
  }

  bool add_prefix_space_, use_regex_, map_bytes_ = true;
};

class Metaspace : public PreTokenizer {
 public:
  explicit Metaspace(const nlohmann::json& j)
      : replacement_(string_field(j, "replacement", "\xE2\x96\x81", kWhere)) {
    if (unicode::count(replacement_) != 1)
      fail(ErrorKind::kCorruptFile, kWhere, "Metaspace replacement is \"", replacement_,
           "\", expected one character");
    const std::string scheme = string_field(j, "prepend_scheme", "always", kWhere);
    if (scheme != "always" && scheme != "first" && scheme != "never")
      fail(ErrorKind::kCorruptFile, kWhere, "prepend_scheme is \"", scheme,
           "\", expected always, first or never");
    always_ = scheme == "always";
    first_ = scheme == "first";
    if (!bool_field(j, "add_prefix_space", true, kWhere)) always_ = first_ = false;
    split_ = bool_field(j, "split", true, kWhere);
  }

  void apply(PieceList& list) const override {
    std::string text;
    text.reserve(list.text.size() + list.text.size() / 2 + 3);
    std::vector<Piece> out;
    const bool origin = list.at_origin && !list.pieces.empty() && list.pieces[0].begin == 0;
    for (const Piece& p : list.pieces) {
      const std::string_view view = list.view(p);
      size_t begin = text.size();
      const bool has = view[0] == ' ' || view.substr(0, replacement_.size()) == replacement_;
      if (!has && (always_ || (first_ && origin && p.begin == 0))) text += replacement_;
      for (size_t i = 0; i < view.size();) {
        const bool space = view[i] == ' ';
        const bool mark = space || view.compare(i, replacement_.size(), replacement_) == 0;
        if (mark && split_ && text.size() > begin) {
          out.push_back({begin, text.size()});
          begin = text.size();
        }
        const size_t n = space ? 1 : unicode::sequence_length(static_cast<unsigned char>(view[i]));
        if (mark)
          text += replacement_;
        else
          text += view.substr(i, n);
        i += n;
      }
      push(out, {begin, text.size()});
    }
    list.at_origin = origin;
    list.text.swap(text);
    list.pieces.swap(out);
  }

 private:
  std::string replacement_;
  bool always_ = true, first_ = false, split_ = true;
};

class Split : public PreTokenizer {
 public:
  explicit Split(const nlohmann::json& j)
      : behavior_(parse_behavior(string_field(j, "behavior", kWhere))),
        invert_(bool_field(j, "invert", false, kWhere)) {
    const auto* pattern = find_field(j, "pattern");
    if (!pattern)
      fail(ErrorKind::kCorruptFile, kWhere,
           "Split has no pattern, expected {\"Regex\": ...} or {\"String\": ...}");
    if (find_field(*pattern, "String")) {
      regex_ = std::make_unique<Regex>(Regex::escape(string_field(*pattern, "String", kWhere)));
      return;
    }
    const std::string text = string_field(*pattern, "Regex", kWhere);
    known_ = known_pattern(text);
    regex_ = std::make_unique<Regex>(text);
  }

  void apply(PieceList& list) const override {
    // A known pattern matches everything: whatever is done with what lies between its matches, the
    // pieces are these.
    if (known_ != KnownPattern::kNone &&
        (behavior_ == Behavior::kIsolated || (behavior_ == Behavior::kRemoved && invert_))) {
      std::vector<Piece> out;
      out.reserve(list.text.size() / 4);
      for (const Piece& p : list.pieces) scan_pattern(known_, list.text, p.begin, p.end, out);
      list.pieces.swap(out);
      return;
    }
    split_pieces(list, behavior_, invert_,
                 [this](std::string_view view, auto&& emit) { regex_->for_each(view, emit); });
  }

 private:
  Behavior behavior_;
  bool invert_;
  KnownPattern known_ = KnownPattern::kNone;
  std::unique_ptr<Regex> regex_;
};

// \w+|[^\w\s]+
class Whitespace : public PreTokenizer {
 public:
  void apply(PieceList& list) const override {
    split_pieces(list, Behavior::kRemoved, true, [](std::string_view view, auto&& emit) {
      const uint16_t* table = unicode::class_table();
      const auto kind = [table](uint32_t cp) {
        if (table[cp] & unicode::kWord) return 1;
        return table[cp] & unicode::kSpace ? 0 : 2;
      };
      size_t begin = 0;
      int current = 0;
      for (size_t i = 0; i < view.size();) {
        const int k = kind(unicode::decode(view.data() + i));
        if (k != current) {
          if (current != 0) emit(begin, i);
          begin = i;
          current = k;
        }
        i += unicode::sequence_length(static_cast<unsigned char>(view[i]));
      }
      if (current != 0) emit(begin, view.size());
    });
  }
};

class WhitespaceSplit : public PreTokenizer {
 public:
  void apply(PieceList& list) const override {
    split_pieces(list, Behavior::kRemoved, false, each_character(is_space));
  }
};

class Bert : public PreTokenizer {
 public:
  void apply(PieceList& list) const override {
    split_pieces(list, Behavior::kRemoved, false, each_character(is_space));
    split_pieces(list, Behavior::kIsolated, false, each_character(is_punctuation));
  }
};

class Digits : public PreTokenizer {
 public:
  explicit Digits(const nlohmann::json& j)
      : behavior_(bool_field(j, "individual_digits", false, kWhere) ? Behavior::kIsolated
                                                                    : Behavior::kContiguous) {}
  void apply(PieceList& list) const override {
    split_pieces(list, behavior_, false, each_character(is_number));
  }

 private:
  Behavior behavior_;
};

class Punctuation : public PreTokenizer {
 public:
  explicit Punctuation(const nlohmann::json& j)
      : behavior_(parse_behavior(string_field(j, "behavior", "Isolated", kWhere))) {}
  void apply(PieceList& list) const override {
    split_pieces(list, behavior_, false, each_character(is_punctuation));
  }

 private:
  Behavior behavior_;
};

class CharDelimiterSplit : public PreTokenizer {
 public:
  explicit CharDelimiterSplit(const nlohmann::json& j) {
    const std::string text = string_field(j, "delimiter", kWhere);
    if (unicode::count(text) != 1)
      fail(ErrorKind::kCorruptFile, kWhere, "delimiter is \"", text, "\", expected one character");
    delimiter_ = unicode::decode(text.data());
  }
  void apply(PieceList& list) const override {
    const uint32_t d = delimiter_;
    split_pieces(list, Behavior::kRemoved, false,
                 each_character([d](uint32_t cp, uint16_t) { return cp == d; }));
  }

 private:
  uint32_t delimiter_ = 0;
};

// A new piece wherever the script changes; Japanese scripts count as Han, and a space as the script
// before it. As in the reference, what comes before the first character of a known script is
// dropped.
class UnicodeScripts : public PreTokenizer {
 public:
  void apply(PieceList& list) const override {
    std::vector<Piece> out;
    for (const Piece& piece : list.pieces) {
      int last = -1;
      size_t begin = piece.begin;
      for (size_t i = piece.begin; i < piece.end;) {
        const uint32_t cp = unicode::decode(list.text.data() + i);
        const int script = unicode_script_of_pre_tokenizer(cp);
        if (script != kScriptAny) {
          if (last != script) {
            if (last >= 0) push(out, {begin, i});
            begin = i;
          }
          last = script;
        }
        i += unicode::sequence_length(static_cast<unsigned char>(list.text[i]));
      }
      if (last >= 0) push(out, {begin, piece.end});
    }
    list.pieces.swap(out);
  }
};

class FixedLength : public PreTokenizer {
 public:
  explicit FixedLength(const nlohmann::json& j) : length_(int_field(j, "length", 5, kWhere)) {
    if (length_ < 1)
      fail(ErrorKind::kCorruptFile, kWhere, "FixedLength length is ", length_,
           ", expected 1 or more");
  }
  void apply(PieceList& list) const override {
    std::vector<Piece> out;
    for (const Piece& piece : list.pieces) {
      size_t begin = piece.begin;
      int64_t n = 0;
      for (size_t i = piece.begin; i < piece.end;) {
        i += unicode::sequence_length(static_cast<unsigned char>(list.text[i]));
        if (++n < length_ && i < piece.end) continue;
        push(out, {begin, i});
        begin = i;
        n = 0;
      }
    }
    list.pieces.swap(out);
  }

 private:
  int64_t length_;
};

class Sequence : public PreTokenizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<PreTokenizer>> steps) : steps_(std::move(steps)) {}
  void apply(PieceList& list) const override {
    for (const auto& step : steps_) step->apply(list);
  }
  bool keep_bytes() override { return !steps_.empty() && steps_.back()->keep_bytes(); }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> steps_;
};

std::unique_ptr<PreTokenizer> make(const nlohmann::json& j, int depth) {
  if (depth > 16) fail(ErrorKind::kCorruptFile, kWhere, "sequences are nested deeper than 16");
  const std::string type = string_field(j, "type", kWhere);
  if (type == "Sequence") {
    const auto* list = find_field(j, "pretokenizers");
    if (!list || !list->is_array())
      fail(ErrorKind::kCorruptFile, kWhere, "Sequence has no list \"pretokenizers\"");
    std::vector<std::unique_ptr<PreTokenizer>> steps;
    for (const auto& step : *list) steps.push_back(make(step, depth + 1));
    return std::make_unique<Sequence>(std::move(steps));
  }
  if (type == "ByteLevel") return std::make_unique<ByteLevel>(j);
  if (type == "Metaspace") return std::make_unique<Metaspace>(j);
  if (type == "Split") return std::make_unique<Split>(j);
  if (type == "Whitespace") return std::make_unique<Whitespace>();
  if (type == "WhitespaceSplit") return std::make_unique<WhitespaceSplit>();
  if (type == "BertPreTokenizer") return std::make_unique<Bert>();
  if (type == "Digits") return std::make_unique<Digits>(j);
  if (type == "Punctuation") return std::make_unique<Punctuation>(j);
  if (type == "CharDelimiterSplit") return std::make_unique<CharDelimiterSplit>(j);
  if (type == "UnicodeScripts") return std::make_unique<UnicodeScripts>();
  if (type == "FixedLength") return std::make_unique<FixedLength>(j);
  fail(ErrorKind::kUnsupported, kWhere, "type \"", type, "\" is not known");
}

}  // namespace

std::unique_ptr<PreTokenizer> make_pre_tokenizer(const nlohmann::json& config) {
  return config.is_null() ? nullptr : make(config, 0);
}

}  // namespace signround
