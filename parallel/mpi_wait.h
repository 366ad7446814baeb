// Waiting for MPI without keeping a core busy.
#pragma once

#include <mpi.h>

#include <chrono>
#include <thread>

#include "parallel/watchdog.h"

namespace ratplus::parallel {

/// Waits for an operation, of this kind on this subject, and frees the request: busily for a moment, since most are
/// short, then looking now and then, since the core may be another rank's. The watchdog ends what takes too long.
inline void wait_for(MPI_Request& request, Watchdog& watchdog, std::string_view kind,
                     std::string_view subject = {}) {
  constexpr auto busy = std::chrono::microseconds(200);
  constexpr auto pause = std::chrono::microseconds(50);
  const Watchdog::Waiting waiting(watchdog, kind, subject);
  const auto began = std::chrono::steady_clock::now();
  int done = 0;
  while (MPI_Test(&request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && done == 0) {
    if (std::chrono::steady_clock::now() - began > busy) std::this_thread::sleep_for(pause);
  }
}

}  // namespace ratplus::parallel
