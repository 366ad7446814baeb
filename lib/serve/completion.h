// Completion: one request for completions on its way: its work for the engine, and the JSON of what comes back.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "lib/generate/generator.h"
#include "lib/generate/text_stream.h"
#include "lib/serve/completion_request.h"
#include "lib/serve/engine_loop.h"
#include "lib/serve/http.h"
#include "lib/serve/metrics.h"
#include "lib/serve/pool.h"
#include "lib/serve/token_names.h"

namespace ratplus::serve {

/// How a completion ended.
struct CompletionEnd {
  std::uint64_t number = 0;  ///< of the request
  std::string reason;        ///< stop, length, cancelled, error
  std::int64_t prompts = 0, answers = 0;
  std::int64_t prompt_tokens = 0, generated_tokens = 0;
  std::int64_t sequences = 0;  ///< as counted for the queue
  double seconds = 0;          ///< since the request came
  int status = 200;            ///< of HTTP
};

/// What completions share. All of it outlives them.
struct CompletionPlace {
  Engines& loop;
  Pool& pool;
  Metrics& metrics;
  const generate::ModelText& text;
  const TokenNames& names;
  /// Called once for each, by some thread.
  std::function<void(const CompletionEnd&)> ended;
};

enum class CompletionForm : std::uint8_t {
  openai,          ///< /v1/completions
  chat,            ///< /v1/chat/completions
  generate,        ///< PUT /generate: {"text": [...]}
  generate_nested  ///< the same with one text: {"text": "..."}
};

class Completion : public OutputTaker, public std::enable_shared_from_this<Completion> {
 public:
  using Clock = std::chrono::steady_clock;

  struct Asked {
    std::uint64_t number = 0;  ///< of the request, unique
    std::string model = {};    ///< the served name
    std::size_t pattern = 0;
    CompletionForm form = CompletionForm::openai;
    CompletionRequest request = {};
    std::vector<generate::GenerationRequest> prompts = {};  ///< of prepare()
    Clock::time_point came = {};
  };

  /// Begins the work; it lives until its end.
  static std::weak_ptr<Completion> start(const CompletionPlace& place, Asked asked,
                                         std::shared_ptr<Reply> reply);
  /// Ends it with status 504, unless it has ended.
  void expire(double seconds);
  /// The sequences that a request takes of the queue: answers, and texts to score.
  static std::int64_t sequences_of(const CompletionRequest& request);

  void take(std::vector<Output> outputs) override;
  void fail(const std::string& why, int status) override;

  Completion(const CompletionPlace& place, Asked asked, std::shared_ptr<Reply> reply);

 private:
  struct Token {
    infer::TokenScore score;
    std::vector<infer::TokenScore> top;
    std::int64_t offset = 0;  ///< characters of the answer's text before it
  };
  struct Choice {
    std::optional<generate::TextStream> stream = {};
    std::string text = {};               ///< that was not sent yet
    std::vector<Token> tokens = {};      ///< that were not sent yet; only where they are shown
    std::vector<std::int32_t> ids = {};  ///< the same
    std::int64_t generated = 0;
    std::int64_t characters = 0;
    generate::Finish finish = generate::Finish::none;
    bool echoed = false;       ///< the prompt was sent
    bool ended_shown = false;  ///< its finish_reason was sent
    bool role_shown = false;   ///< of a chat: its role was sent
    std::optional<Clock::time_point> last = {};
  };
  struct Prompt {
    std::optional<infer::Scored> scored = {};
  };

  /// Runs it after all before; what it throws fails the request.
  void post(std::function<void()> task);
  void begin();
  Work work_for(std::size_t prompt) const;
  bool scores() const;
  bool next_by_score(std::size_t prompt) const;
  std::size_t prompt_of(std::size_t choice) const { return choice / answers(); }
  std::size_t answers() const { return static_cast<std::size_t>(asked_.request.settings.answers); }

  void take_one(Output& output);
  void take_scores(std::size_t prompt, infer::Scored scored);
  void take_event(std::size_t choice, const infer::Event& event);
  void add_token(Choice& choice, std::int32_t token, float log_probability,
                 std::vector<infer::TokenScore> top);
  void end_choice(Choice& choice, generate::Finish finish);
  bool all_ended() const;

  void answer();
  void flush();
  nlohmann::ordered_json head() const;
  nlohmann::ordered_json usage() const;
  nlohmann::ordered_json choice_json(std::size_t index);
  nlohmann::ordered_json chat_choice_json(std::size_t index);
  nlohmann::ordered_json chat_token_json(const infer::TokenScore& score) const;
  void append_prompt_scores(std::size_t prompt, nlohmann::ordered_json& json) const;
  void append_token(const Token& token, std::int64_t offset, nlohmann::ordered_json& json) const;
  nlohmann::ordered_json tops_json(const std::vector<infer::TokenScore>& top) const;
  void fail_now(int status, const std::string& why);
  void end(const std::string& reason, int status = 200);

  const CompletionPlace& place_;
  Asked asked_;
  std::shared_ptr<Reply> reply_;
  Serial serial_;
  std::vector<Prompt> prompts_;
  std::vector<Choice> choices_;  ///< those of one prompt together
  std::int64_t created_ = 0;     ///< seconds since 1970
  bool sending_ = false;         ///< a piece of a stream is on its way
  bool streamed_ = false;        ///< a piece of a stream was sent
  bool ended_ = false;
};

}  // namespace ratplus::serve
