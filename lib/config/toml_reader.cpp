#include "lib/config/toml_reader.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "base/utf8.h"
#include "lib/config/old_names.h"

namespace ratplus::config {
namespace {

/// "the string \"ten\"", "a list": a value as a message calls it.
std::string describe_found(const toml::node& node) {
  if (const auto* text = node.as_string()) return fmt::format("the string \"{}\"", text->get());
  if (const auto* integer = node.as_integer()) return fmt::format("the integer {}", integer->get());
  if (const auto* real = node.as_floating_point()) return fmt::format("the float {}", real->get());
  if (const auto* boolean = node.as_boolean()) return fmt::format("the boolean {}", boolean->get());
  if (node.is_table()) return "a table";
  if (node.is_array()) return "a list";
  return "a date or time";
}

std::string place(const std::string& file, const toml::source_position& position) {
  return fmt::format("{}:{}", file, position.line);
}

/// The value as an integer if it is one, or a float without a fraction; nothing is rounded.
std::optional<std::int64_t> exact_integer(const toml::node& node) {
  if (const auto* integer = node.as_integer()) return integer->get();
  const auto* real = node.as_floating_point();
  constexpr double limit = 9007199254740992.0;  // 2^53: beyond it a float no longer names one integer
  if (real == nullptr || std::trunc(real->get()) != real->get() || std::abs(real->get()) > limit) {
    return std::nullopt;
  }
  return static_cast<std::int64_t>(real->get());
}

}  // namespace

std::string Value::where() const {
  return override_text ? origin : place(origin, node->source().begin);
}

Value Value::field(std::string_view name, const toml::node& inner) const {
  return {&inner, fmt::format("{}.{}", path, name), origin, override_text};
}

Value Value::element(std::size_t index, const toml::node& inner) const {
  return {&inner, fmt::format("{}[{}]", path, index), origin, override_text};
}

void fail_type(const Value& value, std::string_view expected) {
  fail("{}: {} must be {}, not {}", value.where(), value.path, expected, describe_found(*value.node));
}

void read(const Value& value, bool& field, Any) {
  const auto* boolean = value.node->as_boolean();
  if (boolean == nullptr) fail_type(value, "a boolean (true or false)");
  field = boolean->get();
}

void read(const Value& value, std::string& field, Any) {
  if (const auto* text = value.node->as_string()) {
    field = text->get();
  } else if (value.override_text) {
    field = *value.override_text;  // a directory named 2026 needs no quotes on the command line
  } else {
    fail_type(value, "a string");
  }
}

void read(const Value& value, double& field, const RealRange& range) {
  double x = 0;
  if (const auto* real = value.node->as_floating_point()) {
    x = real->get();
  } else if (const auto* integer = value.node->as_integer()) {
    x = static_cast<double>(integer->get());
  } else {
    fail_type(value, "a number");
  }
  if (!range.contains(x)) fail("{}: {} must be {}, not {}", value.where(), value.path, describe(range), x);
  field = x;
}

std::int64_t read_integer(const Value& value, const IntegerRange& range) {
  const std::optional<std::int64_t> x = exact_integer(*value.node);
  if (!x) fail_type(value, "an integer");
  if (!range.contains(*x)) fail("{}: {} must be {}, not {}", value.where(), value.path, describe(range), *x);
  return *x;
}

bool is_auto(const Value& value) {
  const auto* text = value.node->as_string();
  return text != nullptr && text->get() == "auto";
}

std::size_t read_choice(const Value& value, const std::vector<std::string>& choices) {
  const std::string expected = fmt::format("\"{}\"", fmt::join(choices, "\" or \""));
  const auto* text = value.node->as_string();
  if (text == nullptr) fail_type(value, expected);
  const auto found = std::find(choices.begin(), choices.end(), text->get());
  if (found == choices.end()) {
    fail("{}: {} must be {}, not \"{}\"", value.where(), value.path, expected, text->get());
  }
  return static_cast<std::size_t>(found - choices.begin());
}

// The document.
namespace {

/// The parser's message without the name of its function, and with a way out for the usual mistakes.
std::string describe_syntax(std::string_view description) {
  const auto prefix = description.find(": ");
  const bool has_prefix =
      description.rfind("Error while parsing", 0) == 0 && prefix != std::string_view::npos;
  std::string said(has_prefix ? description.substr(prefix + 2) : description);
  const auto mentions = [&](const char* words) { return said.find(words) != std::string::npos; };
  if (mentions("cannot redefine")) said += "; give each key and each section once";
  if (mentions("could not determine value type")) said += "; a string needs quotes";
  return said;
}

std::string_view line_of(std::string_view text, toml::source_index line) {
  for (; line > 1; --line) {
    const auto end = text.find('\n');
    if (end == std::string_view::npos) return {};
    text.remove_prefix(end + 1);
  }
  return text.substr(0, text.find_first_of("\r\n"));
}

/// The place after the string that begins at `at`, or after its line where a string of one line does not end there.
std::size_t after_string(std::string_view text, std::size_t at) {
  const char quote = text[at];
  std::string quotes(3, quote);
  if (!text.substr(at).starts_with(quotes)) quotes.resize(1);
  const bool one_line = quotes.size() == 1;
  at += quotes.size();
  while (at < text.size() && !text.substr(at).starts_with(quotes)) {
    if (one_line && text[at] == '\n') return at;
    at += quote == '"' && text[at] == '\\' ? 2 : 1;
  }
  return at + quotes.size();
}

/// The first character beyond ASCII that is neither in a string nor in a comment, where TOML has none. The parser's
/// behaviour for some of them is undefined (toml++ 3.3: U+03E3 where a value is expected), so it does not see them.
std::optional<std::size_t> find_bare_non_ascii(std::string_view text) {
  constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
  constexpr std::string_view before_a_string = "\n=[,{.";
  std::size_t at = text.starts_with(byte_order_mark) ? byte_order_mark.size() : 0;
  char before =
      '\n';  // the last character but for spaces: after most, quotes are a mistake and begin no string
  while (at < text.size()) {
    const char c = text[at];
    if (static_cast<unsigned char>(c) >= 0x80) return at;
    if (c == '#') {
      at = std::min(text.find('\n', at), text.size());
    } else if ((c == '"' || c == '\'') && before_a_string.find(before) != std::string_view::npos) {
      at = after_string(text, at);
      before = c;
    } else {
      if (c != ' ' && c != '\t' && c != '\r') before = c;
      ++at;
    }
  }
  return std::nullopt;
}

toml::table parse_file(std::string_view text, const std::string& name) {
  if (const auto at = find_bare_non_ascii(text)) {
    const auto before = text.substr(0, *at);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    fail("{}:{}: not valid TOML: a character that is not ASCII outside quotes and comments (in: {})", name,
         line, line_of(text, static_cast<toml::source_index>(line)));
  }
  try {
    return toml::parse(text, name);
  } catch (const toml::parse_error& error) {
    const toml::source_position& at = error.source().begin;
    fail("{}:{}:{}: not valid TOML: {} (in: {})", name, at.line, at.column,
         describe_syntax(error.description()), line_of(text, at.line));
  }
}

/// The right side of an override as {value = ...}: a TOML value if it is one. Else it is taken as a string,
/// unless it begins like a list, a table or a quoted string, where the writer meant TOML.
toml::table parse_override_value(const std::string& text, const std::string& origin) {
  try {
    const std::string line = "value = " + text;
    if (!find_bare_non_ascii(line)) {  // else a bare word, as a path may be
      toml::table parsed = toml::parse(line);
      if (parsed.size() == 1) return parsed;  // more where the text holds a line break
    }
  } catch (const toml::parse_error& error) {
    const bool meant_as_toml =
        !text.empty() && std::string_view("[{\"'").find(text.front()) != std::string::npos;
    if (meant_as_toml) {
      fail("{}: the value is not valid TOML: {}", origin, describe_syntax(error.description()));
    }
  }
  toml::table quoted;
  quoted.insert("value", text);
  return quoted;
}

/// The pairs of a table in the order of the file: the table itself is sorted by name, and the first mistake
/// of a file is the one to report.
struct Pair {
  const toml::key* key;
  const toml::node* node;
};

std::vector<Pair> in_file_order(const toml::table& table) {
  std::vector<Pair> pairs;
  for (auto&& [key, node] : table) pairs.push_back({&key, &node});
  std::stable_sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) {
    const toml::source_position& x = a.key->source().begin;
    const toml::source_position& y = b.key->source().begin;
    return x.line != y.line ? x.line < y.line : x.column < y.column;
  });
  return pairs;
}

