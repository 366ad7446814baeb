// ratplus report: one or several runs as a page of curves, a picture of their losses, and tables.
#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <optional>

#include "apps/command_line.h"
#include "apps/output_file.h"
#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/files/sha256.h"
#include "base/files/whole_path.h"
#include "lib/report/chart.h"
#include "lib/report/page.h"
#include "lib/report/table.h"
#include "lib/report/tradeoff.h"

namespace ratplus::apps {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

constexpr const char* report_help =
    R"(usage: ratplus report RUN... [--output FILE.html|FILE.svg|DIR] [--adaptation | --tradeoff]

Reads what runs have written into their directories and shows it:
  report.html  a page with all curves (losses, validations, learning rate, gradient norms, throughput,
               memory, waits), progress, settings and their differences; one file
               that needs no network, for a screen or a phone
  loss.svg     a picture of the loss curves alone, one panel a run
  and in the terminal a table of each run's final validation, and with several runs one table of all.
Works while a run is going on (`ratplus watch RUN` shows one in the terminal).

A run's final result is its last validation, or its evaluation over more held-out text, if
  ratplus eval RUN --pattern dense 16,0,4 --json RUN/evaluation.json
wrote one for its last step.

With --tradeoff, held-out loss against the size of a sequence's cache: models, and runs adapted from them, evaluated under
many patterns, as tables, as the picture tradeoff.svg (in the place of loss.svg), at the beginning of the page, and beside
the picture as tradeoff.md and tradeoff.json.

)";

constexpr const char* report_help_end = R"(
examples:
  ratplus report runs/1b
    writes runs/1b/report.html and runs/1b/loss.svg
  ratplus report runs/1b runs/1b-baseline --output compare.html
    compares two runs; without --output the files would lie beside the first run's directory, with names of
    their own: runs/1b+1b-baseline.html and .svg
  ratplus report --adaptation runs/1b runs/1b-d16 runs/1b-d64
    the first run is the pretrained model, the others were adapted from it: perplexity before and after
  ratplus report --tradeoff runs/ours runs/theirs runs/ours-d16
    loss against cache of two models, one of them also after adaptation to D = 16
)";

struct ReportArguments {
  std::vector<std::string> runs;
  std::string output;
  bool adaptation = false;
  bool tradeoff = false;
};

/// Empty when help was asked for and given.
std::optional<ReportArguments> parse_report(const Arguments& args) {
  ReportArguments parsed;
  po::options_description options("options");
  auto add = options.add_options();
  add("output,o", po::value(&parsed.output)->value_name("FILE|DIR"),
      "write only the page (FILE.html) or only the picture (FILE.svg), to this file, or both, report.html "
      "and "
      "loss.svg, into this directory; default: both, in RUN, or of several RUNs beside the first, named "
      "after them all");
  add("adaptation", po::bool_switch(&parsed.adaptation),
      "print only the table of perplexity before and after adaptation");
  add("tradeoff", po::bool_switch(&parsed.tradeoff),
      "loss against the size of the cache: tables, picture, page, Markdown and JSON");
  const Positional runs{"run", -1, po::value(&parsed.runs), "a run directory is missing", "RUN"};
  if (!parse_command_line(args, options, runs, {report_help, report_help_end})) return std::nullopt;
  if (parsed.adaptation && parsed.runs.size() < 2)
    throw po::error("--adaptation needs the pretrained run and at least one adapted from it");
  if (parsed.adaptation && parsed.tradeoff) throw po::error("--adaptation and --tradeoff exclude each other");
  const auto extension = fs::path(parsed.output).extension();
  if (!parsed.output.empty() && !fs::is_directory(parsed.output) && extension != ".html" &&
      extension != ".svg")
    throw po::error(
        "--output " + parsed.output +
        ": ends neither in .html (the page) nor in .svg (the picture), and is no directory for both");
  return parsed;
}

struct OutputFiles {
  fs::path page, picture;  ///< empty: not to be written
};

