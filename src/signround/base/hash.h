// Content hashes: xxh3 for the journal and read-back, sha256 where others check it too.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace signround {

uint64_t xxh3(std::span<const std::byte> bytes);
uint64_t xxh3(std::string_view bytes);
std::string hex(uint64_t value);                 // 16 lower-case digits
std::string sha256_hex(std::string_view bytes);  // 64 lower-case digits
// The name that git gives to a file with this content: sha1 of "blob <size>\0" and the bytes; 40
// lower-case digits.
std::string git_blob_hex(std::string_view bytes);

}  // namespace signround
