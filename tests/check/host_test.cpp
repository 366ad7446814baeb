// Counters of a host and its GPUs, and rates of files, of which nothing is left.
#include "lib/check/host.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "lib/check/disk.h"
#include "tests/support/scratch_directory.h"

namespace ratplus::check {
namespace {

namespace fs = std::filesystem;

TEST_CASE("of nvidia-smi the line of this GPU is read, with or without counters") {
  const std::string output =
      "GPU-00112233-4455-6677-8899-AABBCCDDEEFF, 580.95.05, 3, 0\n"
      "GPU-ffffffff-4455-6677-8899-aabbccddeeff, 580.95.05, [N/A], [N/A]\n";
  const auto first = parse_nvidia_smi(output, "00112233445566778899aabbccddeeff");
  REQUIRE(first);
  CHECK(first->driver == "580.95.05");
  CHECK(first->errors.corrected == 3);
  CHECK(first->errors.uncorrected == 0);
  const auto second = parse_nvidia_smi(output, "ffffffff445566778899aabbccddeeff");
  REQUIRE(second);
  CHECK_FALSE(second->errors.corrected.has_value());
  CHECK_FALSE(parse_nvidia_smi(output, "0000"));
  CHECK_FALSE(parse_nvidia_smi("", "0000"));
}

TEST_CASE("the host's memory errors are the sum over its controllers") {
  const test::ScratchDirectory scratch;
  const fs::path controllers = scratch / "sys/devices/system/edac/mc";
  CHECK_FALSE(host_memory_errors(scratch.path()).corrected.has_value());
  for (const char* name : {"mc0", "mc1"}) {
    fs::create_directories(controllers / name);
    std::ofstream(controllers / name / "ce_count") << "2\n";
    std::ofstream(controllers / name / "ue_count") << "0\n";
  }
  const auto errors = host_memory_errors(scratch.path());
  CHECK(errors.corrected == 4);
  CHECK(errors.uncorrected == 0);
}

TEST_CASE("Xid errors are counted in the kernel's messages, where these may be read") {
  const test::ScratchDirectory scratch;
  CHECK_FALSE(count_xid_errors(scratch / "none"));
  std::ofstream(scratch / "messages")
      << "6,1,2,-;NVRM: Xid (PCI:0000:1b:00): 79, GPU has fallen off the bus.\n"
         "6,2,3,-;usb 1-1: new device\n6,3,4,-;NVRM: Xid (PCI:0000:1b:00): 48\n";
  CHECK(count_xid_errors(scratch / "messages") == 2);
}

TEST_CASE("a directory's rates are measured, and nothing is left there") {
  const test::ScratchDirectory scratch;
  const auto rates = measure_disk(scratch.path(), {.seconds = 0.2, .bytes = std::int64_t{16} << 20});
  CHECK(rates.write > 1e5);
  CHECK(rates.read > 1e5);
  CHECK(fs::is_empty(scratch.path()));
  CHECK_THROWS_AS(measure_disk(scratch / "none", {}), Error);
  CHECK(nearest_directory(scratch / "none/below") == scratch.path());
  CHECK(free_space(scratch.path()) > 0);
}

TEST_CASE("data are read from any place on, and around") {
  const test::ScratchDirectory scratch;
  std::vector<fs::path> files;
  for (const char* name : {"a", "b"}) {
    files.push_back(scratch / name);
    std::ofstream(files.back()) << std::string(3 << 20, 'x');
  }
  for (const double place : {0.0, 0.4, 0.9}) CHECK(measure_reading(files, place, {.seconds = 5}) > 1e5);
  files.pop_back();
  CHECK(measure_reading(files, 0, {}) == 0);  // 3 MiB tell nothing
  files.push_back(scratch / "missing");
  CHECK_THROWS(measure_reading(files, 0, {}));
}

}  // namespace
}  // namespace ratplus::check
