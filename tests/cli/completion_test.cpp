// Completions of shells and manual pages: every command and option is in them, and bash completes by them.
#include <doctest/doctest.h>

#include <set>
#include <sstream>

#include "base/files/pending_file.h"
#include "lib/config/keys.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;
using test::contains;

namespace {

/// Commands as `ratplus --help` lists them.
std::vector<std::string> commands() {
  std::vector<std::string> names;
  const auto help = test::ratplus("--help").output;
  std::istringstream in(help.substr(help.find("commands:\n") + 10));
  for (std::string line; std::getline(in, line) && line.starts_with("  ");)
    names.push_back(line.substr(2, line.find(' ', 2) - 2));
  return names;
}

/// "--set" and so on, as a command's --help lists them.
std::set<std::string> options(const std::string& command) {
  std::set<std::string> names;
  const auto help = test::ratplus(command + " --help").output;
  const auto begin = help.rfind("options:\n");
  REQUIRE(begin != std::string::npos);
  std::istringstream in(help.substr(begin));
  for (std::string line; std::getline(in, line);) {
    const auto at = line.find("--");
    if (!line.starts_with("  -") || at == std::string::npos) continue;
    names.insert(line.substr(at, line.find_first_of(" ", at) - at));
  }
  return names;
}

/// bash with the completions, asked for what is typed: its words, of which the last one is to be completed.
class Bash {
 public:
  Bash() {
    write_whole_file(script_, "source " + (scratch_ / "ratplus").string() +
                                  "\nCOMP_WORDBREAKS=$' \\t\\n\"\\'><=;|&(:'\n"
                                  "COMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1))\n_ratplus\n"
                                  "printf '%s\\n' \"${COMPREPLY[@]}\"\n");
    REQUIRE(test::ratplus("completion bash > " + (scratch_ / "ratplus").string()).status == 0);
    REQUIRE(test::shell("bash -n " + (scratch_ / "ratplus").string()).status == 0);
    write_whole_file(scratch_ / "job.toml", "");
    write_whole_file(scratch_ / "notes.txt", "");
    fs::create_directory(scratch_ / "data");
  }

  /// Candidates, each in a line. Words are cut at "=" as bash does.
  std::string complete(const std::string& words) {
    const auto result =
        test::shell("cd " + scratch_.path().string() + " && bash " + script_.string() + " " + words);
    CHECK(result.status == 0);
    return result.output;
  }

 private:
  test::ScratchDirectory scratch_;
  fs::path script_ = scratch_ / "complete.bash";
};

}  // namespace

TEST_CASE("completions and manual pages name every command and every option") {
  const auto all = commands();
  REQUIRE(all.size() >= 19);
  const auto bash = test::ratplus("completion bash").output, zsh = test::ratplus("completion zsh").output,
             fish = test::ratplus("completion fish").output, overview = test::ratplus("manual").output;
  for (const auto& command : all) {
    CAPTURE(command);
    const auto page = test::ratplus("manual " + command);
    CHECK(page.status == 0);
    std::string in_page;  // without the escapes of dashes
    for (const char c : page.output) {
      if (c != '\\') in_page += c;
    }
    std::string in_overview;
    for (const char c : overview) {
      if (c != '\\') in_overview += c;
    }
    CHECK(contains(in_overview, "fB" + command + "fR\n"));
    CHECK(contains(in_page, ".SH SYNOPSIS\n.nf\n"));
    for (const auto& option : options(command)) {
      CAPTURE(option);
      CHECK(contains(in_page, "fB" + option + "fR"));
      const auto line = bash.find("    " + command + ") choices='");
      REQUIRE(line != std::string::npos);
      CHECK(contains(bash.substr(line, bash.find('\n', line) - line) + " ", option));
      CHECK(contains(zsh, option));
      CHECK(contains(fish, "__fish_seen_subcommand_from " + command + "' -l " + option.substr(2)));
    }
  }
  for (const auto& key : config::known_values()) {
    CAPTURE(key.path);
    for (const auto* script : {&bash, &zsh, &fish}) CHECK(contains(*script, key.path));
  }
}

TEST_CASE("manual pages are good troff") {
  const test::ScratchDirectory scratch;
  REQUIRE(test::ratplus("manual --output " + (scratch / "man1").string()).status == 0);
  int pages = 0;
  for (const auto& page : fs::directory_iterator(scratch / "man1")) {
    CAPTURE(page.path().string());
    ++pages;
    // Where man is installed.
    const auto shown = test::shell("command -v man >/dev/null || exit 0; MANWIDTH=100 man --warnings -l " +
                                   page.path().string() + " >/dev/null");
    CHECK(shown.status == 0);
    CHECK(shown.output.empty());
  }
  CHECK(pages == static_cast<int>(commands().size()) + 1);
  CHECK(contains(test::ratplus("manual nothing").output, "there is no command \"nothing\""));
  CHECK(contains(test::ratplus("completion tcsh").output, "bash, zsh and fish"));
}

TEST_CASE("bash completes commands, options, values, keys and files") {
  Bash bash;
  CHECK(bash.complete("ratplus tr") == "train\n");
  CHECK(contains(bash.complete("ratplus \"\""), "data-bench\n"));
  CHECK(bash.complete("ratplus train job.toml --res") == "--resume\n");
  CHECK(bash.complete("ratplus eval run --device \"\"") == "auto\ncpu\ncuda\n");
  CHECK(bash.complete("ratplus eval run --device = cu") == "cuda\n");
  CHECK(bash.complete("ratplus convert a b --dtype f") == "float32\nfloat16\n");
  CHECK(bash.complete("ratplus plan job.toml --gpu h") == "h100\nh200\n");
  CHECK(bash.complete("ratplus completion z") == "zsh\n");
  CHECK(bash.complete("ratplus manual data") == "data-bench\n");
  CHECK(bash.complete("ratplus bench s") == "step\n");
  // After --set come keys and their values, as many as there are words.
  CHECK(bash.complete("ratplus train job.toml --set job.dev") == "job.device=\n");
  CHECK(bash.complete("ratplus train job.toml --set job.device = c") == "cpu\ncuda\n");
  CHECK(bash.complete("ratplus train job.toml --set data.batch = 4 parallel.shard = \"\"") ==
        "none\noptimizer\nfull\nauto\n");
  CHECK(bash.complete("ratplus train job.toml --set data.batch = 4 --res") == "--resume\n");
  // Files: job files and directories for jobs, directories for --output, all for inputs.
  CHECK(bash.complete("ratplus train \"\"") == "data\njob.toml\n");
  CHECK(bash.complete("ratplus prepare notes.txt --output \"\"") == "data\n");
  CHECK(bash.complete("ratplus prepare n") == "notes.txt\n");
  CHECK(bash.complete("ratplus train job.toml --stop-after \"\"") == "\n");  // a number
}
