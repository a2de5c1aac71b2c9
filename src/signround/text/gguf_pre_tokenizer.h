// How vocabularies of GGUF files with merges cut text before BPE: the names that llama.cpp gives
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
  // Tokens are written as they are, and a character that is none as its bytes <0xNN>; otherwise in
  // GPT-2's letters for bytes.
  bool plain = false;
  bool visible_spaces = false;  // plain: a space is U+2581 in tokens
  bool newline_runs = false;    // plain: a run of line ends that is a token is not cut by merges
  bool always_bos = false;      // add_bos, whatever the file says
  bool mask_strips = false;     // <mask> takes the white space before it along
};

// Null for a name that is not known.
const GgufPreTokenizer* find_gguf_pre_tokenizer(std::string_view name);
std::span<const GgufPreTokenizer> gguf_pre_tokenizers();
std::string gguf_pre_tokenizer_names();  // comma-separated

}  // namespace signround
