#include "apps/usage.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "lib/plan/cluster.h"

namespace ratplus::apps {
namespace {

namespace po = boost::program_options;

std::vector<std::string> split(std::string_view text, char at) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const auto end = std::min(text.find(at), text.size());
    parts.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

OptionUsage usage_of(const po::option_description& option) {
  const auto& value = *option.semantic();
  OptionUsage usage;
  usage.name = option.long_name();
  usage.description = option.description();
  // "-o [ --output ]" where there is a short name.
  const auto shown = option.format_name();
  if (shown.size() > 1 && shown[1] != '-') usage.short_name = shown.substr(1, 1);
  usage.values = value.max_tokens() == 0   ? Values::none
                 : value.max_tokens() == 1 ? Values::one
                                           : Values::many;
  usage.repeated = value.is_composing();
  if (usage.values == Values::none) return usage;
  usage.value = value.name();  // "N (=4096)"
  const auto preset = usage.value.find(" (=");
  if (preset != std::string::npos) {
    usage.preset = usage.value.substr(preset + 3, usage.value.size() - preset - 4);
    usage.value.resize(preset);
  }
  return usage;
}

/// Where parse_command_line leaves a command's options; nothing is asked for while it is null.
CommandUsage* asked = nullptr;

}  // namespace

bool leave_usage(const po::options_description& options, const Positional& positional, const HelpText& help) {
  if (asked == nullptr) return false;
  asked->before = help.before;
  asked->after = help.after;
  asked->words = split(positional.words, ' ');
  for (const auto& option : options.options()) asked->options.push_back(usage_of(*option));
  return true;
}

CommandUsage usage_of(const Command& command) {
  CommandUsage usage;
  asked = &usage;
  command.run({"--help"});
  asked = nullptr;
  return usage;
}

Completion completion_of(const std::string& value) {
  using Kind = Completion::Kind;
  if (value == "KIND") {
    Completion gpus{.kind = Kind::words, .words = {}};
    for (const auto& gpu : plan::known_gpus()) gpus.words.emplace_back(gpu.name);
    return gpus;
  }
  if (value.find('|') != std::string::npos) {
    Completion choice{.kind = Kind::words, .words = split(value, '|')};
    const auto is_word = [](const std::string& word) {
      return std::ranges::none_of(word, [](char c) { return (c >= 'A' && c <= 'Z') || c == '.'; });
    };
    if (std::ranges::all_of(choice.words, is_word)) return choice;
    return {.kind = Kind::files, .words = {}};  // FILE.html|DIR
  }
  if (value == "SECTION.KEY=VALUE") return {.kind = Kind::job_keys, .words = {}};
  if (value == "JOB.toml") return {.kind = Kind::job_files, .words = {}};
  if (value == "D,W,I") return {.kind = Kind::words, .words = {"dense"}};
  if (value == "DIR" || value == "RUN") return {.kind = Kind::directories, .words = {}};
  constexpr std::array<std::string_view, 9> files = {"FILE",  "FILE.svg",   "OUT.h5", "MODEL", "PATH",
                                                     "INPUT", "CHECKPOINT", "SRC",    "DST"};
  if (std::ranges::find(files, value) != files.end()) return {.kind = Kind::files, .words = {}};
  return {};
}

}  // namespace ratplus::apps
