// From a document's ids to rows of exactly seqlen ids: truncation, joining and filters.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "signround/text/calibration.h"
#include "signround/text/tokenizer.h"

namespace signround {

// Tokenizer with Hugging Face's truncation: the text is cut to `most` ids less the special ones,
// which stay around it. Thread-safe.
class TruncatingEncoder {
 public:
  TruncatingEncoder(const Tokenizer& tokenizer, int64_t most);
  std::vector<int32_t> encode(std::string_view text, bool add_special) const;
  // Ids from a file, cut; an id that the tokenizer does not have is kInvalidArgument.
  std::vector<int32_t> checked(const std::vector<int32_t>& ids) const;

 private:
  const Tokenizer& tokenizer_;
  size_t most_;
  std::vector<int32_t> prefix_, suffix_;  // what the tokenizer puts around a text
};

class Packer {
 public:
  struct Options {
    int64_t seqlen;
    bool concat;
    int32_t bos, eos;  // -1: there is none
  };
  explicit Packer(const Options& options) : options_(options) { counts_.concat = options.concat; }

  void add(const std::vector<int32_t>& document);
  int64_t row_count() const { return static_cast<int64_t>(rows_.size()); }
  std::vector<std::vector<int32_t>> take_rows() { return std::move(rows_); }
  DatasetCounts counts() const;  // all but name, documents, not_text and used

 private:
  void join(const std::vector<int32_t>& document);
  void add_row(std::vector<int32_t> row);

  Options options_;
  DatasetCounts counts_;
  std::vector<std::vector<int32_t>> rows_;
  std::vector<int32_t> buffer_;  // joined documents without BOS and EOS, less than a row
  bool has_bos_ = false, has_eos_ = false;
  std::vector<int64_t> short_lengths_;
};

}  // namespace signround
