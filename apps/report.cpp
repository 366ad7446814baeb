// ratplus report: loss curves and tables of one or several runs.
#include <fmt/core.h>

#include <filesystem>
#include <optional>

#include "apps/command_line.h"
#include "data/pending_file.h"
#include "lib/report/chart.h"
#include "lib/report/table.h"

namespace ratplus::apps {
namespace {

namespace po = boost::program_options;

constexpr const char* help_text = R"(usage: ratplus report RUN... [--output FILE.svg] [--adaptation]

Reads what runs have written into their directories and shows it: a picture of the loss curves (one
panel a run), a table of each run's final validation, and with several runs one table of all. Works
while a run is going on.

A run's final result is its last validation, or its evaluation over more held-out text, if
  ratplus eval RUN --pattern dense 16,0,4 --json RUN/evaluation.json
wrote one for its last step.

)";

constexpr const char* help_end = R"(
examples:
  ratplus report runs/1b
    writes runs/1b/loss.svg
  ratplus report runs/1b runs/1b-baseline --output compare.svg
    compares two runs; without --output the picture lies beside the first run's directory
  ratplus report --adaptation runs/1b runs/1b-d16 runs/1b-d64
    the first run is the pretrained model, the others were adapted from it: perplexity before and after
)";

struct ReportArguments {
  std::vector<std::string> runs;
  std::string output;
  bool adaptation = false;
};

/// Empty when help was asked for and given.
std::optional<ReportArguments> parse(const Arguments& args) {
  ReportArguments parsed;
  po::options_description options("options");
  options.add_options()("output,o", po::value(&parsed.output)->value_name("FILE.svg"),
                        "where the picture goes; default: RUN/loss.svg, or loss.svg beside several RUNs")(
      "adaptation", po::bool_switch(&parsed.adaptation),
      "print only the table of perplexity before and after adaptation");
  const Positional runs{"run", -1, po::value(&parsed.runs), "a run directory is missing"};
  if (!parse_command_line(args, options, runs, {help_text, help_end})) return std::nullopt;
  if (parsed.adaptation && parsed.runs.size() < 2)
    throw po::error("--adaptation needs the pretrained run and at least one adapted from it");
  return parsed;
}

std::filesystem::path picture_path(const ReportArguments& args) {
  if (!args.output.empty()) return args.output;
  const auto first = std::filesystem::absolute(args.runs.front()).lexically_normal();
  if (args.runs.size() == 1) return std::filesystem::path(args.runs.front()) / "loss.svg";
  return (first.has_filename() ? first : first.parent_path()).parent_path() / "loss.svg";
}

void print_tables(const ReportArguments& args, const std::vector<report::RunMetrics>& runs) {
  if (args.adaptation) {
    fmt::print("{}", report::adaptation_table(runs.front(), {runs.begin() + 1, runs.end()}));
    return;
  }
  for (const auto& run : runs) fmt::print("{}\n", report::final_table(run));
  if (runs.size() > 1) fmt::print("{}", report::joint_table(runs));
}

}  // namespace

int report_command(const Arguments& args) {
  const auto parsed = parse(args);
  if (!parsed) return 0;
  const auto runs = report::read_metrics({parsed->runs.begin(), parsed->runs.end()});
  const auto picture = picture_path(*parsed);
  data::write_whole_file(picture, report::draw_loss_chart(runs));
  print_tables(*parsed, runs);
  fmt::print("\nloss curves: {}\n", std::filesystem::proximate(picture).string());
  return 0;
}

}  // namespace ratplus::apps
