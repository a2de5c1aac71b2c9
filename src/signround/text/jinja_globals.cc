// The functions that every template has.
#include <algorithm>
#include <ctime>

#include "signround/text/jinja_interpreter.h"
#include "signround/text/jinja_operators.h"
#include "signround/text/jinja_random.h"

namespace signround::jinja {
namespace {

constexpr int64_t kMaxRange = 100000;  // Jinja's own bound in a sandbox

Value range(Runtime& runtime, const Args& args) {
  const Params params(runtime, "range", args, {"", "", ""}, 1);
  Int numbers[3] = {0, 0, 1};
  for (size_t i = 0; i < 3 && params.has(i); ++i) {
    if (params[i].is_undefined()) fail_undefined(runtime, params[i]);
    if (!params[i].is_integral())
      runtime.fail("'", type_name(params[i]), "' object cannot be interpreted as an integer");
    numbers[i] = params[i].as_int();
  }
  if (!params.has(1)) std::swap(numbers[0], numbers[1]);
  const auto [start, stop, step] = numbers;
  if (step == 0) runtime.fail("range() arg 3 must not be zero");
  Int length = 0;
  if (step > 0 && stop > start) length = (stop - start - 1) / step + 1;
  if (step < 0 && stop < start) length = (start - stop - 1) / -step + 1;
  if (length > kMaxRange)
    runtime.fail("range too big: the sandbox blocks ranges of more than ", kMaxRange, " items");
  const Int bound = static_cast<Int>(1) << 62;  // so that slices of slices stay within an integer
  if (std::max({start, stop, step}) > bound || std::min({start, stop, step}) < -bound)
    runtime.fail("range() arguments have more than 62 bits");
  return Value::object(Kind::kRange, std::make_shared<RangeObject>(&runtime, start, stop, step,
                                                                   static_cast<int64_t>(length)));
}

// dict(mapping or pairs, name=value, ...)
std::vector<DictObject::Entry> dict_entries(Runtime& runtime, const Args& args, const char* name) {
  if (args.positional.size() > 1)
    runtime.fail(name, " expected at most 1 argument, got ", args.positional.size());
  std::vector<DictObject::Entry> entries;
  if (!args.positional.empty()) {
    const Value& source = args.positional[0];
    if (source.is(Kind::kDict)) {
      entries = source.dict().entries;
    } else {
      for (const Value& pair : collect(runtime, source)) {
        std::vector<Value> parts = collect(runtime, pair);
        if (parts.size() != 2)
          runtime.fail(name, ": a pair expected, found ", parts.size(), " values");
        entries.emplace_back(std::move(parts[0]), std::move(parts[1]));
      }
    }
  }
  for (const auto& [key, value] : args.named)
    entries.emplace_back(Value::string(runtime, key), value);
  return entries;
}

Value dict(Runtime& runtime, const Args& args) {
  return make_dict(runtime, dict_entries(runtime, args, "dict"));
}

Value make_namespace(Runtime& runtime, const Args& args) {
  std::vector<DictObject::Entry> entries = dict_entries(runtime, args, "namespace");
  for (const auto& [key, value] : entries)
    if (key.is_string() && !key.text().empty() && key.text()[0] == '_')
      runtime.fail("a namespace's attribute must not start with an underscore: '", key.text(), "'");
  return Value::owned(Kind::kNamespace, runtime.own<NamespaceObject>(std::move(entries)));
}

Value cycler(Runtime& runtime, const Args& args) {
  if (args.positional.empty() || !args.named.empty())
    runtime.fail("cycler: at least one item has to be provided");
  return Value::owned(Kind::kCycler, runtime.own<CyclerObject>(args.positional));
}

Value joiner(Runtime& runtime, const Args& args) {
  const Params params(runtime, "joiner", args, {"sep"});
  return Value::owned(Kind::kJoiner, runtime.own<JoinerObject>(
                                         params.has(0) ? params[0] : Value::string(runtime, ", ")));
}

Value raise_exception(Runtime& runtime, const Args& args) {
  const Params params(runtime, "raise_exception", args, {"message"}, 1);
  runtime.fail(to_str(runtime, params[0]));
}

// One conversion of strftime at `at` (behind the percent sign), which moves behind it. Empty: not a
// conversion.
std::string strftime_piece(Runtime& runtime, const std::string& format, size_t& at,
                           const std::tm& time) {
  std::string piece = "%";
  while (at < format.size() &&
         std::string_view("-_0^#").find(format[at]) != std::string_view::npos && piece.size() < 8)
    piece += format[at++];
  size_t digits = 0;
  for (; at < format.size() && format[at] >= '0' && format[at] <= '9'; ++digits)
    piece += format[at++];
  if (digits > 3) runtime.fail("strftime_now: a field is too wide");
  if (at < format.size() && (format[at] == 'E' || format[at] == 'O')) piece += format[at++];
  if (at >= format.size()) return piece;
  const char letter = format[at++];
  piece += letter;
  if (letter == 'f') return "000000";             // a time of whole seconds
  if (letter == 'z' || letter == 'Z') return "";  // local time without a zone, as datetime.now()
  char buffer[1200];
  const size_t size = std::strftime(buffer, sizeof buffer, piece.c_str(), &time);
  return std::string(buffer, size);
}

Value strftime_now(Runtime& runtime, const Args& args) {
  const Params params(runtime, "strftime_now", args, {"format"}, 1);
  const std::string& format = params.string(0);
  std::tm time{};
  if (runtime.now) {
    time = *runtime.now;
  } else {
    const std::time_t seconds = std::time(nullptr);
    localtime_r(&seconds, &time);
  }
  Text out(runtime);
  for (size_t at = 0; at < format.size();) {
    const size_t percent = std::min(format.find('%', at), format.size());
    out.append(std::string_view(format).substr(at, percent - at));
    at = percent + 1;
    if (percent < format.size()) out.append(strftime_piece(runtime, format, at, time));
  }
  return Value::string(runtime, out.take());
}

}  // namespace

Value find_global(Runtime& runtime, std::string_view name) {
  constexpr std::pair<std::string_view, Value (*)(Runtime&, const Args&)> kGlobals[] = {
      {"range", range},
      {"dict", dict},
      {"namespace", make_namespace},
      {"cycler", cycler},
      {"joiner", joiner},
      {"lipsum", lipsum},
      {"raise_exception", raise_exception},
      {"strftime_now", strftime_now}};
  for (const auto& [global, call] : kGlobals)
    if (global == name) return make_function(runtime, std::string(name), 0, call);
  return Value();
}

}  // namespace signround::jinja
