#include <fmt/core.h>

#include <concepts>
#include <string>
#include <type_traits>

#include "lib/config/job.h"
#include "lib/config/mixer_toml.h"
#include "lib/config/pattern_toml.h"
#include "lib/config/sources_toml.h"
#include "lib/config/toml_value.h"

namespace ratplus::config {
namespace {

std::string to_toml_value(bool x) {
  return x ? "true" : "false";
}

template <std::integral Integer>
std::string to_toml_value(Integer x) {
  return fmt::format("{}", x);
}

template <typename Enum>
requires std::is_enum_v<Enum> std::string to_toml_value(Enum choice) {
  return fmt::format("\"{}\"", to_string(choice));
}

/// Keys that this job does not have: a job file with them would be refused, or mean something else.
bool applies(const JobConfig& job, const std::string& path) {
  if (path == "job.from") return job.job.kind != Kind::pretrain;
  if (path == "job.joint_pattern") return job.job.recipe == Recipe::joint;
  if (path.starts_with("schedule.decay")) return job.schedule.shape == optim::Shape::wsd;
  if (path == "data.directory") return job.data.sources.empty();
  if (path == "data.sources") return !job.data.sources.empty();
  if (path == "schedule.steps") return job.schedule.tokens == 0 && job.schedule.epochs == 0;
  if (path == "schedule.tokens") return job.schedule.tokens != 0;
  if (path == "schedule.epochs") return job.schedule.epochs != 0;
  if (path == "log.validation_patterns") return !job.log.validation_patterns.empty();
  return true;
}

}  // namespace

std::string to_toml(const JobConfig& job) {
  std::string text;
  std::string current;
  for_each_key(job, [&](const std::string& section, const std::string& key, const auto& field,
                        [[maybe_unused]] const auto& allowed) {
    const std::string path = section + "." + key;
    if (!applies(job, path) || job.awaits(path)) return;
    if (section != current) {
      text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", section);
      current = section;
    }
    std::string written = to_toml_value(field);
    if constexpr (requires { allowed.automatic; }) {
      if (allowed.automatic) written = "\"auto\"";
    }
    text += fmt::format("{} = {}\n", key, written);
  });
  return text;
}

}  // namespace ratplus::config
