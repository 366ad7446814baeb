#include "lib/run/run_record.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <system_error>
#include <thread>

#include "base/cgroup.h"
#include "base/error.h"
#include "base/files/new_directories.h"
#include "base/files/pending_file.h"
#include "base/json_dump.h"
#include "base/json_path.h"
#include "base/utf8.h"
#include "data/prepare/versions.h"
#include "parallel/versions.h"

extern char** environ;

namespace ratplus::run {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

std::string first_line(const char* file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

/// The value of the first line with this key, after a colon or, in os-release, an equals sign.
std::string value_in(const char* file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(key)) continue;
    const auto at = line.find_first_of(":=");
    if (at == std::string::npos) continue;
    const auto begin = line.find_first_not_of(" \t\"", at + 1);
    const auto end = line.find_last_not_of(" \t\"");
    return begin == std::string::npos || end < begin ? "" : line.substr(begin, end - begin + 1);
  }
  return "";
}

std::string time_now() {
  const std::time_t seconds = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  std::array<char, 32> text{};
  const auto length = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return {text.data(), length};
}

/// Puts the words that this process was started with, as put_path does: where one is not UTF-8, all of them again.
void put_command_line(Json& record) {
  std::ifstream in("/proc/self/cmdline");
  Json words = Json::array(), encoded = Json::array();
  bool all_utf8 = true;
  for (std::string word; std::getline(in, word, '\0');) {
    words.push_back(word);
    encoded.push_back(percent_encoded(word));
    all_utf8 = all_utf8 && is_utf8(word);
  }
  record["command"] = std::move(words);
  if (!all_utf8) record[percent_key("command")] = std::move(encoded);
}

/// 00112233445566778899aabbccddeeff as nvidia-smi writes it: GPU-00112233-4455-6677-8899-aabbccddeeff.
std::string gpu_name(const std::string& id) {
  if (id.size() != 32) return id;
  return fmt::format("GPU-{}-{}-{}-{}-{}", id.substr(0, 8), id.substr(8, 4), id.substr(12, 4),
                     id.substr(16, 4), id.substr(20));
}

Json describe_host(const std::string& name) {
  utsname system{};
  uname(&system);
  Json host = {{"name", name},
               {"system", value_in("/etc/os-release", "PRETTY_NAME")},
               {"kernel", fmt::format("{} {} {}", system.sysname, system.release, system.machine)},
               {"processor", value_in("/proc/cpuinfo", "model name")},
               {"cores", std::thread::hardware_concurrency()},
               {"memory", value_in("/proc/meminfo", "MemTotal")}};
  for (const auto& limit : cgroup_limits()) {  // the innermost of each kind
    if (limit.cores > 0 && !host.contains("quota_cores")) host["quota_cores"] = limit.cores;
    if (limit.memory >= 0 && !host.contains("memory_left")) host["memory_left"] = limit.memory;
  }
  const auto driver = first_line("/proc/driver/nvidia/version");
  if (!driver.empty()) host["gpu_driver"] = driver;
  return host;
}

/// Variables that are the same for all ranks where nothing is wrong; the launcher's own differ by rank.
bool should_be_equal(std::string_view variable) {
  constexpr std::array prefixes = {"NCCL_", "UCX_", "CUDA_", "OMP_", "RATPLUS_"};
  return std::ranges::any_of(prefixes, [&](std::string_view prefix) { return variable.starts_with(prefix); });
}

/// Describes this rank, and its host if it is the host's first rank; without a session, not its device.
Json describe_rank(const parallel::World& world, session::Session* session) {
  Json rank = {{"rank", world.rank()}, {"host", world.host()}, {"process", getpid()}};
  if (session != nullptr) {
    const auto& ops = session->ops();
    rank["threads"] = session->threads();
    rank["device"] = to_string(ops.device());
    rank["device_name"] = ops.device_name();
    if (ops.device().kind == DeviceKind::cuda) rank["gpu"] = gpu_name(cuda_device_id(ops.device().index));
  }
  rank["environment"] = recorded_environment();
  if (world.local_rank() == 0) rank["on"] = describe_host(world.host());
  return rank;
}

