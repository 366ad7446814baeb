// Whether the hosts of a job are alike: one job file, one run directory.
#pragma once

#include "lib/config/job.h"
#include "parallel/world.h"

namespace ratplus::train {

/// Throws AgreedError where a rank has read another job than the root: the message names rank, host and keys.
void require_same_job(const config::JobConfig& job, const parallel::World& world);

/// Throws AgreedError where a host does not see the run directory, or checkpoint.directory, that the root has made:
/// every rank writes its part of a checkpoint there. Where all ranks are on one host, looks at nothing.
void require_shared_directories(const config::JobConfig& job, const parallel::World& world);

}  // namespace ratplus::train
