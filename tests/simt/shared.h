#pragma once

#include <array>
#include <cstddef>
#include <string>

namespace simt {

// The shared memory of the block that runs. Each piece that a kernel carves out of it ends at a page that nobody may
// touch and begins behind bytes that are looked at after every block, so that it cannot be left unseen for the piece
// beside it. Poisoned before every block: every float in it is a NaN.
class SharedPieces {
 public:
  SharedPieces();
  ~SharedPieces();
  SharedPieces(const SharedPieces&) = delete;
  SharedPieces& operator=(const SharedPieces&) = delete;

  // The n-th piece that a thread takes; the same for all threads that take as many bytes. 16-byte aligned.
  std::byte* take(int n, std::size_t bytes);

  void begin_launch();
  void begin_block();
  // What the block wrote outside its pieces, in words; empty where nothing.
  std::string damage() const;

  static constexpr int kMost = 32;
  static constexpr std::size_t kMostBytes = 227 << 10;  // of a block, in all; an H100's

 private:
  // Where the n-th piece must end.
  std::byte* end_of(int n) const;

  std::byte* pages_;
  std::array<std::size_t, kMost> bytes_{};  // the most that a thread took in this launch
};

}  // namespace simt
