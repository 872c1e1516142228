#include "checkpoint/hdf5_file.h"

#include <hdf5.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string_view>
#include <utility>

namespace switchyard {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are handed to HDF5 as little-endian bytes");

constexpr const char* kGroup = "/tensors";
using Extents = std::array<hsize_t, Shape::kMaxRank>;

Extents extents(const Shape& shape) {
  Extents dims{};
  for (int i = 0; i < shape.rank(); ++i) dims[static_cast<std::size_t>(i)] = static_cast<hsize_t>(shape[i]);
  return dims;
}

Extents difference(const Origin& a, const Origin& b) {
  Extents offset{};
  for (std::size_t i = 0; i < offset.size(); ++i) offset[i] = static_cast<hsize_t>(a[i] - b[i]);
  return offset;
}

hid_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return H5T_IEEE_F32LE;
    case DType::i32: return H5T_STD_I32LE;
    case DType::i64: return H5T_STD_I64LE;
    case DType::u16: return H5T_STD_U16LE;
    case DType::u8: return H5T_STD_U8LE;
    case DType::bf16: break;
  }
  throw Error(text("a checkpoint holds f32, i32, i64, u16 and u8, not ", dtype));
}

// The innermost entry of HDF5's error stack; of one about a system call, only what the system said.
std::string reason() {
  std::string innermost;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_DOWNWARD,
      [](unsigned, const H5E_error2_t* entry, void* words) -> herr_t {
        if (entry->desc) *static_cast<std::string*>(words) = entry->desc;
        return 0;
      },
      &innermost);
  constexpr std::string_view before = "error message = '";
  if (const std::size_t said = innermost.find(before); said != std::string::npos) {
    innermost.erase(0, said + before.size());
    innermost.resize(std::min(innermost.find('\''), innermost.size()));
  }
  return innermost.empty() ? "refused by HDF5" : innermost;
}

// An identifier and the call that gives it back.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle(hid_t id, Close close) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)), close_(other.close_) {}
  Handle& operator=(Handle&&) = delete;
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  operator hid_t() const { return id_; }
  hid_t release() { return std::exchange(id_, H5I_INVALID_HID); }

 private:
  hid_t id_;
  Close close_;
};

// Quiet, without plug-ins and without file locks: a directory of a checkpoint has one writer until it is published and
// none after, and network file systems often lack locks.
Handle access_properties() {
  H5dont_atexit();  // which crashes after a write that failed; every file is closed by its owner
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // per thread
  H5PLset_loading_state(0);
  Handle properties(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  SY_CHECK(properties >= 0 && H5Pset_libver_bounds(properties, H5F_LIBVER_V18, H5F_LIBVER_V110) >= 0 &&
               H5Pset_file_locking(properties, false, true) >= 0,
           "HDF5 refuses its own properties: ", reason());
  return properties;
}

}  // namespace

struct Hdf5File::State {
  std::filesystem::path path;
  Handle file, group;

  // The dataset, or the file, that a call is about stands before the reason.
  template <class Result>
  Result need(Result result, const char* call, const std::string& dataset = "") const {
    SY_REQUIRE(result >= 0, Fault::checkpoint, path.string(), dataset, ": ", call, ": ", reason());
    return result;
  }
  Handle space(const Shape& shape) const {
    return {need(H5Screate_simple(shape.rank(), extents(shape).data(), nullptr), "H5Screate_simple"), H5Sclose};
  }
  // Creation properties that leave no times in the file and write no fill values.
  Handle creation() const {
    Handle properties(need(H5Pcreate(H5P_DATASET_CREATE), "H5Pcreate"), H5Pclose);
    need(H5Pset_obj_track_times(properties, false), "H5Pset_obj_track_times");
    need(H5Pset_fill_time(properties, H5D_FILL_TIME_NEVER), "H5Pset_fill_time");
    return properties;
  }
  // A slice's dataset, once it is known to be ours.
  Handle ours(const StoredSlice& slice, DType dtype) const;
  void attribute(hid_t dataset, const char* name, const std::int64_t* values, int rank) const {
    const Handle space = this->space({rank});
    const Handle attribute(need(H5Acreate2(dataset, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT), "H5Acreate"),
                           H5Aclose);
    need(H5Awrite(attribute, H5T_NATIVE_INT64, values), "H5Awrite");
  }
};

Handle Hdf5File::State::ours(const StoredSlice& slice, DType dtype) const {
  SY_REQUIRE(slice.dataset.starts_with(kGroup) && slice.dataset.rfind('/') == std::strlen(kGroup), Fault::checkpoint,
             path.string(), slice.dataset, ": not a dataset of ", kGroup);
  H5L_info_t link;
  need(H5Lget_info(file, slice.dataset.c_str(), &link, H5P_DEFAULT), "H5Lget_info", slice.dataset);
  SY_REQUIRE(link.type == H5L_TYPE_HARD, Fault::checkpoint, path.string(), slice.dataset, ": a link to elsewhere");
  Handle dataset(need(H5Dopen2(file, slice.dataset.c_str(), H5P_DEFAULT), "H5Dopen", slice.dataset), H5Dclose);
  const Handle creation(need(H5Dget_create_plist(dataset), "H5Dget_create_plist"), H5Pclose);
  SY_REQUIRE(H5Pget_layout(creation) == H5D_CONTIGUOUS && H5Pget_external_count(creation) == 0, Fault::checkpoint,
             path.string(), slice.dataset, ": its data are not contiguous in this file");
  const Handle type(need(H5Dget_type(dataset), "H5Dget_type"), H5Tclose);
  SY_REQUIRE(H5Tequal(type, type_of(dtype)) > 0, Fault::checkpoint, path.string(), slice.dataset, ": is not ", dtype,
             " as the manifest says");
  const Handle extent(need(H5Dget_space(dataset), "H5Dget_space"), H5Sclose);
  const Handle expected = space(slice.box.shape);
  SY_REQUIRE(H5Sextent_equal(extent, expected) > 0, Fault::checkpoint, path.string(), slice.dataset,
             ": is not of shape ", slice.box.shape, " as the manifest says");
  return dataset;
}

