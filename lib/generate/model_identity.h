// The model behind a file of results, by which interrupted work recognizes its own.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "lib/generate/model_text.h"
#include "lib/infer/inference.h"

namespace ratplus::generate {

/// Command, checkpoint with its step and a digest of its weights (of files without checksums: of their sizes and some of their blocks),
/// pattern, length, RoPE, arithmetic (infer::Inference::arithmetic), tokenizer and end of text.
nlohmann::ordered_json model_identity(const char* command, const infer::ResolvedModel& model,
                                      const ModelText& text, const std::string& arithmetic);

}  // namespace ratplus::generate
