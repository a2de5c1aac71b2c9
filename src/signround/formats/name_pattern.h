// Regular expressions over names of layers, as quantization_config and --layer-config hold them.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace signround {

class NamePattern {
 public:
  // anchored: a match must begin where the name does. A pattern that is malformed matches nothing;
  // problem() says why.
  explicit NamePattern(const std::string& pattern, bool anchored = false);
  ~NamePattern();
  NamePattern(NamePattern&&) noexcept;
  NamePattern& operator=(NamePattern&&) noexcept;

  // A key with a character that no layer's name has.
  static bool is_pattern(std::string_view key);

  const std::string& problem() const { return problem_; }
  // Patterns may be hostile: a match that takes too many steps is none.
  bool matches(std::string_view name) const;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
  bool anchored_;
  std::string problem_;
};

}  // namespace signround
