// ElapsedTime: wall-clock time since the object was made.
#pragma once

#include <chrono>

namespace ratplus {

class ElapsedTime {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace ratplus
