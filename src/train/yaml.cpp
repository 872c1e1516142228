#include "train/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <sstream>
#include <string_view>
#include <unordered_map>

namespace switchyard {

namespace {

constexpr std::size_t max_bytes = std::size_t{1} << 20;
constexpr std::size_t max_depth = 32;
constexpr std::size_t max_values = 100'000;

std::size_t count_values(const YamlNode& node) {
  std::size_t n = 1 + node.keys.size();
  for (const YamlNode& item : node.items) n += count_values(item);
  return n;
}

// Builds the tree from the parser's events. Refusals are thrown as the parser's own errors are.
class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(int source) : source_(source) { root_.place = {source, 1, 1}; }

  YamlNode root() && { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0) refuse(mark, "a second document begins here; one is wanted");
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    finish(mark, leaf(mark, YamlNode::Kind::null), anchor);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    const bool is_plain = tag == "?";
    if (!is_plain) refuse_tag(mark, tag);
    YamlNode node = leaf(mark, is_plain ? YamlNode::Kind::plain : YamlNode::Kind::quoted);
    node.text = value;
    finish(mark, std::move(node), anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto named = anchors_.find(anchor);
    if (named == anchors_.end()) refuse(mark, "an alias within the value that it names");
    count(mark, count_values(named->second));
    finish(mark, named->second, YAML::NullAnchor);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::list);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::map);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapEnd() override { close(); }

 private:
  struct Open {
    YamlNode node;
    YAML::anchor_t anchor;
    YAML::Mark mark;
  };

  [[noreturn]] static void refuse(const YAML::Mark& mark, const std::string& why) {
    throw YAML::ParserException(mark, why);
  }

  static void refuse_tag(const YAML::Mark& mark, const std::string& tag) {
    if (tag != "?" && tag != "!" && !tag.empty()) refuse(mark, "tags such as !!int are not supported");
  }

  void count(const YAML::Mark& mark, std::size_t values) {
    values_ += values;
    if (values_ > max_values) refuse(mark, "more than 100000 values, with every alias unfolded");
  }

  YamlNode leaf(const YAML::Mark& mark, YamlNode::Kind kind) {
    count(mark, 1);
    return {kind, {source_, mark.line + 1, mark.column + 1}, {}, {}, {}};
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlNode::Kind kind) {
    refuse_tag(mark, tag);
    if (open_.size() == max_depth) refuse(mark, "nested deeper than 32 levels");
    open_.push_back({leaf(mark, kind), anchor, mark});
  }

  void close() {
    Open closed = std::move(open_.back());
    open_.pop_back();
    finish(closed.mark, std::move(closed.node), closed.anchor);
  }

  void finish(const YAML::Mark& mark, YamlNode node, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) {
      count(mark, count_values(node));
      anchors_[anchor] = node;
    }
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    YamlNode& parent = open_.back().node;
    if (parent.kind == YamlNode::Kind::list || parent.keys.size() > parent.items.size()) {
      if (node.kind == YamlNode::Kind::null && !parent.keys.empty()) node.place = parent.keys.back().place;
      parent.items.push_back(std::move(node));
    } else {
      if (node.kind != YamlNode::Kind::plain && node.kind != YamlNode::Kind::quoted)
        refuse(mark, "a key must be a name");
      parent.keys.push_back(std::move(node));
    }
  }

  int source_;
  int documents_ = 0;
  std::size_t values_ = 0;
  YamlNode root_;
  std::vector<Open> open_;
  std::unordered_map<YAML::anchor_t, YamlNode> anchors_;
};

// Bytes of the UTF-8 character that begins `rest`, or 0 if it is none (overlong, a surrogate, or cut).
std::size_t utf8_length(std::string_view rest) {
  const auto byte = [&](std::size_t i) { return i < rest.size() ? static_cast<unsigned char>(rest[i]) : 0u; };
  const unsigned lead = byte(0);
  const std::size_t length = lead < 0x80   ? 1
                             : lead < 0xC2 ? 0
                             : lead < 0xE0 ? 2
                             : lead < 0xF0 ? 3
                             : lead < 0xF5 ? 4
                                           : 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  const bool overlong = (lead == 0xE0 && byte(1) < 0xA0) || (lead == 0xF0 && byte(1) < 0x90);
  const bool beyond = (lead == 0xED && byte(1) >= 0xA0) || (lead == 0xF4 && byte(1) >= 0x90);
  return overlong || beyond ? 0 : length;
}

// yaml-cpp ends the file at byte 4, guesses UTF-16 from zero bytes and replaces what is no UTF-8: all silently.
std::optional<Finding> find_bad_character(std::string_view text, int source) {
  Place place{source, 1, 1};
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8_length(text.substr(i));
    const unsigned char lead = static_cast<unsigned char>(text[i]);
    if (length == 0) return Finding{place, "not UTF-8 text"};
    if ((lead < 0x20 && lead != '\n' && lead != '\r' && lead != '\t') || lead == 0x7F)
      return Finding{place, "a control character (byte " + std::to_string(lead) + ") has no place in YAML"};
    if (lead == '\n')
      place = {source, place.line + 1, 1};
    else
      place.column += static_cast<int>(length);
    i += length;
  }
  return std::nullopt;
}

bool begins_with_tab(const std::string& text, int line) {
  std::istringstream lines(text);
  std::string words;
  for (int i = 0; i < line; ++i) std::getline(lines, words);
  return words.starts_with('\t');
}

}  // namespace

std::optional<YamlNode> parse_yaml(const std::string& text, int source, std::vector<Finding>& findings) {
  if (text.size() > max_bytes) {
    findings.push_back({{source, 0, 0}, "larger than 1 MiB, which no configuration is"});
    return std::nullopt;
  }
  if (auto bad = find_bad_character(text, source)) {
    findings.push_back(std::move(*bad));
    return std::nullopt;
  }
  TreeBuilder builder(source);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) continue;
  } catch (const YAML::Exception& e) {
    const Place place = e.mark.is_null() ? Place{source, 0, 0} : Place{source, e.mark.line + 1, e.mark.column + 1};
    const char* hint = begins_with_tab(text, place.line) ? " (this line is indented with a tab; use spaces)" : "";
    findings.push_back({place, "not YAML that can be read: " + e.msg + hint});
    return std::nullopt;
  }
  return std::move(builder).root();
}

}  // namespace switchyard
