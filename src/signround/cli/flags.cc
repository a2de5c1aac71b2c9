#include "signround/cli/flags.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <numeric>

#include "signround/base/error.h"

namespace signround {
namespace {

std::string normalized(std::string_view name) {
  std::string text(name);
  std::replace(text.begin(), text.end(), '_', '-');
  return text;
}

std::string number_text(double v) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.10g", v);
  return text;
}

std::string out_of_range(const FieldInfo& info, double v) {
  if (v >= info.min && v <= info.max) return "";
  const bool low = info.min != -std::numeric_limits<double>::infinity();
  const bool high = info.max != std::numeric_limits<double>::infinity();
  if (low && high) return "is outside " + number_text(info.min) + " .. " + number_text(info.max);
  return low ? "is below " + number_text(info.min) : "is above " + number_text(info.max);
}

template <class T>
std::string parse_number(const std::string& text, const FieldInfo& info, T& value) {
  T parsed{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), parsed);
  if (error == std::errc::result_out_of_range) return "is too large";
  if (error != std::errc() || end != text.data() + text.size())
    return std::is_floating_point_v<T> ? "is not a number" : "is not a whole number";
  if (std::string problem = out_of_range(info, static_cast<double>(parsed)); !problem.empty())
    return problem;
  value = parsed;
  return "";
}

std::string join(const std::vector<std::string>& parts, const char* separator) {
  std::string text;
  for (const auto& part : parts) text += (text.empty() ? "" : separator) + part;
  return text;
}

std::string our_spelling(const FieldInfo& info, const std::string& text) {
  for (const auto& [theirs, ours] : info.spellings)
    if (text == theirs) return std::string(ours);
  return text;
}

// Edit distance, for "did you mean".
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0]++;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[b.size()];
}

// `text` broken into lines of at most `width` characters, each after the first indented by
// `indent`.
std::string wrapped(std::string_view text, size_t indent, size_t width) {
  std::string out;
  size_t column = indent;
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find(' ', start), text.size());
    const auto word = text.substr(start, end - start);
    if (column > indent && column + 1 + word.size() > width) {
      out += '\n' + std::string(indent, ' ');
      column = indent;
    } else if (column > indent) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
    start = end + 1;
  }
  return out;
}

}  // namespace

void Flags::positional(std::string name, std::string& value, std::string help, bool required) {
  positionals_.push_back({std::move(name), std::move(help), &value, required});
}

void Flags::add_flag(Flag flag) {
  flag.name = normalized(flag.name);
  flags_.push_back(std::move(flag));
}

void Flags::add(std::string_view name, std::string& value, const FieldInfo& info) {
  add_flag({.name = std::string(name),
            .info = info,
            .default_text = value,
            .parse = [&value, info](const std::string& given) {
              const std::string text = our_spelling(info, given);
              if (!info.choices.empty() &&
                  std::find(info.choices.begin(), info.choices.end(), text) == info.choices.end()) {
                std::string known;
                for (auto choice : info.choices)
                  if (!choice.empty()) known += (known.empty() ? "" : ", ") + std::string(choice);
                return "is none of " + known;
              }
              value = text;
              return std::string();
            }});
}

void Flags::add(std::string_view name, bool& value, const FieldInfo& info) {
  add_flag({.name = std::string(name),
            .info = info,
            .takes_value = false,
            .is_bool = true,
            .default_text = value ? "on" : "",
            .parse = [&value](const std::string& text) {
              value = text == "true";
              return std::string();
            }});
}

void Flags::add(std::string_view name, int& value, const FieldInfo& info) {
  add_flag({.name = std::string(name),
            .info = info,
            .default_text = std::to_string(value),
            .parse = [&value, info](const std::string& text) {
              return parse_number(text, info, value);
            }});
}

void Flags::add(std::string_view name, int64_t& value, const FieldInfo& info) {
  add_flag({.name = std::string(name),
            .info = info,
            .default_text = std::to_string(value),
            .parse = [&value, info](const std::string& text) {
              return parse_number(text, info, value);
            }});
}

