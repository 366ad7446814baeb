// One of the targets for libFuzzer, chosen by RATPLUS_FUZZ_TARGET: `RATPLUS_FUZZ_TARGET=manifest fuzz CORPUS`. With
// RATPLUS_FUZZ_SEEDS=DIRECTORY it writes the target's examples there and ends.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/files/pending_file.h"
#include "tests/fuzz/targets.h"

namespace {

const ratplus::fuzz::Target* chosen = nullptr;

void write_seeds(const std::filesystem::path& directory) {
  int number = 0;
  for (const auto& seed : chosen->seeds())
    ratplus::write_whole_file(directory / std::to_string(number++), seed);
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const char* name = std::getenv("RATPLUS_FUZZ_TARGET");
  for (const auto& target : ratplus::fuzz::targets()) {
    if (name != nullptr && std::string(name) == target.name) chosen = &target;
  }
  if (chosen == nullptr) {
    std::fprintf(stderr, "RATPLUS_FUZZ_TARGET must be one of:");
    for (const auto& target : ratplus::fuzz::targets()) std::fprintf(stderr, " %s", target.name);
    std::fprintf(stderr, "\n");
    std::exit(2);
  }
  if (const char* directory = std::getenv("RATPLUS_FUZZ_SEEDS")) {
    write_seeds(directory);
    std::exit(0);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  chosen->run({reinterpret_cast<const char*>(data), size});
  return 0;
}
