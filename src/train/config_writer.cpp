#include "train/config_writer.h"

#include <algorithm>

#include "tensor/error.h"
#include "train/fields.h"
#include "train/scalar.h"

namespace switchyard {

namespace {

constexpr std::size_t widest_aligned = 40;

struct Line {
  std::string yaml, comment;
};

std::string comment_of(const Field& field) {
  const std::string range = field.range_text();
  std::string comment = range.empty() ? field.help : text(field.help, " [", range, "]");
  if (const auto* list = std::get_if<SectionList>(&field.value))
    list->with_default([&](const Section& item) {
      std::string form;
      for (const Field& inner : item.fields)
        form += text(form.empty() ? "" : ", ", inner.name, ": ", inner.type_text());
      comment += ": [{" + form + "}]";
    });
  return comment;
}

std::vector<Line> lines_of(const Section& section, const std::string& indent) {
  std::vector<Line> lines;
  for (const Field& field : section.fields) {
    const auto* list = std::get_if<SectionList>(&field.value);
    const std::vector<Section> items = list ? list->items() : std::vector<Section>{};
    const std::string value = items.empty() ? " " + value_text(field) : "";
    lines.push_back({indent + field.name + ":" + value, comment_of(field)});
    for (const Section& item : items) {
      std::string lead = indent + "  - ";
      for (const Field& inner : item.fields) {
        lines.push_back({lead + inner.name + ": " + value_text(inner), ""});
        lead = indent + "    ";
      }
    }
  }
  return lines;
}

void write_section(const Section& section, const std::string& indent, Comments comments, std::string& out) {
  const std::vector<Line> lines = lines_of(section, indent);
  std::size_t column = 0;
  for (const Line& line : lines)
    if (line.yaml.size() <= widest_aligned) column = std::max(column, line.yaml.size());
  for (const Line& line : lines) {
    out += line.yaml;
    if (comments == Comments::yes && !line.comment.empty())
      out += std::string(std::max(column, line.yaml.size()) - line.yaml.size() + 2, ' ') + "# " + line.comment;
    out += "\n";
  }
  for (const Section& inner : section.sections) {
    if (indent.empty() && !out.empty()) out += "\n";
    out += indent + inner.name + ":" + (comments == Comments::yes ? "  # " + inner.help : "") + "\n";
    write_section(inner, indent + "  ", comments, out);
  }
}

}  // namespace

std::string write_config(const Config& config, Comments comments) {
  Config copy = config;  // a table points into what can be written
  std::string out;
  write_section(describe(copy), "", comments, out);
  return out;
}

}  // namespace switchyard
