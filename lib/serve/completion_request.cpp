#include "lib/serve/completion_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/json_int32.h"
#include "base/parse_json.h"
#include "base/units.h"
#include "lib/generate/generator.h"
#include "lib/generate/json_values.h"
#include "lib/serve/http_status.h"

namespace ratplus::serve {
namespace {

using Json = nlohmann::ordered_json;
using generate::beginning;
using generate::Settings;

template <typename... Args>
[[noreturn]] void refuse(const std::string& field, fmt::format_string<Args...> format, Args&&... args) {
  throw ApiError(bad_request, field, fmt::format(format, std::forward<Args>(args)...));
}

/// A value in a message: its beginning, or its type where that has parts.
std::string shown(const Json& value) {
  if (value.is_structured()) return fmt::format("a JSON {}", value.type_name());
  return beginning(value.dump(-1, ' ', false, Json::error_handler_t::replace));
}

/// Fields are looked up one by one.
void check_fields(const std::string& name, const Json& object) {
  constexpr std::size_t most = 256;
  if (object.size() > most)
    refuse(name, "{} has {} fields; at most {}", name.empty() ? "the body" : "\"" + name + "\"",
           object.size(), most);
}

void check_nesting(std::string_view body) {
  constexpr std::int64_t most = 16;
  if (json_levels(body) > most) refuse("", "the body is nested more than {} levels deep", most);
}

bool truth(const std::string& name, const Json& value) {
  if (!value.is_boolean()) refuse(name, "\"{}\" is {}; give true or false", name, shown(value));
  return value.get<bool>();
}

std::int64_t whole_number(const std::string& name, const Json& value, std::int64_t least, std::int64_t most) {
  const auto bad = [&] {
    refuse(name, "\"{}\" is {}; give a whole number from {} to {}", name, shown(value), least, most);
  };
  if (!value.is_number_integer()) bad();
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(most)) bad();
  const auto number = value.get<std::int64_t>();
  if (number < least || number > most) bad();
  return number;
}

std::string text_of(const std::string& name, const Json& value) {
  if (!value.is_string()) refuse(name, "\"{}\" is {}; give a text", name, shown(value));
  return value.get<std::string>();
}

std::int32_t token_of(const std::string& name, const Json& value, const RequestLimits& limits) {
  const auto token = int32_of(value);
  if (!token || *token < 0 || *token >= limits.vocabulary)
    refuse(name, "\"{}\" holds {}, and the model's tokens are whole numbers from 0 to {}", name, shown(value),
           limits.vocabulary - 1);
  return *token;
}

std::vector<std::int32_t> tokens_of(const std::string& name, const Json& values,
                                    const RequestLimits& limits) {
  if (!values.is_array()) refuse(name, "\"{}\" is {}; give a list of token numbers", name, shown(values));
  std::vector<std::int32_t> tokens;
  tokens.reserve(values.size());
  for (const Json& value : values) tokens.push_back(token_of(name, value, limits));
  return tokens;
}

PromptInput prompt_of(const Json& value, const RequestLimits& limits) {
  if (value.is_string()) return {.text = value.get<std::string>(), .tokens = {}, .as_tokens = false};
  PromptInput prompt{.text = {}, .tokens = tokens_of("prompt", value, limits), .as_tokens = true};
  if (prompt.tokens.empty()) refuse("prompt", "\"prompt\" has a list without a token; give at least one");
  return prompt;
}

/// A text, a list of tokens, a list of texts, or a list of lists of tokens.
std::vector<PromptInput> prompts_of(const Json& value, const RequestLimits& limits) {
  if (value.is_string()) return {prompt_of(value, limits)};
  if (!value.is_array())
    refuse("prompt",
           "\"prompt\" is {}; give a text, a list of texts, a list of tokens or a list of such lists",
           shown(value));
  if (value.empty()) refuse("prompt", "\"prompt\" is an empty list; give at least one prompt or token");
  if (value.front().is_number()) return {prompt_of(value, limits)};
  if (std::cmp_greater(value.size(), limits.sequences))
    refuse("prompt", "\"prompt\" has {} prompts; a request has at most {}", value.size(), limits.sequences);
  std::vector<PromptInput> prompts;
  for (const Json& each : value) {
    if (each.type() != value.front().type() || (!each.is_string() && !each.is_array()))
      refuse("prompt", "\"prompt\" holds {}; give texts alone, or lists of tokens alone", shown(each));
    prompts.push_back(prompt_of(each, limits));
  }
  return prompts;
}

/// A field that is one of generate::set_field under its own name.
void set(Settings& settings, const std::string& name, const std::string& as, const Json& value) {
  try {
    generate::set_field(settings, as, value, "the request");
  } catch (const Error& error) {
    throw ApiError(bad_request, name, error.what());
  }
}

/// The sampling parameters as they are after a field was set: a fault is that field's.
void check_sampling(const Settings& settings, const std::string& name, const RequestLimits& limits) {
  try {
    infer::check(settings.sampling, limits.vocabulary, "the request");
  } catch (const Error& error) {
    throw ApiError(bad_request, name, error.what());
  }
}

struct Context {
  CompletionRequest& request;
  const RequestLimits& limits;
};

struct Field {
  std::string_view name;
  void (*set)(Context& to, const std::string& name, const Json& value);
};

constexpr auto same_name = [](Context& to, const std::string& name, const Json& value) {
  set(to.request.settings, name, name, value);
  check_sampling(to.request.settings, name, to.limits);
};

/// Another system's field, which is taken where it changes nothing.
template <bool Neutral>
constexpr auto neutral_truth = [](Context&, const std::string& name, const Json& value) {
  if (truth(name, value) != Neutral) refuse(name, "\"{}\" can only be {} here", name, Neutral);
};

constexpr auto ignored = [](Context&, const std::string&, const Json&) {};

constexpr std::array fields = {
    Field{"model", [](Context& to, const std::string& name,
                      const Json& value) { to.request.model = text_of(name, value); }},
    Field{"prompt", [](Context& to, const std::string&,
                       const Json& value) { to.request.prompts = prompts_of(value, to.limits); }},
    Field{"max_tokens",
          [](Context& to, const std::string& name, const Json& value) {
            constexpr std::int64_t most = 1'000'000'000;  // prepare() knows how many a prompt leaves room for
            to.request.settings.max_tokens =
                whole_number(name, value, 0, to.limits.max_tokens > 0 ? to.limits.max_tokens : most);
          }},
    Field{"temperature", same_name},
    Field{"top_p", same_name},
    Field{"min_p", same_name},
    Field{"top_k",
          [](Context& to, const std::string& name, const Json& value) {
            set(to.request.settings, name, name, value == -1 ? Json(0) : value);
          }},
    Field{"repetition_penalty", same_name},
    Field{"presence_penalty", same_name},
    Field{"frequency_penalty", same_name},
    Field{"penalize_prompt", same_name},
    Field{"logit_bias", same_name},
    Field{"banned", same_name},
    Field{"seed",
          [](Context& to, const std::string& name, const Json& value) {
            if (!value.is_number_integer())
              refuse(name, "\"{}\" is {}; give a whole number of at most 64 bits", name, shown(value));
            to.request.settings.sampling.seed = value.is_number_unsigned()
                                                    ? value.get<std::uint64_t>()
                                                    : static_cast<std::uint64_t>(value.get<std::int64_t>());
            to.request.seeded = true;
          }},
    Field{"n",
          [](Context& to, const std::string& name, const Json& value) {
            to.request.settings.answers = whole_number(name, value, 1, CompletionRequest::most_answers);
          }},
    Field{"stop",
          [](Context& to, const std::string& name, const Json& value) {
            set(to.request.settings, name, name, value);
            if (to.request.settings.stop.size() > CompletionRequest::most_stops)
              refuse(name, "\"stop\" has {} texts; at most {}", to.request.settings.stop.size(),
                     CompletionRequest::most_stops);
          }},
    Field{"stop_token_ids",
          [](Context& to, const std::string& name, const Json& value) {
            to.request.settings.stop_tokens = tokens_of(name, value, to.limits);
          }},
    Field{"ignore_eos",
          [](Context& to, const std::string& name, const Json& value) {
            to.request.settings.ignore_end_of_text = truth(name, value);
          }},
    Field{"logprobs",
          [](Context& to, const std::string& name, const Json& value) {
            to.request.settings.log_probabilities =
                whole_number(name, value, 0, std::min(infer::most_tops, to.limits.vocabulary));
          }},
    Field{"echo", [](Context& to, const std::string& name,
                     const Json& value) { to.request.settings.echo = truth(name, value); }},
    Field{"stream", [](Context& to, const std::string& name,
                       const Json& value) { to.request.stream = truth(name, value); }},
    Field{"stream_options",
          [](Context& to, const std::string& name, const Json& value) {
            if (!value.is_object()) refuse(name, "\"{}\" is {}; give an object", name, shown(value));
            for (const auto& [key, option] : value.items()) {
              if (key != "include_usage")
                refuse(name, "\"{}\" has no option \"{}\"; it has include_usage", name, beginning(key));
              to.request.include_usage = truth(name + "." + key, option);
            }
          }},
    Field{"return_token_ids", [](Context& to, const std::string& name,
                                 const Json& value) { to.request.return_token_ids = truth(name, value); }},
    Field{"best_of", [](Context&, const std::string& name,
                        const Json& value) { whole_number(name, value, 1, CompletionRequest::most_answers); }},
    Field{"suffix",
          [](Context&, const std::string& name, const Json& value) {
            if (!text_of(name, value).empty())
              refuse(name, "\"suffix\" is not supported: the model continues texts; leave it out");
          }},
    Field{"min_tokens",
          [](Context&, const std::string& name, const Json& value) { whole_number(name, value, 0, 0); }},
    Field{"use_beam_search", neutral_truth<false>},
    Field{"include_stop_str_in_output", neutral_truth<false>},
    Field{"skip_special_tokens", neutral_truth<true>},
    Field{"add_special_tokens", ignored},
    Field{"user", ignored},
    Field{"metadata", ignored},
};

std::string names_of_fields() {
  std::vector<std::string_view> names;
  for (const auto& field : fields) names.push_back(field.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

/// Each answer keeps stop texts, with tables of nine times their bytes, and lists of tokens for itself.
void check_kept(const Settings& settings, std::int64_t sequences) {
  constexpr std::int64_t most = std::int64_t{1} << 24;
  std::int64_t stop_bytes = 0;
  for (const auto& text : settings.stop) stop_bytes += std::ssize(text);
  const std::array<std::pair<const char*, std::int64_t>, 4> parts = {
      {{"stop", stop_bytes},
       {"stop_token_ids", std::ssize(settings.stop_tokens)},
       {"banned", std::ssize(settings.sampling.banned)},
       {"logit_bias", std::ssize(settings.sampling.biases)}}};
  std::int64_t sum = 0;
  for (const auto& [name, size] : parts) sum += size;
  if (sum <= most / sequences) return;
  const auto& [name, size] =
      *std::ranges::max_element(parts, {}, [](const auto& part) { return part.second; });
  refuse(name,
         "\"{}\" has {}, kept for each of {}: at most {} in all; give a shorter one, or send fewer prompts",
         name, counted(size, name == parts[0].first ? "byte" : "token"), counted(sequences, "answer"), most);
}

CompletionRequest read_fields(const Json& body, const RequestLimits& limits) {
  CompletionRequest request;
  request.settings.sampling.temperature = 1;
  Context context{request, limits};
  for (const auto& [name, value] : body.items()) {
    const auto found = std::ranges::find(fields, std::string_view(name), &Field::name);
    if (found == fields.end())
      refuse(beginning(name), "there is no field \"{}\"; a request has {}", beginning(name),
             names_of_fields());
    if (!value.is_null()) found->set(context, name, value);
  }
  if (request.prompts.empty()) refuse("prompt", "the request has no \"prompt\"; give a text or tokens");
  const auto& settings = request.settings;
  if (body.contains("best_of") && !body["best_of"].is_null() && body["best_of"] != settings.answers)
    refuse("best_of", "\"best_of\" differs from \"n\" = {}, and answers are not ranked; leave it out",
           settings.answers);
  const auto sequences = std::ssize(request.prompts) * settings.answers;
  if (sequences > limits.sequences)
    refuse("n", "{} and \"n\" = {} are {} answers; a request has at most {}",
           counted(std::ssize(request.prompts), "prompt"), settings.answers, sequences, limits.sequences);
  check_kept(settings, sequences);
  if (!request.stream && request.include_usage)
    refuse("stream_options", "\"stream_options\" goes with \"stream\": true");
  return request;
}

}  // namespace

void check_bytes(const std::string& name, const std::string& text, const RequestLimits& limits) {
  constexpr std::int64_t token_bytes = 256;
  if (std::ssize(text) <= limits.tokens * token_bytes) return;
  throw ApiError(
      bad_request, name,
      fmt::format("the prompt has {} bytes, and a sequence has at most {} (the server's --length), of {} "
                  "bytes at most",
                  text.size(), counted(limits.tokens, "token"), token_bytes),
      "context_length_exceeded");
}

Json parse_body(std::string_view body) {
  check_nesting(body);
  Json json;
  try {
    json = parse_json<Json>(body);
  } catch (const Json::exception& error) {
    constexpr std::size_t most = 300;  // the library quotes a text or a number whole
    refuse("", "the body is no JSON: {}", beginning(error.what(), most));
  }
  if (!json.is_object()) refuse("", "the body is {}; give a JSON object", shown(json));
  check_fields("", json);
  return json;
}

CompletionRequest parse_completion(std::string_view body, const RequestLimits& limits) {
  return read_fields(parse_body(body), limits);
}

namespace {

/// A message's content: a text, or texts as parts.
std::string content_of(const Json& content) {
  if (content.is_null()) return {};
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) refuse("messages", "\"content\" is {}; give a text", shown(content));
  std::string text;
  for (const Json& each : content) {
    if (!each.is_object() || !each.contains("type") || each["type"] != "text" || !each.contains("text") ||
        !each["text"].is_string())
      refuse("messages",
             "\"content\" has a part that is not {{\"type\": \"text\", \"text\": \"...\"}}: the model reads "
             "texts alone");
    text += (text.empty() ? "" : "\n") + each["text"].get<std::string>();
  }
  return text;
}

Json messages_of(const Json& body) {
  if (!body.contains("messages") || !body["messages"].is_array() || body["messages"].empty())
    refuse("messages", "the request has no \"messages\"; give a list of {{\"role\", \"content\"}}");
  Json messages = Json::array();
  for (const Json& message : body["messages"]) {
    if (!message.is_object() || !message.contains("role") || !message["role"].is_string())
      refuse("messages", "\"messages\" holds {}; a message has a text as its \"role\"", shown(message));
    messages.push_back(message);
    messages.back()["content"] = content_of(message.contains("content") ? message["content"] : Json());
  }
  return messages;
}

}  // namespace

CompletionRequest parse_chat(std::string_view body, const ChatTemplate& chat, const RequestLimits& limits) {
  const Json json = parse_body(body);
  Json variables{{"add_generation_prompt", true}, {"tools", nullptr}, {"documents", nullptr}};
  Json flat = Json::object();
  bool scored = false;
  for (const auto& [name, value] : json.items()) {
    const bool absent = value.is_null() || (value.is_array() && value.empty());
    if (name == "prompt" || name == "echo" || name == "suffix" || name == "best_of") {
      refuse(name, "/v1/chat/completions has no \"{}\"; use /v1/completions", name);
    } else if (name == "tools" || name == "functions") {
      if (!absent) refuse(name, "\"{}\" is not supported: the model calls none", name);
    } else if (name == "tool_choice" || name == "function_call") {
      if (!absent && value != "none" && value != "auto")
        refuse(name, "\"{}\" can only be \"none\" here", name);
    } else if (name == "response_format") {
      if (!absent && (!value.is_object() || value != Json{{"type", "text"}}))
        refuse(name, "\"response_format\" can only be {{\"type\": \"text\"}} here");
    } else if (name == "parallel_tool_calls" || name == "store" || name == "messages") {
      continue;
    } else if (name == "add_generation_prompt") {
      if (!absent) variables[name] = truth(name, value);
    } else if (name == "chat_template_kwargs") {
      if (absent) continue;
      if (!value.is_object()) refuse(name, "\"{}\" is {}; give an object", name, shown(value));
      check_fields(name, value);
      for (const auto& [key, variable] : value.items()) variables[key] = variable;
    } else if (name == "logprobs") {
      scored = !absent && truth(name, value);
    } else if (name == "top_logprobs") {
      if (!absent) whole_number(name, value, 0, std::min(infer::most_tops, limits.vocabulary));
    } else if (name == "max_completion_tokens") {
      if (!absent) flat["max_tokens"] = value;
    } else if (!(name == "max_tokens" && flat.contains(name))) {
      flat[name] = value;
    }
  }
  const bool tops = json.contains("top_logprobs") && !json["top_logprobs"].is_null();
  if (tops && !scored) refuse("top_logprobs", "\"top_logprobs\" goes with \"logprobs\": true");
  if (scored) flat["logprobs"] = tops ? json["top_logprobs"] : Json(0);
  variables["messages"] = messages_of(json);
  std::vector<std::int32_t> tokens;
  try {
    const auto text = chat.text(std::move(variables));
    check_bytes("messages", text, limits);
    tokens = chat.tokens(text);
  } catch (const Json::exception& error) {
    throw ApiError(bad_request, "messages", error.what());
  } catch (const ApiError&) {
    throw;
  } catch (const Error& error) {
    throw ApiError(bad_request, "messages", error.what());
  }
  if (tokens.empty()) refuse("messages", "the conversation is empty as the chat template writes it");
  const auto room = std::max<std::int64_t>(limits.tokens - std::ssize(tokens), 1);
  flat["prompt"] = std::move(tokens);
  auto request = read_fields(flat, limits);
  if (!request.settings.max_tokens)
    request.settings.max_tokens = limits.max_tokens > 0 ? std::min(room, limits.max_tokens) : room;
  return request;
}

GenerateRequest parse_generate(std::string_view body, const RequestLimits& limits) {
  Json json = parse_body(body);
  GenerateRequest result;
  result.nested = json.contains("text");
  if (result.nested) {
    Json flat = Json::object();
    const auto add = [&](const std::string& name, const std::string& as, const Json& value) {
      if (flat.contains(as)) refuse(beginning(name), "\"{}\" is given in two places", beginning(name));
      flat[as] = value;
    };
    for (const auto& [name, value] : json.items()) {
      if (name == "text") {
        add(name, "prompt", value);
      } else if (name == "sampling_params") {
        if (value.is_null()) continue;
        if (!value.is_object()) refuse(name, "\"{}\" is {}; give an object", name, shown(value));
        check_fields(name, value);
        for (const auto& [key, setting] : value.items())
          add(key, key == "max_new_tokens" ? "max_tokens" : key, setting);
      } else {
        add(name, name, value);
      }
    }
    json = std::move(flat);
  }
  for (const char* name : {"stream", "echo", "logprobs", "stream_options"}) {
    if (json.contains(name)) refuse(name, "/generate has no \"{}\"; use /v1/completions", name);
  }
  result.completion = read_fields(json, limits);
  if (result.nested && std::ssize(result.completion.prompts) * result.completion.settings.answers > 1)
    refuse("text", "\"text\" is one text with one answer; use /v1/completions for more");
  return result;
}

namespace {

/// The response is made in memory, where a number with its token's text takes some hundred bytes.
void check_log_probabilities(const CompletionRequest& request,
                             const std::vector<generate::GenerationRequest>& prepared) {
  const auto& settings = request.settings;
  if (!settings.log_probabilities) return;
  std::int64_t tokens = 0;
  for (const auto& each : prepared)
    tokens += settings.answers * (*each.settings.max_tokens + (settings.echo ? std::ssize(each.prompt) : 0));
  const auto numbers = tokens * (1 + *settings.log_probabilities);
  if (numbers > CompletionRequest::most_log_probabilities)
    refuse("logprobs",
           "\"logprobs\" = {} of {} (\"max_tokens\" included) are {} log-probabilities, and a request has at "
           "most {}; "
           "send fewer prompts in one",
           *settings.log_probabilities, counted(tokens, "token"), numbers,
           CompletionRequest::most_log_probabilities);
}

}  // namespace

std::vector<generate::GenerationRequest> prepare(const CompletionRequest& request,
                                                 const generate::ModelText& text,
                                                 const RequestLimits& limits) {
  std::vector<generate::GenerationRequest> prepared;
  for (const auto& prompt : request.prompts) {
    // The reason, which may name files, is the server's log's.
    if (!text.tokenizer && !prompt.as_tokens)
      refuse("prompt", "the model has no tokenizer; give the prompt as token numbers");
    if (!text.tokenizer && !request.settings.stop.empty())
      refuse("stop", "the model has no tokenizer; give \"stop_token_ids\" in the place of texts");
    if (!prompt.as_tokens) check_bytes("prompt", prompt.text, limits);
    generate::GenerationRequest each;
    try {
      each = prompt.as_tokens
                 ? generate::request_of_tokens(prompt.tokens, text, request.settings, "the request")
                 : generate::request_of_text(prompt.text, text, request.settings, "the request");
    } catch (const ApiError&) {
      throw;
    } catch (const Error& error) {
      throw ApiError(bad_request, prompt.as_tokens ? "stop" : "prompt", error.what());
    }
    if (prompt.as_tokens && each.as_text && request.settings.echo)
      each.prompt_text = text.text_of(each.prompt);
    const auto tokens = std::ssize(each.prompt), room = limits.tokens - tokens;
    auto& max_tokens = each.settings.max_tokens;
    if (!max_tokens) {
      const auto usual = limits.max_tokens > 0
                             ? std::min(CompletionRequest::usual_max_tokens, limits.max_tokens)
                             : CompletionRequest::usual_max_tokens;
      max_tokens = std::clamp<std::int64_t>(room, 1, usual);
    }
    if (*max_tokens > room) {
      throw ApiError(bad_request, "prompt",
                     fmt::format("the prompt has {} and \"max_tokens\" is {}, together {}, and a sequence "
                                 "has at most {} (the server's --length)",
                                 counted(tokens, "token"), *max_tokens, tokens + *max_tokens, limits.tokens),
                     "context_length_exceeded");
    }
    if (!each.settings.sampling.banned.empty() && *max_tokens > 0) {  // with those that have no text
      try {
        infer::check(generate::engine_request(each, text, 0).sampling, limits.vocabulary, "the request");
      } catch (const Error& error) {
        throw ApiError(bad_request, "banned", error.what());
      }
    }
    prepared.push_back(std::move(each));
  }
  check_log_probabilities(request, prepared);
  return prepared;
}

}  // namespace ratplus::serve
