// The mixers of a model in TOML.
//
//     "ratplus"                                one for all layers
//     ["ratplus", "gated_attention", ...]      one a layer
#pragma once

#include <string>
#include <vector>

#include "lib/config/toml_reader.h"

namespace ratplus::config {

/// A boolean is the value of the old key model.recurrence: true is "ratplus", false "gated_attention".
void read(const Value& value, std::vector<model::MixerConfig>& field, Any);

std::string to_toml_value(const std::vector<model::MixerConfig>& mixers);

}  // namespace ratplus::config
