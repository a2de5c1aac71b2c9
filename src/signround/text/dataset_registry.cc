#include "signround/text/dataset_registry.h"

#include <algorithm>

#include "signround/text/documents.h"

namespace signround {
namespace {

// AutoRound 0.16.1, calib_dataset.py. Its streamed data sets are shuffled in a window while they
// arrive; here the files that are read are shuffled as a whole, so their rows differ from
// AutoRound's. Left out: the audio captions and the ModelScope-only pile-val-backup.
constexpr RegisteredDataset kDatasets[] = {
    {"pile-10k", "NeelNanda/pile-10k", "", "train", "text", "", false, false},
    {"fineweb-edu", "HuggingFaceFW/fineweb-edu", "sample/10BT", "", "text", "", false, false},
    {"CCI3-HQ", "BAAI/CCI3-HQ", "", "", "text", "", false, false},
    {"github-code-clean", "codeparrot/github-code-clean", "", "train", "code", "", false, false},
    {"opencode-instruct", "nvidia/OpenCodeInstruct", "", "train", "input+output", "\n\n", true,
     true},
    {"ultrachat_200k", "HuggingFaceH4/ultrachat_200k", "", "train_sft", "messages", "", false,
     false},
    {"Ultra-FineWeb", "openbmb/Ultra-FineWeb", "data/ultrafineweb_{split}", "en", "content", "",
     false, false},
    {"new-title-chinese", "madao33/new-title-chinese", "", "train", "content", "", false, false},
    {"mbpp", "google-research-datasets/mbpp", "full", "train+validation+test", "text+code", "",
     false, true},
};

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_alphanumeric(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// "train_sft" of "data/train_sft-00000-of-00003-a1b2.parquet"; "" of other names.
std::string_view numbered_split(std::string_view name) {
  constexpr std::string_view kOf = "-of-";
  const size_t of = name.find(kOf);
  if (of == std::string_view::npos || of < 7 || name.size() < of + kOf.size() + 5) return "";
  const auto five_digits = [&](size_t at) {
    return std::all_of(&name[at], &name[at] + 5, is_digit);
  };
  if (!five_digits(of - 5) || !five_digits(of + kOf.size()) || name[of - 6] != '-') return "";
  return name.substr(0, of - 6);
}

bool has_word(std::string_view path, std::string_view word) {
  for (size_t at = 0; (at = path.find(word, at)) != std::string_view::npos; ++at) {
    const size_t end = at + word.size();
    const bool begins = at == 0 || !(is_alphanumeric(path[at - 1]) && !is_digit(path[at - 1]));
    const bool ends = end == path.size() || !(is_alphanumeric(path[end]) && !is_digit(path[end]));
    if (begins && ends) return true;
  }
  return false;
}

constexpr std::string_view kTrain[] = {"train", "training"};
constexpr std::string_view kValidation[] = {"validation", "valid", "val", "dev"};
constexpr std::string_view kTest[] = {"test", "testing", "eval", "evaluation"};

bool contains(std::span<const std::string_view> words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

std::string_view canonical(std::string_view split) {
  return contains(kTrain, split)        ? "train"
         : contains(kValidation, split) ? "validation"
         : contains(kTest, split)       ? "test"
                                        : split;
}

// "" where the path does not say.
std::string_view split_of(std::string_view path) {
  const size_t slash = path.rfind('/');
  const std::string_view name = slash == std::string_view::npos ? path : path.substr(slash + 1);
  if (const std::string_view split = numbered_split(name); !split.empty()) return canonical(split);
  const auto any = [&](std::span<const std::string_view> words) {
    return std::any_of(words.begin(), words.end(),
                       [&](std::string_view word) { return has_word(path, word); });
  };
  return any(kTrain) ? "train" : any(kValidation) ? "validation" : any(kTest) ? "test" : "";
}

bool holds_documents(std::string_view path, std::string_view config) {
  const size_t slash = path.rfind('/');
  const std::string_view name = slash == std::string_view::npos ? path : path.substr(slash + 1);
  if (!is_document_file(std::string(name)) || name.starts_with('.')) return false;
  for (const char* other :
       {"dataset_infos.json", "dataset_info.json", "README.txt", "LICENSE.txt", "requirements.txt"})
    if (name == other) return false;
  return config.empty() ||
         (path.starts_with(config) && path.substr(config.size()).starts_with('/'));
}

}  // namespace

std::span<const RegisteredDataset> registered_datasets() { return kDatasets; }

const RegisteredDataset* find_registered_dataset(std::string_view name) {
  for (const RegisteredDataset& d : kDatasets)
    if (name == d.short_name || name == d.id) return &d;
  if (name.empty() || name.find('/') != std::string_view::npos) return nullptr;
  for (const RegisteredDataset& d : kDatasets)
    if (d.short_name.find(name) != std::string_view::npos ||
        d.id.find(name) != std::string_view::npos)
      return &d;
  return nullptr;
}

std::vector<std::string> choose_dataset_files(const std::vector<std::string>& paths,
                                              std::string_view config,
                                              const std::vector<std::string>& splits) {
  std::vector<std::string> documents;
  for (const std::string& path : paths)
    if (holds_documents(path, config)) documents.push_back(path);
  const bool none_says = std::all_of(documents.begin(), documents.end(),
                                     [](const auto& p) { return split_of(p).empty(); });
  const auto is_chosen = [&](const std::string& path) {
    const std::string_view split = none_says ? "train" : split_of(path);
    if (splits.empty()) return split == "train";
    return std::any_of(splits.begin(), splits.end(),
                       [&](const std::string& s) { return canonical(s) == split; });
  };
  std::vector<std::string> chosen;
  std::copy_if(documents.begin(), documents.end(), std::back_inserter(chosen), is_chosen);
  return chosen.empty() && splits.empty() ? documents : chosen;
}

}  // namespace signround
