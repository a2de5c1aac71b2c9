// Documents are read, or refused with an Error. The first byte of the input chooses the reader:
// lines of JSON, a JSON file, text, or the option syntax of --dataset.
#include <cstdint>
#include <string_view>

#include "signround/base/error.h"
#include "signround/text/dataset_spec.h"
#include "signround/text/documents.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  const signround::DocumentLimits limits{
      .max_line = 1 << 16, .max_file = 1 << 20, .max_text = 1 << 20};
  signround::DocumentSet documents;
  try {
    switch (data[0] % 4) {
      case 0:
        signround::read_jsonl_text(input, "fuzz", {}, limits, documents);
        break;
      case 1:
        signround::read_json_text(input, "fuzz", {{"a", "b"}, " "}, limits, documents);
        break;
      case 2:
        signround::read_plain_text(input, "fuzz", limits, documents);
        break;
      default:
        signround::parse_dataset_specs(input);
    }
  } catch (const signround::Error&) {
  }
  return 0;
}
