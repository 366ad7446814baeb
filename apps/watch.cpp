// ratplus watch: a run in the terminal, live.
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>

#include "apps/command_line.h"
#include "apps/format.h"
#include "apps/terminal.h"
#include "base/error.h"
#include "base/files/whole_path.h"
#include "lib/report/job_settings.h"
#include "lib/report/watch_frame.h"

namespace ratplus::apps {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

constexpr const char* watch_help = R"(usage: ratplus watch RUN [--once] [--every SECONDS] [--ascii]

Shows how a training run goes, from what it writes into its directory: how far it is and when it ends,
losses, throughput, memory and waits, curves, warnings, and the end of its log. Waits for a run that has
not begun yet, goes on when it is resumed, and ends when it has finished; Ctrl-C or q ends it earlier. The
run itself is not touched: any number may watch, on any machine that sees the directory.

)";

constexpr const char* watch_help_end = R"(
examples:
  ratplus watch runs/1b
  ratplus watch runs/1b --once                     one picture, for a log or a script
  ssh cluster ratplus watch --once runs/1b
)";

struct WatchArguments {
  std::string run;
  bool once = false;
  double every = 1;  ///< seconds
  bool ascii = false;
};

/// Empty when help was asked for and given.
std::optional<WatchArguments> parse_watch(const Arguments& args) {
  WatchArguments parsed;
  po::options_description options("options");
  options.add_options()("once", po::bool_switch(&parsed.once),
                        "show the run as it stands and end; so, too, where the output is no terminal")(
      "every", po::value(&parsed.every)->default_value(parsed.every)->value_name("SECONDS"),
      "how often to look")("ascii", po::bool_switch(&parsed.ascii),
                           "no Braille characters, for terminals without");
  const Positional run{"run", 1, po::value(&parsed.run), "a run directory is missing", "RUN"};
  if (!parse_command_line(args, options, run, {watch_help, watch_help_end})) return std::nullopt;
  if (!(parsed.every >= 0.1 && parsed.every <= 3600)) throw po::error("--every is from 0.1 to 3600 seconds");
  return parsed;
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// "pretrain, joint"
std::string summary_of(const report::JobSettings& job) {
  std::string summary;
  for (const char* key : {"job.kind", "job.recipe"}) {
    std::string value = job.value_of(key);
    if (value == "-") continue;
    std::erase_if(value, [](char c) { return c == '"' || c == '\''; });
    summary += (summary.empty() ? "" : ", ") + value;
  }
  return summary;
}

/// The last lines of a log of any length.
std::vector<std::string> log_tail(const fs::path& file, std::size_t count) {
  std::ifstream in(file, std::ios::binary | std::ios::ate);
  if (!in) return {};
  constexpr std::streamoff enough = 8192;
  const std::streamoff size = in.tellg();
  in.seekg(std::max<std::streamoff>(size - enough, 0));
  std::deque<std::string> lines;
  std::string line;
  if (size > enough) std::getline(in, line);  // begins in the middle
  while (std::getline(in, line)) {
    lines.push_back(line);
    if (lines.size() > count) lines.pop_front();
  }
  return {lines.begin(), lines.end()};
}

/// Whether the directory holds something that a run, or `ratplus submit`, writes before the run's first metrics.
bool holds_run(const fs::path& directory) {
  const std::array names = {"metrics.jsonl", "log.txt",     "job.toml",
                            "starts",        "checkpoints", "submitted.toml"};
  return std::ranges::any_of(names, [&](const char* name) { return fs::exists(directory / name); });
}

class Watch {
 public:
  explicit Watch(const WatchArguments& args) : args_(args), reader_(args.run) {}

  void look(std::int64_t most = std::numeric_limits<std::int64_t>::max()) {
    const bool changed = reader_.update(most);
    // A resumed run's job may have been changed.
    if (changed || summary_.empty()) summary_ = summary_of(report::read_job_settings(args_.run));
  }
  bool behind() const { return reader_.behind(); }
  std::string reading() const {
    return fmt::format("reading {}: {} of {}\n", reader_.file().string(), format_bytes(reader_.offset()),
                       format_bytes(reader_.size()));
  }
  bool finished() const { return reader_.metrics().finished(); }

  std::string frame(const TerminalSize& size, bool colour) const {
    const report::TerminalStyle style{.colour = colour, .braille = !args_.ascii};
    const bool begun = reader_.metrics().last_step || reader_.metrics().last_validation;
    if (!begun && !holds_run(args_.run))
      return fmt::format("waiting for a run to begin in {} (Ctrl-C or q ends this)\n", args_.run);
    const report::WatchedRun run{reader_.metrics(), summary_, log_tail(fs::path(args_.run) / "log.txt", 3),
                                 now()};
    std::string text;
    for (const auto& line : report::make_watch_frame(run, size.columns, size.rows, style)) {
      std::string shown = report::to_text(line, style);
      shown.erase(shown.find_last_not_of(' ') + 1);
      text += shown + "\n";
    }
    return text;
  }

 private:
  const WatchArguments& args_;
  report::MetricsReader reader_;
  std::string summary_;
};

/// A run's directory is made when it begins, so that it may be missing, or be there without files; a file in its place,
/// or a directory of something else, is a mistake.
void check_run(const WatchArguments& args, bool live) {
  if (fs::is_directory(args.run)) {
    if (fs::is_empty(args.run) || holds_run(args.run)) return;
    const auto parent = whole_path(args.run).parent_path();
    std::vector<std::string> runs;
    for (const auto& entry : fs::directory_iterator(args.run)) {
      if (entry.is_directory() && fs::exists(entry.path() / "metrics.jsonl"))
        runs.push_back(entry.path().string());
    }
    std::ranges::sort(runs);
    fail("{}: holds files, but nothing of a run; give a run directory, {}", args.run,
         fs::exists(parent / "metrics.jsonl") ? parent.string()
         : !runs.empty()                      ? fmt::format("such as {}", runs.front())
                                              : "the job.directory of its job file");
  }
  if (fs::exists(args.run)) report::fail_no_run_directory(args.run);
  if (!live) fail("{}: there is no such run yet; without --once, a terminal waits for it", args.run);
}

int show_once(Watch& watch) {
  watch.look();
  fmt::print("{}", watch.frame(terminal_size(), ::isatty(STDOUT_FILENO) != 0));
  return 0;
}

int show_live(Watch& watch, double every) {
  constexpr std::int64_t at_once = 16 << 20;  // bytes: a fraction of a second, so that Ctrl-C is heeded
  std::string last;
  {
    Terminal terminal;
    while (true) {
      watch.look(at_once);
      if (watch.behind()) {
        terminal.show(watch.reading());
        if (terminal.wait(0) == Terminal::Event::quit) break;
        continue;
      }
      last = watch.frame(terminal_size(), true);
      terminal.show(last);
      if (watch.finished() || terminal.wait(every) == Terminal::Event::quit) break;
    }
  }
  fmt::print("{}", last);  // stays, below the command
  return 0;
}

}  // namespace

int watch_command(const Arguments& args) {
  const auto parsed = parse_watch(args);
  if (!parsed) return 0;
  refuse_ranks("watch");
  const bool live = !parsed->once && ::isatty(STDOUT_FILENO) != 0;
  check_run(*parsed, live);
  Watch watch(*parsed);
  return live ? show_live(watch, parsed->every) : show_once(watch);
}

}  // namespace ratplus::apps
