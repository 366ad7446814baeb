// The manifest of a checkpoint: manifest.json, written last.
#pragma once

#include <filesystem>

#include "lib/checkpoint/checkpoint.h"

namespace ratplus::checkpoint {

inline constexpr const char* manifest_name = "manifest.json";

/// Writes directory/manifest.json for info, with the units' layouts so that other readers find every parameter.
void write_manifest(const std::filesystem::path& directory, const Info& info);

}  // namespace ratplus::checkpoint
