#include "lib/generate/tokenizer_of.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/error.h"
#include "data/dataset/manifest.h"
#include "lib/checkpoint/dataset_of.h"
#include "lib/weights/source.h"

namespace ratplus::generate {
namespace {

namespace fs = std::filesystem;

/// By its name: a tokenizer's file may be of any kind.
bool holds_weights(const fs::path& file) {
  static constexpr std::array<std::string_view, 4> suffixes = {".pth", ".pt", ".safetensors",
                                                               ".safetensors.index.json"};
  const auto name = file.filename().string();
  return std::ranges::any_of(suffixes, [&](std::string_view suffix) { return name.ends_with(suffix); });
}

fs::path of_dataset(const fs::path& directory) {
  const auto manifest = data::read_manifest(directory);
  if (manifest.tokenizer_file.empty())
    fail("{}: the dataset was imported without a tokenizer; name the tokenizer's file", directory.string());
  return directory / manifest.tokenizer_file;
}

}  // namespace

fs::path tokenizer_of(const fs::path& given) {
  if (!fs::exists(given)) fail("{}: no such file or directory", given.string());
  if (fs::exists(given / data::manifest_name)) return of_dataset(given);
  if (!fs::is_directory(given) && !holds_weights(given)) return given;
  return of_dataset(checkpoint::dataset_of(weights::open_source(given)->info()));
}

}  // namespace ratplus::generate
