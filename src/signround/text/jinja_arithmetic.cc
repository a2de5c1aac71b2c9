// Python's +, -, *, /, //, % and ** on numbers, strings and lists.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

#include "signround/text/jinja_operators.h"
#include "signround/text/jinja_unicode.h"

namespace signround::jinja {
namespace {

constexpr const char* kSymbols[] = {"+", "-", "*", "/", "//", "%", "**"};

// Half of what Int holds, so that a sum or a negation never overflows before it is checked.
constexpr Int kMaxInt = (static_cast<Int>(1) << 125) - 1;

Value checked(Runtime& runtime, Int value) {
  if (value > kMaxInt || value < -kMaxInt) runtime.fail("an integer has more than 125 bits");
  return Value::integer(value);
}

Int checked_product(Runtime& runtime, Int a, Int b) {
  if (a == 0 || b == 0) return 0;
  const Int size_a = a < 0 ? -a : a, size_b = b < 0 ? -b : b;
  if (size_a > kMaxInt / size_b) runtime.fail("an integer has more than 125 bits");
  return a * b;
}

Value float_result(Runtime& runtime, double value, double a, double b) {
  if (std::isinf(value) && !std::isinf(a) && !std::isinf(b))
    runtime.fail("numerical result out of range");
  return Value::real(value);
}

double float_mod(double a, double b) {
  double mod = std::fmod(a, b);
  if (mod == 0) return std::copysign(0.0, b);
  if ((b < 0) != (mod < 0)) mod += b;
  return mod;
}

double float_floor_div(double a, double b) {
  const double mod = float_mod(a, b);
  const double div = (a - mod) / b;
  if (div == 0) return std::copysign(0.0, a / b);
  const double floored = std::floor(div);
  return div - floored > 0.5 ? floored + 1 : floored;
}

Value int_pow(Runtime& runtime, Int base, Int exponent) {
  if (base == 0 || base == 1 || exponent == 0) return Value::integer(exponent == 0 ? 1 : base);
  if (base == -1) return Value::integer(exponent % 2 == 0 ? 1 : -1);
  Int result = 1;
  for (; exponent > 0; --exponent)
    result = checked_product(runtime, result, base);  // ends after 125 factors
  return checked(runtime, result);
}

Value power(Runtime& runtime, const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral() && b.as_int() >= 0)
    return int_pow(runtime, a.as_int(), b.as_int());
  const double base = a.to_float(), exponent = b.to_float();
  if (base == 0 && exponent < 0) runtime.fail("0.0 cannot be raised to a negative power");
  if (base < 0 && std::isfinite(base) && std::isfinite(exponent) &&
      std::floor(exponent) != exponent)
    runtime.fail("a negative number to a fractional power is complex");
  return float_result(runtime, std::pow(base, exponent), base, exponent);
}

// The quotient of two integers, rounded once, as Python does it. Beyond 2^53 the operands are not
// doubles themselves: then the quotient's first 64 bits and the fact that there are more are
// rounded.
double true_division(Int a, Int b) {
  constexpr Int kExact = static_cast<Int>(1) << 53;
  auto rest = static_cast<unsigned __int128>(a < 0 ? -a : a);
  const auto divisor = static_cast<unsigned __int128>(b < 0 ? -b : b);
  if (rest <= static_cast<unsigned __int128>(kExact) &&
      divisor <= static_cast<unsigned __int128>(kExact))
    return static_cast<double>(static_cast<int64_t>(a)) /
           static_cast<double>(static_cast<int64_t>(b));
  unsigned __int128 quotient = rest / divisor;
  rest %= divisor;
  int exponent = 0;
  for (; quotient < (static_cast<unsigned __int128>(1) << 63) && (rest != 0 || quotient != 0) &&
         exponent > -300;
       --exponent) {
    rest <<= 1;  // below 2^126: no carry is lost
    quotient = quotient << 1 | (rest >= divisor ? 1 : 0);
    if (rest >= divisor) rest -= divisor;
  }
  for (; quotient >> 64 != 0; ++exponent) quotient = quotient >> 1 | (quotient & 1);
  const auto bits = static_cast<uint64_t>(quotient) | (rest != 0 ? 1 : 0);
  const double magnitude = std::ldexp(static_cast<double>(bits), exponent);
  return (a < 0) != (b < 0) ? -magnitude : magnitude;
}

Value int_binary(Runtime& runtime, BinaryOp op, Int a, Int b) {
  switch (op) {
    case BinaryOp::kAdd:
      return checked(runtime, a + b);
    case BinaryOp::kSub:
      return checked(runtime, a - b);
    case BinaryOp::kMul:
      return checked(runtime, checked_product(runtime, a, b));
    case BinaryOp::kDiv:
      return Value::real(true_division(a, b));
    case BinaryOp::kFloorDiv: {
      const Int quotient = a / b;
      return Value::integer(a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient);
    }
    default: {
      const Int rest = a % b;
      return Value::integer(rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest);
    }
  }
}

Value number_binary(Runtime& runtime, BinaryOp op, const Value& a, const Value& b) {
  if (op == BinaryOp::kPow) return power(runtime, a, b);
  const bool divides = op == BinaryOp::kDiv || op == BinaryOp::kFloorDiv || op == BinaryOp::kMod;
  if (divides && (b.is_integral() ? b.as_int() == 0 : b.as_float() == 0))
    runtime.fail("division by zero");
  if (a.is_integral() && b.is_integral()) return int_binary(runtime, op, a.as_int(), b.as_int());
  const double x = a.to_float(), y = b.to_float();
  switch (op) {
    case BinaryOp::kAdd:
      return Value::real(x + y);
    case BinaryOp::kSub:
      return Value::real(x - y);
    case BinaryOp::kMul:
      return Value::real(x * y);
    case BinaryOp::kDiv:
      return Value::real(x / y);
    case BinaryOp::kFloorDiv:
      return Value::real(float_floor_div(x, y));
    default:
      return Value::real(float_mod(x, y));
  }
}

Value add_strings(Runtime& runtime, const Value& a, const Value& b) {
  const bool markup = a.as_string().markup || b.as_string().markup;
  const auto size = static_cast<int64_t>(a.text().size() + b.text().size());
  runtime.check_string_bytes(size);
  if (!markup) return Value::string(runtime, a.text() + b.text());
  return Value::string(runtime, escape_for_markup(runtime, a) + escape_for_markup(runtime, b),
                       true);
}

Value repeat(Runtime& runtime, const Value& sequence, Int count) {
  count = std::max<Int>(count, 0);
  const Int length = sequence.is_string() ? static_cast<Int>(sequence.text().size())
                                          : static_cast<Int>(sequence.items().size());
  if (length == 0) count = 0;
  if (count > (static_cast<Int>(1) << 40)) runtime.fail("a value would be repeated too often");
  const auto times = static_cast<int64_t>(count);
  if (sequence.is_string()) {
    Text text(runtime);
    text.append_repeated(times, sequence.text());
    return Value::string(runtime, text.take(), sequence.as_string().markup);
  }
  Items items(runtime);
  for (int64_t i = 0; i < times; ++i)
    for (const Value& item : sequence.items()) items.push(item);
  return sequence.is(Kind::kList) ? Value::list(runtime, items.take())
                                  : Value::tuple(runtime, items.take());
}

Value join_sequences(Runtime& runtime, const Value& a, const Value& b) {
  Items items(runtime);
  for (const Value* part : {&a, &b})
    for (const Value& item : part->items()) items.push(item);
  return a.is(Kind::kList) ? Value::list(runtime, items.take())
                           : Value::tuple(runtime, items.take());
}

Value format_string(Runtime& runtime, const Value& format, const Value& args) {
  return Value::string(runtime, format_percent(runtime, format.as_string(), args),
                       format.as_string().markup);
}

}  // namespace

