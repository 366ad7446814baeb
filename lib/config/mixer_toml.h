// The mixers of a model in TOML.
//
//     "ratplus"                                                    one for all layers
//     { kind = "rat", chunk = 16, groups = 2 }                     the same, with its sizes
//     ["ratplus", { kind = "local_attention", window = 1024 }]     one a layer
//     { global = MIXER, local = MIXER, every = 2 }                 global in layers 0, 2, 4, ..., local elsewhere
#pragma once

#include <string>
#include <vector>

#include "lib/config/toml_reader.h"

namespace ratplus::config {

/// A boolean is the value of the old key model.recurrence: true is "ratplus", false "gated_attention". Of a rule the
/// field gets one period.
void read(const Value& value, std::vector<model::MixerConfig>& field, Any);
/// Whether it is a rule, whose period repeats over the layers.
bool repeats(const Value& value);

/// A mixer as an option gives it, in any of these forms; a bare name needs no quotes. Throws Error that begins with `where`.
std::vector<model::MixerConfig> parse_mixers(const std::string& text, const std::string& where);

std::string to_toml_value(const std::vector<model::MixerConfig>& mixers);

}  // namespace ratplus::config
