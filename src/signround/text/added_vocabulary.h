// Tokens that are cut out of a text before the model sees it: special tokens and those added after
// training.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "signround/text/byte_trie.h"
#include "signround/text/normalizer.h"
#include "signround/text/vocab.h"

namespace signround {

struct AddedToken {
  std::string content;
  bool single_word = false;  // only where no word character is next to it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = true;    // is looked for in the normalized text, in its own normalized form
  bool special = false;
};

class AddedVocabulary {
 public:
  // Its id is that of the same content added before, else the model's, else the next free one. A
  // token that was there gets the new flags. Empty contents are ignored.
  void add(const AddedToken& token, const Vocab& model, const Normalizer* normalizer);
  // Builds the search for what has been added. REQUIRED before split.
  void build();

  struct Part {
    size_t begin, end;
    int32_t id;  // -1: plain text
  };
  // Cuts `text` at added tokens: those looked for in the raw text, or in the normalized one.
  void split(std::string_view text, bool normalized, std::vector<Part>& parts) const;

  int32_t find(std::string_view content) const;  // -1: not there
  const AddedToken* token(int32_t id) const;     // null: not there
  const std::string* decoded(int32_t id) const;  // what decoding sees of it: its normalized form
  bool is_special_content(
      std::string_view content) const;        // whether a special token has this content
  int32_t end_id() const { return end_id_; }  // highest id + 1

 private:
  struct Entry {
    AddedToken token;
    std::string normal_form;
    uint64_t order;
  };
  std::unordered_map<std::string, int32_t> ids_;
  std::unordered_map<int32_t, Entry> tokens_;
  std::unordered_map<std::string, bool> special_;
  ByteTrie raw_, normalized_;
  int32_t end_id_ = 0;
};

}  // namespace signround
