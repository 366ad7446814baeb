// What every thread of ours beside the main one begins with.
#pragma once

#include <pthread.h>

#include <csignal>

namespace ratplus {

/// Signals go to the main thread, which knows what an interruption means.
inline void leave_signals_to_main_thread() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
}

}  // namespace ratplus