void Flags::add(std::string_view name, uint64_t& value, const FieldInfo& info) {
  add_flag({.name = std::string(name),
            .info = info,
            .default_text = std::to_string(value),
            .parse = [&value, info](const std::string& text) {
              return parse_number(text, info, value);
            }});
}

void Flags::add(std::string_view name, double& value, const FieldInfo& info) {
  add_flag({.name = std::string(name),
            .info = info,
            .default_text = number_text(value),
            .parse = [&value, info](const std::string& text) {
              return parse_number(text, info, value);
            }});
}

void Flags::add(std::string_view name, std::vector<std::string>& value, const FieldInfo& info) {
  add_flag({.name = std::string(name),
            .info = info,
            .default_text = join(value, ","),
            .parse = [&value, info](const std::string& text) {
              value.clear();
              for (size_t start = 0; start <= text.size();) {
                const size_t end = std::min(text.find(',', start), text.size());
                std::string part = text.substr(start, end - start);
                part.erase(0, part.find_first_not_of(' '));
                part.erase(part.find_last_not_of(' ') + 1);
                if (!part.empty()) value.push_back(our_spelling(info, part));
                start = end + 1;
              }
              return std::string();
            }});
}

void Flags::action(std::string_view name, std::function<void()> action, const FieldInfo& info) {
  add_flag({.name = std::string(name),
            .info = info,
            .takes_value = false,
            .parse = [action](const std::string&) {
              action();
              return std::string();
            }});
}

void Flags::custom(std::string_view name, std::function<std::string(const std::string&)> parse,
                   const FieldInfo& info) {
  add_flag({.name = std::string(name), .info = info, .parse = std::move(parse)});
}

void Flags::explain(std::string_view name, std::string why) {
  explained_[normalized(name)] = std::move(why);
}

Flags::Flag* Flags::find(std::string_view spelled, bool* negated) {
  const auto matches = [&](const Flag& flag, std::string_view name) {
    return flag.name == name ||
           std::any_of(flag.info.aliases.begin(), flag.info.aliases.end(),
                       [&](std::string_view alias) { return normalized(alias) == name; });
  };
  const std::string name = normalized(spelled);
  *negated = false;
  for (Flag& flag : flags_)
    if (matches(flag, name)) return &flag;
  for (Flag& flag : flags_) {
    if (flag.is_bool && name.starts_with("no-") &&
        matches(flag, std::string_view(name).substr(3))) {
      *negated = true;
      return &flag;
    }
  }
  return nullptr;
}

std::string Flags::nearest(std::string_view spelled) const {
  const std::string name = normalized(spelled);
  size_t best = std::max<size_t>(2, name.size() / 3) + 1;
  std::string found;
  const auto consider = [&](std::string_view candidate) {
    const size_t d = candidate.starts_with(name) ? 1 : distance(name, candidate);
    if (d < best) best = d, found = candidate;
  };
  for (const Flag& flag : flags_) {
    consider(flag.name);
    for (auto alias : flag.info.aliases) consider(normalized(alias));
  }
  return found;
}

