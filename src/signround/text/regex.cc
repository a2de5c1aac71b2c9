#include "signround/text/regex.h"

#include "signround/base/error.h"
#include "signround/text/unicode.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace signround {

namespace {

constexpr const char* kWhere = "tokenizer regex";
constexpr size_t kMaxPattern = 1 << 20;

struct Free {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
};

// One JIT stack per thread, of any size that a sound pattern needs on megabytes of text; it grows
// only when used.
pcre2_jit_stack* jit_stack(void*) {
  thread_local const std::unique_ptr<pcre2_jit_stack, Free> stack(
      pcre2_jit_stack_create(32 << 10, 256 << 20, nullptr));
  return stack.get();
}

}  // namespace

struct Regex::Code {
  std::string pattern;
  std::unique_ptr<pcre2_code, Free> code;
  std::unique_ptr<pcre2_match_context, Free> context;
};

Regex::Regex(std::string_view pattern) : code_(std::make_unique<Code>()) {
  if (pattern.size() > kMaxPattern)
    fail(ErrorKind::kUnsupported, kWhere, "a pattern has ", pattern.size(),
         " bytes, expected at most ", kMaxPattern);
  if (unicode::valid_prefix(pattern) != pattern.size())
    fail(ErrorKind::kCorruptFile, kWhere, "a pattern is not valid UTF-8");
  code_->pattern = pattern;
  const std::string translated = oniguruma_to_pcre2(pattern);
  std::unique_ptr<pcre2_compile_context, Free> context(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  size_t offset = 0;
  code_->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()),
                                  translated.size(),
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                                  &error, &offset, context.get()));
  if (!code_->code) {
    PCRE2_UCHAR text[256] = {};
    pcre2_get_error_message(error, text, sizeof text);
    fail(ErrorKind::kUnsupported, kWhere, "pattern \"", excerpt(pattern, 200),
         "\": ", reinterpret_cast<const char*>(text), " (at byte ", offset, " of its PCRE2 form)");
  }
  // Without JIT (not built in, or not this machine) the interpreter does the same, slower.
  pcre2_jit_compile(code_->code.get(), PCRE2_JIT_COMPLETE);
  code_->context.reset(pcre2_match_context_create(nullptr));
  pcre2_jit_stack_assign(code_->context.get(), jit_stack, nullptr);
  // The limit that ends catastrophic backtracking; a sound pattern takes a few steps per character.
  pcre2_set_match_limit(code_->context.get(), 1u << 26);
  pcre2_set_heap_limit(code_->context.get(), 1u << 20);
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

std::string Regex::escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (unicode::is_ascii_punctuation(static_cast<unsigned char>(c))) out += '\\';
    out += c;
  }
  return out;
}

Regex::Cursor::Cursor(const Regex& regex, std::string_view text)
    : regex_(regex),
      text_(text),
      match_data_(pcre2_match_data_create_from_pattern(regex.code_->code.get(), nullptr)) {}

Regex::Cursor::~Cursor() { pcre2_match_data_free(static_cast<pcre2_match_data*>(match_data_)); }

bool Regex::Cursor::next(size_t* begin, size_t* end) {
  auto* data = static_cast<pcre2_match_data*>(match_data_);
  const Code& code = *regex_.code_;
  while (position_ <= text_.size()) {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text_.data() ? text_.data() : "");
    int rc = pcre2_match(code.code.get(), subject, text_.size(), position_, PCRE2_NO_UTF_CHECK,
                         data, code.context.get());
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
      rc = pcre2_match(code.code.get(), subject, text_.size(), position_,
                       PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, code.context.get());
    if (rc == PCRE2_ERROR_NOMATCH) return false;
    if (rc < 0)
      fail(ErrorKind::kUnsupported, kWhere, "pattern \"",
           excerpt(code.pattern, 200), "\" on ", text_.size(), " bytes at byte ",
           position_, ": it backtracks too much (PCRE2 error ", rc, ")");
    const size_t* found = pcre2_get_ovector_pointer(data);
    const size_t from = found[0], to = std::max(found[0], found[1]);
    if (from == to && any_ && to == last_end_) {  // an empty match right after a match is none
      if (position_ >= text_.size()) return false;
      position_ += unicode::sequence_length(static_cast<unsigned char>(text_[position_]));
      continue;
    }
    position_ = last_end_ = to;
    any_ = true;
    *begin = from;
    *end = to;
    return true;
  }
  return false;
}

}  // namespace signround
