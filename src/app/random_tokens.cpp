#include "app/random_tokens.h"

#include <unistd.h>

#include <filesystem>

#include "data/token_file_writer.h"
#include "data/tokenizer.h"
#include "tensor/philox.h"

namespace switchyard {

RandomTokens::RandomTokens(ProcessGroup& world) : owner_(world.rank() == 0) {
  const std::string here = text(std::filesystem::temp_directory_path().string(), "/switchyard-tokens-", getpid());
  dir_ = broadcast_text(world, here, 0);
  if (owner_) {
    std::filesystem::create_directories(dir_);
    std::vector<std::int32_t> tokens;
    for (std::uint64_t i = 0; i < (1 << 20); ++i)
      tokens.push_back(static_cast<std::int32_t>(philox({1, 2}, i)[0] % 256));
    TokenFileWriter writer(prefix(), ByteTokenizer());
    writer.add_document(tokens);
    writer.finish();
  }
  world.barrier();
}

RandomTokens::~RandomTokens() {
  std::error_code ignored;
  if (owner_) std::filesystem::remove_all(dir_, ignored);
}

}  // namespace switchyard
