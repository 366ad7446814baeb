// A run directory made for a test, and removed after it.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace ratplus::report {

class RunFixture {
 public:
  /// An empty directory of this name, in one that no other test process has.
  explicit RunFixture(const std::string& name)
      : root_(std::filesystem::temp_directory_path() / ("ratplus_test_report." + std::to_string(::getpid()))),
        directory_(root_ / name) {
    std::filesystem::create_directories(directory_);
  }
  ~RunFixture() {
    std::filesystem::remove_all(directory_);
    std::error_code not_empty;  // another fixture's run may still be there
    std::filesystem::remove(root_, not_empty);
  }
  RunFixture(const RunFixture&) = delete;
  RunFixture& operator=(const RunFixture&) = delete;

  const std::filesystem::path& directory() const { return directory_; }

  void write(const std::string& file, const std::string& text) const {
    std::ofstream(directory_ / file) << text;
  }
  void metrics(const std::string& text) const { write("metrics.jsonl", text); }
  void append(const std::string& text) const {
    std::ofstream(directory_ / "metrics.jsonl", std::ios::app) << text;
  }

 private:
  std::filesystem::path root_;
  std::filesystem::path directory_;
};

/// A line of metrics.jsonl; `updates` and `results` are JSON arrays of {"pattern", "loss"}.
inline std::string step_line(int step, const std::string& updates) {
  return R"({"kind":"step","step":)" + std::to_string(step) + R"(,"tokens":)" + std::to_string(step * 1000) +
         R"(,"learning_rate":8e-4,"updates":)" + updates + R"(,"tokens_per_second":1234.5})" + "\n";
}
inline std::string validation_line(int step, const std::string& results) {
  return R"({"kind":"validation","step":)" + std::to_string(step) + R"(,"tokens":)" +
         std::to_string(step * 1000) + R"(,"results":)" + results + "}\n";
}

/// What `body` throws says all of `parts`.
template <typename Body, typename... Parts>
bool fails_saying(Body&& body, const Parts&... parts) {
  try {
    body();
  } catch (const std::exception& error) {
    const std::string message = error.what();
    return ((message.find(parts) != std::string::npos) && ...);
  }
  return false;
}

}  // namespace ratplus::report
