#include "base/files/appears.h"

#include <system_error>
#include <thread>

namespace ratplus {

namespace fs = std::filesystem;

bool appears(const fs::path& file, std::chrono::milliseconds patience) {
  constexpr auto pause = std::chrono::milliseconds(200);
  const auto deadline = std::chrono::steady_clock::now() + patience;
  std::error_code ignored;
  while (!fs::exists(file, ignored)) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(pause);
    // Reading the directory makes the system look again.
    for (fs::directory_iterator entry(file.parent_path(), ignored), end; !ignored && entry != end;
         entry.increment(ignored)) {
    }
  }
  return true;
}

}  // namespace ratplus
