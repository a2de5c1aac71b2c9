// Command-line flags fed by field lists (base/fields.h). All problems of a command line are
// reported at once.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "signround/base/fields.h"

namespace signround {

// Flags take '-' or '_' between words, "--name value" or "--name=value"; booleans take no value and
// have a "--no-" form.
class Flags {
 public:
  // `usage` is the line behind "usage: signround "; `summary` what the command does, one or more
  // sentences.
  Flags(std::string usage, std::string summary)
      : usage_(std::move(usage)), summary_(std::move(summary)) {}

  // An argument without a dash, in the order of the calls.
  void positional(std::string name, std::string& value, std::string help, bool required = true);

  void add(std::string_view name, std::string& value, const FieldInfo& info);
  void add(std::string_view name, bool& value, const FieldInfo& info);
  void add(std::string_view name, int& value, const FieldInfo& info);
  void add(std::string_view name, int64_t& value, const FieldInfo& info);
  void add(std::string_view name, uint64_t& value, const FieldInfo& info);
  void add(std::string_view name, double& value, const FieldInfo& info);
  void add(std::string_view name, std::vector<std::string>& value,
           const FieldInfo& info);  // comma-separated
  // A flag without a value that calls `action`; for shorthands such as --asym.
  void action(std::string_view name, std::function<void()> action, const FieldInfo& info);
  // A flag with a value that `parse` takes apart; it returns "" or what is wrong with the text.
  void custom(std::string_view name, std::function<std::string(const std::string&)> parse,
              const FieldInfo& info);
  // What to say of a flag of another program that has no meaning here, instead of "unknown".
  void explain(std::string_view name, std::string why);
  template <class Options>
  void add_fields(Options& options) {
    options.visit(
        [this](const char* name, auto& field, const FieldInfo& info) { add(name, field, info); });
  }

  // Reads the arguments behind the command's name. Returns false after printing --help to stdout.
  // What is wrong is collected; check() throws it.
  bool parse(int argc, const char* const* argv);
  bool was_set(std::string_view name) const;
  void problem(std::string text) { problems_.push_back(std::move(text)); }
  // Throws Error{kInvalidArgument} naming every problem, if there is any.
  void check() const;
  std::string help() const;

 private:
  struct Flag {
    std::string name;
    FieldInfo info;
    bool takes_value = true, is_bool = false, set = false;
    std::string default_text;
    std::function<std::string(const std::string&)> parse;  // "" or the problem
  };
  struct Positional {
    std::string name, help;
    std::string* value;
    bool required;
  };
  Flag* find(std::string_view spelled, bool* negated);
  std::string nearest(std::string_view spelled) const;
  void add_flag(Flag flag);

  std::string usage_, summary_;
  std::vector<Flag> flags_;
  std::vector<Positional> positionals_;
  std::map<std::string, std::string, std::less<>> explained_;  // by normalized name
  std::vector<std::string> problems_;
};

}  // namespace signround
