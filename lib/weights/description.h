// The description that ratplus writes beside exported weights, so that reading them needs no guess: the model's sizes
// and choices, and what is known of its training, as JSON.
#pragma once

#include <string>

#include "lib/checkpoint/manifest.h"

namespace ratplus::weights {

std::string describe(const checkpoint::Info& info);
/// Fills model, step, tokens, tokenizer and job. Throws Error naming the file where the text is damaged.
void read_description(const std::string& text, checkpoint::Info& info);

}  // namespace ratplus::weights
