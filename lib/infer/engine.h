// Engine: many requests for tokens over one model on one device, joined to and leaving a running batch at every step.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lib/infer/pass.h"
#include "lib/infer/prefixes.h"
#include "lib/infer/sampling.h"

namespace ratplus::infer {

struct Request {
  std::vector<std::int32_t> prompt = {};       ///< at least one token
  std::int64_t max_tokens = 16;                ///< generated at most, at least one
  std::vector<std::int32_t> stop_tokens = {};  ///< each ends the sequence, and is its last token
  SamplingParameters sampling = {};
  std::uint32_t choice = 0;  ///< tells apart sequences of one seed
  std::optional<std::int64_t> log_probabilities =
      {};  ///< of the chosen token and of this many of the largest
};

enum class End : std::uint8_t {
  none,        ///< goes on
  stop_token,  ///< the last token is one of the request's stop_tokens
  length,      ///< max_tokens are there
  not_finite   ///< logits without a distribution; the token is -1
};

struct TokenScore {
  std::int32_t token = -1;
  float log_probability = 0;
};

/// One generated token of one request.
struct Event {
  std::int64_t request = 0;
  std::int32_t token = -1;
  End end = End::none;
  float log_probability = 0;         ///< natural, from the model's own logits; 0 unless asked for
  std::vector<TokenScore> top = {};  ///< the largest, descending
};

/// What an engine takes of a device.
struct EngineSettings {
  std::int64_t tokens = 4096;  ///< of a sequence at most, prompt and generated
  std::int64_t slots = 1;      ///< sequences in flight at most
  double sequences = 1;        ///< of `tokens` tokens that caches hold; sequences that need less are more
  std::int64_t rows = 2048;    ///< tokens of a pass at most
  double rope_scale = 1;
  std::int64_t prefix_bytes = 0;  ///< for snapshots of the prompts' beginnings; 0: none is kept
};

/// What snapshots and shared prompts saved.
struct PrefixUse {
  std::int64_t hits = 0;       ///< sequences that began with a snapshot, or with another's prompt
  std::int64_t tokens = 0;     ///< of their prompts that were not computed again
  std::int64_t snapshots = 0;  ///< that are kept now
  std::int64_t bytes = 0;      ///< of these
};

/// Sequences with one prompt that wait together compute it once. With prefix_bytes, a prompt begins with the longest snapshot of
/// its first tokens: prompts leave one at their last multiple of prompt_cut, and where another prompt parts from them. All bits
/// are those without.
class Engine {
 public:
  /// Plans its memory in the arena; prepare() once after the arena's commit. weights and ops outlive it.
  Engine(const model::PatternPlan& plan, const EngineSettings& settings, const Weights& weights, Ops& ops,
         Arena& arena);
  void prepare();

  const EngineSettings& settings() const { return settings_; }
  const CacheShape& shape() const { return caches_.shape(); }
  const Caches& caches() const { return caches_; }
  PrefixUse prefix_use() const;
  /// Throws Error where prefix_bytes are too few for one snapshot under the plan; `shared`: they are a share of the user's.
  static void check_prefix_bytes(const model::ModelConfig& config, const model::PatternPlan& plan,
                                 const EngineSettings& settings, DType compute, bool shared = false);
  /// The least prefix_bytes above 0 that serve.
  static std::int64_t least_prefix_bytes(const CacheShape& shape, const EngineSettings& settings,
                                         DType compute);
  /// Drops all snapshots: the weights are others.
  void forget_prefixes() { prefixes_.clear(); }

  /// Throws Error, beginning with `where`, unless the request can be answered by an idle engine: its tokens are of the
  /// vocabulary, its length and its parameters are within bounds.
  void check(const Request& request, const std::string& where) const;
  /// Queues a request that check() accepts; returns its number.
  std::int64_t add(Request request);
  /// The same as if the first `length` tokens of a sequence were its prompt, and in its cache, whose contents are whatever the
  /// memory holds: to measure steps of a long sequence. It has room now (Caches::fits of both lengths together).
  std::int64_t add_at(std::int64_t length, std::int64_t max_tokens);
  /// Forgets a request, wherever it is; nothing happens where it has ended.
  void cancel(std::int64_t request);

  bool idle() const { return waiting_.empty() && running_.empty(); }
  std::int64_t waiting() const { return std::ssize(waiting_); }
  std::int64_t running() const { return std::ssize(running_); }
  /// One pass: a token for every sequence whose prompt is in, and pieces of further prompts beside them. Requests begin in
  /// the order of add(), each as soon as its whole length has room.
  std::vector<Event> step();

 private:
  struct Sequence {
    std::int64_t number = 0;
    Request request;
    TokenCounts counts;
    int slot = -1;
    std::int64_t prefilled = 0;  ///< tokens of the prompt in the cache
    std::vector<std::int32_t> generated = {};
    PromptBlocks blocks = {};             ///< where snapshots are kept
    std::vector<std::int64_t> cuts = {};  ///< lengths at which a snapshot is kept, ascending, above prefilled
    std::int64_t leader = -1;             ///< the sequence that computes its prompt; -1: itself

    bool ready() const { return prefilled == std::ssize(request.prompt); }
    bool prefills() const { return leader < 0 && !ready(); }
    std::int64_t tokens() const { return std::ssize(request.prompt) + request.max_tokens - 1; }
  };

  void admit();
  void lead(Sequence& s);
  bool awaits_prefix(const Sequence& next, std::int64_t found) const;
  void plan_cuts(Sequence& s) const;
  void count_hit(std::int64_t tokens);
  std::vector<Event> sample(const std::vector<std::size_t>& sequences, std::span<const std::int64_t> rows);
  void adjust(std::span<const std::size_t> sequences, const Tensor& logits);
  void score(std::span<const std::size_t> sequences, const Tensor& logits, const Tensor& labels,
             std::span<Event> events);
  End end_of(const Sequence& sequence) const;

  EngineSettings settings_;
  const Weights& weights_;
  Ops& ops_;
  Caches caches_;
  Prefixes prefixes_;
  Pass pass_;
  PrefixUse use_;
  std::deque<Sequence> waiting_;
  std::vector<Sequence> running_;
  std::int64_t next_ = 0;
  // Of the sampled rows.
  Tensor sampled_;  ///< i32 [slots]
  Tensor
      rules_;  ///< f32 [5 slots]: temperatures, top_p, min_p, uniform numbers, and top_k as i32, one behind the other
  Tensor log_probability_;                   ///< f32 [slots]
  Tensor top_tokens_, top_log_probability_;  ///< [slots, most_tops]
  Tensor entry_row_, entry_token_;           ///< i32 [most entries]
  Tensor entry_factor_, entry_addend_;       ///< f32 [most entries]
  Tensor unchanged_;  ///< f32 [a few, V]: logits before penalties, for log-probabilities
};

/// Tops of one token at most.
inline constexpr std::int64_t most_tops = 20;

}  // namespace ratplus::infer
