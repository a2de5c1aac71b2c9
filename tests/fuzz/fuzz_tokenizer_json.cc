// A tokenizer.json is read, or refused with an Error; what was read encodes and decodes a text without crashing. Input:
// the tokenizer, a NUL, the text.
#include <algorithm>
#include <cstdint>
#include <string_view>

#include "signround/base/error.h"
#include "signround/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t nul = std::min(input.find('\0'), size);
  const std::string_view text = input.substr(std::min(nul + 1, size));
  try {
    const auto tokenizer = signround::Tokenizer::from_json(input.substr(0, nul));
    const auto ids = tokenizer->encode(text);
    tokenizer->decode(ids);
    signround::StreamDecoder stream(*tokenizer, true);
    for (const int32_t id : ids) stream.push(id);
    stream.flush();
  } catch (const signround::Error&) {
  }
  return 0;
}
