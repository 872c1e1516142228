#include "train/config_reference.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "train/config.h"
#include "train/fields.h"

namespace switchyard {
namespace {

TEST(ConfigReference, TheCommittedPageIsNotStale) {
  std::ifstream file(SWITCHYARD_SOURCE_DIR "/docs/configuration.md");
  std::stringstream page;
  page << file.rdbuf();
  EXPECT_TRUE(page.str() == config_reference())
      << "docs/configuration.md is stale: write it anew with switchyard config --reference";
}

TEST(ConfigReference, SchemaSaysWhatTheFieldsDo) {
  const auto schema = nlohmann::json::parse(config_schema());
  EXPECT_EQ(schema["$schema"], "http://json-schema.org/draft-07/schema#");
  const auto& sections = schema["properties"];
  const auto& heads = sections["model"]["properties"]["n_heads"];
  EXPECT_EQ(
      heads,
      (nlohmann::json{
          {"type", "integer"}, {"default", 4}, {"minimum", 1}, {"maximum", 4096}, {"description", "query heads"}}));
  EXPECT_EQ(sections["run"]["properties"]["seed"]["maximum"], 18446744073709551615u);
  EXPECT_EQ(sections["run"]["properties"]["precision"]["enum"], (nlohmann::json{"fp32", "bf16"}));
  EXPECT_EQ(sections["optim"]["properties"]["beta2"]["maximum"], 0.9999999);
  EXPECT_EQ(sections["moe"]["properties"]["layers"]["items"]["type"], "integer");
  EXPECT_EQ(sections["optim"]["properties"]["schedule"]["properties"]["kind"]["default"], "cosine");
  const auto& source = sections["data"]["properties"]["train"]["items"];
  EXPECT_EQ(source["required"], nlohmann::json{"path"});
  EXPECT_EQ(source["additionalProperties"], false);
  EXPECT_FALSE(source["properties"]["path"].contains("default"));
}

void expect_complete(const Section& section, const nlohmann::json& schema) {
  EXPECT_EQ(schema["type"], "object") << section.name;
  EXPECT_EQ(schema["additionalProperties"], false) << section.name;
  EXPECT_EQ(schema["properties"].size(), section.fields.size() + section.sections.size()) << section.name;
  for (const Field& field : section.fields) EXPECT_TRUE(schema["properties"].contains(field.name)) << field.name;
  for (const Section& inner : section.sections) expect_complete(inner, schema["properties"][inner.name]);
}

TEST(ConfigReference, SchemaKnowsEveryKeyAndNoOther) {
  Config config;
  expect_complete(describe(config), nlohmann::json::parse(config_schema()));
}

}  // namespace
}  // namespace switchyard
