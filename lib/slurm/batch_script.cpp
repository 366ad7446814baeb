#include "lib/slurm/batch_script.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <system_error>

#include "base/error.h"
#include "base/units.h"
#include "lib/slurm/batch_functions.h"

namespace ratplus::slurm {
namespace {

/// As one word of bash.
std::string shell_word(std::string_view text) {
  std::string word = "'";
  for (const char c : text) word += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return word + "'";
}

/// As a value in a #SBATCH line, which knows quotes, but no way to write one.
std::string directive_value(const std::string& value) {
  for (const char c : value) {
    if (c == '"' || c == '\\' || static_cast<unsigned char>(c) < ' ')
      fail("{}: Slurm takes no quotes, backslashes or line ends here; rename it", value);
  }
  return value.find_first_of(" #'") == std::string::npos ? value : "\"" + value + "\"";
}

/// As the name of an output file, where Slurm replaces %j and its like.
std::string without_patterns(const std::string& path) {
  std::string text;
  for (const char c : path) text += c == '%' ? std::string("%%") : std::string(1, c);
  return text;
}

class Directives {
 public:
  /// "--name=value"; nothing where the value is empty or 0.
  void add(std::string_view name, const std::string& value) {
    if (!value.empty()) text_ += fmt::format("#SBATCH --{}={}\n", name, directive_value(value));
  }
  void add(std::string_view name, int value) {
    if (value > 0) add(name, std::to_string(value));
  }
  void add_option(const std::string& option) { text_ += fmt::format("#SBATCH {}\n", option); }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

/// The words of a #SBATCH line as sbatch takes them: quotes and backslashes hide blanks, and # begins a comment.
std::vector<std::string> words_of(std::string_view line) {
  std::vector<std::string> words;
  bool in_word = false, escaped = false;
  char quote = 0;
  for (const char c : line) {
    const bool plain = !escaped && quote == 0;
    if (plain && c == '#') break;
    if (plain && std::isspace(static_cast<unsigned char>(c)) != 0) {
      in_word = false;
      continue;
    }
    if (!in_word) words.emplace_back();
    in_word = true;
    if (!escaped && c == '\\') {
      escaped = true;
    } else if (plain && (c == '"' || c == '\'')) {
      quote = c;
    } else if (!escaped && c == quote) {
      quote = 0;
    } else {
      words.back() += c;
      escaped = false;
    }
  }
  return words;
}

/// One more option of sbatch, which must not take the place of what submit has checked. sbatch takes the beginning of a name
/// for the name.
void check_option(const std::string& option, bool waits) {
  const auto words = words_of(option);
  if (words.empty() || words.front().size() < 3 || !words.front().starts_with("--") ||
      option.find('\n') != std::string::npos)
    fail("--sbatch {}: an option of sbatch begins with --, as --sbatch=--qos=long", option);
  const auto name = words.front().substr(0, words.front().find('='));
  const auto refuse = [&](const char* own) {
    fail("--sbatch={}: submit sets {} itself, for what it has checked", option, own);
  };
  for (const std::string_view own :
       {"--nodes", "--ntasks", "--ntasks-per-node", "--tasks-per-node", "--mincpus", "--gpus-per-node",
        "--cpus-per-task", "--time", "--signal", "--requeue", "--no-requeue", "--chdir", "--output",
        "--error", "--array"}) {
    // --gpus is an option of its own.
    if (own.starts_with(name) && name != "--gpus") refuse(own.data());
  }
  if (waits && std::string_view("--dependency").starts_with(name)) refuse("--dependency (--after)");
  for (std::size_t i = 1; i < words.size(); ++i) {
    if (words[i].starts_with("-"))
      fail("--sbatch \"{}\": one option at a time, and --sbatch as often as wanted", option);
  }
}

std::string directives(const BatchScript& script) {
  const Resources& r = script.resources;
  Directives lines;
  lines.add("job-name", script.name);
  lines.add("partition", r.partition);
  lines.add("account", r.account);
  lines.add("nodes", r.nodes_text());
  // From tasks, Slurm would derive the most nodes that it gives: those of the fewest nodes, one a node.
  if (r.any_of_several()) {
    lines.add("mincpus", r.ranks_per_node * std::max(1, r.cpus_per_rank));
  } else {
    lines.add("ntasks-per-node", r.ranks_per_node);
  }
  lines.add("gpus-per-node", r.gpus_per_node);
  lines.add("cpus-per-task", r.cpus_per_rank);
  lines.add("time", r.time);
  lines.add("signal", fmt::format("B:USR1@{}", r.stop_before));
  if (!r.after.empty()) {
    lines.add("dependency", "afterok:" + r.after);
    lines.add("kill-on-invalid-dep", "yes");
  }
  lines.add_option("--requeue");
  lines.add("open-mode", "append");
  lines.add("chdir", script.working_directory.string());
  lines.add("output", without_patterns(script.log_directory.string()) + "/slurm-%j.log");
  for (const std::string& option : r.more) lines.add_option(option);
  return lines.text();
}

}  // namespace

const char* to_string(Launcher launcher) {
  return launcher == Launcher::srun ? "srun" : "mpirun";
}

Launcher parse_launcher(std::string_view name) {
  for (const auto launcher : {Launcher::srun, Launcher::mpirun}) {
    if (name == to_string(launcher)) return launcher;
  }
  fail("--launcher {}: ranks are started by srun or mpirun", name);
}

std::vector<int> Resources::possible_nodes() const {
  std::vector<int> result;
  for (int n = nodes; n <= std::max(nodes, most_nodes); ++n) result.push_back(n);
  return result;
}

std::string Resources::nodes_text() const {
  return any_of_several() ? fmt::format("{}-{}", nodes, most_nodes) : fmt::format("{}", nodes);
}

void Resources::set_nodes(const std::string& text) {
  const auto dash = text.find('-', 1);  // a sign is refused below
  const auto number = [&](std::string_view digits) {
    int value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size())
      fail("--nodes {}: a number of nodes is wanted, as 4, or the least and the most, as 2-4", text);
    return value;
  };
  const std::string_view all = text;
  nodes = number(all.substr(0, dash));
  most_nodes = dash == std::string::npos ? nodes : number(all.substr(dash + 1));
}

std::vector<int> Resources::rank_nodes(int on_nodes) const {
  std::vector<int> result;
  for (int rank = 0; rank < on_nodes * ranks_per_node; ++rank) result.push_back(rank / ranks_per_node);
  return result;
}

void check(const Resources& r) {
  const int most_nodes = std::max(r.nodes, r.most_nodes);
  if (r.nodes < 1 || most_nodes > 100'000) fail("--nodes {} is not between 1 and 100000", r.nodes_text());
  if (r.most_nodes != 0 && r.most_nodes < r.nodes)
    fail("--nodes {}-{}: the least number of nodes is first; give {}-{}", r.nodes, r.most_nodes, r.most_nodes,
         r.nodes);
  constexpr int most_numbers = 1000;
  if (most_nodes - r.nodes >= most_numbers)
    fail("--nodes {}: from the least to the most there are {} numbers at most; give fewer", r.nodes_text(),
         most_numbers);
  if (r.ranks_per_node < 1 || r.ranks_per_node > 10'000)
    fail("{} ranks a node are not between 1 and 10000", r.ranks_per_node);
  if (r.gpus_per_node < 0 || r.cpus_per_rank < 0)
    fail("--gpus-per-node and --cpus-per-rank are not negative");
  if (r.gpus_per_node > 0 && r.ranks_per_node > r.gpus_per_node) {
    fail("--ranks-per-node {} is more than --gpus-per-node {}, and a rank takes a GPU", r.ranks_per_node,
         r.gpus_per_node);
  }
  constexpr std::int64_t most_ranks = 1 << 20;
  if (std::int64_t{most_nodes} * r.ranks_per_node > most_ranks) {
    fail("--nodes {} of {} are more than {} ranks", most_nodes, counted(r.ranks_per_node, "rank"),
         most_ranks);
  }
  constexpr int most = 65535;  // that Slurm takes
  if (r.stop_before < 1 || r.stop_before > most)
    fail("--stop-before {} is not between 1 and {} s", r.stop_before, most);
  const auto limit = r.time.empty() ? -1 : limit_seconds(r.time);
  if (limit >= 0 && limit <= r.stop_before) {
    fail(
        "--time {} is {} s, of which --stop-before {} leaves none: the ranks would be told to "
        "save at once; ask for more "
        "time, or give a smaller --stop-before",
        r.time, limit, r.stop_before);
  }
  if (r.after.find_first_not_of("0123456789_:,") != std::string::npos)
    fail("--after {}: the number of a job of Slurm's is wanted", r.after);
  for (const std::string& option : r.more) check_option(option, !r.after.empty());
}

std::string BatchScript::text() const {
  return fmt::format(
      "#!/usr/bin/env bash\n"
      "# Written by `ratplus submit`; may be changed and submitted again with sbatch.\n"
      "{}\n"
      "ratplus={}\n"
      "launcher={}\n"
      "launcher_options=()\n"
      "{}{}"
      "\n"
      "# --- jobs/slurm/batch.sh\n"
      "{}"
      "# ---\n"
      "\n"
      "train {}\n",
      directives(*this), shell_word(program.string()), to_string(launcher),
      check_first ? "check_first=true\n" : "",
      resources.any_of_several() ? fmt::format("ranks_per_node={}\n", resources.ranks_per_node) : "",
      batch_functions, shell_word(job_file.string()));
}

std::int64_t limit_seconds(const std::string& time) {
  if (time == "UNLIMITED" || time == "INFINITE") return -1;
  const auto dash = time.find('-');
  const bool days = dash != std::string::npos;
  std::vector<std::int64_t> fields(1);
  bool digits = false;  // in the last field
  bool right = !days || dash > 0;
  for (const char c : time) {
    if (c >= '0' && c <= '9') {
      fields.back() = std::min<std::int64_t>(fields.back() * 10 + (c - '0'), 1'000'000'000);
      digits = true;
    } else {
      right = right && digits && (c == ':' || (c == '-' && days && fields.size() == 1));
      fields.push_back(0);
      digits = false;
    }
  }
  right = right && digits && fields.size() <= (days ? 4 : 3);
  if (!right) {
    fail(
        "\"{}\" is no time limit of Slurm's: it takes minutes, minutes:seconds, hours:minutes:seconds or "
        "days-hours, as "
        "90, 24:00:00 or 2-12",
        time);
  }
  // What one of each field is worth.
  constexpr std::array<std::int64_t, 4> of_days = {86400, 3600, 60, 1};
  constexpr std::array<std::int64_t, 3> of_hours = {3600, 60, 1};
  std::int64_t seconds = 0;
  for (std::size_t i = 0; i < fields.size(); ++i) {
    const auto worth = days ? of_days[i] : fields.size() == 3 ? of_hours[i] : of_hours[i + 1];
    seconds += fields[i] * worth;
  }
  return seconds;
}

}  // namespace ratplus::slurm
