#include "train/config_reader.h"

#include <algorithm>
#include <map>
#include <set>

#include "tensor/error.h"
#include "train/key_index.h"
#include "train/scalar.h"
#include "train/yaml.h"

namespace switchyard {

namespace {

using Kind = YamlNode::Kind;

constexpr std::size_t most_reported = 50;

class Reader {
 public:
  explicit Reader(const Section& table) : table_(table), index_(table_) {}

  // The file, then the overrides, later ones winning.
  void read(const std::string& yaml_text, const std::vector<std::string>& overrides) {
    read_file(yaml_text);
    for (std::size_t i = 0; i < overrides.size(); ++i) read_override(overrides[i], static_cast<int>(i) + 1);
  }

  void read_file(const std::string& yaml_text) {
    const std::optional<YamlNode> root = parse_yaml(yaml_text, 0, findings_);
    is_file_read_ = root && root->kind == Kind::map;
    if (is_file_read_)
      read_section(table_, *root, "");
    else if (root && root->kind == Kind::null)
      findings_.push_back({{0, 1, 1}, text("the file is empty; wanted ", contents())});
    else if (root)
      findings_.push_back({root->place, text("wanted ", contents(), ", came ", shown(*root))});
  }

  void read_override(const std::string& assignment, int source) {
    const std::size_t equals = assignment.find('=');
    std::vector<std::string> names{""};
    for (const char c : assignment.substr(0, equals)) {
      if (c == '.')
        names.emplace_back();
      else
        names.back() += c;
    }
    const bool has_gap = std::ranges::any_of(names, &std::string::empty);
    if (equals == std::string::npos || has_gap || names.size() > deepest_key) {
      findings_.push_back({{source, 0, 0}, "wanted section.key=value"});
      return;
    }
    std::optional<YamlNode> node = parse_yaml(assignment.substr(equals + 1), source, findings_);
    if (!node) bad_.insert(assignment.substr(0, equals));
    for (auto name = names.rbegin(); node && name != names.rend(); ++name) {
      YamlNode key{Kind::plain, {source, 0, 0}, *name, {}, {}};
      YamlNode map{Kind::map, {source, 0, 0}, {}, {}, {}};
      map.keys.push_back(std::move(key));
      map.items.push_back(std::move(*node));
      node = std::move(map);
    }
    if (node) read_section(table_, *node, "");
  }

  // Rules see only values that were read well: one mistake gives one line.
  void check_rules(const std::function<std::vector<Violation>()>& rules) {
    if (!is_file_read_) return;
    for (const auto& [key, place] : missing_) report(place, key, "is missing");
    for (const Violation& violation : rules()) {
      if (std::ranges::any_of(violation.keys, [&](const std::string& key) { return is_bad(key); })) continue;
      const std::string* latest = &violation.keys.front();
      for (const std::string& key : violation.keys)
        if (place_of(key).source > place_of(*latest).source || place_of(*latest) == Place{}) latest = &key;
      findings_.push_back({place_of(*latest), text(*latest, ": ", violation.what)});
    }
  }

  std::vector<Finding> findings() && {
    std::ranges::stable_sort(findings_, {}, &Finding::place);
    return std::move(findings_);
  }

 private:
  static constexpr std::size_t deepest_key = 8;

  // What a file has at its top: "sections such as run and model".
  std::string contents() const {
    return table_.sections.empty()
               ? text("keys such as ", table_.fields.at(0).name, " and ", table_.fields.at(1).name)
               : text("sections such as ", table_.sections.at(0).name, " and ", table_.sections.at(1).name);
  }

  void report(Place place, const std::string& path, const std::string& what) {
    bad_.insert(path);
    findings_.push_back({place, text(path, ": ", what)});
  }

  bool is_bad(const std::string& path) const {
    for (std::size_t end = path.find_first_of(".["); end != std::string::npos; end = path.find_first_of(".[", end + 1))
      if (bad_.contains(path.substr(0, end))) return true;
    const auto at_or_below = bad_.lower_bound(path);
    return at_or_below != bad_.end() && at_or_below->starts_with(path);
  }

  Place place_of(const std::string& key) const {
    const auto known = places_.find(key);
    return known == places_.end() ? Place{} : known->second;
  }

  void read_section(const Section& section, const YamlNode& map, const std::string& path) {
    std::map<std::string, Place> seen;
    for (std::size_t i = 0; i < map.keys.size(); ++i) {
      const YamlNode& key = map.keys[i];
      const std::string key_at = key_path(path, shown(key.text));
      if (const auto [first, is_new] = seen.emplace(key.text, key.place); !is_new) {
        const Place at = first->second;
        report(key.place, key_at, at.source == 0 ? text("repeated; first on line ", at.line) : "repeated");
        continue;
      }
      const auto field = std::ranges::find(section.fields, key.text, &Field::name);
      const auto inner = std::ranges::find(section.sections, key.text, &Section::name);
      if (field != section.fields.end())
        read_field(*field, map.items[i], key_at);
      else if (inner == section.sections.end())
        report_unknown(section, key, path);
      else if (map.items[i].kind == Kind::map)
        read_section(*inner, map.items[i], key_at);
      else if (map.items[i].kind == Kind::null)
        report(map.items[i].place, key_at, "nothing below it; write its keys, or leave the section out");
      else
        report(map.items[i].place, key_at, text("wanted a section with its keys, came ", shown(map.items[i])));
    }
    for (const Field& field : section.fields)
      if (field.is_required && !places_.contains(key_path(path, field.name)))
        missing_.emplace(key_path(path, field.name), map.place);
  }