Value binary(Runtime& runtime, BinaryOp op, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return number_binary(runtime, op, a, b);
  if (op == BinaryOp::kMod && a.is_string()) return format_string(runtime, a, b);
  if (op == BinaryOp::kAdd && a.is_string() && b.is_string()) return add_strings(runtime, a, b);
  if (op == BinaryOp::kAdd && a.is_sequence() && a.kind() == b.kind())
    return join_sequences(runtime, a, b);
  if (op == BinaryOp::kMul) {
    if ((a.is_string() || a.is_sequence()) && b.is_integral())
      return repeat(runtime, a, b.as_int());
    if ((b.is_string() || b.is_sequence()) && a.is_integral())
      return repeat(runtime, b, a.as_int());
  }
  if (a.is_undefined()) fail_undefined(runtime, a);
  if (b.is_undefined()) fail_undefined(runtime, b);
  runtime.fail("unsupported operand types for ", kSymbols[static_cast<int>(op)], ": '",
               type_name(a), "' and '", type_name(b), "'");
}

Value negate(Runtime& runtime, const Value& a) {
  if (a.is_integral()) return Value::integer(-a.as_int());
  if (a.is(Kind::kFloat)) return Value::real(-a.as_float());
  if (a.is_undefined()) fail_undefined(runtime, a);
  runtime.fail("bad operand type for unary -: '", type_name(a), "'");
}

