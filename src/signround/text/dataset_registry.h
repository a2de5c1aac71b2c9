// The data sets that AutoRound knows by name, and how files of a data set of the Hub are chosen.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace signround {

struct RegisteredDataset {
  std::string_view short_name;  // "pile-10k"; the id works as well
  std::string_view id;          // of the Hub: "NeelNanda/pile-10k"
  std::string_view
      config;  // folder, "": anywhere; {split} in it stands for the split, then not told by names
  std::string_view splits;   // by default, as in split=
  std::string_view columns;  // joined with '+', as in column=
  std::string_view joiner;   // between the columns' texts
  bool concat;
  bool python_shuffle;  // AutoRound makes a list of its rows and shuffles that as a local file's
};

std::span<const RegisteredDataset> registered_datasets();
// By short name or id; a name without a slash also by being part of one of them, the first that
// fits (AutoRound's rule). nullptr: there is none.
const RegisteredDataset* find_registered_dataset(std::string_view name);

// The document files under `config` ("": anywhere) that belong to one of `splits`, by the Hub's
// rules: the name is SPLIT-00000-of-00001, or a keyword (train, training; validation, valid, val,
// dev; test, testing, eval, evaluation) stands in the path between characters that are neither
// letters nor digits. Where no file says its split, all are train. Empty `splits`: train, or
// everything where nothing is train.
std::vector<std::string> choose_dataset_files(const std::vector<std::string>& paths,
                                              std::string_view config,
                                              const std::vector<std::string>& splits);

}  // namespace signround
