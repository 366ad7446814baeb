#include "lib/generate/model_identity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/files/sha256.h"

namespace ratplus::generate {
namespace {

namespace fs = std::filesystem;

/// Name, bytes and digest of some blocks of a file of weights: training, merging and rounding change all of them. Whoever copies
/// the file keeps it.
std::string file_identity(const fs::path& file) {
  constexpr std::int64_t blocks = 16, block_bytes = 4096;
  std::error_code ignored;
  const auto bytes = static_cast<std::int64_t>(fs::file_size(file, ignored));
  std::ifstream in(file, std::ios::binary);
  Sha256 digest;
  std::string block(block_bytes, '\0');
  for (std::int64_t i = 0; i < blocks && in; ++i) {
    in.seekg(std::max<std::int64_t>(0, (bytes - block_bytes) * i / (blocks - 1)));
    in.read(block.data(), block_bytes);
    digest.update(std::string_view(block).substr(0, static_cast<std::size_t>(in.gcount())));
    in.clear();
  }
  return fmt::format("{} {} {}", file.filename().string(), bytes, digest.hex());
}

/// The files of weights at a path: a file, an index, or a directory with either.
std::vector<std::string> files_at(const fs::path& path) {
  std::error_code ignored;
  std::vector<std::string> found;
  const auto add = [&](const fs::path& file) { found.push_back(file_identity(file)); };
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
                                      const ModelText& text, const std::string& arithmetic) {
  return {{"command", command},
          {"checkpoint", model.info().directory.string()},
          {"step", model.info().step},
          {"weights", weights_identity(model.info())},
          {"pattern", model.plan.describe()},
          {"length", model.tokens},
          {"rope-base", model.config.rope_base},
          {"rope-scale", model.rope_scale},
          {"type", arithmetic},
          {"tokenizer", text.tokenizer ? text.tokenizer->identity() : ""},
          {"end-of-text", text.end_of_text}};
}

}  // namespace ratplus::generate
