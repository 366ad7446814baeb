#include "parallel/launch.h"

#include <fmt/core.h>

#include <array>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace ratplus::parallel {
namespace {

/// A variable of the environment as a number, or -1.
std::int64_t number_in(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return -1;
  const std::string_view all = text;
  std::int64_t value = -1;
  const auto [end, error] = std::from_chars(all.data(), all.data() + all.size(), value);
  return error == std::errc() && end == all.data() + all.size() && value >= 0 ? value : -1;
}

/// Whether srun started this process: a batch script, and the shell that salloc gives, have no step or one of Slurm's own
/// numbers.
bool in_step() {
  constexpr std::int64_t own_numbers = 0xfffffff0;
  auto step = number_in("SLURM_STEP_ID");
  if (step < 0) step = number_in("SLURM_STEPID");
  return step >= 0 && step < own_numbers && number_in("SLURM_PROCID") >= 0;
}

struct Names {
  const char* rank;
  const char* processes;
};

}  // namespace

Launch find_launch() {
  // mpirun first: under Slurm its daemons on other hosts are tasks of srun.
  constexpr std::array names = {Names{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                                Names{"MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"},
                                Names{"JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE"},
                                Names{"PMI_RANK", "PMI_SIZE"}};
  for (const auto& name : names) {
    const auto processes = number_in(name.processes);
    if (processes < 1) continue;
    return {.launched = true,
            .rank = static_cast<int>(number_in(name.rank)),
            .processes = static_cast<int>(processes),
            .variable = name.processes};
  }
  const auto own = number_in("PMIX_RANK");
  const auto tasks = number_in("SLURM_STEP_NUM_TASKS");
  if (in_step() && tasks > 1) {
    return {.launched = true,
            .rank = static_cast<int>(number_in("SLURM_PROCID")),
            .processes = static_cast<int>(tasks),
            .variable = "SLURM_STEP_NUM_TASKS"};
  }
  if (own >= 0) return {.launched = true, .rank = static_cast<int>(own)};
  return {};
}

std::string explain_singletons(const Launch& launch) {
  const bool slurm = std::string_view(launch.variable).starts_with("SLURM");
  return fmt::format(
      "{} processes were started ({} = {}), but MPI connects none of them, and each would do the whole job "
      "alone; {}",
      launch.processes, launch.variable, launch.processes,
      slurm ? "start them with srun --mpi=pmix (srun --mpi=list must name pmix) or with mpirun; where one "
              "process is "
              "meant, use srun -n 1"
            : "start them with the mpirun of the MPI library that ratplus was built with (ratplus --version "
              "names it)");
}

}  // namespace ratplus::parallel
