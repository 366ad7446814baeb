#include "lib/checkpoint/manifest.h"

#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/files/sha256.h"
#include "base/json_dump.h"
#include "base/parse_json.h"
#include "base/units.h"
#include "lib/checkpoint/model_json.h"
#include "lib/checkpoint/part.h"
#include "lib/model/parameters.h"

namespace ratplus::checkpoint {
namespace {

using Json = nlohmann::ordered_json;

Json units_to_json(const Info& info) {
  Json units = Json::array();
  for (const auto& unit : model::unit_layouts(info.model)) {
    Json parameters = Json::array();
    for (const auto& slot : unit.slots) {
      parameters.push_back({{"name", slot.name}, {"shape", slot.shape}, {"offset", slot.offset}});
    }
    units.push_back({{"name", unit.name},
                     {"numel", unit.numel},
                     {"part_size", parallel::unit_part_size(unit, info.parts)},
                     {"parameters", std::move(parameters)}});
  }
  return units;
}

Json to_json(const DataCounts& d) {
  Json json{{"train_tokens", d.train_tokens},
            {"train_documents", d.train_documents},
            {"validation_tokens", d.validation_tokens},
            {"validation_documents", d.validation_documents}};
  if (d.train_crc32) json["train_crc32"] = *d.train_crc32;
  if (d.validation_crc32) json["validation_crc32"] = *d.validation_crc32;
  return json;
}

std::optional<std::uint32_t> checksum_from_json(const Json& j, const char* key,
                                                const std::filesystem::path& file) {
  if (!j.contains(key)) return std::nullopt;
  return static_cast<std::uint32_t>(integer_from_json(j, key, file));
}

DataCounts data_from_json(const Json& j, const std::filesystem::path& file) {
  return {.train_tokens = integer_from_json(j, "train_tokens", file),
          .train_documents = integer_from_json(j, "train_documents", file),
          .validation_tokens = integer_from_json(j, "validation_tokens", file),
          .validation_documents = integer_from_json(j, "validation_documents", file),
          .train_crc32 = checksum_from_json(j, "train_crc32", file),
          .validation_crc32 = checksum_from_json(j, "validation_crc32", file)};
}

/// JSON has no NaN and no infinity: they are null.
Json to_json(const std::vector<UpdateDone>& begun) {
  Json list = Json::array();
  for (const auto& update : begun) {
    list.push_back(
        {{"loss", update.loss}, {"gradient_norm", update.gradient_norm}, {"updated", update.updated}});
  }
  return list;
}

std::vector<UpdateDone> begun_from_json(const Json& list) {
  const auto number = [](const Json& value) {
    return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
  };
  std::vector<UpdateDone> begun;
  for (const auto& each : list) {
    begun.push_back(
        {number(each.at("loss")), number(each.at("gradient_norm")), each.at("updated").get<bool>()});
  }
  return begun;
}

int parts_from_json(const Json& manifest, const std::filesystem::path& file) {
  constexpr std::int64_t most = 1'000'000;  // as parallel.ranks in a job
  const auto parts = integer_from_json(manifest, "parts", file);
  if (parts < 1 || parts > most) {
    fail("{}: its number of parts, {}, is impossible; the file is damaged", file.string(), parts);
  }
  return static_cast<int>(parts);
}

Json files_to_json(const std::vector<PartFile>& files) {
  Json list = Json::array();
  for (std::size_t part = 0; part < files.size(); ++part) {
    list.push_back({{"file", file_name(static_cast<int>(part))},
                    {"bytes", files[part].bytes},
                    {"crc32", fmt::format("{:08x}", files[part].crc32)}});
  }
  return list;
}

std::vector<PartFile> files_from_json(const Json& list, int parts, const std::filesystem::path& file) {
  if (!list.is_array() || list.size() != static_cast<std::size_t>(parts))
    fail("{}: does not list the files of its {}; the file is damaged", file.string(), counted(parts, "part"));
  std::vector<PartFile> files;
  for (const auto& each : list) {
    const auto digits = each.at("crc32").get<std::string>();
    PartFile part{.bytes = integer_from_json(each, "bytes", file)};
    const auto end = digits.data() + digits.size();
    const auto read = std::from_chars(digits.data(), end, part.crc32, 16);
    if (digits.size() != 8 || read.ec != std::errc{} || read.ptr != end)
      fail("{}: a checksum is not of 8 hexadecimal digits; the file is damaged", file.string());
    files.push_back(part);
  }
  return files;
}

/// The manifest's own: of its text on one line, without spaces and without this key.
constexpr const char* checksum_key = "sha256";

void check_checksum(Json manifest, const std::filesystem::path& file) {
  const auto stored = manifest.at(checksum_key).get<std::string>();
  manifest.erase(checksum_key);
  if (sha256_hex(json_dump(manifest)) != stored)
    fail("{}: damaged or changed by hand: its content does not match its checksum", file.string());
}

int check_version(const Json& manifest, const std::filesystem::path& file) {
  if (manifest.at("format") != "ratplus-checkpoint") fail("{}: not a checkpoint's manifest", file.string());
  const auto version = integer_from_json(manifest, "version", file);
  if (version < 1 || version > format_version) {
    fail("{}: checkpoint format version {}, this program reads versions 1 to {}; use a newer ratplus",
         file.string(), version, format_version);
  }
  return static_cast<int>(version);
}

std::string describe(const DataCounts& d) {
  return fmt::format("{} in {} to train on and {} in {} to validate on", counted(d.train_tokens, "token"),
                     counted(d.train_documents, "document"), d.validation_tokens, d.validation_documents);
}

}  // namespace

void write_manifest(const std::filesystem::path& directory, const Info& info) {
  Json manifest = {{"format", "ratplus-checkpoint"},
                   {"version", version_of(info)},
                   {"step", info.step},
                   {"updates", info.updates},
                   {"tokens", info.tokens},
                   {"parts", info.parts},
                   {"files", files_to_json(info.files)},
                   {"weights", to_string(info.weights_type)},
                   {"optimizer", info.optimizer},
                   {"tokenizer", info.tokenizer},
                   {"model", to_json(info.model)},
                   {"units", units_to_json(info)},
                   {"job", info.job}};
  if (!info.begun.empty()) manifest["begun"] = to_json(info.begun);
  if (!info.left_out.empty()) manifest["left_out"] = info.left_out;
  if (info.data) manifest["data"] = to_json(*info.data);
  manifest[checksum_key] = sha256_hex(json_dump(manifest));
  write_whole_file(directory / manifest_name, json_dump(manifest, 1) + '\n', info.directory / manifest_name);
}

Info read_info(const std::filesystem::path& directory) {
  const auto file = directory / manifest_name;
  if (!std::filesystem::exists(file)) {
    fail("{}: no checkpoint here (no {}); give the directory of a checkpoint or of a run", directory.string(),
         manifest_name);
  }
  return parse_manifest(read_whole_file(file), directory);
}

Info parse_manifest(const std::string& text, const std::filesystem::path& directory) {
  const auto file = directory / manifest_name;
  Info info;
  info.directory = directory;
  try {
    const Json manifest = parse_json<Json>(text);
    const int version = check_version(manifest, file);
    info.step = integer_from_json(manifest, "step", file);
    info.updates = integer_from_json(manifest, "updates", file);
    info.tokens = integer_from_json(manifest, "tokens", file);
    info.parts = parts_from_json(manifest, file);
    manifest.at("tokenizer").get_to(info.tokenizer);
    manifest.at("job").get_to(info.job);
    info.model = model_from_json(manifest.at("model"), file);
    if (manifest.contains("data")) info.data = data_from_json(manifest.at("data"), file);
    if (version > 2) info.begun = begun_from_json(manifest.at("begun"));
    if (manifest.contains("left_out")) manifest.at("left_out").get_to(info.left_out);
    if (version > 1) {
      info.files = files_from_json(manifest.at("files"), info.parts, file);
      info.weights_type = parse_stored_type(manifest.at("weights").get<std::string>(), file.string());
      manifest.at("optimizer").get_to(info.optimizer);
      check_checksum(manifest, file);
    }
  } catch (const Json::exception& error) {
    fail("{}: damaged or not a checkpoint's manifest ({})", file.string(), error.what());
  }
  if (info.step < 0 || info.updates < 0 || info.tokens < 0) {
    fail("{}: its counts of steps, updates and tokens are impossible; the file is damaged", file.string());
  }
  return info;
}

DataCounts counts_of(const data::Manifest& dataset) {
  return {.train_tokens = dataset.tokens(data::Split::train),
          .train_documents = dataset.documents(data::Split::train),
          .validation_tokens = dataset.tokens(data::Split::validation),
          .validation_documents = dataset.documents(data::Split::validation),
          .train_crc32 = dataset.crc32(data::Split::train),
          .validation_crc32 = dataset.crc32(data::Split::validation)};
}

bool check_same_data(const Info& info, const data::Manifest& dataset) {
  if (!info.data) return false;
  const DataCounts counts = counts_of(dataset);
  constexpr const char* way_out =
      "resume with the dataset that the run began with, or start a new run in another job.directory (from "
      "these "
      "weights: job.kind = \"adapt\", job.from)";
  DataCounts sizes = counts;
  sizes.train_crc32 = info.data->train_crc32;
  sizes.validation_crc32 = info.data->validation_crc32;
  if (*info.data != sizes) {
    fail("{}: was trained on a dataset of {}, but the job's (data.directory) has {}; {}",
         info.directory.string(), describe(*info.data), describe(counts), way_out);
  }
  bool all_known = true;
  for (const auto& [split, checksum] : {std::pair(data::Split::train, &DataCounts::train_crc32),
                                        std::pair(data::Split::validation, &DataCounts::validation_crc32)}) {
    const auto& before = (*info.data).*checksum;
    const auto& now = counts.*checksum;
    all_known = all_known && before && now;
    if (!before || !now || *before == *now) continue;
    fail(
        "{}: was trained on a dataset of as many tokens as the job's (data.directory), but of other tokens "
        "or in "
        "another order: the checksum of the {} split was {:08x}, and is {:08x}; {}",
        info.directory.string(), data::to_string(split), *before, *now, way_out);
  }
  return all_known;
}

void check_same_tokenizer(const Info& info, const std::filesystem::path& directory,
                          const data::Manifest& dataset) {
  if (info.tokenizer.empty() || info.tokenizer == dataset.tokenizer) return;
  fail(
      "{}: was trained on tokens of {}, but {} has tokens of {}; prepare the text with the model's tokenizer "
      "(`ratplus prepare ... --tokenizer`, a copy is beside the shards it was trained on)",
      info.directory.string(), info.tokenizer, directory.string(), dataset.tokenizer);
}

}  // namespace ratplus::checkpoint
