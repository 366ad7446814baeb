// BatchScript: a training job as a script that Slurm's sbatch takes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace ratplus::slurm {

/// The launcher of the ranks inside the job.
enum class Launcher { srun, mpirun };
const char* to_string(Launcher launcher);
/// Throws Error that lists the names.
Launcher parse_launcher(std::string_view name);

/// Resources of a Slurm job; those that are empty or 0 are left to the cluster's settings.
struct Resources {
  int nodes = 1;
  int most_nodes = 0;  ///< Slurm gives from `nodes` to so many, as are free; 0: `nodes`
  int ranks_per_node = 1;
  int gpus_per_node = 0;
  int cpus_per_rank = 0;
  std::string time = {};  ///< "24:00:00", as sbatch takes it
  std::string partition = {};
  std::string account = {};
  std::string after = {};              ///< a job that must have succeeded before this one starts
  int stop_before = 300;               ///< seconds before the end of `time` at which ranks are told to save
  std::vector<std::string> more = {};  ///< other options of sbatch, "--constraint=nvlink"

  bool any_of_several() const { return most_nodes > nodes; }
  /// Every number of nodes that Slurm may give.
  std::vector<int> possible_nodes() const;
  /// "2", or "2-4".
  std::string nodes_text() const;
  /// Takes `nodes` and `most_nodes` from "2" or "2-4". Throws Error for what is neither.
  void set_nodes(const std::string& text);
  /// The node of each rank on so many nodes, as a launcher places them.
  std::vector<int> rank_nodes(int on_nodes) const;
};

/// Refuses what no cluster has, or what would contradict the script: counts out of their ranges, more ranks than GPUs on a
/// node, a time limit that leaves nothing before `stop_before`, an `after` that is no job's number, options of `more` that
/// the script sets itself. Throws Error, which names the option of `ratplus submit`.
void check(const Resources& resources);

/// Seconds of a time limit as sbatch takes it: minutes, minutes:seconds, hours:minutes:seconds, days-hours,
/// days-hours:minutes or days-hours:minutes:seconds; -1 for UNLIMITED and INFINITE. Throws Error for what is none.
std::int64_t limit_seconds(const std::string& time);

struct BatchScript {
  std::string name;                         ///< of the job in Slurm's queue
  std::filesystem::path working_directory;  ///< that the job file's paths are relative to
  std::filesystem::path program;
  std::filesystem::path job_file;
  std::filesystem::path log_directory;  ///< of the log, slurm-N.log for job N
  Launcher launcher = Launcher::srun;
  bool check_first = false;  ///< `ratplus check` before training, at each start
  Resources resources;

  /// The script: settings, then jobs/slurm/batch.sh, which stops, saves and queues again, then `train`. It needs nothing
  /// of the repository. Throws Error for a path that a #SBATCH line cannot hold.
  std::string text() const;
};

}  // namespace ratplus::slurm
