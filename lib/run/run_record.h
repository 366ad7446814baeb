// The record of a run: one file for each start of the program in the run directory, with all that may
// explain a result later. Earlier starts' files stay.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/versions.h"
#include "lib/config/job.h"
#include "lib/run/start_files.h"
#include "lib/session/session.h"
#include "parallel/world.h"

namespace ratplus::run {

/// The program itself, as it was built.
struct ProgramRecord {
  std::string version;
  std::string revision;   ///< of git; "unknown" where it was built from no checkout
  bool modified = false;  ///< tracked files differed from it
  std::string compiler;
  std::string build;  ///< what was chosen when it was configured
};

/// The versions of all libraries that report one.
std::vector<LibraryVersion> library_versions();

/// One start of a run.
struct StartRecord {
  ProgramRecord program;
  std::optional<std::int64_t> step = {};  ///< at which it begins or resumes; none where it came to no step
  std::optional<std::filesystem::path> checkpoint = {};  ///< that it has its weights from
};

/// Variables of the environment that bear on a run: NCCL_*, UCX_*, OMPI_MCA_*, SLURM_*, PMIX_*, OMP_*, GOMP_*, CUDA_*, RATPLUS_*
/// and their like; of them none whose name speaks of a secret (SLURM_JWT).
bool is_recorded(std::string_view variable);
/// The recorded variables of this process.
std::map<std::string, std::string> recorded_environment();

/// Writes the next file of starts/ by the root, with what all ranks say of themselves: hosts, processes, GPUs, and where
/// the environment differs from the root's. Its name, on all ranks. Throws Error, on all ranks alike.
std::filesystem::path record_start(const StartRecord& start, const config::JobConfig& job,
                                   session::Session& session);

/// Writes the record of a start that failed before it had a session, into this file of starts/: with what the rank that
/// writes it says of itself. By any rank alone. Throws Error.
void record_failed_start(const std::filesystem::path& file, const ProgramRecord& program,
                         const config::JobConfig& job, const parallel::World& world);

}  // namespace ratplus::run
