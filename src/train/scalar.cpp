#include "train/scalar.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "tensor/error.h"
#include "train/spelling.h"

namespace switchyard {

namespace {

using Kind = YamlNode::Kind;

constexpr std::size_t longest_shown = 60;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string without_sign(const std::string& word) {
  return !word.empty() && (word[0] == '+' || word[0] == '-') ? word.substr(1) : word;
}

bool has_leading_zero(const std::string& word) {
  const std::string digits = without_sign(word);
  return digits.size() > 1 && digits[0] == '0' && is_digit(digits[1]);
}

// from_chars over the whole word, which alone knows no plus sign.
template <class T>
std::optional<T> from_text(const std::string& word) {
  T value{};
  const char* begin = word.data() + (word.starts_with('+') ? 1 : 0);
  const char* end = word.data() + word.size();
  const auto [stop, error] = std::from_chars(begin, end, value);
  return error == std::errc{} && stop == end ? std::optional(value) : std::nullopt;
}

template <class T>
std::optional<T> parse_integer(const std::string& word) {
  const std::string digits = without_sign(word);
  if (digits.empty() || !std::ranges::all_of(digits, is_digit) || has_leading_zero(word)) return std::nullopt;
  return from_text<T>(word);
}

std::optional<double> parse_number(const std::string& word) {
  const std::string digits = without_sign(word);
  if (digits.empty() || (!is_digit(digits[0]) && digits[0] != '.') || has_leading_zero(word)) return std::nullopt;
  return from_text<double>(word);  // refuses what is beyond a double
}

template <class T>
bool is_within(const std::optional<Field::Range>& range, T value) {
  return !range || (static_cast<double>(value) >= range->low && static_cast<double>(value) <= range->high);
}

std::string wanted(const Field& field) {
  const std::string range = field.range_text();
  if (std::holds_alternative<Choice>(field.value)) return range;
  if (std::holds_alternative<bool*>(field.value)) return "true or false";
  if (std::holds_alternative<std::string*>(field.value)) return "text";
  if (std::holds_alternative<std::vector<std::int64_t>*>(field.value)) return "a list of integers such as [1, 3]";
  const std::string kind = field.is_integer() ? "an integer" : "a number";
  return range.empty() ? kind : kind + " from " + range;
}

// What to write instead, where that can be told from what came.
std::string hint(const Field& field, const YamlNode& node) {
  const bool is_number = field.is_integer() || field.type_text() == "number";
  if (node.kind == Kind::quoted && is_number && parse_number(node.text)) return " (remove the quotes)";
  if (is_number && has_leading_zero(node.text)) return " (remove the leading zeros)";
  if (const auto* choice = std::get_if<Choice>(&field.value)) {
    const auto meant = nearest(node.text, choice->names);
    return meant ? "; did you mean " + *meant + "?" : "";
  }
  if (std::holds_alternative<bool*>(field.value)) {
    static const std::vector<std::string> yes{"yes", "Yes", "YES", "on", "On", "ON", "y", "Y", "1", "True", "TRUE"};
    static const std::vector<std::string> no{"no", "No", "NO", "off", "Off", "OFF", "n", "N", "0", "False", "FALSE"};
    if (node.text == "true" || node.text == "false") return " (remove the quotes)";
    if (std::ranges::find(yes, node.text) != yes.end()) return " (write true)";
    if (std::ranges::find(no, node.text) != no.end()) return " (write false)";
  }
  return "";
}

Finding mismatch(const Field& field, const YamlNode& node) {
  return {node.place, text("wanted ", wanted(field), ", came ", shown(node), hint(field, node))};
}

// One overload a kind of value: true if `node` is such a value, in range, and was written.
struct Assignment {
  const Field& field;
  const YamlNode& node;

  template <class T>
  bool write(T* target, const std::optional<T>& value) const {
    if (node.kind != Kind::plain || !value || !is_within(field.range, *value)) return false;
    *target = *value;
    return true;
  }

