// ratplus completion: scripts by which shells complete its command line, made of the commands' own options.
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <cstdio>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/command_line.h"
#include "apps/commands.h"
#include "apps/usage.h"
#include "lib/config/keys.h"

namespace ratplus::apps {
namespace {

namespace po = boost::program_options;
using Kind = Completion::Kind;

constexpr const char* completion_help = R"(usage: ratplus completion bash|zsh|fish

Prints a script by which the shell completes commands, options, values that are one of several, keys of
job files after --set, and names of files. An installed ratplus has them where shells look for them.

)";

constexpr const char* completion_help_end = R"(
examples:
  source <(ratplus completion bash)                                         # in ~/.bashrc
  ratplus completion zsh > ~/.zfunc/_ratplus                                # of fpath, before compinit
  ratplus completion fish > ~/.config/fish/completions/ratplus.fish
)";

/// As one word of a POSIX shell, zsh or fish.
std::string in_quotes(std::string_view text) {
  std::string word = "'";
  for (const char c : text) word += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return word + "'";
}

struct Described {
  const Command* command;
  CommandUsage usage;
};

std::vector<Described> describe_all() {
  std::vector<Described> all;
  for (const auto& command : all_commands()) {
    all.push_back({&command, usage_of(command)});
    // Commands that take a command.
    for (auto& word : all.back().usage.words) {
      if (word != "COMMAND") continue;
      word.clear();
      for (const auto& other : all_commands())
        word += fmt::format("{}{}", word.empty() ? "" : "|", other.name);
    }
  }
  return all;
}

// --- bash -------------------------------------------------------------------------------------------------------------

constexpr std::string_view bash_begin =
    R"bash(# Completions of ratplus for bash, made by `ratplus completion bash`.

# _ratplus_value COMMAND OPTION: sets `takes` (words that follow the option: 0, 1, many) and `kind` (words, files,
# directories, job_files, job_keys, nothing) with `choices`. OPTION @0, @1, ... is a word without option.
_ratplus_value() {
  takes=1 kind=nothing choices=
  case "$1 $2" in
)bash";

constexpr std::string_view bash_end = R"bash(
# _ratplus_candidates VALUE: fills `candidates` by `kind` and `choices`.
_ratplus_candidates() {
  local key
  case $kind in
    words) mapfile -t candidates < <(compgen -W "$choices" -- "$1") ;;
    files) mapfile -t candidates < <(compgen -f -- "$1") && compopt -o filenames 2>/dev/null ;;
    directories) mapfile -t candidates < <(compgen -d -- "$1") && compopt -o filenames 2>/dev/null ;;
    job_files)
      mapfile -t candidates < <(compgen -d -- "$1"; compgen -f -X '!*.toml' -- "$1")
      compopt -o filenames 2>/dev/null
      ;;
    job_keys)
      if [[ $1 == *=* ]]; then
        key=${1%%=*}
        _ratplus_key "$key"
        mapfile -t candidates < <(compgen -P "$key=" -W "$choices" -- "${1#*=}")
      else
        mapfile -t candidates < <(compgen -S = -W "$_ratplus_keys" -- "$1")
        compopt -o nospace 2>/dev/null
      fi
      ;;
  esac
}

