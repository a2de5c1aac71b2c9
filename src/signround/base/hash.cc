#include "signround/base/hash.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <xxhash.h>

#include <memory>

#include "signround/base/error.h"

namespace signround {

uint64_t xxh3(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }
uint64_t xxh3(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

std::string hex(uint64_t value) {
  std::string text(16, '0');
  for (int i = 15; i >= 0; --i, value >>= 4)
    text[static_cast<size_t>(i)] = "0123456789abcdef"[value & 15];
  return text;
}

namespace {

std::string hex_digits(std::span<const unsigned char> digest) {
  std::string text;
  for (unsigned char byte : digest) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

}  // namespace

std::string sha256_hex(std::string_view bytes) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest);
  return hex_digits(digest);
}

std::string git_blob_hex(std::string_view bytes) {
  const std::string head = "blob " + std::to_string(bytes.size()) + '\0';
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(),
                                                                   EVP_MD_CTX_free);
  unsigned char digest[SHA_DIGEST_LENGTH];
  if (!context || !EVP_DigestInit_ex(context.get(), EVP_sha1(), nullptr) ||
      !EVP_DigestUpdate(context.get(), head.data(), head.size()) ||
      !EVP_DigestUpdate(context.get(), bytes.data(), bytes.size()) ||
      !EVP_DigestFinal_ex(context.get(), digest, nullptr))
    fail(ErrorKind::kInternal, "hash", "the crypto library refuses sha1");
  return hex_digits(digest);
}

}  // namespace signround
