#include "base/stop_signal.h"

#include <time.h>
#include <unistd.h>

#include <cstring>

namespace ratplus {
namespace {

using Handler = void (*)(int);

volatile std::sig_atomic_t received_signal = 0;
volatile std::sig_atomic_t received_at = 0;  // seconds of a clock that never goes back, modulo some
int stop_signals = 0;                        // that live
volatile std::sig_atomic_t end_status = 0;
const char* volatile end_message = nullptr;
std::atomic<std::atomic<bool>*> end_mark = nullptr;  // all lock-free, so a handler may use them
static_assert(std::atomic<std::atomic<bool>*>::is_always_lock_free);

std::sig_atomic_t seconds_now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::sig_atomic_t>(now.tv_sec % 1'000'000'000);
}

void remember(int signal) {
  if (received_signal == 0) {
    received_at = seconds_now();
    received_signal = signal;
    return;
  }
  if (signal != SIGINT || seconds_now() - received_at < StopSignal::impatience_seconds) return;
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  sigaction(signal, &action, nullptr);
  ::raise(signal);  // delivered when this handler returns
}

/// A handler that notes its signal; none is noted yet.
Handler remembering() {
  if (stop_signals++ == 0) received_signal = 0;
  return remember;
}

/// A handler that ends the program.
Handler ending_with(int status, const char* message) {
  end_status = status;
  end_message = message;
  return [](int) {
    if (auto* mark = end_mark.load()) *mark = true;
    const char* text = end_message;
    if (text != nullptr && ::write(STDERR_FILENO, text, std::strlen(text)) < 0) _exit(end_status);
    _exit(end_status);
  };
}

}  // namespace

const char* name_of_signal(int signal) {
  switch (signal) {
    case SIGINT:
      return "SIGINT";
    case SIGTERM:
      return "SIGTERM";
    case SIGHUP:
      return "SIGHUP";
    case SIGUSR1:
      return "SIGUSR1";
    case SIGUSR2:
      return "SIGUSR2";
    case SIGXCPU:
      return "SIGXCPU";
    default:
      return "a signal";
  }
}

StopHandlers::StopHandlers(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  for (std::size_t i = 0; i < signals_.size(); ++i) {
    sigaction(signals_[i], &action, &old_[i]);
    if (signals_[i] == SIGHUP && old_[i].sa_handler == SIG_IGN) sigaction(SIGHUP, &old_[i], nullptr);
  }
}

StopHandlers::~StopHandlers() {
  for (std::size_t i = 0; i < signals_.size(); ++i) sigaction(signals_[i], &old_[i], nullptr);
}

StopSignal::StopSignal() : handlers_(remembering()) {}

StopSignal::~StopSignal() {
  --stop_signals;
}

int StopSignal::received() {
  return received_signal;
}

EndOnSignal::EndOnSignal(int status, const char* message) : handlers_(ending_with(status, message)) {}

void EndOnSignal::already_ending(int status) {
  end_mark = nullptr;
  end_message = nullptr;
  end_status = status;
}

EndOnSignal::Mark::Mark(std::atomic<bool>& stopped) {
  end_mark = &stopped;
}

EndOnSignal::Mark::~Mark() {
  end_mark = nullptr;
}

}  // namespace ratplus
