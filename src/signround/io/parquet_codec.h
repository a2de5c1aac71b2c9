// The compressions of Parquet pages.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "signround/io/parquet_metadata.h"

namespace signround::parquet {

// Fills `out` exactly. Error{kCorruptFile} where the data does not decompress to that size,
// kUnsupported for LZO, Brotli and the old LZ4 framing; `place` goes into the message.
void decompress(Codec codec, std::span<const std::byte> in, std::span<std::byte> out,
                const std::string& place);

// The most bytes that `in` bytes can become: a page that claims more is refused before memory is
// taken for it.
int64_t most_decompressed(Codec codec, int64_t in);

}  // namespace signround::parquet