/// A name for several runs that no single run, and no other runs, have.
std::string joint_name(const std::vector<report::RunMetrics>& runs) {
  std::string name;
  for (const auto& run : runs) name += (name.empty() ? "" : "+") + run.name;
  std::ranges::replace(name, '/', '-');
  constexpr std::size_t most = 120;  // bytes; file systems take 255
  if (name.size() <= most) return name;
  // Cut before a character; the digest tells it from others that begin alike.
  std::size_t end = most - 9;
  while ((static_cast<unsigned char>(name[end]) & 0xC0) == 0x80) --end;
  return name.substr(0, end) + "-" + sha256_hex(name).substr(0, 8);
}

OutputFiles output_files(const ReportArguments& args, const std::vector<report::RunMetrics>& runs) {
  const fs::path output = args.output;
  const bool named = output.extension() == ".html" || output.extension() == ".svg";
  if (!named && fs::is_directory(output)) {
    if (runs.size() > 1 && fs::exists(output / "metrics.jsonl"))
      fail(
          "--output {}: is the directory of a run, whose own report.html stands there; name a file, or "
          "another "
          "directory",
          args.output);
    return {output / "report.html", output / (args.tradeoff ? "tradeoff.svg" : "loss.svg")};
  }
  if (output.extension() == ".html") return {output, {}};
  if (output.extension() == ".svg") return {{}, output};
  const fs::path first = args.runs.front();
  if (runs.size() == 1) return {first / "report.html", first / (args.tradeoff ? "tradeoff.svg" : "loss.svg")};
  const auto beside = whole_path(first).parent_path();
  const auto name = joint_name(runs);
  return {beside / (name + ".html"), beside / (name + ".svg")};
}

void print_tables(const ReportArguments& args, const std::vector<report::RunMetrics>& runs) {
  if (args.adaptation) {
    fmt::print("{}", report::adaptation_table(runs.front(), {runs.begin() + 1, runs.end()}));
    return;
  }
  for (const auto& run : runs) fmt::print("{}\n", report::final_table(run));
  if (runs.size() > 1) fmt::print("{}", report::joint_table(runs));
}

std::vector<report::JobSettings> read_settings(const ReportArguments& args) {
  std::vector<report::JobSettings> jobs;
  for (const auto& run : args.runs) jobs.push_back(report::read_job_settings(run));
  return jobs;
}

}  // namespace

int report_command(const Arguments& args) {
  const auto parsed = parse_report(args);
  if (!parsed) return 0;
  const auto runs = report::read_metrics({parsed->runs.begin(), parsed->runs.end()});
  const auto files = output_files(*parsed, runs);
  for (const auto& file : {files.page, files.picture}) check_output_name("--output", file.string(), {});
  const auto jobs = read_settings(*parsed);
  std::optional<report::Tradeoff> tradeoff;
  if (parsed->tradeoff) tradeoff.emplace(runs, jobs);
  // Tables first: a full disk does not lose them.
  if (tradeoff) {
    fmt::print("{}", report::tradeoff_text(*tradeoff));
  } else {
    print_tables(*parsed, runs);
  }
  fmt::print("\n");
  std::fflush(stdout);
  if (!files.picture.empty()) {
    write_whole_file(files.picture,
                     tradeoff ? report::draw_tradeoff_chart(*tradeoff) : report::draw_loss_chart(runs));
  }
  if (!files.page.empty()) {
    const auto lead = tradeoff ? report::tradeoff_html(*tradeoff) : "";
    write_whole_file(files.page, report::make_page(runs, jobs, std::time(nullptr), lead));
  }
  if (tradeoff && !files.picture.empty()) {
    const auto beside = [&](const char* extension) {
      return fs::path(files.picture).replace_extension(extension);
    };
    write_whole_file(beside(".md"), report::tradeoff_markdown(*tradeoff));
    write_whole_file(beside(".json"), report::tradeoff_json(*tradeoff));
    fmt::print("tables: {} and .json\n", fs::proximate(beside(".md")).string());
    if (const auto chart = report::draw_position_chart(*tradeoff); !chart.empty()) {
      write_whole_file(beside(".positions.svg"), chart);
      fmt::print("perplexity by position: {}\n", fs::proximate(beside(".positions.svg")).string());
    }
  }
  if (!files.picture.empty())
    fmt::print("{}: {}\n", tradeoff ? "picture" : "loss curves", fs::proximate(files.picture).string());
  if (!files.page.empty()) fmt::print("report: {}\n", fs::proximate(files.page).string());
  return 0;
}

}  // namespace ratplus::apps
