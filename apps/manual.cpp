// ratplus manual: the pages of man(1), made of the commands' own help.
#include <fmt/core.h>

#include <filesystem>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "apps/command_line.h"
#include "apps/commands.h"
#include "apps/usage.h"
#include "apps/version.h"
#include "base/files/new_directories.h"
#include "base/files/pending_file.h"

namespace ratplus::apps {
namespace {

namespace po = boost::program_options;

constexpr const char* manual_help = R"(usage: ratplus manual [COMMAND]
       ratplus manual --output DIR

Prints the manual page of the program, or of a command, as man reads it, or writes all of them into a
directory. An installed ratplus has them: man ratplus, man ratplus-train.

)";

constexpr const char* manual_help_end = R"(
examples:
  ratplus manual train | man -l -
)";

constexpr std::string_view project = "https://arxiv.org/abs/2602.18196";

/// Text as troff prints it: no word of it is a request, and dashes stay those of options.
std::string escaped(std::string_view text) {
  std::string result;
  if (!text.empty() && (text[0] == '.' || text[0] == '\'')) result = "\\&";
  for (const char c : text) {
    if (c == '\\') {
      result += "\\e";
    } else if (c == '-') {
      result += "\\-";
    } else {
      result += c;
    }
  }
  return result;
}

/// An option, a key or a command: bold.
std::string bold(std::string_view text) {
  return "\\fB" + escaped(text) + "\\fR";
}

/// A quoted argument of a request.
std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) result += c == '"' ? std::string("\\(dq") : std::string(1, c);
  return result + "\"";
}

using Lines = std::vector<std::string>;

/// Paragraphs, by empty lines.
std::vector<Lines> paragraphs_of(const std::string& text) {
  std::vector<Lines> paragraphs(1);
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) {
      paragraphs.back().push_back(line);
    } else if (!paragraphs.back().empty()) {
      paragraphs.emplace_back();
    }
  }
  if (paragraphs.back().empty()) paragraphs.pop_back();
  return paragraphs;
}

/// Indented lines stay as they are, others are filled.
std::string body_of(const Lines& lines) {
  std::string text = ".PP\n";
  bool as_is = false;
  for (const auto& line : lines) {
    const bool indented = line.starts_with(' ');
    if (indented != as_is) text += indented ? ".nf\n" : ".fi\n";
    as_is = indented;
    text += escaped(line) + '\n';
  }
  return text + (as_is ? ".fi\n" : "");
}

std::string heading(const std::string& name, std::string_view summary) {
  std::string title = name;
  for (char& c : title) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return fmt::format(".TH {} 1 \"\" {} \"User Commands\"\n.nh\n.ad l\n.SH NAME\n{} \\- {}\n",
                     quoted(escaped(title)), quoted("ratplus " + this_program().version), escaped(name),
                     escaped(summary));
}

std::string statuses() {
  const std::vector<std::pair<int, const char*>> all = {
      {0, "done"},
      {1, "failed, with a message"},
      {exit_usage, "the command line is wrong"},
      {exit_not_finite, "a loss or a gradient norm was not finite; the state before that update is saved"},
      {exit_differing, "ranks differed in what they hold alike; nothing was saved"},
      {exit_stands_out, "ratplus check found something to look at"},
      {exit_interrupted, "stopped by a signal and saved; the same command with --resume continues"}};
  std::string text = ".SH EXIT STATUS\n";
  for (const auto& [status, meaning] : all) text += fmt::format(".TP\n{}\n{}\n", status, escaped(meaning));
  return text;
}

std::string option_lines(const OptionUsage& option) {
  std::string text = ".TP\n";
  if (!option.short_name.empty()) text += bold("-" + option.short_name) + ", ";
  text += bold("--" + option.name);
  if (option.values != Values::none) text += " \\fI" + escaped(option.value) + "\\fR";
  if (option.values == Values::many) text += " ...";
  text += '\n' + escaped(option.description);
  if (!option.preset.empty()) text += "; default: " + escaped(option.preset);
  if (option.values == Values::many) text += "; takes all words that follow";
  return text + '\n';
}

