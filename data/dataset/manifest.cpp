#include "data/dataset/manifest.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files/crc32.h"
#include "base/files/pending_file.h"
#include "base/json_dump.h"
#include "base/parse_json.h"

namespace ratplus::data {
namespace {

using Json = nlohmann::ordered_json;

constexpr int manifest_version = 1;
constexpr const char* manifest_format = "ratplus dataset";

std::int64_t sum(const std::vector<ManifestShard>& shards, std::int64_t ManifestShard::*count) {
  std::int64_t total = 0;
  for (const ManifestShard& shard : shards) total += shard.*count;
  return total;
}

/// A JSON object together with the words that say where it is, for messages.
struct JsonPlace {
  const Json& json;
  std::string where;

  const Json& at(const char* key) const {
    if (!json.is_object() || !json.contains(key)) {
      fail("{}: key \"{}\" is missing; prepare the dataset again", where, key);
    }
    return json[key];
  }
  std::int64_t integer(const char* key) const {
    const Json& value = at(key);
    if (!value.is_number_integer() || value.get<std::int64_t>() < 0) {
      fail("{}: \"{}\" is {}, not a count", where, key, json_dump(value));
    }
    return value.get<std::int64_t>();
  }
  std::string text(const char* key) const {
    const Json& value = at(key);
    if (!value.is_string()) fail("{}: \"{}\" is {}, not a string", where, key, json_dump(value));
    return value.get<std::string>();
  }
  /// Eight hexadecimal digits; nothing where the key is missing.
  std::optional<std::uint32_t> checksum(const char* key) const {
    if (!json.is_object() || !json.contains(key)) return std::nullopt;
    const std::string digits = text(key);
    std::uint32_t value = 0;
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (digits.size() != 8 || read.ec != std::errc{} || read.ptr != digits.data() + digits.size())
      fail("{}: \"{}\" is \"{}\", not a checksum of 8 hexadecimal digits", where, key, digits);
    return value;
  }
};

std::vector<ManifestShard> parse_shards(const JsonPlace& manifest, const char* key) {
  const Json& list = manifest.at(key);
  if (!list.is_array()) fail("{}: \"{}\" is not a list of shards", manifest.where, key);
  std::vector<ManifestShard> shards;
  for (const Json& entry : list) {
    const JsonPlace place{entry, fmt::format("{}: {}[{}]", manifest.where, key, shards.size())};
    shards.push_back(
        {place.text("file"), place.integer("tokens"), place.integer("documents"), place.checksum("crc32")});
  }
  return shards;
}

Json shards_json(const std::vector<ManifestShard>& shards) {
  Json list = Json::array();
  for (const ManifestShard& shard : shards) {
    Json entry{{"file", shard.file}, {"tokens", shard.tokens}, {"documents", shard.documents}};
    if (shard.crc32) entry["crc32"] = fmt::format("{:08x}", *shard.crc32);
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace

const char* to_string(Split split) {
  return split == Split::train ? "train" : "validation";
}

Split parse_split(std::string_view name) {
  for (const Split split : {Split::train, Split::validation}) {
    if (name == to_string(split)) return split;
  }
  fail("split \"{}\" is not known; a dataset has the splits {} and {}", name, to_string(Split::train),
       to_string(Split::validation));
}

std::string shard_name(Split split, std::int64_t number) {
  return fmt::format("{}-{:05}.h5", to_string(split), number);
}

std::int64_t Manifest::tokens(Split split) const {
  return sum(shards(split), &ManifestShard::tokens);
}

std::int64_t Manifest::documents(Split split) const {
  return sum(shards(split), &ManifestShard::documents);
}

std::optional<std::uint32_t> Manifest::crc32(Split split) const {
  // A token is 4 bytes of the stream that is summed, and a position of a sample has a token and a label.
  const std::int64_t bytes = sample_length > 0 ? 8 : 4;
  std::uint32_t all = 0;
  for (const ManifestShard& shard : shards(split)) {
    if (!shard.crc32) return std::nullopt;
    all = combined_crc32(all, *shard.crc32, shard.tokens * bytes);
  }
  return all;
}

Manifest read_manifest(const std::filesystem::path& dataset_directory) {
  const std::filesystem::path file = dataset_directory / manifest_name;
  if (std::filesystem::is_regular_file(dataset_directory)) {
    const auto parent = dataset_directory.parent_path();
    fail("{} is not a dataset: it is a file, and a dataset is a directory made by `ratplus prepare`{}",
         dataset_directory.string(),
         std::filesystem::exists(parent / manifest_name)
             ? fmt::format("; give {}", parent.empty() ? "." : parent.string())
             : "");
  }
  if (!std::filesystem::exists(file) &&
      std::filesystem::exists(dataset_directory / replaced_dataset_name / manifest_name)) {
    fail(
        "{} holds no whole dataset: the command that was to replace it was killed between two renames; run "
        "`ratplus prepare`, `samples` or `import` with this --output again, which puts the old dataset back, "
        "or "
        "move the files of {} back yourself, {} last",
        dataset_directory.string(), (dataset_directory / replaced_dataset_name).string(), manifest_name);
  }
  if (!std::filesystem::exists(file)) {
    fail("{} is not a dataset: it holds no {} (made by `ratplus prepare` when all else is written)",
         dataset_directory.string(), manifest_name);
  }
  Json json;
  try {
    json = parse_json<Json>(read_whole_file(file));
  } catch (const Json::exception& e) {
    fail("{}: not JSON ({}); prepare the dataset again", file.string(), e.what());
  }
  const JsonPlace place{json, file.string()};
  if (place.text("format") != manifest_format) {
    fail("{}: format is \"{}\", not \"{}\"", file.string(), place.text("format"), manifest_format);
  }
  if (place.integer("version") != manifest_version) {
    fail("{}: version {}, but this program reads version {}; prepare the dataset again with this program",
         file.string(), place.integer("version"), manifest_version);
  }
  return {.vocab_size = place.integer("vocab_size"),
          .end_of_text = place.integer("end_of_text"),
          .tokenizer = place.text("tokenizer"),
          .tokenizer_file = place.text("tokenizer_file"),
          .source = place.text("source"),
          .sample_length = json.contains("sample_length") ? place.integer("sample_length") : 0,
          .encode = json.contains("encode") ? place.text("encode") : "",
          .train = parse_shards(place, "train"),
          .validation = parse_shards(place, "validation")};
}

void write_manifest(const std::filesystem::path& dataset_directory, const Manifest& manifest) {
  Json json{{"format", manifest_format},
            {"version", manifest_version},
            {"vocab_size", manifest.vocab_size},
            {"end_of_text", manifest.end_of_text},
            {"tokenizer", manifest.tokenizer},
            {"tokenizer_file", manifest.tokenizer_file},
            {"source", manifest.source},
            {"train", shards_json(manifest.train)},
            {"validation", shards_json(manifest.validation)}};
  if (manifest.sample_length > 0) json["sample_length"] = manifest.sample_length;
  if (!manifest.encode.empty()) json["encode"] = manifest.encode;
  write_whole_file(dataset_directory / manifest_name, json_dump(json, 2) + "\n");
}

}  // namespace ratplus::data
