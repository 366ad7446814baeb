#include "lib/generate/generator.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace ratplus::generate {

const char* to_string(Finish finish) {
  switch (finish) {
    case Finish::stop:
      return "stop";
    case Finish::length:
      return "length";
    case Finish::none:
      break;
  }
  return "unfinished";
}

infer::Request engine_request(const GenerationRequest& request, const ModelText& model, std::int64_t answer) {
  const auto& settings = request.settings;
  infer::Request result{.prompt = request.prompt,
                        .max_tokens = *settings.max_tokens,
                        .stop_tokens = settings.stop_tokens,
                        .sampling = settings.sampling,
                        .choice = static_cast<std::uint32_t>(answer),
                        .log_probabilities = settings.log_probabilities};
  if (!settings.ignore_end_of_text && model.end_of_text >= 0) result.stop_tokens.push_back(model.end_of_text);
  if (request.as_text) {  // tokens without a text
    for (auto token = model.tokenizer->vocab_size(); token < model.model_tokens; ++token)
      result.sampling.banned.push_back(static_cast<std::int32_t>(token));
  }
  return result;
}

GenerationRequest Generator::checked(GenerationRequest request, const std::string& where) const {
  auto& settings = request.settings;
  const auto all = engine_.settings().tokens, prompt = std::ssize(request.prompt);
  if (settings.answers < 1 || settings.answers > Settings::most_answers)
    fail("{}: n = {} is not a number of answers from 1 to {}", where, settings.answers,
         Settings::most_answers);
  if (settings.answers > 1 && settings.sampling.temperature == 0) {
    fail(
        "{}: n = {} answers are the same at temperature 0, which always takes the likeliest token; give a "
        "temperature",
        where, settings.answers);
  }
  if (!settings.max_tokens) {
    const auto room = settings.cut == Cut::none ? all - prompt : all - 1;
    settings.max_tokens = std::clamp<std::int64_t>(room, 1, Settings::usual_max_tokens);
  }
  if (settings.cut != Cut::none && *settings.max_tokens >= all) {
    fail("{}: {} tokens to generate leave no room for a prompt: a sequence has at most {}; ask for fewer",
         where, *settings.max_tokens, all);
  }
  if (settings.cut != Cut::none)
    request.prompt = cut_tokens(std::move(request.prompt), all - *settings.max_tokens, settings.cut);
  engine_.check(engine_request(request, model_, 0), where);
  return request;
}

std::int64_t Generator::add(const GenerationRequest& request, std::string where) {
  Running running{.where = std::move(where), .as_text = request.as_text};
  running.unfinished = request.settings.answers;
  auto with_text = request.prompt;
  if (request.as_text)
    std::erase_if(with_text, [&](std::int32_t token) { return token >= model_.tokenizer->vocab_size(); });
  running.answers.resize(static_cast<std::size_t>(request.settings.answers));
  for (std::int64_t i = 0; i < request.settings.answers; ++i) {
    auto to_engine = engine_request(request, model_, i);
    const auto number = engine_.add(std::move(to_engine));
    places_[number] = {next_, i};
    running.numbers.push_back(number);
    if (!request.as_text) continue;
    running.streams.emplace_back(*model_.tokenizer, request.settings.stop, request.settings.trim);
    running.streams.back().follow(with_text);
  }
  requests_.emplace(next_, std::move(running));
  return next_++;
}

void Generator::cancel(std::int64_t request) {
  for (const auto number : requests_.at(request).numbers) {
    engine_.cancel(number);
    places_.erase(number);
  }
}

std::vector<AnswerPiece> Generator::step() {
  std::vector<AnswerPiece> pieces;
  for (const auto& event : engine_.step()) pieces.push_back(take_event(event));
  return pieces;
}

AnswerPiece Generator::take_event(const infer::Event& event) {
  const auto place = places_.at(event.request);
  auto& running = requests_.at(place.request);
  if (event.end == infer::End::not_finite) {
    fail(
        "{}: the model's logits are not finite; its weights may be damaged (`ratplus inspect` verifies a "
        "checkpoint)",
        running.where);
  }
  const auto i = static_cast<std::size_t>(place.answer);
  auto& answer = running.answers[i];
  AnswerPiece piece{.request = place.request, .answer = place.answer, .token = event.token};
  answer.tokens.push_back(event.token);
  answer.log_probabilities.push_back(event.log_probability);
  answer.top.push_back(event.top);
  const bool stop_token = event.end == infer::End::stop_token;
  if (stop_token) {
    piece.finish = Finish::stop;
  } else if (event.end == infer::End::length) {
    piece.finish = Finish::length;
  }
  if (running.as_text) {
    auto& stream = running.streams[i];
    if (!stop_token) piece.text = stream.add(event.token);
    if (!stream.stopped() && piece.finish != Finish::none) piece.text += stream.finish();
    if (stream.stopped()) {
      if (piece.finish == Finish::none) engine_.cancel(event.request);
      piece.finish = Finish::stop;
    }
    answer.text += piece.text;
  }
  answer.finish = piece.finish;
  if (piece.finish != Finish::none) {
    --running.unfinished;
    places_.erase(event.request);
  }
  return piece;
}

std::vector<Answer> Generator::take(std::int64_t request) {
  auto answers = std::move(requests_.at(request).answers);
  requests_.erase(request);
  return answers;
}

}  // namespace ratplus::generate
