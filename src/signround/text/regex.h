// Regular expressions of tokenizer.json, written for Oniguruma, run by PCRE2.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace signround {

class Regex {
 public:
  // `pattern` in Oniguruma's syntax. Fails if it is malformed or means something that PCRE2 cannot
  // express.
  explicit Regex(std::string_view pattern);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  // A pattern that matches `text` literally.
  static std::string escape(std::string_view text);

  // Calls match(begin, end) for every match from left to right, as Oniguruma's scan does: an empty
  // match counts, unless it lies at the end of the match before it. REQUIRES: valid UTF-8.
  template <class Match>
  void for_each(std::string_view text, Match&& match) const {
    Cursor cursor(*this, text);
    size_t begin = 0, end = 0;
    while (cursor.next(&begin, &end)) match(begin, end);
  }

 private:
  class Cursor {
   public:
    Cursor(const Regex& regex, std::string_view text);
    ~Cursor();
    Cursor(const Cursor&) = delete;
    Cursor& operator=(const Cursor&) = delete;
    bool next(size_t* begin, size_t* end);

   private:
    const Regex& regex_;
    std::string_view text_;
    void* match_data_;
    size_t position_ = 0;
    size_t last_end_ = 0;
    bool any_ = false;
  };
  struct Code;
  std::unique_ptr<Code> code_;
};

// The same pattern in PCRE2's syntax (UTF and UCP assumed). Exposed for tests.
std::string oniguruma_to_pcre2(std::string_view pattern);

}  // namespace signround
