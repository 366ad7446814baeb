#include "lib/weights/safetensors_file.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/files/foreign_file.h"
#include "base/parse_json.h"
#include "lib/weights/unpickler.h"

namespace ratplus::weights {
namespace {

constexpr std::int64_t largest_header = 100'000'000;  // of the format
constexpr std::int64_t piece_bytes = std::int64_t{4} << 20;

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& file) : path_(file) {
  if (file.string().ends_with(safetensors_index_suffix)) {
    read_index();
  } else {
    add_file(file);
  }
}

void SafetensorsFile::add_file(const std::filesystem::path& file) {
  ByteReader reader(file);
  std::uint64_t length = 0;
  const std::string prefix = reader.read(0, safetensors_length_bytes);
  std::memcpy(&length, prefix.data(), prefix.size());
  const auto rest = reader.size() - safetensors_length_bytes;
  if (length > static_cast<std::uint64_t>(std::min(rest, largest_header))) {
    if (const auto kind = foreign_kind_of_file(file); !kind.empty()) fail("{}: is {}", file.string(), kind);
    fail("{}: its header of {} bytes does not fit the file's {}; it is cut short, damaged or of another kind",
         file.string(), length, reader.size());
  }
  const auto header_bytes = static_cast<std::int64_t>(length);
  auto header = parse_safetensors_header(reader.read(safetensors_length_bytes, header_bytes),
                                         rest - header_bytes, file.string());
  for (auto& entry : header.entries) {
    tensors_.push_back(std::move(entry.tensor));
    places_.push_back({files_.size(), safetensors_length_bytes + header_bytes + entry.begin});
  }
  if (const auto found = header.metadata.find(safetensors_description_key); found != header.metadata.end())
    description_ = found->second;
  files_.push_back(std::move(reader));
}

/// {"metadata": {...}, "weight_map": {tensor: file}}: the files lie beside the index.
void SafetensorsFile::read_index() {
  std::map<std::string, std::string> listed;
  std::set<std::string> names;
  try {
    const ByteReader index(path_);
    if (index.size() > largest_header) fail("{}: too long for an index", path_.string());
    parse_json(index.read(0, index.size())).at("weight_map").get_to(listed);
  } catch (const nlohmann::json::exception& error) {
    fail("{}: damaged or no index of safetensors ({})", path_.string(), printable(error.what()));
  }
  for (const auto& [tensor, file] : listed) {
    if (std::filesystem::path(file).filename() != file || file.empty())
      fail("{}: {} is no file beside it", path_.string(), printable(file));
    names.insert(file);
  }
  for (const auto& name : names) {
    const auto first = tensors_.size();
    add_file(path_.parent_path() / name);
    for (auto i = first; i < tensors_.size(); ++i) {
      const auto entry = listed.find(tensors_[i].name);
      if (entry == listed.end() || entry->second != name) {
        fail("{}: holds {}, which {} does not list there; copy both again",
             (path_.parent_path() / name).string(), printable(tensors_[i].name), path_.string());
      }
    }
  }
  if (tensors_.size() != listed.size()) {
    fail("{}: lists {} tensors, but its files hold {}; copy them again", path_.string(), listed.size(),
         tensors_.size());
  }
}

void SafetensorsFile::read(std::size_t tensor, std::int64_t begin, std::span<float> out) {
  const auto type = *tensors_[tensor].type;
  const auto bytes = bytes_of(type);
  auto at = places_[tensor].offset + begin * bytes;
  while (!out.empty()) {
    const auto count = std::min<std::int64_t>(static_cast<std::int64_t>(out.size()), piece_bytes / bytes);
    raw_.resize(static_cast<std::size_t>(count * bytes));
    files_[places_[tensor].file].read(at, raw_);
    decode(type, raw_.data(), out.first(static_cast<std::size_t>(count)));
    out = out.subspan(static_cast<std::size_t>(count));
    at += count * bytes;
  }
}

}  // namespace ratplus::weights
