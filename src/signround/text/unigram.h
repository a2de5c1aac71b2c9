// Unigram: of all ways to write a piece as tokens, the one whose scores add up to the most (Viterbi
// over bytes).
#pragma once

#include "signround/text/byte_trie.h"
#include "signround/text/token_model.h"

namespace signround {

class Unigram : public TokenModel {
 public:
  explicit Unigram(const nlohmann::json& config);
  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const override;

 private:
  void add_unknown(std::string_view text, std::vector<int32_t>& ids) const;

  std::vector<double> scores_;
  ByteTrie trie_;
  int32_t unknown_id_ = -1;
  double unknown_score_ = 0;
  std::vector<int32_t> fallback_ids_;
};

}  // namespace signround
