#include "lib/train/stop_signal.h"

#include <unistd.h>

#include <cstring>

namespace ratplus::train {
namespace {

using Handler = void (*)(int);

volatile std::sig_atomic_t received_signal = 0;
volatile std::sig_atomic_t end_status = 0;
const char* volatile end_message = nullptr;
std::atomic<std::atomic<bool>*> end_mark = nullptr;  // all lock-free, so a handler may use them
static_assert(std::atomic<std::atomic<bool>*>::is_always_lock_free);

/// A handler that notes its signal; none is noted yet.
Handler remembering() {
  received_signal = 0;
  return [](int signal) { received_signal = signal; };
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
    case SIGUSR1:
      return "SIGUSR1";
    default:
      return "a signal";
  }
}

StopHandlers::StopHandlers(void (*handler)(int), unsigned flags) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = static_cast<int>(flags);
  for (std::size_t i = 0; i < signals_.size(); ++i) sigaction(signals_[i], &action, &old_[i]);
}

StopHandlers::~StopHandlers() {
  for (std::size_t i = 0; i < signals_.size(); ++i) sigaction(signals_[i], &old_[i], nullptr);
}

StopSignal::StopSignal() : handlers_(remembering(), SA_RESETHAND | SA_RESTART) {}

int StopSignal::received() {
  return received_signal;
}

EndOnSignal::EndOnSignal(int status, const char* message) : handlers_(ending_with(status, message), 0) {}

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

}  // namespace ratplus::train
