#include "checkpoint/manifest.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <span>

#include "checkpoint/disk.h"
#include "files/sha256.h"

namespace switchyard {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "switchyard checkpoint";
constexpr std::size_t kLongest = std::size_t{1} << 28;         // bytes of a manifest
constexpr std::int64_t kMostElements = std::int64_t{1} << 48;  // of a tensor, so that no later product overflows

// Each field of the state, once for both directions.
template <class State, class Field>
void describe(State& s, Field field) {
  field("step", s.step);
  field("tokens", s.tokens);
  field("optimizer_step", s.optimizer_step);
  field("seed", s.seed);
  field("data_position", s.data_position);
  field("configuration", s.configuration);
  field("tokenizer", s.tokenizer);
  field("tokenizer_sha256", s.tokenizer_sha256);
  field("code_version", s.code_version);
  field("world_size", s.world_size);
  field("layout", s.layout);
}

// Further fields, which are written where they are not the default, and may be missing.
template <class State, class Field>
void describe_further(State&& s, Field field) {
  field("balance_scale", s.balance_scale);
  field("alarm_streaks", s.alarm_streaks);
}

Json to_json(const Shape& shape) {
  Json dims = Json::array();
  for (int i = 0; i < shape.rank(); ++i) dims.push_back(shape[i]);
  return dims;
}

Json to_json(const StoredFile& file) { return {{"name", file.name}, {"bytes", file.bytes}, {"sha256", file.sha256}}; }

Json to_json(const StoredTensor& tensor) {
  Json slices = Json::array();
  for (const StoredSlice& slice : tensor.slices) {
    const auto& origin = slice.box.origin;
    slices.push_back({{"file", slice.file},
                      {"dataset", slice.dataset},
                      {"origin", std::vector(origin.begin(), origin.begin() + slice.box.shape.rank())},
                      {"shape", to_json(slice.box.shape)}});
  }
  Json json{{"name", tensor.name}, {"dtype", name_of(tensor.dtype)}, {"shape", to_json(tensor.shape)}};
  if (tensor.digest) json["digest"] = to_hex(*tensor.digest);
  json["slices"] = slices;
  return json;
}

const Json& member(const Json& json, const char* key) {
  const auto found = json.is_object() ? json.find(key) : json.end();
  SY_REQUIRE(json.is_object() && found != json.end(), Fault::checkpoint, "no field '", key, "'");
  return *found;
}

template <class T>
T get(const Json& json, const char* key) {
  const Json& value = member(json, key);
  if constexpr (std::is_same_v<T, std::string>) {
    SY_REQUIRE(value.is_string(), Fault::checkpoint, "field '", key, "' is not a string");
  } else if constexpr (std::is_same_v<T, double>) {
    SY_REQUIRE(value.is_number(), Fault::checkpoint, "field '", key, "' is not a number");
  } else if constexpr (std::is_same_v<T, std::map<std::string, std::int64_t>>) {
    SY_REQUIRE(value.is_object(), Fault::checkpoint, "field '", key, "' is not an object");
    T counts;
    for (const auto& item : value.items()) counts[item.key()] = get<std::int64_t>(value, item.key().c_str());
    return counts;
  } else if constexpr (std::is_unsigned_v<T>) {
    SY_REQUIRE(value.is_number_unsigned(), Fault::checkpoint, "field '", key, "' is not a natural number");
  } else {
    SY_REQUIRE(value.is_number_integer(), Fault::checkpoint, "field '", key, "' is not an integer");
    const auto wide = value.template get<std::int64_t>();
    SY_REQUIRE(std::in_range<T>(wide), Fault::checkpoint, "field '", key, "' is out of range: ", wide);
  }
  return value.template get<T>();
}

const Json& list(const Json& json, const char* key) {
  const Json& value = member(json, key);
  SY_REQUIRE(value.is_array(), Fault::checkpoint, "field '", key, "' is not a list");
  return value;
}

// A list of 1 to 4 integers from `least` on, as origin and shape have.
std::vector<std::int64_t> indices(const Json& json, const char* key, std::int64_t least) {
  std::vector<std::int64_t> values;
  for (const Json& value : list(json, key)) {
    SY_REQUIRE(value.is_number_integer() && value >= least && value <= kMostElements, Fault::checkpoint, "field '", key,
               "' holds ", value.dump());
    values.push_back(value.get<std::int64_t>());
  }
  SY_REQUIRE(!values.empty() && values.size() <= Shape::kMaxRank, Fault::checkpoint, "field '", key, "' has ",
             values.size(), " numbers, not 1 to ", Shape::kMaxRank);
  return values;
}

Shape shape_of(const Json& json) {
  const auto dims = indices(json, "shape", 1);
  std::int64_t elements = 1;
  for (std::int64_t dim : dims)
    SY_REQUIRE(!__builtin_mul_overflow(elements, dim, &elements) && elements <= kMostElements, Fault::checkpoint,
               "a tensor of more than 2^48 elements");
  switch (dims.size()) {
    case 1: return {dims[0]};
    case 2: return {dims[0], dims[1]};
    case 3: return {dims[0], dims[1], dims[2]};
    default: return {dims[0], dims[1], dims[2], dims[3]};
  }
}

DType dtype_of_name(const std::string& name) {
  for (DType dtype : {DType::f32, DType::i32, DType::i64, DType::u16, DType::u8})
    if (name == name_of(dtype)) return dtype;
  throw Error("dtype '" + name + "' is not one of f32, i32, i64, u16, u8", Fault::checkpoint);
}

StoredFile file_from(const Json& json) {
  const StoredFile file{get<std::string>(json, "name"), get<std::int64_t>(json, "bytes"),
                        get<std::string>(json, "sha256")};
  SY_REQUIRE(file.name.ends_with(".h5") && file.name.find('/') == std::string::npos && file.name[0] != '.',
             Fault::checkpoint, "file name '", file.name, "' is not one of a checkpoint");
  return file;
}

StoredTensor tensor_from(const Json& json) {
  StoredTensor tensor{
      get<std::string>(json, "name"), dtype_of_name(get<std::string>(json, "dtype")), shape_of(json), {}, {}};
  if (json.contains("digest")) {
    tensor.digest = digest_of_hex(get<std::string>(json, "digest"));
    SY_REQUIRE(tensor.digest, Fault::checkpoint, tensor.name, ": its digest is not 32 hexadecimal digits");
  }
  for (const Json& each : list(json, "slices")) {
    StoredSlice slice{get<std::string>(each, "file"), get<std::string>(each, "dataset"), {{}, shape_of(each)}};
    const auto origin = indices(each, "origin", 0);
    SY_REQUIRE(static_cast<int>(origin.size()) == slice.box.shape.rank(), Fault::checkpoint, tensor.name,
               ": a slice's origin and shape differ in length");
    std::ranges::copy(origin, slice.box.origin.begin());
    tensor.slices.push_back(std::move(slice));
  }
  return tensor;
}

// Slices partition their tensor and lie in files that the manifest lists; names are unique.
void require_sound(const Checkpoint& checkpoint) {
  std::set<std::string> files, names;
  for (const StoredFile& file : checkpoint.files)
    SY_REQUIRE(files.insert(file.name).second, Fault::checkpoint, "file '", file.name, "' is listed twice");
  for (const StoredTensor& tensor : checkpoint.tensors) {
    SY_REQUIRE(names.insert(tensor.name).second, Fault::checkpoint, "tensor '", tensor.name, "' is listed twice");
    std::vector<Box> boxes;
    for (const StoredSlice& slice : tensor.slices) {
      SY_REQUIRE(files.contains(slice.file), Fault::checkpoint, tensor.name, ": its file '", slice.file,
                 "' is not listed");
      boxes.push_back(slice.box);
    }
    const std::string problem = partition_problem(tensor.shape, boxes);
    SY_REQUIRE(problem.empty(), Fault::checkpoint, tensor.name, ": ", problem);
  }
}

template <class Items>
std::string lines(const Items& items) {
  std::string text = "[";
  for (const auto& item : items) text += (text.size() > 1 ? ",\n  " : "\n  ") + to_json(item).dump();
  return text + "\n ]";
}

}  // namespace

