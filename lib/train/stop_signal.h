// StopSignal: SIGINT and SIGTERM as a request to finish the step, save and end.
#pragma once

namespace ratplus::train {

/// While one lives, the first SIGINT or SIGTERM is remembered; a second one ends the program at once, as usual.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  /// Whether this rank was asked to stop.
  static bool requested();
};

}  // namespace ratplus::train
