// How Python writes numbers and padded text: shared by the % operator and str.format.
#pragma once

#include <string>
#include <string_view>

#include "signround/text/jinja_value.h"

namespace signround::jinja {

// How one value is to be written, in either language.
struct FormatSpec {
  std::string fill = " ";
  char align = '\0';  // '<', '>', '^', '=' (between sign and digits); '\0': the type's own
  char sign = '-';
  bool alternate = false;
  char grouping = '\0';
  int64_t width = 0;
  int64_t precision = -1;
  char type = '\0';
};

std::string pad_text(Runtime& runtime, const FormatSpec& spec, std::string_view text);
std::string format_integer(Runtime& runtime, const FormatSpec& spec, Int value);
std::string format_float(Runtime& runtime, FormatSpec spec, double value);

}  // namespace signround::jinja