std::string to_manifest(const Checkpoint& checkpoint) {
  require_sound(checkpoint);
  Json state;
  describe(checkpoint.state, [&](const char* name, const auto& value) { state[name] = value; });
  Json defaults;
  describe_further(TrainingState{}, [&](const char* name, const auto& value) { defaults[name] = value; });
  describe_further(checkpoint.state, [&](const char* name, const auto& value) {
    if (Json(value) != defaults[name]) state[name] = value;
  });
  return text("{\n \"format\": ", Json(kFormat).dump(), ",\n \"version\": ", kCheckpointVersion,
              ",\n \"state\": ", state.dump(), ",\n \"files\": ", lines(checkpoint.files),
              ",\n \"tensors\": ", lines(checkpoint.tensors), "\n}\n");
}

Checkpoint from_manifest(const std::string& manifest, const std::filesystem::path& path) {
  try {
    const Json json = Json::parse(manifest);
    SY_REQUIRE(get<std::string>(json, "format") == kFormat, Fault::checkpoint, "not the manifest of a checkpoint");
    const int version = get<int>(json, "version");
    SY_REQUIRE(kOldestCheckpointVersion <= version && version <= kCheckpointVersion, Fault::checkpoint,
               "format version ", version, " is unknown; this program reads versions ", kOldestCheckpointVersion,
               " to ", kCheckpointVersion);
    Checkpoint checkpoint{path, {}, {}, {}};
    const Json& state = member(json, "state");
    describe(checkpoint.state,
             [&](const char* name, auto& value) { value = get<std::remove_cvref_t<decltype(value)>>(state, name); });
    describe_further(checkpoint.state, [&](const char* name, auto& value) {
      if (state.contains(name)) value = get<std::remove_cvref_t<decltype(value)>>(state, name);
    });
    for (const Json& file : list(json, "files")) checkpoint.files.push_back(file_from(file));
    for (const Json& each : list(json, "tensors")) {
      checkpoint.tensors.push_back(tensor_from(each));
      const StoredTensor& tensor = checkpoint.tensors.back();
      SY_REQUIRE(version == 1 || tensor.digest, Fault::checkpoint, tensor.name, ": no field 'digest'");
    }
    require_sound(checkpoint);
    return checkpoint;
  } catch (const Json::exception& error) {
    throw Error(text("manifest.json: ", error.what()), Fault::checkpoint);
  } catch (const Error& error) {
    throw Error(text("manifest.json: ", error.what()), Fault::checkpoint);
  }
}

