// striptags and urlize: what Jinja and its markupsafe do with text for web pages.
#include <algorithm>
#include <set>

#include "signround/text/html_entities.h"
#include "signround/text/jinja_operators.h"
#include "signround/text/jinja_text_filters.h"
#include "signround/text/jinja_unicode.h"

namespace signround::jinja::filters {
namespace {

constexpr size_t kNone = std::string_view::npos;

// A letter in lower case by the rules of Python's re.IGNORECASE, to which four others are ASCII.
char32_t folded(char32_t c) {
  if (c >= 'A' && c <= 'Z') return c + ('a' - 'A');
  if (c == 0x130 || c == 0x131) return 'i';
  if (c == 0x17F) return 's';
  return c == 0x212A ? 'k' : c;
}

bool is_word(char32_t c) { return is_alnum(c) || c == '_'; }
bool is_host(char32_t c) { return is_word(c) || c == '%' || c == '-'; }
bool is_hex(char32_t c) { return is_decimal(c) || (folded(c) >= 'a' && folded(c) <= 'f'); }

// Behind `prefix`, whatever the case; kNone where the text does not begin so.
size_t behind(std::string_view text, std::string_view prefix, size_t at = 0) {
  for (const char c : prefix)
    if (at >= text.size() || folded(next_code_point(text, at)) != static_cast<char32_t>(c))
      return kNone;
  return at;
}

// Number of code points if all of them are such, else -1.
template <class Predicate>
int64_t count_if_all(std::string_view text, Predicate holds) {
  int64_t count = 0;
  for (size_t at = 0; at < text.size(); ++count)
    if (!holds(next_code_point(text, at))) return -1;
  return count;
}

bool within(int64_t value, int64_t low, int64_t high) { return value >= low && value <= high; }

// Nothing, or :port, and then nothing, or a path, query or fragment.
bool ends_url(std::string_view rest) {
  if (!rest.empty() && rest[0] == ':') {
    size_t end = std::min(rest.find_first_of("/?#", 1), rest.size());
    if (!within(count_if_all(rest.substr(1, end - 1), is_decimal), 1, 5)) return false;
    rest.remove_prefix(end);
  }
  return rest.empty() || rest[0] == '/' || rest[0] == '?' || rest[0] == '#';
}

// The host in front of port and path.
std::string_view host_of(std::string_view text) {
  return text.substr(0, text.find_first_of(":/?#"));
}

// (([\w%-]+\.)+)?([a-z]{2,63}|xn--[\w%]{2,59})
bool is_any_domain(std::string_view host) {
  const size_t dot = host.rfind('.');
  for (size_t begin = 0; dot != kNone && begin <= dot;) {
    const size_t end = host.find('.', begin);
    if (count_if_all(host.substr(begin, end - begin), is_host) < 1) return false;
    begin = end + 1;
  }
  const std::string_view last = dot == kNone ? host : host.substr(dot + 1);
  const auto is_letter = [](char32_t c) { return folded(c) >= 'a' && folded(c) <= 'z'; };
  const auto is_idna = [](char32_t c) { return is_word(c) || c == '%'; };
  const size_t idna = behind(last, "xn--");
  return within(count_if_all(last, is_letter), 2, 63) ||
         (idna != kNone && within(count_if_all(last.substr(idna), is_idna), 2, 59));
}

// ([\w%-]{2,63}\.)+(com|net|int|edu|gov|org|info|mil)
bool is_basic_domain(std::string_view host) {
  const size_t dot = host.rfind('.');
  if (dot == kNone) return false;
  for (size_t begin = 0; begin <= dot;) {
    const size_t end = host.find('.', begin);
    if (!within(count_if_all(host.substr(begin, end - begin), is_host), 2, 63)) return false;
    begin = end + 1;
  }
  const std::string_view last = host.substr(dot + 1);
  for (const char* name : {"com", "net", "int", "edu", "gov", "org", "info", "mil"})
    if (behind(last, name) == last.size()) return true;
  return false;
}

// Four numbers of up to three digits.
bool is_ipv4(std::string_view host) {
  int parts = 0;
  for (size_t begin = 0; begin <= host.size(); ++parts) {
    const size_t end = std::min(host.find('.', begin), host.size());
    if (!within(count_if_all(host.substr(begin, end - begin), is_decimal), 1, 3)) return false;
    begin = end + 1;
  }
  return parts == 4;
}

// \[([\da-f]{0,4}:){2}([\da-f]{0,4}:?){1,6}] and an end: two groups and then up to six, of which
// each takes up to four digits, a colon, or both.
bool is_ipv6_url(std::string_view text) {
  const size_t close = text.find(']');
  if (text.empty() || text[0] != '[' || close == kNone) return false;
  const std::string_view inside = text.substr(1, close - 1);
  int64_t groups = 0, colons = 0;
  for (size_t begin = 0; begin <= inside.size();) {
    const size_t end = std::min(inside.find(':', begin), inside.size());
    const int64_t digits = count_if_all(inside.substr(begin, end - begin), is_hex);
    if (digits < 0 || (colons < 2 && digits > 4)) return false;
    const bool colon = end < inside.size();
    if (colons >= 2) groups += std::max<int64_t>((digits + 3) / 4, colon ? 1 : 0);
    colons += colon ? 1 : 0;
    begin = end + 1;
  }
  return colons >= 2 && groups <= 6 && ends_url(text.substr(close + 1));
}

// Jinja's _http_re.
bool is_url(std::string_view text) {
  size_t scheme = behind(text, "https://");
  if (scheme == kNone) scheme = behind(text, "http://");
  const size_t start = scheme != kNone ? scheme : behind(text, "www.");
  if (start != kNone) {
    const std::string_view rest = text.substr(start), host = host_of(rest);
    if (is_any_domain(host) && ends_url(rest.substr(host.size()))) return true;
    if (scheme != kNone && is_ipv4(host) && ends_url(rest.substr(host.size()))) return true;
    if (scheme != kNone && is_ipv6_url(rest)) return true;
  }
  const std::string_view host = host_of(text);
  return is_basic_domain(host) && ends_url(text.substr(host.size()));
}

// Jinja's _email_re: ^\S+@\w[\w.-]*\.\w+$
bool is_email(std::string_view text) {
  const size_t at_sign = text.rfind('@');
  if (at_sign == kNone || at_sign == 0) return false;
  const std::string_view domain = text.substr(at_sign + 1);
  const size_t dot = domain.rfind('.');
  if (dot == kNone || dot == 0 || count_if_all(domain.substr(dot + 1), is_word) < 1) return false;
  const auto is_part = [](char32_t c) { return is_word(c) || c == '.' || c == '-'; };
  size_t first = 0;
  return is_word(next_code_point(domain, first)) && count_if_all(domain, is_part) > 0;
}

int64_t count_of(std::string_view text, std::string_view part) {
  int64_t count = 0;
  for (size_t at = 0; (at = text.find(part, at)) != kNone; at += part.size()) ++count;
  return count;
}

struct LinkOptions {
  bool trims = false;
  int64_t limit = 0;
  std::string attributes;  // rel and target, as they stand in a tag
  std::vector<std::string> schemes;
};

std::string trimmed(std::string_view url, const LinkOptions& options) {
  const int64_t length = options.trims ? count_code_points(url) : 0;
  if (!options.trims || length <= options.limit) return std::string(url);
  const int64_t kept = options.limit < 0 ? std::max<int64_t>(0, length + options.limit)  // x[:-1]
                                         : options.limit;
  return std::string(url.substr(0, byte_offset(url, kept))) + "...";
}

// A word without the punctuation around it.
std::string linked(std::string_view word, const LinkOptions& options) {
  const auto link = [&](std::string_view href, std::string_view more, const std::string& shown) {
    return "<a href=\"" + std::string(href) + "\"" + std::string(more) + ">" + shown + "</a>";
  };
  if (is_url(word)) {
    const bool has_scheme = word.starts_with("https://") || word.starts_with("http://");
    const std::string href = (has_scheme ? "" : "https://") + std::string(word);
    return link(href, options.attributes, trimmed(word, options));
  }
  if (word.starts_with("mailto:") && is_email(word.substr(7)))
    return link(word, "", std::string(word.substr(7)));
  if (word.find('@') != kNone && !word.starts_with("www.") && word[0] != '@' &&
      word.find(':') == kNone && is_email(word))
    return link("mailto:" + std::string(word), "", std::string(word));
  std::string result(word);
  for (const std::string& scheme : options.schemes)
    if (result != scheme && result.starts_with(scheme))
      result = link(result, options.attributes, result);
  return result;
}

void append_linked(Text& out, std::string_view word, const LinkOptions& options) {
  constexpr std::string_view kOpen = "&lt;", kClose = "&gt;";
  size_t begin = 0, end = word.size();
  for (bool more = true; more && begin < word.size();) {
    more = true;
    if (word[begin] == '(' || word[begin] == '<')
      ++begin;
    else if (word.substr(begin).starts_with(kOpen))
      begin += kOpen.size();
    else
      more = false;
  }
  while (end > begin) {
    const std::string_view middle = word.substr(begin, end - begin);
    if (std::string_view(")>.,").find(middle.back()) != kNone)
      --end;
    else if (middle.ends_with(kClose))
      end -= kClose.size();
    else
      break;
  }
  // Closing brackets behind the word belong to it where it has opened more than it has closed.
  constexpr std::pair<std::string_view, std::string_view> kPairs[] = {
      {"(", ")"}, {"<", ">"}, {kOpen, kClose}};
  for (const auto& [open, close] : kPairs) {
    const std::string_view middle = word.substr(begin, end - begin);
    const int64_t opened = count_of(middle, open);
    if (opened <= count_of(middle, close)) continue;
    const int64_t moved = std::min(opened, count_of(word.substr(end), close));
    for (int64_t i = 0; i < moved; ++i) end = word.find(close, end) + close.size();
  }
  out.append(word.substr(0, begin));
  out.append(linked(word.substr(begin, end - begin), options));
  out.append(word.substr(end));
}

// [\w.+-]{2,}:(/){0,2}
bool is_scheme(std::string_view text) {
  const size_t colon = text.find(':');
  const auto is_part = [](char32_t c) { return is_word(c) || c == '.' || c == '+' || c == '-'; };
  if (colon == kNone || count_if_all(text.substr(0, colon), is_part) < 2) return false;
  const std::string_view slashes = text.substr(colon + 1);
  return slashes.empty() || slashes == "/" || slashes == "//";
}

// The values of rel, each once and sorted, with what Jinja always adds.
std::string rel_of(Runtime& runtime, std::string_view given, bool nofollow) {
  std::set<std::string, std::less<>> parts = {"noopener"};
  if (nofollow) parts.insert("nofollow");
  runtime.step(static_cast<int64_t>(given.size()));
  for (size_t at = 0, begin = 0; at <= given.size();) {
    const size_t end = at;
    const bool separates = at == given.size() || is_space(next_code_point(given, at));
    if (at == end) ++at;
    if (!separates) continue;
    if (end > begin) parts.emplace(given.substr(begin, end - begin));
    begin = at;
  }
  std::string joined;
  for (const std::string& part : parts) joined += (joined.empty() ? "" : " ") + part;
  return joined;
}

}  // namespace

Value striptags(Runtime& runtime, const Args& args) {
  const Params params(runtime, "striptags", args, {"value"}, 1);
  const std::string value = to_str(runtime, params[0]);
  runtime.step(static_cast<int64_t>(value.size()));
  Text kept(runtime);
  size_t at = 0;
  while (true) {
    const size_t start = value.find('<', at);
    if (start == kNone) break;
    const bool comment = std::string_view(value).substr(start).starts_with("<!--");
    const size_t end = comment ? value.find("-->", start + 4) : value.find('>', start);
    if (end == kNone) break;
    kept.append(std::string_view(value).substr(at, start - at));
    at = end + (comment ? 3 : 1);
  }
  kept.append(std::string_view(value).substr(at));
  Text words(runtime);  // with one space between them
  bool gap = false;
  for (size_t i = 0; i < kept.view().size();) {
    const size_t begin = i;
    if (is_space(next_code_point(kept.view(), i))) {
      gap = true;
      continue;
    }
    if (gap && words.size() > 0) words.append(" ");
    gap = false;
    words.append(std::string_view(kept.view()).substr(begin, i - begin));
  }
  runtime.reserve(3 * words.size());
  std::string result = unescape_html(words.view());
  runtime.release(3 * words.size());
  return Value::string(runtime, std::move(result));
}

Value urlize(Runtime& runtime, const Args& args) {
  const Params params(runtime, "urlize", args,
                      {"value", "trim_url_limit", "nofollow", "target", "rel", "extra_schemes"}, 1);
  LinkOptions options;
  options.trims = params.given(1);
  if (options.trims) options.limit = params.integer(1, 0);
  const bool has_rel = params.given(4) && truthy(params[4]);
  const std::string rel =
      rel_of(runtime, has_rel ? params.string(4) : std::string(), params.flag(2, false));
  options.attributes = " rel=\"" + escape_html(runtime, rel) + "\"";
  if (params.given(3) && truthy(params[3]))
    options.attributes += " target=\"" + escape_for_markup(runtime, params[3]) + "\"";
  if (params.given(5)) {
    for (const Value& scheme : collect(runtime, params[5])) {
      if (!scheme.is_string() || !is_scheme(scheme.text()))
        runtime.fail("urlize: ", string_repr(to_str(runtime, scheme)),
                     " is not a valid URI scheme prefix");
      options.schemes.push_back(scheme.text());
    }
  }
  const std::string text = escape_for_markup(runtime, params[0]);
  Text out(runtime);
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    size_t next = at;
    while (next < text.size() && is_space(next_code_point(text, next))) at = next;
    out.append(std::string_view(text).substr(begin, at - begin));
    const size_t word = at;
    for (next = at; next < text.size() && !is_space(next_code_point(text, next));) at = next;
    const std::string_view letters = std::string_view(text).substr(word, at - word);
    // A word is looked at once for each of a few rules, and copied for each scheme.
    runtime.step(static_cast<int64_t>(letters.size() * (1 + options.schemes.size())));
    const auto copied = static_cast<int64_t>(letters.size() * 8 + options.attributes.size());
    runtime.reserve(copied);
    append_linked(out, letters, options);
    runtime.release(copied);
  }
  return Value::string(runtime, out.take());
}

}  // namespace signround::jinja::filters
