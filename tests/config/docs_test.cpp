// docs/job-files.md lists every key with its type, default and range, and quotes true error messages.
#include <doctest/doctest.h>

#include <fmt/ranges.h>

#include <fstream>
#include <map>
#include <sstream>

#include "lib/config/keys.h"
#include "lib/model/mixers.h"
#include "tests/config/cases.h"

namespace ratplus::config {
namespace {

std::string documentation() {
  std::ifstream stream(source_directory() / "docs" / "job-files.md");
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

/// The columns "type" and "allowed" of a key's row.
struct Column {
  std::string type;
  std::string allowed;
};

Column column(bool, Any) {
  return {"boolean", "`true`, `false`"};
}
Column column(const std::string&, Any) {
  return {"string", ""};
}
Column column(const std::vector<model::MixerConfig>&, Any) {
  std::string names;
  model::for_each_mixer([&]<typename M>(std::type_identity<M>) {
    names += fmt::format("{}`\"{}\"`", names.empty() ? "" : ", ", M::name);
  });
  return {"mixer, list or rule", names};
}
Column column(double, const RealRange& range) {
  return {"number", describe(range)};
}
Column column(const model::PatternPlan&, Any) {
  return {"pattern, or list", ""};
}
Column column(const std::vector<model::PatternPlan>&, Any) {
  return {"list of patterns", ""};
}

Column column(const std::vector<DataSource>&, Any) {
  return {"list of sources", ""};
}

template <std::integral Integer>
Column column(Integer, const IntegerRange& range) {
  return {"integer", describe(range)};
}

template <typename Enum>
requires std::is_enum_v<Enum> Column column(Enum, Any) {
  std::vector<std::string> names;
  for (const Enum choice : choices_of(Enum{})) names.push_back(fmt::format("`\"{}\"`", to_string(choice)));
  return {"choice", fmt::format("{}", fmt::join(names, ", "))};
}

Column column(std::int64_t, const IntegerOrAuto<const bool>& allowed) {
  return {"integer, or auto", describe(allowed.range) + ", or `\"auto\"`"};
}

template <typename Enum>
Column column(Enum x, const ChoiceOrAuto<const bool>&) {
  auto c = column(x, Any{});
  c.allowed += ", `\"auto\"`";
  return c;
}

/// What `key = ...` says in a job that gives only what it must; empty if the key is not written there.
std::string default_of(const std::string& written, const std::string& section, const std::string& key) {
  const auto section_at = written.find("[" + section + "]\n");
  const auto section_end = written.find("\n[", section_at);
  const auto at = written.find("\n" + key + " = ", section_at);
  if (at == std::string::npos || at > section_end) return "";
  const auto value = at + key.size() + 4;
  return written.substr(value, written.find('\n', value) - value);
}

TEST_CASE("every key is documented with its type, default and range") {
  const std::string text = documentation();
  REQUIRE(!text.empty());
  // Keys without a default, or with one that depends on others: the text of their column.
  const std::map<std::string, std::string> special = {{"job.directory", "required"},
                                                      {"job.from", "required but by `pretrain`"},
                                                      {"job.pattern", "`\"dense\"`"},
                                                      {"job.joint_pattern", "`\"64,0,0\"`"},
                                                      {"data.directory", "this or `sources`"},
                                                      {"data.sources", "this or `directory`"},
                                                      {"schedule.steps", "this or `tokens`"},
                                                      {"schedule.tokens", "this or `steps`"},
                                                      {"schedule.epochs", "or this"},
                                                      {"schedule.decay", "`0.2`"},
                                                      {"schedule.decay_shape", "`\"linear\"`"},
                                                      {"log.validation_patterns", "the recipe's own"}};
  const std::string written = to_toml(parse_job(minimal_job, "job.toml"));
  const JobConfig defaults;
  for_each_key(defaults, [&](const std::string& section, const std::string& key, const auto& field,
                             const auto& allowed) {
    const std::string path = section + "." + key;
    const auto found = special.find(path);
    const std::string value =
        found != special.end() ? found->second : "`" + default_of(written, section, key) + "`";
    const Column c = column(field, allowed);
    const std::string row = fmt::format("| `{}` | {} | {} | {} | ", path, c.type, value, c.allowed);
    CHECK_MESSAGE(text.find(row) != std::string::npos, "docs/job-files.md lacks the row: " << row);
  });
}

TEST_CASE("the documentation has no key that does not exist") {
  std::istringstream lines(documentation());
  std::string line;
  while (std::getline(lines, line)) {
    if (line.rfind("| `", 0) != 0 || line.find('.') == std::string::npos) continue;
    const std::string path = line.substr(3, line.find('`', 3) - 3);
    const auto dot = path.find('.');
    CHECK_NOTHROW(require_known_key(path.substr(0, dot), path.substr(dot + 1), "docs/job-files.md"));
  }
}

TEST_CASE("the documentation quotes true error messages") {
  const std::string text = documentation();
  const auto line = [](const std::string& added) { return refusal(minimal_job + added + "\n"); };
  std::vector<std::string> messages = {
      line("bacth = 8"),
      line("batch = \"ten\""),
      line("sampling = random"),
      line("[optimizer]\nbeta2 = 1.0"),
      line("[model]\nwidth = 200\nhead_dim = 64"),
      line("batch = 10\nmicro_batch = 4"),
      refusal(minimal_job, {"data.batch=1O"}),
      refusal(minimal_job, {"job.kind=adapt"}),
      refusal(minimal_job, {"job.pattern=[\"dense\", \"64,0,0\"]"}),
  };
  const auto caught = [&](auto&& check) {
    try {
      check();
      FAIL("accepted");
    } catch (const Error& error) {
      messages.emplace_back(error.what());
    }
  };
  const JobConfig job = parse_job(minimal_job, "job.toml", {"data.batch=10", "data.micro_batch=2"});
  caught([&] { validate_ranks(job, 4); });
  caught([&] { validate_data(job, "runs/a/data", 32000, 2100, 4097); });
  for (const std::string& message : messages) {
    CHECK_MESSAGE(text.find("\n" + message + "\n") != std::string::npos,
                  "docs/job-files.md lacks: " << message);
  }
}

}  // namespace
}  // namespace ratplus::config
