// Files that a command writes its results into, without replacing its inputs or files of another kind.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace ratplus::apps {

/// Files and directories that a command reads; empty names are none.
using InputPaths = std::vector<std::filesystem::path>;

/// Throws Error where `file` is a directory, lies in none, or is one of the inputs, by whatever spelling or link. An empty name
/// is no output. `option` begins the message: "--json".
void check_output_name(const char* option, const std::string& file, const InputPaths& inputs);

/// The same of --json, which may replace what a --json of this program has written, and an empty file: any other file that is
/// there is refused. A stream is none that could be lost.
void check_json_output(const std::string& file, const InputPaths& inputs);

/// Writes what --json names, after all that was printed, so that a full disk does not lose that too. An empty name: what was
/// printed alone.
void write_json_output(const std::string& file, const nlohmann::ordered_json& json);

}  // namespace ratplus::apps
