// Runs a command's body on all ranks, and ends every rank when one of them fails.
#pragma once

#include <functional>

#include "parallel/world.h"

namespace ratplus::apps {

/// Starts MPI, runs the body, returns its exit status. What all ranks throw together is printed once, by the root,
/// and every rank returns 1. What one rank throws alone is printed by it, with its rank and host, and ends the
/// others at once: they may be waiting for it. `connect_timeout`: seconds in which the ranks must find each other.
int with_ranks(const std::function<int(const parallel::World&)>& body,
               double connect_timeout = parallel::Watchdog::default_timeout);

/// For a failure before MPI started: waits for the other ranks of the job, if there is a launcher, and returns the
/// status. mpirun kills the ranks that are left when the first one fails, so the one that prints might not come to it.
int end_together(int status);

}  // namespace ratplus::apps
