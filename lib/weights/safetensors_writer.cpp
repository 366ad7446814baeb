#include "lib/weights/safetensors_writer.h"

#include <nlohmann/json.hpp>
#include <system_error>

#include "base/error.h"
#include "base/files/byte_file.h"
#include "base/files/pending_file.h"
#include "base/json_dump.h"
#include "base/utf8.h"
#include "lib/weights/description.h"
#include "lib/weights/safetensors_file.h"
#include "lib/weights/safetensors_header.h"

namespace ratplus::weights {
namespace {

namespace fs = std::filesystem;
using Parameters = std::vector<Parameter>;

SafetensorsHeader header_of(const Parameters& parameters, const checkpoint::Info& info) {
  // "format" is what other readers of the weights ask for: their names and shapes are PyTorch's.
  SafetensorsHeader header{.entries = {},
                           .metadata = {{"format", "pt"}, {safetensors_description_key, describe(info)}}};
  std::int64_t next = 0;
  for (const auto& parameter : parameters) {
    header.entries.push_back({.tensor = {.name = parameter.name,
                                         .shape = parameter.shape,
                                         .type_name = to_string(parameter.type),
                                         .type = parameter.type},
                              .begin = next,
                              .end = next + parameter.bytes()});
    next += parameter.bytes();
  }
  return header;
}

void write_file(WeightsSource& source, const Parameters& parameters, const PendingFile& pending,
                const ExportOptions& options) {
  ByteWriter out(pending.path(), pending.final_name());
  out.write(write_safetensors_header(header_of(parameters, exported_info(source, options))));
  stream(source, parameters, options,
         {.begin = {}, .write = [&](std::string_view bytes) { out.write(bytes); }});
  out.close();
}

/// As many of the next parameters as fit, at least one.
std::vector<Parameters> shards_of(const Parameters& parameters, std::int64_t most) {
  std::vector<Parameters> shards;
  std::int64_t bytes = most;
  for (const auto& parameter : parameters) {
    if (shards.empty() || bytes + parameter.bytes() > most) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += parameter.bytes();
    shards.back().push_back(parameter);
  }
  return shards;
}

/// While its files are replaced one by one an old index would name some of either: without it they are refused.
void remove_index(const fs::path& index) {
  std::error_code error;
  const bool was_there = !is_stream(index) && fs::remove(index, error);
  if (error) fail("cannot remove {}: {}", index.string(), error.message());
  if (was_there) sync_path(index.parent_path().empty() ? "." : index.parent_path(), index);
}

}  // namespace

void write_safetensors(WeightsSource& source, const fs::path& file, const ExportOptions& options) {
  PendingFile pending(file);
  write_file(source, parameters_of(source, options), pending, options);
  pending.commit();
}

void write_sharded_safetensors(WeightsSource& source, const fs::path& index, const ExportOptions& options) {
  if (const auto own = index.filename().string(); !is_utf8(own)) {
    fail(
        "{}: is not UTF-8, in which the index names the files beside it; give a name in UTF-8 (its "
        "directory's may "
        "be any), or one file with a name that ends in {}",
        index.string(), safetensors_suffix);
  }
  const auto shards = shards_of(parameters_of(source, options), options.shard_bytes);
  std::string name = index.filename().string();
  name.resize(name.size() - std::string_view(safetensors_index_suffix).size());
  nlohmann::ordered_json map = nlohmann::ordered_json::object();
  std::int64_t total = 0;
  std::vector<PendingFile> files;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const auto file = fmt::format("{}-{:05}-of-{:05}{}", name, i + 1, shards.size(), safetensors_suffix);
    if (fs::exists(index.parent_path() / file) && !options.force) {
      fail("{}: is there already; choose another name, or replace it with --force",
           (index.parent_path() / file).string());
    }
    write_file(source, shards[i], files.emplace_back(index.parent_path() / file), options);
    for (const auto& parameter : shards[i]) {
      map[parameter.name] = file;
      total += parameter.bytes();
    }
  }
  remove_index(index);
  // All files are whole before the first gets its name, and the index comes last.
  for (auto& file : files) file.commit();
  const nlohmann::ordered_json all = {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(map)}};
  write_whole_file(index, json_dump(all, 1) + "\n");
}

}  // namespace ratplus::weights
