#include "signround/formats/name_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>

namespace signround {
namespace {

constexpr uint32_t kMatchLimit = 100000;  // steps of one match: names are short

struct MatchDeleter {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct ContextDeleter {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

}  // namespace

struct NamePattern::Code {
  pcre2_code* code;
  ~Code() { pcre2_code_free(code); }
};

NamePattern::NamePattern(const std::string& pattern, bool anchored) : anchored_(anchored) {
  int error = 0;
  size_t offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), 0,
                                   &error, &offset, nullptr);
  if (code != nullptr) {
    code_.reset(new Code{code});
    return;
  }
  std::array<unsigned char, 128> text{};
  pcre2_get_error_message(error, text.data(), text.size());
  problem_ = std::string(reinterpret_cast<const char*>(text.data())) + " at character " +
             std::to_string(offset);
}

NamePattern::~NamePattern() = default;
NamePattern::NamePattern(NamePattern&&) noexcept = default;
NamePattern& NamePattern::operator=(NamePattern&&) noexcept = default;

bool NamePattern::is_pattern(std::string_view key) {
  return key.find_first_of("*+?^$()[]{}|\\") != std::string_view::npos;
}

bool NamePattern::matches(std::string_view name) const {
  if (!code_) return false;
  const std::unique_ptr<pcre2_match_data, MatchDeleter> data(
      pcre2_match_data_create_from_pattern(code_->code, nullptr));
  const std::unique_ptr<pcre2_match_context, ContextDeleter> context(
      pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(context.get(), kMatchLimit);
  return pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0,
                     anchored_ ? PCRE2_ANCHORED : 0, data.get(), context.get()) >= 0;
}

}  // namespace signround
