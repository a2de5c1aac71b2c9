// Models and data sets of the Hugging Face Hub, in its standard cache, shared with the Python
// libraries:
//   CACHE/models--org--name/refs/main              the commit that a name stands for
//                          /blobs/<hash>           the files by content
//                          /snapshots/<commit>/... links to them under their own names
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace signround {

struct HubOptions {
  std::string endpoint = "https://huggingface.co";
  std::filesystem::path cache;
  std::string token;  // "": anonymous
  bool offline = false;
  int attempts = 6;  // of a download that breaks
  int64_t first_delay_ms = 1000;
  int64_t max_dataset_bytes = int64_t{2}
                              << 30;  // of a data set's files; behind that they are left out

  // HF_ENDPOINT; HF_HUB_CACHE, else HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub, else
  // ~/.cache/huggingface/hub; HF_TOKEN, else the file HF_TOKEN_PATH, else HF_HOME/token;
  // HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE.
  static HubOptions from_environment();
};

// "org/name" or "org/name@revision" in the Hub's alphabet. A path that exists locally may look the
// same: ask the file system first.
bool looks_like_hub_id(std::string_view text);

// The folder with the model's files: config, tokenizer, templates, licence, code, and the weights
// in safetensors (the shards that the index names, else model.safetensors, else all). Downloads
// what the cache lacks. Weights of other kinds stay where they are. Offline, or where the endpoint
// cannot be reached: what the cache has for this name, with a warning in the second case;
// Error{kIo} naming the id, the endpoint and what to do if it has nothing.
std::filesystem::path hub_model_folder(const std::string& id,
                                       const HubOptions& options = HubOptions::from_environment());

// Which files of a data set are wanted, given the paths of all inside it.
using ChooseFiles = std::function<std::vector<std::string>(const std::vector<std::string>& paths)>;

// The wanted files, in the order of their names, until max_dataset_bytes; at least one if any is
// wanted. `left_out` gets the number of files behind the limit.
std::vector<std::filesystem::path> hub_dataset_files(
    const std::string& id, const ChooseFiles& choose, int64_t* left_out = nullptr,
    const HubOptions& options = HubOptions::from_environment());

// The data set's folder with all its files of text (.json, .jsonl, .txt, .parquet) under the same
// limit.
std::filesystem::path hub_dataset_folder(
    const std::string& id, const HubOptions& options = HubOptions::from_environment());

}  // namespace signround
