// Any bytes are a GGUF file whose metadata, tensors and tokenizer can be read, or an Error.
#include <vector>

#include "memory_file.h"
#include "signround/base/error.h"
#include "signround/base/log.h"
#include "signround/io/gguf.h"
#include "signround/model/gguf_checkpoint.h"
#include "signround/text/gguf_tokenizer.h"

namespace {

template <class Call>
void may_fail(Call&& call) {
  try {
    call();
  } catch (const signround::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace signround;
  set_log_level(LogLevel::kQuiet);
  const fuzz::MemoryFile memory(data, size);
  may_fail([&] {
    const GgufFile file(memory.path());
    for (const GgufTensor& t : file.tensors()) {
      std::vector<float> values(static_cast<size_t>(t.rows() * t.columns()));
      dequantize(t.type, file.bytes(t).data(), t.rows() * t.columns(), values.data());
    }
    for (const std::string& key : file.keys()) {
      may_fail([&] { file.integer(key); });
      may_fail([&] { file.number(key); });
      may_fail([&] { file.text(key); });
      may_fail([&] { file.integers(key); });
      may_fail([&] { file.floats(key); });
      may_fail([&] { file.strings(key); });
    }
    may_fail([&] { tokenizer_config_from_gguf(file); });
    may_fail([&] {
      if (!nlohmann::json::accept(tokenizer_json_from_gguf(file))) std::abort();
    });
  });
  may_fail([&] {
    const auto checkpoint = open_gguf_checkpoint(memory.path());
    std::vector<std::byte> scratch;
    for (const TensorInfo& info : checkpoint->tensors()) {
      if (static_cast<int64_t>(checkpoint->bytes(info.name, scratch).size()) != info.nbytes())
        std::abort();
      checkpoint->read_all_f32(info.name);
    }
    checkpoint->extra_files();
  });
  return 0;
}
