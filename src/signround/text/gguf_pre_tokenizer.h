// How byte-level vocabularies of GGUF files cut text before BPE: the names that llama.cpp gives
// them in `tokenizer.ggml.pre`.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace signround {

struct GgufPreTokenizer {
  std::string_view name;
  // Each cuts what the ones before it left; matches and what lies between them are the pieces.
  std::span<const char* const> patterns;
  bool digits_alone = false;   // first of all, every digit becomes a piece
  bool gpt2 = false;           // last of all, GPT-2's expression
  bool ignore_merges = false;  // a piece that is a token is not cut by merges
  bool add_bos = false;        // where the file does not say it
  bool nfc = false;            // text is normalized to NFC before
};

// Null for a name that is not known. docs/tokenizers.md says which of llama.cpp's names are left
// out and why.
const GgufPreTokenizer* find_gguf_pre_tokenizer(std::string_view name);
std::span<const GgufPreTokenizer> gguf_pre_tokenizers();
std::string gguf_pre_tokenizer_names();  // comma-separated

}  // namespace signround
