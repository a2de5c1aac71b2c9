#include "signround/io/parquet_codec.h"

#include <lz4.h>
#include <snappy.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>

#include "signround/base/error.h"

namespace signround::parquet {
namespace {

constexpr const char* kWhere = "parquet";

// A gzip stream of one or more members. True if it filled `out` exactly.
bool inflate_gzip(std::span<const std::byte> in, std::span<std::byte> out) {
  z_stream stream{};
  constexpr int kGzipOrZlib = 15 + 32;  // window bits; 32: detect the header
  if (inflateInit2(&stream, kGzipOrZlib) != Z_OK)
    fail(ErrorKind::kMemory, kWhere, "zlib cannot start");
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(in.data()));
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  int status = Z_OK;
  while (status == Z_OK || status == Z_STREAM_END) {
    if (status == Z_STREAM_END && (stream.avail_in == 0 || inflateReset(&stream) != Z_OK)) break;
    status = inflate(&stream, Z_NO_FLUSH);
  }
  inflateEnd(&stream);
  return status == Z_STREAM_END && stream.avail_out == 0;
}

bool run(Codec codec, std::span<const std::byte> in, std::span<std::byte> out) {
  const auto* from = reinterpret_cast<const char*>(in.data());
  auto* to = reinterpret_cast<char*>(out.data());
  switch (codec) {
    case Codec::kUncompressed:
      if (in.size() != out.size()) return false;
      if (!in.empty()) std::memcpy(to, from, in.size());
      return true;
    case Codec::kSnappy: {
      size_t size = 0;
      return snappy::GetUncompressedLength(from, in.size(), &size) && size == out.size() &&
             snappy::RawUncompress(from, in.size(), to);
    }
    case Codec::kGzip:
      return inflate_gzip(in, out);
    case Codec::kZstd:
      return ZSTD_decompress(to, out.size(), from, in.size()) == out.size();
    case Codec::kLz4Raw:
      return LZ4_decompress_safe(from, to, static_cast<int>(in.size()),
                                 static_cast<int>(out.size())) == static_cast<int>(out.size());
    default:
      return false;
  }
}

}  // namespace

void decompress(Codec codec, std::span<const std::byte> in, std::span<std::byte> out,
                const std::string& place) {
  if (codec == Codec::kLzo || codec == Codec::kBrotli || codec == Codec::kLz4)
    fail(ErrorKind::kUnsupported, kWhere, place, ": compressed with ",
         codec == Codec::kLzo      ? "LZO"
         : codec == Codec::kBrotli ? "Brotli"
                                   : "LZ4 in its old framing",
         "; expected none, Snappy, gzip, zstd or LZ4_RAW");
  if (!run(codec, in, out))
    fail(ErrorKind::kCorruptFile, kWhere, place, ": a page of ", in.size(),
         " bytes does not decompress to ", out.size());
}

int64_t most_decompressed(Codec codec, int64_t in) {
  constexpr int64_t kLargestPage = int64_t{1} << 30;
  // Each format's cheapest way to say "the same again": deflate 258 bytes in 2 bits, Snappy 64
  // bytes in 3, LZ4 255 in one; a zstd block of 3 + 1 bytes stands for 128 KiB.
  switch (codec) {
    case Codec::kUncompressed:
      return in;
    case Codec::kSnappy:
      return std::min(kLargestPage, in * 32 + 64);
    case Codec::kGzip:
      return std::min(kLargestPage, in * 1032 + 64);
    case Codec::kLz4Raw:
      return std::min(kLargestPage, in * 255 + 64);
    default:
      return std::min(kLargestPage, in * 32768 + 64);
  }
}

}  // namespace signround::parquet