void require_known_path(std::string_view path, std::string_view where) {
  const auto dot = path.find('.');
  require_known_key(path.substr(0, dot), path.substr(dot + 1), where);
}

}  // namespace

JobFile::JobFile(std::string_view text, std::string name, const std::vector<std::string>& overrides)
    : name_(std::move(name)) {
  add_sections(tables_.emplace_back(parse_file(text, name_)));
  for (const std::string& override_text : overrides) add_override(override_text);
  drop_superseded();
}

void JobFile::add_sections(const toml::table& file) {
  for (const Pair& section : in_file_order(file)) {
    const std::string section_place = place(name_, section.key->source().begin);
    const std::string_view section_name = section.key->str();
    const bool is_value = !section.node->is_table() && !section.node->is_array_of_tables();
    if (is_value) fail_outside_sections(section_name, section_place);
    require_known_section(section_name, section_place);
    if (!section.node->is_table()) {
      fail("{}: section [{}] is a list of tables; write its name in single brackets", section_place,
           section_name);
    }
    for (const Pair& pair : in_file_order(*section.node->as_table())) {
      const std::string where = place(name_, pair.key->source().begin);
      const std::string given = fmt::format("{}.{}", section_name, pair.key->str());
      const std::string path = present_name(given, where);
      require_known_path(path, where);
      if (const Value* other = find(path)) {
        fail("{}: {} and {} (at {}) are two names of one key; remove the one with the old name, {}", where,
             given, other->given, other->where(), given == path ? other->given : given);
      }
      values_.emplace(path, Value{pair.node, path, name_, std::nullopt, given});
    }
  }
}

