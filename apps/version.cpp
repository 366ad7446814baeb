#include "apps/version.h"

#include <fmt/core.h>

#include "revision.h"

namespace ratplus::apps {
namespace {

std::string compiler() {
#if defined(__clang__)
  return fmt::format("clang {}", __clang_version__);
#else
  return fmt::format("GCC {}", __VERSION__);
#endif
}

std::string build() {
  std::string text = fmt::format("{}, {}", RATPLUS_BUILD,
                                 RATPLUS_FOR_NATIVE ? "for the processor that built it" : "portable");
  text += RATPLUS_HAS_CUDA ? ", with CUDA" : ", without CUDA";
  if (RATPLUS_HAS_NCCL) text += ", with NCCL";
  if (RATPLUS_HAS_PARQUET) text += ", with Parquet";
  return text;
}

}  // namespace

run::ProgramRecord this_program() {
  return {.version = RATPLUS_VERSION,
          .revision = RATPLUS_REVISION,
          .modified = RATPLUS_MODIFIED,
          .compiler = compiler(),
          .build = build()};
}

void print_version() {
  const auto program = this_program();
  fmt::print("ratplus {}\n", program.version);
  fmt::print("revision  {}{}\n", program.revision, program.modified ? ", modified" : "");
  fmt::print("compiler  {}\n", program.compiler);
  fmt::print("build     {}\n", program.build);
  for (const auto& library : run::library_versions())
    fmt::print("{:<18}  {}\n", library.name, library.version);
}

}  // namespace ratplus::apps
