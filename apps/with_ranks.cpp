#include "apps/with_ranks.h"

#include <fmt/core.h>

#include <cstdio>
#include <exception>

#include "apps/command_line.h"
#include "apps/output.h"

namespace ratplus::apps {

int with_ranks(const std::function<int(const parallel::World&)>& body) {
  const parallel::World world;
  try {
    return body(world);
  } catch (const parallel::AgreedError& error) {
    if (world.root()) print_error(error.what());
    return 1;
  } catch (const std::exception& error) {
    if (world.size() == 1) {
      print_error(error.what());
      return 1;
    }
    print_error(fmt::format("rank {} on {}: {}", world.rank(), world.host(), error.what()));
    world.abort(1);
  }
}

int end_together(int status) {
  if (!launched()) return status;
  return with_ranks([&](const parallel::World&) { return status; });
}

}  // namespace ratplus::apps
