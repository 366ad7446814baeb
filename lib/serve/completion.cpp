#include "lib/serve/completion.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "base/json_dump.h"
#include "lib/generate/json_values.h"
#include "lib/serve/http_status.h"

namespace ratplus::serve {
namespace {

using Json = nlohmann::ordered_json;
using generate::Finish;

constexpr const char* not_finite =
    "the model's logits are not finite; its weights may be damaged (`ratplus inspect` verifies a checkpoint)";

/// Whether all logits behind the scores had a distribution.
bool has_distributions(const infer::Scored& scored) {
  return std::ranges::none_of(scored.log_probability, [](float x) { return std::isnan(x); }) &&
         std::ranges::all_of(scored.top,
                             [](const auto& top) { return top.empty() || top.front().token >= 0; });
}

/// Whether the likeliest token by the model's own logits is the one that is drawn.
bool plain_greedy(const infer::SamplingParameters& s) {
  return s.temperature == 0 && s.repetition_penalty == 1 && s.presence_penalty == 0 &&
         s.frequency_penalty == 0 && s.biases.empty() && s.banned.empty();
}

double seconds_since(Completion::Clock::time_point time) {
  return std::chrono::duration<double>(Completion::Clock::now() - time).count();
}

std::int64_t characters_of(std::string_view text) {
  return std::ranges::count_if(text,
                               [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; });
}

Json empty_log_probabilities() {
  Json json;
  for (const char* key : {"tokens", "token_logprobs", "top_logprobs", "text_offset"})
    json[key] = Json::array();
  return json;
}

}  // namespace

std::weak_ptr<Completion> Completion::start(const CompletionPlace& place, Asked asked,
                                            std::shared_ptr<Reply> reply) {
  const auto completion = std::make_shared<Completion>(place, std::move(asked), std::move(reply));
  completion->post([completion] { completion->begin(); });
  return completion;
}

void Completion::expire(double seconds) {
  post([self = shared_from_this(), seconds] {
    self->fail_now(
        timed_out,
        fmt::format("the request is not answered after {} s (the server's --time-limit)", seconds));
  });
}

void Completion::post(std::function<void()> task) {
  serial_.post([self = shared_from_this(), task = std::move(task)] {
    try {
      task();
    } catch (const std::exception& error) {
      self->fail_now(server_failed, error.what());
    }
  });
}

std::int64_t Completion::sequences_of(const CompletionRequest& request) {
  return std::ssize(request.prompts) * request.settings.answers;
}

Completion::Completion(const CompletionPlace& place, Asked asked, std::shared_ptr<Reply> reply)
    : place_(place),
      asked_(std::move(asked)),
      reply_(std::move(reply)),
      serial_(place.pool),
      prompts_(asked_.prompts.size()),
      choices_(asked_.prompts.size() * answers()),
      created_(std::chrono::duration_cast<std::chrono::seconds>(
                   std::chrono::system_clock::now().time_since_epoch())
                   .count()) {}

/// Whether log-probabilities of the prompts are asked for.
bool Completion::scores() const {
  return asked_.request.settings.echo && asked_.request.settings.log_probabilities.has_value();
}

/// Whether scoring gives the only token of the answer, too: as lm-evaluation-harness asks.
bool Completion::next_by_score(std::size_t prompt) const {
  const auto& settings = asked_.prompts[prompt].settings;
  return scores() && settings.answers == 1 && settings.max_tokens == 1 && plain_greedy(settings.sampling);
}

/// The generation of a prompt's answers.
Work Completion::work_for(std::size_t prompt) const {
  Work work{.pattern = asked_.pattern};
  for (std::size_t i = 0; i < answers(); ++i) {
    work.sequences.emplace_back(
        prompt * answers() + i,
        generate::engine_request(asked_.prompts[prompt], place_.text, static_cast<std::int64_t>(i)));
  }
  return work;
}

void Completion::begin() {
  const std::weak_ptr<Completion> weak = weak_from_this();
  const auto number = asked_.number;
  auto& loop = place_.loop;
  reply_->when_gone([weak, number, &loop] {
    const auto completion = weak.lock();  // first: the loop lets go of what it cancels
    loop.cancel(number);
    if (!completion) return;
    completion->post([completion, number, &loop] {
      completion->end("cancelled");
      loop.cancel(number);  // what it submitted meanwhile
    });
  });
  Work work{.pattern = asked_.pattern};
  for (std::size_t p = 0; p < prompts_.size(); ++p) {
    const auto& prompt = asked_.prompts[p];
    if (prompt.as_text) {
      auto with_text = prompt.prompt;
      const auto known = place_.text.tokenizer->vocab_size();
      std::erase_if(with_text, [&](std::int32_t token) { return token >= known; });
      for (std::size_t i = 0; i < answers(); ++i) {
        auto& stream = choices_[p * answers() + i].stream;
        stream.emplace(*place_.text.tokenizer, prompt.settings.stop);
        stream->follow(with_text);
      }
    }
    if (scores()) {
      const auto tops = std::max<std::int64_t>(*prompt.settings.log_probabilities, 1);
      work.scores.emplace_back(
          p,
          infer::ScoreRequest{.tokens = prompt.prompt, .first = 1, .tops = tops, .next = next_by_score(p)});
    } else if (*prompt.settings.max_tokens > 0) {
      auto generated = work_for(p);
      std::ranges::move(generated.sequences, std::back_inserter(work.sequences));
    } else {
      for (std::size_t i = 0; i < answers(); ++i) end_choice(choices_[p * answers() + i], Finish::length);
    }
  }
  if (!work.sequences.empty() || !work.scores.empty()) {
    loop.submit(number, shared_from_this(), std::move(work));
  } else {
    asked_.request.stream ? flush() : answer();
  }
}

void Completion::take(std::vector<Output> outputs) {
  post([self = shared_from_this(), outputs = std::make_shared<std::vector<Output>>(std::move(outputs))] {
    for (auto& output : *outputs) {
      if (!self->ended_) self->take_one(output);
    }
    if (self->ended_) return;
    if (self->asked_.request.stream) {
      self->flush();
    } else if (self->all_ended()) {
      self->answer();
    }
  });
}

void Completion::fail(const std::string& why, int status) {
  post([self = shared_from_this(), why, status] { self->fail_now(status, why); });
}

void Completion::take_one(Output& output) {
  if (output.scores) {
    take_scores(output.tag, std::move(output.scored));
  } else {
    take_event(output.tag, output.event);
  }
}

void Completion::take_scores(std::size_t p, infer::Scored scored) {
  auto& prompt = asked_.prompts[p];
  if (!has_distributions(scored)) {
    fail_now(server_failed, not_finite);
    return;
  }
  prompts_[p].scored = std::move(scored);
  if (*prompt.settings.max_tokens == 0) {
    for (std::size_t i = 0; i < answers(); ++i) end_choice(choices_[p * answers() + i], Finish::length);
    return;
  }
  if (next_by_score(p)) {
    auto& top = prompts_[p].scored->top.back();
    const auto next = top.front();
    const bool has_text = !prompt.as_text || next.token < place_.text.tokenizer->vocab_size();
    if (has_text) {
      auto& choice = choices_[p];
      const bool stop = std::ranges::count(prompt.settings.stop_tokens, next.token) > 0 ||
                        (!prompt.settings.ignore_end_of_text && next.token == place_.text.end_of_text);
      infer::Event event{.token = next.token,
                         .end = stop ? infer::End::stop_token : infer::End::length,
                         .log_probability = next.log_probability,
                         .top = std::move(top)};
      prompts_[p].scored->top.pop_back();
      event.top.resize(static_cast<std::size_t>(
          std::min<std::int64_t>(std::ssize(event.top), *prompt.settings.log_probabilities)));
      take_event(p, event);
      require(choice.finish != Finish::none, "a scored token ended no answer");
      return;
    }
    prompts_[p].scored->top.pop_back();
  }
  place_.loop.submit(asked_.number, shared_from_this(), work_for(p));
}

void Completion::take_event(std::size_t index, const infer::Event& event) {
  auto& choice = choices_[index];
  if (choice.finish != Finish::none) return;  // on its way while its sequence was cancelled
  if (event.end == infer::End::not_finite) {
    fail_now(server_failed, not_finite);
    return;
  }
  const auto now = Clock::now();
  if (choice.last) {
    place_.metrics.add_tokens(std::chrono::duration<double>(now - *choice.last).count(), 1);
  } else {
    place_.metrics.add_first_token(std::chrono::duration<double>(now - asked_.came).count());
  }
  choice.last = now;
  add_token(choice, event.token, event.log_probability, event.top);
  const bool stop_token = event.end == infer::End::stop_token;
  auto finish = stop_token ? Finish::stop : event.end == infer::End::length ? Finish::length : Finish::none;
  if (choice.stream) {
    auto& stream = *choice.stream;
    if (!stop_token) choice.text += stream.add(event.token);
    if (!stream.stopped() && finish != Finish::none) choice.text += stream.finish();
    if (stream.stopped()) {
      if (finish == Finish::none) place_.loop.cancel(asked_.number, index);
      finish = Finish::stop;
    }
  }
  if (finish != Finish::none) end_choice(choice, finish);
}

void Completion::add_token(Choice& choice, std::int32_t token, float log_probability,
                           std::vector<infer::TokenScore> top) {
  ++choice.generated;
  if (asked_.request.return_token_ids || !place_.text.tokenizer) choice.ids.push_back(token);
  if (asked_.request.settings.log_probabilities)
    choice.tokens.push_back({{token, log_probability}, std::move(top), choice.characters});
  choice.characters += place_.names.characters(token);
}

void Completion::end_choice(Choice& choice, Finish finish) {
  choice.finish = finish;
  choice.stream.reset();
}

bool Completion::all_ended() const {
  return std::ranges::all_of(choices_, [](const Choice& c) { return c.finish != Finish::none; });
}

// --- JSON --------------------------------------------------------------------------------------------------------

Json Completion::head() const {
  Json json;
  const bool chat = asked_.form == CompletionForm::chat;
  json["id"] = fmt::format("{}-{}", chat ? "chatcmpl" : "cmpl", asked_.number);
  json["object"] = !chat                   ? "text_completion"
                   : asked_.request.stream ? "chat.completion.chunk"
                                           : "chat.completion";
  json["created"] = created_;
  json["model"] = asked_.model;
  return json;
}

Json Completion::usage() const {
  std::int64_t prompt = 0, generated = 0;
  for (const auto& each : asked_.prompts) prompt += std::ssize(each.prompt);
  for (const auto& each : choices_) generated += each.generated;
  return {{"prompt_tokens", prompt}, {"completion_tokens", generated}, {"total_tokens", prompt + generated}};
}

Json Completion::tops_json(const std::vector<infer::TokenScore>& top) const {
  if (*asked_.request.settings.log_probabilities == 0) return nullptr;
  Json json = Json::object();
  for (const auto& [token, value] : top) {
    if (token >= 0 && !json.contains(place_.names.name(token)))
      json[place_.names.name(token)] = generate::json_number(value);
  }
  return json;
}

void Completion::append_token(const Token& token, std::int64_t offset, Json& json) const {
  json["tokens"].push_back(place_.names.name(token.score.token));
  json["token_logprobs"].push_back(generate::json_number(token.score.log_probability));
  json["top_logprobs"].push_back(tops_json(token.top));
  json["text_offset"].push_back(offset + token.offset);
}

/// The prompt's own tokens, of which the first has no log-probability.
void Completion::append_prompt_scores(std::size_t p, Json& json) const {
  const auto& prompt = asked_.prompts[p];
  const auto& scored = *prompts_[p].scored;
  std::int64_t offset = 0;
  for (std::size_t t = 0; t < prompt.prompt.size(); ++t) {
    const auto token = prompt.prompt[t];
    if (t > 0) {
      auto top = scored.top[t - 1];
      top.resize(static_cast<std::size_t>(
          std::min<std::int64_t>(std::ssize(top), *prompt.settings.log_probabilities)));
      append_token({{token, scored.log_probability[t - 1]}, std::move(top), 0}, offset, json);
    } else {
      json["tokens"].push_back(place_.names.name(token));
      json["token_logprobs"].push_back(nullptr);
      json["top_logprobs"].push_back(nullptr);
      json["text_offset"].push_back(0);
    }
    offset += place_.names.characters(token);
    if (t == 0 && prompt.as_text && token < place_.text.tokenizer->vocab_size() &&
        !place_.text.tokenizer->is_special(token)) {  // may lose its blank
      offset = characters_of(place_.text.tokenizer->decode(std::vector{token}));
    }
  }
}

/// {"token", "logprob", "bytes"}
Json Completion::chat_token_json(const infer::TokenScore& score) const {
  Json json;
  json["token"] = place_.names.name(score.token);
  json["logprob"] = generate::json_number(score.log_probability);
  json["bytes"] = nullptr;
  if (score.token < place_.text.tokenizer->vocab_size()) {
    json["bytes"] = Json::array();
    for (const char byte : place_.text.tokenizer->bytes_of(score.token))
      json["bytes"].push_back(static_cast<unsigned char>(byte));
  }
  return json;
}

/// The same for a chat: a message, or what of it is new.
Json Completion::chat_choice_json(std::size_t index) {
  auto& choice = choices_[index];
  Json message = Json::object();
  if (!std::exchange(choice.role_shown, true)) message["role"] = "assistant";
  message["content"] = std::exchange(choice.text, {});
  Json json;
  json["index"] = index;
  json[asked_.request.stream ? "delta" : "message"] = std::move(message);
  json["logprobs"] = nullptr;
  if (asked_.request.settings.log_probabilities) {
    Json tokens = Json::array();
    for (const auto& token : std::exchange(choice.tokens, {})) {
      auto each = chat_token_json(token.score);
      each["top_logprobs"] = Json::array();
      for (const auto& top : token.top) {
        if (top.token >= 0) each["top_logprobs"].push_back(chat_token_json(top));
      }
      tokens.push_back(std::move(each));
    }
    json["logprobs"] = {{"content", std::move(tokens)}};
  }
  if (asked_.request.return_token_ids) json["token_ids"] = std::exchange(choice.ids, {});
  json["finish_reason"] = nullptr;
  if (choice.finish != Finish::none) json["finish_reason"] = to_string(choice.finish);
  choice.ended_shown = choice.finish != Finish::none;
  return json;
}

/// A choice with all that was not sent yet.
Json Completion::choice_json(std::size_t index) {
  if (asked_.form == CompletionForm::chat) return chat_choice_json(index);
  auto& choice = choices_[index];
  const auto p = prompt_of(index);
  const auto& prompt = asked_.prompts[p];
  const auto& settings = prompt.settings;
  const bool echoes = settings.echo && !std::exchange(choice.echoed, true);
  Json json;
  json["index"] = index;
  json["text"] = (echoes ? prompt.prompt_text : std::string()) + std::exchange(choice.text, {});
  json["logprobs"] = nullptr;
  if (settings.log_probabilities) {
    auto scores = empty_log_probabilities();
    if (echoes) append_prompt_scores(p, scores);
    const auto before = settings.echo ? characters_of(prompt.prompt_text) : 0;
    for (const auto& token : std::exchange(choice.tokens, {})) append_token(token, before, scores);
    json["logprobs"] = std::move(scores);
  }
  if (asked_.request.return_token_ids || !place_.text.tokenizer) {
    auto ids = echoes ? prompt.prompt : std::vector<std::int32_t>();
    for (const auto token : std::exchange(choice.ids, {})) ids.push_back(token);
    json["token_ids"] = std::move(ids);
  }
  json["finish_reason"] = nullptr;
  if (choice.finish != Finish::none) json["finish_reason"] = to_string(choice.finish);
  choice.ended_shown = choice.finish != Finish::none;
  return json;
}

void Completion::answer() {
  Json json;
  if (asked_.form == CompletionForm::generate_nested) {
    json["text"] = choices_.front().text;
  } else if (asked_.form == CompletionForm::generate) {
    json["text"] = Json::array();
    for (const auto& choice : choices_) json["text"].push_back(choice.text);
  } else {
    json = head();
    json["choices"] = Json::array();
    for (std::size_t i = 0; i < choices_.size(); ++i) json["choices"].push_back(choice_json(i));
    json["usage"] = usage();
  }
  reply_->send({.body = json_dump(json)});
  const bool stop = std::ranges::all_of(choices_, [](const Choice& c) { return c.finish == Finish::stop; });
  end(stop ? "stop" : "length");
}

/// Sends what came since the last piece, once that is taken: a client that reads slowly gets larger pieces.
void Completion::flush() {
  if (sending_ || ended_) return;
  std::string bytes;
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    auto& choice = choices_[i];
    if (choice.ended_shown) continue;
    const bool scored = !scores() || prompts_[prompt_of(i)].scored.has_value();
    const bool echoes = asked_.request.settings.echo && !choice.echoed;
    const bool news = !choice.text.empty() || !choice.tokens.empty() || !choice.ids.empty() ||
                      choice.finish != Finish::none || (echoes && scored);
    if (!news || !scored) continue;
    auto json = head();
    json["choices"] = Json::array({choice_json(i)});
    if (asked_.request.include_usage) json["usage"] = nullptr;
    bytes += "data: " + json_dump(json) + "\n\n";
  }
  const bool last = all_ended();
  if (last) {
    if (asked_.request.include_usage) {
      auto json = head();
      json["choices"] = Json::array();
      json["usage"] = usage();
      bytes += "data: " + json_dump(json) + "\n\n";
    }
    bytes += "data: [DONE]\n\n";
  }
  if (bytes.empty()) return;
  sending_ = streamed_ = true;
  reply_->send_events(std::move(bytes), last, [self = shared_from_this()] {
    self->post([self] {
      self->sending_ = false;
      self->flush();
    });
  });
  if (!last) return;
  const bool stop = std::ranges::all_of(choices_, [](const Choice& c) { return c.finish == Finish::stop; });
  end(stop ? "stop" : "length");
}

