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

}  // namespace ratplus::slurm
