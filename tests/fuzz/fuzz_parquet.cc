// A Parquet file is read, or refused with an Error: every column of strings, up to a number of
// rows.
#include <cstdint>
#include <span>

#include "signround/base/error.h"
#include "signround/io/parquet.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const signround::ParquetFile file(std::as_bytes(std::span(data, size)), "fuzz");
    for (const signround::parquet::Leaf& column : file.columns()) {
      if (column.type != signround::parquet::Type::kByteArray || column.max_repetition > 1)
        continue;
      int64_t rows = 0;
      file.read_strings(column, [&](std::vector<std::string>&) { return ++rows < 1000; });
    }
  } catch (const signround::Error&) {
  }
  return 0;
}
