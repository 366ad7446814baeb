// The body of a request for completions, as checked values.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "lib/generate/model_text.h"
#include "lib/generate/settings.h"
#include "lib/serve/api_error.h"
#include "lib/serve/chat_template.h"

namespace ratplus::serve {

struct RequestLimits {
  std::int64_t vocabulary = 0;    ///< tokens of the model
  std::int64_t tokens = 0;        ///< of a sequence at most, prompt and answer
  std::int64_t max_tokens = 0;    ///< of an answer at most; 0: as many as a sequence has
  std::int64_t sequences = 4096;  ///< prompts times answers of a request at most
};

/// A text or tokens.
struct PromptInput {
  std::string text;
  std::vector<std::int32_t> tokens;
  bool as_tokens = false;
};

struct CompletionRequest {
  std::string model;                 ///< empty: none was named
  std::vector<PromptInput> prompts;  ///< at least one
  /// Of every prompt. max_tokens may be 0; without one, answers have usual_max_tokens, or as many as there is room for.
  generate::Settings settings;
  bool seeded = false;  ///< settings.sampling.seed was given
  bool stream = false;
  bool include_usage = false;     ///< a stream ends with the numbers of tokens
  bool return_token_ids = false;  ///< token numbers beside the text

  static constexpr std::int64_t usual_max_tokens = 16;
  static constexpr std::int64_t most_answers = 128;
  static constexpr std::size_t most_stops = 64;
  static constexpr std::int64_t most_log_probabilities = std::int64_t{1} << 22;  ///< of a response
};

/// The JSON object of a body; nothing in it is nested more than some levels. Throws ApiError.
nlohmann::ordered_json parse_body(std::string_view body);

/// Throws ApiError naming the field for a text that is longer than any tokens of a sequence: its tokens are not looked for, which
/// takes seconds a megabyte.
void check_bytes(const std::string& name, const std::string& text, const RequestLimits& limits);

/// Reads the body of POST /v1/completions: a function of its arguments alone. Throws ApiError naming the field: of another
/// type or out of its range, unknown, or a token outside the vocabulary. docs/serving.md lists the fields.
CompletionRequest parse_completion(std::string_view body, const RequestLimits& limits);

/// Reads the body of POST /v1/chat/completions: its prompt is the conversation as the template writes it, in tokens. Throws
/// ApiError as parse_completion, and where the template refuses the messages.
CompletionRequest parse_chat(std::string_view body, const ChatTemplate& chat, const RequestLimits& limits);

/// Reads the bodies that RULER's client sends by PUT /generate: {"prompt", "max_tokens", ...} or {"text",
/// "sampling_params": {"max_new_tokens", ...}}.
struct GenerateRequest {
  CompletionRequest completion;
  bool nested = false;  ///< the second form
};
GenerateRequest parse_generate(std::string_view body, const RequestLimits& limits);

/// Each prompt with its tokens and settings. Throws ApiError for a text without a tokenizer or that is no UTF-8, and where a
/// prompt and its answer are longer than a sequence.
std::vector<generate::GenerationRequest> prepare(const CompletionRequest& request,
                                                 const generate::ModelText& text,
                                                 const RequestLimits& limits);

}  // namespace ratplus::serve
