// The beginning of every thread beside the main one.
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
