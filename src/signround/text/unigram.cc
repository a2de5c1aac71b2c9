#include "signround/text/unigram.h"

#include <algorithm>
#include <limits>

#include "signround/base/error.h"
#include "signround/text/json_field.h"
#include "signround/text/unicode.h"

namespace signround {

namespace {

constexpr const char* kWhere = "tokenizer model Unigram";
constexpr double kUnknownPenalty = 10.0;  // below the lowest score, as SentencePiece has it
constexpr uint32_t kUnreached = 0xFFFFFFFFu;

}  // namespace

Unigram::Unigram(const nlohmann::json& config) {
  const auto* vocab = find_field(config, "vocab");
  if (!vocab || !vocab->is_array())
    fail(ErrorKind::kCorruptFile, kWhere, "vocab is not a list of [token, score]");
  std::vector<std::pair<std::string, int32_t>> entries;
  double lowest = std::numeric_limits<double>::infinity();
  for (const auto& item : *vocab) {
    if (!item.is_array() || item.size() != 2 || !item[0].is_string() || !item[1].is_number())
      fail(ErrorKind::kCorruptFile, kWhere, "vocab entry ", scores_.size(),
           " is not [token, score]");
    const auto id = static_cast<int64_t>(scores_.size());
    vocab_.add(item[0].get_ref<const std::string&>(), id);
    entries.emplace_back(item[0].get<std::string>(), static_cast<int32_t>(id));
    scores_.push_back(item[1].get<double>());
    lowest = std::min(lowest, scores_.back());
  }
  trie_ = ByteTrie(std::move(entries));
  unknown_score_ = lowest - kUnknownPenalty;
  const int64_t unknown = int_field(config, "unk_id", -1, kWhere);
  if (unknown >= static_cast<int64_t>(scores_.size()) || unknown < -1)
    fail(ErrorKind::kCorruptFile, kWhere, "unk_id is ", unknown, " of ", scores_.size(), " tokens");
  unknown_id_ = static_cast<int32_t>(unknown);
  if (bool_field(config, "byte_fallback", false, kWhere)) fallback_ids_ = byte_fallback_ids(vocab_);
}

void Unigram::encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const {
  // scores[i]: best sum of the ways to write the first i bytes; previous[i]: where its last token
  // starts; next[i]: its id.
  const size_t n = piece.size();
  if (n >= kUnreached) fail(ErrorKind::kUnsupported, kWhere, "a piece has ", n, " bytes");
  auto& best = scratch.scores;
  auto &from = scratch.previous, &token = scratch.next;
  best.assign(n + 1, 0.0);
  from.assign(n + 1, kUnreached);
  token.resize(n + 1);
  for (size_t i = 0; i < n;) {
    const size_t length = unicode::sequence_length(static_cast<unsigned char>(piece[i]));
    bool single = false;
    const auto offer = [&](size_t end, double score, int32_t id) {
      if (from[end] != kUnreached && !(score > best[end])) return;
      best[end] = score;
      from[end] = static_cast<uint32_t>(i);
      token[end] = static_cast<uint32_t>(id);
    };
    trie_.prefixes(piece.substr(i), [&](size_t size, int32_t id) {
      offer(i + size, scores_[static_cast<size_t>(id)] + best[i], id);
      single = single || size == length;
    });
    if (!single) {
      if (unknown_id_ < 0)
        fail(ErrorKind::kCorruptFile, kWhere, "an unknown character, but there is no unk_id");
      offer(i + length, unknown_score_ + best[i], unknown_id_);
    }
    i += length;
  }
  const size_t start = ids.size();
  for (size_t end = n; end > 0;) {  // backwards; neighbouring unknown characters are one token
    size_t begin = from[end];
    if (static_cast<int32_t>(token[end]) != unknown_id_) {
      ids.push_back(static_cast<int32_t>(token[end]));
    } else {
      while (begin > 0 && static_cast<int32_t>(token[begin]) == unknown_id_) begin = from[begin];
      add_unknown(piece.substr(begin, end - begin), ids);
    }
    end = begin;
  }
  std::reverse(ids.begin() + static_cast<int64_t>(start), ids.end());
}

// Appended backwards. Text that spells a token (the unknown token's own name, say) is that token.
void Unigram::add_unknown(std::string_view text, std::vector<int32_t>& ids) const {
  if (const int32_t id = vocab_.find(text); id >= 0) return ids.push_back(id);
  if (fallback_ids_.empty()) return ids.push_back(unknown_id_);
  for (size_t i = text.size(); i-- > 0;)
    ids.push_back(fallback_ids_[static_cast<unsigned char>(text[i])]);
}

}  // namespace signround
