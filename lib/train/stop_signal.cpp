#include "lib/train/stop_signal.h"

namespace ratplus::train {
namespace {

volatile std::sig_atomic_t received_signal = 0;

}  // namespace

StopSignal::StopSignal() {
  received_signal = 0;
  struct sigaction action {};
  action.sa_handler = [](int signal) { received_signal = signal; };
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
  for (std::size_t i = 0; i < signals_.size(); ++i) sigaction(signals_[i], &action, &old_[i]);
}

StopSignal::~StopSignal() {
  for (std::size_t i = 0; i < signals_.size(); ++i) sigaction(signals_[i], &old_[i], nullptr);
}

int StopSignal::received() {
  return received_signal;
}

}  // namespace ratplus::train
