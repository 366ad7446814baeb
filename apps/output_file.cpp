#include "apps/output_file.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/json_dump.h"

namespace ratplus::apps {
namespace {

using Pointer = nlohmann::json::json_pointer;

/// What each --json writes, by places in it that no other file has together: of a list, in its first entry.
const std::vector<std::vector<const char*>> json_outputs = {
    {"/checkpoint", "/step", "/results"},                           // eval
    {"/answers/0/name", "/answers/0/tables"},                       // score
    {"/job", "/cluster", "/findings", "/ranks"},                    // check
    {"/gpu", "/parameters", "/memory_bytes", "/checkpoint_bytes"},  // plan, plan --table
    {"/tokens_per_second_a_gpu", "/settings"},                      // plan --tune
    {"/pattern", "/weight_bytes", "/largest_batch"},                // plan --inference
    {"/device", "/ceilings", "/operations"},                        // bench ops
    {"/device", "/ceilings", "/layers"},                            // bench ops JOB.toml
    {"/device", "/ranks", "/micro_batches", "/step_seconds"},       // bench step
    {"/device", "/weight_bytes", "/ceilings", "/times"},            // bench generate
};

bool is_json_output(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  // Read as far as the first mistake: a file of lines ends at its second.
  const auto json = nlohmann::json::parse(in, nullptr, false);
  if (json.is_array() && json.empty()) return true;
  if (!json.is_object() && !json.is_array()) return false;
  const auto& first = json.is_array() ? json.front() : json;
  return std::ranges::any_of(json_outputs, [&](const auto& places) {
    return std::ranges::all_of(places, [&](const char* place) { return first.contains(Pointer(place)); });
  });
}

}  // namespace

void check_output_name(const char* option, const std::string& file, const InputPaths& inputs) {
  if (file.empty()) return;
  if (std::filesystem::is_directory(file))
    fail("{} {}: is a directory; give the name of a file", option, file);
  const auto parent = std::filesystem::path(file).parent_path();
  if (!parent.empty() && !std::filesystem::is_directory(parent))
    fail("{} {}: there is no directory {}", option, file, parent.string());
  if (is_stream(file)) return;
  for (const auto& input : inputs) {
    std::error_code missing;
    if (!input.empty() && std::filesystem::equivalent(file, input, missing))
      fail("{} {}: is what the command reads; give another name", option, file);
  }
}

void check_json_output(const std::string& file, const InputPaths& inputs) {
  check_output_name("--json", file, inputs);
  std::error_code missing;
  if (file.empty() || is_stream(file)) return;
  const auto bytes = std::filesystem::file_size(file, missing);
  if (missing || bytes == 0 || is_json_output(file)) return;
  fail("--json {}: is there already, and was not written by --json; give another name, or remove it", file);
}

void write_json_output(const std::string& file, const nlohmann::ordered_json& json) {
  std::fflush(stdout);
  if (file.empty()) return;
  write_whole_file(file, json_dump(json, 1) + "\n");
}

}  // namespace ratplus::apps
