// Where a data set's name leads: the built-in text, a file, a folder, or the Hub.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "signround/text/dataset_spec.h"
#include "signround/text/documents.h"

namespace signround {

// How the documents are put in order before they are packed; each is what AutoRound does for that
// kind of source.
enum class ShuffleRule {
  kPython,  // random.Random(seed).shuffle: local files
  kNumpy,   // datasets.Dataset.shuffle(seed), numpy's default_rng(seed).permutation: the Hub's
};

struct DatasetSource {
  std::string name;
  DocumentSet documents;
  ShuffleRule rule = ShuffleRule::kPython;
  bool concat = false;   // unless the spec says otherwise
  bool truncate = true;  // cut each document to seqlen before it is joined
};

// `default` is the text that is built in (data/README.md). A path that exists is a file, or a
// folder whose document files are read in the order of their names. Else a name of
// dataset_registry.h or org/name of the Hub (org/name@revision as well), from its cache or
// downloaded (hub.h), the split `train` unless the spec says otherwise.
DatasetSource open_dataset(const DatasetSpec& spec, const DocumentLimits& limits = {});

// The built-in text, one document per line as a JSON string.
std::string default_dataset_jsonl();

}  // namespace signround
