// What the tests of lib/config share: small job files, and the message of a refused one.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "lib/config/job.h"

namespace ratplus::config {

/// The shortest job file that is complete. Its sections end here, so that a test can add any other.
inline const std::string minimal_job = R"([job]
directory = "runs/a"
[schedule]
steps = 100
[data]
directory = "runs/a/data"
)";

inline std::filesystem::path source_directory() {
  return RATPLUS_SOURCE_DIR;
}

/// The message with which a job is refused; "accepted" if it is not.
inline std::string refusal(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    parse_job(text, "job.toml", overrides);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

}  // namespace ratplus::config
