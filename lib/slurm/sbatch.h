// Calls of Slurm's commands.
#pragma once

#include <filesystem>
#include <string>

namespace ratplus::slurm {

/// Whether this machine has Slurm's commands: a login node of a cluster.
bool available();
/// Submits a script, and returns the number of its job. Throws Error where sbatch refuses it, with what it says.
std::string submit(const std::filesystem::path& script);
/// "PENDING", "RUNNING", ... of a job; empty if there is no such job any more.
std::string state_of(const std::string& job);
/// Throws Error while the job whose number is in the file `note` of a run is in the queue: a second one in the same run
/// directory would wait there only to fail. No file: no job.
void check_not_queued(const std::filesystem::path& note);

}  // namespace ratplus::slurm