std::string page_of(const Command& command) {
  const auto usage = usage_of(command);
  std::string synopsis, description, examples, notes;
  auto before = paragraphs_of(usage.before);
  const auto after = paragraphs_of(usage.after);
  bool in_after = false;
  for (const auto* paragraphs : {&std::as_const(before), &after}) {
    for (const auto& lines : *paragraphs) {
      constexpr std::string_view usage_word = "usage: ";
      if (lines[0].starts_with(usage_word)) {
        for (const auto& line : lines) synopsis += escaped(line.substr(usage_word.size())) + "\n";
      } else if (lines[0] == "examples:") {
        examples += body_of({lines.begin() + 1, lines.end()});
      } else if (lines[0] != "options:") {
        (in_after ? notes : description) += body_of(lines);
      }
    }
    in_after = true;
  }
  std::string text = heading(fmt::format("ratplus-{}", command.name), command.summary);
  text += ".SH SYNOPSIS\n.nf\n" + synopsis + ".fi\n.SH DESCRIPTION\n" + description + ".SH OPTIONS\n";
  for (const auto& option : usage.options) text += option_lines(option);
  if (!notes.empty()) text += ".SH NOTES\n" + notes;
  if (!examples.empty()) text += ".SH EXAMPLES\n" + examples;
  return text + statuses() + ".SH SEE ALSO\n" + bold("ratplus") + "(1)\n";
}

std::string overview_page() {
  std::string text = heading("ratplus", "distributed training of RAT+ language models over MPI");
  text +=
      ".SH SYNOPSIS\n.nf\n" + bold("ratplus") + " \\fICOMMAND\\fR [\\fIoptions\\fR]\n" +
      bold("mpirun -n 8 ratplus") +
      " \\fICOMMAND\\fR [\\fIoptions\\fR]\n.fi\n.SH DESCRIPTION\n"
      "Trains RAT+ language models on MPI ranks: densely once, then adapted to sparse attention patterns\n(" +
      escaped(project) +
      ").\nEach command has a page of its own:\n.BR ratplus\\-train (1)\nand so on.\n.SH COMMANDS\n";
  for (const auto& command : all_commands())
    text += ".TP\n" + bold(command.name) + "\n" + escaped(command.summary) + "\n";
  text += ".SH OPTIONS\n.TP\n" + bold("--help") +
          "\nList the commands; after a command, its options.\n.TP\n" + bold("--version") +
          "\nList the versions of the program and its libraries.\n" + statuses();
  text += ".SH SEE ALSO\n";
  std::string separator;
  for (const auto& command : all_commands()) {
    text += separator + bold(fmt::format("ratplus-{}", command.name)) + "(1)";
    separator = ",\n";
  }
  return text + "\n";
}

void write_pages(const std::filesystem::path& directory) {
  NewDirectories made(directory, "--output");
  write_whole_file(directory / "ratplus.1", overview_page());
  for (const auto& command : all_commands())
    write_whole_file(directory / fmt::format("ratplus-{}.1", command.name), page_of(command));
  made.keep();
}

}  // namespace

int manual_command(const Arguments& args) {
  std::string name, output;
  po::options_description options("options");
  options.add_options()("output,o", po::value(&output)->value_name("DIR"),
                        "write all pages there, which is made if missing");
  const Positional place{"command", 1, po::value(&name)->default_value("", ""), "", "COMMAND"};
  if (!parse_command_line(args, options, place, {manual_help, manual_help_end})) return 0;
  if (!output.empty()) {
    if (!name.empty()) throw po::error("--output is for all pages: leave the command out");
    write_pages(output);
    return 0;
  }
  if (name.empty()) {
    fmt::print("{}", overview_page());
    return 0;
  }
  const Command* command = find_command(name);
  if (command == nullptr) throw po::error(fmt::format("there is no command \"{}\"", name));
  fmt::print("{}", page_of(*command));
  return 0;
}

}  // namespace ratplus::apps
