// For tests: a tokenizer whose ids can be read off the text. "5 6 7" is {5, 6, 7}; a word that is
// no number below 90 gets an id of 100 and above that depends on its letters. BOS is 1, EOS is 2;
// either, both or none is added.
#pragma once

#include <charconv>

#include "signround/text/tokenizer.h"

namespace signround::testing {

class NumberTokenizer : public Tokenizer {
 public:
  explicit NumberTokenizer(bool bos = false, bool eos = false) : bos_(bos), eos_(eos) {}

  std::vector<int32_t> encode(std::string_view text, bool add_special) const override {
    std::vector<int32_t> ids;
    if (bos_ && add_special) ids.push_back(1);
    for (size_t i = 0; i < text.size();) {
      const size_t end = std::min(text.find_first_of(" \n", i), text.size());
      if (end > i) ids.push_back(word_id(text.substr(i, end - i)));
      i = end + 1;
    }
    if (eos_ && add_special) ids.push_back(2);
    return ids;
  }
  std::string decode(std::span<const int32_t>, bool) const override { return ""; }
  int32_t vocab_size() const override { return 1100; }
  int32_t token_to_id(std::string_view) const override { return -1; }
  std::string id_to_token(int32_t) const override { return ""; }
  bool is_special(int32_t id) const override { return id == 1 || id == 2; }
  int32_t bos_id() const override { return 1; }
  int32_t eos_id() const override { return 2; }
  int32_t pad_id() const override { return -1; }

 private:
  static int32_t word_id(std::string_view word) {
    int32_t id = 0;
    const auto [stop, problem] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (problem == std::errc() && stop == word.data() + word.size() && id >= 0 && id < 90)
      return id;
    uint32_t hash = 2166136261u;  // FNV-1a
    for (char c : word) hash = (hash ^ static_cast<uint8_t>(c)) * 16777619u;
    return static_cast<int32_t>(100 + hash % 1000);
  }

  bool bos_, eos_;
};

}  // namespace signround::testing
