#include "lib/generate/model_identity.h"

#include <nlohmann/json.hpp>

namespace ratplus::generate {

nlohmann::ordered_json model_identity(const char* command, const infer::ResolvedModel& model,
                                      const ModelText& text, DType type) {
  return {{"command", command},
          {"checkpoint", model.info().directory.string()},
          {"step", model.info().step},
          {"pattern", model.plan.describe()},
          {"length", model.tokens},
          {"rope-base", model.config.rope_base},
          {"rope-scale", model.rope_scale},
          {"type", to_string(type)},
          {"tokenizer", text.tokenizer ? text.tokenizer->identity() : ""},
          {"end-of-text", text.end_of_text}};
}

}  // namespace ratplus::generate
