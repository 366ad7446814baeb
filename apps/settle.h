// The settings of a job that are "auto", chosen for the ranks that it was started on.
#pragma once

#include <string>

#include "lib/config/job.h"
#include "parallel/world.h"

namespace ratplus::apps {

struct Settled {
  config::JobConfig job;
  std::string note;  ///< names the choice; empty where nothing was "auto"
};

/// By all ranks together; the root chooses. Throws Error, on all ranks alike, where hosts have different numbers of ranks
/// or kinds of GPUs, where the kind is not known, and where nothing fits.
Settled settle(config::JobConfig job, const parallel::World& world);

}  // namespace ratplus::apps
