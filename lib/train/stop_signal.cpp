#include "lib/train/stop_signal.h"

#include <csignal>

namespace ratplus::train {
namespace {

volatile std::sig_atomic_t stop_requested = 0;

extern "C" void remember_stop(int signal) {
  if (stop_requested != 0) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
  stop_requested = 1;
}

void handle(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

}  // namespace

StopSignal::StopSignal() {
  stop_requested = 0;
  handle(remember_stop);
}

StopSignal::~StopSignal() { handle(SIG_DFL); }

bool StopSignal::requested() { return stop_requested != 0; }

}  // namespace ratplus::train
