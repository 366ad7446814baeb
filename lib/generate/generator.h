// Generator: an engine's requests with their texts: prompts in, answers out, piece by piece.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lib/generate/model_text.h"
#include "lib/generate/settings.h"
#include "lib/generate/text_stream.h"
#include "lib/infer/engine.h"

namespace ratplus::generate {

enum class Finish : std::uint8_t {
  none,    ///< goes on
  stop,    ///< a stop text, a stop token or the end of the text
  length,  ///< max_tokens are there
};
const char* to_string(Finish finish);

struct Answer {
  std::string text;                  ///< without the stop token, and without the stop text and all after it
  std::vector<std::int32_t> tokens;  ///< all that were generated: the one that ended the answer, too
  std::vector<float> log_probabilities;             ///< of the tokens, where asked for
  std::vector<std::vector<infer::TokenScore>> top;  ///< the same
  Finish finish = Finish::none;
};

/// One token of one answer.
struct AnswerPiece {
  std::int64_t request = 0;  ///< as add() numbers them
  std::int64_t answer = 0;   ///< of the request
  std::int32_t token = -1;
  std::string text = {};  ///< that may be shown now; often none
  Finish finish = Finish::none;
};

/// The engine's request for answer number `answer` of a request whose max_tokens are filled in: its stop tokens with the end
/// of the text, and a ban of tokens without a text.
infer::Request engine_request(const GenerationRequest& request, const ModelText& model, std::int64_t answer);

class Generator {
 public:
  /// Both outlive it.
  Generator(infer::Engine& engine, const ModelText& model) : engine_(engine), model_(model) {}

  /// The request with its prompt cut where that was asked for, and its max_tokens filled in. Throws Error, beginning with
  /// `where`, unless the engine can answer it.
  GenerationRequest checked(GenerationRequest request, const std::string& where) const;
  /// Queues a request that is checked; `where` begins the message of an error in it. Returns its number.
  std::int64_t add(const GenerationRequest& request, std::string where);
  /// Ends a request; its answers stay as they are.
  void cancel(std::int64_t request);

  bool idle() const { return engine_.idle(); }
  /// One pass of the engine. Throws Error where a model's logits are not finite.
  std::vector<AnswerPiece> step();
  /// The answers so far.
  const std::vector<Answer>& answers(std::int64_t request) const { return requests_.at(request).answers; }
  bool finished(std::int64_t request) const { return requests_.at(request).unfinished == 0; }
  /// Takes the answers of a request, which is forgotten.
  std::vector<Answer> take(std::int64_t request);

 private:
  struct Running {
    std::string where;
    bool as_text = true;
    std::vector<Answer> answers = {};
    std::vector<TextStream> streams = {};
    std::vector<std::int64_t> numbers = {};  ///< of the answers in the engine
    std::int64_t unfinished = 0;
  };
  struct Place {
    std::int64_t request = 0;
    std::int64_t answer = 0;
  };

  AnswerPiece take_event(const infer::Event& event);

  infer::Engine& engine_;
  const ModelText& model_;
  std::map<std::int64_t, Running> requests_;
  std::map<std::int64_t, Place> places_;  ///< by the engine's number
  std::int64_t next_ = 0;
};

}  // namespace ratplus::generate
