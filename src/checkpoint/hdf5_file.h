#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "checkpoint/manifest.h"
#include "tensor/tensor.h"

namespace switchyard {

// One HDF5 file of a checkpoint, whose datasets are slices of tensors on the host. Files hold no times: the same slices
// give the same bytes. Failures are Error (Fault::checkpoint) with the file, the dataset and HDF5's reason.
class Hdf5File {
 public:
  static Hdf5File create(const std::filesystem::path& path);
  // Only for files whose hash was checked: HDF5 1.10 does not withstand hostile ones. Loads no plug-ins.
  static Hdf5File open(const std::filesystem::path& path);
  Hdf5File(Hdf5File&&) noexcept;
  ~Hdf5File();

  // One contiguous dataset, with the attributes global_shape and origin.
  void write(const StoredSlice& slice, const Tensor& host, const Shape& global_shape);
  // A dataset that shows the whole tensor; its bytes stay in the slices' files, found beside this one.
  void write_virtual(const StoredTensor& tensor);
  // into[part - region.origin] = slice[part - slice.origin]; `into` holds `region`, and `part` lies in both. Refuses a
  // dataset that is not ours: linked from elsewhere, not contiguous, of another type or shape.
  void read(const StoredSlice& slice, const Box& part, Tensor& into, const Box& region);
  // Flushes; call it after writing, as a destructor cannot tell of a full disk.
  void close();

 private:
  struct State;
  explicit Hdf5File(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Where the dataset of a tensor's `n`-th slice of a file lies.
std::string dataset_name(const std::string& tensor, std::size_t n = 0);

}  // namespace switchyard