/// Takes the hosts out of their first ranks, and the environment but where it differs from the root's.
Json split_ranks(std::vector<Json>& ranks) {
  Json hosts = Json::array();
  const Json root = ranks.front()["environment"];
  for (auto& rank : ranks) {
    if (rank.contains("on")) hosts.push_back(rank["on"]);
    rank.erase("on");
    const Json own = rank["environment"];
    rank.erase("environment");
    for (const auto& [name, value] : own.items()) {
      if (should_be_equal(name) && root.value(name, Json()) != value) rank["environment"][name] = value;
    }
    for (const auto& [name, value] : root.items()) {
      if (should_be_equal(name) && !own.contains(name)) rank["environment"][name] = nullptr;
    }
  }
  return hosts;
}

Json describe_program(const ProgramRecord& program) {
  return {{"version", program.version},
          {"revision", program.revision},
          {"modified", program.modified},
          {"compiler", program.compiler},
          {"build", program.build}};
}

Json describe_libraries() {
  Json libraries;
  for (const auto& library : library_versions()) libraries[library.name] = library.version;
  return libraries;
}

/// Writes the record of a start whose ranks have described themselves.
void write_record(const fs::path& file, const StartRecord& start, const config::JobConfig& job,
                  std::vector<Json> ranks) {
  Json record = {{"started", time_now()}};
  put_command_line(record);
  record["step"] = start.step ? Json(*start.step) : Json();
  record["checkpoint"] = Json();
  if (start.checkpoint) put_path(record, "checkpoint", start.checkpoint->string());
  record["program"] = describe_program(start.program);
  record["libraries"] = describe_libraries();
  record["environment"] = ranks.front()["environment"];
  record["hosts"] = split_ranks(ranks);
  record["ranks"] = ranks;
  record["job"] = config::to_toml(job);
  NewDirectories(file.parent_path()).keep();
  write_whole_file(file, json_dump(record, 1) + '\n');
}

}  // namespace

std::vector<LibraryVersion> library_versions() {
  auto versions = parallel::parallel_versions();
  for (auto&& room : {kernel_versions(), data::data_versions()})
    versions.insert(versions.end(), room.begin(), room.end());
  return versions;
}

bool is_recorded(std::string_view variable) {
  constexpr std::array prefixes = {"NCCL_",  "UCX_",    "OMPI_MCA_", "PMIX_MCA_", "SLURM_",
                                   "OMP_",   "GOMP_",   "OPENBLAS_", "CUDA_",     "CUBLAS_",
                                   "CUDNN_", "NVIDIA_", "HDF5_",     "RATPLUS_",  "LD_PRELOAD"};
  // OMPI_MCA_orte_precondition_transports is the key of a job's own traffic.
  constexpr std::array secrets = {"JWT", "TOKEN", "SECRET", "PASS", "KEY", "CREDENTIAL", "transports"};
  return std::ranges::any_of(prefixes, [&](std::string_view each) { return variable.starts_with(each); }) &&
         std::ranges::none_of(
             secrets, [&](std::string_view each) { return variable.find(each) != std::string_view::npos; });
}

std::map<std::string, std::string> recorded_environment() {
  std::map<std::string, std::string> found;
  for (char** each = environ; each != nullptr && *each != nullptr; ++each) {
    const std::string_view entry = *each;
    const auto at = entry.find('=');
    if (at == std::string_view::npos || !is_recorded(entry.substr(0, at))) continue;
    found.emplace(entry.substr(0, at), entry.substr(at + 1));
  }
  return found;
}

fs::path record_start(const StartRecord& start, const config::JobConfig& job, session::Session& session) {
  const auto& world = session.world();
  std::string own;
  world.agree([&] { own = json_dump(describe_rank(world, &session)); });
  const auto all = world.all(own);
  return world.from_root([&] {
    std::vector<Json> ranks;
    for (const auto& text : all) ranks.push_back(Json::parse(text));
    const fs::path file = next_start_file(job.job.directory);
    write_record(file, start, job, std::move(ranks));
    return file.string();
  });
}

void record_failed_start(const fs::path& file, const ProgramRecord& program, const config::JobConfig& job,
                         const parallel::World& world) {
  write_record(file, {.program = program}, job, {describe_rank(world, nullptr)});
}

}  // namespace ratplus::run
