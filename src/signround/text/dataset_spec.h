// The option syntax of --dataset, as AutoRound's: what to read and how to make samples of it.
//   NAME[:split=a+b][:num=N][:concat[=BOOL]][:apply_chat_template[=BOOL]][:system_prompt="..."],
//   joined by commas.
// Ours in addition: shuffle=False (keep the order of the file), column=NAME (which field holds the
// text; a+b joins two) and config=FOLDER (the part of a data set of the Hub).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace signround {

struct DatasetSpec {
  std::string name;                 // a path, a registered name, or org/name of the Hub
  std::vector<std::string> splits;  // empty: what the data set's entry says, else train
  std::optional<int64_t> num;       // samples wanted of this data set; else a share of what is left
  std::optional<bool>
      concat;  // documents end to end, cut into rows; unset: what the source prefers
  bool apply_chat_template = false;  // each document as a user's turn; system_prompt= turns this on
  // That of this data set, else of the last one before it that names one; "": no system turn.
  std::optional<std::string> system_prompt;
  bool shuffle = true;
  std::string config;  // empty: what the data set's entry says, else anywhere
  std::string column;  // empty: what the data set's entry says, else "text"
};

// Double quotes, anywhere, protect ':' ',' and '='; inside them \" and \\ stand for the bare
// characters. Bool: anything but "false" (any case) is true, and so is a key without a value.
// Unknown keys are errors.
std::vector<DatasetSpec> parse_dataset_specs(std::string_view text);

}  // namespace signround
