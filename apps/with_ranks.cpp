#include "apps/with_ranks.h"

#include <fmt/core.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <string>
#include <system_error>

#include "apps/command_line.h"
#include "apps/output.h"
#include "apps/version.h"
#include "base/error.h"

namespace ratplus::apps {
namespace {

/// For tests of hosts with different programs, RATPLUS_TEST_REVISION names another revision than this one's.
std::string name_of(const run::ProgramRecord& program) {
  const char* other = std::getenv("RATPLUS_TEST_REVISION");
  return fmt::format("ratplus {}, revision {}{}", program.version,
                     other != nullptr ? other : program.revision, program.modified ? ", modified" : "");
}

/// Ranks of two programs may exchange other things than the other expects, or compute otherwise. Throws AgreedError.
void require_same_program(const parallel::World& world) {
  const auto own = name_of(this_program());
  const auto first = world.broadcast(own);
  const auto first_host = world.broadcast(world.host());
  world.agree([&] {
    if (own == first) return;
    std::error_code ignored;
    fail("{} is {}, but rank 0 on {} is {}; install the same program on all hosts",
         std::filesystem::read_symlink("/proc/self/exe", ignored).string(), own, first_host, first);
  });
}

}  // namespace

int with_ranks(const std::function<int(const parallel::World&)>& body, double connect_timeout) {
  const parallel::World world(connect_timeout);
  try {
    require_same_program(world);
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