  bool operator()(bool* target) const {
    if (node.kind != Kind::plain || (node.text != "true" && node.text != "false")) return false;
    *target = node.text == "true";
    return true;
  }
  bool operator()(int* target) const { return write(target, parse_integer<int>(node.text)); }
  bool operator()(std::int64_t* target) const { return write(target, parse_integer<std::int64_t>(node.text)); }
  bool operator()(std::uint64_t* target) const { return write(target, parse_integer<std::uint64_t>(node.text)); }
  bool operator()(double* target) const { return write(target, parse_number(node.text)); }
  bool operator()(std::optional<double>* target) const {
    if (node.kind == Kind::null) return target->reset(), true;
    double value = 0;
    return write(&value, parse_number(node.text)) && (*target = value, true);
  }
  bool operator()(std::string* target) const {
    if (node.kind != Kind::plain && node.kind != Kind::quoted) return false;
    *target = node.text;
    return true;
  }
  bool operator()(const Choice& choice) const {
    const auto name = std::ranges::find(choice.names, node.text);
    if ((node.kind != Kind::plain && node.kind != Kind::quoted) || name == choice.names.end()) return false;
    choice.set(static_cast<std::size_t>(name - choice.names.begin()));
    return true;
  }
  bool operator()(std::vector<std::int64_t>*) const { return false; }
  bool operator()(const SectionList&) const { return false; }
};

bool is_plain_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '/' || c == '.';
}

// Plain where no reader could take it for anything but text, else in double quotes.
std::string quoted(const std::string& text) {
  const auto is_inner = [](char c) { return is_plain_letter(c) || (c >= '0' && c <= '9') || c == '-'; };
  const bool has_letter = std::ranges::any_of(text, [](char c) { return is_plain_letter(c) && c != '.'; });
  static const std::vector<std::string> words{"null", "true", "false", "yes", "no", "on", "off", "y", "n"};
  std::string lower = text;
  for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  const bool is_word = std::ranges::find(words, lower) != words.end() || lower == ".inf" || lower == ".nan";
  if (has_letter && !is_word && is_plain_letter(text[0]) && std::ranges::all_of(text, is_inner)) return text;

  static const char* const hex = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      out += std::string("\\") + c;
    else if (byte < 0x20 || byte == 0x7F)
      out += std::string("\\x") + hex[byte >> 4] + hex[byte & 15];
    else
      out += c;
  }
  return out + "\"";
}

// One overload a kind of value: how YAML writes it.
struct ValueText {
  std::string operator()(const bool* value) const { return *value ? "true" : "false"; }
  std::string operator()(const int* value) const { return std::to_string(*value); }
  std::string operator()(const std::int64_t* value) const { return std::to_string(*value); }
  std::string operator()(const std::uint64_t* value) const { return std::to_string(*value); }
  std::string operator()(const double* value) const { return number_text(*value); }
  std::string operator()(const std::optional<double>* value) const { return *value ? number_text(**value) : "null"; }
  std::string operator()(const std::string* value) const { return quoted(*value); }
  std::string operator()(const Choice& choice) const { return choice.names[choice.get()]; }
  std::string operator()(const std::vector<std::int64_t>* values) const {
    std::string items;
    for (const std::int64_t value : *values) items += text(items.empty() ? "" : ", ", value);
    return "[" + items + "]";
  }
  // Of each item what differs from the defaults, on one line.
  std::string operator()(const SectionList& list) const {
    std::string sections;
    for (const Section& item : list.items()) {
      std::string keys;
      for (const Field* field : unlike_default(list, item))
        keys += text(keys.empty() ? "" : ", ", field->name, ": ", value_text(*field));
      sections += text(sections.empty() ? "" : ", ", "{", keys, "}");
    }
    return "[" + sections + "]";
  }
};

}  // namespace

std::optional<Finding> assign(const Field& field, const YamlNode& node) {
  if (std::visit(Assignment{field, node}, field.value)) return std::nullopt;
  return mismatch(field, node);
}

std::vector<const Field*> unlike_default(const SectionList& list, const Section& item) {
  std::vector<const Field*> fields;
  list.with_default([&](const Section& section) {
    for (std::size_t i = 0; i < item.fields.size(); ++i)
      if (item.fields[i].is_required || value_text(item.fields[i]) != value_text(section.fields[i]))
        fields.push_back(&item.fields[i]);
  });
  return fields;
}

std::string value_text(const Field& field) { return std::visit(ValueText{}, field.value); }

std::string shown(const std::string& text) {
  std::string line;
  for (const char c : text) line += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? ' ' : c;
  if (line.size() <= longest_shown) return line;
  std::size_t cut = longest_shown;
  while (cut > 0 && (static_cast<unsigned char>(line[cut]) & 0xC0) == 0x80) --cut;  // not within a UTF-8 character
  return line.substr(0, cut) + "...";
}

std::string shown(const YamlNode& node) {
  switch (node.kind) {
    case Kind::null: return "nothing";
    case Kind::plain: return shown(node.text);
    case Kind::quoted: return "\"" + shown(node.text) + "\"";
    case Kind::list: return "a list";
    case Kind::map: return "a section";
  }
  return "";
}

}  // namespace switchyard