Value plus(Runtime& runtime, const Value& a) {
  if (a.is_integral()) return Value::integer(a.as_int());
  if (a.is(Kind::kFloat)) return a;
  if (a.is_undefined()) fail_undefined(runtime, a);
  runtime.fail("bad operand type for unary +: '", type_name(a), "'");
}

bool parse_int(std::string_view text, int base, Int& result) {
  text = strip(text, true, true);
  bool negative = false;
  if (!text.empty() && (text[0] == '+' || text[0] == '-')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  if (text.size() >= 2 && text[0] == '0') {
    const char letter = static_cast<char>(text[1] | 0x20);
    const int marked = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (marked != 0 && (base == marked || base == 0)) {
      text.remove_prefix(2);
      if (!text.empty() && text[0] == '_') text.remove_prefix(1);
      base = marked;
    }
  }
  // Without a prefix, base 0 means 10, and then only zero may start with a 0.
  if (base == 0) {
    if (text.find_first_not_of("0_") != std::string_view::npos && !text.empty() && text[0] == '0')
      return false;
    base = 10;
  }
  bool digit_before = false;
  Int value = 0;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_code_point(text, at);
    if (c == '_') {
      if (!digit_before || at == text.size()) return false;
      digit_before = false;
      continue;
    }
    const int digit = c >= '0' && c <= '9'   ? static_cast<int>(c - '0')
                      : c >= 'a' && c <= 'z' ? static_cast<int>(c - 'a' + 10)
                      : c >= 'A' && c <= 'Z' ? static_cast<int>(c - 'A' + 10)
                                             : 99;
    if (digit >= base || value > kMaxInt / 64) return false;
    value = value * base + digit;
    digit_before = true;
  }
  if (!digit_before) return false;
  result = negative ? -value : value;
  return true;
}

bool parse_float(std::string_view text, double& result) {
  text = strip(text, true, true);
  std::string digits;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto is_digit_at = [&](size_t at) {
      return at < text.size() && text[at] >= '0' && text[at] <= '9';
    };
    if (text[i] == '_') {
      if (i == 0 || !is_digit_at(i - 1) || !is_digit_at(i + 1)) return false;
      continue;
    }
    digits += text[i];
  }
  const char* first = digits.data();
  const char* last = first + digits.size();
  bool negative = false;
  if (first != last && (*first == '+' || *first == '-')) negative = *first++ == '-';
  if (first == last || *first == '-' || *first == '+') return false;
  std::string lower(first, last);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return c < 128 ? std::tolower(c) : c; });
  double value = 0;
  if (lower == "inf" || lower == "infinity") {
    value = INFINITY;
  } else if (lower == "nan") {
    value = NAN;
  } else {
    if (lower.find_first_not_of("0123456789.e+-") != std::string::npos) return false;
    const auto [end, error] = std::from_chars(lower.data(), lower.data() + lower.size(), value);
    if (end != lower.data() + lower.size()) return false;
    if (error == std::errc::result_out_of_range)
      value = std::strtod(lower.c_str(), nullptr);
    else if (error != std::errc())
      return false;
  }
  result = negative ? -value : value;
  return true;
}

bool float_to_int(double value, Int& result) {
  if (!std::isfinite(value) || std::abs(value) >= 0x1p125) return false;
  result = static_cast<Int>(value);
  return true;
}

}  // namespace signround::jinja
