#include "lib/check/check.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <exception>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "base/error.h"
#include "base/json_dump.h"
#include "base/median.h"
#include "base/parse_json.h"
#include "base/units.h"
#include "data/dataset/manifest.h"
#include "kernels/buffer.h"
#include "lib/bench/ops_bench.h"
#include "lib/check/disk.h"
#include "lib/check/host.h"
#include "lib/check/links.h"
#include "lib/model/parameters.h"
#include "lib/run/run_record.h"
#include "lib/session/session.h"
#include "lib/session/settings_of_job.h"

namespace ratplus::check {
namespace {

namespace fs = std::filesystem;

/// Runs a part of the check; what it throws becomes a problem of this rank.
template <typename Part>
void noting_problems(RankReport& report, const Part& part) {
  try {
    part();
  } catch (const std::exception& error) {
    report.problems.emplace_back(error.what());
  }
}

const char* key_of(Quantity quantity) {
  return quantities[static_cast<std::size_t>(quantity)].key;
}

/// Products and copies, while all ranks do the same.
void measure_device(Ops& ops, RankReport& report) {
  noting_problems(report, [&] {
    const auto ceilings = bench::measure_ceilings(ops);
    report.values[Quantity::products] = ceilings.product_rate;
    report.values[Quantity::copies] = ceilings.bandwidth;
    if (ceilings.to_host > 0) report.values[Quantity::to_host] = ceilings.to_host;
  });
}

/// Seconds by which each rank's clock is before the root's: the median of several looks at the moment at which a
/// collective ends. It is as exact as that moment is common: to a fraction of a millisecond.
double clock_beside_root(const parallel::World& world) {
  constexpr int looks = 9;
  std::vector<double> differences;
  for (int look = 0; look < looks; ++look) {
    world.max(std::int64_t{look});
    const std::array own = {
        std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count()};
    const auto all = world.all(std::span<const double>(own));
    differences.push_back(own[0] - all[0]);
  }
  return median(std::move(differences));
}

/// Master weights and both moments, float32.
std::int64_t checkpoint_bytes(const config::JobConfig& job) {
  std::int64_t elements = 0;
  for (const auto& unit : model::unit_layouts(job.model)) elements += unit.numel;
  return 3 * elements * size_of(DType::f32);
}

void measure_checkpoints(const config::JobConfig& job, const parallel::World& world, Amount most,
                         RankReport& report) {
  noting_problems(report, [&] {
    const fs::path wanted = job.checkpoint.directory.empty() ? job.job.directory : job.checkpoint.directory;
    const auto directory = nearest_directory(wanted);
    const auto free = free_space(directory), bytes = checkpoint_bytes(job);
    if (free >= 0 && free < bytes) {
      fail("{} has {} free, and one checkpoint takes {}; give another checkpoint.directory",
           directory.string(), format_value(static_cast<double>(free), Unit::bytes),
           format_value(static_cast<double>(bytes), Unit::bytes));
    }
    // All ranks write at once, at most half of what is free.
    if (free >= 0) most.bytes = std::min(most.bytes, free / 2 / world.size());
    const auto rates = measure_disk(directory, most);
    report.values[Quantity::disk_write] = rates.write;
    report.values[Quantity::disk_read] = rates.read;
  });
}

void measure_data(const config::JobConfig& job, const parallel::World& world, Amount most,
                  RankReport& report) {
  noting_problems(report, [&] {
    std::vector<fs::path> files;
    for (const auto& source : job.data.all_sources()) {
      for (const auto& shard : data::read_manifest(source.directory).train)
        files.push_back(fs::path(source.directory) / shard.file);
    }
    const double rate = measure_reading(files, static_cast<double>(world.rank()) / world.size(), most);
    if (rate > 0) {
      report.values[Quantity::data_read] = rate;
    } else {
      report.not_told[key_of(Quantity::data_read)] = "less than 4 MiB of data";
    }
  });
}

/// Memory, limits and versions of this rank, and errors that its GPU or its host has counted.
void ask_host(const Ops& ops, const parallel::World& world, RankReport& report) {
  const auto memory = [&](Quantity quantity, std::int64_t bytes) {
    if (bytes >= 0) report.values[quantity] = static_cast<double>(bytes);
    if (bytes < 0) report.not_told[key_of(quantity)] = "not known to the system";
  };
  const bool gpu = ops.device().kind == DeviceKind::cuda;
  if (gpu) memory(Quantity::device_memory, available_memory(ops.device()));
  memory(Quantity::host_memory, world.host_memory());
  report.values[Quantity::locked_memory] = locked_memory_limit();
  const auto errors = [&](const MemoryErrors& counted, const char* reason) {
    for (const auto& [quantity, count] : {std::pair{Quantity::corrected_errors, counted.corrected},
                                          {Quantity::uncorrected_errors, counted.uncorrected}}) {
      report.values[quantity] = count;
      if (!count) report.not_told[key_of(quantity)] = reason;
    }
  };
  if (!gpu) return errors(host_memory_errors(), "no counters of the host's memory");
  const auto facts = parse_nvidia_smi(ask_nvidia_smi(), cuda_device_id(ops.device().index));
  errors(facts ? facts->errors : MemoryErrors(), "no answer of nvidia-smi");
  std::ifstream in("/proc/driver/nvidia/version");
  std::string driver;
  if (!std::getline(in, driver) && facts) driver = facts->driver;
  report.versions["GPU driver"] = driver.empty() ? "not told" : driver;
  const auto xid = count_xid_errors();
  report.values[Quantity::xid_errors] = xid;
  if (!xid) report.not_told[key_of(Quantity::xid_errors)] = "the kernel's messages may not be read";
}

}  // namespace

std::vector<RankReport> check_job(const config::JobConfig& job, const parallel::World& world,
                                  const std::map<std::string, std::string>& program, double seconds,
                                  const std::function<void(const std::string&)>& phase) {
  const Amount most{.seconds = seconds};
  /// A part of the check, which ranks begin together.
  const auto part = [&](const char* name, const auto& work) {
    if (world.root()) phase(name);
    world.max(std::int64_t{0});
    world.watchdog().at("checking", name);
    work();
  };
  RankReport report;
  report.rank = world.rank();
  report.node = world.nodes()[static_cast<std::size_t>(world.rank())];
  report.host = world.host();
  report.versions = program;
  for (const auto& library : run::library_versions()) report.versions[library.name] = library.version;
  const auto ops = session::make_ops(session::session_settings(job), world.threads(job.job.threads), world);
  report.device = to_string(ops->device());
  report.device_name = ops->device_name();
  part("hosts", [&] { ask_host(*ops, world, report); });
  part("clocks", [&] { report.values[Quantity::clock] = clock_beside_root(world); });
  part("products and copies", [&] { measure_device(*ops, report); });
  part("links", [&] { measure_links(*ops, job, world, report.values); });
  part("checkpoint directory", [&] { measure_checkpoints(job, world, most, report); });
  part("data", [&] { measure_data(job, world, most, report); });
  std::vector<RankReport> all;
  for (const auto& text : world.all(json_dump(to_json(report))))
    all.push_back(parse_rank(parse_json<nlohmann::ordered_json>(text)));
  return all;
}

}  // namespace ratplus::check
