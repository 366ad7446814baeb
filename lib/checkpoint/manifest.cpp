#include "lib/checkpoint/manifest.h"

#include <nlohmann/json.hpp>

#include "data/pending_file.h"
#include "kernels/error.h"
#include "lib/config/keys.h"
#include "lib/model/parameters.h"

namespace ratplus::checkpoint {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const model::ModelConfig& m) {
  return {{"layers", m.layers},         {"width", m.width},           {"head_dim", m.head_dim},
          {"vocab_size", m.vocab_size}, {"recurrence", m.recurrence}, {"rope_base", m.rope_base},
          {"norm_eps", m.norm_eps},     {"init_std", m.init_std}};
}

model::ModelConfig model_from_json(const Json& j) {
  model::ModelConfig m;
  j.at("layers").get_to(m.layers);
  j.at("width").get_to(m.width);
  j.at("head_dim").get_to(m.head_dim);
  j.at("vocab_size").get_to(m.vocab_size);
  j.at("recurrence").get_to(m.recurrence);
  j.at("rope_base").get_to(m.rope_base);
  j.at("norm_eps").get_to(m.norm_eps);
  j.at("init_std").get_to(m.init_std);
  return m;
}

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
  return {{"train_tokens", d.train_tokens},
          {"train_documents", d.train_documents},
          {"validation_tokens", d.validation_tokens},
          {"validation_documents", d.validation_documents}};
}

DataCounts data_from_json(const Json& j) {
  DataCounts d;
  j.at("train_tokens").get_to(d.train_tokens);
  j.at("train_documents").get_to(d.train_documents);
  j.at("validation_tokens").get_to(d.validation_tokens);
  j.at("validation_documents").get_to(d.validation_documents);
  return d;
}

/// Sizes that a damaged or foreign manifest could make absurd; what a job file may say is right here too.
void check_model(const model::ModelConfig& m, const std::filesystem::path& file) {
  config::JobConfig job;
  job.model = m;
  bool sane = true;
  config::for_each_key(job,
                       [&](std::string_view section, const char*, const auto& field, const auto& allowed) {
                         if constexpr (requires { allowed.contains(field); }) {
                           if (section == "model") sane = sane && allowed.contains(field);
                         }
                       });
  if (!sane || m.width % m.head_dim != 0) {
    fail("{}: its model's sizes are impossible; the file is damaged", file.string());
  }
}

/// In 64 bits, since the JSON library would cut a longer number to an int without a word.
int parts_from_json(const Json& j, const std::filesystem::path& file) {
  constexpr std::int64_t most = 1'000'000;  // as parallel.ranks in a job
  const auto parts = j.get<std::int64_t>();
  if (parts < 1 || parts > most) {
    fail("{}: its number of parts, {}, is impossible; the file is damaged", file.string(), parts);
  }
  return static_cast<int>(parts);
}

std::string describe(const DataCounts& d) {
  return fmt::format("{} tokens in {} documents to train on and {} in {} to validate on", d.train_tokens,
                     d.train_documents, d.validation_tokens, d.validation_documents);
}

}  // namespace

void write_manifest(const std::filesystem::path& directory, const Info& info) {
  Json manifest = {{"format", "ratplus-checkpoint"},
                   {"version", format_version},
                   {"step", info.step},
                   {"updates", info.updates},
                   {"tokens", info.tokens},
                   {"parts", info.parts},
                   {"tokenizer", info.tokenizer},
                   {"model", to_json(info.model)},
                   {"units", units_to_json(info)},
                   {"job", info.job}};
  if (info.data) manifest["data"] = to_json(*info.data);
  data::write_whole_file(directory / manifest_name, manifest.dump(1) + '\n', info.directory / manifest_name);
}

Info read_info(const std::filesystem::path& directory) {
  const auto file = directory / manifest_name;
  if (!std::filesystem::exists(file)) {
    fail("{}: no checkpoint here (no {}); give the directory of a checkpoint or of a run", directory.string(),
         manifest_name);
  }
  Info info;
  info.directory = directory;
  try {
    const Json manifest = Json::parse(data::read_whole_file(file));
    if (manifest.at("format") != "ratplus-checkpoint") fail("{}: not a checkpoint's manifest", file.string());
    if (const int version = manifest.at("version"); version != format_version) {
      fail("{}: checkpoint format version {}, this program reads version {}", file.string(), version,
           format_version);
    }
    manifest.at("step").get_to(info.step);
    manifest.at("updates").get_to(info.updates);
    manifest.at("tokens").get_to(info.tokens);
    info.parts = parts_from_json(manifest.at("parts"), file);
    manifest.at("tokenizer").get_to(info.tokenizer);
    manifest.at("job").get_to(info.job);
    info.model = model_from_json(manifest.at("model"));
    if (manifest.contains("data")) info.data = data_from_json(manifest.at("data"));
  } catch (const Json::exception& error) {
    fail("{}: damaged or not a checkpoint's manifest ({})", file.string(), error.what());
  }
  check_model(info.model, file);
  if (info.step < 0 || info.updates < 0 || info.tokens < 0) {
    fail("{}: its counts of steps, updates and tokens are impossible; the file is damaged", file.string());
  }
  return info;
}

DataCounts counts_of(const data::Manifest& dataset) {
  return {.train_tokens = dataset.tokens(data::Split::train),
          .train_documents = dataset.documents(data::Split::train),
          .validation_tokens = dataset.tokens(data::Split::validation),
          .validation_documents = dataset.documents(data::Split::validation)};
}

void check_same_data(const Info& info, const data::Manifest& dataset) {
  const DataCounts counts = counts_of(dataset);
  if (!info.data || *info.data == counts) return;
  fail(
      "{}: was trained on a dataset of {}, but the job's (data.directory) has {}; resume with the dataset "
      "that the run began with, or start a new run in another job.directory (from these weights: "
      "job.kind = \"adapt\", job.from)",
      info.directory.string(), describe(*info.data), describe(counts));
}

}  // namespace ratplus::checkpoint
