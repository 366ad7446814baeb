// A model's sizes and choices as JSON: in manifests, and in the metadata of exported weights.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "lib/model/config.h"

namespace ratplus::checkpoint {

nlohmann::ordered_json to_json(const model::ModelConfig& model);
/// Throws Error naming the file where sizes are missing, or such that no job file could ask for them.
model::ModelConfig model_from_json(const nlohmann::ordered_json& json, const std::filesystem::path& file);
/// The last of these checks.
void check_model(const model::ModelConfig& model, const std::filesystem::path& file);

/// A whole number, which the JSON library would otherwise cut to its target's size, or make of a fraction.
std::int64_t integer_from_json(const nlohmann::ordered_json& json, const char* key,
                               const std::filesystem::path& file);

}  // namespace ratplus::checkpoint
