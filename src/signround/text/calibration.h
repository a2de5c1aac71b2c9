// Calibration data: documents in, rows of exactly seqlen tokens out. The rules (order, packing,
// filters, shares of several data sets) are AutoRound's (calib_dataset.py of 0.16.1), so that the
// same file and seed give the same rows; where ours differ it is said below.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "signround/text/tokenizer.h"

namespace signround {

struct CalibrationOptions {
  std::string dataset = "default";  // dataset_spec.h has the syntax, dataset_source.h the names
  int64_t nsamples = 128;
  int64_t seqlen = 2048;
  uint64_t seed = 42;
  int64_t max_position =
      0;  // the model's longest input: seqlen is cut to it, with a warning; 0: no limit
  bool shuffle = true;  // false: the order of the files, also where several data sets are joined
};

// The prompt of a conversation [{"role", "content"}, ...] with the start of the assistant's turn
// appended.
using RenderChat = std::function<std::string(const nlohmann::ordered_json& messages)>;

// What became of one data set's documents. Documents behind the last one that was needed are not
// examined.
struct DatasetCounts {
  std::string name;
  int64_t documents = 0, examined = 0;
  int64_t rows = 0;  // that passed the filters
  int64_t used = 0;  // of them in the samples
  int64_t too_short = 0, empty = 0, not_text = 0, repetitive = 0;
  bool concat = false;
  int64_t tokens = 0;  // of the examined documents, each cut to seqlen unless concat keeps it whole
  int64_t longest = 0;  // tokens of the longest document that was too short
  int64_t median = 0;   // and of the median one
};

struct CalibrationSet {
  std::vector<std::vector<int32_t>> samples;  // each exactly seqlen ids
  int64_t seqlen = 0;
  int64_t requested = 0;  // nsamples of the options
  std::vector<DatasetCounts> datasets;
  std::vector<std::string>
      warnings;  // each a degradation: fewer samples than asked, seqlen cut, reading stopped

  std::string describe() const;  // one line per data set, without a newline at the end
  uint64_t hash() const;         // of the ids and their arrangement
};

// Tokenizes documents with truncation to seqlen, keeps those that fill it, drops rows whose last
// token makes up more than half of the row, and takes the first nsamples. concat strips BOS and
// EOS, joins the documents and cuts rows, to which BOS and EOS are given back if any document had
// them. Differs from AutoRound: concat reserves exactly the places of BOS and EOS; a rendered
// conversation gets no second BOS from the tokenizer; options after a comma do not inherit the
// system prompt; .txt files are read (concat by default, not cut to seqlen, rows in the order of
// the file and then shuffled). `render` may be null: a data set that needs a chat template is then
// an error. Throws kInvalidArgument if no row remains.
CalibrationSet load_calibration(const CalibrationOptions& options, const Tokenizer& tokenizer,
                                const RenderChat& render);

// 1 where a position counts in the loss, 0 where not, by AutoRound's rule (calibration/llm.py): pad
// tokens do not; without a pad token (pad_id < 0) a run of equal tokens at the end does not; the
// last position never does. Where pad and EOS are one token, pass -1: rows are always full, so what
// looks like padding is text.
std::vector<uint8_t> loss_mask(const std::vector<int32_t>& ids, int32_t pad_id);

}  // namespace signround
