#include "files/sha256.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

namespace switchyard {
namespace {

// FIPS 180-4 examples (NIST, "Examples with intermediate values").
TEST(Sha256, PublishedExamples) {
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, FileAcrossBlocks) {
  const auto path = std::filesystem::temp_directory_path() / text("switchyard-sha256-", getpid());
  std::string bytes((1 << 20) + 13, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * i >> 3);
  std::ofstream(path, std::ios::binary) << bytes;
  EXPECT_EQ(sha256_of_file(path, Fault::data), sha256(bytes));
  std::filesystem::remove(path);
  try {
    sha256_of_file(path, Fault::data);
    FAIL() << "a file that is not there has no hash";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::data);
    EXPECT_NE(std::string(error.what()).find("No such file"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace switchyard