  void read_field(const Field& field, const YamlNode& node, const std::string& path) {
    places_[path] = node.place;
    missing_.erase(path);
    if (const auto* list = std::get_if<SectionList>(&field.value)) return read_sections(*list, node, path);
    if (auto* integers = std::get_if<std::vector<std::int64_t>*>(&field.value); integers && node.kind == Kind::list) {
      std::vector<std::int64_t> values(node.items.size());
      for (std::size_t i = 0; i < values.size(); ++i)
        read_field(Field{"", "", &values[i]}, node.items[i], text(path, "[", i, "]"));
      **integers = std::move(values);
      return;
    }
    if (const auto wrong = assign(field, node)) report(wrong->place, path, wrong->what);
  }

  void read_sections(const SectionList& list, const YamlNode& node, const std::string& path) {
    std::string form;
    list.with_default([&](const Section& section) {
      for (const Field& field : section.fields) form += text(form.empty() ? "{" : ", ", field.name, ": ...");
      form += "}";
    });
    if (node.kind != Kind::list)
      return report(node.place, path, text("wanted a list such as [", form, "], came ", shown(node)));
    list.resize(node.items.size());
    forget_items(path);
    const std::vector<Section> items = list.items();
    for (std::size_t i = 0; i < items.size(); ++i) {
      const std::string item_at = text(path, "[", i, "]");
      if (node.items[i].kind == Kind::map)
        read_section(items[i], node.items[i], item_at);
      else
        report(node.items[i].place, item_at, text("wanted ", form, ", came ", shown(node.items[i])));
    }
  }

  // A list is replaced as a whole: what was known of the items before it is void.
  void forget_items(const std::string& path) {
    const auto is_item = [&](const auto& entry) { return entry.first.starts_with(path + "["); };
    std::erase_if(places_, is_item);
    std::erase_if(missing_, is_item);
  }

  void report_unknown(const Section& section, const YamlNode& key, const std::string& path) {
    std::string what = "unknown key";
    if (findings_.size() < most_reported) {
      const KeyIndex::Advice advice = index_.advice(section, path, key.text);
      what += "; " + advice.text;
      if (advice.meant) bad_.insert(key_path(path, *advice.meant));
    }
    report(key.place, key_path(path, shown(key.text)), what);
  }

  const Section& table_;
  KeyIndex index_;
  bool is_file_read_ = false;
  std::vector<Finding> findings_;
  std::map<std::string, Place> places_;   // of each key's value, the last where there are several
  std::map<std::string, Place> missing_;  // required keys that no text has given yet, and where they should stand
  std::set<std::string> bad_;             // keys already reported
};

std::string place_text(Place place, const std::string& file_name, const std::vector<std::string>& overrides) {
  if (place.source > 0) return "command line: " + shown(overrides[static_cast<std::size_t>(place.source) - 1]);
  return place.line == 0 ? file_name : text(file_name, ":", place.line, ":", place.column);
}

}  // namespace

void read_fields(const Section& table, const std::string& yaml_text, const std::string& file_name,
                 const std::vector<std::string>& overrides, const std::function<std::vector<Violation>()>& rules) {
  Reader reader(table);
  reader.read(yaml_text, overrides);
  reader.check_rules(rules);

  const std::vector<Finding> findings = std::move(reader).findings();
  if (findings.empty()) return;
  std::string lines;
  for (std::size_t i = 0; i < std::min(findings.size(), most_reported); ++i)
    lines += text(i == 0 ? "" : "\n", place_text(findings[i].place, file_name, overrides), ": ", findings[i].what);
  if (findings.size() > most_reported) lines += text("\n", findings.size() - most_reported, " more like these");
  throw Error(lines, Fault::usage);
}

namespace {

// The configuration that the texts change: its router and its optimizer are of the kinds which they name.
Config defaults_for(const std::string& yaml_text, const std::vector<std::string>& overrides) {
  Config named, defaults;
  const Section table = describe(named);
  Reader(table).read(yaml_text, overrides);
  defaults.moe.router = router_preset(named.moe.router.kind);
  defaults.optim = optim_preset(named.optim.kind);
  return defaults;
}

}  // namespace

Config read_config(const std::string& yaml_text, const std::string& file_name,
                   const std::vector<std::string>& overrides) {
  Config config = defaults_for(yaml_text, overrides);
  read_fields(describe(config), yaml_text, file_name, overrides, [&config] { return violations(config); });
  return config;
}

}  // namespace switchyard
