#include "checkpoint/sha256.h"

#include <openssl/evp.h>

#include <array>
#include <memory>
#include <vector>

#include "checkpoint/disk.h"

namespace switchyard {
namespace {

constexpr std::size_t kBlock = 1 << 20;  // stays in the second-level cache between read and hash

class Digest {
 public:
  Digest() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    SY_CHECK(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr), "OpenSSL offers no SHA-256");
  }
  void add(const void* bytes, std::size_t size) {
    SY_CHECK(EVP_DigestUpdate(context_.get(), bytes, size), "OpenSSL could not hash");
  }
  std::string hex() {
    std::array<unsigned char, 32> digest;
    SY_CHECK(EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr), "OpenSSL could not hash");
    std::string text;
    for (unsigned char byte : digest) {
      text += "0123456789abcdef"[byte >> 4];
      text += "0123456789abcdef"[byte & 15];
    }
    return text;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace

std::string sha256_of(std::string_view bytes) {
  Digest digest;
  digest.add(bytes.data(), bytes.size());
  return digest.hex();
}

std::string sha256_of_file(const std::filesystem::path& path) {
  Digest digest;
  std::vector<char> block(kBlock);
  FileReader file(path);
  while (const std::size_t n = file.read(block.data(), block.size())) digest.add(block.data(), n);
  return digest.hex();
}

}  // namespace switchyard
