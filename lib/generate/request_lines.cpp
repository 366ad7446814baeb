#include "lib/generate/request_lines.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "lib/generate/json_values.h"

namespace ratplus::generate {
namespace {

using Json = nlohmann::ordered_json;

}  // namespace

void LineForm::check() const {
  constexpr std::array<std::string_view, 6> own = {"prompt_tokens",     "completion_tokens",
                                                   "finish_reason",     "tokens",
                                                   "log_probabilities", "top_log_probabilities"};
  constexpr std::array<std::string_view, 3> others = {"id", "meta", "answers"};
  const auto is_own = [&](const std::string& name) { return std::ranges::count(own, name) > 0; };
  if (text_field.empty()) fail("--text-field is empty; give the name of the answer's text");
  if (is_own(text_field) || std::ranges::count(others, text_field) > 0)
    fail("--text-field {}: the result has another field of that name; give another one", text_field);
  for (const auto& name : kept) {
    if (name.empty()) fail("--keep has an empty name; give names apart by commas");
    if (name == text_field)
      fail("--keep {}: the answer's text has that name in the result; give it another by --text-field", name);
    if (is_own(name)) fail("--keep {}: the result has another field of that name; rename the line's", name);
  }
}

Json LineForm::to_json() const {
  Json json;
  if (prompt) json["prompt_template"] = prompt->text();
  if (!kept.empty()) json["keep"] = kept;
  if (text_field != "text") json["text_field"] = text_field;
  return json;
}

RequestLines::RequestLines(const InputLines& input, const Settings& settings, const ModelText& text,
                           infer::Engine& engine, LineForm form)
    : input_(input),
      settings_(settings),
      text_(text),
      engine_(engine),
      generator_(engine, text),
      form_(std::move(form)) {}

RequestLines::Parsed RequestLines::parse(std::size_t line) const {
  const auto where = input_.where(line);
  const Json json = input_.object(line);
  Parsed parsed;
  Settings settings = settings_;
  settings.sampling.seed += line;
  for (const auto& name : form_.kept) {
    if (!json.contains(name)) fail("{}: has no field \"{}\", which --keep names", where, name);
    parsed.kept[name] = json.at(name);
    input_.check_copied(line, name, parsed.kept[name]);
  }
  const auto check_answers = [&] {  // of several answers there is a list of that name
    if (settings.answers > 1 && parsed.kept.contains("answers"))
      fail("{}: --keep answers would take the place of the {} answers; rename the field", where,
           settings.answers);
  };
  if (form_.prompt) {
    check_answers();
    for (const char* name : {"_id", "id"}) {
      if (json.contains(name)) parsed.id = json.at(name);
    }
    input_.check_copied(line, "id", parsed.id);
    parsed.request =
        generator_.checked(request_of_text(form_.prompt->fill(json, where), text_, settings, where), where);
    if (parsed.id.is_null()) parsed.id = input_.number(line);
    return parsed;
  }
  for (const auto& [name, value] : json.items()) {
    if (name == "prompt" || name == "tokens") continue;
    if (name == "id") {
      parsed.id = value;
    } else if (name == "meta") {
      parsed.meta = value;
    } else if (!set_field(settings, name, value, where) && !parsed.kept.contains(name)) {
      fail("{}: there is no field \"{}\"; a line has prompt or tokens, id, meta (copied to the result), {}",
           where, beginning(name), field_names());
    }
  }
  check_answers();
  input_.check_copied(line, "id", parsed.id);
  input_.check_copied(line, "meta", parsed.meta);
  if (json.contains("prompt") == json.contains("tokens"))
    fail("{}: {}; give one of \"prompt\" (a text) and \"tokens\" (a list of numbers)", where,
         json.contains("prompt") ? "has two prompts" : "has no prompt");
  parsed.given_as_tokens = json.contains("tokens");
  auto request = parsed.given_as_tokens
                     ? request_of_tokens(tokens_from_json(json, "tokens", where), text_, settings, where)
                     : request_of_text(text_from_json(json, "prompt", where), text_, settings, where);
  parsed.request = generator_.checked(std::move(request), where);
  if (parsed.given_as_tokens && settings.echo && parsed.request.as_text)
    parsed.request.prompt_text = text_.text_of(parsed.request.prompt);
  if (parsed.id.is_null()) parsed.id = input_.number(line);
  return parsed;
}

std::int64_t RequestLines::room() const {
  // Enough for those that end within a round.
  return std::max<std::int64_t>(2 * engine_.settings().slots - engine_.running() - engine_.waiting(), 0);
}

void RequestLines::add(std::size_t line) {
  auto parsed = parse(line);
  const auto number = generator_.add(parsed.request, input_.where(line));
  lines_.emplace(number, Line{line, std::move(parsed)});
}

void RequestLines::step(const Done& done) {
  std::set<std::int64_t> ended;
  for (const auto& piece : generator_.step()) {
    ++tokens_;
    if (piece.finish != Finish::none && generator_.finished(piece.request)) ended.insert(piece.request);
  }
  for (const auto number : ended) {
    const auto line = std::move(lines_.extract(number).mapped());
    tokens_ += std::ssize(line.parsed.request.prompt);
    done(line.line, result(line.parsed, generator_.take(number)));
  }
}

Json RequestLines::result(const Parsed& parsed, const std::vector<Answer>& answers) const {
  Json json;
  json["id"] = parsed.id;
  json["prompt_tokens"] = parsed.request.prompt.size();
  if (answers.size() == 1) {
    json.update(result(parsed, answers.front()));
  } else {
    json["answers"] = Json::array();
    for (const Answer& answer : answers) json["answers"].push_back(result(parsed, answer));
  }
  if (!parsed.meta.is_null()) json["meta"] = parsed.meta;
  json.update(parsed.kept);
  return json;
}

Json RequestLines::result(const Parsed& parsed, const Answer& answer) const {
  const auto& [prompt, as_text, prompt_text, settings] = parsed.request;
  Json json;
  json["completion_tokens"] = answer.tokens.size();
  json["finish_reason"] = to_string(answer.finish);
  if (as_text) json[form_.text_field] = (settings.echo ? prompt_text : "") + answer.text;
  if (parsed.given_as_tokens || settings.return_tokens) {
    auto tokens = settings.echo ? prompt : std::vector<std::int32_t>();
    tokens.insert(tokens.end(), answer.tokens.begin(), answer.tokens.end());
    json["tokens"] = std::move(tokens);
  }
  if (!settings.log_probabilities) return json;
  json["log_probabilities"] = Json::array();
  for (const float value : answer.log_probabilities) json["log_probabilities"].push_back(json_number(value));
  if (*settings.log_probabilities == 0) return json;
  json["top_log_probabilities"] = Json::array();
  for (const auto& top : answer.top) {
    Json pairs = Json::array();
    for (const auto& [token, value] : top) pairs.push_back(Json::array({token, json_number(value)}));
    json["top_log_probabilities"].push_back(std::move(pairs));
  }
  return json;
}

}  // namespace ratplus::generate
