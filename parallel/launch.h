// What the program that started this process (mpirun, srun, another MPI's mpiexec) says of the job in the environment,
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

/// What to say where several processes were started, and MPI knows of one.
std::string explain_singletons(const Launch& launch);

}  // namespace ratplus::parallel
