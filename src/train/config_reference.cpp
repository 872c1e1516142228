#include "train/config_reference.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "tensor/error.h"
#include "train/config.h"
#include "train/exit_code.h"
#include "train/fields.h"
#include "train/scalar.h"

namespace switchyard {

namespace {

using Json = nlohmann::ordered_json;

Json section_schema(const Section& section);

// What the schema says of a field beyond its help: one overload a kind of value.
struct FieldSchema {
  const Field& field;

  Json operator()(const bool* value) const { return {{"type", "boolean"}, {"default", *value}}; }
  Json operator()(const std::string* value) const { return {{"type", "string"}, {"default", *value}}; }
  Json operator()(const double* value) const { return with_range({{"type", "number"}, {"default", *value}}); }
  Json operator()(const std::optional<double>* value) const {
    return with_range({{"type", {"number", "null"}}, {"default", *value ? Json(**value) : Json()}});
  }
  template <class Integer>
  Json operator()(const Integer* value) const {
    Json schema{{"type", "integer"}, {"default", *value}};
    if (field.range) {
      schema["minimum"] = static_cast<std::int64_t>(field.range->low);
      schema["maximum"] = static_cast<std::int64_t>(field.range->high);
    } else {
      schema["minimum"] = std::numeric_limits<Integer>::min();
      schema["maximum"] = std::numeric_limits<Integer>::max();
    }
    return schema;
  }
  Json operator()(const std::vector<std::int64_t>* values) const {
    return {{"type", "array"}, {"items", {{"type", "integer"}}}, {"default", *values}};
  }
  Json operator()(const Choice& choice) const {
    return {{"enum", choice.names}, {"default", choice.names[choice.get()]}};
  }
  Json operator()(const SectionList& list) const {
    Json schema{{"type", "array"}};
    list.with_default([&](const Section& item) { schema["items"] = section_schema(item); });
    schema["default"] = Json::array();
    for (const Section& item : list.items()) {
      Json keys = Json::object();
      for (const Field* unlike : unlike_default(list, item))
        keys[unlike->name] = std::visit(FieldSchema{*unlike}, unlike->value)["default"];
      schema["default"].push_back(std::move(keys));
    }
    return schema;
  }

  Json with_range(Json schema) const {
    if (field.range) {
      schema["minimum"] = field.range->low;
      schema["maximum"] = field.range->high;
    }
    return schema;
  }
};

Json section_schema(const Section& section) {
  Json properties = Json::object(), required = Json::array();
  for (const Field& field : section.fields) {
    Json schema = std::visit(FieldSchema{field}, field.value);
    schema["description"] = field.help;
    if (field.is_required) {
      schema.erase("default");
      required.push_back(field.name);
    }
    properties[field.name] = std::move(schema);
  }
  for (const Section& inner : section.sections) {
    properties[inner.name] = section_schema(inner);
    properties[inner.name]["description"] = inner.help;
  }
  Json schema{{"type", "object"}, {"additionalProperties", false}, {"properties", std::move(properties)}};
  if (!required.empty()) schema["required"] = std::move(required);
  return schema;
}

void add_rows(const Section& section, const std::string& path, std::string& out) {
  for (const Field& field : section.fields) {
    const std::string key = key_path(path, field.name);
    const std::string value = field.is_required ? "required" : "`" + value_text(field) + "`";
    out +=
        text("| `", key, "` | ", field.type_text(), " | ", value, " | ", field.range_text(), " | ", field.help, " |\n");
    if (const auto* list = std::get_if<SectionList>(&field.value))
      list->with_default([&](const Section& item) { add_rows(item, key + "[i]", out); });
  }
  for (const Section& inner : section.sections) add_rows(inner, key_path(path, inner.name), out);
}

const char* const introduction = R"(# Configuration

<!-- Written by `switchyard config --reference`; a test keeps it equal to what the program reads. -->

A run is one YAML file. Every key is optional but those marked required, so a file says only what differs from the
defaults below; `switchyard config` prints them all, and `config.yaml` in a run's folder shows what it really used. An
override on the command line, `section.key=value`, wins over the file; its value is written as in YAML:

    switchyard train configs/quickstart.yaml train.steps=200 optim.schedule.kind=wsd moe.layers='[1, 3]'

A list is replaced as a whole. Values are strict: an integer is plain decimal digits, a boolean is `true` or `false`. An
unknown or repeated key, a value of the wrong type or out of range, and sizes that do not fit each other are errors, all
reported at once with file, line and column.
)";

}  // namespace

std::string config_schema() {
  Config config;
  Json schema{{"$schema", "http://json-schema.org/draft-07/schema#"}, {"title", "Switchyard configuration"}};
  schema.update(section_schema(describe(config)));
  return schema.dump(2);
}

std::string config_reference() {
  Config config;
  std::string out = introduction;
  for (const Section& section : describe(config).sections) {
    out += text("\n## ", section.name, ": ", section.help, "\n\n| key | type | default | values | meaning |\n",
                "|---|---|---|---|---|\n");
    add_rows(section, section.name, out);
  }
  out += "\n## Exit codes\n\nOf every command, on every rank.\n\n| code | meaning |\n|---|---|\n";
  for (const ExitCode& code : exit_codes) out += text("| ", code.code, " | ", code.meaning, " |\n");
  return out;
}

}  // namespace switchyard
