// Settings: how answers to a prompt are made; as options of a command and as fields of a line of JSON.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "lib/generate/cut.h"
#include "lib/generate/model_text.h"
#include "lib/generate/text_stream.h"
#include "lib/infer/engine.h"

namespace ratplus::generate {

struct Settings {
  /// Greedy unless a temperature is asked for, as evaluations of base models are.
  infer::SamplingParameters sampling = {.temperature = 0};
  /// Tokens of an answer at most; none: 128, or as many as the sequence has room for.
  std::optional<std::int64_t> max_tokens = {};
  std::vector<std::string> stop = {};          ///< texts that end an answer
  std::vector<std::int32_t> stop_tokens = {};  ///< tokens that end an answer
  bool ignore_end_of_text = false;             ///< else the tokenizer's end of a text ends an answer
  std::int64_t answers = 1;                    ///< for the prompt, each with random numbers of its own
  std::optional<std::int64_t> log_probabilities = {};  ///< of each token, and of so many of the largest
  bool echo = false;                                   ///< the prompt before the answer
  bool return_tokens = false;                          ///< token numbers beside the text
  Cut cut = Cut::none;                                 ///< of a prompt without room for max_tokens more

  Trim trim = Trim::none;  ///< of the answer's beginning

  static constexpr std::int64_t usual_max_tokens = 128;
  static constexpr std::int64_t most_answers = 1024;
};

/// Sets the field of this name ("temperature", "max_tokens", ...: docs/generation.md lists them) by its value. False where
/// there is no such field. Throws Error, beginning with `where`, for a value of another type or out of its range.
bool set_field(Settings& settings, const std::string& name, const nlohmann::ordered_json& value,
               const std::string& where);
/// The names that set_field knows, apart by commas.
std::string field_names();
/// All fields, for comparison.
nlohmann::ordered_json to_json(const Settings& settings);

/// A prompt with the settings of its answers.
struct GenerationRequest {
  std::vector<std::int32_t> prompt;
  bool as_text = true;      ///< answers are text: there is a tokenizer
  std::string prompt_text;  ///< where the prompt was given as text, or its tokens are echoed as text
  Settings settings;
};

/// The request of a text: its tokens, or where it has none the end-of-text token, which begins a text. Throws Error,
/// beginning with `where`, for ill-formed UTF-8, without a tokenizer, and for an empty text where no token ends texts.
GenerationRequest request_of_text(const std::string& text, const ModelText& model, const Settings& settings,
                                  const std::string& where);
/// The request of tokens, answered as text where there is a tokenizer.
GenerationRequest request_of_tokens(std::vector<std::int32_t> tokens, const ModelText& model,
                                    const Settings& settings, const std::string& where);

}  // namespace ratplus::generate
