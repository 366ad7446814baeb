// All commands of the program.
#pragma once

#include <span>
#include <string_view>

#include "apps/commands.h"

namespace ratplus::apps {

struct Command {
  std::string_view name;
  std::string_view summary;
  int (*run)(const Arguments&);
  bool computes = false;  ///< by OpenMP's threads
};

/// In the order of `ratplus --help`.
std::span<const Command> all_commands();
/// Null where there is none of this name.
const Command* find_command(std::string_view name);

}  // namespace ratplus::apps
