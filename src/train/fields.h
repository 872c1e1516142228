#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace switchyard {

struct Section;

// A field whose values are names, by their place among `names`.
struct Choice {
  std::vector<std::string> names;
  std::function<std::size_t()> get;
  std::function<void(std::size_t)> set;
};

// A field that holds any number of sections of one kind.
struct SectionList {
  std::function<void(std::size_t)> resize;
  std::function<std::vector<Section>()> items;
  std::function<void(const std::function<void(const Section&)>&)> with_default;  // lends one with the defaults
};

struct Field {
  using Value = std::variant<bool*, int*, std::int64_t*, std::uint64_t*, double*, std::optional<double>*, std::string*,
                             std::vector<std::int64_t>*, Choice, SectionList>;
  struct Range {
    double low, high;  // both allowed
  };

  std::string name;
  std::string help;
  Value value;
  std::optional<Range> range = std::nullopt;
  bool is_required = false;

  Field& between(double low, double high) { return range = Range{low, high}, *this; }
  Field& required() { return is_required = true, *this; }

  bool is_integer() const;
  std::string type_text() const;   // "integer", "number", "list of sections"
  std::string range_text() const;  // "1 to 4096", "fp32 or bf16", or nothing
};

// The table of what one struct declares in its describe(): reading, writing, the schema and the reference all walk it.
// It points into the struct, which must stay where it is as long as the table is used.
struct Section {
  std::string name;
  std::string help;
  std::vector<Field> fields;
  std::vector<Section> sections;

  template <class T>
  Field& field(std::string field_name, T& value, std::string field_help) {
    return fields.emplace_back(Field{std::move(field_name), std::move(field_help), &value});
  }

  template <class Enum>
  Field& choice(std::string field_name, Enum& value, std::string field_help,
                std::initializer_list<std::pair<const char*, std::type_identity_t<Enum>>> choices) {
    Choice choice;
    std::vector<Enum> values;
    for (const auto& [value_name, enumerator] : choices) {
      choice.names.emplace_back(value_name);
      values.push_back(enumerator);
    }
    choice.get = [values, &value] {
      std::size_t i = 0;
      while (i + 1 < values.size() && values[i] != value) ++i;
      return i;
    };
    choice.set = [values, &value](std::size_t i) { value = values[i]; };
    return fields.emplace_back(Field{std::move(field_name), std::move(field_help), std::move(choice)});
  }

  // A place among names that are not an enumeration's.
  Field& choice(std::string field_name, std::size_t& value, std::string field_help, std::vector<std::string> names) {
    Choice choice{std::move(names), [&value] { return value; }, [&value](std::size_t i) { value = i; }};
    return fields.emplace_back(Field{std::move(field_name), std::move(field_help), std::move(choice)});
  }

  template <class T>
  Field& list(std::string field_name, std::vector<T>& values, std::string field_help);

  template <class T>
  void section(std::string section_name, T& value, std::string section_help);
};

template <class T>
Section describe(T& value, std::string name = {}, std::string help = {}) {
  Section section{std::move(name), std::move(help), {}, {}};
  value.describe(section);
  return section;
}

template <class T>
Field& Section::list(std::string field_name, std::vector<T>& values, std::string field_help) {
  SectionList list;
  list.resize = [&values](std::size_t n) { values.assign(n, T{}); };
  list.items = [&values] {
    std::vector<Section> items;
    for (T& value : values) items.push_back(switchyard::describe(value));
    return items;
  };
  list.with_default = [](const std::function<void(const Section&)>& borrow) {
    T value;
    borrow(switchyard::describe(value));
  };
  return fields.emplace_back(Field{std::move(field_name), std::move(field_help), std::move(list)});
}

template <class T>
void Section::section(std::string section_name, T& value, std::string section_help) {
  sections.push_back(switchyard::describe(value, std::move(section_name), std::move(section_help)));
}

// "model" and "d_ff" make "model.d_ff".
std::string key_path(const std::string& section, const std::string& name);

// The shortest decimal text that reads back as the same double, with a point: "0.003", "1.0", "1.0e-08".
std::string number_text(double value);

// "a", "a or b", "a, b or c".
std::string alternatives(const std::vector<std::string>& names);

}  // namespace switchyard
