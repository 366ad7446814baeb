// What the command line of each command takes, for the manual pages and the completions of shells.
#pragma once

#include <string>
#include <vector>

#include "apps/command_line.h"
#include "apps/command_list.h"

namespace ratplus::apps {

/// How many words follow an option.
enum class Values { none, one, many };

struct OptionUsage {
  std::string name;        ///< "set", without dashes
  std::string short_name;  ///< "o" of "-o"; empty: none
  Values values = Values::none;
  std::string value;   ///< what the words are: "FILE", "auto|cpu|cuda"; empty without
  std::string preset;  ///< the default value as text; empty: none, or said in `description`
  std::string description;
  bool repeated = false;  ///< may be given again
};

struct CommandUsage {
  std::vector<OptionUsage> options;  ///< in the order of --help
  std::vector<std::string>
      words;  ///< what stands without an option: "JOB.toml"; the last one is for all that follow
  std::string before, after;  ///< the help's text around the options
};

/// By the command's own parsing, without running it.
CommandUsage usage_of(const Command& command);

/// What can be completed of a value by its name: words of "auto|cpu|cuda" (and of KIND, the known GPUs), or a kind.
struct Completion {
  enum class Kind { nothing, words, files, directories, job_files, job_keys };
  Kind kind = Kind::nothing;
  std::vector<std::string> words;
};
Completion completion_of(const std::string& value);

}  // namespace ratplus::apps
