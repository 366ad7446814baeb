#include "lib/generate/settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.h"
#include "base/json_dump.h"
#include "base/json_int32.h"
#include "base/utf8.h"
#include "lib/generate/stop_strings.h"

namespace ratplus::generate {
namespace {

using Json = nlohmann::ordered_json;

[[noreturn]] void refuse(const std::string& where, std::string_view name, const Json& value,
                         std::string_view wanted) {
  auto shown = json_dump(value);
  constexpr std::size_t most = 60;
  if (shown.size() > most) shown = std::string(value.type_name());
  fail("{}: \"{}\" is {}; give {}", where, name, shown, wanted);
}

/// A field with its reading from JSON and its writing.
struct Field {
  std::string_view name;
  void (*set)(Settings&, const Field&, const Json&, const std::string& where);
  Json (*get)(const Settings&);
};

double number(const Field& field, const Json& value, const std::string& where) {
  if (!value.is_number()) refuse(where, field.name, value, "a number");
  return value.get<double>();
}

bool truth(const Field& field, const Json& value, const std::string& where) {
  if (!value.is_boolean()) refuse(where, field.name, value, "true or false");
  return value.get<bool>();
}

std::int64_t count(const Field& field, const Json& value, const std::string& where, std::int64_t least) {
  constexpr std::int64_t most = 1'000'000'000;  // keeps sums within 64 bits
  if (!value.is_number_integer() || (value.is_number_unsigned() && value.get<std::uint64_t>() > most) ||
      value.get<std::int64_t>() < least || value.get<std::int64_t>() > most)
    refuse(where, field.name, value, fmt::format("a whole number from {} to {}", least, most));
  return value.get<std::int64_t>();
}

std::vector<std::int32_t> token_list(const Field& field, const Json& value, const std::string& where) {
  if (!value.is_array()) refuse(where, field.name, value, "a list of token numbers");
  std::vector<std::int32_t> tokens;
  for (const Json& entry : value) {
    const auto token = int32_of(entry);
    if (!token) refuse(where, field.name, entry, "a list of token numbers");
    tokens.push_back(*token);
  }
  return tokens;
}

std::vector<std::string> texts(const Field& field, const Json& value, const std::string& where) {
  std::vector<std::string> found;
  for (const Json& entry : value.is_array() ? value : Json::array({value})) {
    if (!entry.is_string()) refuse(where, field.name, entry, "a text or a list of texts");
    found.push_back(entry.get<std::string>());
  }
  check_stop_strings(found, where);
  return found;
}

std::vector<std::pair<std::int32_t, float>> biases(const Field& field, const Json& value,
                                                   const std::string& where) {
  constexpr std::string_view wanted = "an object of token numbers and numbers, {\"17\": -2.5}";
  if (!value.is_object()) refuse(where, field.name, value, wanted);
  std::vector<std::pair<std::int32_t, float>> found;
  for (const auto& [key, bias] : value.items()) {
    std::int32_t token = 0;
    const auto read = std::from_chars(key.data(), key.data() + key.size(), token);
    if (read.ec != std::errc{} || read.ptr != key.data() + key.size() || !bias.is_number())
      refuse(where, field.name, value, wanted);
    found.emplace_back(token, static_cast<float>(bias.get<double>()));
  }
  return found;
}

template <auto Member>
constexpr Field sampling_number(std::string_view name) {
  return {name,
          [](Settings& s, const Field& field, const Json& value, const std::string& where) {
            s.sampling.*Member = number(field, value, where);
          },
          [](const Settings& s) { return Json(s.sampling.*Member); }};
}

template <auto Member>
constexpr Field flag(std::string_view name) {
  return {name,
          [](Settings& s, const Field& field, const Json& value, const std::string& where) {
            s.*Member = truth(field, value, where);
          },
          [](const Settings& s) { return Json(s.*Member); }};
}

using Sampling = infer::SamplingParameters;

constexpr std::array fields = {
    Field{"max_tokens",
          [](Settings& s, const Field& field, const Json& value, const std::string& where) {
            s.max_tokens = count(field, value, where, 1);
          },
          [](const Settings& s) { return s.max_tokens ? Json(*s.max_tokens) : Json(nullptr); }},
    sampling_number<&Sampling::temperature>("temperature"),
    Field{"top_k",
          [](Settings& s, const Field& field, const Json& value, const std::string& where) {
            s.sampling.top_k = count(field, value, where, 0);
          },
          [](const Settings& s) { return Json(s.sampling.top_k); }},
    sampling_number<&Sampling::top_p>("top_p"),
    sampling_number<&Sampling::min_p>("min_p"),
    sampling_number<&Sampling::repetition_penalty>("repetition_penalty"),
    sampling_number<&Sampling::presence_penalty>("presence_penalty"),
    sampling_number<&Sampling::frequency_penalty>("frequency_penalty"),
    Field{"penalize_prompt",
          [](Settings& s, const Field& field, const Json& value, const std::string& where) {
            s.sampling.penalize_prompt = truth(field, value, where);
          },
          [](const Settings& s) { return Json(s.sampling.penalize_prompt); }},
    Field{"logit_bias",
          [](Settings& s, const Field& field, const Json& value, const std::string& where) {
            s.sampling.biases = biases(field, value, where);
          },
          [](const Settings& s) { return Json(s.sampling.biases); }},
    Field{"banned",
          [](Settings& s, const Field& field, const Json& value, const std::string& where) {
            s.sampling.banned = token_list(field, value, where);
          },
          [](const Settings& s) { return Json(s.sampling.banned); }},
    Field{"seed",
          [](Settings& s, const Field& field, const Json& value, const std::string& where) {
            if (!value.is_number_unsigned())
              refuse(where, field.name, value, "a whole number from 0 to 2^64 - 1");
            s.sampling.seed = value.get<std::uint64_t>();
          },
          [](const Settings& s) { return Json(s.sampling.seed); }},
    Field{"n",
          [](Settings& s, const Field& field, const Json& value, const std::string& where) {
            s.answers = count(field, value, where, 1);
          },
          [](const Settings& s) { return Json(s.answers); }},
    Field{"stop",
          [](Settings& s, const Field& field, const Json& value, const std::string& where) {
            s.stop = texts(field, value, where);
          },
          [](const Settings& s) { return Json(s.stop); }},
    Field{"stop_tokens",
          [](Settings& s, const Field& field, const Json& value, const std::string& where) {
            s.stop_tokens = token_list(field, value, where);
          },
          [](const Settings& s) { return Json(s.stop_tokens); }},
    flag<&Settings::ignore_end_of_text>("ignore_end_of_text"),
    Field{"log_probabilities",
          [](Settings& s, const Field& field, const Json& value, const std::string& where) {
            s.log_probabilities = count(field, value, where, 0);
          },
          [](const Settings& s) { return s.log_probabilities ? Json(*s.log_probabilities) : Json(nullptr); }},
    flag<&Settings::echo>("echo"),
    flag<&Settings::return_tokens>("return_tokens"),
    Field{"cut",
          [](Settings& s, const Field& field, const Json& value, const std::string& where) {
            if (!value.is_string()) refuse(where, field.name, value, "none, left or middle");
            s.cut = parse_cut(value.get_ref<const std::string&>(), where + ": \"cut\"");
          },
          [](const Settings& s) { return Json(to_string(s.cut)); }},
    Field{"trim",
          [](Settings& s, const Field& field, const Json& value, const std::string& where) {
            if (!value.is_string()) refuse(where, field.name, value, "none, blank or lines");
            s.trim = parse_trim(value.get_ref<const std::string&>(), where + ": \"trim\"");
          },
          [](const Settings& s) { return Json(to_string(s.trim)); }},
};

}  // namespace

bool set_field(Settings& settings, const std::string& name, const Json& value, const std::string& where) {
  const auto found = std::ranges::find(fields, std::string_view(name), &Field::name);
  if (found == fields.end()) return false;
  found->set(settings, *found, value, where);
  return true;
}

std::string field_names() {
  std::vector<std::string_view> names;
  for (const auto& field : fields) names.push_back(field.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

Json to_json(const Settings& settings) {
  Json json;
  for (const auto& field : fields) json[std::string(field.name)] = field.get(settings);
  return json;
}

GenerationRequest request_of_text(const std::string& text, const ModelText& model, const Settings& settings,
                                  const std::string& where) {
  if (!is_utf8(text)) fail("{}: the prompt is no well-formed UTF-8", where);
  GenerationRequest request{.prompt = {}, .prompt_text = text, .settings = settings};
  if (!model.tokenizer) fail("{}: a text needs a tokenizer, and {}", where, model.missing);
  model.tokenizer->encode(text, request.prompt);
  if (!request.prompt.empty()) return request;
  if (model.end_of_text < 0) {
    fail(
        "{}: the prompt is empty, and no token is known that ends, and so begins, a text; give a prompt, or "
        "--end-of-text TOKEN",
        where);
  }
  request.prompt.push_back(model.end_of_text);
  return request;
}

GenerationRequest request_of_tokens(std::vector<std::int32_t> tokens, const ModelText& model,
                                    const Settings& settings, const std::string& where) {
  if (!settings.stop.empty() && !model.tokenizer)
    fail("{}: stop texts need a tokenizer, and {}", where, model.missing);
  return {.prompt = std::move(tokens),
          .as_text = model.tokenizer.has_value(),
          .prompt_text = {},
          .settings = settings};
}

}  // namespace ratplus::generate
