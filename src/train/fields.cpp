#include "train/fields.h"

#include <charconv>
#include <cmath>

#include "tensor/error.h"

namespace switchyard {

namespace {

std::string bound_text(double bound) {
  if (bound == std::floor(bound) && std::abs(bound) < 1e15) return std::to_string(static_cast<std::int64_t>(bound));
  return number_text(bound);
}

template <class T>
constexpr bool is_one_of(const Field::Value& value) {
  return std::holds_alternative<T>(value);
}

}  // namespace

bool Field::is_integer() const {
  return is_one_of<int*>(value) || is_one_of<std::int64_t*>(value) || is_one_of<std::uint64_t*>(value);
}

std::string Field::type_text() const {
  if (is_integer()) return "integer";
  if (is_one_of<bool*>(value)) return "true or false";
  if (is_one_of<double*>(value) || is_one_of<std::optional<double>*>(value)) return "number";
  if (is_one_of<std::string*>(value)) return "text";
  if (is_one_of<Choice>(value)) return "name";
  if (is_one_of<SectionList>(value)) return "list of sections";
  return "list of integers";
}

std::string Field::range_text() const {
  if (const auto* choice = std::get_if<Choice>(&value)) return alternatives(choice->names);
  if (range) return text(bound_text(range->low), " to ", bound_text(range->high));
  if (is_one_of<std::uint64_t*>(value)) return "0 to 2^64 - 1";
  return {};
}

std::string key_path(const std::string& section, const std::string& name) {
  return section.empty() ? name : section + "." + name;
}

std::string number_text(double value) {
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  std::string number(digits, end);
  if (!std::isfinite(value) || number.find('.') != std::string::npos) return number;
  return number.insert(std::min(number.find('e'), number.size()), ".0");
}

std::string alternatives(const std::vector<std::string>& names) {
  std::string joined;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i > 0) joined += i + 1 == names.size() ? " or " : ", ";
    joined += names[i];
  }
  return joined;
}

}  // namespace switchyard