void Completion::fail_now(int status, const std::string& why) {
  if (ended_) return;
  place_.loop.cancel(asked_.number);
  const auto response = error_response(ApiError(status, {}, why));
  if (streamed_) {
    reply_->send_events("data: " + response.body + "\n\n", true, [] {});
  } else {
    reply_->send(response);
  }
  end("error", status);
}

void Completion::end(const std::string& reason, int status) {
  if (std::exchange(ended_, true)) return;
  const auto seconds = seconds_since(asked_.came);
  CompletionEnd result{.number = asked_.number,
                       .reason = reason,
                       .prompts = std::ssize(prompts_),
                       .answers = std::ssize(choices_),
                       .sequences = sequences_of(asked_.request),
                       .seconds = seconds,
                       .status = status};
  std::int64_t scored = 0;
  for (const auto& prompt : asked_.prompts) result.prompt_tokens += std::ssize(prompt.prompt);
  for (const auto& prompt : prompts_)
    scored += prompt.scored ? std::ssize(prompt.scored->log_probability) : 0;
  for (const auto& choice : choices_) result.generated_tokens += choice.generated;
  place_.metrics.count_end(reason, seconds);
  place_.metrics.count_tokens(result.prompt_tokens, scored, result.generated_tokens);
  place_.ended(result);
}

}  // namespace ratplus::serve