void JobFile::add_override(const std::string& text) {
  const std::string origin = "--set " + text;
  const auto equals = text.find('=');
  const std::string_view path = trim(std::string_view(text).substr(0, equals));
  const auto dot = path.find('.');
  if (equals == std::string::npos || dot == std::string_view::npos) {
    fail("{}: an override is written section.key=value, for example --set data.batch=64", origin);
  }
  const std::string key = present_name(std::string(path), origin);
  require_known_path(key, origin);

  const std::string value(trim(std::string_view(text).substr(equals + 1)));
  if (std::string copy = value; repair_utf8(copy) > 0) {
    fail(
        "--set {}: is not UTF-8, in which job.toml and checkpoints keep it; rename the file or directory, or "
        "start "
        "beside it and give a relative path",
        copy);
  }
  const toml::table& table = tables_.emplace_back(parse_override_value(value, origin));
  values_.insert_or_assign(key, Value{table.get("value"), key, origin, value, std::string(path)});
}

std::string JobFile::present_name(const std::string& path, const std::string& where) {
  const std::string_view present = present_key(path);
  if (present != path) renamed_.push_back(fmt::format("{}: {} is now {}", where, path, present));
  return std::string(present);
}

void JobFile::drop_from_file(std::string_view keys) {
  const bool all = keys.ends_with('*');
  if (all) keys.remove_suffix(1);
  std::erase_if(values_, [&](const auto& entry) {
    const std::string_view path = entry.first;
    return (all ? path.starts_with(keys) : path == keys) && !entry.second.override_text;
  });
}

/// An override may leave no place for a key of the file, which the command line has no way to remove.
void JobFile::drop_superseded() {
  struct Rule {
    const char* override_path;
    const char* value;    ///< of the override; empty: any
    const char* dropped;  ///< a key, or with "*" at its end all that begin so
  };
  constexpr std::array rules{Rule{"schedule.steps", "", "schedule.tokens"},
                             Rule{"schedule.tokens", "", "schedule.steps"},
                             Rule{"schedule.steps", "", "schedule.epochs"},
                             Rule{"schedule.tokens", "", "schedule.epochs"},
                             Rule{"schedule.epochs", "", "schedule.steps"},
                             Rule{"schedule.epochs", "", "schedule.tokens"},
                             Rule{"job.recipe", "plain", "job.joint_pattern"},
                             Rule{"job.kind", "pretrain", "job.from"},
                             Rule{"schedule.shape", "cosine", "schedule.decay*"},
                             Rule{"schedule.shape", "constant", "schedule.decay*"},
                             Rule{"data.directory", "", "data.sources"},
                             Rule{"data.sources", "", "data.directory"}};
  for (const Rule& rule : rules) {
    const Value* value = find(rule.override_path);
    if (value == nullptr || !value->override_text) continue;
    const std::string_view wanted = rule.value;
    if (wanted.empty() || value->node->value<std::string_view>() == wanted) drop_from_file(rule.dropped);
  }
}

const Value* JobFile::find(std::string_view path) const {
  const auto found = values_.find(path);
  return found == values_.end() ? nullptr : &found->second;
}

std::string JobFile::where(std::string_view path) const {
  const Value* value = find(path);
  return value == nullptr ? name_ : value->where();
}

}  // namespace ratplus::config
