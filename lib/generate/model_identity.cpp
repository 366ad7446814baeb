#include "lib/generate/model_identity.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <vector>

#include "base/files/sha256.h"

namespace ratplus::generate {
namespace {

namespace fs = std::filesystem;

/// Bytes and time of the last change of the files of weights at a path: a file, an index, or a directory with either.
std::vector<std::string> files_at(const fs::path& path) {
  std::error_code ignored;
  std::vector<std::string> found;
  const auto add = [&](const fs::path& file) {
    found.push_back(fmt::format("{} {} {}", file.filename().string(), fs::file_size(file, ignored),
                                fs::last_write_time(file, ignored).time_since_epoch().count()));
  };
  const bool directory = fs::is_directory(path, ignored);
  if (!directory) add(path);
  if (directory || path.extension() == ".json") {
    for (const auto& entry :
         fs::directory_iterator(directory ? path : fs::absolute(path).parent_path(), ignored)) {
      const auto kind = entry.path().extension();
      if (kind == ".safetensors" || kind == ".h5") add(entry.path());
    }
  }
  std::ranges::sort(found);
  return found;
}

/// What tells weights from others that take their place: by the checksums of a checkpoint's files, as far as it has them.
std::string weights_identity(const checkpoint::Info& info) {
  std::vector<std::string> files;
  for (const auto& file : info.files) files.push_back(fmt::format("{} {:08x}", file.bytes, file.crc32));
  if (files.empty()) files = files_at(info.directory);
  constexpr std::size_t digits = 16;
  return sha256_hex(fmt::format("{}", fmt::join(files, "\n"))).substr(0, digits);
}

}  // namespace

nlohmann::ordered_json model_identity(const char* command, const infer::ResolvedModel& model,
                                      const ModelText& text, DType type) {
  return {{"command", command},
          {"checkpoint", model.info().directory.string()},
          {"step", model.info().step},
          {"weights", weights_identity(model.info())},
          {"pattern", model.plan.describe()},
          {"length", model.tokens},
          {"rope-base", model.config.rope_base},
          {"rope-scale", model.rope_scale},
          {"type", to_string(type)},
          {"tokenizer", text.tokenizer ? text.tokenizer->identity() : ""},
          {"end-of-text", text.end_of_text}};
}

}  // namespace ratplus::generate
