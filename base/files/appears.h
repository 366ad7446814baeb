// Files that another host has made.
#pragma once

#include <chrono>
#include <filesystem>

namespace ratplus {

/// Waits until a file or directory is there: a network file system may show a new name to another host seconds later.
/// False where it does not appear within `patience`.
bool appears(const std::filesystem::path& file,
             std::chrono::milliseconds patience = std::chrono::seconds(20));

}  // namespace ratplus
