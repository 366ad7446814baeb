#include "apps/command_line.h"

#include <algorithm>
#include <array>
#include <iostream>
#include <string_view>

#include "apps/output.h"
#include "base/error.h"
#include "parallel/launch.h"

namespace ratplus::apps {

namespace po = boost::program_options;

namespace {

struct OldOption {
  std::string_view old_name;
  std::string_view name;
};

/// Options that had another name. An entry serves the commands that have the present one.
constexpr std::array old_options = {
    OldOption{"window", "sequence-length"},  // data-bench, eval
    OldOption{"length", "sequence-length"},  // samples
    OldOption{"tokens", "sequence-length"},  // bench ops
};

bool has_option(const po::options_description& options, std::string_view name) {
  return options.find_nothrow(std::string(name), false) != nullptr;
}

/// "--window" and "--window=8" are `window`.
bool names_option(std::string_view word, std::string_view name) {
  if (!word.starts_with("--") || word.substr(2, name.size()) != name) return false;
  return word.size() == 2 + name.size() || word[2 + name.size()] == '=';
}

Arguments with_present_names(Arguments args, const po::options_description& options) {
  for (const auto& [old_name, name] : old_options) {
    if (has_option(options, old_name) || !has_option(options, name)) continue;
    const auto given = [&args](std::string_view option) {
      return std::ranges::find_if(args, [&](const auto& word) { return names_option(word, option); });
    };
    const auto old = given(old_name);
    if (old == args.end()) continue;
    if (given(name) != args.end())
      throw po::error(
          fmt::format("--{0} and --{1} are two names of one option; leave --{0} out", old_name, name));
    *old = fmt::format("--{}{}", name, old->substr(2 + old_name.size()));
    if (first_of_job()) print_error(fmt::format("--{} is now --{}", old_name, name));
  }
  return args;
}

}  // namespace

bool launched() {
  return parallel::find_launch().launched;
}

bool first_of_job() {
  return parallel::find_launch().rank <= 0;
}

void print_renamed_keys(const config::JobConfig& job) {
  if (!first_of_job()) return;
  for (const auto& line : job.renamed) print_error(line);
}

/// Every rank would write the same files.
void refuse_ranks(const char* command) {
  const auto launch = parallel::find_launch();
  if (launch.processes <= 1) return;
  fail(
      "{} uses the cores of one machine, and {} processes of it were started ({}); start one, without mpirun "
      "or srun",
      command, launch.processes, launch.variable);
}

void as_usage_error(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    throw po::error(error.what());
  }
}

std::optional<po::variables_map> parse_command_line(const Arguments& args, po::options_description options,
                                                    const Positional& positional, const HelpText& help) {
  options.add_options()("help,h", "this text");
  po::options_description all;  // owns the positional's target from here on
  all.add(options).add_options()(positional.name, positional.target, "");
  if (leave_usage(options, positional, help)) return std::nullopt;
  po::positional_options_description places;
  places.add(positional.name, positional.at_most);
  po::variables_map values;
  po::store(po::command_line_parser(with_present_names(args, all)).options(all).positional(places).run(),
            values);
  if (values.contains("help")) {
    if (first_of_job()) std::cout << help.before << options << help.after;
    return std::nullopt;
  }
  po::notify(values);
  if (positional.missing != nullptr && !values.contains(positional.name)) throw po::error(positional.missing);
  return values;
}

}  // namespace ratplus::apps