std::string to_sums(const Checkpoint& checkpoint, const std::string& manifest) {
  std::string sums;
  for (const StoredFile& file : checkpoint.files) sums += file.sha256 + "  " + file.name + "\n";
  return sums + sha256(manifest) + "  manifest.json\n";
}

std::string read_manifest(const std::filesystem::path& path) {
  const std::string manifest = read_text(path / "manifest.json", kLongest);
  const std::string sums = read_text(path / "SHA256SUMS", kLongest);
  const std::string hash = sha256(manifest);
  SY_REQUIRE(sums.ends_with(hash + "  manifest.json\n"), Fault::checkpoint, "manifest.json: its SHA-256 ",
             hash.substr(0, 12), "… is not the one in SHA256SUMS");
  SY_REQUIRE(sums == to_sums(from_manifest(manifest, path), manifest), Fault::checkpoint,
             "SHA256SUMS: differs from manifest.json");
  return manifest;
}

std::string to_text(const StoredFile& file, const std::map<std::string, StoredTensor>& held) {
  Json all = Json::array();
  for (const auto& [name, tensor] : held) all.push_back(to_json(tensor));
  return Json{{"file", to_json(file)}, {"tensors", all}}.dump();
}

void merge(Checkpoint& checkpoint, const std::vector<std::string>& texts_of_ranks) {
  std::map<std::string, StoredTensor> tensors;
  for (const std::string& text : texts_of_ranks) {
    const Json json = Json::parse(text);
    checkpoint.files.push_back(file_from(member(json, "file")));
    for (const Json& each : list(json, "tensors")) {
      StoredTensor tensor = tensor_from(each);
      StoredTensor& whole =
          tensors.try_emplace(tensor.name, StoredTensor{tensor.name, tensor.dtype, tensor.shape, {}, Digest{}})
              .first->second;
      SY_CHECK(whole.dtype == tensor.dtype && whole.shape == tensor.shape, tensor.name, " is ", whole.dtype, ' ',
               whole.shape, " on one rank and ", tensor.dtype, ' ', tensor.shape, " on another");
      std::ranges::move(tensor.slices, std::back_inserter(whole.slices));
      *whole.digest += tensor.digest.value();
    }
  }
  for (auto& [name, tensor] : tensors) checkpoint.tensors.push_back(std::move(tensor));
}

}  // namespace switchyard
