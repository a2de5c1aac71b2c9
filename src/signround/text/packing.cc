#include "signround/text/packing.h"

#include <algorithm>

#include "signround/base/error.h"

namespace signround {

TruncatingEncoder::TruncatingEncoder(const Tokenizer& tokenizer, int64_t most)
    : tokenizer_(tokenizer), most_(static_cast<size_t>(most)) {
  const auto bare = tokenizer.encode("a", false), full = tokenizer.encode("a", true);
  const auto inner = std::search(full.begin(), full.end(), bare.begin(), bare.end());
  if (bare.empty() || inner == full.end()) return;
  prefix_.assign(full.begin(), inner);
  suffix_.assign(inner + static_cast<std::ptrdiff_t>(bare.size()), full.end());
  require(prefix_.size() + suffix_.size() < most_, "calibration", "seqlen is ", most,
          ", the tokenizer alone adds ", prefix_.size() + suffix_.size(), " special tokens");
}

std::vector<int32_t> TruncatingEncoder::encode(std::string_view text, bool add_special) const {
  std::vector<int32_t> ids = tokenizer_.encode(text, add_special);
  if (ids.size() <= most_) return ids;
  if (add_special) {
    ids.resize(most_ - suffix_.size());
    ids.insert(ids.end(), suffix_.begin(), suffix_.end());
  } else {
    ids.resize(most_);
  }
  return ids;
}

std::vector<int32_t> TruncatingEncoder::checked(const std::vector<int32_t>& ids) const {
  std::vector<int32_t> out(ids.begin(),
                           ids.begin() + static_cast<std::ptrdiff_t>(std::min(ids.size(), most_)));
  for (int32_t id : out)
    require(id >= 0 && id < tokenizer_.vocab_size(), "calibration", "input_ids has ", id,
            ", the tokenizer has ", tokenizer_.vocab_size(), " tokens");
  return out;
}

void Packer::add(const std::vector<int32_t>& document) {
  ++counts_.examined;
  counts_.tokens += static_cast<int64_t>(document.size());
  if (document.empty()) {
    ++counts_.empty;
  } else if (options_.concat) {
    join(document);
  } else if (static_cast<int64_t>(document.size()) < options_.seqlen) {
    ++counts_.too_short;
    short_lengths_.push_back(static_cast<int64_t>(document.size()));
  } else {
    add_row({document.begin(), document.begin() + options_.seqlen});
  }
}

void Packer::join(const std::vector<int32_t>& document) {
  size_t begin = 0, end = document.size();
  if (document.front() == options_.bos && options_.bos >= 0) has_bos_ = true, ++begin;
  if (end > begin && document.back() == options_.eos && options_.eos >= 0) has_eos_ = true, --end;
  buffer_.insert(buffer_.end(), document.begin() + static_cast<std::ptrdiff_t>(begin),
                 document.begin() + static_cast<std::ptrdiff_t>(end));
  const size_t room = static_cast<size_t>(options_.seqlen) - has_bos_ - has_eos_;
  if (room == 0) return;  // seqlen 2 with both BOS and EOS: no row has a place for text
  size_t taken = 0;
  for (; buffer_.size() - taken >= room; taken += room) {
    std::vector<int32_t> row;
    row.reserve(static_cast<size_t>(options_.seqlen));
    if (has_bos_) row.push_back(options_.bos);
    const auto from = buffer_.begin() + static_cast<std::ptrdiff_t>(taken);
    row.insert(row.end(), from, from + static_cast<std::ptrdiff_t>(room));
    if (has_eos_) row.push_back(options_.eos);
    add_row(std::move(row));
  }
  buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(taken));
}

// A row whose last token makes up more than half of it is padding or a loop, nothing to calibrate
// on.
void Packer::add_row(std::vector<int32_t> row) {
  if (options_.seqlen > 2 && std::count(row.begin(), row.end(), row.back()) > options_.seqlen / 2) {
    ++counts_.repetitive;
  } else {
    rows_.push_back(std::move(row));
  }
}

DatasetCounts Packer::counts() const {
  DatasetCounts counts = counts_;
  counts.rows = static_cast<int64_t>(rows_.size());
  std::vector<int64_t> lengths = short_lengths_;
  if (!lengths.empty()) {
    const auto middle = lengths.begin() + static_cast<std::ptrdiff_t>(lengths.size() / 2);
    std::nth_element(lengths.begin(), middle, lengths.end());
    counts.median = *middle;
    counts.longest = *std::max_element(lengths.begin(), lengths.end());
  }
  return counts;
}

}  // namespace signround
