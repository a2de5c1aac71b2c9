// Any bytes are a safetensors file that can be read to its last value, or an Error.
#include <vector>

#include "memory_file.h"
#include "signround/base/error.h"
#include "signround/io/convert.h"
#include "signround/io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace signround;
  const fuzz::MemoryFile file(data, size);
  try {
    const SafetensorsFile tensors(file.path());
    for (size_t i = 0; i < tensors.tensors().size(); ++i) {
      const TensorInfo& info = tensors.tensors()[i];
      if (tensors.find(info.name) != i ||
          static_cast<int64_t>(tensors.bytes(i).size()) != info.nbytes())
        std::abort();
      if (!is_float(info.dtype)) continue;
      std::vector<float> values(static_cast<size_t>(info.numel()));
      convert_to_f32(info.dtype, tensors.bytes(i).data(), info.numel(), values.data());
      tensors.release(i);
    }
  } catch (const Error&) {
  }
  return 0;
}
