// Reading TOML into typed values, with messages that name the place and the key.
#pragma once

#include <toml++/toml.h>

#include <concepts>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "lib/config/keys.h"

namespace ratplus::config {

/// A value of a job file or of an override, with what a message needs to name it.
struct Value {
  const toml::node* node = nullptr;
  std::string path;                          ///< "data.batch", "job.pattern[3].window"
  std::string origin;                        ///< "configs/pretrain/1b.toml", or "--set data.batch=10"
  std::optional<std::string> override_text;  ///< the right side of an override
  std::string given = {};                    ///< a key's name as it was given: its present one, or an old one

  /// "configs/pretrain/1b.toml:12", or the override.
  std::string where() const;
  /// A value inside this one: a field of a table, an element of a list.
  Value field(std::string_view name, const toml::node& inner) const;
  Value element(std::size_t index, const toml::node& inner) const;
};

/// Throws Error: "<where>: <path> must be <expected>, not <what it is>".
[[noreturn]] void fail_type(const Value& value, std::string_view expected);

/// Each reads one value into a field of a job, or throws Error for a wrong type or a value that is not
/// allowed. An integer may be written as a float without a fraction (110e9), a float as an integer. A string
/// of an override needs no quotes.
void read(const Value& value, bool& field, Any);
void read(const Value& value, std::string& field, Any);
void read(const Value& value, double& field, const RealRange& range);
std::int64_t read_integer(const Value& value, const IntegerRange& range);

template <std::integral Integer>
void read(const Value& value, Integer& field, const IntegerRange& range) {
  field = static_cast<Integer>(read_integer(value, range));
}

/// The index of a string among the choices.
std::size_t read_choice(const Value& value, const std::vector<std::string>& choices);

template <typename Enum>
requires std::is_enum_v<Enum>
void read(const Value& value, Enum& field, Any) {
  constexpr auto choices = choices_of(Enum{});
  std::vector<std::string> names;
  for (const Enum choice : choices) names.emplace_back(to_string(choice));
  field = choices[read_choice(value, names)];
}

/// Whether a value is "auto".
bool is_auto(const Value& value);

inline void read(const Value& value, std::int64_t& field, const IntegerOrAuto<bool>& allowed) {
  allowed.automatic = is_auto(value);
  if (!allowed.automatic) field = read_integer(value, allowed.range);
}

template <typename Enum>
void read(const Value& value, Enum& field, const ChoiceOrAuto<bool>& allowed) {
  allowed.automatic = is_auto(value);
  if (allowed.automatic) return;
  constexpr auto choices = choices_of(Enum{});
  std::vector<std::string> names;
  for (const Enum choice : choices) names.emplace_back(to_string(choice));
  names.emplace_back("auto");
  field = choices[read_choice(value, names)];
}

/// A job file and its overrides as values by key, before they have types. All keys are
/// known ones, by their present names.
class JobFile {
 public:
  /// Throws Error for what is not TOML, for unknown sections and keys, and for overrides that are not
  /// section.key=value.
  JobFile(std::string_view text, std::string name, const std::vector<std::string>& overrides);

  /// The value of "section.key", or null if it is given nowhere.
  const Value* find(std::string_view path) const;
  /// The place to name for a key: where it is given, else the file.
  std::string where(std::string_view path) const;
  const std::string& name() const { return name_; }
  /// A line for each old name that was given, with the present one.
  const std::vector<std::string>& renamed() const { return renamed_; }

 private:
  void add_sections(const toml::table& file);
  std::string present_name(const std::string& path, const std::string& where);
  void add_override(const std::string& text);
  /// `keys`: a key, or with "*" at its end all that begin so. An override stays.
  void drop_from_file(std::string_view keys);
  void drop_superseded();

  std::string name_;
  std::deque<toml::table> tables_;  ///< own the nodes that the values point to
  std::map<std::string, Value, std::less<>> values_;
  std::vector<std::string> renamed_;
};

}  // namespace ratplus::config