Hdf5File::Hdf5File(std::unique_ptr<State> state) : state_(std::move(state)) {}
Hdf5File::Hdf5File(Hdf5File&&) noexcept = default;
Hdf5File::~Hdf5File() = default;

Hdf5File Hdf5File::create(const std::filesystem::path& path) {
  const Handle access = access_properties();
  const Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose), group_creation(H5Pcreate(H5P_GROUP_CREATE), H5Pclose);
  H5Pset_obj_track_times(creation, false);
  H5Pset_obj_track_times(group_creation, false);
  Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, access), H5Fclose);
  SY_REQUIRE(file >= 0, Fault::checkpoint, path.string(), ": H5Fcreate: ", reason());
  Handle group(H5Gcreate2(file, kGroup, H5P_DEFAULT, group_creation, H5P_DEFAULT), H5Gclose);
  SY_REQUIRE(group >= 0, Fault::checkpoint, path.string(), ": H5Gcreate: ", reason());
  return Hdf5File(std::make_unique<State>(path, std::move(file), std::move(group)));
}

Hdf5File Hdf5File::open(const std::filesystem::path& path) {
  const Handle access = access_properties();
  Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access), H5Fclose);
  SY_REQUIRE(file >= 0, Fault::checkpoint, path.string(), ": H5Fopen: ", reason());
  H5L_info_t link;
  SY_REQUIRE(H5Lget_info(file, kGroup, &link, H5P_DEFAULT) >= 0 && link.type == H5L_TYPE_HARD, Fault::checkpoint,
             path.string(), ": no group ", kGroup, " of its own");
  Handle group(H5Gopen2(file, kGroup, H5P_DEFAULT), H5Gclose);
  SY_REQUIRE(group >= 0, Fault::checkpoint, path.string(), ": H5Gopen: ", reason());
  return Hdf5File(std::make_unique<State>(path, std::move(file), std::move(group)));
}

void Hdf5File::write(const StoredSlice& slice, const Tensor& host, const Shape& global_shape) {
  const State& s = *state_;
  const hid_t type = type_of(host.dtype());
  const Handle space = s.space(slice.box.shape), creation = s.creation();
  const Handle dataset(
      s.need(H5Dcreate2(s.file, slice.dataset.c_str(), type, space, H5P_DEFAULT, creation, H5P_DEFAULT), "H5Dcreate",
             slice.dataset),
      H5Dclose);
  std::array<std::int64_t, Shape::kMaxRank> dims{};
  for (int i = 0; i < global_shape.rank(); ++i) dims[static_cast<std::size_t>(i)] = global_shape[i];
  s.attribute(dataset, "global_shape", dims.data(), global_shape.rank());
  s.attribute(dataset, "origin", slice.box.origin.data(), global_shape.rank());
  s.need(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, host.bytes()), "H5Dwrite", slice.dataset);
}

void Hdf5File::write_virtual(const StoredTensor& tensor) {
  const State& s = *state_;
  const std::string name = dataset_name(tensor.name);
  const Handle creation = s.creation(), whole = s.space(tensor.shape);
  for (const StoredSlice& slice : tensor.slices) {
    const Handle there = s.space(slice.box.shape);
    s.need(H5Sselect_hyperslab(whole, H5S_SELECT_SET, difference(slice.box.origin, {}).data(), nullptr,
                               extents(slice.box.shape).data(), nullptr),
           "H5Sselect_hyperslab", name);
    s.need(H5Pset_virtual(creation, whole, slice.file.c_str(), slice.dataset.c_str(), there), "H5Pset_virtual", name);
  }
  const Handle space = s.space(tensor.shape);
  const Handle dataset(
      s.need(H5Dcreate2(s.file, name.c_str(), type_of(tensor.dtype), space, H5P_DEFAULT, creation, H5P_DEFAULT),
             "H5Dcreate", name),
      H5Dclose);
}

void Hdf5File::read(const StoredSlice& slice, const Box& part, Tensor& into, const Box& region) {
  const State& s = *state_;
  const Handle dataset = s.ours(slice, into.dtype());
  const Handle from = s.space(slice.box.shape), to = s.space(region.shape);
  const Extents count = extents(part.shape);
  s.need(H5Sselect_hyperslab(from, H5S_SELECT_SET, difference(part.origin, slice.box.origin).data(), nullptr,
                             count.data(), nullptr),
         "H5Sselect_hyperslab", slice.dataset);
  s.need(H5Sselect_hyperslab(to, H5S_SELECT_SET, difference(part.origin, region.origin).data(), nullptr, count.data(),
                             nullptr),
         "H5Sselect_hyperslab", slice.dataset);
  s.need(H5Dread(dataset, type_of(into.dtype()), to, from, H5P_DEFAULT, into.bytes()), "H5Dread", slice.dataset);
}

void Hdf5File::close() {
  State& s = *state_;
  s.need(H5Gclose(s.group.release()), "H5Gclose");
  s.need(H5Fflush(s.file, H5F_SCOPE_LOCAL), "H5Fflush");
  s.need(H5Fclose(s.file.release()), "H5Fclose");
}

std::string dataset_name(const std::string& tensor, std::size_t n) {
  return text(kGroup, '/', tensor) + (n == 0 ? "" : text('@', n));
}

}  // namespace switchyard
