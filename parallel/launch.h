// The job as described by the environment of the launcher (mpirun, srun, another MPI's mpiexec),
// before MPI starts and whether or not MPI understands it.
#pragma once

#include <string>

namespace ratplus::parallel {

struct Launch {
  bool launched = false;      ///< a launcher started this process
  int rank = 0;               ///< this process among those that were started
  int processes = 0;          ///< that were started; 0: nothing says
  const char* variable = "";  ///< of the environment, that says how many
};

/// From the environment. A batch script, or a shell of salloc, is no rank of its job, whatever the job has asked for.
Launch find_launch();

/// The message for several started processes of which MPI connects none.
std::string explain_singletons(const Launch& launch);

}  // namespace ratplus::parallel
