#include "lib/config/keys.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "base/error.h"
#include "lib/config/old_names.h"
#include "lib/config/suggest.h"

namespace ratplus::config {
namespace {

std::vector<SectionKeys> collect_keys() {
  std::vector<SectionKeys> sections;
  const JobConfig defaults;
  for_each_key(defaults, [&](const char* section, const char* key, const auto&, const auto&) {
    if (sections.empty() || sections.back().section != section) sections.push_back({section, {}});
    sections.back().keys.emplace_back(key);
  });
  return sections;
}

template <typename Field>
std::vector<std::string> values_of(const Field&, const auto&) {
  std::vector<std::string> values;
  if constexpr (std::is_same_v<Field, bool>) {
    values = {"true", "false"};
  } else if constexpr (std::is_enum_v<Field>) {
    for (const Field choice : choices_of(Field{})) values.emplace_back(to_string(choice));
  }
  return values;
}

const SectionKeys* find_section(std::string_view name) {
  for (const SectionKeys& section : known_keys()) {
    if (section.section == name) return &section;
  }
  return nullptr;
}

bool has_key(const SectionKeys& section, std::string_view key) {
  return std::find(section.keys.begin(), section.keys.end(), key) != section.keys.end();
}

/// The present name of the key that was once called `key`, in whatever section; empty if none was.
std::string renamed_key(std::string_view key) {
  for (const OldKey& old : old_keys) {
    if (old.old_path.substr(old.old_path.find('.') + 1) == key) return std::string(old.path);
  }
  return "";
}

/// "data.batch" for a key written as data.bacth, or as schedule.batch, or outside any section; empty if
/// nothing is near. A word near an old name leads to the present one.
std::string nearest_key(std::string_view section, std::string_view key) {
  for (const SectionKeys& other : known_keys()) {
    if (has_key(other, key)) return fmt::format("{}.{}", other.section, key);
  }
  if (const std::string renamed = renamed_key(key); !renamed.empty()) return renamed;
  const SectionKeys* own = find_section(section);
  if (own == nullptr) return "";
  std::vector<std::string> names = own->keys;
  for (const OldKey& old : old_keys) {
    const auto dot = old.old_path.find('.');
    if (old.old_path.substr(0, dot) == section) names.emplace_back(old.old_path.substr(dot + 1));
  }
  const std::string near = nearest(key, names);
  return near.empty() ? "" : std::string(present_key(fmt::format("{}.{}", section, near)));
}

/// Ends the sentence before a list of what there is.
std::string did_you_mean(const std::string& near) {
  return near.empty() ? "." : fmt::format("; did you mean {}?", near);
}

std::vector<std::string> section_names() {
  std::vector<std::string> names;
  for (const SectionKeys& section : known_keys()) names.push_back(section.section);
  return names;
}

}  // namespace

const std::vector<SectionKeys>& known_keys() {
  static const std::vector<SectionKeys> sections = collect_keys();
  return sections;
}

std::vector<KeyValues> known_values() {
  std::vector<KeyValues> keys;
  const JobConfig defaults;
  for_each_key(defaults, [&](const char* section, const char* key, const auto& field, const auto& allowed) {
    keys.push_back({fmt::format("{}.{}", section, key), values_of(field, allowed)});
    if constexpr (requires { allowed.automatic; }) keys.back().values.emplace_back("auto");
  });
  return keys;
}

std::string describe(const IntegerRange& range) {
  if (range.high == std::numeric_limits<std::int64_t>::max()) return fmt::format("at least {}", range.low);
  return fmt::format("{} to {}", range.low, range.high);
}

std::string describe(const RealRange& range) {
  const std::string low = fmt::format("{} {:g}", range.with_low ? "at least" : "greater than", range.low);
  if (std::isinf(range.high)) return low + (range.with_high ? "" : " and finite");
  return fmt::format("{} and {} {:g}", low, range.with_high ? "at most" : "less than", range.high);
}

void require_known_section(std::string_view section, std::string_view where) {
  if (find_section(section) != nullptr) return;
  const std::vector<std::string> names = section_names();
  const std::string near = nearest(section, names);
  fail("{}: unknown section [{}]{} Sections: [{}]", where, section,
       did_you_mean(near.empty() ? "" : fmt::format("[{}]", near)), fmt::join(names, "], ["));
}

void require_known_key(std::string_view section, std::string_view key, std::string_view where) {
  require_known_section(section, where);
  const SectionKeys& own = *find_section(section);
  if (has_key(own, key)) return;
  fail("{}: unknown key {}.{}{} Keys of [{}]: {}", where, section, key,
       did_you_mean(nearest_key(section, key)), section, fmt::join(own.keys, ", "));
}

void fail_outside_sections(std::string_view key, std::string_view where) {
  fail("{}: key {} is outside any section{} Sections: [{}]", where, key, did_you_mean(nearest_key("", key)),
       fmt::join(section_names(), "], ["));
}

}  // namespace ratplus::config
