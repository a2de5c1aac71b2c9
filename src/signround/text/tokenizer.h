// Text to token ids and back, as the checkpoint's reference tokenizer does it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace signround {

// Thread-safe: encode and decode keep no state between calls.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // From a model's folder: tokenizer.json, else what the folder has instead.
  static std::unique_ptr<Tokenizer> load(const std::filesystem::path& folder);
  // From the text of a tokenizer.json; `config` is tokenizer_config.json (or null): added tokens,
  // bos and eos.
  static std::unique_ptr<Tokenizer> from_json(std::string_view tokenizer_json,
                                              const nlohmann::json& config = nullptr);

  // Ids of `text`. With add_special, what the reference's default call adds (BOS, EOS, template) is
  // added. Special tokens written in the text are recognized, as the reference does. Bytes that are
  // not UTF-8 count as U+FFFD.
  virtual std::vector<int32_t> encode(std::string_view text, bool add_special = true) const = 0;
  virtual std::string decode(std::span<const int32_t> ids, bool skip_special = false) const = 0;

  virtual int32_t vocab_size() const = 0;  // highest id + 1, added tokens included
  virtual int32_t token_to_id(std::string_view token) const = 0;  // -1: there is none
  virtual std::string id_to_token(int32_t id) const = 0;          // "" for an id without a token
  virtual bool is_special(int32_t id) const = 0;
  virtual int32_t bos_id() const = 0;  // -1: there is none; so eos and pad
  virtual int32_t eos_id() const = 0;
  virtual int32_t pad_id() const = 0;

  // What the files ask for and this program does not do (truncation, padding, dropout), one
  // sentence each.
  virtual std::vector<std::string> notes() const { return {}; }
};

// Decodes ids as they come: the pieces, joined, are the decoding of all ids. A token that ends
// inside a character is held back until the character is complete or flush is called.
// (Byte-fallback tokenizers decode a run of bytes that is not UTF-8 to one U+FFFD a byte, even
// where it starts with sound characters; here those characters have been given out.)
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = false)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}
  std::string push(int32_t id);
  std::string flush();

 private:
  std::string emit(bool all);

  const Tokenizer& tokenizer_;
  bool skip_special_;
  std::vector<int32_t> window_;  // the ids given out last (how a token decodes depends on what is
                                 // before it), then new ones
  size_t context_ = 0;           // how many of window_ were given out before
  size_t emitted_ = 0;           // bytes of the window's text that were given out
};

}  // namespace signround