bool Flags::parse(int argc, const char* const* argv) {
  size_t next_positional = 0;
  bool swallowed = false;
  for (int i = 0; i < argc; ++i) {
    std::string word = argv[i];
    if (word == "--help" || word == "-h") {
      std::fputs(help().c_str(), stdout);
      return false;
    }
    if (word == "-o") word = "--output";
    if (word.size() < 2 || word[0] != '-') {
      if (next_positional < positionals_.size() && positionals_[next_positional].value->empty())
        *positionals_[next_positional++].value = word;
      else
        problem("'" + word + "' is one argument too many");
      continue;
    }
    if (!word.starts_with("--")) {
      problem("unknown flag " + word + "; flags begin with two dashes (--help lists them)");
      continue;
    }
    const size_t equals = word.find('=');
    const std::string spelled = word.substr(2, equals == std::string::npos ? equals : equals - 2);
    bool negated = false;
    Flag* flag = find(spelled, &negated);
    if (!flag) {
      if (const auto why = explained_.find(normalized(spelled)); why != explained_.end()) {
        problem("--" + spelled + ": " + why->second);
      } else {
        const std::string near = nearest(spelled);
        problem("unknown flag --" + spelled +
                (near.empty() ? "; --help lists the flags" : "; did you mean --" + near + "?"));
      }
      // The word behind it may be its value or a positional: neither is another problem.
      if (equals == std::string::npos && i + 1 < argc && argv[i + 1][0] != '-')
        ++i, swallowed = true;
      continue;
    }
    std::string value = negated ? "false" : "true";
    if (flag->takes_value) {
      if (equals != std::string::npos) {
        value = word.substr(equals + 1);
      } else if (i + 1 < argc) {
        value = argv[++i];
      } else {
        problem("--" + flag->name + " needs a value");
        continue;
      }
    } else if (equals != std::string::npos) {
      value = word.substr(equals + 1);
      if (!flag->is_bool || (value != "true" && value != "false")) {
        problem("--" + flag->name + " takes no value, found '" + value + "'");
        continue;
      }
    }
    flag->set = true;
    const std::string wrong = flag->parse(value);
    if (!wrong.empty()) problem("--" + flag->name + ": '" + value + "' " + wrong);
  }
  for (size_t i = next_positional; i < positionals_.size(); ++i)
    if (positionals_[i].required && positionals_[i].value->empty() && !swallowed)
      problem(positionals_[i].name + " is missing: " + positionals_[i].help);
  return true;
}

bool Flags::was_set(std::string_view name) const {
  const std::string wanted = normalized(name);
  return std::any_of(flags_.begin(), flags_.end(),
                     [&](const Flag& flag) { return flag.name == wanted && flag.set; });
}

void Flags::check() const {
  if (problems_.empty()) return;
  if (problems_.size() == 1) throw Error(ErrorKind::kInvalidArgument, problems_[0]);
  std::string text = std::to_string(problems_.size()) + " problems:";
  for (const auto& p : problems_) text += "\n  " + p;
  throw Error(ErrorKind::kInvalidArgument, text);
}

std::string Flags::help() const {
  constexpr size_t kIndent = 30, kWidth = 110;
  std::string text = "usage: signround " + usage_ + "\n\n" + wrapped(summary_, 0, kWidth) + "\n";
  if (!positionals_.empty()) text += "\n";
  for (const auto& p : positionals_) {
    std::string head = "  " + p.name;
    head.resize(std::max(head.size() + 1, kIndent), ' ');
    text += head + wrapped(p.help, kIndent, kWidth) + "\n";
  }
  if (!flags_.empty() && flags_[0].info.group.empty()) text += "\n";
  for (const auto& flag : flags_) {
    if (flag.info.hidden) continue;
    if (!flag.info.group.empty()) text += "\n" + std::string(flag.info.group) + "\n";
    std::string head = "  --" + flag.name;
    if (flag.takes_value)
      head += ' ' + (flag.info.value.empty() ? std::string("VALUE") : std::string(flag.info.value));
    if (head.size() + 1 > kIndent)
      head += '\n' + std::string(kIndent, ' ');
    else
      head.resize(kIndent, ' ');
    std::string about(flag.info.help);
    if (!flag.info.choices.empty()) {
      about += " (one of";
      for (auto choice : flag.info.choices)
        if (!choice.empty()) about += " " + std::string(choice);
      about += ")";
    }
    // 0 means "not given" for numbers, and the help text says what that does.
    if (!flag.default_text.empty() && flag.default_text != "0" && flag.default_text != "-1")
      about += " [" + flag.default_text + "]";
    if (!flag.info.aliases.empty()) {
      about += "; also";
      for (auto alias : flag.info.aliases) about += " --" + std::string(alias);
    }
    text += head + wrapped(about, kIndent, kWidth) + "\n";
  }
  return text;
}

}  // namespace signround
