#include "checkpoint/agreement.h"

#include <algorithm>

#include "tensor/error.h"

namespace switchyard {
namespace {

// A rank's word begins with '0' when it did its part, else with the digit of its Fault.
constexpr char kDone = '0';

std::string word_of(const std::function<std::string()>& local) {
  try {
    return kDone + local();
  } catch (const Error& error) {
    return static_cast<char>('0' + static_cast<int>(error.fault())) + std::string(error.what());
  } catch (const std::exception& error) {
    return static_cast<char>('0' + static_cast<int>(Fault::checkpoint)) + std::string(error.what());
  }
}

void require_done(const std::string& word, const std::string& who) {
  if (word[0] != kDone) throw Error(who + word.substr(1), static_cast<Fault>(word[0] - '0'));
}

}  // namespace

std::vector<std::string> gather_or_fail(ProcessGroup& world, const std::function<std::string()>& local) {
  auto words = all_gather_text(world, word_of(local));
  for (std::size_t rank = 0; rank < words.size(); ++rank) {
    require_done(words[rank], world.size() == 1 ? "" : text("rank ", rank, ": "));
    words[rank].erase(0, 1);
  }
  return words;
}

void all_or_fail(ProcessGroup& world, const std::function<void()>& local) {
  gather_or_fail(world, [&] {
    local();
    return std::string();
  });
}

std::string root_or_fail(ProcessGroup& world, const std::function<std::string()>& local) {
  const std::string word = broadcast_text(world, world.rank() == 0 ? word_of(local) : std::string(), 0);
  require_done(word, "");
  return word.substr(1);
}

}  // namespace switchyard
