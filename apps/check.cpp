// ratplus check: whether the machine is in order, on the ranks of a job, before a long run.
#include <fmt/core.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "apps/command_line.h"
#include "apps/commands.h"
#include "apps/format.h"
#include "apps/output_file.h"
#include "apps/progress_line.h"
#include "apps/settle.h"
#include "apps/version.h"
#include "apps/with_ranks.h"
#include "base/elapsed_time.h"
#include "base/error.h"
#include "base/units.h"
#include "lib/check/check.h"
#include "lib/report/table.h"
#include "lib/session/start_defaults.h"

namespace ratplus::apps {
namespace {

namespace po = boost::program_options;
using Json = nlohmann::ordered_json;

constexpr const char* check_help =
    R"(usage: mpirun -n N ratplus check JOB.toml [--set section.key=value ...] [--json FILE]

Measures, in less than a minute and on all ranks of a job at once, what a long run will rely on: products and
copies of each device, links within and between hosts at the sizes that the job sends, writing and reading
of the checkpoint directory, reading of the data; clocks, free memory, limits, counters of memory and
driver errors, and versions. One table has the least, the median and the most of all ranks; below it stands
each rank that stands out, with the rule:
  rates and memory   below 80 % of the median of all ranks
  clocks             more than half a second from the median
  errors             ECC errors that were not corrected, Xid errors: any
  versions           of the program, the driver or a library: not the same everywhere
  what a job lacks   data that are not there, a checkpoint directory without room or that cannot be written
The status is 0 where nothing stands out, 5 where something does, 1 where the check itself failed. Nothing
is left behind, however it ends. A rank that hangs is reported, and ends the check (parallel.timeout).

)";

constexpr const char* check_help_end = R"(
examples:
  mpirun -n 8 ratplus check configs/pretrain/7b.toml && mpirun -n 8 ratplus train configs/pretrain/7b.toml
  srun ratplus check JOB.toml --json check.json
  ratplus plan JOB.toml --check check.json
)";

struct CheckArguments {
  std::string job;
  std::vector<std::string> overrides;
  std::string json;
  double seconds = 2;
};

/// Empty when help was asked for and given.
std::optional<CheckArguments> parse_check(const Arguments& args) {
  CheckArguments parsed;
  po::options_description options("options");
  auto add = options.add_options();
  add("set", po::value(&parsed.overrides)->composing()->multitoken()->value_name("SECTION.KEY=VALUE"),
      "override a key of the job file");
  add("seconds", po::value(&parsed.seconds)->default_value(2)->value_name("S"),
      "the longest that a directory is written to, and read, by a rank");
  add("json", po::value(&parsed.json)->value_name("FILE"),
      "write all ranks' figures there too; `ratplus plan --check FILE` plans with them");
  const Positional job{"job", 1, po::value(&parsed.job), "a job file is missing (before --set)", "JOB.toml"};
  if (!parse_command_line(args, options, job, {check_help, check_help_end})) return std::nullopt;
  if (!(parsed.seconds > 0 && parsed.seconds <= 600)) throw po::error("--seconds is above 0 and at most 600");
  check_json_output(parsed.json, {parsed.job});
  return parsed;
}

/// Versions that are alike on all ranks, in one line.
std::string common_versions(const std::vector<check::RankReport>& ranks) {
  std::string text;
  for (const auto& [name, version] : ranks.front().versions) {
    bool alike = true;
    for (const auto& rank : ranks) {
      const auto found = rank.versions.find(name);
      alike = alike && found != rank.versions.end() && found->second == version;
    }
    if (alike && !version.empty()) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, version);
  }
  return text;
}

void print_report(const CheckArguments& args, const std::vector<check::RankReport>& ranks,
                  const std::vector<check::Finding>& findings, double seconds) {
  std::set<int> nodes;
  std::map<std::string, int> devices;
  for (const auto& rank : ranks) {
    nodes.insert(rank.node);
    ++devices[rank.device_name];
  }
  std::string names;
  for (const auto& [name, count] : devices)
    names += fmt::format("{}{} x {}", names.empty() ? "" : ", ", count, name);
  fmt::print("{} on {} of {}: {}; {}\n\n{}", args.job, counted(ranks.size(), "rank"),
             counted(nodes.size(), "host"), names, format_seconds(seconds),
             report::format_table(check::table(ranks), 0));
  fmt::print("\nthe same on all ranks: {}\n\n", common_versions(ranks));
  if (findings.empty()) fmt::print("nothing stands out\n");
  if (!findings.empty()) fmt::print("stands out\n");
  for (const auto& finding : findings) fmt::print("- {}\n", finding.text);
  std::fflush(stdout);
}

int check(const CheckArguments& args, const parallel::World& world) {
  const ElapsedTime elapsed;
  config::JobConfig job;
  world.agree([&] { job = config::load_job(args.job, args.overrides, session::start_defaults); });
  if (world.root()) print_renamed_keys(job);
  world.watchdog().set_timeout(job.parallel.timeout);
  job = settle(std::move(job), world).job;
  const auto program = this_program();
  const std::map<std::string, std::string> versions = {
      {"ratplus",
       fmt::format("{} ({}{})", program.version, program.revision, program.modified ? ", modified" : "")}};
  std::vector<check::RankReport> ranks;
  {
    ProgressLine progress;
    ranks = check::check_job(job, world, versions, args.seconds,
                             [&](const std::string& part) { progress.update("checking " + part); });
    if (world.root()) progress.finish();
  }
  const auto findings = check::judge(ranks);
  world.agree([&] {
    if (!world.root()) return;
    print_report(args, ranks, findings, elapsed.seconds());
    if (args.json.empty()) return;
    Json json = {{"job", args.job}, {"seconds", elapsed.seconds()}, {"cluster", check::cluster_of(ranks)}};
    json["findings"] = Json::array();
    for (const auto& finding : findings) json["findings"].push_back(finding.text);
    json["ranks"] = Json::array();
    for (const auto& rank : ranks) json["ranks"].push_back(to_json(rank));
    write_json_output(args.json, json);
  });
  return findings.empty() ? 0 : exit_stands_out;
}

}  // namespace

int check_command(const Arguments& args) {
  const auto parsed = parse_check(args);
  if (!parsed) return 0;
  return with_ranks([&](const parallel::World& world) { return check(*parsed, world); });
}

}  // namespace ratplus::apps