_ratplus() {
  local line=() word joined=false i command option= given=0 place=0 takes kind choices candidates=() part before
  # bash cuts words at "=": "--device=cpu" is three of them.
  for ((i = 0; i <= COMP_CWORD; ++i)); do
    word=${COMP_WORDS[i]}
    if ((i > 0)) && { [[ $word == = ]] || $joined; }; then line[-1]+=$word; else line+=("$word"); fi
    if [[ $word == = ]]; then joined=true; else joined=false; fi
  done
  word=${line[-1]} command=${line[1]}
  COMPREPLY=()
  if ((${#line[@]} == 2)); then
    kind=words choices="$_ratplus_commands --help --version"
    _ratplus_candidates "$word"
    COMPREPLY=("${candidates[@]}")
    return
  fi
  for ((i = 2; i < ${#line[@]} - 1; ++i)); do
    if [[ ${line[i]} == -* ]]; then
      option=${line[i]%%=*} given=0
      _ratplus_value "$command" "$option"
      if [[ $takes == 0 || ${line[i]} == *=* ]]; then option=; fi
    elif [[ -n $option ]]; then
      given=$((given + 1))
      if [[ $takes == 1 ]]; then option=; fi
    else
      place=$((place + 1))
    fi
  done
  before=
  if [[ $word == --*=* ]]; then
    _ratplus_value "$command" "${word%%=*}"
    before=${word%%=*}= word=${word#*=}
    _ratplus_candidates "$word"
  elif [[ $word == -* ]]; then
    kind=words
    _ratplus_options "$command"
    _ratplus_candidates "$word"
  else
    _ratplus_value "$command" "${option:-@$place}"
    _ratplus_candidates "$word"
  fi
  # What bash replaces begins after the last "=" where it cuts there.
  part=$before$word
  if [[ $COMP_WORDBREAKS == *=* && $part == *=* ]]; then part=${part%=*}=; else part=; fi
  for i in "${candidates[@]}"; do
    i=$before$i
    COMPREPLY+=("${i#"$part"}")
  done
}

complete -F _ratplus ratplus
)bash";

std::string_view kind_name(Kind kind) {
  switch (kind) {
    case Kind::words:
      return "words";
    case Kind::files:
      return "files";
    case Kind::directories:
      return "directories";
    case Kind::job_files:
      return "job_files";
    case Kind::job_keys:
      return "job_keys";
    case Kind::nothing:
      break;
  }
  return "nothing";
}

std::string bash_value(std::string_view pattern, std::string_view takes, const Completion& value) {
  std::string text = fmt::format("    {}) ", pattern);
  if (takes != "1") text += fmt::format("takes={} ", takes);
  if (value.kind != Kind::nothing) text += fmt::format("kind={} ", kind_name(value.kind));
  if (!value.words.empty())
    text += fmt::format("choices={} ", in_quotes(fmt::format("{}", fmt::join(value.words, " "))));
  return text + ";;\n";
}

std::string names_of(const OptionUsage& option, const std::function<std::string(const std::string&)>& form) {
  auto names = form("--" + option.name);
  if (!option.short_name.empty()) names += " | " + form("-" + option.short_name);
  return names;
}

std::string bash_script(const std::vector<Described>& all) {
  std::string text(bash_begin);
  for (const auto& [command, usage] : all) {
    const auto name_of_command = command->name;
    for (const auto& option : usage.options) {
      const auto pattern = names_of(option, [name_of_command](const auto& name) {
        return fmt::format("'{} {}'", name_of_command, name);
      });
      const auto value = completion_of(option.value);
      if (option.values == Values::one && value.kind == Kind::nothing) continue;  // as is set before
      text += bash_value(pattern,
                         option.values == Values::none  ? "0"
                         : option.values == Values::one ? "1"
                                                        : "many",
                         value);
    }
    for (std::size_t place = 0; place < usage.words.size(); ++place) {
      const bool last = place + 1 == usage.words.size();
      const auto pattern =
          last ? fmt::format("'{} @'*", command->name) : fmt::format("'{} @{}'", command->name, place);
      text += bash_value(pattern, "1", completion_of(usage.words[place]));
    }
  }
  text += "  esac\n}\n\n# _ratplus_options COMMAND: sets `choices`.\n_ratplus_options() {\n  case $1 in\n";
  for (const auto& [command, usage] : all) {
    std::vector<std::string> names;
    for (const auto& option : usage.options) names.push_back("--" + option.name);
    text += fmt::format("    {}) choices={} ;;\n", command->name,
                        in_quotes(fmt::format("{}", fmt::join(names, " "))));
  }
  text +=
      "    *) choices= ;;\n  esac\n}\n\n# _ratplus_key SECTION.KEY: sets `choices` to its "
      "values.\n_ratplus_key() {\n  case $1 in\n";
  const auto keys = config::known_values();
  std::string names;
  for (const auto& key : keys) {
    names += (names.empty() ? "" : " ") + key.path;
    if (!key.values.empty())
      text += fmt::format("    {}) choices='{}' ;;\n", key.path, fmt::join(key.values, " "));
  }
  text += "    *) choices= ;;\n  esac\n}\n\n";
  text += fmt::format("_ratplus_keys='{}'\n", names);
  std::vector<std::string_view> commands;
  for (const auto& each : all) commands.push_back(each.command->name);
  return text + fmt::format("_ratplus_commands='{}'\n", fmt::join(commands, " ")) + std::string(bash_end);
}

// --- zsh --------------------------------------------------------------------------------------------------------------

/// Within [...] or a message of _arguments.
std::string zsh_text(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') result += '\\';
    result += c;
  }
  return result;
}

std::string zsh_action(const Completion& value) {
  switch (value.kind) {
    case Kind::words:
      return fmt::format("({})", fmt::join(value.words, " "));
    case Kind::files:
      return "_files";
    case Kind::directories:
      return "_files -/";
    case Kind::job_files:
      return "_files -g \"*.toml\"";
    case Kind::job_keys:
      return "_ratplus_keys";
    case Kind::nothing:
      break;
  }
  return " ";
}

std::string zsh_option(const OptionUsage& option, const std::string& name) {
  std::string spec = (option.repeated ? "*" : "") + name;
  if (option.values == Values::one && name.starts_with("--")) spec += '=';
  spec += fmt::format("[{}]", zsh_text(option.description));
  if (option.values == Values::none) return in_quotes(spec);
  const auto action = zsh_action(completion_of(option.value));
  spec += option.values == Values::many ? ":*-*:" : ":";
  return in_quotes(spec + zsh_text(option.value) + ":" + action);
}

std::string zsh_script(const std::vector<Described>& all) {
  std::string text =
      "#compdef ratplus\n# Completions of ratplus for zsh, made by `ratplus completion zsh`.\n\n"
      "_ratplus_keys() {\n  if compset -P 1 '*='; then\n    case $IPREFIX in\n";
  const auto keys = config::known_values();
  std::string names;
  for (const auto& key : keys) {
    names += " " + key.path;
    if (!key.values.empty())
      text += fmt::format("      *{}=) compadd -- {} ;;\n", key.path, fmt::join(key.values, " "));
  }
  text += fmt::format("    esac\n  else\n    compadd -S = --{}\n  fi\n}}\n\n", names);
  text += "_ratplus() {\n  local curcontext=$curcontext state line\n  local -a commands=(\n";
  for (const auto& each : all)
    text += fmt::format("    {}\n",
                        in_quotes(fmt::format("{}:{}", each.command->name, zsh_text(each.command->summary))));
  text +=
      "  )\n  _arguments -C '(- *)--help[list the commands]' '(- *)--version[list versions]' "
      "'1:command:->command' "
      "'*::argument:->argument'\n"
      "  case $state in\n    command) _describe command commands ;;\n    argument)\n      case $words[1] "
      "in\n";
  for (const auto& [command, usage] : all) {
    text += fmt::format("        {})\n          _arguments", command->name);
    for (const auto& option : usage.options) {
      text += " \\\n            " + zsh_option(option, "--" + option.name);
      if (!option.short_name.empty())
        text += " \\\n            " + zsh_option(option, "-" + option.short_name);
    }
    for (std::size_t place = 0; place < usage.words.size(); ++place) {
      const auto& word = usage.words[place];
      const bool last = place + 1 == usage.words.size();
      text += " \\\n            " + in_quotes(fmt::format("{}:{}:{}", last ? "*" : std::to_string(place + 1),
                                                          zsh_text(word), zsh_action(completion_of(word))));
    }
    text += "\n          ;;\n";
  }
  return text +
         "      esac\n      ;;\n  esac\n}\n\n"
         "if [[ $funcstack[1] == _ratplus ]]; then _ratplus \"$@\"; else compdef _ratplus ratplus; fi\n";
}

// --- fish -------------------------------------------------------------------------------------------------------------

std::string fish_values(const Completion& value) {
  switch (value.kind) {
    case Kind::words:
      return fmt::format(" -x -a {}", in_quotes(fmt::format("{}", fmt::join(value.words, " "))));
    case Kind::files:
      return " -r -F";
    case Kind::directories:
      return " -x -a '(__fish_complete_directories)'";
    case Kind::job_files:
      return " -x -a '(__fish_complete_suffix .toml)'";
    case Kind::job_keys:
      return " -x -a '(_ratplus_keys)'";
    case Kind::nothing:
      break;
  }
  return " -x";
}

std::string fish_script(const std::vector<Described>& all) {
  std::string text =
      "# Completions of ratplus for fish, made by `ratplus completion fish`.\n\nfunction _ratplus_keys\n";
  for (const auto& key : config::known_values()) {
    if (key.values.empty()) text += fmt::format("  echo {}=\n", key.path);
    for (const auto& value : key.values) text += fmt::format("  echo {}={}\n", key.path, value);
  }
  text += "end\n\ncomplete -c ratplus -f\n";
  for (const auto& [command, usage] : all) {
    text += fmt::format("complete -c ratplus -n __fish_use_subcommand -a {} -d {}\n", command->name,
                        in_quotes(command->summary));
    const auto begin = fmt::format("complete -c ratplus -n '__fish_seen_subcommand_from {}'", command->name);
    for (const auto& option : usage.options) {
      text += begin + " -l " + option.name;
      if (!option.short_name.empty()) text += " -s " + option.short_name;
      if (option.values != Values::none) text += fish_values(completion_of(option.value));
      text += " -d " + in_quotes(option.description) + "\n";
    }
    for (const auto& word : usage.words) {
      const auto value = completion_of(word);
      if (value.kind == Kind::files) text += begin + " -F\n";
      if (value.kind != Kind::files && value.kind != Kind::nothing)
        text += begin + fish_values(value).substr(3) + "\n";
    }
  }
  return text;
}

}  // namespace

int completion_command(const Arguments& args) {
  std::string shell;
  po::options_description options("options");
  const Positional place{"shell", 1, po::value(&shell), "name the shell: bash, zsh or fish", "bash|zsh|fish"};
  if (!parse_command_line(args, options, place, {completion_help, completion_help_end})) return 0;
  if (shell != "bash" && shell != "zsh" && shell != "fish")
    throw po::error(fmt::format("there are no completions for \"{}\": bash, zsh and fish have some", shell));
  const auto all = describe_all();
  const auto script = shell == "bash"  ? bash_script(all)
                      : shell == "zsh" ? zsh_script(all)
                                       : fish_script(all);
  std::fputs(script.c_str(), stdout);
  return 0;
}

}  // namespace ratplus::apps
