#include "lib/checkpoint/manifest.h"

#include <nlohmann/json.hpp>

#include "data/pending_file.h"
#include "kernels/error.h"
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

/// Sizes that a damaged or foreign manifest could make absurd.
void check_model(const model::ModelConfig& m, const std::filesystem::path& file) {
  const bool sane = m.layers > 0 && m.layers <= 10000 && m.width > 0 && m.width <= (1 << 20) && m.head_dim > 0 &&
                    m.width % m.head_dim == 0 && m.vocab_size > 0 && m.vocab_size <= (1 << 28);
  if (!sane) fail("{}: its model's sizes are impossible; the file is damaged", file.string());
}

}  // namespace

void write_manifest(const std::filesystem::path& directory, const Info& info) {
  const Json manifest = {{"format", "ratplus-checkpoint"},
                         {"version", format_version},
                         {"step", info.step},
                         {"updates", info.updates},
                         {"tokens", info.tokens},
                         {"parts", info.parts},
                         {"tokenizer", info.tokenizer},
                         {"model", to_json(info.model)},
                         {"units", units_to_json(info)},
                         {"job", info.job}};
  data::write_whole_file(directory / manifest_name, manifest.dump(1) + '\n');
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
    manifest.at("parts").get_to(info.parts);
    manifest.at("tokenizer").get_to(info.tokenizer);
    manifest.at("job").get_to(info.job);
    info.model = model_from_json(manifest.at("model"));
  } catch (const Json::exception& error) {
    fail("{}: damaged or not a checkpoint's manifest ({})", file.string(), error.what());
  }
  check_model(info.model, file);
  if (info.parts < 1) fail("{}: its number of parts, {}, is impossible", file.string(), info.parts);
  return info;
}

}  // namespace ratplus::checkpoint
